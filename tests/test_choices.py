"""Remembered choices of amo: the same GTs as plain scoring of unflipped crops, scored once by whoever comes first."""

import json
import multiprocessing
import os

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from sr_iqa.cli import app
from sr_iqa.config.models import DataOptions
from sr_iqa.data.choices import UNKNOWN, Choices
from sr_iqa.data.store import open_reader
from sr_iqa.errors import UserError
from sr_iqa.iqa.crop_scores import score_all_crops
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.training.build import build_stream
from sr_iqa.training.steps import unflipped
from sr_iqa.training.trainer import train
from tests.helpers import make_sets
from tests.tiny_runs import tiny

SIDE, GRID = 32, 8


def options(root, name="amo", **sampling):
    """A tiny run with amo on a grid."""
    sampled = {"strategy": "amo", "metric": "nano", "grid": GRID, **sampling}
    return tiny(root, name, {"datasets": {"train": {"use_hflip": True, "use_rot": True, "sampling": sampled}}})


@pytest.fixture
def root(tmp_path):
    make_sets(tmp_path / "data", n=3, k=2, size=48)
    return tmp_path


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def calls(monkeypatch):
    """How many crops nano scored in the training steps and in score_all_crops."""
    counted = []
    signed = type(create_metric("nano")).signed
    monkeypatch.setattr(type(create_metric("nano")), "signed", lambda self, x: counted.append(len(x)) or signed(self, x))
    return counted


def losses(folder):
    return [(line["step"], line["l_pix"], line["chosen"]) for line in lines(folder) if "l_pix" in line]


def test_later_runs_score_nothing_and_train_the_same(root, calls):
    first = losses(train(options(root, "first"), quiet=True))
    scored = sum(calls)
    assert scored > 0
    second = losses(train(options(root, "second"), quiet=True))
    assert sum(calls) == scored and first == second


def test_filled_ahead_nothing_is_left_to_score(root, calls):
    plain = losses(train(options(root, "plain", choices=str(root / "apart")), quiet=True))
    assert "100% of the choices of 27 crops" in score_all_crops(options(root))
    scored = sum(calls)
    assert losses(train(options(root, "filled"), quiet=True)) == plain and sum(calls) == scored
    score_all_crops(options(root))
    assert sum(calls) == scored


def test_the_remembered_gt_scores_best_before_flips(root):
    score_all_crops(options(root))
    judge = create_metric("nano")
    stream = build_stream(options(root), judge)
    reader = open_reader(DataOptions(type="multi_gt", dataroot_gt=root / "data" / "images", dataroot_labels=root / "data" / "labels"))
    flips = set()
    for n in range(40):
        plan = stream.plan(n)
        assert plan.y % GRID == 0 and plan.x % GRID == 0
        crops = np.stack([reader.crop(plan.index, k, plan.y, plan.x, SIDE, SIDE) for k in range(3)])
        scores = judge.signed(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
        assert plan.member == int(scores.argmax()) and len(stream[n]["gts"]) == 1
        flips.add((plan.hflip, plan.vflip, plan.transpose))
    assert len(flips) == 8


def test_what_the_step_scores_is_what_stood_in_the_image(root):
    stream = build_stream(options(root), create_metric("nano"))
    for n in range(16):
        sample, plan = stream[n], stream.plan(n)
        assert len(sample["gts"]) == 3
        crops = unflipped(sample["gts"][None], sample["flips"][None])[0]
        for k in range(3):
            assert np.array_equal(crops[k].permute(1, 2, 0), stream.reader.crop(plan.index, k, plan.y, plan.x, SIDE, SIDE))


def test_other_data_metrics_and_grids_have_other_memories(root):
    paths = {build_stream(options(root, grid=grid), create_metric("nano")).choices.path for grid in (8, 16)}
    make_sets(root / "data", n=3, k=2, size=48, seed=9)
    paths.add(build_stream(options(root), create_metric("nano")).choices.path)
    assert len(paths) == 3


def test_the_memory_is_shared_between_processes(root):
    choices = build_stream(options(root), create_metric("nano")).choices
    assert choices.member(5) == UNKNOWN and choices.known == 0
    child = multiprocessing.get_context("spawn").Process(target=note_one, args=(choices,))
    child.start()
    child.join()
    assert child.exitcode == 0 and choices.member(5) == 2


def note_one(choices):
    choices.note(torch.tensor([5]), torch.tensor([2]))
    choices.flush()


def test_a_damaged_memory_is_scored_again(root, calls):
    score_all_crops(options(root))
    path = build_stream(options(root), create_metric("nano")).choices.path
    whole, calls[:] = path.read_bytes(), []
    path.write_bytes(bytes([77]) + whole[1:])
    score_all_crops(options(root))
    assert path.read_bytes() == whole and sum(calls) == 3
    path.write_bytes(bytes([77]) * len(whole))
    train(options(root), quiet=True)
    again = np.frombuffer(path.read_bytes(), np.uint8)
    assert set(again[again != 77]) <= {0, 1, 2} and (again != 77).any()


def test_where_nothing_can_be_written_the_run_remembers_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way of the folder")
    choices = Choices(tmp_path / "file" / "sub", {}, [(48, 64)], SIDE, GRID)
    assert len(choices) == 3 * 5 and choices.place(0, 16, 32) == 14 and choices.corners(0)[14] == (16, 32)
    choices.note(torch.tensor([3]), torch.tensor([1]))
    choices.flush()
    assert choices.member(3) == 1
    written = Choices(tmp_path / "written", {}, [(48, 64)], SIDE, GRID)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    written.note(torch.tensor([3]), torch.tensor([1]))
    written.flush()
    assert written.member(3) == 1 and written.path.read_bytes() == bytes([UNKNOWN]) * 15


@pytest.mark.parametrize("sampling", [{"grid": 1}, {"strategy": "uniform_all"}])
def test_runs_without_a_memory_have_nothing_to_fill(root, sampling):
    with pytest.raises(UserError, match="nothing to fill|scores no crops"):
        score_all_crops(options(root, **sampling))


def test_the_command_fills_it(root):
    path = root / "run.yml"
    path.write_text(yaml.safe_dump(options(root).model_dump(mode="json", exclude_defaults=True)))
    done = CliRunner().invoke(app, ["data", "score", "-opt", str(path), "--crops"])
    assert done.exit_code == 0 and "100% of the choices of 27 crops are remembered" in done.output
    assert isinstance(CliRunner().invoke(app, ["data", "score", "-opt", str(path)]).exception, UserError)

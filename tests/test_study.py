"""Studies: the file, what is trained and when, resuming, changes, runs in processes of their own, exports."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sr_iqa.config import OptionsError
from sr_iqa.errors import UsageError, UserError
from sr_iqa.study import study as study_module
from sr_iqa.study.board import Board, last_lines
from sr_iqa.study.exports import latex, long_table
from sr_iqa.study.runner import run_study
from sr_iqa.study.study_file import load_study
from tests.helpers import make_sets
from tests.tiny_runs import SWINIR

STUDY = {
    "name": "tiny",
    "base": "base.yml",
    "optimised_metric": "nano",
    "metrics": ["psnr", "nano"],
    "variants": {
        "original": {},
        "amo": {"datasets.train.sampling": {"strategy": "amo", "metric": "nano"}},
        "amo_reward": {"starts_from": "amo", "lora": {"rank": 2}, "train.reward_opt": {"metric": "nano", "weight": 0.01}},
    },
}


@pytest.fixture
def study_file(tmp_path):
    """A study of three variants of two steps over three sets of 48 px."""
    root = make_sets(tmp_path / "sets", n=3, k=2, size=48)
    data = {"type": "multi_gt", "dataroot_gt": str(root / "images"), "dataroot_labels": str(root / "labels")}
    data["degradation"] = {"preset": "bicubic"}
    base = {
        "name": "base",
        "scale": 2,
        "datasets": {"train": {**data, "gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}, "val": data},
        "network_g": SWINIR,
        "train": {"total_iter": 2, "optim_g": {"type": "Adam", "lr": 1e-3}, "pixel_opt": {"type": "L1Loss"}},
        "val": {"metrics": ["psnr"], "val_freq": 1},
        "logger": {"print_freq": 1, "use_tb_logger": False},
    }
    (tmp_path / "base.yml").write_text(yaml.safe_dump(base))
    return write(tmp_path, {**STUDY, "experiments_root": str(tmp_path / "experiments")})


def write(folder, content):
    (folder / "study.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "study.yml"


def write_text(path, text):
    path.write_text(text)
    return path


def changed(study_file, **more):
    return write(study_file.parent, {**yaml.safe_load(study_file.read_text()), **more})


def run(study_file, **arguments):
    said = []
    written = run_study(load_study(study_file), say=said.append, **arguments)
    return json.loads(written.results.read_text()), said, written


def log_of(study_file, name, seed=0):
    return study_file.parent / "experiments" / "tiny" / "runs" / f"seed{seed}" / name / "metrics.jsonl"


def test_a_study_trains_evaluates_and_reports_every_variant_and_seed(study_file):
    results, said, written = run(changed(study_file, seeds=[0, 5], baseline="amo", expected_order=["original", "amo"]))
    assert list(results["variants"]) == ["original", "amo", "amo_reward"]
    assert all([r["seed"] for r in v["runs"]] == [0, 5] for v in results["variants"].values())
    assert results["statistics"]["baseline"] == "amo" and results["statistics"]["photos"] == 3
    assert len(results["checks"]) == 2
    options = results["variants"]["amo_reward"]["options"]
    assert options["path"]["pretrain_network_g"].endswith("seed0/amo/models/net_g_2.safetensors") and options["lora"] == {"rank": 2}
    assert written.report.exists() and any(line.startswith("trained amo (seed 5): nano ") for line in said)
    folder = written.results.parent
    table = pd.read_parquet(folder / "results.parquet")
    assert len(table) == 2 * 3 * sum(len(variant["metrics"]) for variant in results["variants"].values())
    mean = table[(table.variant == "amo") & (table.column == "nano")].value.mean()
    assert mean == pytest.approx(results["variants"]["amo"]["metrics"]["nano"]["mean"])
    pd.testing.assert_frame_equal(pd.read_csv(folder / "results.csv", dtype={"photo": str}), table, check_dtype=False)
    assert r"\toprule" in (folder / "results.tex").read_text() and r"amo\_reward" in (folder / "results.tex").read_text()


def test_a_second_call_trains_and_evaluates_nothing_again(study_file, monkeypatch):
    first, _, _ = run(study_file)
    monkeypatch.setattr(study_module, "train", None)
    monkeypatch.setattr(study_module, "evaluate", None)
    second, _, _ = run(study_file)
    assert {n: v["metrics"] for n, v in first["variants"].items()} == {n: v["metrics"] for n, v in second["variants"].items()}


def test_only_trains_the_named_and_reports_all_that_are_trained(study_file):
    results, _, _ = run(study_file, only=["amo"])
    assert list(results["variants"]) == ["amo"]
    results, _, _ = run(study_file, only=["original"])
    assert list(results["variants"]) == ["original", "amo"]


def test_changed_options_are_named_and_redo_trains_only_the_named(study_file):
    run(study_file)
    before = log_of(study_file, "amo").read_text()
    variants = {**STUDY["variants"], "original": {"train.optim_g.lr": 0.5}}
    other = changed(study_file, variants=variants)
    with pytest.raises(UserError, match=r"original \(seed 0\): train\.optim_g\.lr: 0\.001 -> 0\.5") as refused:
        run(other)
    assert "--redo original" in str(refused.value) and "amo" not in str(refused.value)
    run(other, redo=["original"])
    assert log_of(study_file, "amo").read_text() == before
    assert list(log_of(study_file, "original").parent.parent.glob("original_archived_*"))


def test_changed_data_are_noticed(study_file):
    run(study_file)
    shutil.copy(*sorted((study_file.parent / "sets" / "images" / "original").iterdir())[:2])
    with pytest.raises(UserError, match=r"amo \(seed 0\): datasets\.train: not what it was"):
        run(study_file)


def test_a_variant_whose_parent_was_trained_anew_is_not_reported_until_it_is_too(study_file):
    run(study_file)
    variants = {**STUDY["variants"], "amo": {**STUDY["variants"]["amo"], "train.optim_g.lr": 0.01}}
    other = changed(study_file, variants=variants)
    with pytest.raises(UserError, match=r"amo_reward \(seed 0\): path\.pretrain_network_g: not what it was"):
        run(other, redo=["amo"])
    results, _, _ = run(other, redo=["amo_reward"])
    assert results["variants"]["amo"]["options"]["train"]["optim_g"]["lr"] == 0.01


def test_another_length_of_training_is_another_variant(study_file):
    run(study_file, only=["original"])
    longer = changed(study_file, variants={**STUDY["variants"], "original": {"train.total_iter": 3}})
    with pytest.raises(UserError, match=r"original \(seed 0\): train\.total_iter: 2 -> 3"):
        run(longer, only=["original"])


def test_nothing_is_moved_aside_before_all_is_known_to_fit(study_file):
    run(study_file)
    variants = {**STUDY["variants"], "amo": {"train.optim_g.lr": 0.5}, "original": {"train.optim_g.lr": 0.5}}
    with pytest.raises(UserError, match="original"):
        run(changed(study_file, variants=variants), redo=["amo"])
    assert log_of(study_file, "amo").exists() and not list(log_of(study_file, "amo").parent.parent.glob("amo_archived_*"))


def test_all_variants_are_evaluated_by_the_baselines_protocol(study_file):
    variants = {"original": {"val.max_images": 2, "val.against": "best"}, "amo": STUDY["variants"]["amo"]}
    results, _, _ = run(changed(study_file, variants=variants, baseline="original"))
    for variant in results["variants"].values():
        assert len(variant["metrics"]["psnr"]["per_image"]) == 2 and variant["metrics"]["psnr"]["against"] == "best"
    assert len(results["gold_standard"]["nano"]["per_image"]) == len(results["data"]["sets"]) == 2


def test_other_lqs_are_evaluated_anew_without_training(study_file, monkeypatch):
    before, _, _ = run(study_file, only=["original"])
    monkeypatch.setattr(study_module, "train", None)
    after, _, _ = run(changed(study_file, shared={"datasets.val.degradation": {"preset": "hggt"}}), only=["original"])
    psnr = [results["variants"]["original"]["metrics"]["psnr"]["mean"] for results in (before, after)]
    assert psnr[0] != psnr[1]


def test_the_study_file_in_the_docs_can_be_read(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
    study = load_study(write_text(tmp_path / "study.yml", text.split("```yaml\n")[1].split("```")[0]))
    assert list(study.variants)[-2:] == list(study.lora_against_full)


@pytest.mark.slow
def test_runs_in_processes_of_their_own_give_the_same(study_file, tmp_path):
    here, _, _ = run(study_file)
    there, said, _ = run(changed(study_file, experiments_root=str(tmp_path / "others")), jobs=2)
    assert {n: v["metrics"]["nano"]["per_image"] for n, v in here["variants"].items()} == {
        n: v["metrics"]["nano"]["per_image"] for n, v in there["variants"].items()
    }
    trained = sorted(line.partition(":")[0] for line in said if line.startswith("trained"))
    assert trained == [f"trained {name} (seed 0)" for name in ("amo", "amo_reward", "original")]


def test_a_failed_run_is_named_and_what_starts_from_it_is_not_started(study_file):
    broken = {**STUDY["variants"]["amo"], "train.pixel_opt": {"type": "tests.tiny_runs.BrokenLoss", "at": 0}}
    with pytest.raises(UserError) as refused:
        run(changed(study_file, variants={**STUDY["variants"], "amo": broken}), jobs=2)
    message = str(refused.value)
    assert "amo (seed 0) failed" in message and "l_pix" in message and "became NaN" in message
    assert "amo_reward (seed 0) failed: not started, because amo is not trained" in message
    assert load_study(study_file).is_trained("original", 0)


def test_kill_9_in_the_middle_and_rerun(study_file):
    whole, _, _ = run(changed(study_file, name="whole"))
    changed(study_file, name="killed")
    command = [sys.executable, "-m", "sr_iqa", "compare", "-opt", str(study_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        while not (study_file.parent / "experiments" / "killed" / "runs" / "seed0" / "amo").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    again, _, _ = run(study_file)
    for name, variant in whole["variants"].items():
        assert variant["metrics"]["nano"]["per_image"] == again["variants"][name]["metrics"]["nano"]["per_image"]


@pytest.mark.slow
def test_sigterm_stops_the_runs_in_processes_of_their_own_too(study_file, tmp_path):
    long = {name: {**overrides, "train.total_iter": 100_000} for name, overrides in STUDY["variants"].items()}
    changed(study_file, variants=long)
    command = [sys.executable, "-m", "sr_iqa", "compare", "-opt", str(study_file), "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        folder = tmp_path / "experiments" / "tiny" / "runs" / "seed0" / "original"
        while not (folder / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"varients": {}}, r"study\.yml:\d+: varients: unknown key; did you mean variants\?"),
        ({"baseline": "rand"}, "baseline: there is no variant rand; choose from original, amo, amo_reward"),
        ({"variants": {"b": {"starts_from": "a"}, "a": {}}}, r"variants\.b\.starts_from: a is no variant above it"),
        ({"seeds": [1, 1]}, "seeds: expected different numbers"),
        ({"variants": {}}, "variants"),
    ],
)
def test_mistakes_in_a_study_file_are_explained(study_file, change, message):
    with pytest.raises(OptionsError, match=message):
        load_study(changed(study_file, **change))


def test_mistakes_in_overrides_name_the_variant_before_anything_is_trained(study_file):
    variants = {**STUDY["variants"], "amo": {"train.totl_iter": 3}, "amo_reward": {"network_g.depth": [2]}}
    with pytest.raises(OptionsError) as refused:
        run(changed(study_file, variants=variants))
    assert len(refused.value.problems) == 2 and all("did you mean" in line for line in refused.value.problems)
    assert refused.value.problems[0].startswith("variant amo: ") and not log_of(study_file, "original").exists()
    with pytest.raises(UsageError, match="there is no variant x"):
        run(changed(study_file, variants=STUDY["variants"]), only=["x"])


def test_nothing_starts_from_an_adapter(study_file):
    variants = {**STUDY["variants"], "more": {"starts_from": "amo_reward"}}
    with pytest.raises(UsageError, match="amo_reward trains an adapter"):
        run(changed(study_file, variants=variants))


def test_the_board_reads_what_runs_leave_behind(study_file, tmp_path):
    run(study_file, only=["amo"])
    rows = {name: Board(load_study(study_file), print)._row(name, 0) for name in ("original", "amo")}
    assert rows["original"] == ("waiting", "", "", "")
    assert rows["amo"][:2] == ("done", "2/2") and "l_pix" in rows["amo"][3]
    long = tmp_path / "metrics.jsonl"
    long.write_text("".join(json.dumps({"step": i, "x": "y" * 100}) + "\n" for i in range(1000)) + '{"step": 10')
    assert [line["step"] for line in last_lines(long)][-1] == 999 and len(last_lines(long)) < 400


def test_latex_marks_the_best_and_escapes_names(study_file):
    results, _, _ = run(study_file, only=["original", "amo"])
    text = latex(results)
    assert text.count(r"\\") == 1 + 1 + 2 and text.count(r"\textbf") >= len(results["variants"]["amo"]["metrics"])
    assert r"psnr\_original $\uparrow$" in text and text.startswith(r"\begin{tabular}{l")
    assert set(long_table(results).photo) == {"0000", "0001", "0002"} and np.isfinite(long_table(results).value).all()


@pytest.mark.slow
def test_runs_under_a_launcher_of_two_processes(study_file, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    launch = f"{sys.executable} -m accelerate.commands.launch --multi_gpu --num_processes 2"
    results, _, _ = run(study_file, only=["amo"], launch=launch)
    versions = json.loads((log_of(study_file, "amo").parent / "versions.json").read_text())
    assert versions[0]["processes"] == 2 and list(results["variants"]) == ["amo"]

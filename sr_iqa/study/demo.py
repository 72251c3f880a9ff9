"""The demo: the main job from photos to report, on data and weights that the package brings along.

Makes multi-GT sets, packs and scores them, runs the study of assets/demo_study.yml on them, and adds what is expected of amo's choices.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from sr_iqa.checkpoints import file_hash
from sr_iqa.config import Options
from sr_iqa.config.models import DataOptions
from sr_iqa.data.demo import DemoData, make_demo_sets
from sr_iqa.data.packing import pack
from sr_iqa.errors import UserError
from sr_iqa.images import list_images
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.scores import read_scores, score_data
from sr_iqa.sampling import ArgmaxOnline
from sr_iqa.scorecard import member_name, write_json
from sr_iqa.training.build import build_stream

from .results import Check, Results, shares
from .results import Variant as Row
from .runner import run_study
from .study import Study
from .study_file import load_study

ASSETS = Path(str(files("sr_iqa"))) / "assets"
MOST_PER_EGT = 0.6
LEAST_LOCAL = 0.2


@dataclass(frozen=True)
class DemoResult:
    table: str
    """The beginning of results.md, for the screen."""
    results: Path
    report: Path


def run_demo(out: Path, images: Path | None = None, seeds: int = 1, say: Callable[[str], None] = lambda text: None) -> DemoResult:
    """Runs the whole demo into `out`; a second call goes on where the first stopped.

    Args:
        out: folder for data, runs, outputs, results and report.
        images: a folder of photos to use instead of the shipped ones; some of them are held out.
        seeds: how many times every variant is trained.
        say: takes one line of progress at a time.
    """
    clock = Clock(say)
    refuse_other_demo(out, images)
    data = make_demo_sets(out / "data", images)
    clock(f"{data.train_sets} training sets, {data.heldout_sets} held-out sets from other photos: {data.root}")
    study = make_study(out, data, seeds)
    prepare(study, data)
    clock(f"packed, and scored with {study.optimised_metric}")

    def finish(results: Results) -> None:
        results["checks"] += choice_checks(study, results["variants"]["amo"])
        results["provenance"]["weights"] = {name: file_hash(ASSETS / name) for name in ("nano.safetensors", "base_x4.safetensors")}
        results["provenance"]["seconds"] = round(clock.seconds)

    about = {
        "training photos": list(data.train_photos),
        "held-out photos": list(data.heldout_photos),
        "training sets": data.train_sets,
        "labels": "made by three rules (docs/demo.md), not by people",
    }
    written = run_study(study, say=clock, data=about, finish=finish)
    clock("report written")
    return DemoResult(written.headline, written.results, written.report)


def refuse_other_demo(out: Path, images: Path | None) -> None:
    """Records what a demo is made from in `out`, and refuses to go on with one that was made from something else.

    Raises:
        UserError: the photos, the weights, the enhancers or the options are others than those that the folder's runs were made with.
    """
    makers = ("demo.py", "enhance.py", "annotators.py")
    sources = [*sorted(ASSETS.iterdir()), *(ASSETS.parent / "data" / name for name in makers)]
    made_from = {path.name: file_hash(path) for path in [*sources, *(list_images(images) if images else ())] if path.is_file()}
    record = out / "made_from.json"
    if record.is_file() and json.loads(record.read_text()) != made_from:
        raise UserError(f"{out} holds a demo of other photos or of another version of sr_iqa: delete it, or choose another --out")
    write_json(made_from, record)


class Clock:
    """Says lines with the seconds since the start."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._start = say, time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def __call__(self, text: str) -> None:
        self._say(f"[{self.seconds:4.0f} s] {text}")


def make_study(out: Path, data: DemoData, seeds: int) -> Study:
    """The study of assets/demo_study.yml on the data."""
    study = load_study(ASSETS / "demo_study.yml")
    shared = {
        "datasets.train.dataroot_gt": str(data.root / "train.lmdb"),
        "datasets.train.scores": str(data.root / f"train_{study.optimised_metric}.parquet"),
        "datasets.val.dataroot_gt": str(data.root / "heldout.lmdb"),
        "path.pretrain_network_g": str(ASSETS / "base_x4.safetensors"),
        "val.metrics": list(study.metrics),
    }
    return replace(study, root=out, shared=shared, seeds=tuple(range(seeds)))


def prepare(study: Study, data: DemoData) -> None:
    """Packs both parts and scores the training sets; what is there already is kept."""
    for part, folder in (("train", data.train), ("heldout", data.heldout)):
        store = data.root / f"{part}.lmdb"
        if not store.exists():
            pack(DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels"), store)
    train = DataOptions(type="multi_gt", dataroot_gt=Path(study.shared["datasets.train.dataroot_gt"]))
    score_data(train, study.optimised_metric, Path(study.shared["datasets.train.scores"]))


def choice_checks(study: Study, amo: Row) -> list[Check]:
    """Whether amo's choices are local: no EGT takes nearly all crops, and the best crop is often not of the best image."""
    taken = {gt: part for gt, part in shares(amo["chosen"]).items() if gt != member_name(0)}
    most = max(taken, key=taken.__getitem__)
    local = local_share(study.options("amo", study.seeds[0]), study.optimised_metric, Path(study.shared["datasets.train.scores"]))
    return [
        {
            "text": f"amo: no EGT takes more than {MOST_PER_EGT:.0%} of the crops ({most}: {taken[most]:.0%})",
            "holds": taken[most] <= MOST_PER_EGT,
        },
        {
            "text": f"amo: chooses another GT than the best whole-image score on at least {LEAST_LOCAL:.0%} of the crops ({local:.0%})",
            "holds": local >= LEAST_LOCAL,
        },
    ]


def local_share(options: Options, metric: str, scores: Path, samples: int = 400) -> float:
    """Share of an amo run's crops whose best GT is not the best GT of the whole image; the stream draws the run's own crops again."""
    stream = build_stream(options)
    whole = read_scores(scores, stream.reader.sets, metric).argmax(axis=1)
    judge, differ = create_metric(metric), []
    for n in range(samples):
        with torch.no_grad():
            best = ArgmaxOnline().choose_online(judge.signed(stream[n]["gts"].float() / 255)[None])
        differ.append(int(best[0]) != whole[stream.set_index(n)])
    return float(np.mean(differ))

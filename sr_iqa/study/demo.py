"""The demo: the main job from photos to report, on data and weights that the package brings along.

Makes multi-GT sets, packs and scores them, fine-tunes one copy of a small network per variant, evaluates on photos that nothing has seen,
and writes results.json, results.md and report/index.html.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr_iqa.checkpoints import file_hash
from sr_iqa.config import Options
from sr_iqa.config.models import DataOptions
from sr_iqa.data.demo import DemoData, make_demo_sets
from sr_iqa.data.store import open_reader, pack
from sr_iqa.errors import UserError
from sr_iqa.evaluation import describe_sets, gold_standard, low_quality
from sr_iqa.images import list_images, read_image
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.scores import read_scores, score_data
from sr_iqa.sampling import ArgmaxOnline
from sr_iqa.scorecard import member_name, write_json
from sr_iqa.training.build import build_stream
from sr_iqa.training.folder import provenance

from .pictures import SetImages
from .report import write_report
from .results import Check, Results, merge_seeds, order_checks, shares
from .results import Variant as Row
from .significance import add_statistics
from .study import Study, Variant
from .tuning import compare_tuning

Q = "nano"
METRICS = (Q, "niqe", "psnr", "ssimc")
ASSETS = files("sr_iqa") / "assets"
STRATEGIES = ("original", "uniform_all", "uniform_positive", "sma", "smp", "amo")
REWARD: Mapping[str, Any] = {
    "train.total_iter": 60,
    "train.optim_g.lr": 5e-4,
    "train.reward_opt": {"metric": Q, "weight": 0.005},
    "datasets.train.sampling": {"strategy": "amo", "metric": Q},
    "val.val_freq": 20,
}
TEMPERATURE = 6.0
ORDER = ("original", "uniform_all", "amo", "amo_reward")
"""Q is expected to rise in this order, and PSNR to the original GT to fall."""
MOST_PER_EGT = 0.6
LEAST_LOCAL = 0.2


@dataclass(frozen=True)
class DemoResult:
    table: str
    """results.md."""
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
    study = make_study(out, data)
    prepare(study, data)
    clock(f"packed, and scored with {Q}")
    rows = {name: [] for name in study.variants}
    for seed in range(seeds):
        for name in study.variants:
            rows[name].append(train_and_evaluate(study, name, seed, out, clock))
    results = collect(study, data, {name: merge_seeds(runs) for name, runs in rows.items()}, clock)
    written = write_report(results, pictures(study, out), out, title="sr_iqa demo")
    clock("report written")
    return DemoResult(written.table.read_text(encoding="utf-8"), written.results, written.report)


def refuse_other_demo(out: Path, images: Path | None) -> None:
    """Records what a demo is made from in `out`, and refuses to go on with one that was made from something else.

    Raises:
        UserError: the photos, the weights, the enhancers or the options are others than those that the folder's runs were made with.
    """
    package = Path(str(files("sr_iqa")))
    sources = [*sorted((package / "assets").iterdir()), *(package / "data" / name for name in ("demo.py", "enhance.py", "annotators.py"))]
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


def make_study(out: Path, data: DemoData) -> Study:
    """The eight variants: six strategies, and two ways of reward tuning that start from amo."""
    variants = {}
    for name in STRATEGIES:
        sampling: dict[str, Any] = {"strategy": name}
        if name in ("sma", "smp"):
            sampling |= {"metric": Q, "temperature": TEMPERATURE}
        elif name == "amo":
            sampling["metric"] = Q
        variants[name] = Variant({"datasets.train.sampling": sampling})
    variants["amo_reward"] = Variant({**REWARD, "lora": {"rank": 4}}, starts_from="amo")
    variants["amo_reward_nolora"] = Variant(REWARD, starts_from="amo")
    shared = {
        "datasets.train.dataroot_gt": str(data.root / "train.lmdb"),
        "datasets.train.scores": str(data.root / f"train_{Q}.parquet"),
        "datasets.val.dataroot_gt": str(data.root / "heldout.lmdb"),
        "path.pretrain_network_g": str(ASSETS / "base_x4.safetensors"),
        "val.metrics": list(METRICS),
    }
    return Study(Path(str(ASSETS / "demo.yml")), shared, variants, out / "runs")


def prepare(study: Study, data: DemoData) -> None:
    """Packs both parts and scores the training sets; what is there already is kept."""
    for part, folder in (("train", data.train), ("heldout", data.heldout)):
        store = data.root / f"{part}.lmdb"
        if not store.exists():
            pack(DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels"), store)
    score_data(_train_data(study), Q, Path(study.shared["datasets.train.scores"]))


def train_and_evaluate(study: Study, name: str, seed: int, out: Path, clock: Clock) -> Row:
    """One run of one variant."""
    study.train(name, seed)
    row = study.evaluate(name, seed, _heldout(study), _outputs(out, seed) / name)
    values = "  ".join(f"{column} {row['metrics'][column]['mean']:.2f}" for column in (Q, "psnr_original", "niqe"))
    share = "  ".join(f"{gt} {part:.0%}" for gt, part in shares(row["chosen"]).items())
    clock(f"{name} (seed {seed}, {row['steps']} steps): {values}; chosen {share}")
    return row


def collect(study: Study, data: DemoData, variants: dict[str, Row], clock: Clock) -> Results:
    """results.json, checks included."""
    results: Results = {
        "variants": variants,
        "gold_standard": gold_standard(_heldout(study), METRICS, study.options("original", 0).scale),
        "optimised_metric": Q,
        "data": {
            "sets": describe_sets(_heldout(study)),
            "training photos": list(data.train_photos),
            "held-out photos": list(data.heldout_photos),
            "training sets": data.train_sets,
            "labels": "made by three rules (docs/demo.md), not by people",
        },
        "provenance": {
            **provenance(0),
            "threads": torch.get_num_threads(),
            "weights": {name: file_hash(Path(str(ASSETS / name))) for name in ("nano.safetensors", "base_x4.safetensors")},
        },
    }
    add_statistics(results, ORDER[0])
    results["reward_comparison"] = compare_tuning(results, "amo_reward", "amo_reward_nolora")
    results["checks"] = [
        *order_checks(results, ORDER, Q, rising=True),
        *order_checks(results, ORDER, "psnr_original", rising=False),
        *choice_checks(study, variants["amo"]),
    ]
    results["provenance"]["seconds"] = round(clock.seconds)
    return results


def choice_checks(study: Study, amo: Row) -> list[Check]:
    """Whether amo's choices are local: no EGT takes nearly all crops, and the best crop is often not of the best image."""
    taken = {gt: part for gt, part in shares(amo["chosen"]).items() if gt != member_name(0)}
    most = max(taken, key=taken.__getitem__)
    local = local_share(study.options("amo", 0), Path(study.shared["datasets.train.scores"]))
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


def local_share(options: Options, scores: Path, samples: int = 400) -> float:
    """Share of an amo run's crops whose best GT is not the best GT of the whole image; the stream draws the run's own crops again."""
    stream = build_stream(options)
    whole = read_scores(scores, stream.reader.sets, Q).argmax(axis=1)
    judge, differ = create_metric(Q), []
    for n in range(samples):
        with torch.no_grad():
            best = ArgmaxOnline().choose_online(judge.signed(stream[n]["gts"].float() / 255)[None])
        differ.append(int(best[0]) != whole[stream.set_index(n)])
    return float(np.mean(differ))


def pictures(study: Study, out: Path) -> dict[str, SetImages]:
    """The held-out sets with the first seed's outputs, for the report."""
    data = _heldout(study)
    reader, scale = open_reader(data), study.options("original", 0).scale
    images = {}
    for i, entry in enumerate(reader.sets):
        gts = {member_name(k): reader.image(i, k) for k in range(len(entry.paths))}
        outputs = {name: read_image(_outputs(out, 0) / name / f"{entry.name}.png") for name in study.variants}
        images[entry.name] = SetImages(gts, outputs, low_quality(reader, i, data, scale))
    return images


def _outputs(out: Path, seed: int) -> Path:
    return out / "outputs" / f"seed{seed}"


def _train_data(study: Study) -> DataOptions:
    return DataOptions(type="multi_gt", dataroot_gt=Path(study.shared["datasets.train.dataroot_gt"]))


def _heldout(study: Study) -> DataOptions:
    data = study.options("original", 0).datasets.val
    if data is None:
        raise ValueError("the demo's options have held-out data")
    return data

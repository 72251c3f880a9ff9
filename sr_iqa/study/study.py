"""A study: one base option file and named variants of it, trained, evaluated and gathered for the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sr_iqa.check import check
from sr_iqa.config import Options, load
from sr_iqa.config.models import DataOptions
from sr_iqa.evaluation import evaluate
from sr_iqa.iqa.metrics import Metric
from sr_iqa.scorecard import member_name
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.folder import RunFolder, final_weights, run_folder
from sr_iqa.training.logs import read_metrics
from sr_iqa.training.trainer import train

from .results import CurvePoint
from .results import Variant as Row


@dataclass(frozen=True)
class Variant:
    """What distinguishes one run of a study from its base options."""

    overrides: Mapping[str, Any]
    """Dotted option key -> value."""
    starts_from: str | None = None
    """The variant whose trained weights this one starts from, instead of the base options' pretrained ones."""


@dataclass(frozen=True)
class Study:
    """The base option file, what all variants override (data roots, weights), and the variants in the order of training."""

    base: Path
    shared: Mapping[str, Any]
    variants: Mapping[str, Variant]
    runs: Path
    """Where the runs go: <runs>/seed<seed>/<variant>/."""
    metrics: Sequence[str | Metric] = field(default=())
    """What the trained networks are evaluated with; val.metrics where empty."""

    def options(self, name: str, seed: int) -> Options:
        """The checked options of one run; the variant that it starts from must be trained already."""
        variant = self.variants[name]
        merged = {**self.shared, **variant.overrides, "name": name, "manual_seed": seed}
        merged["path.experiments_root"] = str(self.runs / f"seed{seed}")
        if variant.starts_from:
            merged["path.pretrain_network_g"] = str(final_weights(self.runs / f"seed{seed}" / variant.starts_from))
        loaded = load(self.base, [f"{key}={json.dumps(value)}" for key, value in merged.items()])
        check(loaded)
        return loaded.options

    def train(self, name: str, seed: int, quiet: bool = True) -> Path:
        """Trains one variant, or goes on with it; returns its folder. A finished one returns at once."""
        return train(self.options(name, seed), quiet=quiet)

    def evaluate(self, name: str, seed: int, data: DataOptions, save_dir: Path | None = None) -> Row:
        """Evaluates a trained variant on `data`: its entry for results.json."""
        options = self.options(name, seed)
        folder = run_folder(options)
        net = load_trained(folder.root, "cuda" if torch.cuda.is_available() else "cpu")
        evaluation = evaluate(net, data, self.metrics or options.val.metrics, options.scale, options.val.crop_border, save_dir=save_dir)
        return {
            "metrics": evaluation.to_dict()["metrics"],
            "chosen": chosen(folder),
            "steps": options.train.total_iter if options.train else 0,
            "seed": seed,
            "options": options.model_dump(mode="json", exclude_defaults=True),
            "curve": curve(folder),
        }


def chosen(folder: RunFolder) -> dict[str, int]:
    """GT name -> how many crops it supervised in the whole run."""
    total: Counter[str] = Counter()
    for line in read_metrics(folder.metrics):
        for member, count in enumerate(line.get("chosen", ())):
            total[member_name(member)] += count
    return dict(total)


def curve(folder: RunFolder) -> list[CurvePoint]:
    """The validations of a run."""
    return [{"step": line["step"], "metrics": line["val"]} for line in read_metrics(folder.metrics) if "val" in line]

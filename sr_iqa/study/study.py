"""A study: one base option file and named variants of it, trained and evaluated once per seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sr_iqa.check import check
from sr_iqa.checkpoints import file_hash, with_network
from sr_iqa.config import Options, OptionsError, load, load_options
from sr_iqa.config.models import DataOptions, ValOptions
from sr_iqa.data.sets import fingerprint
from sr_iqa.errors import UsageError, UserError
from sr_iqa.evaluation import evaluate
from sr_iqa.inference.base import Base
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.scorecard import member_name, write_json
from sr_iqa.training.checkpoint import load_base, load_trained
from sr_iqa.training.folder import RunFolder, archive
from sr_iqa.training.logs import is_finished, read_metrics
from sr_iqa.training.state import check_unchanged, plain
from sr_iqa.training.trainer import train

from .results import CurvePoint
from .results import Variant as Row
from .scales import Metrics, made_from, recorded, weights_identity


@dataclass(frozen=True)
class Variant:
    """What distinguishes one run of a study from its base options."""

    overrides: Mapping[str, Any]
    """Dotted option key -> value."""
    starts_from: str | None = None
    """The variant whose trained weights this one starts from, instead of the base options' pretrained ones."""
    adapter_scales: tuple[float, ...] = ()
    """Scales at which its adapter is evaluated too, instead of the study's."""


@dataclass(frozen=True)
class Study:
    """Fields as in study_file.StudyOptions; `root` is the study's folder:

    root/runs/seed<S>/<variant>/ ordinary run folders; root/outputs/seed<S>/<variant>/ SR images; root/records/seed<S>/ what each variant
    was trained and evaluated on.
    """

    name: str
    base: Path
    shared: Mapping[str, Any]
    variants: Mapping[str, Variant]
    root: Path
    optimised_metric: str
    baseline: str
    seeds: Sequence[int] = (0,)
    metrics: Sequence[str] = ()
    expected_order: Sequence[str] = ()
    lora_against_full: tuple[str, str] | None = None
    equal_q: tuple[str, ...] = ()
    reference: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    adapter_scales: tuple[float, ...] = ()
    dni: tuple[str, str] | None = None

    @property
    def runs(self) -> Iterator[tuple[int, str]]:
        """(seed, variant), in an order in which every variant comes after the one it starts from."""
        return ((seed, name) for seed in self.seeds for name in self.variants)

    def folder(self, name: str, seed: int) -> RunFolder:
        """Where the run is, or will be."""
        return RunFolder(self.root / "runs" / f"seed{seed}" / name)

    def outputs(self, name: str, seed: int) -> Path:
        """The folder of a variant's SR images of the held-out sets, `<set>.png`."""
        return self.root / "outputs" / f"seed{seed}" / name

    def options(self, name: str, seed: int) -> Options:
        """The checked options of one run. Raises OptionsError, whose lines name the variant."""
        variant = self.variants[name]
        merged = {**self.shared, **variant.overrides, "name": name, "manual_seed": seed}
        merged["path.experiments_root"] = str(self.folder(name, seed).root.parent)
        if variant.starts_from:
            merged["path.pretrain_network_g"] = str(self._trained_weights(variant.starts_from, seed))
        try:
            loaded = load(self.base, [f"{key}={json.dumps(value)}" for key, value in merged.items()])
            options = with_network(loaded.options)
            check(replace(loaded, options=options))
        except OptionsError as error:
            raise OptionsError([f"variant {name}: {problem}" for problem in error.problems]) from None
        return options

    def held_out(self) -> DataOptions:
        """The data on which all variants are evaluated: datasets.val of the baseline's options."""
        data = self.options(self.baseline, self.seeds[0]).datasets.val
        if data is None:
            raise UsageError(f"{self.base}: datasets.val is missing; a study evaluates on it")
        return data

    @property
    def protocol(self) -> ValOptions:
        """How all variants are evaluated: `val` of the baseline's options."""
        return self.options(self.baseline, self.seeds[0]).val

    @cached_property
    def judges(self) -> list[Metric]:
        """The metrics, made once for all evaluations; the optimised one is always among them."""
        names = list(self.metrics or self.protocol.metrics)
        names += [] if self.optimised_metric in names else [self.optimised_metric]
        return [create_metric(name, best_device()) for name in names]

    def is_trained(self, name: str, seed: int) -> bool:
        """Whether the run has come to its end."""
        return is_finished(self.folder(name, seed))

    def train(self, name: str, seed: int, quiet: bool = True) -> Path:
        """Trains one variant in this process, or goes on with it; returns its folder. A finished one returns at once."""
        self.record(name, seed)
        return train(self.options(name, seed), quiet=quiet)

    def record(self, name: str, seed: int) -> None:
        """Writes down what a run that has not begun will be trained on."""
        if not self.folder(name, seed).root.exists():
            write_json(self._trained_on(name, seed), self._record(name, seed, "trained"))

    def changes(self, name: str, seed: int) -> list[str]:
        """What has changed since a run was begun: options, data, or the weights that it started from; one line each."""
        folder, found = self.folder(name, seed), []
        if not folder.options.is_file():
            return []
        then, now = load_options(folder.options), self.options(name, seed)
        try:
            check_unchanged(plain(then), plain(now), folder.root)
        except UserError as error:
            found += [line.strip() for line in str(error).splitlines() if line.startswith("  ")]
        if then.train and now.train and then.train.total_iter != now.train.total_iter:  # a run may be prolonged, a variant is another one
            found.append(f"train.total_iter: {then.train.total_iter} -> {now.train.total_iter}")
        record = self._record(name, seed, "trained")
        before, after = json.loads(record.read_text()) if record.is_file() else {}, self._trained_on(name, seed)
        return found + [f"{key}: not what it was" for key in before if before[key] and after.get(key) and before[key] != after[key]]

    def redo(self, name: str, seed: int) -> None:
        """Moves a run aside, so that it is trained anew."""
        archive(self.folder(name, seed))

    def evaluate(self, name: str, seed: int) -> Row:
        """A trained variant's entry for results.json, with its values on the held-out sets."""
        options, folder = self.options(name, seed), self.folder(name, seed)
        return {
            "metrics": self._evaluated(name, seed, options.scale),
            "chosen": chosen(folder),
            "standings": standings(folder),
            "steps": options.train.total_iter if options.train else 0,
            "seed": seed,
            "options": options.model_dump(mode="json", exclude_defaults=True),
            "curve": curve(folder),
            "starts_from": self.variants[name].starts_from,
        }

    def _evaluated(self, name: str, seed: int, scale: int) -> Metrics:
        """Column -> values on the held-out sets; computed once for the same weights, data and metrics."""
        folder, record = self.folder(name, seed), self._record(name, seed, "evaluated")

        def compute(outputs: Path) -> Metrics:
            device = best_device()
            return self.judged(load_trained(folder.root, device), scale, outputs, load_base(folder.root, device))

        place = (record, self.outputs(name, seed))
        return recorded(place, self.made_from(name, seed, weights_identity(folder.root)), compute, best_device())

    def made_from(self, name: str, seed: int, weights: str) -> dict[str, Any]:
        """What the values of a variant's network on the held-out sets depend on; `weights` is their identity."""
        return made_from(weights, self.options(name, seed), self.held_out(), self.protocol, self.judges)

    def judged(self, net: nn.Module, scale: int, outputs: Path, base: Base | None = None) -> Metrics:
        """Column -> values of a network on the held-out sets; its SR images go into `outputs`. `base`: as for `evaluate`."""
        val = self.protocol
        evaluation = evaluate(
            net, self.held_out(), self.judges, scale, val.crop_border, val.tile, outputs, val.max_images, against=val.against, base=base
        )
        return evaluation.to_dict()["metrics"]

    def _record(self, name: str, seed: int, what: str) -> Path:
        return self.root / "records" / f"seed{seed}" / f"{name}.{what}.json"

    def _trained_on(self, name: str, seed: int) -> dict[str, str]:
        """Fingerprints of the training data and of the weights it starts from; empty for what is not there."""
        options = self.options(name, seed)
        data, weights = options.datasets.train, options.path.pretrain_network_g
        return {
            "datasets.train": fingerprint(data) if data else "",
            "path.pretrain_network_g": file_hash(weights) if weights and weights.is_file() else "",
        }

    def _trained_weights(self, name: str, seed: int) -> Path:
        """The weights that another variant's run ends with, whether it has been made or not."""
        options = self.options(name, seed)
        if options.lora or options.train is None:
            raise UsageError(f"starts_from: {name} trains an adapter; start from a variant that trains whole networks")
        return self.folder(name, seed).network("net_g_ema" if options.train.ema_decay else "net_g", options.train.total_iter)


def best_device() -> str:
    """The GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def chosen(folder: RunFolder) -> dict[str, int]:
    """GT name -> how many crops it supervised in the whole run."""
    total: Counter[str] = Counter()
    for line in read_metrics(folder.metrics):
        for member, count in enumerate(line.get("chosen", ())):
            total[member_name(member)] += count
    return dict(total)


def standings(folder: RunFolder) -> dict[str, int]:
    """What annotators had said of the GTs that supervised the crops of the whole run -> how many."""
    return dict(sum((Counter(line.get("standings", {})) for line in read_metrics(folder.metrics)), Counter()))


def curve(folder: RunFolder) -> list[CurvePoint]:
    """The validations of a run."""
    return [{"step": line["step"], "metrics": line["val"]} for line in read_metrics(folder.metrics) if "val" in line]

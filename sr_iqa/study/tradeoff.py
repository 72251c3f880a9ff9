"""`sr-iqa tradeoff`: one adapter's perception-distortion curve, beside network interpolation and other networks (docs/tradeoff.md).

out/values/<curve>/<scale>.json  what was evaluated, and from what; out/outputs/<curve>/<scale>/<set>.png  the SR images
out/tradeoff.{json,csv,md}, out/figures/*.{svg,pdf,png}, out/report/index.html
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sr_iqa import __version__
from sr_iqa.adapters import load_adapter
from sr_iqa.config import Options, load_options
from sr_iqa.config.models import DataOptions, folder_name
from sr_iqa.data.sets import fingerprint
from sr_iqa.data.store import open_reader
from sr_iqa.errors import UsageError, UserError
from sr_iqa.evaluation import describe_sets, evaluate, gold_standard, low_quality
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.scorecard import member_name
from sr_iqa.training.build import starting_network
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.folder import RunFolder, final_weights, provenance, run_folder

from .dials import Dial, add_tradeoff_statistics, compare_dials, scale_rows
from .pictures import SetImages
from .proxy import followed_metrics
from .results import Results, Variant, digits_of
from .scales import (
    DEFAULT_SCALES,
    AdapterDial,
    DniDial,
    Metrics,
    Turned,
    evaluate_scales,
    plain_weights,
    recorded,
    warn_beyond,
    weights_identity,
)
from .single import described_model
from .tradeoff_report import Written, write_tradeoff

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a curve is wanted of."""

    options: Options
    """Those of a LoRA run; its newest adapter is taken, unless `base` and `adapter` are given."""
    scales: Sequence[float] = DEFAULT_SCALES
    """Rising, with 0 and 1 (scales.checked_scales)."""
    base: Path | None = None
    """A weight file or a run's folder, and"""
    adapter: Path | None = None
    """the adapter folder to put on it."""
    against: Mapping[str, Path] = field(default_factory=dict)
    """Name -> a run's folder or a weight file, evaluated too."""
    dni: tuple[Path, Path] | None = None
    """Two weight files or run folders of the same network, interpolated at the same scales."""
    out: Path | None = None
    """By default the run's folder / tradeoff."""
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.out or run_folder(self.options).root / "tradeoff"


def run_tradeoff(request: Request, say: Say = lambda text: None) -> Written:
    """Measures the curves and writes table, plots and report; `say` takes one line of progress at a time. Raises as measure."""
    results, images = measure(request, say)
    return write_tradeoff(results, images, request.folder, title=f"{request.options.name}: perception and distortion")


def measure(request: Request, say: Say = lambda text: None) -> tuple[Results, dict[str, SetImages]]:
    """Evaluates the adapter, the interpolation and the others on datasets.val; returns the results (dials.py) and the held-out pictures.

    The same call goes on where an earlier one was stopped; nothing is evaluated twice with the same weights, data and metrics.

    Raises:
        UsageError: no adapter in the options (and neither `adapter` nor `dni` given), no datasets.val, half of `base` and `adapter`.
        UserError: weights that are missing, damaged or do not fit.
    """
    options, scales, dni = request.options, request.scales, request.dni
    table, between, turned = _Table(request, say), _checked(request), _adapter(request)
    warn_beyond(scales, "adapter scale" if turned else "alpha")
    results: Results = {"variants": {}, "optimised_metric": table.q}
    curves: list[Dial] = []
    if turned:
        rows = scale_rows({0: table.curve("adapter", options.name, *turned)})
        curves.append(Dial(options.name, "adapter", rows))
        own = next(row["metrics"] for row in rows if row["scale"] == 1)
        results["variants"][options.name] = {**_variant(own, options), "scales": rows}
    if dni:
        name, dial = " → ".join(between), DniDial(partial(_ends, options, dni, request.device))
        rows = scale_rows({0: table.curve("dni", name, dial, _identities(dni))})
        results["dni"] = {"between": between, "scales": rows}
        curves.append(Dial(name, "dni", rows))
    for name, path in request.against.items():
        results["variants"][name] = _variant(table.other(name, path), _options_of(path))
    _complete(results, table)
    return results, table.pictures(curves)


def parse_against(given: Sequence[str]) -> dict[str, Path]:
    """NAME=WEIGHTS as a command line has them -> name -> path; raises UsageError."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path or name in found:
            raise UsageError(f"--against {text}: expected NAME=WEIGHTS with a name of its own, such as full=experiments/full")
        found[name] = Path(path)
    return found


class _Table:
    """What is evaluated how, and where its values and pictures are."""

    def __init__(self, request: Request, say: Say) -> None:
        self.options, self.device, self._request, self._say = request.options, request.device, request, say
        if self.options.datasets.val is None:
            raise UsageError(f"{self.options.name}: datasets.val is missing; `sr-iqa tradeoff` evaluates on it")
        self.data: DataOptions = self.options.datasets.val

    @cached_property
    def judges(self) -> list[Metric]:
        """val.metrics, and Q among them."""
        return [create_metric(name, self.device) for name in dict.fromkeys([*self.options.val.metrics, *self._followed])]

    @property
    def _followed(self) -> list[str]:
        """The metric that the run's reward follows, else its sampling's."""
        return followed_metrics(self.options.model_dump(mode="json", exclude_defaults=True))[-1:]

    @cached_property
    def q(self) -> str:
        """The metric that the run follows, else the first no-reference one of val.metrics."""
        found = [*self._followed, *(judge.name for judge in self.judges if judge.mode == "NR")]
        if not found:
            raise UsageError(
                f"{self.options.name}: no metric for the perception axis: the run follows none, and val.metrics has none without "
                "a reference; give one with --set 'val.metrics=[psnr, nano]'"
            )
        return found[0]

    def curve(self, key: str, name: str, dial: Turned, identity: str) -> dict[float, Metrics]:
        """Scale -> values of a network with a dial; `identity` is a hash of its weights."""

        def say(scale: float, metrics: Metrics) -> None:
            self._say(f"{name} at {scale:g}: {self._shown(metrics)}")

        return evaluate_scales(dial, self._request.scales, partial(self.place, key), self._made_from(identity), self._judge, say)

    def other(self, name: str, path: Path) -> Metrics:
        """Values of a run or a weight file."""
        record, outputs = self.place(f"against/{name}")
        made_from = self._made_from(_identities([path]))
        metrics = recorded(record, made_from, outputs, lambda out: self._judge(described_model(self.options, path, self.device), out))
        self._say(f"{name}: {self._shown(metrics)}")
        return metrics

    def place(self, key: str, scale: float = 1.0) -> tuple[Path, Path]:
        """The record of a network's values and the folder of its outputs."""
        setting = f"{scale:.12g}"
        folder = self._request.folder
        return folder / "values" / key / f"{setting}.json", folder / "outputs" / key / setting

    def pictures(self, curves: Sequence[Dial]) -> dict[str, SetImages]:
        """The held-out sets with where each curve's outputs are."""
        reader, images = open_reader(self.data), {}
        for i, entry in enumerate(reader.sets[: self.options.val.max_images]):
            gts = {member_name(k): reader.image(i, k) for k in range(len(entry.paths))}
            files = {curve.name: [self.place(curve.kind, row["scale"])[1] / f"{entry.name}.png" for row in curve.rows] for curve in curves}
            images[entry.name] = SetImages(gts, {}, low_quality(reader, i, self.data, self.options.scale), files)
        return images

    def _judge(self, net: nn.Module, outputs: Path) -> Metrics:
        val, scale = self.options.val, self.options.scale
        evaluation = evaluate(net, self.data, self.judges, scale, val.crop_border, val.tile, outputs, val.max_images, against=val.against)
        return evaluation.to_dict()["metrics"]

    def _made_from(self, identity: str) -> dict[str, Any]:
        val = self.options.val
        return {
            "weights": identity,
            "network": self.options.network_g.model_dump(mode="json"),
            "data": fingerprint(self.data),
            "held_out": self.data.model_dump(mode="json"),
            "metrics": [judge.identity for judge in self.judges],
            "scale of the network": self.options.scale,
            "crop_border": val.crop_border,
            "against": val.against,
            "max_images": val.max_images,
            "tile": val.tile,
            "version": __version__,
        }

    def _shown(self, metrics: Metrics) -> str:
        means = {column: metrics[column]["mean"] for column in dict.fromkeys([self.q, "psnr_original"]) if column in metrics}
        return "  ".join(f"{column} {mean:.{digits_of([mean])}f}" for column, mean in means.items())


def _adapter(request: Request) -> tuple[AdapterDial, str] | None:
    """The network with an adapter, and a hash of both; None where there is none and the interpolation will do."""
    options, base, adapter, device = request.options, request.base, request.adapter, request.device
    if (base is None) != (adapter is None):
        raise UsageError(
            "give --model (the base weights) and --adapter (its adapter folder) together, or neither: then the run's newest is taken"
        )
    if base and adapter:
        return AdapterDial(lambda: load_adapter(described_model(options, base, device), adapter).to(device)), _identities([base, adapter])
    if options.lora is None:
        if request.dni:
            return None
        raise UsageError(
            f"{options.name}: the options have no `lora` block, so the run has no adapter to scale; give --model and --adapter, or "
            "--dni A B to interpolate between two networks"
        )
    run = run_folder(options).root
    newest, pretrained = final_weights(run), load_options(RunFolder(run).options).path.pretrain_network_g
    return AdapterDial(lambda: load_trained(run, device)), _identities([newest, *([pretrained] if pretrained else [])])


def _ends(options: Options, dni: tuple[Path, Path], device: str) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """A network to put weights into, and the weights of both ends (adapters merged)."""
    first, second = (described_model(options, path, device) for path in dni)
    adapted = RunFolder(dni[0]).options.is_file() and load_options(RunFolder(dni[0]).options).lora is not None
    plain = starting_network(load_options(RunFolder(dni[0]).options)).to(device).eval() if adapted else first
    return plain, plain_weights(first), plain_weights(second)


def _identities(paths: Sequence[Path]) -> str:
    """Hashes of weight files, adapter folders and runs; empty for what is not there, which loading will say."""
    found = (final_weights(path) if RunFolder(path).options.is_file() else path for path in paths)
    return " ".join(weights_identity(path) if path.exists() else "" for path in found)


def _checked(request: Request) -> list[str]:
    """What the ends of the interpolation are called; refuses what is not there, and names that would stand for two things."""
    dni = request.dni or ()
    for path in (*request.against.values(), *dni):
        if not path.exists():
            raise UserError(f"{path}: no such weight file or run's folder")
    for name in request.against:
        try:
            folder_name(name)
        except ValueError as error:
            raise UsageError(f"--against {name}: {error}") from None
        if name == request.options.name:
            raise UsageError(f"--against {name}: that is the name of the run itself; choose another")
    ends = [path.parent.parent.name if path.parent.name == "models" else path.stem or str(path) for path in dni]
    return ends if len(set(ends)) == len(ends) else [str(path) for path in dni]


def _options_of(path: Path) -> Options | None:
    return load_options(RunFolder(path).options) if RunFolder(path).options.is_file() else None


def _variant(metrics: Metrics, options: Options | None) -> Variant:
    dumped = options.model_dump(mode="json", exclude_defaults=True) if options else {}
    steps = options.train.total_iter if options and options.train else 0
    return {"metrics": metrics, "chosen": {}, "standings": {}, "steps": steps, "seed": 0, "options": dumped, "curve": []}


def _complete(results: Results, table: _Table) -> None:
    """The Gold Standard, the data, where all of it comes from, and the statistics."""
    data, most = table.data, table.options.val.max_images
    results["gold_standard"] = gold_standard(data, table.judges, table.options.scale, most, table.device)
    results["data"] = {"sets": describe_sets(data, most), "held-out data": data.name or str(data.dataroot_gt)}
    results["provenance"] = {
        **provenance(0),
        "command": shlex.join(["sr-iqa", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if table.device.startswith("cuda") else "CPU",
    }
    add_tradeoff_statistics(results)
    compare_dials(results)

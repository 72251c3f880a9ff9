"""`sr-iqa tradeoff`: one adapter's perception-distortion curve, beside network interpolation and other networks (docs/tradeoff.md).

out/values/<curve>/<scale>.json  what was evaluated, and from what; out/outputs/<curve>/<scale>/<set>.png  the SR images
out/tradeoff.{json,csv,md}, out/figures/*.{svg,pdf,png}, out/report/index.html
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from sr_iqa.config import Options, load_options
from sr_iqa.config.models import DataOptions
from sr_iqa.data.store import open_reader
from sr_iqa.errors import UsageError
from sr_iqa.evaluation import describe_sets, evaluate, gold_standard, low_quality
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.scorecard import member_name
from sr_iqa.training.folder import RunFolder, provenance

from .dial_page import chosen_sets
from .dials import ScaleRow, add_tradeoff_statistics, dials, scale_rows
from .meetings import compare_dials, evaluate_meetings
from .pictures import SetImages
from .proxy import followed_metrics
from .results import Results, Variant, digits_of
from .scales import DniDial, Metrics, Place, computed_by, evaluate_scales, known, made_from, recorded, warn_beyond, weights_identity
from .single import described_model
from .tradeoff_report import Written, write_tradeoff
from .tradeoff_request import Curve, Request, check, curves_of

Say = Callable[[str], None]


def run_tradeoff(request: Request, say: Say = lambda text: None) -> Written:
    """Measures the curves and writes table, plots and report; `say` takes one line of progress at a time. Raises as measure."""
    results, images = measure(request, say)
    return write_tradeoff(results, images, request.folder, title=f"{request.options.name}: perception and distortion")


def measure(request: Request, say: Say = lambda text: None) -> tuple[Results, dict[str, SetImages]]:
    """Evaluates the adapter, the interpolation and the others on datasets.val; returns the results (dials.py) and the pictures to show.

    The same call goes on where an earlier one was stopped; nothing is evaluated twice with the same weights, data and metrics.

    Raises:
        UsageError: no adapter in the options (and neither `adapter` nor `dni` given), no datasets.val, half of `base` and `adapter`.
        UserError: weights that are missing, damaged or do not fit; before anything is evaluated.
    """
    options, table = request.options, _Table(request, say)
    check(request)
    curves = curves_of(request)
    table.load_unknown(curves)
    warn_beyond(request.scales, "adapter scale" if curves[0].kind == "adapter" else "alpha")
    results: Results = {"variants": {}, "optimised_metric": table.q}
    for curve in curves:
        rows = table.rows(curve, request.scales)
        if curve.kind == "dni":
            results["dni"] = {"between": curve.between, "scales": rows}
        else:
            own = next(row["metrics"] for row in rows if row["scale"] == 1)
            results["variants"][curve.name] = {**_variant(own, options), "scales": rows}
    for name, path in request.against.items():
        results["variants"][name] = _variant(table.other(name, path), _options_of(path))
    evaluate_meetings(results, {curve.name: partial(table.turn, curve) for curve in curves})
    _complete(results, table)
    return results, table.pictures(results)


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

    def load_unknown(self, curves: Sequence[Curve]) -> None:
        """Loads what will be evaluated later on, so that what cannot be used is refused now."""
        for curve in curves:
            made = self._made_from(curve.identity)
            places = {scale: self.place(curve.kind, scale) for scale in self._request.scales}
            if isinstance(curve.dial, DniDial) and any(known(at, {**made, "scale": scale}) is None for scale, at in places.items()):
                curve.dial.ends()
        for name, path in self._request.against.items():
            if known(self.place(f"against/{name}"), self._made_from(weights_identity(path))) is None:
                described_model(self.options, path, self.device)

    def rows(self, curve: Curve, scales: Sequence[float]) -> list[ScaleRow]:
        """A curve at some scales."""

        def say(scale: float, metrics: Metrics) -> None:
            self._say(f"{curve.name} at {scale:g}: {self._shown(metrics)}")

        made, place = self._made_from(curve.identity), partial(self.place, curve.kind)
        found = evaluate_scales(curve.dial, scales, place, made, self._judge, self.device, say)
        return scale_rows({self.options.manual_seed: found})

    def turn(self, curve: Curve, scale: float) -> ScaleRow:
        """A curve at one more scale."""
        return self.rows(curve, [scale])[0]

    def other(self, name: str, path: Path) -> Metrics:
        """Values of a run or a weight file."""

        def compute(outputs: Path) -> Metrics:
            return self._judge(described_model(self.options, path, self.device), outputs)

        metrics = recorded(self.place(f"against/{name}"), self._made_from(weights_identity(path)), compute, self.device)
        self._say(f"{name}: {self._shown(metrics)}")
        return metrics

    def place(self, key: str, scale: float = 1.0) -> Place:
        """Where a network's values and outputs are."""
        setting, folder = f"{scale:.12g}", self._request.folder
        return folder / "values" / key / f"{setting}.json", folder / "outputs" / key / setting

    def computed_by(self, results: Results) -> list[str]:
        """What computed the values, which may have been earlier calls."""
        records = [self.place(dial.kind, row["scale"])[0] for dial in dials(results) for row in dial.rows]
        return computed_by([*records, *(self.place(f"against/{name}")[0] for name in self._request.against)])

    def pictures(self, results: Results) -> dict[str, SetImages]:
        """The held-out sets that a page shows, with where each curve's outputs are."""
        reader, images, curves = open_reader(self.data), {}, dials(results)
        numbers = {entry.name: i for i, entry in enumerate(reader.sets)}
        for name in chosen_sets(results, list(results["data"]["sets"])):
            i = numbers[name]
            gts = {member_name(k): reader.image(i, k) for k in range(len(reader.sets[i].paths))}
            files = {curve.name: [self.place(curve.kind, row["scale"])[1] / f"{name}.png" for row in curve.rows] for curve in curves}
            images[name] = SetImages(gts, {}, low_quality(reader, i, self.data, self.options.scale), files)
        return images

    def _judge(self, net: nn.Module, outputs: Path) -> Metrics:
        val, scale = self.options.val, self.options.scale
        evaluation = evaluate(net, self.data, self.judges, scale, val.crop_border, val.tile, outputs, val.max_images, against=val.against)
        return evaluation.to_dict()["metrics"]

    def _made_from(self, identity: str) -> dict[str, Any]:
        return made_from(identity, self.options, self.data, self.options.val, self.judges)

    def _shown(self, metrics: Metrics) -> str:
        means = {column: metrics[column]["mean"] for column in dict.fromkeys([self.q, "psnr_original"]) if column in metrics}
        return "  ".join(f"{column} {mean:.{digits_of([mean])}f}" for column, mean in means.items())


def _options_of(path: Path) -> Options | None:
    return load_options(RunFolder(path).options) if RunFolder(path).options.is_file() else None


def _variant(metrics: Metrics, options: Options | None) -> Variant:
    dumped = options.model_dump(mode="json", exclude_defaults=True) if options else {}
    steps = options.train.total_iter if options and options.train else 0
    seed = options.manual_seed if options else 0
    return {"metrics": metrics, "chosen": {}, "standings": {}, "steps": steps, "seed": seed, "options": dumped, "curve": []}


def _complete(results: Results, table: _Table) -> None:
    """The Gold Standard, the data, where all of it comes from, and the statistics."""
    data, most = table.data, table.options.val.max_images
    results["gold_standard"] = gold_standard(data, table.judges, table.options.scale, most, table.device)
    results["data"] = {"sets": describe_sets(data, most), "held-out data": data.name or str(data.dataroot_gt)}
    results["provenance"] = {
        **provenance(0),
        "command": shlex.join(["sr-iqa", *sys.argv[1:]]),
        "evaluated by": table.computed_by(results),
    }
    add_tradeoff_statistics(results)
    compare_dials(results)

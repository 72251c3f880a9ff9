"""Perception-distortion curves in results.json: an adapter at several scales, and networks between two others (DNI), beside the variants.

variants.<name>.scales    [ScaleRow]: the variant's adapter at every scale; 0 is its base, 1 the variant itself
dni                       {"between": [first, second], "scales": [ScaleRow]}: 0 is the first, 1 the second
dial_comparison           [meetings.Meeting]: curves at equal Q
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from .results import MetricValues, Results, Run, Variant, merge_seeds, runs_of
from .scales import Metrics
from .significance import add_statistics, can_tell
from .statistics import compare

Kind = Literal["adapter", "dni"]


class ScaleRow(TypedDict):
    """One point of a curve."""

    scale: float
    metrics: dict[str, MetricValues]
    """As a variant's; with statistics against scale 0 (add_dial_statistics)."""
    seed: int
    """The (first) manual_seed."""
    runs: NotRequired[list[Run]]
    """One entry per seed, where there are several."""
    sought: NotRequired[bool]
    """Nobody asked for this scale: it was evaluated to meet another network at equal Q (meetings.py)."""


@dataclass(frozen=True)
class Compared:
    """One network's values in a column minus another's, on the same images."""

    difference: float
    """Native units."""
    low: float
    high: float
    """95 % bootstrap interval over photos and seeds."""
    agreeing: int
    """Seeds whose own difference has the same sign."""
    seeds: int
    clear: bool
    """There are enough photos, and the interval excludes 0."""


@dataclass(frozen=True)
class Dial:
    """A curve."""

    name: str
    """The variant, or `first → second`."""
    kind: Kind
    rows: list[ScaleRow]
    """In rising order."""

    @property
    def sign(self) -> str:
        """What its scales are called: s of an adapter, α between two networks."""
        return "s" if self.kind == "adapter" else "α"

    def label(self, scale: float) -> str:
        """A row's name."""
        return f"{self.name}, {self.sign} = {scale:g}"

    def trained(self, column: str) -> list[ScaleRow]:
        """Rows up to scale 1, beyond which nothing was trained, where `column` is finite."""
        return [row for row in self.rows if row["scale"] <= 1 and np.isfinite(row["metrics"][column]["mean"])]


def dials(results: Results) -> list[Dial]:
    """The curves: adapters in the variants' order, then DNI."""
    found = [Dial(name, "adapter", variant["scales"]) for name, variant in results["variants"].items() if variant.get("scales")]
    dni = results.get("dni")
    return [*found, Dial(" → ".join(dni["between"]), "dni", dni["scales"])] if dni else found


def scale_rows(by_seed: Mapping[int, Mapping[float, Metrics]]) -> list[ScaleRow]:
    """Rows in rising order from every seed's values at its scales; the seeds have the same scales."""
    rows: list[ScaleRow] = []
    for scale in sorted(next(iter(by_seed.values()))):
        merged = merge_seeds([_as_variant(values[scale], seed) for seed, values in by_seed.items()])
        row: ScaleRow = {"scale": scale, "metrics": merged["metrics"], "seed": merged["seed"]}
        rows.append({**row, "runs": merged["runs"]} if len(by_seed) > 1 and "runs" in merged else row)
    return rows


def as_variants(results: Results, chosen: Sequence[Dial], others: bool = True) -> Results:
    """Results whose variants are the points of curves and (with `others`) the variants without one; values are shared, not copied."""
    points = {dial.label(row["scale"]): {**row_as_variant(row), "options": _options(results, dial)} for dial in chosen for row in dial.rows}
    rest = {name: variant for name, variant in results["variants"].items() if others and not variant.get("scales")}
    kept = {key: results[key] for key in ("gold_standard", "optimised_metric", "data", "statistics") if key in results}
    return {"variants": {**points, **rest}, **kept}


def _as_variant(metrics: Metrics, seed: int) -> Variant:
    return {"metrics": metrics, "seed": seed, "options": {}, "chosen": {}, "standings": {}, "steps": 0, "curve": []}


def _options(results: Results, dial: Dial) -> dict[str, Any]:
    """Of the run behind an adapter's curve, so that a table can shade what it optimised."""
    return results["variants"][dial.name]["options"] if dial.kind == "adapter" else {}


def add_dial_statistics(results: Results) -> None:
    """Intervals of every point, and each point against scale 0 of its curve; Holm's correction runs over the scales of one curve."""
    for dial in dials(results):
        add_statistics(as_variants(results, [dial], others=False), dial.label(dial.rows[0]["scale"]))


def add_tradeoff_statistics(results: Results) -> None:
    """The same over all points and all variants at once, against the first curve's scale 0; and results["statistics"].

    Each of them is one network, whatever its seed was.
    """
    first, flat = dials(results)[0], as_variants(results, dials(results))
    flat["variants"] = {name: {**variant, "seed": 0} for name, variant in flat["variants"].items()}
    add_statistics(flat, first.label(first.rows[0]["scale"]))
    results["statistics"] = flat["statistics"]


def compared(results: Results, a: Variant, b: Variant, column: str) -> Compared | None:
    """a minus b, paired by seed, or as they are where both are of one seed; None where nothing pairs or a value is not finite."""
    one, two = ({run["seed"]: run["per_image"][column] for run in runs_of(variant)} for variant in (a, b))
    pairs = [(one[seed], two[seed]) for seed in sorted(one.keys() & two.keys())]
    pairs = [(*one.values(), *two.values())] if len(one) == len(two) == 1 else pairs
    images, sets = list(a["metrics"][column]["per_image"]), results["data"].get("sets", {})
    values = np.array([[[side[image] for image in images] for side in pair] for pair in pairs], float)  # (S, 2, N)
    if not pairs or not np.isfinite(values).all():
        return None
    photos = [sets.get(image, {}).get("source", image) for image in images]
    found = compare(values[:, 0], values[:, 1], photos, a["metrics"][column]["lower_better"])
    low, high = found.interval.low, found.interval.high
    per_seed = (values[:, 0] - values[:, 1]).mean(1)
    agreeing = int((np.sign(per_seed) == np.sign(found.mean)).sum())
    return Compared(found.mean, low, high, agreeing, len(pairs), can_tell(results) and not low <= 0 <= high)


def row_as_variant(row: ScaleRow) -> Variant:
    """A point of a curve as if it were a variant, for `compared`."""
    variant = _as_variant(row["metrics"], row["seed"])
    if "runs" in row:
        variant["runs"] = row["runs"]
    return variant

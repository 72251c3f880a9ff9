"""Perception-distortion curves in results.json: an adapter at several scales, and networks between two others (DNI), beside the variants.

variants.<name>.scales    [ScaleRow]: the variant's adapter at every scale; 0 is its base, 1 the variant itself
dni                       {"between": [first, second], "scales": [ScaleRow]}: 0 is the first, 1 the second
dial_comparison           [Meeting]: curves at equal Q, made by compare_dials
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from .results import CurvePoint, MetricValues, Results, Run, Variant, arrow, columns_of, digits_of, format_value, merge_seeds
from .scales import Metrics
from .significance import LEAST_PHOTOS, add_statistics, can_tell
from .tuning import at_q, shared_levels


class ScaleRow(TypedDict):
    """One point of a curve."""

    scale: float
    metrics: dict[str, MetricValues]
    """As a variant's; with statistics against scale 0 (add_dial_statistics)."""
    runs: NotRequired[list[Run]]
    """One entry per seed."""


class Meeting(TypedDict):
    """A curve and another one, or a variant, where both have the same Q; values are linear between the scales, means over seeds."""

    dial: str
    other: str
    q: float
    dial_at: dict[str, float]
    """`scale` and every column."""
    other_at: dict[str, float]
    """The same; without `scale` for a variant."""


@dataclass(frozen=True)
class Dial:
    """A curve."""

    name: str
    """The variant, or `first → second`."""
    kind: Literal["adapter", "dni"]
    rows: Sequence[ScaleRow]

    @property
    def sign(self) -> str:
        """What its scales are called: s of an adapter, α between two networks."""
        return "s" if self.kind == "adapter" else "α"

    def label(self, scale: float) -> str:
        """A row's name."""
        return f"{self.name}, {self.sign} = {scale:g}"

    def points(self, column: str) -> list[CurvePoint]:
        """(scale, means) in rising order up to 1, beyond which nothing was trained, where `column` is finite."""
        rows = [row for row in self.rows if row["scale"] <= 1 and np.isfinite(row["metrics"][column]["mean"])]
        return [{"step": row["scale"], "metrics": {c: v["mean"] for c, v in row["metrics"].items()}} for row in rows]  # type: ignore[typeddict-item]


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
        rows.append({"scale": scale, "metrics": merged["metrics"]} | ({"runs": merged["runs"]} if len(by_seed) > 1 else {}))  # type: ignore[arg-type]
    return rows


def as_variants(results: Results, chosen: Sequence[Dial], others: bool = True) -> Results:
    """Results whose variants are the points of curves and (with `others`) the variants without one; values are shared, not copied."""
    points = {
        dial.label(row["scale"]): {
            **_as_variant(row["metrics"], 0, _options(results, dial)),
            **({"runs": row["runs"]} if "runs" in row else {}),
        }
        for dial in chosen
        for row in dial.rows
    }
    rest = {name: variant for name, variant in results["variants"].items() if others and not variant.get("scales")}
    kept = {key: results[key] for key in ("gold_standard", "optimised_metric", "data", "statistics") if key in results}
    return {"variants": {**points, **rest}, **kept}


def _as_variant(metrics: Metrics, seed: int, options: dict[str, Any] | None = None) -> Variant:
    return {"metrics": metrics, "seed": seed, "options": options or {}, "chosen": {}, "standings": {}, "steps": 0, "curve": []}


def _options(results: Results, dial: Dial) -> dict[str, Any]:
    """Of the run behind an adapter's curve, so that a table can shade what it optimised."""
    return results["variants"][dial.name]["options"] if dial.kind == "adapter" else {}


def add_dial_statistics(results: Results) -> None:
    """Intervals of every point, and each point against scale 0 of its curve; Holm's correction runs over the scales of one curve."""
    for dial in dials(results):
        add_statistics(as_variants(results, [dial], others=False), dial.label(dial.rows[0]["scale"]))


def add_tradeoff_statistics(results: Results) -> None:
    """The same over all points and all variants at once, against the first curve's scale 0; and results["statistics"]."""
    first = dials(results)[0]
    flat = as_variants(results, dials(results))
    add_statistics(flat, first.label(first.rows[0]["scale"]))
    results["statistics"] = flat["statistics"]


# ---------------------------------------------------------------- at equal Q


def compare_dials(results: Results) -> None:
    """Adds results["dial_comparison"]: the first curve against each other curve and variant, at the highest Q that both reach."""
    curves = dials(results)
    if not curves:
        return
    q, first = results["optimised_metric"], curves[0]
    columns = columns_of(as_variants(results, curves))
    sign = -1 if columns[q]["lower_better"] else 1
    meetings: list[Meeting] = []
    for other in curves[1:]:
        a, b = first.points(q), other.points(q)
        levels = shared_levels(a, b, q, sign) if a and b else np.empty(0)
        if len(levels):
            there = [_placed(at_q(points, q, sign, levels[-1])) for points in (a, b)]
            meetings.append(
                {"dial": first.name, "other": other.name, "q": float(sign * levels[-1]), "dial_at": there[0], "other_at": there[1]}
            )
    for name in _points_beside(results, first):
        variant = results["variants"][name]
        means = {column: values["mean"] for column, values in variant["metrics"].items()}
        reached = [sign * point["metrics"][q] for point in first.points(q)]
        if reached and reached[0] <= sign * means[q] <= max(reached):
            at = _placed(at_q(first.points(q), q, sign, sign * means[q]))
            meetings.append({"dial": first.name, "other": name, "q": means[q], "dial_at": at, "other_at": means})
    results["dial_comparison"] = meetings


def _points_beside(results: Results, first: Dial) -> list[str]:
    """The variants that the first curve is compared with: those without a curve, its own start excepted."""
    q, variants = results["optimised_metric"], results["variants"]
    start = variants[first.name].get("starts_from") if first.kind == "adapter" else None
    return [name for name, variant in variants.items() if not variant.get("scales") and q in variant["metrics"] and name != start]


def _placed(point: dict[str, float]) -> dict[str, float]:
    """A point of tuning's, whose steps are our scales."""
    return {"scale": point["step"], **{key: value for key, value in point.items() if key != "step"}}


# ---------------------------------------------------------------- in words


def describe_dials(results: Results) -> list[str]:
    """What the curves show, in sentences computed from the figures, and how sure that is."""
    curves, q = dials(results), results["optimised_metric"]
    if not curves:
        return []
    flat = as_variants(results, curves)
    columns = columns_of(flat)
    images = len(curves[0].rows[0]["metrics"][q]["per_image"])
    photos = results.get("statistics", {}).get("photos", 0)
    sure = "intervals are 95 % bootstrap intervals over the photos" if can_tell(results) else ""
    few = f"with fewer than {LEAST_PHOTOS} photos no difference can be called significant"
    sentences = [f"{images} held-out images of {photos} source photo{'s' if photos != 1 else ''}; {sure or few}."]
    for dial in curves:
        sentences += [_course(dial, q, columns), *_turns(dial, q, columns[q]["lower_better"])]
    met = results.get("dial_comparison", [])
    sentences += [_meeting(m, columns, q) for m in met]
    others = [*(dial.name for dial in curves[1:]), *_points_beside(results, curves[0])]
    alone = [name for name in others if name not in {m["other"] for m in met}]
    if alone:
        names = ", ".join(alone)
        sentences.append(f"At equal {q} {curves[0].name} cannot be compared with {names}: its curve does not pass through their {q}.")
    sentences.append(
        "All points of an adapter's curve come from one training run, so they are compared at equal steps. "
        f"{q} is only a proxy: a higher value is no proof of a better picture. Look at the columns that watch it, and at the pictures."
    )
    return sentences


def _course(dial: Dial, q: str, columns: Mapping[str, MetricValues]) -> str:
    """From the first scale to 1: Q, the PSNR to the original, and what watches."""
    start, end = dial.rows[0], next(row for row in dial.rows if row["scale"] == 1)
    told = [c for c in (q, "psnr_original", "niqe", "grid") if c in start["metrics"]]
    words = []
    for column in dict.fromkeys(told):
        a, b = (row["metrics"][column]["mean"] for row in (start, end))
        digits = digits_of([a, b])
        words.append(f"{column} {arrow(columns[column]['lower_better'])} from {format_value(a, digits)} to {format_value(b, digits)}")
    against = end["metrics"][q].get("against_baseline")
    sure = f" ({q} {against['difference']:+.2f}, 95 % {against['low']:+.2f} to {against['high']:+.2f})" if against else ""
    return f"{dial.name}: from {dial.sign} = 0 to {dial.sign} = 1 {', '.join(words)}{sure}."


def _turns(dial: Dial, q: str, lower_better: bool) -> list[str]:
    """Where turning the dial up makes Q worse."""
    points = dial.points(q)
    falls = [
        f"from {dial.sign} = {a['step']:g} to {b['step']:g}"
        for a, b in zip(points, points[1:], strict=False)
        if (b["metrics"][q] > a["metrics"][q]) == lower_better and a["metrics"][q] != b["metrics"][q]
    ]
    return [f"{dial.name}: {q} becomes worse {', '.join(falls)}."] if falls else []


def _meeting(meeting: Meeting, columns: Mapping[str, MetricValues], q: str) -> str:
    a, b = meeting["dial_at"], meeting["other_at"]
    groups: dict[str, list[str]] = {meeting["dial"]: [], meeting["other"]: [], "equal": []}
    for column, about in columns.items():
        if column == q or column not in a or column not in b:
            continue
        digits = digits_of([a[column], b[column]])
        x, y = format_value(a[column], digits), format_value(b[column], digits)
        better = "equal" if x == y else meeting["dial"] if (a[column] < b[column]) == about["lower_better"] else meeting["other"]
        groups[better].append(f"{column} {arrow(about['lower_better'])} {x} against {y}")
    where = f"scale {a['scale']:.2f}" + (f" and {b['scale']:.2f}" if "scale" in b else "")
    start = f"At equal {q} ({meeting['q']:.2f}; {meeting['dial']} at {where.replace(' and ', ', ' + meeting['other'] + ' at ')}): "
    words = [f"{'equal:' if name == 'equal' else name + ' is better on'} {', '.join(found)}" for name, found in groups.items() if found]
    return start + "; ".join(words) + "."

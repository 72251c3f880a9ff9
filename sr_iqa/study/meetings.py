"""Curves at equal Q: the first one against each other curve and variant, measured where they meet.

Between two scales nothing is known, so nothing is interpolated: the curve that goes further is evaluated where it should have
the other's Q.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypedDict

import numpy as np

from .dials import Dial, ScaleRow, compared, dials, row_as_variant
from .results import Results, Variant, columns_of

STEPS = 3
"""Evaluations at most to find one meeting."""
NEAR = 0.02
"""Two Qs are equal if they differ by at most this share of the shorter curve's gain."""
DIGITS = 3
"""Significant digits of the scales that are looked for."""
Turn = Callable[[float], ScaleRow]
"""Evaluates a curve at a scale."""


class Against(TypedDict):
    """One column of a meeting, native units."""

    values: tuple[float, float]
    """Of the first curve and of the other."""
    difference: float
    low: float
    high: float
    """95 % bootstrap interval of the difference."""
    agreeing: int
    seeds: int
    """In how many of how many seeds the difference has its sign."""
    clear: bool
    """There are enough photos, and the interval excludes 0."""


class Meeting(TypedDict):
    """The first curve and another curve or a variant, where their Qs are nearest among what was evaluated."""

    dial: str
    other: str
    scale: float
    other_scale: float | None
    """None of a variant."""
    q: tuple[float, float]
    equal: bool
    """Whether the Qs are equal, to NEAR."""
    columns: dict[str, Against]
    """All but Q that both have with finite values."""


def evaluate_meetings(results: Results, turns: Mapping[str, Turn]) -> None:
    """Puts the scales at which curves meet others at equal Q into the curves; `turns`: curve -> what evaluates it."""
    for pair in _pairs(results):
        for _ in range(STEPS):
            scale = pair.next_scale()
            if scale is None:
                break
            row: ScaleRow = {**turns[pair.turned.name](scale), "sought": True}
            insort(pair.turned.rows, row, key=lambda entry: entry["scale"])


def compare_dials(results: Results) -> None:
    """Adds results["dial_comparison"], from what has been evaluated."""
    if dials(results):
        results["dial_comparison"] = [_meeting(results, pair) for pair in _pairs(results)]


def compared_names(results: Results) -> list[str]:
    """What the first curve is compared with: the other curves, and the variants without a curve, its own start excepted."""
    first, *others = dials(results)
    q, variants = results["optimised_metric"], results["variants"]
    start = variants[first.name].get("starts_from") if first.kind == "adapter" else None
    points = [name for name, variant in variants.items() if not variant.get("scales") and q in variant["metrics"] and name != start]
    return [*(dial.name for dial in others), *points]


@dataclass(frozen=True)
class _Pair:
    """Two networks that reach one Q: `fixed` has it, `turned` passes through it."""

    first: Dial
    other: str
    turned: Dial
    fixed: Variant
    scale: float | None
    """Of `fixed`, where it is a point of a curve."""
    q: str
    sign: int
    """-1 where lower is better."""
    tolerance: float

    def gaps(self) -> tuple[list[tuple[float, float]], int]:
        """(scale, how much better than the Q to be met) of the turned curve, and the place of the first that reaches it."""
        wanted = self.fixed["metrics"][self.q]["mean"]
        found = [(row["scale"], self.sign * (row["metrics"][self.q]["mean"] - wanted)) for row in self.turned.trained(self.q)]
        return found, next(k for k, (_, gap) in enumerate(found) if gap >= 0)

    def next_scale(self) -> float | None:
        """Where the Q should be, from the scales around it; None where an evaluated one is near enough."""
        found, k = self.gaps()
        around, beside = found[max(k - 1, 0) : k + 1], [*found[k + 1 : k + 2], *found[max(k - 2, 0) : max(k - 1, 0)]]
        if len(around) < 2 or min(abs(gap) for _, gap in around) <= self.tolerance:
            return None
        (low, below), (high, above) = around
        bent = [_crossing([*around, third]) for third in beside if not below <= third[1] <= above]
        scale = next((scale for scale in bent if low < scale < high), _crossing(around))
        rounded = float(f"{scale:.{DIGITS}g}")
        return rounded if low < rounded < high else None

    def nearest(self) -> ScaleRow:
        """The turned curve where its Q is nearest."""
        found, k = self.gaps()
        scale = min(found[max(k - 1, 0) : k + 1], key=lambda point: abs(point[1]))[0]
        return next(row for row in self.turned.rows if row["scale"] == scale)


def _crossing(points: Sequence[tuple[float, float]]) -> float:
    """The scale at gap 0 of the line or parabola scale(gap) through points (scale, gap)."""
    return sum(scale * prod(other / (other - gap) for _, other in points if other != gap) for scale, gap in points)


def _pairs(results: Results) -> Iterator[_Pair]:
    """The first curve with each of what it is compared with, if it passes through its Q; the highest Q that both reach."""
    if not (curves := dials(results)):
        return
    q, first = results["optimised_metric"], curves[0]
    sign = -1 if first.rows[0]["metrics"][q]["lower_better"] else 1
    for name in compared_names(results):
        other = next((dial for dial in curves[1:] if dial.name == name), None)
        if not first.trained(q) or (other and not other.trained(q)):
            continue
        start, top, gain = _reach(first, q, sign)
        if other is None:
            at = sign * results["variants"][name]["metrics"][q]["mean"]
            if start <= at <= top:
                yield _Pair(first, name, first, results["variants"][name], None, q, sign, NEAR * gain)
            continue
        start_b, top_b, gain_b = _reach(other, q, sign)
        low, high = (first, other) if top <= top_b else (other, first)
        if min(top, top_b) > max(start, start_b):
            best = max(low.trained(q), key=lambda row: sign * row["metrics"][q]["mean"])
            yield _Pair(first, name, high, row_as_variant(best), best["scale"], q, sign, NEAR * min(gain, gain_b))


def _reach(dial: Dial, q: str, sign: int) -> tuple[float, float, float]:
    """sign * Q at the start, the best of it, and the gain."""
    values = [sign * row["metrics"][q]["mean"] for row in dial.trained(q)]
    return values[0], max(values), max(values) - values[0]


def _meeting(results: Results, pair: _Pair) -> Meeting:
    row = pair.nearest()
    sides, scales = [row_as_variant(row), pair.fixed], [row["scale"], pair.scale]
    if pair.turned is not pair.first:
        sides, scales = sides[::-1], scales[::-1]
    a, b = sides
    columns = {}
    for column in columns_of({"variants": {"a": a, "b": b}}):
        both = column in a["metrics"] and column in b["metrics"]
        values = (a["metrics"][column]["mean"], b["metrics"][column]["mean"]) if both else (np.nan, np.nan)
        if column != pair.q and np.isfinite(values).all() and (found := compared(results, a, b, column)):
            columns[column] = {"values": values, **vars(found)}
    q = (a["metrics"][pair.q]["mean"], b["metrics"][pair.q]["mean"])
    names: dict[str, str] = {"dial": pair.first.name, "other": pair.other}
    at = {"scale": scales[0], "other_scale": scales[1]}
    return {**names, **at, "q": q, "equal": abs(q[0] - q[1]) <= pair.tolerance, "columns": columns}  # type: ignore[typeddict-item]

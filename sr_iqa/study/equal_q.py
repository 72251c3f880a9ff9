"""Several variants where each first reaches the same Q: at equal steps the slowest optimiser looks safest, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from sr_iqa.errors import UserError

from .results import Results, arrow, columns_of, digits_of, format_value, runs_of
from .tuning import at_q


class EqualQ(TypedDict):
    """results["equal_q"]."""

    level: float
    """The highest Q that every seed of every variant reaches, native."""
    rows: dict[str, dict[str, float]]
    """Variant -> `step` and every column that all curves have, the mean over its seeds; without rows there is no such Q."""


def compare_at_equal_q(results: Results, names: Sequence[str]) -> EqualQ:
    """Every variant of `names` at the highest Q that all reach, between the points of their curves linearly.

    Raises UserError where a variant has no curve of Q.
    """
    q = results["optimised_metric"]
    sign = -1 if columns_of(results)[q]["lower_better"] else 1
    curves = {name: [run["curve"] for run in runs_of(results["variants"][name])] for name in names}
    for name, found in curves.items():
        if any(not curve or any(q not in point["metrics"] for point in curve) for curve in found):
            raise UserError(f"{name} cannot be shown at equal {q} without its curve: validate with {q} during training (val.metrics)")
    every = [curve for found in curves.values() for curve in found]
    level = min(max(sign * point["metrics"][q] for point in curve) for curve in every)
    if level <= max(sign * curve[0]["metrics"][q] for curve in every):
        return {"level": sign * level, "rows": {}}
    shared = set.intersection(*(set(point["metrics"]) for curve in every for point in curve))
    columns = ["step", *(column for column in every[0][0]["metrics"] if column in shared)]
    rows = {}
    for name, found in curves.items():
        there = [at_q(curve, q, sign, level) for curve in found]
        rows[name] = {column: float(np.mean([point[column] for point in there])) for column in columns}
    return {"level": sign * level, "rows": rows}


def equal_q_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: variant, steps, and the columns that are in the study's table, Q excepted; no cells where nothing is shared."""
    found: EqualQ = results["equal_q"]
    known = columns_of(results)
    if not found["rows"]:
        return [], []
    first = next(iter(found["rows"].values()))
    columns = [column for column in known if column in first and column != results["optimised_metric"]]
    digits = {column: digits_of([row[column] for row in found["rows"].values()]) for column in columns}
    heads = ["variant", "steps", *(f"{column} {arrow(known[column]['lower_better'])}" for column in columns)]
    return heads, [
        [name, f"{row['step']:.0f}", *(format_value(row[column], digits[column]) for column in columns)]
        for name, row in found["rows"].items()
    ]


def describe_equal_q(results: Results) -> str:
    """What the table shows."""
    found: EqualQ = results["equal_q"]
    q = results["optimised_metric"]
    if not found["rows"]:
        return f"There is no {q} that all of these variants pass through: one of them never rose above the others' start."
    return (
        f"Every variant where it first reaches {q} {found['level']:.2f}, the highest that all of them reach in every seed; read from the "
        f"validations during training, linearly between them. What differs here is not how far a variant went, but what it paid."
    )

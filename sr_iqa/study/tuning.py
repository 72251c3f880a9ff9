"""Reward tuning with LoRA against tuning all weights: at equal steps, and at equal Q.

At equal steps the slower optimiser looks safer, whatever it is. So both are also compared where they have reached the same Q: on the
metrics that the reward does not see, at the highest Q that both reach and on average over the range of Q that both pass through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from sr_iqa.errors import UserError

from .proxy import optimised_by
from .results import CurvePoint, Results, Run, arrow, columns_of, digits_of, format_value, runs_of

LEVELS = 20


class Meeting(TypedDict):
    """Both runs of one seed at one point of comparison."""

    seed: int
    lora: dict[str, float]
    """`step` and every column."""
    full: dict[str, float]


class Comparison(TypedDict):
    """results["reward_comparison"]."""

    lora: str
    full: str
    q: str
    left_out: list[str]
    """The columns that both logged and neither optimised, in the table's order."""
    equal_steps: list[Meeting]
    equal_q: list[Meeting]
    """At the highest Q that both reach; empty for seeds in which one of them never gains."""
    over_range: list[dict[str, float]]
    """Per seed in equal_q: column -> mean of (LoRA - full) over the shared range of Q, in native units."""


def compare_tuning(results: Results, lora: str, full: str) -> Comparison:
    """Compares two variants by the curves of their runs, seed by seed.

    Raises UserError where a variant has no curve of Q, or the seeds differ.
    """
    q = results["optimised_metric"]
    columns = columns_of(results)
    pairs = _pairs(results, lora, full)
    logged = set.intersection(*(set(_columns(run["curve"])) for pair in pairs for run in pair))
    optimised = {q, *(metric for name in (lora, full) for metric in optimised_by(results["variants"][name]))}
    left_out = [column for column in columns if column in logged and column not in optimised]
    sign = -1 if columns[q]["lower_better"] else 1
    steps, meetings, ranges = [], [], []
    for a, b in pairs:
        last = min(a["curve"][-1]["step"], b["curve"][-1]["step"])
        steps.append(_meeting(a, b, *(_at_step(run["curve"], last) for run in (a, b))))
        levels = shared_levels(a["curve"], b["curve"], q, sign)
        if not len(levels):
            continue
        there = [[at_q(run["curve"], q, sign, level) for level in levels] for run in (a, b)]
        meetings.append(_meeting(a, b, there[0][-1], there[1][-1]))
        ranges.append({c: float(np.mean([x[c] - y[c] for x, y in zip(*there, strict=True)])) for c in left_out})
    return {
        "lora": lora,
        "full": full,
        "q": q,
        "left_out": left_out,
        "equal_steps": steps,
        "equal_q": meetings,
        "over_range": ranges,
    }


def _pairs(results: Results, lora: str, full: str) -> list[tuple[Run, Run]]:
    runs = [{run["seed"]: run for run in runs_of(results["variants"][name])} for name in (lora, full)]
    if runs[0].keys() != runs[1].keys():
        raise UserError(f"{lora} has the seeds {sorted(runs[0])}, {full} has {sorted(runs[1])}: train both with the same ones")
    q = results["optimised_metric"]
    if any(not run["curve"] or q not in _columns(run["curve"]) for side in runs for run in side.values()):
        raise UserError(f"{lora} and {full} cannot be compared without their curves: validate with {q} during training (val.metrics)")
    return [(runs[0][seed], runs[1][seed]) for seed in runs[0]]


def _meeting(a: Run, b: Run, lora: dict[str, float], full: dict[str, float]) -> Meeting:
    return {"seed": a["seed"], "lora": lora, "full": full}


def _at_step(curve: Sequence[CurvePoint], step: float) -> dict[str, float]:
    """Every column at `step`, linearly between the curve's points."""
    steps = [point["step"] for point in curve]
    values = {column: float(np.interp(step, steps, [point["metrics"][column] for point in curve])) for column in _columns(curve)}
    return {"step": float(step), **values}


def _columns(curve: Sequence[CurvePoint]) -> list[str]:
    """Those of every point: a run that goes on may have been given other metrics."""
    return [column for column in curve[0]["metrics"] if all(column in point["metrics"] for point in curve)]


def at_q(curve: Sequence[CurvePoint], q: str, sign: int, level: float) -> dict[str, float]:
    """Every column where the curve first reaches `level` of sign * q, linearly between its points."""
    reached = [sign * point["metrics"][q] for point in curve]
    k = next(i for i, value in enumerate(reached) if value >= level - 1e-12)
    if k == 0:
        return _at_step(curve, curve[0]["step"])
    part = (level - reached[k - 1]) / (reached[k] - reached[k - 1])
    return _at_step(curve, curve[k - 1]["step"] + part * (curve[k]["step"] - curve[k - 1]["step"]))


def shared_levels(a: Sequence[CurvePoint], b: Sequence[CurvePoint], q: str, sign: int) -> np.ndarray:
    """LEVELS values of sign * q from just above both starts to the highest that both reach; empty if there is no such range."""
    start = max(sign * curve[0]["metrics"][q] for curve in (a, b))
    top = min(max(sign * point["metrics"][q] for point in curve) for curve in (a, b))
    return start + (top - start) * np.arange(1, LEVELS + 1) / LEVELS if top > start else np.empty(0)


# ---------------------------------------------------------------- in words


def tally(comparison: Comparison, where: str, lower_better: dict[str, bool]) -> dict[str, str]:
    """Column -> "lora" or "full" where every seed agrees at the digits shown, "equal" where they agree on that, otherwise "undecided".

    `where` is equal_steps or equal_q.
    """
    return {column: _winner(comparison[where], column, lower_better[column]) for column in comparison["left_out"]}


def _winner(meetings: Sequence[Meeting], column: str, lower_better: bool) -> str:
    verdicts = set()
    for meeting in meetings:
        values = [meeting[side][column] for side in ("lora", "full")]
        a, b = (round(value, digits_of(values)) for value in values)
        verdicts.add("equal" if a == b else "lora" if (a < b) == lower_better else "full")
    return verdicts.pop() if len(verdicts) == 1 else "undecided"


def describe_tuning(results: Results) -> list[str]:
    """What the comparison shows, in sentences computed from it; each is true of the runs whoever wins."""
    comparison: Comparison = results["reward_comparison"]
    columns = columns_of(results)
    lower = {name: column["lower_better"] for name, column in columns.items()}
    seeds = len(comparison["equal_steps"])
    sentences = [_sentence(comparison, "equal_steps", lower)]
    if not comparison["equal_q"]:
        return [*sentences, f"At equal {comparison['q']} they cannot be compared: one of them never rose above its start."]
    sentences.append(_sentence(comparison, "equal_q", lower))
    sentences.append(_reading(tally(comparison, "equal_q", lower), comparison["q"]))
    if seeds == 1:
        sentences.append("These are runs of one seed: differences may be chance.")
    elif len(comparison["equal_q"]) < seeds:
        sentences.append(f"Only {len(comparison['equal_q'])} of {seeds} seeds have a range of {comparison['q']} that both pass through.")
    return sentences


def _sentence(comparison: Comparison, where: str, lower: dict[str, bool]) -> str:
    meetings: list[Meeting] = comparison[where]
    q = comparison["q"]
    means = {side: {key: float(np.mean([m[side][key] for m in meetings])) for key in meetings[0][side]} for side in ("lora", "full")}
    a, b = means["lora"], means["full"]
    if where == "equal_steps":
        start = f"At equal steps ({a['step']:.0f}) {q} {arrow(lower[q])} is {a[q]:.2f} with LoRA and {b[q]:.2f} with all weights tuned. "
    else:
        start = f"At equal {q} ({a[q]:.2f}; LoRA gets there after {a['step']:.0f} steps, full tuning after {b['step']:.0f}): "
    groups: dict[str, list[str]] = {"lora": [], "full": [], "equal": [], "undecided": []}
    for column, winner in tally(comparison, where, lower).items():
        digits = digits_of([a[column], b[column]])
        values = f"{format_value(a[column], digits)} against {format_value(b[column], digits)}"
        groups[winner].append(f"{column} {arrow(lower[column])} {values}")
    words = {"lora": "LoRA is better on", "full": "full tuning is better on", "equal": "equal:", "undecided": "the seeds disagree on"}
    return start + "; ".join(f"{words[winner]} {', '.join(found)}" for winner, found in groups.items() if found) + "."


def _reading(winners: dict[str, str], q: str) -> str:
    won, n = sum(w == "lora" for w in winners.values()), len(winners)
    lost = sum(w == "full" for w in winners.values())
    if won == n:
        return f"So at the same {q} LoRA is better on all {n} columns that the reward does not see."
    if won == 0:
        return f"So LoRA does not win: at the same {q} it is better on none of the {n} columns that the reward does not see."
    if won > lost:
        return f"So at the same {q} LoRA wins on {won} of the {n} columns that the reward does not see, not on all."
    return (
        f"So LoRA does not win: at the same {q} it is better on only {won} of the {n} columns that the reward does not see. "
        "What looks like protection at equal steps may be slower optimisation."
    )


def curves(results: Results, name: str) -> list[list[dict[str, Any]]]:
    """A variant's curves, one per seed, each point as {"step", column: value}."""
    return [[{"step": point["step"], **point["metrics"]} for point in run["curve"]] for run in runs_of(results["variants"][name])]

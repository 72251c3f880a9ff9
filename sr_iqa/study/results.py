"""results.json: the layout, seeds merged into one entry, and what can be read off it without a figure.

    {"variants": {name: Variant}, "gold_standard": {metric: GoldStandard}, "optimised_metric": "nano",
     "reward_comparison": see tuning.py, "equal_q": see equal_q.py,
     "checks": [Check], "data": {"sets": {image: {"source", "labels"}}, ...}, "provenance": {...},
     "dni", "dial_comparison": see dials.py and meetings.py}

All values are native: `lower_better` tells their direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np


class MetricValues(TypedDict):
    """One column of one variant: what Evaluation.to_dict() writes; over several seeds the means."""

    mean: float
    per_image: dict[str, float]
    lower_better: bool
    against: str
    """positives, all, best, original or none (scorecard.Column)."""
    metric: str
    identity: str
    convention: str
    spread: NotRequired[float]
    """Standard deviation (n - 1) of the seeds' means; only where there are several seeds."""
    interval: NotRequired[tuple[float, float]]
    """95 % bootstrap interval of the mean over photos (and seeds); with the following made by significance.add_statistics."""
    against_baseline: NotRequired[dict[str, float]]
    """difference (native units), low, high, p, p_holm, effect, win_rate; not on the baseline itself."""
    p_worse_than_best: NotRequired[float]
    """Holm-corrected p of the difference from the column's best variant; 1 on the best itself."""


class CurvePoint(TypedDict):
    """An evaluation on the held-out sets during training."""

    step: int
    metrics: dict[str, float]
    """Column -> mean over images."""


class Run(TypedDict):
    """What is kept of one seed of a variant."""

    seed: int
    metrics: dict[str, float]
    """Column -> mean over images."""
    per_image: dict[str, dict[str, float]]
    """Column -> image -> value."""
    chosen: dict[str, int]
    standings: dict[str, int]
    curve: list[CurvePoint]


class Variant(TypedDict):
    """One row of the table."""

    metrics: dict[str, MetricValues]
    chosen: dict[str, int]
    """GT name ("original", "01", ...) -> how often it supervised a crop; summed over seeds. Empty where it was not counted."""
    standings: dict[str, int]
    """The same by what annotators said of the GT (gtset.STANDINGS)."""
    steps: int
    seed: int
    """The (first) manual_seed."""
    options: dict[str, Any]
    """The resolved options."""
    curve: list[CurvePoint]
    """Of the first seed; all of them are in `runs`."""
    starts_from: NotRequired[str | None]
    """The variant whose trained weights it started from."""
    runs: NotRequired[list[Run]]
    """One entry per seed; made by merge_seeds."""
    scales: NotRequired[list[Any]]
    """Its adapter at several scales (dials.ScaleRow); only where these were asked for."""


class GoldStandard(TypedDict):
    """What the GTs reach (evaluation.gold_standard)."""

    mean: float
    per_image: dict[str, float]
    best: dict[str, str]
    scores: dict[str, dict[str, float]]
    lower_better: bool
    identity: str


class Check(TypedDict):
    """One expectation and whether these runs meet it."""

    text: str
    holds: bool


Results = dict[str, Any]


def merge_seeds(runs: Sequence[Variant]) -> Variant:
    """One entry from the same variant trained with several seeds: means over seeds, their spread, and every seed's own means in `runs`."""
    first = runs[0]
    merged: dict[str, MetricValues] = {}
    for column, values in first["metrics"].items():
        means = [run["metrics"][column]["mean"] for run in runs]
        per_image = {image: float(np.mean([run["metrics"][column]["per_image"][image] for run in runs])) for image in values["per_image"]}
        merged[column] = {**values, "mean": float(np.mean(means)), "per_image": per_image}
        if len(runs) > 1:
            merged[column]["spread"] = float(np.std(means, ddof=1))
    chosen, standings = (_summed([run[key] for run in runs]) for key in ("chosen", "standings"))
    return {**first, "metrics": merged, "chosen": chosen, "standings": standings, "runs": [run_of(run) for run in runs]}


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Counts of all runs, in the first one's order."""
    total = sum(map(Counter, counts), Counter())
    return {name: total[name] for name in (*counts[0], *sorted(total.keys() - counts[0].keys())) if name in total}


def run_of(variant: Variant) -> Run:
    """The single seed's run that a variant without `runs` stands for."""
    means = {column: values["mean"] for column, values in variant["metrics"].items()}
    per_image = {column: values["per_image"] for column, values in variant["metrics"].items()}
    return {
        "seed": variant["seed"],
        "metrics": means,
        "per_image": per_image,
        "chosen": variant["chosen"],
        "standings": variant["standings"],
        "curve": variant["curve"],
    }


def runs_of(variant: Variant) -> list[Run]:
    """A variant's runs, one per seed."""
    return variant.get("runs") or [run_of(variant)]


def columns_of(results: Results) -> dict[str, MetricValues]:
    """The table's columns in tiers: pixel-level, mid-level, no-reference, structured noise; each with some variant's entry."""
    found: dict[str, MetricValues] = {}
    for variant in results["variants"].values():
        found.update(variant["metrics"])
    return dict(sorted(found.items(), key=lambda item: TIERS.index(tier(item[1]))))


TIERS = ("pixel-level", "mid-level", "no-reference", "structured noise")
PIXEL_LEVEL = ("psnr", "psnry", "ssim", "ssimc", "ms_ssim", "cw_ssim")


def tier(column: MetricValues) -> str:
    """The group of a column in the table."""
    if column["metric"] in ("grid", "noise"):
        return "structured noise"
    if column["against"] == "none":
        return "no-reference"
    return "pixel-level" if column["metric"] in PIXEL_LEVEL else "mid-level"


def tier_spans(results: Results) -> list[tuple[str, int]]:
    """The table's upper head: (group, columns)."""
    groups = [tier(column) for column in columns_of(results).values()]
    return [(group, groups.count(group)) for group in dict.fromkeys(groups)]


def best_variants(results: Results, column: str) -> set[str]:
    """The variants with the best mean, as far as the table's digits show it."""
    means = {name: v["metrics"][column]["mean"] for name, v in results["variants"].items() if column in v["metrics"]}
    finite = {name: mean for name, mean in means.items() if np.isfinite(mean)}
    if not finite:
        return set()
    pick = min if columns_of(results)[column]["lower_better"] else max
    best = pick(finite.values())
    digits = digits_of(list(finite.values()))
    return {name for name, mean in finite.items() if f"{mean:.{digits}f}" == f"{best:.{digits}f}"}


def digits_of(values: Sequence[float]) -> int:
    """Decimals for a column: three for values around 1, two up to hundreds."""
    finite = [abs(value) for value in values if np.isfinite(value)]
    return 3 if not finite or max(finite) < 2 else 2


def format_value(value: float | None, digits: int) -> str:
    """The value with its decimals, or a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def arrow(lower_better: bool) -> str:
    """The direction of better values."""
    return "↓" if lower_better else "↑"


def shares(chosen: Mapping[str, int]) -> dict[str, float]:
    """GT -> share of all choices, in [0, 1]."""
    total = sum(chosen.values())
    return {gt: count / total for gt, count in chosen.items()} if total else {}


def order_checks(results: Results, names: Sequence[str], column: str, rising: bool) -> list[Check]:
    """Whether the column's mean rises (or falls) from each of the named variants to the next; one check per link.

    With several seeds the number of seeds in which the link holds is added.
    """
    word, sign = ("<", 1) if rising else (">", -1)
    checks: list[Check] = []
    for low, high in zip(names, names[1:], strict=False):
        a, b = results["variants"][low], results["variants"][high]
        means = [v["metrics"][column]["mean"] for v in (a, b)]
        digits = digits_of(means)
        text = f"{column}: {low} {means[0]:.{digits}f} {word} {high} {means[1]:.{digits}f}"
        pairs = [(x["metrics"][column], y["metrics"][column]) for x, y in zip(runs_of(a), runs_of(b), strict=True)]
        if len(pairs) > 1:
            text += f" (in {sum(sign * (y - x) > 0 for x, y in pairs)} of {len(pairs)} seeds)"
        checks.append({"text": text, "holds": bool(sign * (means[1] - means[0]) > 0)})
    return checks

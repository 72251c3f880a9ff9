"""Statistics of every column into the results: intervals, each variant against the baseline, each variant against the column's best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sr_iqa.errors import UsageError

from .results import Results, columns_of, runs_of
from .statistics import CONFIDENCE, DRAWS, bootstrap_interval, compare, holm

LEVEL = 0.05
LEAST_PHOTOS = 6
"""With fewer the signed-rank test cannot reach p < 0.05, whatever the differences."""


def add_statistics(results: Results, baseline: str) -> None:
    """Adds `interval`, `against_baseline` and `p_worse_than_best` to every variant's columns, and results["statistics"].

    Holm's correction runs over the variants of one column. Variants are compared on the seeds that both have.

    Raises:
        UsageError: the baseline is no variant.
    """
    if baseline not in results["variants"]:
        raise UsageError(f"baseline {baseline}: there is no such variant; choose from {', '.join(results['variants'])}")
    photos: set[str] = set()
    for column in columns_of(results):
        photos |= set(_column_statistics(results, column, baseline))
    results["statistics"] = {"baseline": baseline, "confidence": CONFIDENCE, "draws": DRAWS, "level": LEVEL, "photos": len(photos)}


def can_tell(results: Results) -> bool:
    """Whether there are enough photos for any difference to be significant."""
    return results.get("statistics", {}).get("photos", 0) >= LEAST_PHOTOS


def _column_statistics(results: Results, column: str, baseline: str) -> list[str]:
    """Fills in one column; returns the photos behind its images."""
    entries = {name: v["metrics"][column] for name, v in results["variants"].items() if column in v["metrics"]}
    images = list(next(iter(entries.values()))["per_image"])
    sets = results["data"].get("sets", {})
    photos = [sets.get(image, {}).get("source", image) for image in images]
    values = {name: _by_seed(results, name, column, images) for name in entries}
    lower_better = next(iter(entries.values()))["lower_better"]
    for name, entry in entries.items():
        interval = bootstrap_interval(_matrix(values[name]), photos)
        entry["interval"] = (interval.low, interval.high)

    def compared(reference: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        found = {}
        for name in entries:
            seeds = values[name].keys() & values[reference].keys()
            if name != reference and seeds:
                a, b = (_matrix({seed: values[which][seed] for seed in sorted(seeds)}) for which in (name, reference))
                d = compare(a, b, photos, lower_better)
                found[name] = {"difference": d.mean, "low": d.interval.low, "high": d.interval.high, "p": d.p}
                found[name] |= {"effect": d.effect, "win_rate": d.win_rate}
        return found, holm({name: row["p"] for name, row in found.items()})

    if baseline in entries:
        rows, corrected = compared(baseline)
        for name, row in rows.items():
            entries[name]["against_baseline"] = {**row, "p_holm": corrected[name]}
    means = {name: entry["mean"] for name, entry in entries.items() if np.isfinite(entry["mean"])}
    if means:
        best = (min if lower_better else max)(means, key=means.__getitem__)
        _, corrected = compared(best)
        for name, p in {**corrected, best: 1.0}.items():
            entries[name]["p_worse_than_best"] = p
    return photos


def _by_seed(results: Results, name: str, column: str, images: list[str]) -> dict[int, np.ndarray]:
    """Seed -> (N,) values of the images."""
    runs = runs_of(results["variants"][name])
    return {run["seed"]: np.array([run["per_image"][column][image] for image in images], float) for run in runs}


def _matrix(by_seed: Mapping[int, np.ndarray]) -> np.ndarray:
    """(S, N)"""
    return np.stack(list(by_seed.values()))

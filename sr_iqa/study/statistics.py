"""How sure a difference between variants is: intervals, paired tests, effect sizes (docs/studies.md explains them).

Patches of one photo are alike, and so are runs of one variant on one patch. So the photo is the unit of chance everywhere: intervals draw
photos and seeds with replacement (a seed's network has seen all photos, so the two are drawn independently), tests compare photos.

Values are (S, N): S seeds, N images; `photos` (N,) says which photo each image was cut from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
DRAWS = 5000
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the bootstrap distribution of a mean, in the metric's native units."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A variant against the baseline, in one column."""

    mean: float
    """Variant minus baseline, native units."""
    interval: Interval
    p: float
    """Two-sided Wilcoxon signed-rank test over photos."""
    effect: float
    """Matched-pairs rank-biserial correlation in -1..1: +1 where the variant is better on every photo, whatever the metric's direction."""
    win_rate: float
    """Share of images on which the variant is better; ties count half."""
    photos: int
    """The test's sample size."""


def bootstrap_interval(values: np.ndarray, photos: Sequence[str], draws: int = DRAWS) -> Interval:
    """The percentile interval of the mean over images of the mean over seeds.

    Each draw takes as many photos as there are, with replacement, each with all its images, and as many seeds as there are, with
    replacement. One photo gives an interval of no width: nothing is known of other photos.
    """
    totals, counts = _by_photo(values, photos)
    seeds, n = totals.shape
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = rng.integers(n, size=(draws, n))
    per_seed = totals[:, drawn].sum(2) / counts[drawn].sum(1)  # (S, draws)
    if seeds > 1:
        per_seed = np.take_along_axis(per_seed, rng.integers(seeds, size=(seeds, draws)), 0)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(per_seed.mean(0), [tail, 100 - tail])
    return Interval(float(low), float(high))


def compare(variant: np.ndarray, baseline: np.ndarray, photos: Sequence[str], lower_better: bool) -> Difference:
    """A variant against a baseline on the same images and seeds, (S, N) each."""
    difference = variant - baseline
    per_photo = _photo_means(difference, photos)
    gain = -difference.mean(0) if lower_better else difference.mean(0)
    return Difference(
        mean=float(difference.mean()),
        interval=bootstrap_interval(difference, photos),
        p=signed_rank_p(per_photo),
        effect=rank_biserial(-per_photo if lower_better else per_photo),
        win_rate=float(np.mean((gain > 0) + 0.5 * (gain == 0))),
        photos=len(per_photo),
    )


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test for paired differences (n,); exact where SciPy can be; 1 where all are zero."""
    if not np.any(differences):
        return 1.0
    result: Any = stats.wilcoxon(differences)
    return float(result.pvalue)


def rank_biserial(gains: np.ndarray) -> float:
    """(sum of ranks of the gains - sum of ranks of the losses) / sum of all ranks, zeros left out (Kerby 2014); 0 where all are zero."""
    gains = gains[gains != 0]
    if not len(gains):
        return 0.0
    ranks = stats.rankdata(np.abs(gains))
    return float((ranks * np.sign(gains)).sum() / ranks.sum())


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): the k-th smallest of m is multiplied by m - k + 1, never falls, and is at most 1."""
    adjusted, largest = {}, 0.0
    for k, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - k)))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _photo_means(values: np.ndarray, photos: Sequence[str]) -> np.ndarray:
    """(P,) mean over seeds and the photo's images."""
    totals, counts = _by_photo(values, photos)
    return totals.mean(0) / counts


def _by_photo(values: np.ndarray, photos: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """((S, P) sums over each photo's images, (P,) how many there are)."""
    if values.ndim != 2 or values.shape[1] != len(photos):
        raise ValueError(f"values must be (seeds, {len(photos)}), got {values.shape}")
    _, index = np.unique(np.asarray(photos), return_inverse=True)
    counts = np.bincount(index)
    totals = np.stack([np.bincount(index, row) for row in values])
    return totals, counts

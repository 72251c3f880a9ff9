"""Agreement of scores with opinion scores: rank and linear correlation, as image quality papers report them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from sr_iqa.study.statistics import BOOTSTRAP_SEED, CONFIDENCE, Interval

DRAWS = 400
"""Bootstrap draws: each sorts all images anew."""


@dataclass(frozen=True)
class Correlation:
    """Of signed scores with opinion scores; NaN where all scores are the same."""

    srcc: float
    srcc_interval: Interval
    """Scenes drawn with replacement."""
    krcc: float
    """Kendall's tau-b."""
    plcc: float
    """Pearson's, after the four-parameter logistic of VQEG has been fitted to the opinion scores; plain where no rising one fits."""
    plcc_plain: float
    """Pearson's, of the scores as they are."""
    images: int


def correlate(scores: np.ndarray, mos: np.ndarray, scenes: Sequence[str]) -> Correlation:
    """Scores and opinion scores of images (N,), higher is better in both; `scenes` (N,) says what each shows."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(mos) == 0:
        nan = float("nan")
        return Correlation(nan, Interval(nan, nan), nan, nan, nan, len(scores))
    plain = _statistic(stats.pearsonr(scores, mos))
    return Correlation(
        srcc=_statistic(stats.spearmanr(scores, mos)),
        srcc_interval=_interval(scores, mos, scenes),
        krcc=_statistic(stats.kendalltau(scores, mos)),
        plcc=_statistic(stats.pearsonr(fitted(scores, mos), mos)) if len(scores) > 4 else plain,
        plcc_plain=plain,
        images=len(scores),
    )


def fitted(scores: np.ndarray, mos: np.ndarray) -> np.ndarray:
    """(b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2 with the parameters that bring it closest to `mos`.

    The scores as they are where none are found, or where the curve falls, which would turn a metric that is wrong into one that is right.
    """

    def logistic(x: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
        return (b1 - b2) / (1 + np.exp(np.clip(-(x - b3) / (abs(b4) + 1e-12), -500, 500))) + b2

    x = (scores - scores.mean()) / scores.std()
    start = (mos.max(), mos.min(), 0.0, 0.25)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            parameters, _ = optimize.curve_fit(logistic, x, mos, p0=start, maxfev=10_000)
    except RuntimeError:  # no convergence
        return scores
    values = logistic(x, *parameters)
    rises = parameters[0] > parameters[1] and np.ptp(values) > 0
    return values if rises and np.isfinite(values).all() else scores


def _interval(scores: np.ndarray, mos: np.ndarray, scenes: Sequence[str]) -> Interval:
    _, index = np.unique(np.asarray(scenes), return_inverse=True)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])  # the images of each scene
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    values = []
    for _ in range(DRAWS):
        drawn = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        if np.ptp(scores[drawn]) > 0 and np.ptp(mos[drawn]) > 0:
            values.append(np.corrcoef(stats.rankdata(scores[drawn]), stats.rankdata(mos[drawn]))[0, 1])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _statistic(result: object) -> float:
    return float(result.statistic)  # pyright: ignore[reportAttributeAccessIssue]

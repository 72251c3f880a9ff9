"""Sensor noise on 8-bit levels: Gaussian, and Poisson by exact table look-up (numpy's Poisson draws are the slowest part of all)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_UNIT = 1 << 31
_GUIDE_BITS = 10
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Noise:
    kind: str
    """gaussian or poisson."""
    amount: float
    """gaussian: standard deviation in levels of 255; poisson: factor of the photon noise."""
    gray: bool
    """The three channels get the same noise."""
    seed: int
    """Of the pixels' draws."""


def add_noise(image: np.ndarray, noise: Noise) -> np.ndarray:
    """Float32 levels (h, w, 3) plus noise, clipped to 0..255."""
    rng = np.random.Generator(np.random.SFC64(noise.seed))
    if noise.kind == "gaussian":
        shape = (*image.shape[:2], 1) if noise.gray else image.shape
        grain = rng.standard_normal(shape, np.float32)
    else:
        grain = poisson_noise((image @ _LUMA)[..., None] if noise.gray else image, rng)
    return np.clip(image + np.float32(noise.amount) * grain, 0, 255)


def poisson_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise in levels of counting photons: the image is rounded to 8 bit and white is as many photons as the next power of two
    above its number of distinct levels (as scikit-image and BasicSR do)."""
    levels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    distinct = np.count_nonzero(np.bincount(levels.ravel(), minlength=256))
    photons = 1 << int(np.ceil(np.log2(distinct)))
    counts = poisson_counts(levels, photons, rng)
    return counts * np.float32(255 / photons) - levels


def poisson_counts(levels: np.ndarray, photons: int, rng: np.random.Generator) -> np.ndarray:
    """int16 Poisson counts with means levels / 255 * photons, by inverting the distribution function at random 31-bit numbers.

    The number's top bits look up the smallest possible count; it is raised while the number is not below the cumulative probability.
    """
    cumulative, guide = _poisson_tables(photons)
    u = rng.integers(0, _UNIT, levels.size, np.uint32)
    level = levels.ravel().astype(np.int32)
    counts = guide.ravel()[(level << _GUIDE_BITS) + (u >> np.uint32(31 - _GUIDE_BITS))]
    rows, width = cumulative.ravel(), cumulative.shape[1]
    pending = np.flatnonzero(u >= rows[level * width + counts])
    while pending.size:
        counts[pending] += 1
        pending = pending[u[pending] >= rows[level[pending] * width + counts[pending]]]
    return counts.reshape(levels.shape)


@lru_cache(maxsize=9)
def _poisson_tables(photons: int) -> tuple[np.ndarray, np.ndarray]:
    """(cumulative probability of each count in units of 2^-31, smallest count of each slice of the unit interval), a row per level."""
    from scipy.stats import poisson

    means = np.arange(256) / 255 * photons
    counts = np.arange(int(poisson.ppf(1 - 1e-12, photons)) + 2)
    cumulative = np.rint(poisson.cdf(counts, means[:, None]) * _UNIT).astype(np.uint32)
    cumulative[:, -1] = _UNIT  # every number finds a count
    edges = np.arange(1 << _GUIDE_BITS, dtype=np.uint32) << np.uint32(31 - _GUIDE_BITS)
    guide = np.stack([np.searchsorted(row, edges, side="right") for row in cumulative]).astype(np.int16)
    return cumulative, guide

"""Sensor noise on 8-bit levels by table look-up: numpy's own draws would be the slowest part of making a training sample.

Poisson counts are exact. Gaussian values are the 65,536 means of as many equally likely slices of the distribution, which rounding to 8-bit
levels cannot tell from all others. numpy's own take at least five times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.special import ndtri, pdtr

_UNIT = 1 << 32
_SLOT_BITS = 11
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
        grain = gaussian_noise(shape, noise.amount, rng)
    else:
        grain = poisson_noise((image @ _LUMA)[..., None] if noise.gray else image, rng)
        grain *= np.float32(noise.amount)
    noisy = image + grain
    return np.clip(noisy, 0, 255, out=noisy)


def gaussian_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Float32 normal deviates of standard deviation `sigma`."""
    slices = _random_bits(rng, math.prod(shape), np.uint16)
    return (np.float32(sigma) * _normal_table()).take(slices).reshape(shape)


@lru_cache(maxsize=1)
def _normal_table() -> np.ndarray:
    """float32 (65536,): the standard normal distribution's mean within each of 65536 equally likely slices, scaled to variance 1."""
    edges = ndtri(np.arange((1 << 16) + 1) / (1 << 16))
    means = -np.diff(np.exp(-(edges**2) / 2))  # the density's fall across a slice, up to a factor
    return (means / means.std()).astype(np.float32)


def poisson_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Float32 noise in levels of counting photons: the image is rounded to 8 bit and white is as many photons as the next power of two
    above its number of distinct levels (as scikit-image and BasicSR do)."""
    levels = cv2.add(image, np.zeros(4), dtype=cv2.CV_8U).reshape(image.shape)  # rounds and saturates
    distinct = np.count_nonzero(cv2.calcHist([levels.reshape(-1, 1)], [0], None, [256], [0, 256]))
    photons = 1 << int(np.ceil(np.log2(distinct)))
    return poisson_counts(levels, photons, rng) * np.float32(255 / photons) - levels


def poisson_counts(levels: np.ndarray, photons: int, rng: np.random.Generator) -> np.ndarray:
    """int16 Poisson counts with means levels / 255 * photons, by inverting the distribution function at random 32-bit numbers.

    A number's top bits name its slot. Nearly all slots lie within one count; in the others the cumulative probabilities decide.
    """
    slots, cumulative, width = _poisson_tables(photons)
    u = _random_bits(rng, levels.size, np.uint32)
    place = levels.ravel().astype(np.intp) << _SLOT_BITS
    place |= u >> np.uint32(32 - _SLOT_BITS)
    counts = slots.take(place)
    several = np.flatnonzero(counts < 0)
    level = place[several] >> _SLOT_BITS
    number = (level << 32) + u[several]
    entry = level * width + ~counts[several]
    entry += number >= cumulative[entry]  # mostly it is the slot's first count or its second; the rest is searched
    beyond = np.flatnonzero(number >= cumulative[entry])
    entry[beyond] = np.searchsorted(cumulative, number[beyond], side="right")
    counts[several] = entry - level * width
    return counts.reshape(levels.shape)


def _random_bits(rng: np.random.Generator, size: int, kind: type[np.unsignedinteger]) -> np.ndarray:
    """`size` numbers, uniform over all values of the unsigned type; faster than rng.integers."""
    per_word = 8 // np.dtype(kind).itemsize
    return rng.bit_generator.random_raw(-(-size // per_word)).view(kind)[:size]


@lru_cache(maxsize=9)
def _poisson_tables(photons: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Slots, cumulative probabilities and the number of counts, beyond which less than 1e-12 of white's probability is left.

    Slots int16 (256 << SLOT_BITS,): a slot's count, or ~(its smallest count) where it holds several.
    Cumulative int64 (256 * counts,): in units of 2^-32, each level's a whole unit above the level's below, so that one search serves all.
    """
    means = np.arange(256) / 255 * photons
    width = int(np.searchsorted(pdtr(np.arange(20 * photons + 50), photons), 1 - 1e-12)) + 2
    cumulative = np.rint(pdtr(np.arange(width), means[:, None]) * _UNIT).astype(np.int64)
    cumulative[:, -1] = _UNIT  # every number finds a count
    edges = np.arange((1 << _SLOT_BITS) + 1) << (32 - _SLOT_BITS)
    first = np.stack([np.searchsorted(row, edges[:-1], side="right") for row in cumulative])
    last = np.stack([np.searchsorted(row, edges[1:] - 1, side="right") for row in cumulative])
    slots = np.where(first == last, first, ~first).astype(np.int16)
    return slots.ravel(), (cumulative + (np.arange(256)[:, None] << 32)).ravel(), width

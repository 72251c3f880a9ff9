"""Blur kernels of Real-ESRGAN (ICCVW 2021, section 3.2), tested against BasicSR's: one dataclass of parameters, one function each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Blur:
    """The parameters of one kernel; `size` is its odd side in pixels."""

    kind: str
    """iso, aniso, generalized_iso, generalized_aniso, plateau_iso, plateau_aniso, or sinc."""
    size: int
    sigma_x: float = 0.0
    sigma_y: float = 0.0
    """Standard deviations along the kernel's axes in pixels; the isotropic kinds use sigma_x alone."""
    angle: float = 0.0
    """Rotation in radians."""
    beta: float = 1.0
    """Shape of the generalized and plateau kinds."""
    cutoff: float = 0.0
    """sinc: cut-off frequency in radians per pixel, at most pi."""


@lru_cache(maxsize=64)
def blur_kernel(blur: Blur) -> np.ndarray:
    """float64 (size, size), summing to 1."""
    kernel = _sinc(blur) if blur.kind == "sinc" else _gaussian_like(blur)
    return kernel / kernel.sum()


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(size) - size // 2
    return np.meshgrid(axis.astype(float), axis.astype(float))


def _gaussian_like(blur: Blur) -> np.ndarray:
    """A function of the squared Mahalanobis distance: exp(-d/2), exp(-d^beta / 2) or 1 / (1 + d^beta)."""
    x, y = _grid(blur.size)
    sigma_y = blur.sigma_y if blur.kind.endswith("aniso") else blur.sigma_x
    cos, sin = np.cos(blur.angle), np.sin(blur.angle)
    distance = ((cos * x + sin * y) / blur.sigma_x) ** 2 + ((cos * y - sin * x) / sigma_y) ** 2
    if blur.kind.startswith("plateau"):
        return 1 / (1 + distance**blur.beta)
    if blur.kind.startswith("generalized"):
        return np.exp(-0.5 * distance**blur.beta)
    return np.exp(-0.5 * distance)


def _sinc(blur: Blur) -> np.ndarray:
    """The ideal circular low-pass filter, cut off at the kernel's edge."""
    from scipy.special import j1

    radius = np.hypot(*_grid(blur.size))
    centre = blur.size // 2
    radius[centre, centre] = 1  # the limit at 0 is written below
    kernel = blur.cutoff * j1(blur.cutoff * radius) / (2 * np.pi * radius)
    kernel[centre, centre] = blur.cutoff**2 / (4 * np.pi)
    return kernel

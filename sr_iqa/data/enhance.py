"""Four classical enhancers for the demo's photos, each good in some regions and worse in others.

All take and return an RGB float32 image (h, w, 3) in [0, 1], work on the luma (BT.601) and carry its change to the three
channels, so that colours stay. The radii fit photos enlarged twice (demo.py): structures of 2-5 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def luma(rgb: Image) -> Image:
    """BT.601 luma (h, w) in [0, 1]."""
    return rgb @ LUMA


def blur(image: Image, sigma: float) -> Image:
    """Gaussian blur with mirrored borders."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def guided_smooth(y: Image, radius: int, eps: float) -> Image:
    """Edge-preserving smoothing: the guided filter with the image as its own guide (He et al., ECCV 2010).

    Windows whose variance is well above `eps` pass unchanged, windows well below it become their mean.
    """
    size = (2 * radius + 1, 2 * radius + 1)
    mean = cv2.blur(y, size)
    variance = np.maximum(cv2.blur(y * y, size) - mean * mean, 0)
    gain = variance / (variance + eps)
    return cv2.blur(gain, size) * y + cv2.blur(mean * (1 - gain), size)


def _replace_luma(rgb: Image, old: Image, new: Image) -> Image:
    return np.clip(rgb + (new - old)[..., None], 0, 1).astype(np.float32)


def deconvolve(rgb: Image, sigma: float = 1.7, iterations: int = 14) -> Image:
    """Richardson-Lucy deconvolution of a Gaussian blur: crisp edges, but grain in flat regions and ringing beside strong edges."""
    y = luma(rgb)
    observed = np.maximum(y, 1e-3)
    estimate = observed.copy()
    for _ in range(iterations):
        estimate *= blur(observed / np.maximum(blur(estimate, sigma), 1e-3), sigma)
    return _replace_luma(rgb, y, estimate)


def unsharp(rgb: Image, sigma: float = 2.2, amount: float = 2.0) -> Image:
    """A strong unsharp mask: lifts soft regions, and overdoes it with bright and dark halos where edges are strong already."""
    y = luma(rgb)
    return _replace_luma(rgb, y, y + amount * (y - blur(y, sigma)))


def local_contrast(rgb: Image, clip: float = 2.0, tiles: int = 8, amount: float = 0.9) -> Image:
    """CLAHE and a mild unsharp mask: opens dark and hazy regions, and stretches the noise of smooth ones."""
    y = luma(rgb)
    clahe = cv2.createCLAHE(clipLimit=clip, tileGridSize=(tiles, tiles))
    levels = np.clip(y * 65535, 0, 65535).astype(np.uint16)
    equalised = clahe.apply(levels).astype(np.float32) / 65535
    mixed = 0.5 * y + 0.5 * equalised
    return _replace_luma(rgb, y, mixed + amount * (mixed - blur(mixed, 1.5)))


def boost_detail(rgb: Image, amount: float = 2.2) -> Image:
    """Edge-preserving denoising, then fine detail boosted: rich texture and clean flats, but strong edges stay soft."""
    y = luma(rgb)
    clean = guided_smooth(y, radius=2, eps=2e-4)
    base = guided_smooth(clean, radius=6, eps=6e-3)
    return _replace_luma(rgb, y, base + (1 + amount) * (clean - base))


ENHANCERS: dict[str, Callable[[Image], Image]] = {
    "01": deconvolve,
    "02": unsharp,
    "03": local_contrast,
    "04": boost_detail,
}
"""Folder name of an enhanced GT -> the tool that makes it."""

"""Four classical enhancers for the demo's photos, each strong in the regions that it is made for and timid elsewhere.

As in photo editing, every tool works through a mask drawn from the photo: strong edges, shadows or highlights. So their quality differs
by region, and where a mask lets too much through, a tool overdoes it. All take and return an RGB float32 image (h, w, 3) in [0, 1],
work on the luma (BT.601) and carry its change to the three channels, so that colours stay. The radii fit photos enlarged twice (demo.py).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Image = np.ndarray
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


def denoise(y: Image) -> Image:
    """Smooths flat regions and keeps edges."""
    return guided_smooth(y, radius=2, eps=3e-4)


def smoothstep(x: Image, low: float, high: float) -> Image:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def edge_mask(y: Image) -> Image:
    """1 near strong edges, 0 in flat regions and faint texture."""
    smooth = blur(y, 1)
    steepness = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)) / 8
    return smoothstep(blur(steepness, 8), 0.008, 0.03)


def shadow_mask(y: Image) -> Image:
    """1 in dark regions, 0 in bright ones."""
    return 1 - smoothstep(blur(y, 8), 0.25, 0.5)


def richardson_lucy(y: Image, sigma: float, iterations: int) -> Image:
    """Deconvolution of a Gaussian blur of width sigma (px)."""
    observed = np.maximum(y, 1e-3)
    estimate = observed.copy()
    for _ in range(iterations):
        estimate *= blur(observed / np.maximum(blur(estimate, sigma), 1e-3), sigma)
    return estimate


def deconvolve(rgb: Image) -> Image:
    """Richardson-Lucy on contours, mostly the bright ones: crisp there, soft elsewhere; beside the strongest edges it rings."""
    y = luma(rgb)
    clean = denoise(y)
    strength = 0.1 + 0.9 * edge_mask(y) * (1 - 0.7 * shadow_mask(y))
    return _replace_luma(rgb, y, clean + strength * (richardson_lucy(clean, 1.4, 50) - clean))


def unsharp(rgb: Image) -> Image:
    """A wide, strong unsharp mask on the highlights: clear in soft bright regions, overdone with halos beside strong edges."""
    y = luma(rgb)
    clean = denoise(y)
    amount = 0.2 + 2.2 * (1 - shadow_mask(y))
    return _replace_luma(rgb, y, clean + amount * (clean - blur(clean, 2.0)))


def local_contrast(rgb: Image) -> Image:
    """CLAHE and sharpening in the shadows: opens dark regions, and leaves bright ones nearly as they are."""
    y = luma(rgb)
    levels = np.clip(y * 65535, 0, 65535).astype(np.uint16)
    equalised = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(levels).astype(np.float32) / 65535
    clean = denoise(y + 0.2 * (equalised - y))
    strength = 0.1 + 0.9 * shadow_mask(y)
    return _replace_luma(rgb, y, y + strength * (richardson_lucy(clean, 1.4, 50) - y))


def boost_detail(rgb: Image) -> Image:
    """Edge-preserving denoising, then detail boosted away from edges: rich texture and clean flats, but contours stay soft."""
    y = luma(rgb)
    clean = denoise(y)
    fine = richardson_lucy(clean, 1.3, 40)
    detail = fine - guided_smooth(clean, radius=6, eps=6e-3)
    return _replace_luma(rgb, y, clean + (1 - 0.75 * edge_mask(y)) * (fine - clean + 0.4 * detail))


ENHANCERS: dict[str, Callable[[Image], Image]] = {
    "01": deconvolve,
    "02": unsharp,
    "03": local_contrast,
    "04": boost_detail,
}
"""Folder name of an enhanced GT -> the tool that makes it."""

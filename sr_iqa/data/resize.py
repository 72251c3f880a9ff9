"""Resizing: MATLAB's antialiased imresize, which the field's bicubic benchmarks use, and the three modes of the blind degradations."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

_OPENCV = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
Taps = tuple[np.ndarray, np.ndarray]
"""Input positions and their weights, both (taps, output length): output i is the weighted sum over column i."""


def resize(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Float32 (h, w, 3) to `size` = (height, width); the image's outer edges stay where they are. Modes as in ResizeMode."""
    if image.shape[:2] == size:
        return image
    if mode == "antialiased":
        return imresize(image, size)
    if mode == "area":
        return _separable(image, _area_taps(image.shape[0], size[0]), _area_taps(image.shape[1], size[1]))
    return cv2.resize(image, size[::-1], interpolation=_OPENCV[mode])


def imresize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """MATLAB's imresize(..., 'bicubic') with antialiasing, float32 (h, w, c) to `size` = (height, width), neither clipped nor rounded."""
    return _separable(image, _bicubic_taps(image.shape[0], size[0]), _bicubic_taps(image.shape[1], size[1]))


def _separable(image: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Weighted sums of rows, then of columns, tap by tap in a fixed order: the result does not depend on threads.

    Columns are summed as rows of the transposed image: in a third of the time, because whole rows are copied and not single pixels.
    """
    tall = _weighted_rows(image.astype(np.float32, copy=False), rows)
    return cv2.transpose(_weighted_rows(cv2.transpose(tall), columns))


def _weighted_rows(image: np.ndarray, taps: Taps) -> np.ndarray:
    """Float32 (h, w, c) -> (output length, w, c)."""
    total = np.empty((taps[0].shape[1], *image.shape[1:]), np.float32)
    term = np.empty_like(total)
    for k, (row, weight) in enumerate(zip(*taps, strict=True)):
        np.take(image, row, axis=0, out=term if k else total, mode="clip")
        np.multiply(term if k else total, weight[:, None, None], out=term if k else total)
        if k:
            total += term
    return total


@lru_cache(maxsize=256)
def _area_taps(length_in: int, length_out: int) -> Taps:
    """The plain mean of every input pixel that an output pixel touches, as torch's `area` (the peers') has it; OpenCV's weights them."""
    start = np.arange(length_out) * length_in // length_out
    stop = -(-(np.arange(length_out) + 1) * length_in // length_out)
    taps = start + np.arange((stop - start).max())[:, None]
    weights = (taps < stop) / (stop - start)
    return np.minimum(taps, length_in - 1), weights.astype(np.float32)


@lru_cache(maxsize=256)
def _bicubic_taps(length_in: int, length_out: int) -> Taps:
    """Keys' cubic, widened where it shrinks; positions outside the image are mirrored, edge included, as MATLAB does."""
    scale = length_out / length_in
    shrink = min(scale, 1.0)
    width = 4 / shrink
    centre = (np.arange(length_out) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2).astype(int)
    taps = first + np.arange(int(np.ceil(width)) + 2)[:, None]
    weights = _cubic((centre - taps) * shrink)
    weights /= weights.sum(0)
    used = np.any(weights != 0, axis=1)
    mirrored = np.mod(taps[used], 2 * length_in)
    mirrored = np.where(mirrored < length_in, mirrored, 2 * length_in - 1 - mirrored)
    return mirrored, weights[used].astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))

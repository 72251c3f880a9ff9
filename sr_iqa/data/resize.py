"""Resizing: MATLAB's antialiased imresize, which the field's bicubic benchmarks use, and OpenCV's modes."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

_OPENCV = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


def resize(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Float32 (h, w, 3) to `size` = (height, width); the image's outer edges stay where they are. Modes as in ResizeMode."""
    if image.shape[:2] == size:
        return image
    if mode == "antialiased":
        return imresize(image, size)
    return cv2.resize(image, size[::-1], interpolation=_OPENCV[mode])


def imresize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """MATLAB's imresize(..., 'bicubic') with antialiasing, float32 (h, w, c) to `size` = (height, width), neither clipped nor rounded.

    Separable: each output row, then column, is a weighted sum of few input ones. The sum runs over the taps in a fixed order, so that the
    result does not depend on threads.
    """
    rows, row_weights = _taps(image.shape[0], size[0])
    columns, column_weights = _taps(image.shape[1], size[1])
    tall = np.zeros((size[0], *image.shape[1:]), np.float32)
    for row, weight in zip(rows, row_weights, strict=True):
        tall += image[row] * weight[:, None, None]
    result = np.zeros((*size, image.shape[2]), np.float32)
    for column, weight in zip(columns, column_weights, strict=True):
        result += tall[:, column] * weight[:, None]
    return result


@lru_cache(maxsize=256)
def _taps(length_in: int, length_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Input positions (taps, length_out) and their weights; positions outside are mirrored, edge included, as MATLAB does."""
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

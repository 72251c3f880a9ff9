"""An image as a grid of blocks, the unit in which a store keeps and reads pixels.

py-lmdb touches every page of a value that it hands out, so a value must not be much larger than what crops need of it. A 256x256 crop of a
512x512 image touches 145 of its 192 pages on average, and a tenth of a 2040x1404 image. Square blocks of 128 px would touch 113 pages, but
take twice as long when they are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Size = tuple[int, int]
"""(height, width) in pixels."""
BLOCK: Size = (128, 512)
"""Of stores written now: 192 KiB raw, where rounding up to whole pages loses 2 %."""


class Part(NamedTuple):
    """What one block gives to a crop."""

    number: int
    """Of the block, row by row."""
    size: Size
    """Of the block; those at the right and lower border are smaller than the others."""
    inside: tuple[slice, slice]
    """The part in the block."""
    place: tuple[slice, slice]
    """The part in the crop."""


def split(image: np.ndarray, block: Size) -> list[np.ndarray]:
    """The blocks of an image (h, w, 3), row by row; views."""
    h, w = image.shape[:2]
    return [image[y : y + block[0], x : x + block[1]] for y in range(0, h, block[0]) for x in range(0, w, block[1])]


def parts(size: Size, block: Size, y: int, x: int, h: int, w: int) -> Iterator[Part]:
    """What every block that the box (y, x, h, w) meets gives to it; the box lies within the image of `size`."""
    per_row = -(-size[1] // block[1])
    columns = list(_spans(size[1], block[1], x, w))
    for row, height, inside_y, place_y in _spans(size[0], block[0], y, h):
        for column, width, inside_x, place_x in columns:
            yield Part(row * per_row + column, (height, width), (inside_y, inside_x), (place_y, place_x))


def _spans(side: int, step: int, start: int, length: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Along one axis: (index, length of the block, slice in the block, slice in the box)."""
    for index in range(start // step, -(-(start + length) // step) if length else 0):
        first = index * step
        low, high = max(first, start), min(first + step, start + length)
        yield index, min(step, side - first), slice(low - first, high - first), slice(low - start, high - start)

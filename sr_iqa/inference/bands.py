"""Large pictures: read as levels, upscaled tile by tile, and handed out in bands of rows that can be written at once.

Floats exist for the tiles of one pass only. So beside the input's levels the memory holds one band of output, however high the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .kinds import enlarged_alpha, take_picture
from .memory import MemoryShortage, shortage_named
from .pictures import Picture
from .precision import computing
from .tiles import Tile, is_whole, row_of_tiles, run_tiles, times
from .upscaler import Upscaler

AUTO_CPU, AUTO_GPU = 256, 1024
"""Sides of tiles to begin with: larger ones are no faster."""
SMALLEST_AUTO = 64
ADVICE = "use a smaller --tile, --overlap or --batch"


def upscale_bands(
    upscaler: Upscaler, pictures: Sequence[Picture], shrinking: Callable[[str], None] | None = None
) -> Iterator[list[Picture]]:
    """Upscales pictures of one size together; yields bands of rows from top to bottom, each a list with a picture's rows for every picture.

    Args:
        upscaler: its tile is the band's height in pixels of the input, all of it with tile 0; its batch bounds what goes together.
        shrinking: allows the upscaler's batch, then its tile, to be halved where the memory does not suffice, and is told so.

    Raises:
        MemoryShortage: too large for the memory. UserError: an output of NaN.
    """
    height, width = pictures[0].size
    top = 0
    while top < height:
        try:
            with shortage_named(f"{width}x{height} pixels are", ADVICE):
                bands = _band(upscaler, pictures, top)
        except MemoryShortage:
            if shrinking is None or not (told := _shrink(upscaler, pictures)):
                raise
            shrinking(told)
            continue  # after the error is gone, and with it the tensors that it holds
        yield bands
        top += bands[0].size[0] // upscaler.magnification


def _shrink(upscaler: Upscaler, pictures: Sequence[Picture]) -> str:
    """Halves what the network gets at once, and says so; empty where that is small enough already."""
    height, width = pictures[0].size
    whole = is_whole(height, width, upscaler.tile)
    across = 1 if whole else -(-width // upscaler.tile)
    used = min(upscaler.batch, across * len(pictures))
    if used > 1:
        upscaler.batch = used // 2
        return f"the memory does not suffice for batches of {used}; going on with {upscaler.batch}"
    tile = max(height, width) if whole else upscaler.tile
    smaller = max(SMALLEST_AUTO, tile // 2)
    if smaller >= tile:
        return ""
    upscaler.tile = smaller
    return f"the memory does not suffice for tiles of {tile} pixels; going on with {smaller}"


@torch.no_grad()
def _band(upscaler: Upscaler, pictures: Sequence[Picture], top: int) -> list[Picture]:
    """The output for the rows from `top` on, as many as a tile has."""
    width, scale = pictures[0].size[1], upscaler.magnification
    tiles = row_of_tiles(upscaler.net, pictures[0].size, top, upscaler.tile, upscaler.overlap)
    rows = tiles[0].rows.own
    outs = [np.empty((scale * (rows.stop - top), scale * width, p.pixels.shape[2]), p.pixels.dtype) for p in pictures]
    with upscaler.lock, computing(upscaler.precision, upscaler.device):
        for first in range(0, len(pictures), upscaler.batch):
            group = slice(first, first + upscaler.batch)
            _fill(upscaler, pictures[group], tiles, outs[group])
    alphas = [None if p.alpha is None else enlarged_alpha(p.alpha, scale, rows) for p in pictures]
    return [replace(p, pixels=out, alpha=alpha) for p, out, alpha in zip(pictures, outs, alphas, strict=True)]


def _fill(upscaler: Upscaler, pictures: Sequence[Picture], tiles: Sequence[Tile], outs: Sequence[np.ndarray]) -> None:
    """Puts what becomes of a row of tiles into `outs`, one array for each picture."""
    scale = upscaler.magnification
    likes = [take_picture(Picture(picture.pixels[:1, :1])) for picture in pictures]  # what turns a network's output into their kind

    def read(place: Tile) -> Tensor:
        seen = [Picture(_reflected(picture.pixels, place.rows.seen, place.columns.seen)) for picture in pictures]
        return upscaler.network_input(torch.stack([take_picture(part).lq for part in seen]).to(upscaler.device))

    for place, sr in run_tiles(upscaler.net, read, tiles, upscaler.batch // len(pictures)):
        for out, like, one in zip(outs, likes, sr, strict=True):
            out[:, times(place.columns.own, scale)] = like.back(one.expand(3, -1, -1)).pixels


def _reflected(levels: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """A part of (h, w, ...) that may reach beyond the end, into the reflection."""
    if rows.stop <= levels.shape[0] and columns.stop <= levels.shape[1]:
        return levels[rows, columns]
    return levels[_mirror(rows, levels.shape[0])[:, None], _mirror(columns, levels.shape[1])]


def _mirror(part: slice, size: int) -> np.ndarray:
    """Where the pixels of a part come from, as layers.pad_to_multiple has it."""
    period = max(2 * (size - 1), 1)
    steps = np.arange(part.start, part.stop) % period
    return np.minimum(steps, period - steps)

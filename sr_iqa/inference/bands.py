"""Large pictures: read as levels, upscaled tile by tile, and handed out in bands of rows that can be written at once.

Floats exist for the tiles of one pass only. So beside the input's levels the memory holds one band of output, however high the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from .kinds import LEVELS, take_picture
from .pictures import Picture
from .precision import computing
from .tiles import Span, Tile, is_whole, multiple_of, run_tiles, spans, times
from .upscaler import Upscaler

AUTO_CPU, AUTO_GPU = 256, 1024
"""Sides of tiles to begin with: larger ones are no faster."""
SMALLEST_AUTO = 64
ALPHA_MARGIN = 2
"""Rows that a bicubic sees beside its own."""


def upscale_bands(
    upscaler: Upscaler, pictures: Sequence[Picture], shrinking: Callable[[str], None] | None = None
) -> Iterator[list[Picture]]:
    """Upscales pictures of one size together; yields bands of rows from top to bottom, each a list with a picture's rows for every picture.

    Args:
        upscaler: its tile is the band's height in pixels of the input, all of it with tile 0.
        shrinking: allows the upscaler's tile to be halved where the GPU's memory does not suffice, and is told so.

    Raises:
        UserError: too large for the memory, or an output of NaN.
    """
    height, width = pictures[0].size
    top = 0
    while top < height:
        tile = max(height, width) if is_whole(height, width, upscaler.tile) else upscaler.tile
        try:
            bottom, bands = _band(upscaler, pictures, top, tile)
        except torch.cuda.OutOfMemoryError as error:
            smaller = max(SMALLEST_AUTO, tile // 2)
            if shrinking is None or smaller >= tile:
                raise UserError(f"{width}x{height} pixels are too much for the GPU's memory; use a (smaller) --tile.") from error
            upscaler.tile = smaller
            shrinking(f"the GPU's memory does not suffice for tiles of {tile} pixels; going on with {smaller}")
            continue  # after the error is gone, and with it the tensors that it holds
        yield bands
        top = bottom


@torch.no_grad()
def _band(upscaler: Upscaler, pictures: Sequence[Picture], top: int, tile: int) -> tuple[int, list[Picture]]:
    """The output for the rows from `top` on, as many as a tile has, and the row where they end."""
    height, width = pictures[0].size
    multiple, scale = multiple_of(upscaler.net), upscaler.magnification
    overlap = 0 if is_whole(height, width, tile) else upscaler.overlap
    rows = _from(top, height, tile, overlap, multiple)
    tiles = [Tile(rows, columns) for columns in spans(width, tile, overlap, multiple)]
    likes = [take_picture(Picture(picture.pixels[:1, :1])) for picture in pictures]  # what turns a network's output into their kind
    outs = [np.empty((scale * (rows.own.stop - top), scale * width, p.pixels.shape[2]), p.pixels.dtype) for p in pictures]

    def read(place: Tile) -> Tensor:
        seen = [Picture(_reflected(picture.pixels, place.rows.seen, place.columns.seen)) for picture in pictures]
        return upscaler.network_input(torch.stack([take_picture(part).lq for part in seen]).to(upscaler.device))

    with upscaler.lock, computing(upscaler.precision, upscaler.device):
        for place, sr in run_tiles(upscaler.net, read, tiles, upscaler.batch // len(pictures)):
            for out, like, one in zip(outs, likes, sr, strict=True):
                out[:, times(place.columns.own, scale)] = like.back(one.expand(3, -1, -1)).pixels
    bands = []
    for picture, out in zip(pictures, outs, strict=True):
        alpha = None if picture.alpha is None else _alpha(picture.alpha, rows.own, scale)
        bands.append(replace(picture, pixels=out, alpha=alpha))
    return rows.own.stop, bands


def _from(top: int, height: int, tile: int, overlap: int, multiple: int) -> Span:
    """The tile's rows that start at `top`, which may not be where a tile of this size would by itself."""
    whole = spans(height, tile, overlap, multiple)[0]
    side, length = max(tile // multiple, 1) * multiple, whole.seen.stop
    first = min(max(top - overlap - -overlap % multiple, 0), height + -height % multiple - length)
    return Span(slice(top, min(top + side, height)), slice(first, first + length))


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


def _alpha(alpha: np.ndarray, rows: slice, scale: int) -> np.ndarray:
    """Rows of alpha (h, w), enlarged bicubically: what is opaque stays so, to the level, which a network does not promise."""
    first, last = max(rows.start - ALPHA_MARGIN, 0), min(rows.stop + ALPHA_MARGIN, len(alpha))
    white = LEVELS[alpha.dtype]
    plane = torch.from_numpy(alpha[first:last].astype(np.float32))[None, None]
    large = F.interpolate(plane, scale_factor=scale, mode="bicubic", align_corners=False)[0, 0]
    own = large[scale * (rows.start - first) : scale * (rows.stop - first)]
    return own.round().clamp(0, white).numpy().astype(alpha.dtype)

"""A network over a whole image, or over overlapping tiles of it.

Along one axis a tile is the part whose output is kept; the network sees `overlap` pixels more on each side. All seen parts have one
length, so that shapes repeat, and start at multiples of what the network counts in (the windows of SwinIR), so that a tile's windows
are the whole image's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..archs import RRDBNet, SwinIR
from ..archs.layers import pad_to_multiple
from ..archs.spandrel_bridge import size_requirements
from ..errors import UserError
from ..modes import eval_mode


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in LQ pixels. What is seen may reach beyond the image, into its reflection."""

    own: slice
    seen: slice


@dataclass(frozen=True)
class Tile:
    rows: Span
    columns: Span


@torch.no_grad()
def upscale(net: nn.Module, lq: Tensor, tile: int = 0, overlap: int = 16, batch: int = 1) -> Tensor:
    """Runs a network in eval mode and clamps its output.

    Args:
        net: (N, 3, h, w) -> (N, 3, s*h, s*w).
        lq: (N, 3, h, w) in [0, 1], on the network's device.
        tile: side of the tiles in LQ pixels; 0 for the whole image at once.
        overlap: LQ pixels around each tile that the network sees too; their output is cut away, so that tiles meet without seams.
        batch: most tiles in one pass of the network, but at least one of each image.

    Returns:
        (N, 3, s*h, s*w) in [0, 1].
    """
    check_tiles(tile, overlap, batch)
    height, width = lq.shape[2:]
    if is_whole(height, width, tile):
        with eval_mode(net):
            return net(lq).clamp(0, 1)
    padded, tiles, top, out = pad_to_multiple(lq, multiple_of(net)), [], 0, None
    while top < height:
        tiles += row_of_tiles(net, (height, width), top, tile, overlap)
        top = tiles[-1].rows.own.stop
    for place, sr in run_tiles(net, lambda t: padded[:, :, t.rows.seen, t.columns.seen], tiles, batch // len(lq)):
        scale = sr.shape[2] // (place.rows.own.stop - place.rows.own.start)
        if out is None:
            out = sr.new_empty((*sr.shape[:2], scale * height, scale * width))
        out[..., times(place.rows.own, scale), times(place.columns.own, scale)] = sr
    assert out is not None  # an image has at least one tile
    return out


@torch.no_grad()
def run_tiles(net: nn.Module, read: Callable[[Tile], Tensor], tiles: Sequence[Tile], at_once: int = 1) -> Iterator[tuple[Tile, Tensor]]:
    """The network's output for each tile in turn: (tile, (N, 3, s*h, s*w) in [0, 1]) without what was seen around it.

    Args:
        net: as for `upscale`.
        read: what the network sees of a tile, (N, 3, h, w) in [0, 1]; of one shape for all tiles.
        tiles: of `row_of_tiles`.
        at_once: tiles in one pass.
    """
    at_once = max(at_once, 1)
    for start in range(0, len(tiles), at_once):
        group = tiles[start : start + at_once]
        seen = torch.cat([read(tile) for tile in group])
        with eval_mode(net):
            out = net(seen)
        scale = out.shape[2] // seen.shape[2]
        for tile, sr in zip(group, out.chunk(len(group)), strict=True):
            yield tile, sr[..., _inside(tile.rows, scale), _inside(tile.columns, scale)].clamp(0, 1)


def row_of_tiles(net: nn.Module, size: tuple[int, int], top: int, tile: int, overlap: int) -> list[Tile]:
    """The tiles side by side whose rows start at `top`, a multiple of the network's; the image as it is where it needs no tiles.

    All of an image see parts of one shape, which may reach beyond the image by its reflection to a multiple of the network's. `tile` is
    rounded down and `overlap` up to multiples, so that what is seen starts at one.

    Args:
        size: (height, width) of the image.
    """
    height, width = size
    if is_whole(height, width, tile):
        return [Tile(*(Span(slice(0, side), slice(0, side)) for side in size))]
    multiple = multiple_of(net)
    tile, overlap = max(tile // multiple, 1) * multiple, overlap + -overlap % multiple
    rows = _span(top, height, tile, overlap, multiple)
    return [Tile(rows, _span(left, width, tile, overlap, multiple)) for left in range(0, width, tile)]


def _span(start: int, size: int, tile: int, overlap: int, multiple: int) -> Span:
    """The tile at `start` of an axis of `size` pixels; start, tile and overlap are multiples of `multiple`."""
    padded = size + -size % multiple
    length = min(tile + 2 * overlap, padded)
    first = min(max(start - overlap, 0), padded - length)
    return Span(slice(start, min(start + tile, size)), slice(first, first + length))


def multiple_of(net: nn.Module) -> int:
    """LQ pixels that a network counts in; to a multiple of them it reflects its input at the right and bottom. 1 where that is unknown."""
    if isinstance(net, SwinIR):
        return net.window_size
    if isinstance(net, RRDBNet):
        return net.unshuffle
    return size_requirements(net)[0]


def is_whole(height: int, width: int, tile: int) -> bool:
    """Whether an image needs no tiles."""
    return tile == 0 or (height <= tile and width <= tile)


def check_tiles(tile: int, overlap: int, batch: int) -> None:
    """UserError for values that mean nothing."""
    if tile < 0 or overlap < 0 or batch < 1:
        raise UserError(f"tile and overlap must not be negative and batch at least 1, got {tile}, {overlap} and {batch}.")


def times(part: slice, scale: int) -> slice:
    """A part of an axis, in output pixels."""
    return slice(part.start * scale, part.stop * scale)


def _inside(span: Span, scale: int) -> slice:
    """The tile itself, counted from the start of what is seen, in output pixels."""
    return slice((span.own.start - span.seen.start) * scale, (span.own.stop - span.seen.start) * scale)

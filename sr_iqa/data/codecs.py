"""How a store keeps the pixels of a block: as they are, or compressed without loss.

A codec turns a block, uint8 RGB (h, w, 3), into bytes, and gives back any part of it. Stores name the codec, so what a name means must
never change: a better codec gets a name of its own.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import cv2
import numpy as np

from ..errors import UsageError
from .blocks import Size

TILE = 64
"""Side of the tiles that `deflate` undoes as a whole. For a 256x256 crop it inflates 1.6 times as many pixels as are needed (with 128 px:
2.3), and files are 1 % larger than with 128 px."""


class Codec(Protocol):
    def encode(self, block: np.ndarray) -> bytes: ...

    def decode(self, stored: bytes | memoryview, size: Size, rows: slice, columns: slice) -> np.ndarray:
        """The part of a block of `size`, perhaps a view of `stored`; ValueError where the bytes are damaged and it can be seen."""
        ...


class Raw:
    """Rows of RGB bytes. Not tiles: from rows a crop takes 1.5 to 1.8 times as long as memcpy, from tiles of 64 or 128 px 2 to 4 times."""

    def encode(self, block: np.ndarray) -> bytes:
        return block.tobytes()

    def decode(self, stored: bytes | memoryview, size: Size, rows: slice, columns: slice) -> np.ndarray:
        return np.frombuffer(stored, np.uint8).reshape(*size, 3)[rows, columns]


class Deflate:
    """Differences in tiles, deflated: two thirds of the size of PNG files for photos. A 256x256 crop takes 2 ms, most of it zlib's.

    Colour is decorrelated to (G, R - G, B - G); then neighbours are subtracted along x and along y. All of it is modulo 256, so that sums
    of whole rows of bytes undo it. Every plane of a tile, stored column by column, is a deflate block with Huffman codes of its own, and
    only runs are searched (Z_RLE). Each tile ends in its Adler-32 checksum, which reading checks.

    Stored are the ends of the tiles, uint32 little-endian, row by row, and the tiles. Tried beside it, on photos: interpolation instead of
    differences (no smaller, twice the code), searching for matches (larger), zstandard (a tenth larger, two thirds of the time, but not in
    the standard library), WebP lossless (7 % smaller, 1.6 times the time).
    """

    def encode(self, block: np.ndarray) -> bytes:
        red, green, blue = block[..., 0], block[..., 1], block[..., 2]
        planes = np.stack([green, red - green, blue - green])
        differences = _differences(_differences(planes, 1), 2).transpose(0, 2, 1)
        h, w = block.shape[:2]
        tiles = [_deflated(differences[:, x : x + TILE, y : y + TILE]) for y in range(0, h, TILE) for x in range(0, w, TILE)]
        return np.cumsum([len(tile) for tile in tiles]).astype("<u4").tobytes() + b"".join(tiles)

    def decode(self, stored: bytes | memoryview, size: Size, rows: slice, columns: slice) -> np.ndarray:
        top, bottom, left, right = rows.start // TILE, -(-rows.stop // TILE), columns.start // TILE, -(-columns.stop // TILE)
        tiles_x = -(-size[1] // TILE)
        ends = np.frombuffer(stored, "<u4", -(-size[0] // TILE) * tiles_x).tolist()
        tiles = memoryview(stored)[4 * len(ends) :]
        canvas = np.empty(((right - left) * TILE, 3, (bottom - top) * TILE), np.uint8)  # (x, plane, y); what no tile fills is not read
        for row in range(top, bottom):
            for column in range(left, right):
                n = row * tiles_x + column
                h, w = min(TILE, size[0] - row * TILE), min(TILE, size[1] - column * TILE)
                tile = _inflated(tiles[ends[n - 1] if n else 0 : ends[n]], 3 * h * w).reshape(3, w, h)
                x, y = (column - left) * TILE, (row - top) * TILE
                canvas[x : x + w, :, y : y + h] = tile.transpose(1, 0, 2)
        _add_up(canvas)
        planes = cv2.transpose(canvas.reshape(len(canvas), -1)).reshape(3, -1, len(canvas))  # both sums run over whole rows of memory
        _add_up(planes.swapaxes(0, 1))
        y, x = rows.start - top * TILE, columns.start - left * TILE
        green, red, blue = planes[:, y : y + rows.stop - rows.start, x : x + columns.stop - columns.start]
        green = np.ascontiguousarray(green)
        return cv2.merge([red + green, green, blue + green])


def _differences(planes: np.ndarray, axis: int) -> np.ndarray:
    """Each value less its predecessor along the axis, modulo 256; the first of every tile stays."""
    differences = planes.copy()
    of, source = differences.swapaxes(0, axis), planes.swapaxes(0, axis)
    of[1:] -= source[:-1]
    of[::TILE] = source[::TILE]
    return differences


def _add_up(differences: np.ndarray) -> None:
    """Undoes _differences along the first axis, whole tiles long, in place.

    First within groups of 8, then from group to group: 14 large additions. np.cumsum takes 5 times as long.
    """
    groups = differences.reshape(-1, TILE // 8, 8, *differences.shape[1:])
    for k in range(1, 8):
        groups[:, :, k] += groups[:, :, k - 1]
    for k in range(1, TILE // 8):
        groups[:, k] += groups[:, k - 1, -1:]


def _deflated(planes: np.ndarray) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return b"".join(stream.compress(plane.tobytes()) + stream.flush(zlib.Z_BLOCK) for plane in planes) + stream.flush()


def _inflated(stored: memoryview, length: int) -> np.ndarray:
    stream = zlib.decompressobj()
    try:
        values = stream.decompress(stored, length + 1)  # and no further: a few bytes may inflate to gigabytes
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(values) != length or not stream.eof:
        raise ValueError(f"a tile of {len(values)} bytes or more instead of {length}")
    return np.frombuffer(values, np.uint8)


CODECS: dict[str, Codec] = {"raw": Raw(), "deflate": Deflate()}


def find_codec(name: str) -> Codec:
    """Raises UsageError listing the codecs for an unknown name."""
    if name not in CODECS:
        raise UsageError(f"codec {name!r} is unknown; choose one of {', '.join(CODECS)}")
    return CODECS[name]

"""PNG and TIFF files written row by row: only the rows at hand are in memory, however large the image.

What is at hand for Python writes an image from memory only (OpenCV, Pillow), without 16-bit colour (Pillow) or without profiles (OpenCV).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

LEVEL = 4
"""Of zlib. Four photos, one core: level 6 makes files 6 to 8 % smaller in four times the time."""
STRIP_BYTES = 2**18
"""Of a TIFF's strip, uncompressed."""
BIG = 2**32 - 2**24
"""Bytes of pixels from which a TIFF counts in 64 bits: packed they may be a little more."""
CHUNK_BYTES = 2**18
"""Of a PNG's IDAT chunk."""
INCH = 0.0254


@dataclass(frozen=True)
class Layout:
    """What a file says of its image before the first row."""

    height: int
    width: int
    channels: int
    """1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha."""
    bits: int
    """8 or 16, per channel."""
    icc: bytes | None = None
    exif: bytes | None = None
    """Starts with the byte order of its TIFF header. PNG only."""
    dpi: tuple[float, float] | None = None
    """Horizontal, vertical."""


def write_png_rows(file: IO[bytes], layout: Layout, bands: Iterable[np.ndarray]) -> None:
    """A PNG of bands (rows, width, channels), uint8 or uint16, from top to bottom."""
    kind, size = {1: 0, 2: 4, 3: 2, 4: 6}[layout.channels], layout.channels * layout.bits // 8
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", layout.width, layout.height, layout.bits, kind, 0, 0, 0))
    if layout.icc:
        _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(layout.icc))
    if layout.dpi:
        _chunk(file, b"pHYs", struct.pack(">IIB", *(round(dots / INCH) for dots in layout.dpi), 1))
    if layout.exif:
        _chunk(file, b"eXIf", layout.exif)
    packer, waiting, above = zlib.compressobj(LEVEL), bytearray(), None
    for few in _strips(bands, max(STRIP_BYTES // (layout.width * size), 1)):  # the filters need several times their memory
        rows = _bytes(few, layout, ">u2")
        waiting += packer.compress(_filtered(rows, above, size).data)
        above = rows[-1:].copy()
        if len(waiting) >= CHUNK_BYTES:
            _chunk(file, b"IDAT", waiting)
            waiting = bytearray()
    _chunk(file, b"IDAT", waiting + packer.flush())
    _chunk(file, b"IEND", b"")


def write_tiff_rows(file: IO[bytes], layout: Layout, bands: Iterable[np.ndarray]) -> None:
    """A TIFF of bands (rows, width, channels), uint8 or uint16, from top to bottom: strips, deflate with horizontal differences.

    It is a BigTIFF where the pixels alone have 4 GB.
    """
    size = layout.channels * layout.bits // 8
    row_bytes = layout.width * size
    rows_per_strip = max(STRIP_BYTES // row_bytes, 1)
    big = row_bytes * layout.height >= BIG
    file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0))
    offsets, counts = [], []
    for strip in _strips(bands, rows_per_strip):
        rows = _bytes(strip, layout, "<u2").view(np.uint8 if layout.bits == 8 else "<u2").reshape(len(strip), layout.width, layout.channels)
        rows[:, 1:] -= rows[:, :-1].copy()
        packed = zlib.compress(rows.tobytes(), LEVEL)
        offsets.append(file.tell())
        counts.append(len(packed))
        file.write(packed)
    alpha = layout.channels in (2, 4)
    tags: dict[int, tuple[str, list[int] | bytes]] = {
        256: ("I", [layout.width]),
        257: ("I", [layout.height]),
        258: ("H", [layout.bits] * layout.channels),
        259: ("H", [8]),  # deflate
        262: ("H", [1 if layout.channels < 3 else 2]),  # black is zero, RGB
        273: ("Q" if big else "I", offsets),
        277: ("H", [layout.channels]),
        278: ("I", [rows_per_strip]),
        279: ("Q" if big else "I", counts),
        284: ("H", [1]),  # channels side by side
        317: ("H", [2]),  # horizontal differences
        **({338: ("H", [2])} if alpha else {}),  # alpha, colours not multiplied by it
        **({34675: ("B", layout.icc)} if layout.icc else {}),
    }
    if layout.dpi:
        tags |= {282 + i: ("II", [round(dots * 1000), 1000]) for i, dots in enumerate(layout.dpi)} | {296: ("H", [2])}
    _directory(file, tags, big)


def _directory(file: IO[bytes], tags: dict[int, tuple[str, list[int] | bytes]], big: bool) -> None:
    """Appends a TIFF's list of tags, and says in the header where it is."""
    kinds = {"B": 7, "H": 3, "I": 4, "II": 5, "Q": 16}
    count_code, number, room = ("Q", "<Q", 8) if big else ("I", "<H", 4)
    entries = b""
    for tag in sorted(tags):
        kind, values = tags[tag]
        data = bytes(values) if isinstance(values, bytes) else struct.pack(f"<{len(values)}{kind[0]}", *values)
        if len(data) > room:
            place = _even_end(file)
            file.write(data)
            data = struct.pack(f"<{count_code}", place)
        entries += struct.pack(f"<HH{count_code}", tag, kinds[kind], len(values) // len(kind)) + data.ljust(room, b"\0")
    start = _even_end(file)
    file.write(struct.pack(number, len(tags)) + entries + bytes(room))
    file.seek(8 if big else 4)
    file.write(struct.pack(f"<{count_code}", start))


def _even_end(file: IO[bytes]) -> int:
    """The end of the file, where a word may start."""
    file.write(bytes(file.tell() % 2))
    return file.tell()


def _strips(bands: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows in strips of `rows`; only the last may have fewer."""
    rest: np.ndarray | None = None
    for band in bands:
        start = 0
        if rest is not None:
            start = rows - len(rest)
            rest = np.concatenate((rest, band[:start]))
            if len(rest) < rows:
                continue
            yield rest
        last = start + (len(band) - start) // rows * rows
        for top in range(start, last, rows):
            yield band[top : top + rows]
        rest = band[last:].copy() if last < len(band) else None
    if rest is not None:
        yield rest


def _bytes(band: np.ndarray, layout: Layout, wide: str) -> np.ndarray:
    """A copy of a band as (rows, bytes of a row), 16 bit in the byte order `wide`."""
    return np.array(band, wide if layout.bits == 16 else np.uint8, order="C").view(np.uint8).reshape(len(band), -1)


def _filtered(rows: np.ndarray, above: np.ndarray | None, step: int) -> np.ndarray:
    """(n, bytes) -> (n, 1 + bytes): each row as differences from the left or from above, whichever has the smaller sum, and which it is."""
    up = rows.copy()
    up[1:] -= rows[:-1]
    if above is not None:
        up[:1] -= above
    sub = rows.copy()
    sub[:, step:] -= rows[:, :-step]
    better = _magnitude(sub) < _magnitude(up)
    out = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    out[:, 0] = np.where(better, 1, 2)
    out[:, 1:] = np.where(better[:, None], sub, up)
    return out


def _magnitude(rows: np.ndarray) -> np.ndarray:
    """The sum of the differences' sizes, a byte of 255 counting as -1."""
    return np.minimum(rows, 0 - rows).sum(1, dtype=np.int64)


def _chunk(file: IO[bytes], name: bytes, data: bytes | bytearray) -> None:
    file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))

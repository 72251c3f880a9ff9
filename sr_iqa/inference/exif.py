"""What a file says of its picture beside the pixels: EXIF, as far as it outlives a change of size, rotation, resolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from ..errors import DAMAGED_FILE

KEPT = (270, 271, 272, 305, 306, 315, 33432)
"""Title, camera maker and model, software, date, artist, copyright; the tags of the photo (34665) and of the place (34853) beside them."""
STALE = (37500, 40962, 40963, 40965)
"""Tags of the photo that do not outlive a change of the file: maker's note, width, height, a place in the file."""
ORIENTATION = 274
MOST = 60_000
"""Bytes; a JPEG holds 65,533."""


def exif_of(image: Any) -> tuple[bytes | None, int]:
    """What is worth keeping of the EXIF, and the orientation that it gives. Damaged EXIF is left out."""
    from PIL import Image

    try:
        found = Image.Exif()
        if image.format != "PNG":
            found = image.getexif()
        elif data := _png_exif(image.fp):
            found.load(data)
        orientation = found.get(ORIENTATION, 1)
        kept = Image.Exif()
        for tag in KEPT:
            if tag in found:
                kept[tag] = found[tag]
        for group in (0x8769, 0x8825):
            tags = {tag: value for tag, value in found.get_ifd(group).items() if tag not in STALE}
            if tags:
                kept[group] = tags
        data = kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else b""
    except (SyntaxError, *DAMAGED_FILE):
        return None, 1
    return data if 0 < len(data) <= MOST else None, orientation if orientation in range(1, 9) else 1


def dpi_of(image: Any, orientation: int) -> tuple[float, float] | None:
    """Dots per inch of the upright image, horizontal and vertical."""
    try:
        across, down = (float(value) for value in image.info.get("dpi"))
    except (TypeError, ValueError, ArithmeticError):
        return None
    if not (1 < across < 1e6 and 1 < down < 1e6):  # Pillow says 1 where a TIFF says nothing
        return None
    return (down, across) if orientation in (5, 6, 7, 8) else (across, down)


def png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """(name, length) of each chunk of a PNG, with the file at its content; it ends where the file does."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, content = int.from_bytes(head[:4], "big"), file.tell()
        yield head[4:], length
        file.seek(content + length + 4)


def _png_exif(file: IO[bytes]) -> bytes:
    """The EXIF of a PNG, which may stand behind the pixels: Pillow would decode them to get there. Leaves the file where it was."""
    place = file.tell()
    try:
        for name, length in png_chunks(file):
            if name == b"eXIf":
                return file.read(min(length, 2**24)).removeprefix(b"Exif\0\0")
        return b""
    finally:
        file.seek(place)

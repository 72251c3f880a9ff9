"""Pictures as people have them: 8 or 16 bit, gray or colour, with transparency, a colour profile, and what a camera noted.

Training reads and writes 8-bit RGB only (images.py); here nothing is lost that the format of the output can hold.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import atomic_write
from ..errors import DAMAGED_FILE
from ..images import ImageError
from .decode import BROKEN, decode, what_is_wrong
from .exif import dpi_of, exif_of
from .rows import Layout, write_png_rows, write_tiff_rows

MAX_PIXELS = 250_000_000
"""Of an input, unless asked otherwise: a file of a few kilobytes may declare any size."""
LARGEST_MAX = 2**30
"""OpenCV decodes no more pixels."""
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".tif": "TIFF", ".tiff": "TIFF"}
"""What is written, by suffix."""
LARGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65_535, "WebP": 16_383, "TIFF": 2**31 - 1}


@dataclass(frozen=True)
class Picture:
    """An image and what its file says of it. The pixels are upright: EXIF's rotation is applied to them, and not kept as a tag."""

    pixels: np.ndarray
    """(h, w, 1) gray or (h, w, 3) RGB, uint8 or uint16."""
    alpha: np.ndarray | None = None
    """(h, w) of the same type, 0 for transparent."""
    icc: bytes | None = None
    """The colour profile; sRGB, or unknown, where there is none."""
    exif: bytes | None = None
    """A TIFF header and its tags, without a thumbnail."""
    dpi: tuple[float, float] | None = None
    """Dots per inch, horizontal and vertical."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def bits(self) -> int:
        """8 or 16, per channel."""
        return 8 * self.pixels.dtype.itemsize


# ---------------------------------------------------------------- reading


def read_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Any picture that OpenCV or Pillow reads; palettes become RGB, CMYK becomes sRGB by its profile, or without one as viewers guess.

    Memory: the file, and its pixels once, for most kinds; palette and CMYK images take four times their pixels.

    Raises:
        ImageError: missing, damaged, larger than `max_pixels`, animated, of several pages, or of numbers that are no 8 or 16-bit levels.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ImageError(f"{path}: is no file")
        with warnings.catch_warnings(action="ignore"), any_size(), path.open("rb") as file, Image.open(file) as image:
            assert isinstance(image, ImageFile.ImageFile)  # and of damaged EXIF Pillow warns without naming the file
            _check_header(image, path, max_pixels)
            exif, orientation = exif_of(image)
            dpi = dpi_of(image, orientation)
            turned = orientation if image.format != "TIFF" else 1  # both decoders turn TIFFs themselves
            pixels, alpha, icc = decode(image, path)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: {what_is_wrong(path)}") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own
            raise ImageError(f"{path}: {BROKEN}") from error
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    except (SyntaxError, *DAMAGED_FILE) as error:
        raise ImageError(f"{path}: {BROKEN}") from error
    return Picture(_upright(pixels, turned), None if alpha is None else _upright(alpha, turned), icc, exif, dpi)


@contextmanager
def any_size() -> Iterator[None]:
    """Within the block Pillow opens images of any size: whoever asks for this looks at the header before anything is decoded."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_header(image: Any, path: Path, max_pixels: int) -> None:
    height, width = image.height, image.width
    if height * width > max_pixels:
        raise ImageError(
            f"{path}: {width}x{height} pixels are {height * width / 1e6:.0f} million, the limit is {max_pixels / 1e6:g}; "
            "raise --max-pixels if you trust the file"
        )
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format in ("PNG", "WEBP", "GIF", "TIFF"):  # a second image in a JPEG is a preview or a depth map
        raise ImageError(f"{path}: holds {pages} pages or frames; save the one that you want as a file of its own")


def _upright(plane: np.ndarray, orientation: int) -> np.ndarray:
    """A view of (h, w, ...) as EXIF's orientation 1 to 8 wants it seen."""
    if orientation in (5, 6, 7, 8):
        plane = plane.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return plane[::rows, ::columns]


# ---------------------------------------------------------------- writing


def write_picture(path: str | Path, picture: Picture, quality: int = 95) -> None:
    """Writes a picture in the format of the suffix; the file appears complete or not at all. As `write_bands`."""
    write_bands(path, picture.size, [picture], quality)


def write_bands(path: str | Path, size: tuple[int, int], bands: Iterable[Picture], quality: int = 95) -> None:
    """Writes a picture of `size` (height, width) that comes in bands of rows from top to bottom; the first says what all are like.

    PNG and TIFF are written as the bands come. JPEG and WebP, of 8 bits, are put together in memory first.

    Args:
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        ImageError: a format that is not written, or one that cannot hold this picture: too large a side, transparency in a JPEG.
    """
    path, rest = Path(path), iter(bands)
    first = next(rest)
    kind = check_holds(path, size, first.alpha is not None)
    whole = itertools.chain([first], rest)
    with atomic_write(path) as temporary:
        if kind in ("JPEG", "WebP"):
            _save_whole(temporary, kind, size, first, whole, quality)
            return
        planes = first.pixels.shape[2] + (first.alpha is not None)
        layout = Layout(*size, planes, first.bits, first.icc, first.exif, first.dpi)
        with temporary.open("wb") as file:
            (write_png_rows if kind == "PNG" else write_tiff_rows)(file, layout, map(_planes, whole))


def check_holds(path: Path, size: tuple[int, int], transparent: bool) -> str:
    """The format of a file, which is to hold a picture of `size` (height, width). Raises ImageError where it cannot."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: {path.suffix or 'no suffix'} is not written; choose one of {', '.join(FORMATS)}")
    if max(size) > LARGEST_SIDE[kind]:
        raise ImageError(f"{path}: {size[1]}x{size[0]} pixels are too many for {kind} ({LARGEST_SIDE[kind]} a side); write PNG or TIFF")
    if kind == "JPEG" and transparent:
        raise ImageError(f"{path}: the picture has transparency, which JPEG cannot hold; write PNG, WebP or TIFF")
    return kind


def join_bands(size: tuple[int, int], bands: Iterator[Picture]) -> Picture:
    """One picture of `size` (height, width) from its bands."""
    first = next(bands)
    pixels = np.empty((*size, first.pixels.shape[2]), first.pixels.dtype)
    alpha = None if first.alpha is None else np.empty(size, first.alpha.dtype)
    top = 0
    for band in itertools.chain([first], bands):
        rows = slice(top, top + len(band.pixels))
        pixels[rows] = band.pixels
        if alpha is not None:
            alpha[rows] = band.alpha
        top = rows.stop
    return replace(first, pixels=pixels, alpha=alpha)


def _planes(band: Picture) -> np.ndarray:
    """(rows, w, channels), alpha last."""
    return band.pixels if band.alpha is None else np.concatenate((band.pixels, band.alpha[..., None]), 2)


def _save_whole(path: Path, kind: str, size: tuple[int, int], first: Picture, bands: Iterable[Picture], quality: int) -> None:
    """JPEG with colour at full resolution, or WebP."""
    from PIL import Image

    image = Image.new({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[_planes(first).shape[2]], (size[1], size[0]))
    top = 0
    for band in bands:
        levels = _planes(band)
        if levels.dtype == np.uint16:
            levels = ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        image.paste(Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels), (0, top))
        top += len(levels)
    icc = None if kind == "WebP" and first.icc and first.icc[16:20] == b"GRAY" else first.icc  # WebP has colours only
    said: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if first.exif:
        said["exif"] = b"Exif\0\0" + first.exif
    if first.dpi and kind == "JPEG":
        said["dpi"] = first.dpi
    save = partial(image.save, path, format=kind, quality=quality, **said)
    save(subsampling=0) if kind == "JPEG" else save(method=4)

"""Pictures as people have them: 8 or 16 bit, gray or colour, with transparency, a colour profile, and what a camera noted.

Training reads and writes 8-bit RGB only (images.py); here nothing is lost that the format of the output can hold.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..atomic import atomic_write
from ..errors import DAMAGED_FILE
from ..images import ImageError
from .rows import Layout, write_png_rows, write_tiff_rows

MAX_PIXELS = 250_000_000
"""Of an input, unless asked otherwise: a file of a few kilobytes may declare any size."""
LARGEST_MAX = 2**30
"""OpenCV decodes no more pixels."""
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".tif": "TIFF", ".tiff": "TIFF"}
"""What is written, by suffix."""
LARGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65_535, "WebP": 16_383, "TIFF": 2**31 - 1}
GRAY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I")
"""Pillow's names of gray images."""
EXIF_KEPT = (270, 271, 272, 305, 306, 315, 33432)
"""Title, camera maker and model, software, date, artist, copyright; the tags of the photo (34665) and of the place (34853) beside them."""
EXIF_STALE = (37500, 40962, 40963, 40965)
"""Tags of the photo that do not outlive a change of the file: maker's note, width, height, a place in the file."""
ORIENTATION = 274
EXIF_MOST = 60_000
"""Bytes; a JPEG holds 65,533."""


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
    from PIL import Image, ImageFile

    path = Path(path)
    Image.MAX_IMAGE_PIXELS = None  # the header is looked at here, before anything is decoded
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ImageError(f"{path}: is no file")
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # Pillow's, of damaged EXIF, say no file
            assert isinstance(image, ImageFile.ImageFile)
            _check_header(image, path, max_pixels)
            exif, orientation = _exif(image)
            gray = image.mode in GRAY or _raw_mode(image).startswith("LA")
            pixels, icc = _decoded(image, path)
            turned = orientation if image.format != "TIFF" else 1  # both decoders turn TIFFs themselves
            pixels, alpha = _split(pixels, gray, image.info.get("transparency"))
            dpi = _dpi(image.info.get("dpi"), orientation)
    except ImageError:
        raise
    except OSError as error:
        if error.errno is None:  # Pillow's own
            raise ImageError(f"{path}: unreadable, truncated or not an image") from error
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    except (SyntaxError, *DAMAGED_FILE) as error:
        raise ImageError(f"{path}: unreadable, truncated or not an image") from error
    return Picture(_upright(pixels, turned), None if alpha is None else _upright(alpha, turned), icc, exif, dpi)


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


def _decoded(image: Any, path: Path) -> tuple[np.ndarray, bytes | None]:
    """Pixels as stored, RGB order, (h, w) or (h, w, channels), and the profile that they are in."""
    icc = image.info.get("icc_profile") or None
    if image.mode in ("P", "PA"):
        transparent = image.mode == "PA" or "transparency" in image.info
        return np.asarray(image.convert("RGBA" if transparent else "RGB")), icc
    if image.format == "TIFF" and image.mode in ("LA", "RGBA") and not _raw_mode(image).endswith(("16L", "16B", "16N")):
        return np.asarray(image), icc  # OpenCV multiplies the colours by alpha, or forgets it
    if image.mode == "CMYK":
        return np.asarray(_from_cmyk(image, icc)), None
    data = np.fromfile(path, np.uint8)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or (image.format == "PNG" and b"IEND" not in data[-64:].tobytes()):  # old OpenCV returns the part that is there
        raise ImageError(f"{path}: unreadable, truncated or not an image ({len(data)} bytes)")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: {pixels.dtype} values; convert it to 8 or 16 bits per channel")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, order, dst=pixels)  # in place
    return pixels, icc


def _raw_mode(image: Any) -> str:
    """Pillow's name of how the file stores its pixels, such as LA;16B in an image of mode RGBA."""
    arguments = image.tile[0][3] if image.tile else ""
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def _from_cmyk(image: Any, icc: bytes | None) -> Any:
    """CMYK as sRGB."""
    from io import BytesIO

    from PIL import ImageCms

    if icc is None:
        return image.convert("RGB")
    try:
        return ImageCms.profileToProfile(image, BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        return image.convert("RGB")


def _split(pixels: np.ndarray, gray: bool, transparent: object) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours (h, w, 1 or 3) and alpha (h, w). `transparent` is the level of a gray image that stands for nothing."""
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    alpha = planes[..., -1] if planes.shape[2] in (2, 4) else None
    if gray or planes.shape[2] < 3:
        if alpha is None and isinstance(transparent, int):
            alpha = np.where(planes[..., 0] == transparent, 0, np.iinfo(planes.dtype).max).astype(planes.dtype)
        return planes[..., :1], alpha
    return planes[..., :3], alpha


def _upright(plane: np.ndarray, orientation: int) -> np.ndarray:
    """A view of (h, w, ...) as EXIF's orientation 1 to 8 wants it seen."""
    if orientation in (5, 6, 7, 8):
        plane = plane.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return plane[::rows, ::columns]


def _exif(image: Any) -> tuple[bytes | None, int]:
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
        for tag in EXIF_KEPT:
            if tag in found:
                kept[tag] = found[tag]
        for group in (0x8769, 0x8825):
            tags = {tag: value for tag, value in found.get_ifd(group).items() if tag not in EXIF_STALE}
            if tags:
                kept[group] = tags
        data = kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else b""
    except (SyntaxError, *DAMAGED_FILE):
        return None, 1
    return data if 0 < len(data) <= EXIF_MOST else None, orientation if orientation in range(1, 9) else 1


def _png_exif(file: Any) -> bytes:
    """The EXIF of a PNG, which may stand behind the pixels: Pillow would decode them to get there. Leaves the file where it was."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return file.read(min(length, 2**24)).removeprefix(b"Exif\0\0")
            file.seek(length + 4, 1)
        return b""
    finally:
        file.seek(place)


def _dpi(said: object, orientation: int) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in said)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError, ArithmeticError):
        return None
    if not (1 < across < 1e6 and 1 < down < 1e6):  # Pillow says 1 where a TIFF says nothing
        return None
    return (down, across) if orientation in (5, 6, 7, 8) else (across, down)


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
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: {path.suffix or 'no suffix'} is not written; choose one of {', '.join(FORMATS)}")
    if max(size) > LARGEST_SIDE[kind]:
        raise ImageError(f"{path}: {size[1]}x{size[0]} pixels are too many for {kind} ({LARGEST_SIDE[kind]} a side); write PNG or TIFF")
    rest = iter(bands)
    first = next(rest)
    if kind == "JPEG" and first.alpha is not None:
        raise ImageError(f"{path}: the picture has transparency, which JPEG cannot hold; write PNG, WebP or TIFF")
    whole = itertools.chain([first], rest)
    with atomic_write(path) as temporary:
        if kind in ("JPEG", "WebP"):
            _save_whole(temporary, kind, size, first, whole, quality)
            return
        planes = first.pixels.shape[2] + (first.alpha is not None)
        layout = Layout(*size, planes, first.bits, first.icc, first.exif, first.dpi)
        with temporary.open("wb") as file:
            (write_png_rows if kind == "PNG" else write_tiff_rows)(file, layout, map(_planes, whole))


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
    said: dict[str, Any] = {"icc_profile": first.icc} if first.icc else {}
    if first.exif:
        said["exif"] = b"Exif\0\0" + first.exif
    if first.dpi and kind == "JPEG":
        said["dpi"] = first.dpi
    save = partial(image.save, path, format=kind, quality=quality, **said)
    save(subsampling=0) if kind == "JPEG" else save(method=4)

"""The pixels of a file, by whichever of OpenCV and Pillow decodes its kind as it is meant; what neither does is refused by name.

OpenCV gives 16 bits and takes little memory, but changes the colours of some kinds without a word. What it gets wrong is known here.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import DAMAGED_FILE
from ..images import ImageError
from .exif import png_chunks

GRAY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I")
"""Pillow's names of gray images."""
PHOTOMETRIC, PLANES, EXTRA, BITS, CHANNELS, FORMAT = 262, 284, 338, 258, 277, 339
"""Tags of a TIFF: what numbers mean, whether channels lie apart, what those beyond the colours are, their bits, number and kind."""
MIN_IS_WHITE, APART, PREMULTIPLIED = 0, 2, 1
"""Values of the first three."""
BROKEN = "unreadable, truncated or not an image"
CONVERT = "is not supported; convert it to 8 or 16-bit gray or RGB"


def decode(image: Any, path: Path) -> tuple[np.ndarray, np.ndarray | None, bytes | None]:
    """Colours (h, w, 1 or 3) and alpha (h, w), uint8 or uint16, as stored (but TIFFs upright), and the colour profile that they are in.

    Args:
        image: of Pillow, opened from a file object: of files that it opens by name it maps some, and forgets their rotation.

    Raises:
        ImageError: damaged, or of a kind that is not supported.
    """
    icc = image.info.get("icc_profile") or None
    gray = image.mode in GRAY or _raw_mode(image).split(";")[0] == "LA"
    if image.mode in ("P", "PA"):
        transparent = image.mode == "PA" or "transparency" in image.info
        pixels = _loaded(image, "RGBA" if transparent else "RGB")
    elif image.mode == "CMYK":
        pixels, icc = np.asarray(_from_cmyk(image, icc)), None
    elif image.mode == "LAB":
        raise ImageError(f"{path}: this kind ({image.format}, L*a*b* colours) {CONVERT}")
    elif image.format == "TIFF" and image.mode in ("LA", "La", "RGBA") and not _raw_mode(image).endswith(("16L", "16B", "16N")):
        pixels = _loaded(image, image.mode.upper())  # OpenCV multiplies the colours by alpha, or forgets it
    else:
        pixels = _by_opencv(image, path)
    return *_split(pixels, gray, _transparent_level(image)), icc


def what_is_wrong(path: Path) -> str:
    """Why Pillow does not know a file: a TIFF of a kind that it does not read is not damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            head = file.read(8)
            tags = ImageFileDirectory_v2(head + (file.read(8) if 43 in head[2:4] else b""))  # BigTIFF's is longer
            file.seek(tags.next)
            tags.load(file)
        bits, floats = "/".join(map(str, sorted(set(tags[BITS])))), "float " if 3 in tags.get(FORMAT, ()) else ""
        return f"this kind (TIFF, {tags.get(CHANNELS, 1)} {floats}channels of {bits} bits) {CONVERT}"
    except (SyntaxError, *DAMAGED_FILE):
        return BROKEN


def _by_opencv(image: Any, path: Path) -> np.ndarray:
    """(h, w) or (h, w, channels), RGB order."""
    tags = getattr(image, "tag_v2", {})
    wide = max(tags.get(BITS, (8,))) > 8
    if wide and tags.get(PLANES) == APART and tags.get(CHANNELS, 1) > 1:
        raise ImageError(f"{path}: this kind (TIFF, 16 bits, each channel by itself) {CONVERT}, channels interleaved")
    data = np.fromfile(path, np.uint8)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        pixels = None
    cut = image.format == "PNG" and not _has_end(path)  # old OpenCV returns the part that is there
    if cut or (pixels is None and not _is_intact(image)):
        raise ImageError(f"{path}: {BROKEN} ({len(data)} bytes)")
    if pixels is None or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{path}: this kind ({image.format}, {image.mode}) {CONVERT}, as PNG or TIFF")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: {pixels.dtype} values; convert it to 8 or 16 bits per channel")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, order, dst=pixels)  # in place
    return _as_meant(pixels, tags) if pixels.dtype == np.uint16 else pixels


def _as_meant(pixels: np.ndarray, tags: Any) -> np.ndarray:
    """16 bits of a TIFF, of which OpenCV gives the numbers that are stored; of 8 bits it knows better."""
    if pixels.ndim == 2 and tags.get(PHOTOMETRIC) == MIN_IS_WHITE:
        return np.subtract(65535, pixels, out=pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 4 and tags.get(EXTRA) == (PREMULTIPLIED,):
        for row in pixels:  # floats of one row at a time
            row[:, :3] = (row[:, :3] * (65535 / np.maximum(row[:, 3:], 1))).round().clip(0, 65535)
    return pixels


def _has_end(path: Path) -> bool:
    """Whether a PNG's last chunk is there; something else may follow it."""
    with path.open("rb") as file:
        return any(name == b"IEND" for name, _ in png_chunks(file))


def _is_intact(image: Any) -> bool:
    """Whether Pillow decodes what OpenCV did not."""
    try:
        image.load()
    except (SyntaxError, *DAMAGED_FILE):
        return False
    return True


def _loaded(image: Any, mode: str) -> np.ndarray:
    """The pixels by Pillow."""
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _from_cmyk(image: Any, icc: bytes | None) -> Any:
    """CMYK as sRGB."""
    from PIL import ImageCms

    image.load()  # and turns a TIFF
    if icc is None:
        return image.convert("RGB")
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        return image.convert("RGB")


def _raw_mode(image: Any) -> str:
    """Pillow's name of how the file stores its pixels, such as LA;16B in an image of mode RGBA."""
    arguments = image.tile[0][3] if image.tile else ""
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def _transparent_level(image: Any) -> int | None:
    """The level of a gray image that stands for nothing, as decoded: a PNG of 2 or 4 bits counts in its own levels."""
    level = image.info.get("transparency")
    if not isinstance(level, int):
        return None
    return level * {"L;2": 85, "L;4": 17}.get(_raw_mode(image), 1)


def _split(pixels: np.ndarray, gray: bool, transparent: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours (h, w, 1 or 3) and alpha (h, w)."""
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    alpha = planes[..., -1] if planes.shape[2] in (2, 4) else None
    if gray or planes.shape[2] < 3:
        if alpha is None and transparent is not None:
            alpha = np.where(planes[..., 0] == transparent, 0, np.iinfo(planes.dtype).max).astype(planes.dtype)
        return planes[..., :1], alpha
    return planes[..., :3], alpha

"""Read and write images, colour order and range: the only place that knows OpenCV's BGR.

Everywhere else images are uint8 RGB arrays (h, w, 3) on the host and float RGB tensors (..., 3, h, w) in [0, 1] on the device.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from .atomic import atomic_write
from .errors import UserError

try:
    import cv2
except ImportError as error:  # the GUI build of OpenCV, pulled in by basicsr, needs libGL
    raise ImportError(f"OpenCV cannot be loaded ({error}). Mend it with: pip install --force-reinstall opencv-python-headless") from error

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with a file is said by ImageError, once
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
MAX_PIXELS = 80_000_000
"""Larger images are not decoded: a file of a few kilobytes may declare any size, and decoding takes up to 12 bytes for each pixel."""
_ALPHA = "image with alpha channel"
OTHER_KINDS = {
    **{"1": "gray image", "L": "gray image", "I;16": "16-bit image", "LA": _ALPHA, "PA": _ALPHA, "RGBA": _ALPHA},
    "CMYK": "CMYK image, whose colours depend on who converts it",
}
"""What training data must not hold, by Pillow's names."""


class ImageError(UserError):
    """An image file that cannot be used; the message starts with its path."""


def _read(path: Path) -> tuple[bytes, str]:
    """A file's bytes, and Pillow's name of their kind; ImageError for what is missing, huge or no image."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ImageError(f"{path}: is no file")
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    _, _, mode = _header(io.BytesIO(data), path)
    return data, mode


def _header(file: Path | IO[bytes], path: Path) -> tuple[int, int, str]:
    """Height, width, and Pillow's name of the kind, which a file declares."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # at twice as many Pillow refuses by itself
    try:
        with Image.open(file) as image:
            height, width, mode = image.height, image.width, image.mode
    except Image.DecompressionBombError:
        height, width, mode = MAX_PIXELS, MAX_PIXELS, ""
    except (OSError, ValueError, OverflowError) as error:
        raise ImageError(f"{path}: unreadable, truncated or not an image") from error
    if height * width > MAX_PIXELS:
        raise ImageError(f"{path}: more than {MAX_PIXELS // 10**6} million pixels; cut it into parts")
    return height, width, mode


def _decode(data: bytes, path: Path, flags: int) -> np.ndarray:
    """The image in OpenCV's order; ImageError where it is damaged."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    cut_png = data.startswith(b"\x89PNG") and b"IEND" not in data  # old OpenCV returns the part that is there
    if image is None or cut_png:
        raise ImageError(f"{path}: unreadable, truncated or not an image ({len(data)} bytes)")
    return image


def read_image(path: str | Path) -> np.ndarray:
    """An 8-bit colour image as uint8 RGB (h, w, 3), exactly as stored (no EXIF rotation).

    Raises ImageError for unreadable or truncated files and for gray, alpha, CMYK or 16-bit images, which training data must not hold.
    """
    path = Path(path)
    data, mode = _read(path)
    if mode in OTHER_KINDS:
        raise ImageError(f"{path}: {OTHER_KINDS[mode]}; convert it to 8-bit RGB")
    image = _decode(data, path, cv2.IMREAD_UNCHANGED)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.dtype != np.uint8:
        raise ImageError(f"{path}: {8 * image.dtype.itemsize}-bit image; convert it to 8-bit RGB")
    if channels != 3:
        kind = "gray image" if channels == 1 else "image with alpha channel" if channels in (2, 4) else f"image of {channels} channels"
        raise ImageError(f"{path}: {kind}; convert it to 8-bit RGB")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_image_lenient(path: str | Path) -> np.ndarray:
    """Any image as uint8 RGB (h, w, 3): gray replicated, alpha dropped, 16 bit scaled to 8, EXIF rotation applied."""
    data, _ = _read(Path(path))
    return cv2.cvtColor(_decode(data, Path(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding. Raises ImageError."""
    height, width, _ = _header(Path(path), Path(path))
    return height, width


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 RGB (h, w, 3) as PNG; the file appears complete or not at all."""
    done, data = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    if not done:
        raise ImageError(f"{path}: could not be encoded as PNG")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(data.tobytes())


def jpeg_roundtrip(image: np.ndarray, quality: int) -> np.ndarray:
    """uint8 RGB through libjpeg at `quality` (1-100, 4:2:0 chroma) and back."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # libjpeg reads what it wrote
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 (..., h, w, 3) -> float32 (..., 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3))).float().div_(255)


def to_uint8(image: Tensor) -> np.ndarray:
    """Float (..., 3, h, w), clamped to [0, 1], -> uint8 (..., h, w, 3), rounded to the nearest level. Raises UserError for NaN."""
    if image.isnan().any():  # which would become black, and be judged as if the network had meant it
        raise UserError("an image came out as NaN: look at the network's weights, or use another precision")
    levels = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(levels, -3, -1))


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name, so that their order is the same on every machine."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))

"""What callers hold images in (NumPy arrays, Pillow's images, pictures), turned into what a network takes, and its output turned back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..iqa.grid import LUMA
from .pictures import Picture

LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float16): 1, np.dtype(np.float32): 1, np.dtype(np.float64): 1}
"""Array types and their value for white."""
PILLOW_MODES = {"1": "L", "L": "L", "I;16": "I;16", "LA": "LA", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
"""Mode of an image -> mode of its output; P becomes RGB, or RGBA where a colour is transparent."""
ALPHA_MARGIN = 2
"""Rows that a bicubic sees beside its own."""
KEPT_INFO = ("icc_profile", "exif", "dpi", "xmp")


@dataclass(frozen=True)
class Taken:
    """One image as a network sees it."""

    lq: Tensor
    """(3, h, w) float32 in [0, 1] on the CPU."""
    back: Callable[[Tensor], Any]
    """(3, s*h, s*w) in [0, 1] on any device -> the caller's kind of image."""

    @property
    def size(self) -> tuple[int, int]:
        return self.lq.shape[1], self.lq.shape[2]


def take(image: Any) -> Taken:
    """A picture, an array, or a Pillow image.

    Raises:
        TypeError: something else.
        ValueError: an array of another shape, type or range; a Pillow image of another mode.
    """
    if isinstance(image, Picture):
        return take_picture(image)
    if isinstance(image, np.ndarray):
        return take_array(image)
    if hasattr(image, "getbands"):  # without importing Pillow for those who do not use it
        return take_pillow(image)
    raise TypeError(f"images are NumPy arrays, Pillow images, tensors, or lists of these, got {type(image).__name__}")


def take_picture(picture: Picture) -> Taken:
    def back(sr: Tensor) -> Picture:
        pixels = _pixels(sr, picture.pixels.shape[2], picture.pixels.dtype)
        alpha = None if picture.alpha is None else enlarged_alpha(picture.alpha, pixels.shape[0] // picture.size[0])
        return replace(picture, pixels=pixels, alpha=alpha)

    return Taken(_lq(picture.pixels), back)


def take_array(array: np.ndarray) -> Taken:
    """(h, w), (h, w, 1) gray, (h, w, 2) gray and alpha, (h, w, 3) RGB, or (h, w, 4) RGB and alpha; the output is alike."""
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in (1, 2, 3, 4) or array.size == 0:
        raise ValueError(f"an image is an array (h, w), (h, w, 3) RGB or (h, w, 4) RGB and alpha, got {array.shape}")
    if array.dtype not in LEVELS:
        raise ValueError(f"an image is uint8, uint16 or float in [0, 1], got {array.dtype}")
    if LEVELS[array.dtype] == 1 and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"a float image has values in [0, 1], got {array.min():g} to {array.max():g}")
    planes = array.reshape(*array.shape[:2], channels)
    colours = channels - (channels in (2, 4))

    def back(sr: Tensor) -> np.ndarray:
        out = _pixels(sr, colours, array.dtype)
        if colours < channels:
            alpha = enlarged_alpha(planes[..., colours], out.shape[0] // array.shape[0])
            out = np.concatenate([out, alpha[..., None]], 2)
        return out[..., 0] if array.ndim == 2 else out

    return Taken(_lq(planes[..., :colours]), back)


def take_pillow(image: Any) -> Taken:
    """A Pillow image; colour profile, EXIF and resolution are carried over, and the EXIF rotation is left to whoever applies it."""
    from PIL import Image

    if "transparency" in image.info or image.mode == "PA":
        image = image.convert("RGBA")
    elif image.mode in ("P", "1"):
        image = image.convert("RGB" if image.mode == "P" else "L")
    if image.mode not in PILLOW_MODES:
        raise ValueError(f"a Pillow image of mode {image.mode} has to be converted first, to one of {', '.join(PILLOW_MODES)}")
    taken = take_array(np.asarray(image))
    kept = {key: image.info[key] for key in KEPT_INFO if key in image.info}

    def back(sr: Tensor) -> Any:
        out = Image.fromarray(taken.back(sr))
        out.info.update(kept)
        return out

    return Taken(taken.lq, back)


def check_tensor(images: Tensor) -> None:
    """Raises ValueError for what is not (3, h, w) or (N, 3, h, w), float, in [0, 1]."""
    if images.ndim not in (3, 4) or images.shape[-3] != 3 or not images.numel():
        raise ValueError(f"a tensor of images is (3, h, w) or (N, 3, h, w), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"a tensor of images is float in [0, 1], got {images.dtype}")
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"a tensor of images has values in [0, 1], got {low:g} to {high:g}")


def _lq(pixels: np.ndarray) -> Tensor:
    """(h, w, 1 or 3) of any type -> (3, h, w) float32 in [0, 1]; gray three times."""
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0), dtype=np.float32)
    lq = torch.from_numpy(planes.copy() if planes is pixels or not planes.flags.owndata else planes)
    return lq.div_(LEVELS[pixels.dtype]).expand(3, -1, -1)


def _pixels(sr: Tensor, channels: int, dtype: np.dtype) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, channels), integers rounded to the nearest level; gray is the luma of the three."""
    if sr.isnan().any():  # which would become black, and be judged as if the network had meant it
        raise UserError("an image came out as NaN: look at the network's weights, or use another precision")
    sr = sr.float().clamp(0, 1)
    if channels == 1:
        sr = sum(weight * plane for weight, plane in zip(LUMA, sr, strict=True))[None].clamp(0, 1)  # pyright: ignore[reportIndexIssue]
    white = LEVELS[dtype]
    if white == 1:
        levels = sr.cpu().numpy().astype(dtype)
    else:
        rounded = sr.mul(white).round().to(torch.uint8 if white == 255 else torch.int32)
        levels = rounded.cpu().numpy().astype(dtype)
    return np.ascontiguousarray(np.moveaxis(levels, 0, -1))


def enlarged_alpha(alpha: np.ndarray, scale: int, rows: slice | None = None) -> np.ndarray:
    """Alpha (h, w), or some rows of it, `scale` times larger, bicubically: a network would draw texture into it. Opaque stays opaque."""
    rows = slice(0, len(alpha)) if rows is None else rows
    first, last = max(rows.start - ALPHA_MARGIN, 0), min(rows.stop + ALPHA_MARGIN, len(alpha))
    white = LEVELS[alpha.dtype]
    plane = torch.from_numpy(np.asarray(alpha[first:last], np.float32).copy())[None, None]
    large = F.interpolate(plane, scale_factor=scale, mode="bicubic", align_corners=False)[0, 0]
    own = large[scale * (rows.start - first) : scale * (rows.stop - first)].clamp(0, white)
    return (own if white == 1 else own.round()).numpy().astype(alpha.dtype)

"""The report's image comparisons: where the variants differ most, cut out of every picture at the same place."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .results import Results, digits_of, format_value

CROP = 96
"""Side of the cut-outs in SR pixels."""
MOST = 8
"""Comparisons in a report."""


@dataclass(frozen=True)
class SetImages:
    """The pictures of one set, uint8 RGB."""

    gts: Mapping[str, np.ndarray]
    """ "original", "01", ... -> (H, W, 3)."""
    outputs: Mapping[str, np.ndarray]
    """Variant -> SR output (H, W, 3)."""
    lq: np.ndarray | None = None
    """(h, w, 3)."""


@dataclass(frozen=True)
class Tile:
    """One cut-out with what is to be said of it."""

    name: str
    note: str
    png: str
    """data: URL."""


@dataclass(frozen=True)
class Comparison:
    """All cut-outs of one set."""

    image: str
    y: int
    x: int
    side: int
    """The cut-out's place in the whole image, in SR pixels."""
    height: int
    width: int
    whole: str
    """The original as a small JPEG, data: URL."""
    references: list[Tile]
    """The LQ and the GTs."""
    outputs: list[Tile]


def comparisons(results: Results, images: Mapping[str, SetImages]) -> list[Comparison]:
    """At most MOST sets, those whose variants differ most first."""
    places = {name: busiest_place(list(entry.outputs.values())) for name, entry in images.items()}
    order = sorted(places, key=lambda name: -places[name][2])[:MOST]
    return [_comparison(results, name, images[name], *places[name][:2]) for name in order]


def busiest_place(outputs: Sequence[np.ndarray], side: int = CROP) -> tuple[int, int, float]:
    """(y, x, strength): the square of `side` pixels in which the outputs, uint8 (H, W, 3), differ most from one another.

    Strength is the mean variance of luma over the outputs. With fewer than two outputs it is the middle.
    """
    height, width = outputs[0].shape[:2] if outputs else (side, side)
    rows, columns = max(height - side, 0), max(width - side, 0)
    if len(outputs) < 2:
        return rows // 2, columns // 2, 0.0
    luma = np.stack([image @ np.array([0.299, 0.587, 0.114]) for image in outputs])
    total = np.pad(luma.var(0), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    h, w = min(side, height), min(side, width)
    sums = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    y, x = np.unravel_index(np.argmax(sums), sums.shape)
    return int(y), int(x), float(sums[y, x] / (h * w))


def _comparison(results: Results, name: str, images: SetImages, y: int, x: int) -> Comparison:
    whole = images.gts.get("original", next(iter([*images.outputs.values(), *images.gts.values()])))
    height, width = whole.shape[:2]
    inside = (slice(y, y + CROP), slice(x, x + CROP))
    references = [] if images.lq is None else [Tile("LQ", "bicubic", png_url(enlarge(images.lq, (height, width))[inside]))]
    gts = sorted(images.gts, key=lambda gt: (gt != "original", gt))
    references += [Tile(f"GT {gt}", _gt_note(results, name, gt), png_url(images.gts[gt][inside])) for gt in gts]
    variants = [variant for variant in results["variants"] if variant in images.outputs]
    outputs = [Tile(variant, _variant_note(results, name, variant), png_url(images.outputs[variant][inside])) for variant in variants]
    return Comparison(name, y, x, CROP, height, width, _thumbnail(whole), references, outputs)


def _gt_note(results: Results, image: str, gt: str) -> str:
    """The GT's label and its Q."""
    q = results["optimised_metric"]
    label = results["data"].get("sets", {}).get(image, {}).get("labels", {}).get(gt, "")
    score = results["gold_standard"].get(q, {}).get("scores", {}).get(image, {}).get(gt)
    parts = [label, f"{q} {format_value(score, 1)}" if score is not None else ""]
    return ", ".join(part for part in parts if part)


def _variant_note(results: Results, image: str, variant: str) -> str:
    """The output's Q and PSNR to the original."""
    metrics = results["variants"][variant]["metrics"]
    parts = []
    for column, name in ((results["optimised_metric"], results["optimised_metric"]), ("psnr_original", "PSNR")):
        value = metrics[column]["per_image"].get(image) if column in metrics else None
        parts += [f"{name} {format_value(value, min(1, digits_of([value])))}"] if value is not None else []
    return ", ".join(parts)


def enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (h, w, 3) to size (height, width), bicubic."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def png_url(image: np.ndarray) -> str:
    """uint8 RGB as a data: URL, lossless."""
    return _url(image, "png")


def _thumbnail(image: np.ndarray, side: int = 320) -> str:
    factor = min(1.0, side / max(image.shape[:2]))
    small = enlarge(image, (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))))
    return _url(small, "jpeg")


def _url(image: np.ndarray, kind: str) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(out, kind.upper(), **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"

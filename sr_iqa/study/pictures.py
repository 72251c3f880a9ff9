"""The report's image comparisons: the largest gains and losses, cut out where the variants differ most, and whole for the viewer."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from sr_iqa.images import to_tensor
from sr_iqa.iqa.noise import noise, noise_map

from .results import Results, digits_of, format_value

CROP = 96
"""Side of the cut-outs in SR pixels."""
AMPLIFY = 6
"""How much the differences of outputs are amplified in the noise panels."""
NOISE_WHITE = 6 / 255
"""Unexplained detail of this root mean square is white in the map of the noise panels."""
SPECTRUM = 128
"""Side in pixels of the squares whose spectra are averaged."""
EACH = 4
"""Sets with the largest gains in a report, and as many with the largest losses."""
WHOLE_BYTES = 9_000_000
"""For the whole pictures of a page, as they are embedded, and what rewards added; the viewer shows as many sets as fit."""


@dataclass(frozen=True)
class SetImages:
    """The pictures of one set, uint8 RGB."""

    gts: Mapping[str, np.ndarray]
    """ "original", "01", ... -> (H, W, 3)."""
    outputs: Mapping[str, np.ndarray]
    """Variant -> SR output (H, W, 3)."""
    lq: np.ndarray | None = None
    """(h, w, 3)."""
    scaled: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Curve (dials.Dial) -> the PNG of the output at each of its scales; read only where they are shown."""


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
    gain: str
    """How the focus variant differs from the baseline on this set, in words."""
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
    wholes: dict[str, str]
    """Tile name -> the whole picture (lossless WebP, data: URL); empty where the page had no room for them."""


def comparisons(results: Results, images: Mapping[str, SetImages], taken: int = 0) -> list[Comparison]:
    """The sets on which the focus variant gains most over the baseline, and those on which it loses most, in that order.

    `taken` bytes of WHOLE_BYTES are used already.
    """
    found, room = [], WHOLE_BYTES - taken
    for name, gain in extremes(results, list(images)):
        place = busiest_place(list(images[name].outputs.values()))
        wholes = _wholes(images[name])
        size = sum(map(len, wholes.values()))
        fits = size <= room
        room -= size if fits else 0
        found.append(_comparison(results, name, gain, images[name], *place[:2], wholes if fits else {}))
    return found


@dataclass(frozen=True)
class NoisePanel:
    """What a reward did to the outputs of the variant that it started from."""

    variant: str
    start: str
    image: str
    difference: str
    """Output minus the start's output, AMPLIFY times, around gray; data: URL of a PNG."""
    spectrum: str
    """Mean amplitude spectrum of the luma difference over all sets, logarithmic, frequency 0 in the middle; data: URL of a PNG."""
    noise: float
    """The noise measure of the output against the start's, mean over all sets: 0..1."""
    where: str
    """The unexplained detail of `difference`: its strength, NOISE_WHITE is white; data: URL of a PNG."""

    @property
    def bytes(self) -> int:
        """What its pictures take of the page."""
        return len(self.difference) + len(self.spectrum) + len(self.where)


def noise_panels(results: Results, images: Mapping[str, SetImages]) -> list[NoisePanel]:
    """One for every variant with a reward that started from another variant, on the set with the largest gain."""
    panels = []
    order = [name for name, _ in extremes(results, list(images))]
    for name, variant in results["variants"].items():
        start = variant.get("starts_from")
        if not start or not variant["options"].get("train", {}).get("reward_opt"):
            continue
        pairs = {
            image: (entry.outputs[name], entry.outputs[start]) for image, entry in images.items() if {name, start} <= entry.outputs.keys()
        }
        if pairs:
            image = next(i for i in order if i in pairs)
            after, before = pairs[image]
            changed = 128 + AMPLIFY * (after.astype(float) - before)
            share = float(np.mean([float(noise(*map(_batch, pair))) for pair in pairs.values()]))
            strength = noise_map(_batch(after), _batch(before))[0].numpy()[..., None].repeat(3, axis=2)
            drawn = (changed, spectrum(list(pairs.values())), 255 * strength / NOISE_WHITE)
            difference, spectra, where = (png_url(_bytes(picture)) for picture in drawn)
            panels.append(NoisePanel(name, start, image, difference, spectra, share, where))
    return panels


def _batch(image: np.ndarray) -> Tensor:
    return to_tensor(image)[None]


def spectrum(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(SPECTRUM, SPECTRUM, 3) in 0..255: where in frequency the pairs of uint8 images (H, W, 3) differ.

    Bright dots away from the middle are a repeated pattern: a period of 4 px shows at a quarter of the side from the middle and at the
    edge. The scale is logarithmic over three decades of amplitude below a difference of 2 levels per pixel at a single frequency.
    """
    total, window = np.zeros((SPECTRUM, SPECTRUM)), np.hanning(SPECTRUM)
    window = np.outer(window, window) / np.outer(window, window).mean()
    count = 0
    for after, before in pairs:
        luma = (after.astype(float) - before) @ np.array([0.299, 0.587, 0.114])
        for y in range(0, luma.shape[0] - SPECTRUM + 1, SPECTRUM):
            for x in range(0, luma.shape[1] - SPECTRUM + 1, SPECTRUM):
                part = luma[y : y + SPECTRUM, x : x + SPECTRUM]
                total += np.abs(np.fft.fftshift(np.fft.fft2((part - part.mean()) * window))) / SPECTRUM**2
                count += 1
    decades = np.log10(np.maximum(total / max(count, 1), 1e-12) / 2)
    return np.repeat(255 * (decades[..., None] + 3) / 3, 3, axis=2)


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def focus(results: Results) -> tuple[str, str]:
    """(variant, baseline) whose differences order the pictures: the variant with the best Q that is no warning example, and the baseline.

    The warning example is the full-tuning partner of a LoRA variant.
    """
    q = results["optimised_metric"]
    variants, baseline = results["variants"], results.get("statistics", {}).get("baseline", next(iter(results["variants"])))
    spoilt = (results.get("reward_comparison") or {}).get("full")
    means = {name: v["metrics"][q]["mean"] for name, v in variants.items() if name not in (baseline, spoilt)} or {baseline: 0.0}
    return (min if variants[baseline]["metrics"][q]["lower_better"] else max)(means, key=means.__getitem__), baseline


def extremes(results: Results, names: Sequence[str]) -> list[tuple[str, str]]:
    """(set, its difference in words): EACH largest gains of the focus variant over the baseline in Q, then EACH largest losses."""
    q = results["optimised_metric"]
    variant, baseline = focus(results)
    a, b = (results["variants"][which]["metrics"][q] for which in (variant, baseline))
    differences = {name: a["per_image"][name] - b["per_image"][name] for name in names if name in a["per_image"]}
    order = sorted(differences, key=lambda name: differences[name] if a["lower_better"] else -differences[name])
    chosen = order if len(order) <= 2 * EACH else [*order[:EACH], *order[-EACH:]]
    return [(name, f"{q} {differences[name]:+.2f}: {variant} against {baseline}") for name in chosen]


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


def _comparison(results: Results, name: str, gain: str, images: SetImages, y: int, x: int, wholes: dict[str, str]) -> Comparison:
    whole = images.gts.get("original", next(iter([*images.outputs.values(), *images.gts.values()])))
    height, width = whole.shape[:2]
    inside = (slice(y, y + CROP), slice(x, x + CROP))
    references = [] if images.lq is None else [Tile("LQ", "bicubic", png_url(enlarge(images.lq, (height, width))[inside]))]
    gts = sorted(images.gts, key=lambda gt: (gt != "original", gt))
    references += [Tile(f"GT {gt}", gt_note(results, name, gt), png_url(images.gts[gt][inside])) for gt in gts]
    variants = [variant for variant in results["variants"] if variant in images.outputs]
    outputs = [Tile(variant, _variant_note(results, name, variant), png_url(images.outputs[variant][inside])) for variant in variants]
    return Comparison(name, gain, y, x, CROP, height, width, thumbnail(whole), references, outputs, wholes)


def _wholes(images: SetImages) -> dict[str, str]:
    """Tile name -> the whole picture."""
    size = next(iter([*images.gts.values(), *images.outputs.values()])).shape[:2]
    lq = {} if images.lq is None else {"LQ": enlarge(images.lq, (size[0], size[1]))}
    pictures = {**lq, **{f"GT {gt}": image for gt, image in images.gts.items()}, **images.outputs}
    return {name: _url(image, "webp") for name, image in pictures.items()}


def gt_note(results: Results, image: str, gt: str) -> str:
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


def webp_url(image: np.ndarray) -> str:
    """uint8 RGB as a data: URL, lossless and smaller."""
    return _url(image, "webp")


def thumbnail(image: np.ndarray, side: int = 320) -> str:
    """uint8 RGB as a small JPEG of at most `side` pixels, data: URL."""
    factor = min(1.0, side / max(image.shape[:2]))
    small = enlarge(image, (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))))
    return _url(small, "jpeg")


def _url(image: np.ndarray, kind: str) -> str:
    from PIL import Image

    out = io.BytesIO()
    how = {"png": {"optimize": True}, "jpeg": {"quality": 85}, "webp": {"lossless": True, "quality": 60, "method": 1}}[kind]
    Image.fromarray(np.ascontiguousarray(image)).save(out, kind.upper(), **how)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"

"""LQ synthesis for one sample: parameters drawn from a generator, then applied to the original's crop plus the margin they need.

The chain is HGGT's (one stage) or Real-ESRGAN's (two): blur, resize, noise, JPEG [, again], resize to 1/scale, sinc, round to 8 bit.
Parameters are drawn per sample, so no pool of pairs is needed; JPEG is libjpeg's. Images are float32 levels (0..255) in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi

import cv2
import numpy as np

from ..config.degradation import BlurOptions, DegradationOptions, NoiseOptions, ResizeOptions, StageOptions
from ..images import jpeg_roundtrip
from .kernels import Blur, blur_kernel
from .noise import Noise, add_noise
from .resize import resize

JPEG_BLOCK = 16
"""Side of a JPEG macroblock with 4:2:0 chroma."""


@dataclass(frozen=True)
class Stage:
    """One drawn stage; None where a part is left out."""

    blur: Blur | None
    factor: float
    """Resize factor; the first stage counts from the GT's size, the second from the LQ's."""
    mode: str
    noise: Noise | None
    jpeg: int | None
    """Quality, 1-100."""


@dataclass(frozen=True)
class Degradation:
    """Everything that turns a GT into its LQ: same parameters, same pixels, same LQ."""

    first: Stage | None
    second: Stage | None
    final_mode: str
    final_sinc: Blur | None
    jpeg_last: bool
    """The last stage's JPEG comes after the final resize and filter."""


def draw(options: DegradationOptions, rng: np.random.Generator) -> Degradation:
    """One sample's parameters."""
    first = _draw_stage(options.first, rng) if options.first else None
    second = _draw_stage(options.second, rng) if options.second else None
    last = second or first
    final = options.final
    same_mode = last.mode if last else "antialiased"
    mode = same_mode if final.modes == "same" else _pick(final.modes, rng)
    sinc = _draw_sinc(final.sinc_kernel_size_range, rng, pi / 3) if rng.random() < final.sinc_prob else None
    return Degradation(first, second, mode, sinc, bool(rng.random() < final.jpeg_last_prob))


def _draw_stage(options: StageOptions, rng: np.random.Generator) -> Stage:
    blur = _draw_blur(options.blur, rng) if options.blur else None
    factor, mode = _draw_resize(options.resize, rng) if options.resize else (1.0, "bicubic")
    noise = _draw_noise(options.noise, rng) if options.noise else None
    jpeg = int(rng.integers(options.jpeg_range[0], options.jpeg_range[1] + 1)) if options.jpeg_range else None
    return Stage(blur, factor, mode, noise, jpeg)


def _draw_blur(options: BlurOptions, rng: np.random.Generator) -> Blur | None:
    if rng.random() >= options.prob:
        return None
    if rng.random() < options.sinc_prob:
        return _draw_sinc(options.kernel_size_range, rng)
    size = _draw_size(options.kernel_size_range, rng)
    kinds, weights = zip(*options.kernels.items(), strict=True)
    kind = kinds[rng.choice(len(kinds), p=np.array(weights) / sum(weights))]
    sigma_x, sigma_y = rng.uniform(*options.sigma_range, size=2).tolist()
    angle = rng.uniform(-pi, pi)
    low, high = options.betap_range if kind.startswith("plateau") else options.betag_range
    beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    isotropic = not kind.endswith("aniso")
    shaped = kind.startswith(("plateau", "generalized"))
    return Blur(kind, size, sigma_x, sigma_x if isotropic else sigma_y, 0.0 if isotropic else angle, beta if shaped else 1.0)


def _draw_sinc(size_range: tuple[int, int], rng: np.random.Generator, lowest: float | None = None) -> Blur:
    """Small kernels hold only mild filters: below a side of 13 the cut-off starts at pi/3, from there at pi/5 (Real-ESRGAN)."""
    size = _draw_size(size_range, rng)
    return Blur("sinc", size, cutoff=rng.uniform(lowest or (pi / 3 if size < 13 else pi / 5), pi))


def _draw_size(size_range: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.choice(np.arange(size_range[0], size_range[1] + 1, 2)))


def _draw_resize(options: ResizeOptions, rng: np.random.Generator) -> tuple[float, str]:
    direction = rng.choice(3, p=np.array(options.prob) / sum(options.prob))
    low, high = ((1.0, options.scale_range[1]), (options.scale_range[0], 1.0), (1.0, 1.0))[direction]
    return float(rng.uniform(low, high)), _pick(options.modes, rng)


def _draw_noise(options: NoiseOptions, rng: np.random.Generator) -> Noise:
    gaussian = rng.random() < options.gaussian_prob
    amount = rng.uniform(*(options.sigma_range if gaussian else options.poisson_scale_range))
    return Noise("gaussian" if gaussian else "poisson", amount, bool(rng.random() < options.gray_prob), int(rng.integers(1 << 62)))


def _pick(modes: tuple[str, ...], rng: np.random.Generator) -> str:
    return modes[rng.integers(len(modes))]


def margin(degradation: Degradation, scale: int) -> int:
    """How far around a crop the original must be read so that the crop's LQ is that of the whole image: GT pixels, a multiple of scale."""
    reach, ratio = 0.0, 1.0  # ratio: current pixels per GT pixel
    for stage, base in ((degradation.first, 1.0), (degradation.second, 1 / scale)):
        if stage is not None:
            target = base * stage.factor
            reach += _radius(stage.blur) / ratio + _support(stage.mode, ratio, target)
            ratio = target
            reach += JPEG_BLOCK / ratio if stage.jpeg and not (degradation.jpeg_last and stage is _last(degradation)) else 0
    reach += _support(degradation.final_mode, ratio, 1 / scale) + _radius(degradation.final_sinc) * scale
    reach += JPEG_BLOCK * scale if degradation.jpeg_last else 0
    return ceil(reach / scale) * scale


def window(degradation: Degradation, box: tuple[int, int, int, int], size: tuple[int, int], scale: int) -> tuple[int, int, int, int]:
    """(y, x, h, w) of the part of an image of `size` to read for the crop `box`: with margin, inside the image, a multiple of scale,
    and starting where a JPEG block of the whole image starts, so that block borders fall anywhere in the crop."""
    reach = margin(degradation, scale)
    grid = scale
    if degradation.first is not None and degradation.first.jpeg:
        grid = int(np.lcm(JPEG_BLOCK, scale))
    if degradation.jpeg_last or (degradation.second is not None and degradation.second.jpeg):
        grid = JPEG_BLOCK * scale  # blocks of the LQ's size
    spans = []
    for start, length, full in zip(box[:2], box[2:], size, strict=True):
        begin = max(0, (start - reach) // grid * grid)
        end = min(full // scale * scale, start + length + reach)
        spans.append((int(begin), int(end - begin)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def apply(image: np.ndarray, degradation: Degradation, scale: int) -> np.ndarray:
    """The LQ (h / scale, w / scale, 3) of a GT or window (h, w, 3), uint8; h and w are multiples of scale."""
    h, w = image.shape[0] // scale, image.shape[1] // scale
    pixels = image.astype(np.float32)
    last = _last(degradation)
    for stage, base in ((degradation.first, image.shape[:2]), (degradation.second, (h, w))):
        if stage is None:
            continue
        pixels = resize(_filtered(pixels, stage.blur), _scaled(base, stage.factor), stage.mode)
        if stage.noise is not None:
            pixels = add_noise(pixels, stage.noise)
        if not (degradation.jpeg_last and stage is last):
            pixels = _compressed(pixels, stage.jpeg)
    pixels = _filtered(resize(pixels, (h, w), degradation.final_mode), degradation.final_sinc)
    if degradation.jpeg_last and last is not None:
        pixels = _compressed(pixels, last.jpeg)
    return _rounded(pixels)


def degrade_image(image: np.ndarray, options: DegradationOptions, scale: int, rng: np.random.Generator) -> np.ndarray:
    """A whole image's LQ with parameters drawn from `rng`; sides that are no multiple of scale are cut first. uint8 in and out."""
    h, w = (side // scale * scale for side in image.shape[:2])
    return apply(image[:h, :w], draw(options, rng), scale)


def describe(degradation: Degradation) -> dict[str, str]:
    """The parameters in words, one entry per part of the chain."""
    parts = {}
    for name, stage in (("first stage", degradation.first), ("second stage", degradation.second)):
        if stage is not None:
            noise = f"{stage.noise.kind} noise {stage.noise.amount:.3g}{' gray' if stage.noise.gray else ''}" if stage.noise else "no noise"
            resized = f"resize x{stage.factor:.3f} {stage.mode}"
            parts[name] = f"{_words(stage.blur)}, {resized}, {noise}, {f'JPEG {stage.jpeg}' if stage.jpeg else 'no JPEG'}"
    order = ", the last stage's JPEG after it" if degradation.jpeg_last else ""
    return {**parts, "final": f"resize {degradation.final_mode}, {_words(degradation.final_sinc)}{order}"}


def _words(blur: Blur | None) -> str:
    if blur is None:
        return "no blur"
    if blur.kind == "sinc":
        return f"sinc {blur.size}px cut off at {blur.cutoff / pi:.2f} pi"
    return f"blur {blur.kind} {blur.size}px sigma {blur.sigma_x:.2f}, {blur.sigma_y:.2f} angle {blur.angle:.2f} beta {blur.beta:.2f}"


def _last(degradation: Degradation) -> Stage | None:
    return degradation.second or degradation.first


def _radius(blur: Blur | None) -> int:
    return blur.size // 2 if blur else 0


def _support(mode: str, ratio: float, target: float) -> float:
    """Reach of a resize in GT pixels, and one target pixel for the rounding of sizes."""
    taps = 2 / min(ratio, target) if mode == "antialiased" else {"area": 1.0, "bilinear": 1.0, "bicubic": 2.0}[mode] / ratio
    return 0.0 if ratio == target else taps + 1 / target


def _scaled(size: tuple[int, ...], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _filtered(pixels: np.ndarray, blur: Blur | None) -> np.ndarray:
    """Correlation with the kernel, borders mirrored without the edge."""
    return pixels if blur is None else cv2.filter2D(pixels, -1, blur_kernel(blur), borderType=cv2.BORDER_REFLECT_101)


def _compressed(pixels: np.ndarray, quality: int | None) -> np.ndarray:
    return pixels if quality is None else jpeg_roundtrip(_rounded(pixels), quality).astype(np.float32)


def _rounded(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

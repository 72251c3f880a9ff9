"""Distortions with known orderings: KADID-10k's 25 kinds, and kinds of damage that super-resolution networks do; five levels each.

Level 1 is the faintest. The strengths of KADID's kinds are those of its published generator (Lin et al., QoMEX 2019), except where it names
a program that is not at hand: `denoise` uses non-local means instead of a network, and faint levels that change nothing are moved up.
Images are float32 RGB (h, w, 3) in [0, 1]; every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

LEVELS = 5
Operation = Callable[[np.ndarray, float, Generator], np.ndarray]


def distort(image: np.ndarray, kind: str, level: int, rng: Generator) -> np.ndarray:
    """The image with a kind of DISTORTIONS at level 1..5, in [0, 1]; level 0 is the image itself."""
    if level == 0:
        return image
    operation, strengths = DISTORTIONS[kind]
    return np.clip(operation(image, strengths[level - 1], rng), 0, 1).astype(np.float32)


# ---------------------------------------------------------------- blurs


def gaussian_blur(image: np.ndarray, sigma: float, _: Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def lens_blur(image: np.ndarray, radius: float, _: Generator) -> np.ndarray:
    axis = np.arange(-np.ceil(radius), np.ceil(radius) + 1)
    disc = np.clip(radius + 0.5 - np.hypot(*np.meshgrid(axis, axis)), 0, 1).astype(np.float32)
    return cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)


def motion_blur(image: np.ndarray, length: float, rng: Generator) -> np.ndarray:
    """Along a random line of 2 x length + 1 pixels."""
    half, angle = int(np.ceil(length)) + 1, rng.uniform(0, np.pi)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), x * np.sin(angle) - y * np.cos(angle)
    line = (np.clip(length + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)).astype(np.float32)
    return cv2.filter2D(image, -1, line / line.sum(), borderType=cv2.BORDER_REFLECT)


# ---------------------------------------------------------------- colours


def colour_diffusion(image: np.ndarray, amount: float, _: Generator) -> np.ndarray:
    """The colours blurred, the lightness as it was."""
    lab = _lab(image)
    lab[..., 1:] = cv2.GaussianBlur(lab[..., 1:], (0, 0), 1.5 * amount + 2)
    return _from_lab(lab)


def colour_shift(image: np.ndarray, pixels: float, rng: Generator) -> np.ndarray:
    """The green channel moved, most where there are edges."""
    gray = image.mean(2)
    edges = np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1))
    mask = np.clip(cv2.GaussianBlur(edges, (0, 0), 4) / max(1e-6, float(np.percentile(edges, 97))), 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    moved = _shifted(image[..., 1], pixels * np.cos(angle), pixels * np.sin(angle))
    out = image.copy()
    out[..., 1] += mask * (moved - out[..., 1])
    return out


def colour_quantisation(image: np.ndarray, colours: float, rng: Generator) -> np.ndarray:
    """The image in its best few colours (k-means)."""
    pixels = image.reshape(-1, 3)
    sample = pixels[rng.permutation(len(pixels))[:4096]]
    cv2.setRNGSeed(int(rng.integers(2**31)))
    centres = cv2.kmeans(sample, int(colours), None, (cv2.TERM_CRITERIA_MAX_ITER, 8, 0), 1, cv2.KMEANS_PP_CENTERS)[2]  # pyright: ignore[reportCallIssue, reportArgumentType]
    nearest = ((centres**2).sum(1) - 2 * pixels @ centres.T).argmin(1)
    return centres[nearest].reshape(image.shape)


def saturation_hsv(image: np.ndarray, factor: float, _: Generator) -> np.ndarray:
    """Saturation times a factor; a negative one turns the hues."""
    gray = image.max(2, keepdims=True)
    return gray + factor * (image - gray) if factor >= 0 else 2 * image.mean(2, keepdims=True) - image


def saturation_lab(image: np.ndarray, factor: float, _: Generator) -> np.ndarray:
    lab = _lab(image)
    lab[..., 1:] *= factor
    return _from_lab(lab)


# ---------------------------------------------------------------- compression and noise


def jpeg(image: np.ndarray, quality: float, _: Generator) -> np.ndarray:
    return _coded(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, int(quality)])


def jpeg2000(image: np.ndarray, ratio: float, _: Generator) -> np.ndarray:
    return _coded(image, ".jp2", [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, max(1, round(1000 / ratio))])


def white_noise(image: np.ndarray, variance: float, rng: Generator) -> np.ndarray:
    return image + rng.normal(0, variance**0.5, image.shape).astype(np.float32)


def colour_noise(image: np.ndarray, std: float, rng: Generator) -> np.ndarray:
    """White noise in luma and chroma, much of it coloured."""
    return _from_ycc(_ycc(image) + rng.normal(0, std, image.shape).astype(np.float32))


def impulse_noise(image: np.ndarray, density: float, rng: Generator) -> np.ndarray:
    hit = rng.random(image.shape)
    return np.where(hit < density / 2, 0, np.where(hit < density, 1, image)).astype(np.float32)


def multiplicative_noise(image: np.ndarray, variance: float, rng: Generator) -> np.ndarray:
    return image * (1 + rng.normal(0, variance**0.5, image.shape).astype(np.float32))


def denoise(image: np.ndarray, variance: float, rng: Generator) -> np.ndarray:
    """White noise, and what non-local means leaves of it and of the image."""
    noisy = _to_8_bits(white_noise(image, variance, rng))
    return cv2.fastNlMeansDenoisingColored(noisy, None, 255 * variance**0.5, 255 * variance**0.5, 5, 11).astype(np.float32) / 255  # pyright: ignore[reportCallIssue, reportArgumentType]


# ---------------------------------------------------------------- brightness and contrast


def brighten(image: np.ndarray, amount: float, _: Generator) -> np.ndarray:
    """A curve of the lightness that lifts the middle."""
    return _curved(image, lambda v: v + amount * v * (1 - v))


def darken(image: np.ndarray, amount: float, _: Generator) -> np.ndarray:
    return _curved(image, lambda v: v - amount * v * (1 - v))


def mean_shift(image: np.ndarray, amount: float, rng: Generator) -> np.ndarray:
    return image + (amount if rng.random() < 0.5 else -amount)


def contrast_change(image: np.ndarray, amount: float, _: Generator) -> np.ndarray:
    """An S curve that flattens (amount below 0) or steepens."""
    return image - amount * np.sin(2 * np.pi * image) / (2 * np.pi)


# ---------------------------------------------------------------- spatial


def jitter(image: np.ndarray, amount: float, rng: Generator) -> np.ndarray:
    """Every pixel from a random place nearby, five times over."""
    h, w = image.shape[:2]
    grid_y, grid_x = np.mgrid[:h, :w].astype(np.float32)
    for _ in range(5):
        dy, dx = rng.normal(0, amount, (2, h, w)).astype(np.float32)
        image = cv2.remap(image, grid_x + dx, grid_y + dy, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return image


def displaced_patches(image: np.ndarray, count: float, rng: Generator) -> np.ndarray:
    """Patches of 15 px (as on KADID's 512 x 384; fewer on smaller images) copied to a place nearby."""
    out, (h, w) = image.copy(), image.shape[:2]
    side = min(15, h // 2, w // 2)
    for _ in range(max(1, round(count * h * w / (512 * 384)))):
        y, x = (int(rng.integers(0, n - side + 1)) for n in (h, w))
        to_y, to_x = (int(np.clip(at + rng.integers(-side, side + 1), 0, n - side)) for at, n in ((y, h), (x, w)))
        out[to_y : to_y + side, to_x : to_x + side] = image[y : y + side, x : x + side]
    return out


def pixelate(image: np.ndarray, side: float, _: Generator) -> np.ndarray:
    """Blocks of `side` px of one colour each."""
    h, w = image.shape[:2]
    small = cv2.resize(image, (max(1, round(w / side)), max(1, round(h / side))), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_NEAREST)


def quantisation(image: np.ndarray, steps: float, _: Generator) -> np.ndarray:
    """Every channel in a few levels, placed at its quantiles."""
    inner = np.quantile(image, np.linspace(0, 1, int(steps) + 1)[1:-1])
    centres = np.quantile(image, (np.arange(int(steps)) + 0.5) / int(steps)).astype(np.float32)
    return centres[np.searchsorted(inner, image)]


def colour_blocks(image: np.ndarray, count: float, rng: Generator) -> np.ndarray:
    """Squares of 32 px (fewer on images smaller than KADID's) of one random colour."""
    out, (h, w) = image.copy(), image.shape[:2]
    side = min(32, h // 4, w // 4)
    for _ in range(max(1, round(count * h * w / (512 * 384)))):
        y, x = (int(rng.integers(0, n - side + 1)) for n in (h, w))
        out[y : y + side, x : x + side] = rng.random(3)
    return out


def sharpen(image: np.ndarray, amount: float, _: Generator) -> np.ndarray:
    return image + amount * (image - cv2.GaussianBlur(image, (0, 0), 1))


# ---------------------------------------------------------------- what super-resolution networks do


def ringing(image: np.ndarray, cutoff: float, rng: Generator) -> np.ndarray:
    """A sharp cut in frequency at a share of the Nyquist frequency, and what is left sharpened: ripples beside every edge."""
    h, w = image.shape[:2]
    pad = 16
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    radius = 2 * np.hypot(*np.meshgrid(np.fft.rfftfreq(w + 2 * pad), np.fft.fftfreq(h + 2 * pad)))
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * (radius < cutoff)[..., None]
    cut = np.fft.irfft2(spectrum, padded.shape[:2], axes=(0, 1)).astype(np.float32)[pad:-pad, pad:-pad]
    return sharpen(cut, 1.5, rng)


def over_sharpening(image: np.ndarray, amount: float, _: Generator) -> np.ndarray:
    """A wide mask: halos."""
    return image + amount * (image - cv2.GaussianBlur(image, (0, 0), 2))


def texture_noise(image: np.ndarray, amount: float, rng: Generator) -> np.ndarray:
    """Invented texture, as adversarial training paints: noise of a few pixels' grain, oriented, where there is texture already."""
    grain = rng.normal(0, 1, (*image.shape[:2], 1)).astype(np.float32).repeat(3, 2)
    grain = grain - cv2.GaussianBlur(grain, (0, 0), 1.6)
    grain = motion_blur(grain, 1, rng)
    return image + amount * grain / grain.std() * _activity(image)


def checkerboard(image: np.ndarray, amount: float, rng: Generator) -> np.ndarray:
    """A tile of 2 or 4 px, as transposed convolutions and pixel shuffles leave it, stronger where there is texture."""
    h, w = image.shape[:2]
    period = int(rng.choice([2, 4]))
    tile = rng.normal(0, 1, (period, period, 3)) if rng.random() < 0.5 else np.indices((period, period)).sum(0)[..., None] % 2 - 0.5
    tile = (tile - tile.mean((0, 1))) / tile.std()
    pattern = np.tile(tile, (h // period + 1, w // period + 1, 1))[:h, :w].astype(np.float32)
    return image + amount * pattern * (0.3 + 0.7 * _activity(image))


def upscaling(image: np.ndarray, factor: float, _: Generator) -> np.ndarray:
    """Smaller by area averaging and back with bicubic interpolation: the look of an enlarged image."""
    h, w = image.shape[:2]
    small = cv2.resize(image, (max(1, round(w / factor)), max(1, round(h / factor))), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)


def painting(image: np.ndarray, amount: float, _: Generator) -> np.ndarray:
    """Texture smoothed away, edges kept and sharpened: the look of oil paint."""
    smooth = image
    for _pass in range(2):
        smooth = cv2.bilateralFilter(smooth, 7, amount, 2.5)
    return smooth + 0.5 * (smooth - cv2.GaussianBlur(smooth, (0, 0), 1))


KADID: dict[str, tuple[Operation, tuple[float, ...]]] = {
    "gaussian_blur": (gaussian_blur, (0.5, 0.8, 1.2, 2, 5)),
    "lens_blur": (lens_blur, (1, 2, 4, 6, 8)),
    "motion_blur": (motion_blur, (1, 2, 4, 6, 10)),
    "colour_diffusion": (colour_diffusion, (1, 3, 6, 8, 12)),
    "colour_shift": (colour_shift, (1, 3, 6, 8, 12)),
    "colour_quantisation": (colour_quantisation, (64, 48, 32, 16, 8)),
    "saturation_hsv": (saturation_hsv, (0.4, 0.2, 0.1, 0, -1)),
    "saturation_lab": (saturation_lab, (1.5, 2, 3, 6, 9)),
    "jpeg2000": (jpeg2000, (16, 32, 45, 120, 170)),
    "jpeg": (jpeg, (43, 36, 24, 7, 4)),
    "white_noise": (white_noise, (0.001, 0.002, 0.003, 0.005, 0.01)),
    "colour_noise": (colour_noise, (0.014, 0.0198, 0.0343, 0.0524, 0.0768)),
    "impulse_noise": (impulse_noise, (0.001, 0.005, 0.01, 0.02, 0.03)),
    "multiplicative_noise": (multiplicative_noise, (0.001, 0.005, 0.01, 0.02, 0.05)),
    "denoise": (denoise, (0.001, 0.002, 0.003, 0.005, 0.01)),
    "brighten": (brighten, (0.1, 0.2, 0.4, 0.7, 1.1)),
    "darken": (darken, (0.05, 0.1, 0.2, 0.4, 0.8)),
    "mean_shift": (mean_shift, (0.03, 0.06, 0.09, 0.12, 0.15)),
    "jitter": (jitter, (0.05, 0.1, 0.2, 0.5, 1)),
    "displaced_patches": (displaced_patches, (20, 40, 60, 80, 100)),
    "pixelate": (pixelate, (2, 3, 4, 5, 7)),
    "quantisation": (quantisation, (20, 16, 13, 10, 7)),
    "colour_blocks": (colour_blocks, (2, 4, 6, 8, 10)),
    "sharpen": (sharpen, (1, 2, 3, 6, 12)),
    "contrast_change": (contrast_change, (-0.2, -0.35, -0.5, -0.65, -0.8)),
}
SUPER_RESOLUTION: dict[str, tuple[Operation, tuple[float, ...]]] = {
    "ringing": (ringing, (0.7, 0.6, 0.5, 0.4, 0.3)),
    "over_sharpening": (over_sharpening, (0.8, 1.3, 2, 3, 4.5)),
    "texture_noise": (texture_noise, (0.03, 0.05, 0.08, 0.13, 0.2)),
    "checkerboard": (checkerboard, (0.02, 0.035, 0.06, 0.1, 0.16)),
    "upscaling": (upscaling, (1.5, 2, 2.7, 3.5, 4.5)),
    "painting": (painting, (0.05, 0.09, 0.14, 0.2, 0.3)),
}
DISTORTIONS = KADID | SUPER_RESOLUTION
"""Name -> (operation, its strength at levels 1..5)."""


def _lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.clip(image, 0, 1).astype(np.float32), cv2.COLOR_RGB2LAB)


def _from_lab(lab: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _ycc(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)


def _from_ycc(ycc: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)


def _curved(image: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    lab = _lab(image)
    lab[..., 0] = 100 * np.clip(curve(lab[..., 0] / 100), 0, 1)
    return _from_lab(lab)


def _to_8_bits(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _coded(image: np.ndarray, ending: str, parameters: list[int]) -> np.ndarray:
    code = cv2.imencode(ending, _to_8_bits(image)[..., ::-1], parameters)[1]
    return cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255  # pyright: ignore[reportOptionalSubscript]


def _shifted(plane: np.ndarray, dx: float, dy: float) -> np.ndarray:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(plane, matrix, plane.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _activity(image: np.ndarray) -> np.ndarray:
    """(h, w, 1): local contrast at a scale of a few pixels, 1 where it is strong."""
    detail = np.abs(image - cv2.GaussianBlur(image, (0, 0), 2)).mean(2)
    return np.clip(cv2.GaussianBlur(detail, (0, 0), 3) / 0.05, 0, 1)[..., None]

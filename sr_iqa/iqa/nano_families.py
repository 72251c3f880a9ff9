"""What nano is trained on: families of one photo crop, degraded and enhanced in known ways, with a label for every member.

Images here are float32 RGB in [0, 1], (h, w, 3); every draw comes from the generator that is passed in.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

MARGIN_PX = 8
"""Filters run on a crop that is larger by this on every side, which is then cut away with its border effects."""
CONTRAST_FLOOR = 1.5e-3
"""Squared gradient, in [0, 1] per pixel, below which differences stop counting: a step of about 10/255."""
MILD_ENHANCEMENTS = 2
"""Members of a native family, after the photo itself, that are better than it."""


def label_maps(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Full-reference quality in 0..1 of (N, 3, H, W) against the best version known, and its weight, on nano's grid of locations.

    Local agreement of colour gradients, 2 a.b / (|a|^2 + |b|^2), over 5 x 5 windows at full, half and quarter size: it falls for lost
    contrast (blur), for excess contrast (halos), and for structure that is not there (noise, blocks, grids). Windows weigh by contrast.
    """
    quality, weight = _gradient_similarity(x, reference, 8)
    for factor in (2, 4):
        quality = quality * _gradient_similarity(F.avg_pool2d(x, factor), F.avg_pool2d(reference, factor), 8 // factor)[0]
    return quality.clamp(0, 1) ** (1 / 3), weight


def label(x: Tensor, reference: Tensor) -> Tensor:
    """The weighted mean of `label_maps`, (N,) in 0..1: what nano's score / 100 is regressed to."""
    quality, weight = label_maps(x, reference)
    return (quality * weight).sum((1, 2)) / weight.sum((1, 2))


def _gradient_similarity(x: Tensor, y: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    a, b = _gradients(x), _gradients(y)
    agreement = F.avg_pool2d((2 * a * b).sum(1), 5, 1, 2) + CONTRAST_FLOOR
    energy = F.avg_pool2d((a * a + b * b).sum(1), 5, 1, 2) + CONTRAST_FLOOR
    weight = energy.sqrt()
    local, total = (F.avg_pool2d(v, 2 * stride + 1, stride, stride) for v in (weight * agreement / energy, weight))
    return (local / total).clamp(min=0), total


def _gradients(x: Tensor) -> Tensor:
    """Differences of neighbouring pixels, which see even a checkerboard of single pixels (central differences do not)."""
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    return torch.cat([(x[..., 1:, :] - x[..., :-1, :])[..., :-1], (x[..., 1:] - x[..., :-1])[..., :-1, :]], 1) / 3**0.5


# ---------------------------------------------------------------- degradations


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def random_blur(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Gaussian (also with two widths) or disc."""
    if rng.random() < 0.3:
        radius = rng.uniform(0.8, 3)
        axis = np.arange(-4, 5)
        disc = np.clip(radius + 0.5 - np.hypot(*np.meshgrid(axis, axis)), 0, 1).astype(np.float32)
        return cv2.filter2D(image, -1, disc / disc.sum())
    sigma_x = rng.uniform(0.4, 2.6)
    return cv2.GaussianBlur(image, (0, 0), sigma_x, sigmaY=sigma_x * rng.uniform(0.6, 1.5))


def random_noise(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Gaussian noise, coloured, gray or growing with brightness, sometimes softened by a later resampling."""
    sigma = 10 ** rng.uniform(np.log10(2), np.log10(30)) / 255
    channels = 3 if rng.random() < 0.6 else 1
    noise = rng.normal(0, sigma, (*image.shape[:2], channels)).astype(np.float32)
    if rng.random() < 0.3:
        noise = blur(noise, rng.uniform(0.4, 0.9)).reshape(noise.shape) * 1.5
    if rng.random() < 0.3:
        noise = noise * np.sqrt(np.clip(image, 0, 1)) * 1.4
    return image + noise


def random_downscale(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Smaller and back to size: the look of an upscaled photo."""
    h, w = image.shape[:2]
    factor = rng.uniform(1.3, 4.5)
    down = rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
    up = rng.choice([cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4, cv2.INTER_NEAREST], p=[0.45, 0.25, 0.2, 0.1])
    small = cv2.resize(image, (round(w / factor), round(h / factor)), interpolation=int(down))
    return cv2.resize(small, (w, h), interpolation=int(up))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    code = cv2.imencode(".jpg", quantise(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.float32)[..., ::-1] / 255


def random_jpeg(image: np.ndarray, rng: Generator) -> np.ndarray:
    return jpeg(image, int(rng.uniform(8, 75)))


def low_pass(image: np.ndarray, cutoff: float) -> np.ndarray:
    """Sharp cut in frequency (cutoff as a share of the Nyquist frequency): ringing beside every edge."""
    h, w = image.shape[:2]
    radius = 2 * np.hypot(*np.meshgrid(np.fft.rfftfreq(w), np.fft.fftfreq(h)))
    spectrum = np.fft.rfft2(image, axes=(0, 1)) * (radius < cutoff)[..., None]
    return np.fft.irfft2(spectrum, (h, w), axes=(0, 1)).astype(np.float32)


def random_ringing(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Cut high frequencies off and amplify what is left, or over-sharpen with a wide mask: halos and ringing."""
    if rng.random() < 0.5:
        return unsharp(low_pass(image, rng.uniform(0.25, 0.7)), rng.uniform(0.8, 1.6), rng.uniform(0, 2.5))
    return unsharp(image, rng.uniform(0.9, 3), rng.uniform(1, 5))


def random_pattern(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A small tile repeated over the image, everywhere or where there is texture: what a pixel shuffle layer can paint."""
    h, w = image.shape[:2]
    period = int(rng.choice([2, 3, 4, 4, 4, 6, 8]))
    tile = rng.normal(0, 1, (period, period, rng.choice([1, 3])))
    if rng.random() < 0.3:
        tile = (np.indices((period, period)).sum(0) % 2 - 0.5)[..., None] * 2
    pattern = np.tile(tile, (h // period + 1, w // period + 1, 1))[:h, :w]
    if rng.random() < 0.5:
        pattern = pattern * (4 * blur(np.abs(image - blur(image, 2)).mean(2), 3))[..., None] / 0.1
    return (image + 10 ** rng.uniform(-2, -0.5) * pattern).astype(np.float32)


# ---------------------------------------------------------------- enhancements


def unsharp(image: np.ndarray, sigma: float, amount: float) -> np.ndarray:
    return image + amount * (image - blur(image, sigma))


def deconvolve(image: np.ndarray, sigma: float, iterations: int) -> np.ndarray:
    """Richardson-Lucy deconvolution with a Gaussian of width sigma (px)."""
    image = np.clip(image, 1 / 255, 1)
    estimate = image.copy()
    for _ in range(iterations):
        estimate *= blur(image / np.maximum(blur(estimate, sigma), 1e-3), sigma)
    return estimate


def local_contrast(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Contrast-limited histogram equalisation of the brightness, blended in."""
    lab = cv2.cvtColor(quantise(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(rng.uniform(1, 4), (4, 4)).apply(lab[..., 0])
    return image + rng.uniform(0.3, 1) * (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(np.float32) / 255 - image)


def detail_boost(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Edge-preserving smoothing, and the detail that it took out amplified (or, below 1, damped)."""
    smooth = cv2.bilateralFilter(image, 5, rng.uniform(0.03, 0.15), rng.uniform(1, 3))
    return (
        smooth + rng.uniform(0, 3) * (image - smooth) if rng.random() < 0.5 else unsharp(smooth, rng.uniform(0.6, 1.5), rng.uniform(0.5, 3))
    )


def random_enhancement(image: np.ndarray, rng: Generator) -> np.ndarray:
    """One of the classical enhancers, from timid to overdone."""
    kind = rng.random()
    if kind < 0.35:
        return deconvolve(image, rng.uniform(0.5, 2), int(rng.integers(2, 30)))
    if kind < 0.7:
        return unsharp(image, rng.uniform(0.5, 2), rng.uniform(0.3, 4))
    return detail_boost(image, rng) if kind < 0.85 else local_contrast(image, rng)


# ---------------------------------------------------------------- families

Operation = Callable[[np.ndarray, Generator], np.ndarray]
DEGRADATIONS: tuple[Operation, ...] = (random_blur, random_noise, random_downscale, random_jpeg, random_ringing, random_pattern)


def reference_family(photo: np.ndarray, size_px: int, rng: Generator) -> np.ndarray:
    """uint8 (20, size, size, 3): the best version first, then what was done to it.

    The best is the photo about 2x smaller, hence crisp and clean, mildly sharpened and with its local contrast raised.
    """
    small = cv2.resize(photo, None, fx=(f := 1 / rng.uniform(1.6, 2.5)), fy=f, interpolation=cv2.INTER_AREA)
    plain = camera(_random_window(small, size_px + 2 * MARGIN_PX, rng), rng)
    crisp = unsharp(plain, rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.5))
    best = np.clip(unsharp(crisp, rng.uniform(1.5, 2.5), rng.uniform(0.3, 0.5)), 0, 1)
    soft = camera(soften(crisp, rng), rng)
    members = [best, plain, soft, crisp, *(degrade(best, rng) for degrade in DEGRADATIONS)]
    members += [random_enhancement(soft, rng) for _ in range(3)]
    members += [_any(DEGRADATIONS, soft, rng), _any(DEGRADATIONS, random_enhancement(soft, rng), rng)]
    members += [random_enhancement(_any(DEGRADATIONS[:4], soft, rng), rng)]
    upscaled = down_and_up(crisp, 4)
    members += [upscaled, *(sharpen_coarsely(upscaled, rng) for _ in range(3))]
    return np.stack([_finish(member) for member in members])


def native_family(photo: np.ndarray, size_px: int, rng: Generator) -> np.ndarray:
    """uint8 (9, size, size, 3): a photo as cameras make them, mildly and well enhanced twice, then one of each degradation.

    Photos are soft and crisp, clean and grainy: a degradation must be seen whatever it is done to. The softer the photo, the stronger
    the right enhancement; grain and compression are the same before and after it, so that it is sharpness that is rewarded, not noise.
    """
    f = np.exp(rng.uniform(np.log(0.5), np.log(2.2)))
    photo = cv2.resize(photo, None, fx=f, fy=f, interpolation=cv2.INTER_AREA if f < 1 else cv2.INTER_CUBIC)
    clean = _random_window(photo, size_px + 2 * MARGIN_PX, rng)
    clean = blur(clean, rng.uniform(0.4, 0.7)) if f < 1.5 and rng.random() < 0.7 else clean
    softness = max(f, 0.7)
    mild = [
        deconvolve(clean, rng.uniform(0.5, 0.8) * softness**0.8, int(rng.integers(2, 4 + 4 * softness))),
        unsharp(clean, rng.uniform(0.5, 1.1) * softness, rng.uniform(0.2, 0.6) * softness**1.5),
    ]
    shot = rng.integers(2**32)
    base, *mild = (camera(image, np.random.default_rng(shot), grain=8) for image in (clean, *mild))
    return np.stack([_finish(member) for member in [base, *mild, *(degrade(base, rng) for degrade in DEGRADATIONS)]])


def camera(image: np.ndarray, rng: Generator, grain: float = 4) -> np.ndarray:
    """Grain (up to a standard deviation of `grain` / 255) and light compression, as most photos have: neither makes a photo bad."""
    if rng.random() < 0.5:
        noise = rng.normal(0, np.exp(rng.uniform(np.log(0.5), np.log(grain))) / 255, image.shape)
        image = image + (blur(noise, 0.5) if rng.random() < 0.5 else noise)
    image = image.astype(np.float32)
    return jpeg(image, int(rng.integers(85, 98))) if rng.random() < 0.4 else image


def soften(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A photo that sharpening can improve: out of focus, or enlarged."""
    return blur(image, rng.uniform(0.5, 1.5)) if rng.random() < 0.6 else down_and_up(image, rng.uniform(1.3, 3))


def enlarged(photo: np.ndarray) -> np.ndarray:
    """Twice the size, bicubic."""
    return cv2.resize(photo, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def sharpen_coarsely(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Sharpening as wide as the softness of a x4 upscaled image: what networks do that were taught by enhanced images."""
    if rng.random() < 0.7:
        return unsharp(image, rng.uniform(1, 3), rng.uniform(0.3, 3))
    return deconvolve(image, rng.uniform(1, 2.2), int(rng.integers(3, 20)))


def down_and_up(image: np.ndarray, factor: float) -> np.ndarray:
    """Smaller by area averaging, and back to size with bicubic interpolation."""
    h, w = image.shape[:2]
    small = cv2.resize(image, (round(w / factor), round(h / factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)


def tensor(images: np.ndarray) -> Tensor:
    """uint8 (..., h, w, 3) -> float (..., 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, -3).float() / 255


def quantise(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _any(operations: tuple[Operation, ...], image: np.ndarray, rng: Generator) -> np.ndarray:
    return operations[rng.integers(len(operations))](image, rng)


def _finish(image: np.ndarray) -> np.ndarray:
    return quantise(image[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])


def _random_window(image: np.ndarray, size_px: int, rng: Generator) -> np.ndarray:
    y, x = (int(rng.integers(0, n - size_px + 1)) for n in image.shape[:2])
    return image[y : y + size_px, x : x + size_px]

"""Crops of photos with distortions of known order, which nano learns to keep (sr_iqa/data/distortions.py)."""

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.data.distortions import DISTORTIONS, distort
from sr_iqa.iqa.nano_families import camera, quantise

HELD_OUT_KINDS = ("jpeg2000", "impulse_noise", "jitter", "multiplicative_noise", "colour_diffusion")
"""Kinds that training never sees."""
TOO_LARGE = ("displaced_patches", "colour_blocks")
"""Kinds whose patches say nothing in a small crop."""
KINDS = tuple(kind for kind in DISTORTIONS if kind not in (*HELD_OUT_KINDS, *TOO_LARGE))
LEVELS = (1, 2, 4, 5)
"""Level 3 is held out."""
MARGIN_PX = 16
CROPS_PER_PHOTO = 2
MARGIN = 0.035
"""By how much of the whole range scores must differ, times the number of levels between them."""


def distorted_pool(photos: list[np.ndarray], size_px: int, rng: Generator) -> np.ndarray:
    """uint8 (crops, 1 + kinds * levels, size, size, 3): crops of the float32 photos, half of them with grain and light compression, and
    each of KINDS at each of LEVELS."""
    rows = []
    for photo in [photo for photo in photos for _ in range(CROPS_PER_PHOTO)]:
        f = np.exp(rng.uniform(np.log(0.5), np.log(1.3)))
        photo = cv2.resize(photo, None, fx=f, fy=f, interpolation=cv2.INTER_AREA if f < 1 else cv2.INTER_CUBIC)
        side = size_px + 2 * MARGIN_PX
        y, x = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
        crop = np.clip(photo[y : y + side, x : x + side], 0, 1)
        crop = np.clip(camera(crop, rng), 0, 1) if rng.random() < 0.5 else crop
        versions = [crop, *(distort(crop, kind, level, rng) for kind in KINDS for level in LEVELS)]
        rows.append(np.stack([quantise(image[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]) for image in versions]))
    return np.stack(rows)


def draw_distorted(pool: np.ndarray, count: int, rng: Generator) -> tuple[np.ndarray, Tensor]:
    """uint8 (count, 3, size, size, 3): a crop, and two levels of one kind, the fainter first; their levels (count, 3)."""
    rows, kinds = rng.integers(len(pool), size=count), rng.integers(len(KINDS), size=count)
    chosen = np.sort([rng.choice(len(LEVELS), 2, replace=False) for _ in range(count)], axis=1)
    images = [pool[row, [0, *(1 + len(LEVELS) * kind + pair)]] for row, kind, pair in zip(rows, kinds, chosen, strict=True)]
    return np.stack(images), torch.from_numpy(np.pad(np.array(LEVELS)[chosen], ((0, 0), (1, 0)))).float()


def distorted_loss(scores: Tensor, levels: Tensor) -> Tensor:
    """How far scores / 100 (count, 3) are from falling with the level (count, 3)."""
    pairs = ((0, 1), (1, 2), (0, 2))
    return torch.stack([F.relu(MARGIN * (levels[:, j] - levels[:, i]) - (scores[:, i] - scores[:, j])) for i, j in pairs]).sum(0).mean()

"""The ladder: outputs of an honest x4 network, sharpened by growing amounts, with gains that a rule sets.

The full-reference label hardly tells such images apart, yet they are what nano scores in the demo: the outputs of networks that were
taught by enhanced images. The rule says what a viewer would: crisper is better up to a point, then worse.
"""

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.iqa.nano import Nano
from sr_iqa.iqa.nano_attacks import downscale
from sr_iqa.iqa.nano_families import blur, quantise, tensor, unsharp

LADDER_CROP_PX = 64
CROPS_PER_PHOTO = 6
ENLARGED_SIDE_PX = 800
"""Photos are enlarged to about this, so that their x4 outputs are as soft as the demo's."""
LEAST_STD = 0.04
AMOUNTS, GAINS = (0, 1.5, 2.5, 4, 7), (0, 0.06, 0.05, 0, -0.08)
"""Amount of an unsharp mask, and what it should add to score / 100; linear between."""
BLUR_GAIN = -0.04


def ladder_pool(photos: list[np.ndarray], upscaler: nn.Module, rng: Generator) -> np.ndarray:
    """float32 (n, 64, 64, 3): the network's outputs for textured crops of the enlarged float32 photos."""
    crops = []
    for photo in photos:
        scale = ENLARGED_SIDE_PX / max(photo.shape[:2])
        large = np.clip(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), 0, 1)
        for _ in range(CROPS_PER_PHOTO):
            y, x = (int(rng.integers(n - LADDER_CROP_PX)) for n in large.shape[:2])
            crops.append(large[y : y + LADDER_CROP_PX, x : x + LADDER_CROP_PX])
    gt = torch.from_numpy(np.stack([crop for crop in crops if crop.std() > LEAST_STD])).movedim(-1, 1)
    with torch.no_grad():
        outputs = torch.cat([upscaler(downscale(part)).clamp(0, 1) for part in gt.split(32)])
    return outputs.movedim(1, -1).numpy()


def ladder_loss(nano: Nano, pool: np.ndarray, count: int, rng: Generator) -> Tensor:
    """How far the differences of scores / 100 between versions of one output are from the rule's; `count` outputs, five versions each."""
    images, gains = [], []
    for k in rng.choice(len(pool), count, replace=False):
        sigma = rng.uniform(1, 2.6)
        amounts = (0, rng.uniform(0.3, 1), rng.uniform(1, 2.5), rng.uniform(3, 7))
        images += [unsharp(pool[k], sigma, amount) for amount in amounts] + [blur(pool[k], rng.uniform(0.8, 2))]
        gains += [*np.interp(amounts, AMOUNTS, GAINS), BLUR_GAIN]
    scores = nano(tensor(quantise(np.stack(images)))).view(count, -1) / 100
    wanted = torch.tensor(gains, dtype=torch.float32).view(count, -1)
    difference, rule = scores[:, :, None] - scores[:, None], wanted[:, :, None] - wanted[:, None]
    upward = rule > 0.005
    return F.smooth_l1_loss(difference[upward], rule[upward], beta=0.02)

"""Attacks on a metric: changes of pixels within a distance that raise its score, found by gradient ascent; and training against them.

Madry et al. (ICLR 2018, arXiv 1706.06083), towards a higher score. What no small change can raise, a reward can only raise by large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.config.metric_models import AttackOptions

Score = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 1] -> (N,), higher is better, each image by itself."""

SHORT, LONG = 2, 20
"""Steps of the attacks that a metric is measured with."""
FAINTEST = 1 / 255
"""The shortest distance in training; up to the longest it is drawn on a logarithmic scale."""
SOFT = 0.5
"""Gains below this many units are punished by their squares: a hinge of full force from 0 on drags all scores down."""


@torch.enable_grad()
def ascend(score: Score, images: Tensor, distance: Tensor | float, steps: int, step: Tensor | float, period: int | None = None) -> Tensor:
    """The best images on the way of signed-gradient ascent, (N, 3, H, W) in [0, 1], none further from the start than the distance.

    Args:
        images: (N, 3, H, W) in [0, 1]; with a period, H and W are multiples of it.
        distance: the largest change of a pixel, range 1: one number, or (N, 1, 1, 1).
        steps: evaluations after the start, whose own score does not count: the change is the best one, not the smallest.
        step: how far every pixel moves in one step; as `distance`.
        period: the change is one tile of this many pixels, repeated over the image, as a pixel shuffle paints it; None: any change.
    """
    n, _, h, w = images.shape
    limit = torch.as_tensor(distance, dtype=images.dtype, device=images.device)
    change = images.new_zeros((n, 3, *((h, w) if period is None else (period, period))))
    best, found = images.new_full((n,), -torch.inf), images
    for k in range(steps + 1):
        change.requires_grad_(k < steps)
        spread = change if period is None else change.repeat(1, 1, h // period, w // period)
        changed = (images + spread).clamp(0, 1)
        scores = score(changed)
        if k:
            better = scores.detach() > best
            best = torch.where(better, scores.detach(), best)
            found = torch.where(better[:, None, None, None], changed.detach(), found)
        if k < steps:
            (gradient,) = torch.autograd.grad(scores.sum(), change)
            change = torch.minimum(torch.maximum(change.detach() + step * gradient.sign(), -limit), limit)
    return found


def strongest(score: Score, images: Tensor, distance: float, steps: int, period: int | None = None) -> Tensor:
    """By how much the score rises, (N,), under the best of several lengths of a step. Arguments as `ascend`'s."""
    sizes = (distance / 2, distance) if steps <= SHORT else (FAINTEST / 4, FAINTEST, distance / 4)
    found = [ascend(score, images, distance, steps, size, period) for size in sizes]
    with torch.no_grad():
        return torch.stack([score(changed) for changed in found]).amax(0) - score(images)


# ---------------------------------------------------------------- training


def attacked(score: Score, images: Tensor, options: AttackOptions) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as a random attack leaves them; drawn from torch's global generator."""
    n, longest = len(images), options.distance / 255
    distance = FAINTEST * (longest / FAINTEST) ** torch.rand((n, 1, 1, 1))
    share = torch.tensor(options.shares)[torch.randint(len(options.shares), (n, 1, 1, 1))]
    steps = int(torch.randint(math.ceil(options.steps / 3), options.steps + 1, ()))
    tiled = bool(torch.rand(()) < options.tiled)
    period = options.periods[int(torch.randint(len(options.periods), ()))] if tiled else None
    distance, step = (values.to(images) for values in (distance, share * distance))
    return ascend(score, images, distance, steps, step, period)


def gain_loss(gain: Tensor) -> Tensor:
    """The mean of what attacks have gained (N,), in the pair loss's units of Q; what they lost does not count."""
    over = F.relu(gain)
    return F.smooth_l1_loss(over, torch.zeros_like(over), beta=SOFT)

"""Attacks on a metric: changes of pixels within a distance that raise its score, found by gradient ascent.

Madry et al. (ICLR 2018, arXiv 1706.06083), towards a higher score. What no small change can raise, a reward can only raise by larger ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 1] -> (N,), higher is better, each image by itself."""


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


SHORT, LONG = 2, 20
"""Steps of the attacks that a metric is tested with."""


def strongest(score: Score, images: Tensor, distance: float, steps: int, period: int | None = None) -> Tensor:
    """By how much the score rises, (N,), under the best of several step sizes: a step that is too long hides what is there to find."""
    with torch.no_grad():
        before = score(images)
    sizes = (distance / 2, distance) if steps <= SHORT else (0.25 / 255, 1 / 255, distance / 4)
    found = [ascend(score, images, distance, steps, size, period) for size in sizes]
    with torch.no_grad():
        return torch.stack([score(changed) for changed in found]).amax(0) - before

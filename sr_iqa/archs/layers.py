"""Parts that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UsageError


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grows (B, C, h, w) at the right and bottom to multiples of `multiple` by reflection (as often as a tiny image needs it)."""
    for dim in (2, 3):
        size = x.shape[dim]
        if size % multiple:
            period = max(2 * (size - 1), 1)
            steps = torch.arange(size + -size % multiple, device=x.device) % period
            x = x.index_select(dim, torch.minimum(steps, period - steps))
    return x


def pixel_shuffle_upsampler(scale: int, num_feat: int) -> nn.Sequential:
    """Convolution and pixel shuffle, x3 in one step or x2 as often as needed; keys 0.*, 2.*, ... as BasicSR's Upsample."""
    if scale == 3:
        steps = [3]
    elif scale >= 1 and scale & (scale - 1) == 0:
        steps = [2] * (scale.bit_length() - 1)
    else:
        raise UsageError(f"Pixel-shuffle upsampling by {scale} is not possible: choose 1, 2, 3, 4 or 8.")
    layers: list[nn.Module] = []
    for step in steps:
        layers += [nn.Conv2d(num_feat, step * step * num_feat, 3, 1, 1), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)

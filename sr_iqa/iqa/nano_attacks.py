"""What a reward does to nano: small x4 networks that are fine-tuned to please it, and attacks on pixels that training answers."""

from collections.abc import Sequence

import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.config.metric_models import AttackOptions
from sr_iqa.iqa.attacks import attacked, gain_loss
from sr_iqa.iqa.nano import Nano
from sr_iqa.iqa.nano_families import label

SCALE = 4
UPSCALER_CHANNELS = 32
UNIT = 0.1
"""The difference of score / 100 that counts as 1, as in `sr-iqa iqa train`."""


class Upscaler(nn.Module):
    """A tiny residual x4 network with a pixel shuffle: (N, 3, h, w) -> (N, 3, 4h, 4w)."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        c = UPSCALER_CHANNELS
        self.first = nn.Conv2d(3, c, 3, 1, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, c, 3, 1, 1), nn.SiLU(), nn.Conv2d(c, c, 3, 1, 1)) for _ in range(blocks))
        self.last = nn.Conv2d(c, 3 * SCALE**2, 3, 1, 1)

    def forward(self, lq: Tensor) -> Tensor:
        x = self.first(lq)
        for block in self.blocks:
            x = x + block(x)
        return F.pixel_shuffle(self.last(x), SCALE) + F.interpolate(lq, scale_factor=SCALE, mode="bicubic")


def downscale(gt: Tensor) -> Tensor:
    """The low-quality input of x4 networks: 4x smaller, antialiased bicubic."""
    return F.interpolate(gt, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(0, 1)


def attack_loss(
    nano: Nano, images: Tensor, best: Tensor, attacks: Sequence[tuple[AttackOptions, int]], rng: Generator
) -> tuple[Tensor, Tensor]:
    """What attacks on some of the images (N, 3, H, W) gain beyond what they are worth, and the mean gain of score / 100.

    Args:
        best: the best versions known, (N, 3, H, W): what the label says of a change is granted to it.
        attacks: kinds of attack, and on how many images.
    """
    starts, references, ends = [], [], []
    nano.requires_grad_(False)
    for options, count in attacks:
        rows = torch.from_numpy(rng.choice(len(images), count, replace=False))
        starts.append(images[rows])
        references.append(best[rows])
        ends.append(attacked(nano, starts[-1], options))
    nano.requires_grad_(True)
    before, after, reference = torch.cat(starts), torch.cat(ends), torch.cat(references)
    granted = (label(after, reference) - label(before, reference)).clamp(min=0)
    gain = (nano(after) - nano(before)) / 100
    return gain_loss((gain - granted) / UNIT), gain.detach().mean()

"""Adversarial examples for nano: pixels changed freely or by a tiled pattern, and small x4 networks fine-tuned to please it.

An attack only proposes images; the full-reference label says afterwards what they are worth, so an attack that truly sharpens is rewarded.
"""

from copy import deepcopy

import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.iqa.nano import Nano

SCALE = 4
UPSCALER_CHANNELS = 32
HARMLESS = 0.4
"""Share of the runs without a reward: nano must not take every fine-tuned network for an attack."""
RUINED = 0.4
"""An attack is over when the label of its images has fallen to this share of what it was."""


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
    """The low-quality input of the attacking networks: 4x smaller, antialiased bicubic."""
    return F.interpolate(gt, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(0, 1)


class Attacker:
    """A fine-tuning run against nano: L1 to a target minus weight x score, started again from the base after its lifetime."""

    def __init__(self, base: nn.Module, rng: Generator) -> None:
        self.base, self.rng = base, rng
        self.restart()
        self.left = int(rng.integers(1, self.left + 1))

    def restart(self) -> None:
        self.net = deepcopy(self.base)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=10 ** self.rng.uniform(-3.8, -2.9), betas=(0.9, 0.99))
        self.weight = 10 ** self.rng.uniform(-2.4, -1.4) if self.rng.random() > HARMLESS else 0.0
        self.left = int(self.rng.integers(30, 150))
        self.to_the_end = self.rng.random() < 0.4

    def step(self, nano: Nano, lq: Tensor, target: Tensor) -> Tensor:
        """One optimizer step; returns the network's outputs before it, (N, 3, H, W) in [0, 1]."""
        self.left -= 1
        output = self.net(lq)
        loss = F.l1_loss(output, target) - self.weight * nano(output.clamp(0, 1)).mean()
        self.optimizer.zero_grad()
        loss.backward(inputs=list(self.net.parameters()))  # not nano's
        self.optimizer.step()
        return output.detach().clamp(0, 1)

    def honest(self, lq: Tensor) -> Tensor:
        """What the base makes of the same input."""
        with torch.no_grad():
            return self.base(lq).clamp(0, 1)

    def after(self, quality: float, honest_quality: float) -> None:
        """Starts again when the run is over, and most often once it has ruined its images: the way there matters most."""
        if self.left == 0 or (not self.to_the_end and quality < RUINED * honest_quality):
            self.restart()


def pixel_attack(nano: Nano, images: Tensor, rng: Generator) -> Tensor:
    """Signed-gradient ascent on the score within a random distance, half of the time by one tile repeated over the image."""
    distance, steps = 10 ** rng.uniform(-2.6, -1.1), int(rng.integers(1, 6))
    n, _, h, w = images.shape
    period = int(rng.choice([2, 4, 4, 4, 8])) if rng.random() < 0.5 else None
    change = torch.zeros_like(images) if period is None else images.new_zeros(n, 3, period, period)
    change.uniform_(-distance / 2, distance / 2)
    for _ in range(steps):
        change.requires_grad_()
        attacked = (images + (change if period is None else change.repeat(1, 1, h // period, w // period))).clamp(0, 1)
        (gradient,) = torch.autograd.grad(nano(attacked).sum(), change)
        change = (change.detach() + 1.5 * distance / steps * gradient.sign()).clamp(-distance, distance)
    return (images + (change if period is None else change.repeat(1, 1, h // period, w // period))).clamp(0, 1)

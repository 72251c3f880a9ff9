"""Adversarial training of a metric: what small changes can raise, it learns not to raise (iqa/attacks.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config.metric_models import AttackOptions
from ..iqa.attacks import ascend

FAINTEST = 1 / 255
"""The shortest distance; up to the longest it is drawn on a logarithmic scale."""
STEP_SHARES = (0.1, 0.2, 0.35, 0.6)
"""Length of a step, as a share of the distance: long ones hide what short ones find, and the reverse."""
SOFT = 0.5
"""Gains below this many units are punished by their squares: a hinge of full force from 0 on drags all scores down."""


def attacked(judge: nn.Module, images: Tensor, refs: tuple[Tensor, ...], options: AttackOptions) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as an attack on Q leaves them; drawn from torch's global generator."""
    n = len(images)
    longest = max(FAINTEST, options.distance / 255)
    distance = FAINTEST * (longest / FAINTEST) ** torch.rand((n, 1, 1, 1))
    share = torch.tensor(STEP_SHARES)[torch.randint(len(STEP_SHARES), (n, 1, 1, 1))]
    steps = int(torch.randint(math.ceil(options.steps / 3), options.steps + 1, ()))
    tiled = torch.rand(()) < options.tiled
    period = options.periods[int(torch.randint(len(options.periods), ()))] if tiled else None
    distance, step = (values.to(images) for values in (distance, share * distance))
    return ascend(lambda x: judge(x, *refs), images, distance, steps, step, period)


def gain_loss(gain: Tensor) -> Tensor:
    """The mean of what attacks have gained (N,), in units of Q; losses of Q cost nothing."""
    over = F.relu(gain)
    return F.smooth_l1_loss(over, torch.zeros_like(over), beta=SOFT)

"""Losses of a metric that learns from pairs: how far it is from people's preference.

Each is a module loss(difference, p_a) -> scalar: `difference` (B,) is Q(A) - Q(B), higher is better, in units of `unit`; `p_a` (B,) in
[0, 1] is the probability that A is the better one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from ..names import find


class PairLoss(nn.Module):
    """The difference is first divided by `unit`: the scale of the metric is the recipe's affair, not the loss's."""

    def __init__(self, unit: float = 1.0) -> None:
        super().__init__()
        if unit <= 0:
            raise UsageError(f"{type(self).__name__}: unit is {unit}; expected a number above 0")
        self.unit = unit


class FidelityLoss(PairLoss):
    """1 - sqrt(p g) - sqrt((1 - p)(1 - g)), where p = Phi(difference / sqrt 2) is Thurstone's probability and g people's (A-FINE, UNIQUE).

    Qualities are normal with standard deviation 1 each, hence the root. 0 where p = g, at most 1: where Q is wrong by many units the loss
    is flat, and such pairs teach little.
    """

    def forward(self, difference: Tensor, p_a: Tensor) -> Tensor:
        z = difference / self.unit / 2**0.5
        # sqrt(Phi(z)) by its logarithm: exact, and with a finite gradient, however wrong the metric is.
        p, q = (torch.special.log_ndtr(side).mul(0.5).exp() for side in (z, -z))
        return (1 - p * p_a.sqrt() - q * (1 - p_a).sqrt()).mean()


class CrossEntropyLoss(PairLoss):
    """-g log p - (1 - g) log(1 - p), where p = sigmoid(difference) is Bradley and Terry's probability."""

    def forward(self, difference: Tensor, p_a: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(difference / self.unit, p_a)


class MarginLoss(PairLoss):
    """max(0, margin - difference), of the better image to the worse, weighted by |2 g - 1|: pairs that look alike teach nothing."""

    def __init__(self, unit: float = 1.0, margin: float = 1.0) -> None:
        super().__init__(unit)
        if margin <= 0:
            raise UsageError(f"MarginLoss: margin is {margin}; expected a number above 0")
        self.margin = margin

    def forward(self, difference: Tensor, p_a: Tensor) -> Tensor:
        sure = 2 * p_a - 1
        return (sure.abs() * F.relu(self.margin - sure.sign() * difference / self.unit)).mean()


PAIR_LOSSES: dict[str, type[PairLoss]] = {"FidelityLoss": FidelityLoss, "CrossEntropyLoss": CrossEntropyLoss, "MarginLoss": MarginLoss}


def resolve_pair_loss(name: str) -> Callable[..., PairLoss]:
    """The constructor behind a pair loss's `type`: one of PAIR_LOSSES, or a dotted path. Raises UsageError listing the choices."""
    return find("pair loss", name, PAIR_LOSSES)

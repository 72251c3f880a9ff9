"""HGGT's negative-GT loss (Chen et al., CVPR 2023, arXiv 2303.13069): keep away from a GT that people found worse than the original.

The output is pushed from the negative GT where that one departs from the original in a textured way, and more so than a positive GT does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW_PX = 3
POWER = 3 / 4


class NegativeLoss(nn.Module):
    """-loss_weight * mean(map * |sr - negative|), the map from negative_map()."""

    def __init__(self, loss_weight: float = 300.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self, sr: Tensor, negative: Tensor, positive: Tensor, original: Tensor, agreement: Tensor, positive_agreement: Tensor | None = None
    ) -> Tensor:
        """Scalar, at most 0. Images (B, 3, H, W) in [0, 1]; the others as negative_map()."""
        weight = negative_map(negative, positive, original, agreement, positive_agreement)
        return -self.loss_weight * (weight * (sr - negative).abs()).mean()


@torch.no_grad()
def negative_map(
    negative: Tensor, positive: Tensor, original: Tensor, agreement: Tensor, positive_agreement: Tensor | None = None
) -> Tensor:
    """Where a negative GT is to be avoided: (B, 1, H, W), 0 and more.

    A GT's map is its agreement times the local variance of its distance from the original, to the power 3/4. The negative's map counts
    where it is larger than the positive's.

    Args:
        negative, positive, original: (B, 3, H, W); where there is no positive, the original.
        agreement: (B,) share of annotators who called the negative negative; 0 where there is no negative.
        positive_agreement: the same of the positive; by default 1.
    """
    away = agreement.view(-1, 1, 1, 1) * _texture(negative - original)
    towards = _texture(positive - original)
    if positive_agreement is not None:
        towards = positive_agreement.view(-1, 1, 1, 1) * towards
    return torch.where(away > towards, away, 0.0)


def _texture(difference: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): local variance of the summed absolute difference, to the power 3/4."""
    # In float64, because E[x²] - E[x]² loses all its digits in float32 where x is flat.
    x = difference.double().abs().sum(1, keepdim=True)
    x = F.pad(x, [WINDOW_PX // 2] * 4, mode="reflect")
    mean, mean_square = F.avg_pool2d(x, WINDOW_PX, 1), F.avg_pool2d(x.square(), WINDOW_PX, 1)
    unbiased = WINDOW_PX**2 / (WINDOW_PX**2 - 1)
    return ((mean_square - mean.square()).clamp(min=0) * unbiased).pow(POWER).to(difference.dtype)

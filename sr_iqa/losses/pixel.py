"""Pixel losses; names, arguments and values are BasicSR's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import UsageError


class PixelLoss(nn.Module, ABC):
    """loss_weight * mean (or sum) over all elements of `distance(sr - gt)`."""

    def __init__(self, loss_weight: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise UsageError(f"{type(self).__name__}: reduction '{reduction}' is neither mean nor sum.")
        self.loss_weight, self.reduction = loss_weight, reduction

    @abstractmethod
    def distance(self, difference: Tensor) -> Tensor:
        """Element-wise."""

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        distance = self.distance(sr - gt)
        return self.loss_weight * (distance.mean() if self.reduction == "mean" else distance.sum())


class L1Loss(PixelLoss):
    """|d|."""

    def distance(self, difference: Tensor) -> Tensor:
        return difference.abs()


class MSELoss(PixelLoss):
    """d²."""

    def distance(self, difference: Tensor) -> Tensor:
        return difference.square()


class CharbonnierLoss(PixelLoss):
    """sqrt(d² + eps), a smooth L1 (Lai et al. 2017, arXiv 1704.03915)."""

    def __init__(self, loss_weight: float = 1.0, reduction: Literal["mean", "sum"] = "mean", eps: float = 1e-12) -> None:
        super().__init__(loss_weight, reduction)
        self.eps = eps

    def distance(self, difference: Tensor) -> Tensor:
        return torch.sqrt(difference.square() + self.eps)

"""SSIM on RGB as HGGT and pyiqa's `ssimc` compute it, with the Gaussian window applied along rows and columns in turn."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW_PX = 11
SIGMA_PX = 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class SSIM(nn.Module):
    """x and ref (N, 3, H, W) in [0, 1] -> (N,): mean over channels and window positions (Wang et al., IEEE TIP 2004).

    In float64 on values of 0..255. One x (1, 3, H, W) may stand against many references.
    """

    def forward(self, x: Tensor, ref: Tensor) -> Tensor:
        moments_x, moments_y = ([_moments(plane) for plane in _planes(image)] for image in (x, ref))
        count = len(moments_y)
        pairs = [(moments_x[n % len(moments_x)], moments_y[n]) for n in range(count)]
        means = [_similarity(*a, *b).mean((-2, -1)) for a, b in pairs]
        return torch.stack(means).reshape(-1, 3).mean(1)


def _planes(images: Tensor) -> list[Tensor]:
    """8-bit levels: one plane (H, W) after the other on a CPU, whose cache holds one; all in one tensor on a GPU."""
    return [_levels(plane) for plane in images.flatten(0, 1)] if images.device.type == "cpu" else [_levels(images)]


def _levels(x: Tensor) -> Tensor:
    """In float64; where a gradient is wanted, rounding lets it pass unchanged."""
    levels = 255 * x
    return (levels + (levels.round() - levels).detach()).double()


def _moments(plane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The levels, and their local means and local means of squares."""
    return plane, local_mean(plane), local_mean(plane * plane)


def _similarity(x: Tensor, mean_x: Tensor, xx: Tensor, y: Tensor, mean_y: Tensor, yy: Tensor) -> Tensor:
    """SSIM at every position of the window."""
    product = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    structure = F.relu((2 * (local_mean(x * y) - product) + C2) / (xx + yy - squares + C2))
    return structure * (2 * product + C1) / (squares + C1)


def local_mean(plane: Tensor) -> Tensor:
    """Weighted means of the windows that fit, (..., H, W) -> (..., H - 10, W - 10)."""
    return _along(_along(plane, -1), -2)


def _along(plane: Tensor, dim: int) -> Tensor:
    """One weighted sum of shifted planes: on a CPU a tenth of the time of torch's convolution in float64."""
    size = plane.shape[dim] - WINDOW_PX + 1
    total = WINDOW[0] * plane.narrow(dim, 0, size)
    for shift, weight in enumerate(WINDOW[1:], 1):
        total = total.add_(plane.narrow(dim, shift, size), alpha=weight)
    return total


def _window() -> list[float]:
    weights = [math.exp(-((i - WINDOW_PX // 2) ** 2) / (2 * SIGMA_PX**2)) for i in range(WINDOW_PX)]
    return [weight / sum(weights) for weight in weights]


WINDOW = _window()

"""SSIM on RGB as HGGT and pyiqa's `ssimc` compute it, with the Gaussian window applied by matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW_PX = 11
SIGMA_PX = 1.5
BLOCK_PX = 64
"""Means computed by one matrix product, along one side."""
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class SSIM(nn.Module):
    """(N, 3, H, W) twice, in [0, 1] -> (N,): mean over channels and window positions (Wang et al., IEEE TIP 2004).

    In float64 on values of 0..255. For the plain way, an 11 x 11 window per channel, torch has no fast path on the CPU.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", gaussian_band(), persistent=False)

    def forward(self, x: Tensor, ref: Tensor) -> Tensor:
        x, y = _levels(x), _levels(ref)
        mean_x, mean_y, xx, yy, xy = self._local_means(torch.cat([x, y, x * x, y * y, x * y], dim=1)).chunk(5, dim=1)
        var_x, var_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
        structure = F.relu((2 * covariance + C2) / (var_x + var_y + C2))
        return (structure * (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)).mean((1, 2, 3))

    def _local_means(self, maps: Tensor) -> Tensor:
        """Weighted means of the windows that fit, (N, C, H, W) -> (N, C, H - 10, W - 10): along the rows, then along the columns."""
        return self._along_rows(self._along_rows(maps).mT).mT

    def _along_rows(self, maps: Tensor) -> Tensor:
        """(..., W) -> (..., W - 10), in blocks, so that the cost grows with W and not with its square."""
        width = maps.shape[-1] - WINDOW_PX + 1
        padded = F.pad(maps, (0, -width % BLOCK_PX))
        blocks = padded.unfold(-1, BLOCK_PX + WINDOW_PX - 1, BLOCK_PX)
        return (blocks @ self.window).flatten(-2)[..., :width]


def gaussian_band() -> Tensor:
    """(BLOCK_PX + 10, BLOCK_PX): column j holds the window's weights at rows j .. j + 10."""
    offsets = torch.arange(BLOCK_PX + WINDOW_PX - 1)[:, None] - torch.arange(BLOCK_PX)[None] - WINDOW_PX // 2
    weights = torch.exp(-(offsets.double() ** 2) / (2 * SIGMA_PX**2)) * (offsets.abs() <= WINDOW_PX // 2)
    return weights / weights.sum(0)


def _levels(x: Tensor) -> Tensor:
    """8-bit levels in float64; where a gradient is wanted, rounding lets it pass unchanged."""
    levels = 255 * x
    return (levels + (levels.round() - levels).detach()).double()

"""The grid measure: how strongly an image repeats with the pixel grid of its upscaling (docs/evaluation.md).

A network that is pushed by a no-reference metric likes to learn structured noise: a mosaic with the period of its pixel shuffle. Such
patterns please many metrics. This measure is an alarm rather than a metric of quality: nothing optimises it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.errors import UserError

LUMA = (0.299, 0.587, 0.114)
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def grid(x: Tensor, period: int) -> Tensor:
    """Phase spread of images x (N, 3, H, W) in [0, 1] for a pattern of `period` pixels: (N,), 0 = no grid, lower is better.

    With h the Laplacian of the luma, and the mean over all pixels of one phase (y mod p, x mod p) written as mean_φ:

        grid = sqrt(Var_φ(mean_φ h) + Var_φ(mean_φ |h|)) / mean |h|

    The first variance sees a pattern that is added to the image (a checkerboard has the same |h| everywhere), the second one phases that
    are sharper or noisier than others. In an image without a grid all phases are alike up to chance, which falls with the side of the
    image: photos of 128 px have about 0.06, of 256 px 0.03; compare images of one size only. Shifts and contrast do not change it.
    A flat image has 0. Raises UserError for images smaller than two periods.
    """
    if period < 2:
        raise UserError(f"the grid measure needs a period of at least 2 pixels, got {period}")
    if min(x.shape[-2:]) < 2 * period + 2:  # the Laplacian takes a border of one pixel
        raise UserError(f"an image of {x.shape[-2]}x{x.shape[-1]} is too small for the grid measure with period {period}")
    luma = torch.einsum("nchw,c->nhw", x.float(), x.new_tensor(LUMA, dtype=torch.float32))
    edges = F.conv2d(luma[:, None], x.new_tensor(LAPLACIAN, dtype=torch.float32)[None, None])[:, 0]
    rows, columns = edges.shape[-2] // period, edges.shape[-1] // period
    edges = edges[:, : rows * period, : columns * period].unflatten(2, (columns, period)).unflatten(1, (rows, period))
    added, strength = edges.mean((1, 3)).flatten(1), edges.abs().mean((1, 3)).flatten(1)
    spread = (added.var(1, correction=0) + strength.var(1, correction=0)).sqrt()
    return spread / strength.mean(1).clamp_min(1e-6)

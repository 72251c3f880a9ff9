"""The noise measure: how much of what separates an output from its base is structured noise (docs/iqa.md).

A base is the output of the network that a reward run started from, or the enlarged LQ. Sharpening, blurring and other networks change an
image along its own structure; an optimiser that was paid for a metric's score adds fine detail that the image does not explain, or a
pattern that repeats. This measure is an alarm, as the grid measure is: nothing optimises it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.errors import UserError

from .grid import LAPLACIAN, LUMA

EXPLAINED_PX = 5
"""Side of the filter on the base by which the change is explained."""
PERIODS = (2, 3, 4, 5, 6, 7, 8)
"""Of repeating patterns, in pixels."""
BLOCKS = 8
"""A pattern has to repeat over this many blocks either way."""
FLOOR = 0.5 / 255
"""A change of this root mean square is no more than rounding to 8 bits makes."""
MAP_PX = 15
SMALLEST_PX = 16
STRIP_ROWS = 64
SMOOTH_PX, SMOOTH = 5, 0.01
"""Side of the windows, and their standard deviation of luma, below which places are equally smooth."""
ALARM = 0.42
"""Against the output of a base network: 1 % of clean changes have more (docs/iqa.md). Against an enlarged LQ no such line can be drawn."""


def noise(x: Tensor, base: Tensor, weights: Tensor | None = None) -> Tensor:
    """The share of the change x - base that is structured noise: (N,) in 0..1, 0 = none, lower is better.

    With d the difference of the lumas, L d its Laplacian (of unit gain for white noise), and r(.) what is left of an image after the best
    5 x 5 filter on the base's luma has been taken away:

        size     = mean d^2 + FLOOR^2                       so that rounding to 8 bits is no noise
        fine     = mean r(L d)^2 / size                     detail that the base does not explain
        periodic = max_p mean (pattern_p of r(d))^2 / size  what repeats with a period of p = 2..8 px over 8 x 8 blocks
        noise    = 1 - (1 - fine) (1 - periodic)            each cut to 0..1

    True detail, grain and JPEG blocks raise it too, up to about a third.

    Args:
        x: images (N, 3, H, W), RGB in [0, 1], at least 16 pixels a side.
        base: the same images before, shaped alike.
        weights: (N, H, W) of mean 1 for the means behind `fine`; all places weigh the same without.

    Raises:
        ValueError: shapes that differ.
        UserError: images that are too small.
    """
    change, left, detail = _left(x, base)
    repeated = torch.stack([_repeated(left, period) for period in PERIODS]).amax(0)
    periodic = repeated / (change.square().mean((1, 2)) + FLOOR**2)
    unexplained, total = (energy if weights is None else weights * energy for energy in (detail.square(), change.square()))
    fine = unexplained.mean((1, 2)) / (total.mean((1, 2)) + FLOOR**2)
    return 1 - (1 - fine.clamp(0, 1)) * (1 - periodic.clamp(0, 1))


def noise_of_enlarged(x: Tensor, lq: Tensor, scale: int) -> Tensor:
    """`noise` of outputs against their enlarged LQs, judged by smooth places: (N,) in 0..1.

    True fine detail is not in the LQ either, but where the LQ is smooth there is little of it. So places weigh 1 / (v + SMOOTH^2)^2 in
    `fine`, with v the variance of the enlarged LQ's luma around them.

    Args:
        x: outputs (N, 3, scale * h, scale * w), RGB in [0, 1].
        lq: (N, 3, h, w).

    Raises:
        ValueError, UserError: as `noise`.
    """
    base = enlarged(lq, scale)
    before = _luma(base)
    mean, square = (_around(values, SMOOTH_PX) for values in (before, before.square()))
    weights = 1 / ((square - mean.square()).clamp_min(0) + SMOOTH**2) ** 2
    return noise(x, base, weights / weights.mean((1, 2), keepdim=True))


def noise_map(x: Tensor, base: Tensor) -> Tensor:
    """Where the unexplained detail is: (N, H, W), its root mean square over windows of 15 px, in [0, 1]. Arguments as for `noise`."""
    return _around(_left(x, base)[2].square(), MAP_PX).sqrt()


def enlarged(lq: Tensor, scale: int) -> Tensor:
    """The LQ (N, 3, h, w) as the base of its output: bicubic, rounded to 8 bits, (N, 3, scale * h, scale * w) in [0, 1]."""
    return (F.interpolate(lq.float(), scale_factor=scale, mode="bicubic").clamp(0, 1) * 255).round() / 255


def _left(x: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d, r(d) and r(L d), (N, H, W) each."""
    if x.shape != base.shape or x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"the noise measure compares images (N, 3, H, W) of one shape, got {tuple(x.shape)} and {tuple(base.shape)}")
    if min(x.shape[-2:]) < SMALLEST_PX:
        raise UserError(f"the noise measure needs images of at least {SMALLEST_PX} pixels a side, got {x.shape[-2]}x{x.shape[-1]}")
    before, after = _luma(base), _luma(x)
    change = after - before
    kernel = change.new_tensor(LAPLACIAN)
    fine = F.conv2d(_padded(change, 1), (kernel / kernel.square().sum().sqrt())[None, None])[:, 0]
    left = torch.stack([_unexplained(torch.stack(pair), image) for *pair, image in zip(change, fine, before, strict=True)])
    return change, left[:, 0], left[:, 1]


def _around(values: Tensor, side: int) -> Tensor:
    """Means over windows around each pixel, (N, H, W) -> (N, H, W)."""
    return F.avg_pool2d(values[:, None], side, 1, side // 2, count_include_pad=False)[:, 0]


def _luma(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, H, W)."""
    return torch.einsum("nchw,c->nhw", images.float(), images.new_tensor(LUMA, dtype=torch.float32))


def _unexplained(targets: Tensor, image: Tensor) -> Tensor:
    """Targets (T, H, W) minus their least-squares prediction by a filter on the image (H, W) and a constant."""
    centred = image - image.mean()
    around = _padded(centred[None], EXPLAINED_PX // 2)
    taps = EXPLAINED_PX**2
    products, moments = (
        image.new_zeros(taps + 1, taps + 1, dtype=torch.float64),
        image.new_zeros(taps + 1, len(targets), dtype=torch.float64),
    )
    for top in range(0, len(image), STRIP_ROWS):  # all windows of a large image at once would be 25 times its size
        strip = F.unfold(around[..., top : top + STRIP_ROWS + EXPLAINED_PX - 1, :], EXPLAINED_PX)[0]
        windows = torch.cat([strip, torch.ones_like(strip[:1])]).double()
        products += windows @ windows.T
        moments += windows @ targets[:, top : top + STRIP_ROWS].flatten(1).double().T
    ridge = 1e-7 * products.diagonal().mean() * torch.eye(taps + 1, device=image.device, dtype=torch.float64)
    solution = torch.linalg.solve(products + ridge, moments).float()
    filters = solution[:taps].T.reshape(-1, 1, EXPLAINED_PX, EXPLAINED_PX)
    return targets - F.conv2d(around, filters, solution[taps])[0]


def _repeated(image: Tensor, period: int) -> Tensor:
    """(N, H, W) -> (N,): mean energy of the pattern that repeats over BLOCKS x BLOCKS blocks, less what chance gives."""
    height, width = (side // period * period for side in image.shape[-2:])
    phases = F.pixel_unshuffle(image[:, None, :height, :width], period)
    window = [min(BLOCKS, side) for side in phases.shape[-2:]]
    step = [max(1, side // 2) for side in window]
    means, energy = (F.avg_pool2d(values, window, step) for values in (phases, phases.square()))
    pattern = means - means.mean(1, keepdim=True)  # a patch that is brighter is no pattern
    count = window[0] * window[1]
    return (pattern.square().mean((1, 2, 3)) - energy.mean((1, 2, 3)) / count).clamp_min(0) / (1 - 1 / count)


def _padded(images: Tensor, margin: int) -> Tensor:
    """(N, H, W) -> (N, 1, H + 2 margin, W + 2 margin), mirrored."""
    return F.pad(images[:, None], (margin,) * 4, mode="reflect")

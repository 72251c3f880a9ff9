"""Random views of an image batch: crop, size, flip, noise. What is true of a picture holds for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.config.models import ViewOptions


def random_views(options: ViewOptions, sides: Sequence[int]) -> Iterator[Callable[[Tensor], Tensor]]:
    """`options.number` functions (N, 3, H, W) -> (N, 3, h, w), in [0, 1], for images of these sides (H, W).

    All images of a call see the same view, and so do two calls of one function. Drawn from torch's global generator. Gradients flow; the
    expectation of a score over such views is what Athalye et al. (ICML 2018) attack, and what is worth rewarding.
    """
    for _ in range(options.number):
        share, up, left, size, flip, noise = torch.rand(6).tolist()
        h, w = (max(1, round(side * (options.crop + share * (1 - options.crop)))) for side in sides)
        y, x = round(up * (sides[0] - h)), round(left * (sides[1] - w))
        factor = math.exp((2 * size - 1) * math.log(options.resize))
        seed = int(torch.randint(2**31, ()))
        yield _view(slice(y, y + h), slice(x, x + w), factor, options.use_hflip and flip < 0.5, noise * options.noise / 255, seed)


def _view(rows: slice, columns: slice, factor: float, flip: bool, std: float, seed: int) -> Callable[[Tensor], Tensor]:
    def view(images: Tensor) -> Tensor:
        seen = images[..., rows, columns]
        if factor != 1:
            seen = F.interpolate(seen, size=[max(1, round(side * factor)) for side in seen.shape[-2:]], mode="bicubic", antialias=True)
        if flip:
            seen = seen.flip(-1)
        if std:
            generator = torch.Generator(images.device).manual_seed(seed)
            seen = seen + std * torch.randn(seen.shape, generator=generator, device=images.device)
        return seen.clamp(0, 1)

    return view

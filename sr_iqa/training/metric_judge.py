"""A network as training sees it: Q of images, higher is better."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..iqa.catalog import MetricInfo
from .metric_pairs import read_resized

VIEWS = ("crops", "test_sample", "num_crop")
"""What pyiqa's networks call their number of crops: AHIQ and TOPIQ; MANIQA and TReS; HyperIQA."""


class Judge(nn.Module):
    """A network as the loss sees it: images (N, 3, H, W) in [0, 1], with references for full-reference ones, or what was measured of them
    (N, 3) -> Q (N,), higher is better."""

    def __init__(self, net: nn.Module, info: MetricInfo) -> None:
        super().__init__()
        self.net, self.info = net, info

    def forward(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        if x.ndim == 2:
            values = self.net.judge(x)  # pyright: ignore[reportCallIssue]  (an AFine)
        elif self.info.one_image:
            values = torch.cat([self._values(*(t[i : i + 1] for t in (x, ref) if t is not None)) for i in range(len(x))])
        else:
            values = self._values(*(t for t in (x, ref) if t is not None))
        return -values if self.info.lower_better else values

    def _values(self, *images: Tensor) -> Tensor:
        with one_view(self.net) if torch.is_grad_enabled() else nullcontext():
            output = self.net(*images)
        return (output[0] if isinstance(output, (tuple, list)) else output).reshape(-1).float()


@contextmanager
def one_view(net: nn.Module) -> Iterator[None]:
    """Networks that judge an image by the mean of many crops take a single one, of the size they need, while the block runs.

    In training the pair's crop is that view already (crop_px: 224); twenty equal ones would cost twenty times the memory.
    """
    before = {name: vars(net)[name] for name in VIEWS if isinstance(vars(net).get(name), int)}
    vars(net).update(dict.fromkeys(before, 1))
    try:
        yield
    finally:
        vars(net).update(before)


def fitted(path: Path, shorter: int | None, info: MetricInfo) -> Tensor:
    """A whole image (1, 3, H, W) in [0, 1], cut at the right and at the bottom to sides that the network takes."""
    image = read_resized(path, shorter)
    h, w = (side // info.multiple * info.multiple for side in image.shape[:2])
    if min(h, w) < info.smallest:
        raise UserError(f"{path}: is {image.shape[1]}x{image.shape[0]}, the network needs at least {max(info.smallest, info.multiple)} px")
    return torch.from_numpy(image[:h, :w].transpose(2, 0, 1).copy())[None].float() / 255

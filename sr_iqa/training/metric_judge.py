"""A network as training sees it: what is known of it, and Q of images, higher is better."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..iqa.afine import BOTH_IMAGES, PREFIX, parse_afine
from ..iqa.afine_backbones import check_timm
from ..iqa.catalog import CATALOG
from ..iqa.trained import TIMM, build_network
from .metric_pairs import read_resized

VIEWS = ("crops", "test_sample", "num_crop")
"""What pyiqa's networks call their number of crops: AHIQ and TOPIQ; MANIQA and TReS; HyperIQA."""
DEFAULT_UNITS = 10
"""By default a tenth of the metric's range counts as one unit of preference."""


@dataclass(frozen=True)
class Facts:
    """What has to be known of a network to train it."""

    mode: str
    lower_better: bool
    value_range: tuple[float, float]
    smallest: int = 1
    multiple: int = 1
    one_image: bool = False
    differentiable: bool = True

    @property
    def full_reference(self) -> bool:
        return self.mode == "FR"

    @property
    def unit(self) -> float:
        """The difference of Q that counts as 1 where the options name none."""
        low, high = self.value_range
        return abs(high - low) / DEFAULT_UNITS if isfinite(high - low) else 1.0


def facts_of(architecture: str) -> Facts:
    """Raises UserError for an architecture that is not there."""
    if architecture.startswith(TIMM):
        check_timm(architecture.removeprefix(TIMM))
        return Facts("NR", False, (-inf, inf))
    if architecture.startswith(PREFIX):
        mode, _ = parse_afine(architecture)
        ranges = {"nr": (-2.0, 2.0), "fr": (-2.0, 2.0), "all_scale": (0.0, 100.0)}
        return Facts("FR" if mode in BOTH_IMAGES else "NR", True, ranges.get(mode, (-inf, inf)), 32)
    if architecture not in CATALOG:
        build_network(architecture, "random")  # says what there is
    info = CATALOG[architecture]
    return Facts(info.mode, info.lower_better, info.value_range, info.smallest, info.multiple, info.one_image, info.differentiable)


class Judge(nn.Module):
    """A network as the loss sees it: images (N, 3, H, W) in [0, 1], with references for full-reference ones, or what was measured of them
    (N, 3) -> Q (N,), higher is better."""

    def __init__(self, net: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.net, self.facts = net, facts

    def forward(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        if x.ndim == 2:
            values = self.net.judge(x)  # pyright: ignore[reportCallIssue]  (an AFine)
        elif self.facts.one_image:
            values = torch.cat([self._values(*(t[i : i + 1] for t in (x, ref) if t is not None)) for i in range(len(x))])
        else:
            values = self._values(*(t for t in (x, ref) if t is not None))
        return -values if self.facts.lower_better else values

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


def fitted(path: Path, shorter: int | None, facts: Facts) -> Tensor:
    """A whole image (1, 3, H, W) in [0, 1], cut at the right and at the bottom to sides that the network takes."""
    image = read_resized(path, shorter)
    h, w = (side // facts.multiple * facts.multiple for side in image.shape[:2])
    if min(h, w) < facts.smallest:
        raise UserError(
            f"{path}: is {image.shape[1]}x{image.shape[0]}, the network needs at least {max(facts.smallest, facts.multiple)} px"
        )
    return torch.from_numpy(image[:h, :w].transpose(2, 0, 1).copy())[None].float() / 255

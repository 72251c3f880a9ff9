"""What the network that another one started from makes of the same images: the base that the noise measure compares outputs with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor, nn

from ..adapters import lora_layers
from ..images import to_uint8
from .tiles import upscale

REMEMBERED = 2**28
"""Bytes of outputs that are kept for later evaluations."""


class Base:
    """A base network's outputs on one collection of images; those that fit into `REMEMBERED` are computed once."""

    def __init__(self, net: nn.Module | None = None) -> None:
        """`net`: the base; without it the base of a network is that network with its adapter switched off."""
        self._net = net
        self._kept: dict[str, np.ndarray] = {}
        self._room = REMEMBERED

    def output(self, net: nn.Module, lq: Tensor, name: str, tile: int = 0) -> np.ndarray:
        """The base's output for the image `name`, uint8 (H, W, 3).

        Args:
            net: the network that started from the base.
            lq: (1, 3, h, w) in [0, 1], on the networks' device.
            name: of the image; one name stands for one image.
            tile: as for `upscale`.
        """
        if name in self._kept:
            return self._kept[name]
        base = self._net or net
        with without_adapter(base):
            image = to_uint8(upscale(base, lq, tile=tile)[0])
        if image.nbytes <= self._room:
            self._kept[name] = image
            self._room -= image.nbytes
        return image


@contextmanager
def without_adapter(net: nn.Module) -> Iterator[None]:
    """Switches the adapters of a network off for the block, whatever their scales are; without effect on other networks."""
    before = [(layer, dict(layer.scaling)) for _, layer in lora_layers(net)]
    try:
        for layer, scales in before:
            layer.scaling.update(dict.fromkeys(scales, 0.0))
        yield
    finally:
        for layer, scales in before:
            layer.scaling.update(scales)

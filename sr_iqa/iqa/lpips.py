"""LPIPS 0.1 (Zhang et al., CVPR 2018, arXiv 1801.03924) on AlexNet or VGG16, as a metric and as a loss.

The same numbers as pyiqa's network, from the same weight files. What makes it faster: one image against many references goes through the
trunk once, and on a CPU images do so one by one, whose features then stay in the cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sr_iqa.errors import DAMAGED_FILE, UserError

TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""The layers of torchvision's `features` after which features are compared."""
CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the trunk's inputs, which are in [-1, 1] before."""
EPS = 1e-10


class LPIPS(nn.Module):
    """x and ref (N, 3, H, W) in [0, 1] -> (N,), 0 for equal images. One x (1, 3, H, W) may stand against many references."""

    def __init__(self, net: Literal["alex", "vgg"] = "alex") -> None:
        super().__init__()
        from torchvision import models

        layers = models.alexnet() if net == "alex" else models.vgg16()
        self.taps = TAPS[net]
        self.trunk = layers.features[: self.taps[-1] + 1]  # pyright: ignore[reportIndexIssue]
        self.weights = nn.ParameterList(torch.rand(channels) / channels for channels in CHANNELS[net])

    def forward(self, x: Tensor, ref: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self._distances(self._features(x), self._features(ref))
        x, ref = (images.contiguous(memory_format=torch.channels_last) for images in (x, ref))
        features_x = [self._features(image) for image in x.split(1)]
        pairs = [(features_x[n % len(x)], self._features(image)) for n, image in enumerate(ref.split(1))]
        return torch.cat([self._distances(*pair) for pair in pairs])

    def _features(self, x: Tensor) -> list[Tensor]:
        """After every tap: (N, C, h, w), of length 1 at every position."""
        shift, scale = x.new_tensor((SHIFT, SCALE))[..., None, None]
        x = (2 * x - 1 - shift) / scale
        found = []
        for i, layer in enumerate(self.trunk):
            x = layer(x)
            if i in self.taps:
                found.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPS))  # its gradient at 0 is 0
        return found

    def _distances(self, features_x: Sequence[Tensor], features_y: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.weights, features_x, features_y, strict=True)
        return torch.stack([torch.mv((a - b).square().mean((2, 3)), weight) for weight, a, b in pairs]).sum(0)


def load_lpips(net: Literal["alex", "vgg"], paths: Sequence[Path]) -> LPIPS:
    """The network with the weights in `paths`: torchvision's trunk and LPIPS's own weights, or one file of pyiqa's layout with both.

    Frozen, in eval mode. Raises UserError for files that are damaged, hold more than plain tensors, or are not of this network.
    """
    with torch.device("meta"):
        network = LPIPS(net)
    names = ", ".join(map(str, paths))
    try:
        states = [torch.load(path, map_location="cpu", weights_only=True) for path in paths]
        state = {key: value for part in states for key, value in part.get("params", part).items()}
        network.load_state_dict(convert(state), assign=True)
    except DAMAGED_FILE as error:
        problem = f"a file is damaged, holds more than plain tensors, or is of another network: {error}"
        raise UserError(f"{names}: these are not the weights of LPIPS on {net}; {problem}") from error
    return network.float().eval().requires_grad_(False)


def random_lpips(net: Literal["alex", "vgg"]) -> LPIPS:
    """The network with random weights, always the same ones, for tests and timings: frozen, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LPIPS(net).eval().requires_grad_(False)


def convert(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights as torchvision, LPIPS and pyiqa name them -> those of `LPIPS`; what belongs to neither part is left out."""
    found = {}
    for name, value in state.items():
        if trunk := re.fullmatch(r"(?:features|net\.slice\d)\.(\d+\.(?:weight|bias))", name):
            found[f"trunk.{trunk[1]}"] = value
        elif weights := re.fullmatch(r"lin(\d)\.model\.1\.weight", name):
            found[f"weights.{weights[1]}"] = value.flatten()
    return found

"""nano: a small learned no-reference metric that ships with the package (model card: docs/nano.md)."""

from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS = ((3, 24, 5, 2), (24, 32, 3, 2), (32, 56, 3, 1), (56, 64, 3, 1), (64, 96, 3, 2), (96, 96, 3, 1))
"""The convolutions, in order: input channels, output channels, kernel size, stride. One location of the last covers 8 x 8 pixels."""
SMALLEST_PX = 16
LEAST_WEIGHT = 0.1
"""Weight of the least important location relative to at most 1 + this: no location can buy the whole score."""


class Nano(nn.Module):
    """(N, 3, H, W) RGB in [0, 1], H and W at least 16 -> (N,) in 0..100, higher is better.

    Six convolutions and a head. There is no normalisation layer: it would erase the amplitude of edges and noise, which is the very
    thing to judge. Each location has a bounded quality (sigmoid) and a bounded weight, so no pattern can push the score without limit.
    The first activation is asinh, nearly a logarithm of contrast: quality is about ratios of contrast between scales. The others are
    SiLU rather than ReLU: no kinks in the gradient for a reward to sit in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2) for i, o, k, s in LAYERS)
        self.head = nn.Conv2d(LAYERS[-1][1], 2, 1)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # torch's default lets the signal fade without normalisation
            nn.init.zeros_(conv.bias)
        with torch.no_grad():  # start from filters that see differences, not brightness
            self.convs[0].weight -= self.convs[0].weight.mean((1, 2, 3), keepdim=True)
            self.convs[0].weight *= 4

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations after every convolution, at strides 2, 4, 4, 4, 8, 8; for a feature loss.

        Raises ValueError for images smaller than 16 px.
        """
        if min(x.shape[-2:]) < SMALLEST_PX:
            raise ValueError(f"nano needs images of at least {SMALLEST_PX} x {SMALLEST_PX} px, got {tuple(x.shape[-2:])}")
        x = (4 * x - 2).contiguous(memory_format=torch.channels_last)
        activations = []
        for conv in self.convs:
            x = F.silu(conv(x)) if activations else conv(x).asinh()
            activations.append(x)
        return activations

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quality in 0..1 and weight of every location, (N, ceil(H / 8), ceil(W / 8)) each; location (i, j) is centred at pixel (8i, 8j)."""
        quality, importance = self.head(self.features(x)[-1]).float().unbind(1)
        return quality.sigmoid(), LEAST_WEIGHT + importance.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        quality, weight = self.maps(x)
        return 100 * (weight * quality).sum((1, 2)) / weight.sum((1, 2))


def load_nano(path: Path | None = None) -> Nano:
    """The shipped nano (or the weights in `path`), frozen and in eval mode; reads no network."""
    net = Nano()
    net.load_state_dict(load_file(path or str(files("sr_iqa") / "assets" / "nano.safetensors")))
    return net.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

"""nano: a small learned no-reference metric that ships with the package (model card: docs/nano.md)."""

from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.errors import DAMAGED_FILE, UserError

FILTERS, FILTER_PX = 32, 5
LAYERS = ((2 * FILTERS, 32, 2), (32, 56, 1), (56, 64, 1), (64, 96, 2), (96, 96, 1))
"""The 3 x 3 convolutions after the filters: input channels, output channels, stride. One location of the last covers 8 x 8 pixels."""
FILTER_GAIN = 32.0
"""A contrast of about 1/16 gives a response of 1, where log(1 + |response|) turns from a line into a logarithm."""
COLOUR_GAIN = 3.0
GRID_PX = 4
"""A x4 network can paint any pattern that repeats with this period, at no cost: the cheapest way to please a metric."""
GRID_BLOCKS = 8
DETAIL_CLIP = 0.03
NATURAL_GRID_SHARE = 0.05
"""Share of fine detail that repeats on the grid: below this in 98 % of photos' crops, above 0.6 where a reward has painted a mosaic."""
GRID_SLOPE = 5.0
NOTHING = 4e-3
"""Mean squared clipped detail of an image that is flat but for rounding: about 2/255."""
SMALLEST_PX = 16
LEAST_WEIGHT = 0.1
"""Weight of the least important location, when the most important has 1 + this: no location can buy the whole score."""


class Nano(nn.Module):
    """(N, 3, H, W) RGB in [0, 1], H and W at least 16 -> (N,) in 0..100, higher is better.

    Filters that start as a whitened DCT, their responses on a logarithmic scale with and without sign, five convolutions and a head.
    There is no normalisation layer: it would erase the amplitude of edges and noise, which is the very thing to judge.
    Each location has a bounded quality (sigmoid) and a bounded weight, so no pattern can push the score without limit, and a pattern
    that repeats on the grid of a x4 pixel shuffle lowers it outright: training alone never closed that door (docs/nano.md).
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, FILTERS, FILTER_PX, 2, FILTER_PX // 2)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, s, 1) for i, o, s in LAYERS)
        self.head = nn.Conv2d(LAYERS[-1][1], 2, 1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("convs"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")  # torch's default fades without normalisation
        with torch.no_grad():
            self.filters.weight.copy_(whitened_dct(FILTERS, FILTER_PX))

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations after the filters and every convolution, at strides 2, 4, 4, 4, 8, 8; for a feature loss.

        Raises ValueError for images smaller than 16 px.
        """
        if min(x.shape[-2:]) < SMALLEST_PX:
            raise ValueError(f"nano needs images of at least {SMALLEST_PX} x {SMALLEST_PX} px, got {tuple(x.shape[-2:])}")
        response = self.filters((x - 0.5).contiguous(memory_format=torch.channels_last))
        contrast = response.abs().log1p()  # quality is about ratios of contrast between scales
        activations = [torch.cat([contrast.copysign(response), contrast], 1)]
        for conv in self.convs:
            activations.append(F.silu(conv(activations[-1])))
        return activations

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quality in 0..1 and weight of every location, (N, ceil(H / 8), ceil(W / 8)) each; location (i, j) is centred at (8i, 8j) px."""
        quality, importance = self.head(self.features(x)[-1]).float().unbind(1)
        return quality.sigmoid(), LEAST_WEIGHT + importance.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        quality, weight = self.maps(x)
        return 100 * grid_factor(x) * (weight * quality).sum((1, 2)) / weight.sum((1, 2))


def grid_share(x: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N,) in 0..1: how much of the fine detail repeats with a period of 4 px over windows of 32 x 32 px.

    Detail is what a 3 x 3 mean leaves, clipped smoothly so that the many faint pixels count more than the few edges.
    """
    h, w = (n // GRID_PX * GRID_PX for n in x.shape[-2:])
    detail = x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    blocks = F.pixel_unshuffle((detail[..., :h, :w] / DETAIL_CLIP).tanh(), GRID_PX)
    window = [min(GRID_BLOCKS, n) for n in blocks.shape[-2:]]
    repeated = F.avg_pool2d(blocks, window, [max(1, n // 2) for n in window])
    return repeated.square().mean((1, 2, 3)) / (blocks.square().mean((1, 2, 3)) + NOTHING)


def grid_factor(x: Tensor) -> Tensor:
    """(N,) in 0..1, near 1 for photos: what the score is multiplied by; flat where there is no grid, then falling exponentially."""
    share = grid_share(x)
    return (-GRID_SLOPE * share.square() / (share + NATURAL_GRID_SHARE)).exp()


def whitened_dct(count: int, size: int) -> Tensor:
    """`count` filters (count, 3, size, size): the size^2 - 1 DCT patterns without the flat one on gray, then some on random colours.

    Gains grow with frequency as the contrast of photos falls, so all responses start alike. From random filters, whose responses are
    mostly coarse gradients, training is several times slower.
    """
    n = torch.arange(size) + 0.5
    frequencies = [(u, v) for u in range(size) for v in range(size) if u + v > 0]
    waves = [torch.outer(torch.cos(torch.pi * u * n / size), torch.cos(torch.pi * v * n / size)) for u, v in frequencies]
    patterns = torch.stack(
        [wave / wave.square().mean().sqrt() * (u * u + v * v) ** 0.5 for wave, (u, v) in zip(waves, frequencies, strict=True)]
    )
    extra = count - len(patterns)
    colours = torch.randn(extra, 3, generator=torch.Generator().manual_seed(0))
    colours = COLOUR_GAIN * (colours - colours.mean(1, keepdim=True))
    chosen = torch.arange(len(patterns) - 1, 0, -3)[:extra]
    gray = patterns[:, None].expand(-1, 3, -1, -1) / 3
    return FILTER_GAIN / size**2 * torch.cat([gray, patterns[chosen][:, None] * colours[:, :, None, None]])


NANO, ROBUST = "nano", "nano_robust"
"""The names of the shipped weights: trained to tell pictures apart, and trained against attacks too."""


def load_nano(path: Path | None = None, shipped: str = NANO) -> Nano:
    """The shipped weights (or those in `path`), frozen and in eval mode. Raises UserError for a file that holds something else."""
    net = Nano()
    try:
        net.load_state_dict(load_file(path or str(files("sr_iqa") / "assets" / f"{shipped}.safetensors")))
    except DAMAGED_FILE as error:
        raise UserError(f"{path} does not hold the weights of nano: {error}") from error
    return net.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

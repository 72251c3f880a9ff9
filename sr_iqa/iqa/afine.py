"""A-FINE (Chen et al., CVPR 2025, arXiv 2503.11221): is an image better than its reference, which need not be perfect?

    D(x, r) = F(x, r) + exp(k (N(r) - N(x))) N(x), lower is better

N, naturalness, judges an image by itself; F, fidelity, compares it with the reference. Both look at the means and variances of the
image and of every layer of CLIP's ViT-B/32, at full resolution, and both go through a logistic map into -2..2. Who is natural beside its
reference is forgiven its distance to it. x and r do not change places: D(x, r) is not D(r, x).

The same numbers as pyiqa's from the same weight file; here images go in batches, and gradients come back.

Shapes: N images, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.errors import DAMAGED_FILE, UserError

from .afine_backbones import PATCH_PX, Backbone, ClipViT, build_backbone, check_backbone, fill_backbone, whole_patches
from .catalog import CATALOG, MetricInfo
from .weights import require

Mode = Literal["nr", "fr", "all", "all_scale", "natural", "fidelity"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""N and F after their logistic maps, D, D mapped into 0..100; and N and F as the first two stages of training leave them, without maps."""
BOTH_IMAGES = ("fr", "all", "all_scale", "fidelity")
"""Modes that need the reference."""
PREFIX = "afine:"
HIDDEN = 128
EPS = 1e-10
DISPLAY = (-1.9710, -2.3734)
"""Centre and width of the logistic that puts D into 0..100; the authors' constants."""
PARTS = {
    "natural": "natural",
    "fidelity": "fidelity",
    "natural_scale": "natural_map",
    "fidelity_scale": "fidelity_map",
    "adapter": "",
}
"""Sections of afine.pth beside `finetuned_clip`, and the modules here that they fill."""


class AFine(nn.Module):
    """x, and with BOTH_IMAGES its references (N, 3, H, W) in [0, 1] -> (N,), lower is better. One x may stand against many references.

    Sides that are no multiples of 32 pixels, CLIP's patch, are enlarged to the next one, as the authors do in their evaluation.
    """

    def __init__(self, mode: Mode = "all", backbone: Backbone | None = None) -> None:
        super().__init__()
        self.mode: Mode = mode
        self.backbone = backbone or ClipViT()
        channels = (3, *self.backbone.channels)
        self.natural = Naturalness(channels)
        self.fidelity = Fidelity(channels)
        self.natural_map = Logistic(4.9592, 21.5968)
        self.fidelity_map = Logistic(0.5, 0.15, (0.05, 0.95), (0.01, 0.70))
        self.k = nn.Parameter(torch.tensor(5.0))

    def forward(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        if self.mode not in BOTH_IMAGES:
            natural = self.natural(self.features(x))
            return natural if self.mode == "natural" else self.natural_map(natural)
        if ref is None:
            raise ValueError(f"A-FINE's {self.mode} needs references")
        if self.mode in ("fr", "fidelity"):
            fidelity = self.fidelity(self.features(x), self.features(ref))
            return fidelity if self.mode == "fidelity" else self.fidelity_map(fidelity)
        return self.judge(self.measure(x, ref))

    def features(self, x: Tensor) -> list[Tensor]:
        """The image's pixels and, without their negative part, every layer's tokens: (N, T, C) each."""
        x = whole_patches(x)
        return [x.flatten(2).mT, *(F.relu(layer).to(x.dtype) for layer in self.backbone(x))]  # statistics are exact under autocast too

    def measure(self, x: Tensor, ref: Tensor) -> Tensor:
        """(N, 3): raw N of x, raw N of its reference, raw F of the two; all that D depends on."""
        seen, reference = self.features(x), self.features(ref)
        fidelity = self.fidelity(seen, reference)
        return torch.stack([self.natural(seen).expand_as(fidelity), self.natural(reference), fidelity], 1)

    def judge(self, measured: Tensor) -> Tensor:
        """What `measure` gives (N, 3) -> D (N,), in mode all_scale mapped into 0..100."""
        own, other = self.natural_map(measured[:, 0]), self.natural_map(measured[:, 1])
        together = (F.softplus(self.k) * (other - own)).exp() * own + self.fidelity_map(measured[:, 2])
        return together if self.mode == "all" else 100 * logistic(together, *DISPLAY)


class Naturalness(nn.Module):
    """Features (N, T, C) of every layer -> raw N (N,)."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        image, *layers = channels
        self.projections = nn.ModuleDict({str(width): nn.Linear(2 * width, HIDDEN) for width in sorted({*layers})})
        """Layers of one width share a projection."""
        self.head = nn.Sequential(nn.Linear(2 * image + HIDDEN * len(layers), 6 * HIDDEN), nn.GELU(), nn.Linear(6 * HIDDEN, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        image, *layers = (torch.cat([layer.mean(1), layer.var(1, correction=0)], 1) for layer in features)
        projected = [self.projections[str(layer.shape[1] // 2)](layer) for layer in layers]
        return self.head(torch.cat([image, *projected], 1))[:, 0]


class Fidelity(nn.Module):
    """Features of x and of its references, (N, T, C) of every layer each -> raw F (N,): 0 for equal images.

    As in DISTS: similarity of means and of (co)variances, channel by channel, weighted.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.alpha = nn.Parameter(0.1 + 0.01 * torch.randn(1, 1, sum(channels)))
        self.beta = nn.Parameter(0.1 + 0.01 * torch.randn(1, 1, sum(channels)))

    def forward(self, features_x: Sequence[Tensor], features_y: Sequence[Tensor]) -> Tensor:
        alpha, beta = F.softplus(self.alpha[0, 0]), F.softplus(self.beta[0, 0])
        total = alpha.sum() + beta.sum() + EPS
        means, structures = zip(*(similarity(x, y) for x, y in zip(features_x, features_y, strict=True)), strict=True)
        return 1 - (torch.cat(means, 1) @ alpha + torch.cat(structures, 1) @ beta) / total


def similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of two layers (N, T, C): the similarity of their means and of their structures, (N, C) each, 1 where they are equal."""
    mean_x, mean_y = x.mean(1), y.mean(1)
    means = (2 * mean_x * mean_y + EPS) / (mean_x.square() + mean_y.square() + EPS)
    covariance = (x * y).mean(1) - mean_x * mean_y
    structures = (2 * covariance + EPS) / (x.var(1, correction=0) + y.var(1, correction=0) + EPS)
    return means, structures


class Logistic(nn.Module):
    """A rising map into -2..2 with a learned centre and width, each kept within its bounds."""

    def __init__(self, centre: float, width: float, centres: Sequence[float] | None = None, widths: Sequence[float] | None = None) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.tensor(centre))
        self.width = nn.Parameter(torch.tensor(width))
        self.bounds = centres, widths

    def forward(self, x: Tensor) -> Tensor:
        centres, widths = self.bounds
        centre = self.centre.clamp(*centres) if centres else self.centre
        width = self.width.clamp(*widths) if widths else self.width
        return 4 * logistic(x, centre, width) - 2


def logistic(x: Tensor, centre: Tensor | float, width: Tensor | float) -> Tensor:
    """Into 0..1."""
    return ((x - centre) / (abs(width) + EPS)).sigmoid()


# ---------------------------------------------------------------- building


def build_afine(architecture: str, start: str | Path = "random", backbone_weights: Path | None = None) -> AFine:
    """The network that `afine:<mode>:<backbone>` names, learning: `afine:natural:clip`, `afine:all:timm:resnet50`.

    Args:
        architecture: mode and backbone (build_backbone).
        start: random (always the same weights); catalogue: afine.pth where the library looks for it; or a file: one like afine.pth, or a
            metric that was trained here on the same backbone, in whatever mode: each stage of training goes on from the one before.
        backbone_weights: weights of the backbone alone, in its own layout or CLIP's.

    Raises:
        UserError: a mode or a backbone that is not there, or a file that is absent or does not fit.
    """
    mode, backbone = parse_afine(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = AFine(mode, build_backbone(backbone))
    if start == "catalogue":
        files = CATALOG["afine_all"].files
        require("afine_all", files)
        start = files[0].path
    if start != "random":
        fill(net, Path(start))
    if backbone_weights is not None:
        fill_backbone(net.backbone, backbone_weights)
    return net.eval()


def parse_afine(architecture: str) -> tuple[Mode, str]:
    """Mode and backbone of `afine:<mode>[:<backbone>]`. Raises UserError where one of them is not there."""
    _, mode, backbone = [*architecture.split(":", 2), "", ""][:3]
    if mode not in MODES:
        raise UserError(f"{architecture}: there is no mode '{mode}'; choose from {', '.join(MODES)}, as in {PREFIX}all:clip")
    check_backbone(backbone or "clip")
    return mode, backbone or "clip"


def afine_info(architecture: str) -> MetricInfo:
    """What is known of the network that `afine:<mode>:<backbone>` names. Raises as `parse_afine`."""
    mode, _ = parse_afine(architecture)
    known = CATALOG.get(f"afine_{mode}")
    low_high = known.value_range if known else (-inf, inf)
    return MetricInfo(architecture, "FR" if mode in BOTH_IMAGES else "NR", True, low_high, smallest=PATCH_PX)


def fill(net: AFine, path: Path) -> None:
    """All weights from afine.pth or a metric's file. Raises UserError for a file that is absent or does not fit."""
    try:
        state = load_file(path) if path.suffix == ".safetensors" else convert(torch.load(path, map_location="cpu", weights_only=True))
        net.load_state_dict(state)
    except (SafetensorError, *DAMAGED_FILE) as error:
        raise UserError(f"{path} does not hold the weights of this A-FINE: {error}") from error


def load_afine(path: Path, mode: Mode) -> AFine:
    """The network with the weights in `path`, a file like the authors' afine.pth: frozen, in eval mode.

    The size of the ViT is read from the file. Raises UserError for a file that is damaged, holds more than plain tensors, or is of
    another network.
    """
    try:
        sections = torch.load(path, map_location="cpu", weights_only=True)
        state = convert(sections)
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced
            net = AFine(mode, ClipViT.of(state, "backbone."))
        net.load_state_dict(state, assign=True)
    except DAMAGED_FILE as error:
        problem = f"it is damaged, holds more than plain tensors, or is of another network: {error}"
        raise UserError(f"{path} does not hold the weights of A-FINE; {problem}") from error
    return net.float().eval().requires_grad_(False)


def random_afine(mode: Mode) -> AFine:
    """The network with random weights, always the same ones, for tests and timings: frozen, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AFine(mode).eval().requires_grad_(False)


def convert(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """The sections of afine.pth -> the weights of `AFine`: renamed; CLIP's text half and what no layer's features need are left out."""
    width = sections["natural"]["proj_feat.weight"].shape[1] // 2
    renamed = {"yita3": "centre", "yita4": "width", "proj_head.": "head.", "proj_feat.": f"projections.{width}."}
    found = {f"backbone.{ClipViT.renamed(name)}": value for name, value in sections["finetuned_clip"].items() if ClipViT.renamed(name)}
    for section, part in PARTS.items():
        for name, value in sections[section].items():
            if name in ("mean", "std"):  # CLIP's normalisation, which the heads there take back
                continue
            for theirs, ours in renamed.items():
                name = name.replace(theirs, ours)
            found[f"{part}.{name}".lstrip(".")] = value
    return found

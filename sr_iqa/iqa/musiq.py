"""MUSIQ, the multi-scale image quality transformer (Ke et al., ICCV 2021, arXiv 2108.05997), for scoring and as a reward.

The same numbers as pyiqa's network in eval mode, from the same weight files, in less time. What makes it faster: the convolutions' weights
are standardised once, when they are loaded; the stem works on as many patches as fit the cache; images are resized and padded by two matrix
products; patches that only fill up the sequence (the attention does not see them) are never made; query, key and value are one product;
the last block computes only the token that is scored.

It compiles as one graph (`torch.compile(net, fullgraph=True)`; torch warns that it does not use the two caches below) and runs under
autocast. As a metric it is neither: the door computes in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.errors import DAMAGED_FILE, UserError

PATCH_PX = 32
LONGER_SIDES_PX = (224, 384)
"""Scales that an image is resized to; the third scale is the image as it is."""
POSITIONS = 10
"""Patches of any scale share a grid of 10 x 10 learned positions."""
STEM_CHANNELS, GROUPS = 64, 32
FEATURE_PX = PATCH_PX // 4
DIM, HIDDEN, HEADS, DEPTH = 384, 1152, 6, 14
PATCHES_AT_ONCE = 64
"""On a CPU the stem takes so many patches at a time: its activations, 64 KiB a patch, then stay in the cache."""

RENAMED = {
    "transformer_encoder.transformer.encoderblock_": "blocks.",
    "transformer_encoder.posembed_input.position_emb": "positions",
    "transformer_encoder.scaleembed_input.scale_emb": "scales",
    "transformer_encoder.encoder_norm": "norm",
    "transformer_encoder.cls": "cls",
    "block1.": "stem.",
    "conv_root": "stem.conv_root",
    "gn_root": "stem.gn_root",
    "attention.out": "out",
    "mlp.": "",
    "head.0.": "head.",
    "module.": "",
}
"""Parts of parameter names in weight files, and what they are called here."""


class MUSIQ(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N,), higher is better: about 0..100, or 1..10 for the weights of AVA.

    With `classes` > 1 the network gives a distribution over the scores 1..classes, of which the mean is returned. For scoring only: its
    weights are `convert`ed ones, and it has no dropout and no training mode.
    """

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.stem = Stem()
        self.embedding = nn.Linear(4 * STEM_CHANNELS * FEATURE_PX**2, DIM)
        self.positions = nn.Parameter(0.02 * torch.randn(POSITIONS**2, DIM))
        self.scales = nn.Parameter(0.02 * torch.randn(len(LONGER_SIDES_PX) + 1, DIM))
        self.cls = nn.Parameter(torch.zeros(1, 1, DIM))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIM, eps=1e-6)
        self.head = nn.Linear(DIM, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("this MUSIQ is for scoring and has no training mode: call .eval()")
        position, scale = token_places(*x.shape[-2:], x.device)
        with torch.autocast(x.device.type, enabled=False):
            patches = multiscale_patches(x)
        tokens = self.embed(patches) + (self.positions[position] + self.scales[scale])
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], dim=1)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        scored = self.blocks[-1](tokens, wanted=1)[:, 0]
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 has no numbers between 70 and 70.5
            return mean_score(self.head(self.norm(scored)))

    def embed(self, patches: Tensor) -> Tensor:
        """Patches (N, T, 3, 32, 32) in [-1, 1] -> tokens (N, T, 384)."""
        flat = patches.flatten(0, 1)
        chunks = flat.chunk(ceil(len(flat) / PATCHES_AT_ONCE) if flat.device.type == "cpu" else 1)
        features = torch.cat([self.stem(chunk).flatten(1) for chunk in chunks])
        return self.embedding(features).unflatten(0, patches.shape[:2])


class Stem(nn.Module):
    """Patches (P, 3, 32, 32) in [-1, 1] -> features (P, 256, 8, 8): a convolution, a pool and one bottleneck of a ResNet.

    Padding is TensorFlow's SAME: where the total is odd, the greater part is on the right and at the bottom.
    """

    def __init__(self) -> None:
        super().__init__()
        width = STEM_CHANNELS
        self.conv_root = nn.Conv2d(3, width, 7, 2, bias=False)
        self.gn_root = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.gn1 = nn.GroupNorm(GROUPS, width, eps=1e-4)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.gn2 = nn.GroupNorm(GROUPS, width, eps=1e-4)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.gn3 = nn.GroupNorm(GROUPS, 4 * width, eps=1e-4)
        self.conv_proj = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.gn_proj = nn.GroupNorm(GROUPS, 4 * width, eps=1e-4)

    def forward(self, patches: Tensor) -> Tensor:
        x = self.gn_root(_RootConv.apply(F.pad(patches, (2, 3, 2, 3)), self.conv_root.weight))
        x = F.relu(_pool(x))  # the same as before the pool, on a quarter
        y = F.relu(self.gn1(self.conv1(x)), inplace=True)
        y = F.relu(self.gn2(self.conv2(y)), inplace=True)
        return F.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)), inplace=True)


class _RootConv(torch.autograd.Function):
    """Patches (P, 3, 37, 37) and filters (C, 3, 7, 7) -> (P, C, 16, 16): a convolution with stride 2, and a gradient for the patches only.

    The gradient is taken as that of an equal convolution with stride 1 and 12 channels, the pixels of 2 x 2 blocks: half the time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, patches: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.conv2d(patches, weight, stride=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (weight,), (grad,) = ctx.saved_tensors, grads
        blocks = F.conv_transpose2d(grad, F.pixel_unshuffle(F.pad(weight, (0, 1, 0, 1)), 2).to(grad.dtype))
        return F.pixel_shuffle(blocks, 2)[..., :-1, :-1], None


def _pool(x: Tensor) -> Tensor:
    """Maximum of 3 x 3 with stride 2: (P, C, 16, 16) -> (P, C, 8, 8); `ceil_mode` is SAME's padding at the right and at the bottom."""
    if x.device.type != "cpu":
        return F.max_pool2d(x, 3, 2, ceil_mode=True)
    # On a CPU torch's pool is fast in channels-last only, and group norm in the other layout only. So the pool just finds the places.
    channels_last = x.detach().contiguous(memory_format=torch.channels_last)
    _, places = F.max_pool2d(channels_last, 3, 2, ceil_mode=True, return_indices=True)
    return x.flatten(2).gather(2, places.flatten(2)).unflatten(2, places.shape[2:])


class Block(nn.Module):
    """A transformer block, tokens (N, T, 384) -> (N, T, 384), or of the first `wanted` tokens only."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(DIM, eps=1e-6)
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.out = nn.Linear(DIM, DIM)
        self.norm2 = nn.LayerNorm(DIM, eps=1e-6)
        self.fc1 = nn.Linear(DIM, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, DIM)

    def forward(self, x: Tensor, wanted: int | None = None) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, 64) each
        attended = F.scaled_dot_product_attention(q[:, :, :wanted], k, v).transpose(1, 2).flatten(2)
        x = x[:, :wanted] + self.out(attended)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def mean_score(outputs: Tensor) -> Tensor:
    """Outputs of the head (N, classes) -> scores (N,): the mean of the distribution over 1..classes; a single output is the score."""
    classes = outputs.shape[1]
    if classes == 1:
        return outputs[:, 0]
    return outputs.softmax(1) @ torch.arange(1, classes + 1, device=outputs.device, dtype=outputs.dtype)


# ---------------------------------------------------------------- from an image to its patches


def multiscale_patches(x: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] -> patches (N, T, 3, 32, 32) in [-1, 1], row by row, of all scales one after the other."""
    x = 2 * x - 1
    return torch.cat([_patches(_resized(x, *size)) for size in scale_sizes(*x.shape[-2:])], dim=1)


def _patches(x: Tensor) -> Tensor:
    """(N, C, 32 * rows, 32 * columns) -> (N, rows * columns, C, 32, 32)."""
    cells = x.unflatten(3, (-1, PATCH_PX)).unflatten(2, (-1, PATCH_PX))  # (N, C, rows, y, columns, x)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def _resized(x: Tensor, rows: int, columns: int) -> Tensor:
    """(N, C, H, W) -> (N, C, rows, columns), bicubic, and then padded with zeros (gray) to whole patches."""
    height, width = x.shape[-2:]
    if (rows, columns) == (height, width):
        return F.pad(x, (*_margins(columns), *_margins(rows)))
    across = resize_matrix(width, columns, x.dtype, x.device)
    down = resize_matrix(height, rows, x.dtype, x.device)
    return F.linear(F.linear(x, across).mT, down).mT


def _margins(side: int) -> tuple[int, int]:
    """Pixels to add before and after a side to make whole patches, half of them on either end."""
    missing = -side % PATCH_PX
    return missing // 2, missing - missing // 2


def scale_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width in pixels of every scale of an image: its longer side becomes 224, 384, and stays."""
    ratios = [side / max(height, width) for side in LONGER_SIDES_PX]
    return [*((round(height * ratio), round(width * ratio)) for ratio in ratios), (height, width)]


@lru_cache(maxsize=16)
def resize_matrix(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(whole patches of `after`, before): bicubic resizing of one side, and zero padding to whole patches, as a matrix.

    Unlike the gradient of `interpolate`, that of a product is deterministic on a GPU.
    """
    with torch.inference_mode(False), torch.no_grad():  # kept: must not be a tensor that autograd refuses later
        matrix = F.interpolate(torch.eye(before, dtype=dtype, device=device)[None, None], (after, before), mode="bicubic")[0, 0]
        return F.pad(matrix, (0, 0, *_margins(after)))


@lru_cache(maxsize=16)
def token_places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Position in the grid, 0..99, and scale, 0..2, of every patch of an image: (T,) each, in the order of `multiscale_patches`."""
    positions, scales = [], []
    with torch.inference_mode(False), torch.no_grad():
        for scale, (rows, columns) in enumerate(scale_sizes(height, width)):
            down, across = (_hashed(ceil(side / PATCH_PX), device) for side in (rows, columns))
            positions.append((POSITIONS * down[:, None] + across).flatten())
            scales.append(torch.full_like(positions[-1], scale))
        return torch.cat(positions), torch.cat(scales)


def _hashed(count: int, device: torch.device) -> Tensor:
    """(count,): where each of `count` patches in a line falls in the grid of positions, in float32 as `interpolate` computes it."""
    places = torch.arange(count, device=device, dtype=torch.float32) * (POSITIONS / count)
    return places.long().clamp(max=POSITIONS - 1)


# ---------------------------------------------------------------- weights


def load_musiq(path: Path, classes: int = 1) -> MUSIQ:
    """The network with the weights in `path`, a file of pyiqa's layout: frozen, in eval mode.

    Raises UserError for a file that is damaged, holds more than plain tensors, or is not of this network.
    """
    with torch.device("meta"):  # no time and no random numbers for weights that are replaced
        net = MUSIQ(classes)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict(convert(state.get("params", state)), assign=True)
    except DAMAGED_FILE as error:
        problem = f"it is damaged, holds more than plain tensors, or is of another network: {error}"
        raise UserError(f"{path} does not hold the weights of MUSIQ with {classes} output{'s' * (classes > 1)}: {problem}") from error
    return net.float().eval().requires_grad_(False)


def random_musiq(classes: int = 1) -> MUSIQ:
    """The network with random weights, always the same ones, for tests and timings: frozen, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MUSIQ(classes).eval().requires_grad_(False)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in pyiqa's layout -> those of `MUSIQ`: renamed, convolutions standardised, query, key and value in one."""
    renamed = {}
    for name, value in state.items():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        renamed[name] = standardised(value) if value.ndim == 4 else value
    for part in [f"blocks.{i}.{{}}.{kind}" for i in range(DEPTH) for kind in ("weight", "bias")]:
        renamed[part.format("qkv")] = torch.cat([renamed.pop(part.format(f"attention.{name}")) for name in ("query", "key", "value")])
    renamed["positions"] = renamed["positions"].flatten(0, -2)
    by_pixel = renamed["embedding.weight"].unflatten(1, (FEATURE_PX, FEATURE_PX, -1))  # TensorFlow's order: channels last
    renamed["embedding.weight"] = by_pixel.permute(0, 3, 1, 2).flatten(1)
    return renamed


def standardised(weight: Tensor) -> Tensor:
    """Filters (O, I, h, w) with mean 0 and standard deviation 1 each (Qiao et al., arXiv 1903.10520)."""
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    return centred / (centred.std((1, 2, 3), keepdim=True) + 1e-5)

"""What A-FINE looks at images with: CLIP's vision transformer at any resolution, or the layers of any timm network.

A backbone takes images (N, 3, H, W) in [0, 1] and gives a list of (N, T, C), one per layer; `channels` are the Cs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.errors import DAMAGED_FILE, UserError

from .catalog import B32
from .timm_networks import TIMM, check_timm, create_timm

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WIDTH, DEPTH, PATCH_PX, TOKENS = 768, 12, 32, 50
"""ViT-B/32, trained on 224 x 224 pixels: 7 x 7 patches and the class token."""
HEAD_WIDTH = 64


class Backbone(nn.Module):
    """Images -> features of every layer."""

    channels: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError


class ClipViT(Backbone):
    """CLIP's vision transformer: the patches' tokens after every block."""

    def __init__(self, width: int = WIDTH, depth: int = DEPTH, patch_px: int = PATCH_PX, tokens: int = TOKENS) -> None:
        super().__init__()
        self.channels = (width,) * depth
        self.conv1 = nn.Conv2d(3, width, patch_px, patch_px, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) / width**0.5)
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width) / width**0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: Tensor) -> list[Tensor]:
        patches = self.conv1(normalised(x, CLIP_MEAN, CLIP_STD)).flatten(2).mT
        tokens = torch.cat([self.class_embedding.expand(len(x), 1, -1), patches], 1)
        stretch = stretch_matrix(len(self.positional_embedding), tokens.shape[1], x.dtype, x.device)
        tokens = self.ln_pre(tokens + stretch @ self.positional_embedding)
        layers = []
        for block in self.blocks:
            tokens = block(tokens)
            layers.append(tokens[:, 1:])
        return layers

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str = "") -> ClipViT:
        """The network that a state dict is of, without its weights. Raises KeyError if it is of none."""
        width, _, patch_px, _ = state[f"{prefix}conv1.weight"].shape
        depth = 1 + max(int(found[1]) for name in state if (found := re.match(rf"{prefix}blocks\.(\d+)\.", name)))
        return cls(width, depth, patch_px, len(state[f"{prefix}positional_embedding"]))

    @staticmethod
    def renamed(name: str) -> str:
        """What a weight of CLIP is called here; empty for its text half and for what only comes after the last block."""
        if not name.startswith("visual.") or name.startswith(("visual.ln_post.", "visual.proj")):
            return ""
        return (
            name.removeprefix("visual.")
            .replace("transformer.resblocks.", "blocks.")
            .replace("mlp.c_fc.", "fc1.")
            .replace("mlp.c_proj.", "fc2.")
        )


class Block(nn.Module):
    """A transformer block, tokens (N, T, C) -> (N, T, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.fc1(self.ln_2(x))
        return x + self.fc2(y * (1.702 * y).sigmoid())


class TimmLayers(Backbone):
    """The layers of a timm network: blocks of a transformer, stages of a convolutional one. Weights are random."""

    net: Any

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = create_timm(name)
        if not hasattr(self.net, "forward_intermediates"):
            raise UserError(f"timm:{name} does not show its layers (timm's forward_intermediates); choose another backbone")
        self.net.prune_intermediate_layers(None, prune_norm=True, prune_head=True)
        self.mean, self.std = self.net.pretrained_cfg["mean"], self.net.pretrained_cfg["std"]
        with torch.no_grad():
            side = self.net.pretrained_cfg["input_size"][-1]
            self.channels = tuple(layer.shape[2] for layer in self(torch.zeros(1, 3, side, side)))

    def forward(self, x: Tensor) -> list[Tensor]:
        layers = self.net.forward_intermediates(normalised(x, self.mean, self.std), intermediates_only=True, norm=False)
        return [layer.flatten(2).mT for layer in layers]


def build_backbone(name: str) -> Backbone:
    """`clip` (ViT-B/32), `clip-tiny` (of two blocks, for trials) or `timm:<network>`, with random weights. Raises UserError for others."""
    check_backbone(name)
    return TimmLayers(name.removeprefix(TIMM)) if name.startswith(TIMM) else ClipViT(*CLIPS[name])


def check_backbone(name: str) -> None:
    """Raises UserError for a backbone that is not there; builds nothing."""
    if name.startswith(TIMM):
        check_timm(name.removeprefix(TIMM))
    elif name not in CLIPS:
        raise UserError(f"there is no backbone '{name}'; choose from {', '.join(CLIPS)} or timm:<network>, such as timm:resnet50")


def fill_backbone(backbone: nn.Module, path: Path) -> None:
    """Weights of the backbone alone, from a .safetensors or .pth file in timm's or CLIP's layout; what no layer needs is left out.

    OpenAI's own file is a program (TorchScript), and is read only if it has their checksum. Raises UserError for a file that does not fit.
    """
    try:
        state = _read(path)
        if isinstance(backbone, ClipViT):
            backbone.load_state_dict({ClipViT.renamed(name): value for name, value in state.items() if ClipViT.renamed(name)})
        else:
            net = backbone.net if isinstance(backbone, TimmLayers) else backbone
            wanted = net.state_dict()
            net.load_state_dict({name: value for name, value in state.items() if name in wanted})
    except (SafetensorError, *DAMAGED_FILE) as error:
        raise UserError(f"{path} does not hold the weights of this backbone: {error}") from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".pt" and file_digest(path) == B32[0]:
        return torch.jit.load(path, map_location="cpu").float().state_dict()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("state_dict", state.get("params", state))


def file_digest(path: Path) -> str:
    """The file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CLIPS = {"clip": (WIDTH, DEPTH), "clip-tiny": (HEAD_WIDTH, 2)}


def normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images in [0, 1] as a backbone was trained on them."""
    centre, spread = x.new_tensor((mean, std))[..., None, None]
    return (x - centre) / spread


def whole_patches(x: Tensor) -> Tensor:
    """Images (N, 3, H, W), enlarged bicubically to sides that are multiples of 32 pixels where they are not."""
    rows, columns = (-(-side // PATCH_PX) * PATCH_PX for side in x.shape[-2:])
    if (rows, columns) == x.shape[-2:]:
        return x
    across, down = (stretch_matrix(side, wanted, x.dtype, x.device) for side, wanted in ((x.shape[3], columns), (x.shape[2], rows)))
    return down @ (x @ across.mT)


@lru_cache(maxsize=16)
def stretch_matrix(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(after, before): bicubic stretching of a line of `before` values to `after`, as a matrix.

    The authors stretch the position embedding as a line, the class token with it. A product's gradient is deterministic on a GPU.
    """
    with torch.inference_mode(False), torch.no_grad():  # kept: must not be a tensor that autograd refuses later
        eye = torch.eye(before, dtype=dtype, device=device)
        return F.interpolate(eye[None, None], (after, before), mode="bicubic", align_corners=False)[0, 0]

"""SwinIR (Liang et al. 2021, arXiv 2108.10257): residual groups of shifted-window attention between convolutions.

State dicts are those of the official code and of BasicSR; any input size is accepted. Shapes as in swin_block.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.init import trunc_normal_
from torch.utils.checkpoint import checkpoint

from ..errors import UsageError
from .layers import pad_to_multiple, pixel_shuffle_upsampler
from .swin_block import Mlp, ShiftedWindows, SwinBlock, WindowAttention, from_windows, shifted_windows, to_windows

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K
NUM_FEAT = 64  # channels between body and output


class SwinIR(nn.Module):
    """(b, in_chans, h, w) in [0, 1] -> (b, in_chans, upscale * h, upscale * w), not clamped.

    Sizes that are no multiple of the window are reflected at the right and bottom and cropped afterwards.

    Args:
        img_size: side (or height and width) for which the attention masks stored in weight files are made; with `ape` the only input size.
        patch_size: 1; here because the official code has it.
        in_chans: image channels, in and out.
        embed_dim: channels of the body.
        depths: number of attention blocks of each group.
        num_heads: attention heads of each group.
        window_size: side of the attention windows in pixels.
        mlp_ratio: hidden channels of the block's MLP over embed_dim.
        qkv_bias: biases on query, key and value.
        qk_scale: factor on query . key; by default head_dim ** -0.5.
        drop_rate, attn_drop_rate: dropout.
        drop_path_rate: chance of skipping a branch of the last block in training; rises linearly from 0 at the first.
        ape: learned absolute position embedding.
        patch_norm: layer norm at the start of the body.
        use_checkpoint: recompute blocks in the backward pass to save memory.
        upscale: 1, 2, 3, 4 or 8 as far as the upsampler allows.
        img_range: largest value that the body sees (255 in the official JPEG networks).
        upsampler: pixelshuffle (classical), pixelshuffledirect (light), nearest+conv (real-world, x2 x4 x8), '' (restoration, x1).
        resi_connection: convolutions that close each group.
        rgb_mean: what is subtracted from the channels of colour images; DIV2K's mean in all but neosr's SwinIRs (0.5).
    """

    mean: Tensor

    def __init__(
        self,
        img_size: int | Sequence[int] = 64,
        patch_size: int = 1,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""] | None = "",
        resi_connection: Literal["1conv", "3conv"] = "1conv",
        rgb_mean: Sequence[float] = RGB_MEAN,
    ) -> None:
        super().__init__()
        size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        _check_arguments(patch_size, embed_dim, depths, num_heads)
        # The official code drops the shift where one window holds the whole training image.
        shifted = min(size) > window_size
        self.window_size = min(window_size, *size)
        self.shift_size = self.window_size // 2 if shifted else 0
        self.img_range, self.upscale, self.upsampler = img_range, upscale, upsampler or ""
        self.register_buffer("mean", torch.tensor(tuple(rgb_mean) if in_chans == 3 else 0.0).view(1, -1, 1, 1), persistent=False)

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.patch_embed = PatchNorm(embed_dim if patch_norm else None)
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, size[0] * size[1], embed_dim)) if ape else None
        self.pos_size = size
        self.pos_drop = nn.Dropout(drop_rate)
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.layers = nn.ModuleList(
            ResidualGroup(
                [
                    SwinBlock(
                        attention=WindowAttention(embed_dim, self.window_size, heads, qkv_bias, qk_scale, attn_drop_rate, drop_rate),
                        mlp=Mlp(embed_dim, int(embed_dim * mlp_ratio), drop_rate),
                        shift_size=self.shift_size if i % 2 else 0,
                        mask_size=size,
                        drop_path=next(rates),
                    )
                    for i in range(depth)
                ],
                closing_convolutions(embed_dim, resi_connection),
                self.window_size,
                use_checkpoint,
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = closing_convolutions(embed_dim, resi_connection)
        self._add_upsampler(embed_dim, in_chans)
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_chans, h, w) -> (b, in_chans, upscale * h, upscale * w)."""
        height, width = x.shape[2] * self.upscale, x.shape[3] * self.upscale
        x = (pad_to_multiple(x, self.window_size) - self.mean) * self.img_range
        feat = self.conv_first(x)
        feat = self.conv_after_body(self._body(feat)) + feat
        out = self._upsample(feat) if self.upsampler else x + self.conv_last(feat)
        return (out / self.img_range + self.mean)[..., :height, :width]

    def _body(self, feat: Tensor) -> Tensor:
        """Attention: (b, c, h, w) -> (b, c, h, w), h and w multiples of the window."""
        size = feat.shape[2:]
        x = self.patch_embed(rearrange(feat, "b c h w -> b h w c"))
        if self.absolute_pos_embed is not None:
            if size != self.pos_size:
                raise UsageError(f"A SwinIR with `ape` takes inputs of img_size {self.pos_size} only, got {tuple(size)}.")
            x = x + self.absolute_pos_embed.view(1, *size, -1)
        x = to_windows(self.pos_drop(x), self.window_size)
        # The compiler looks through the cache and warns of it.
        lay = shifted_windows.__wrapped__ if torch.compiler.is_compiling() else shifted_windows
        shifted = lay(*size, self.window_size, self.shift_size, x.device) if self.shift_size else None
        for layer in self.layers:
            x = layer(x, shifted, size[0])
        return rearrange(from_windows(self.norm(x), size[0], self.window_size), "b h w c -> b c h w")

    def _add_upsampler(self, embed_dim: int, out_chans: int) -> None:
        """The layers between body and output, under the official names."""
        if self.upsampler in ("pixelshuffle", "nearest+conv"):
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU(inplace=True))
        if self.upsampler == "pixelshuffle":
            self.upsample = pixel_shuffle_upsampler(self.upscale, NUM_FEAT)
            self.conv_last = nn.Conv2d(NUM_FEAT, out_chans, 3, 1, 1)
        elif self.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(nn.Conv2d(embed_dim, self.upscale**2 * out_chans, 3, 1, 1), nn.PixelShuffle(self.upscale))
        elif self.upsampler == "nearest+conv":
            if self.upscale not in (2, 4, 8):
                raise UsageError(f"SwinIR: upsampler 'nearest+conv' is for upscale 2, 4 or 8, got {self.upscale}.")
            self.num_doublings = self.upscale.bit_length() - 1
            for i in range(self.num_doublings):
                self.add_module(f"conv_up{i + 1}", nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1))
            self.conv_hr = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            self.conv_last = nn.Conv2d(NUM_FEAT, out_chans, 3, 1, 1)
        elif self.upsampler == "":
            if self.upscale != 1:
                raise UsageError(f"SwinIR: upscale {self.upscale} needs an upsampler: pixelshuffle, pixelshuffledirect or nearest+conv.")
            self.conv_last = nn.Conv2d(embed_dim, out_chans, 3, 1, 1)
        else:
            raise UsageError(f"SwinIR: upsampler '{self.upsampler}' is none of pixelshuffle, pixelshuffledirect, nearest+conv, ''.")

    def _upsample(self, feat: Tensor) -> Tensor:
        """(b, embed_dim, h, w) -> (b, out_chans, upscale * h, upscale * w)."""
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(feat)
        feat = self.conv_before_upsample(feat)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(feat))
        for i in range(self.num_doublings):
            feat = F.interpolate(feat, scale_factor=2.0, mode="nearest")
            feat = F.leaky_relu(self.get_submodule(f"conv_up{i + 1}")(feat), 0.2, inplace=True)
        return self.conv_last(F.leaky_relu(self.conv_hr(feat), 0.2, inplace=True))


class PatchNorm(nn.Module):
    """The layer norm at the start of the body, or nothing (named patch_embed.norm in weight files)."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ResidualGroup(nn.Module):
    """Attention blocks, then convolutions, around a skip: (b, v, n, c) -> (b, v, n, c)."""

    def __init__(self, blocks: list[SwinBlock], conv: nn.Module, window_size: int, use_checkpoint: bool) -> None:
        super().__init__()
        self.residual_group = BlockStack(blocks, use_checkpoint)
        self.conv = conv
        self.window_size = window_size

    def forward(self, x: Tensor, shifted: ShiftedWindows | None, height: int) -> Tensor:
        feat = from_windows(self.residual_group(x, shifted), height, self.window_size)
        feat = self.conv(rearrange(feat, "b h w c -> b c h w"))
        return to_windows(rearrange(feat, "b c h w -> b h w c"), self.window_size) + x


class BlockStack(nn.Module):
    """Attention blocks one after the other; with `use_checkpoint` recomputed in the backward pass."""

    def __init__(self, blocks: list[SwinBlock], use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor, shifted: ShiftedWindows | None) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, shifted, use_reentrant=False) if self.use_checkpoint else block(x, shifted)
        return x


def closing_convolutions(dim: int, kind: str) -> nn.Module:
    """The convolution (1conv) or the narrow stack of three (3conv) that ends a group."""
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, 1, 1)
    if kind != "3conv":
        raise UsageError(f"SwinIR: resi_connection '{kind}' is neither 1conv nor 3conv.")
    narrow = dim // 4
    return nn.Sequential(
        nn.Conv2d(dim, narrow, 3, 1, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(narrow, narrow, 1, 1, 0),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(narrow, dim, 3, 1, 1),
    )


def _check_arguments(patch_size: int, embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
    if patch_size != 1:
        raise UsageError(f"SwinIR: patch_size must be 1, got {patch_size}.")
    if len(depths) != len(num_heads):
        raise UsageError(f"SwinIR: depths has {len(depths)} entries, num_heads {len(num_heads)}; one of each per group.")
    if any(embed_dim % heads for heads in num_heads):
        raise UsageError(f"SwinIR: embed_dim {embed_dim} is not a multiple of every entry of num_heads {list(num_heads)}.")


def _init_weights(module: nn.Module) -> None:
    """The official initialisation; convolutions and norms keep torch's."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        trunc_normal_(module.relative_position_bias_table, std=0.02)
    elif isinstance(module, SwinIR) and module.absolute_pos_embed is not None:
        trunc_normal_(module.absolute_pos_embed, std=0.02)

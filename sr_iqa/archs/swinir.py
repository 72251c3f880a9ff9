"""SwinIR (Liang et al. 2021, arXiv 2108.10257): residual groups of shifted-window attention between convolutions.

State dicts are those of the official code and of BasicSR; any input size is accepted.

Shapes: b batch, h w height and width in pixels, c channels, n = window_size² tokens of a window,
v windows of an image, a attention heads, d = c / a channels of a head. Features travel as (b, h, w, c).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.init import trunc_normal_
from torch.utils.checkpoint import checkpoint

from ..errors import UsageError
from .layers import pad_to_multiple, pixel_shuffle_upsampler

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
    ) -> None:
        super().__init__()
        size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        _check_arguments(patch_size, embed_dim, depths, num_heads)
        # The official code drops the shift where one window holds the whole training image.
        shifted = min(size) > window_size
        self.window_size = min(window_size, *size)
        self.shift_size = self.window_size // 2 if shifted else 0
        self.img_range, self.upscale, self.upsampler = img_range, upscale, upsampler or ""
        self.register_buffer("mean", torch.tensor(RGB_MEAN if in_chans == 3 else 0.0).view(1, -1, 1, 1), persistent=False)

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
        x = self.pos_drop(x)
        mask = shift_mask(*size, self.window_size, self.shift_size, x.device) if self.shift_size else None
        for layer in self.layers:
            x = layer(x, mask)
        return rearrange(self.norm(x), "b h w c -> b c h w")

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
            feat = F.leaky_relu(self.get_submodule(f"conv_up{i + 1}")(feat), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(feat), 0.2))


class PatchNorm(nn.Module):
    """The layer norm at the start of the body, or nothing (named patch_embed.norm in weight files)."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ResidualGroup(nn.Module):
    """Attention blocks, then convolutions, around a skip: (b, h, w, c) -> (b, h, w, c)."""

    def __init__(self, blocks: list[SwinBlock], conv: nn.Module, use_checkpoint: bool) -> None:
        super().__init__()
        self.residual_group = BlockStack(blocks, use_checkpoint)
        self.conv = conv

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        feat = rearrange(self.residual_group(x, mask), "b h w c -> b c h w")
        return rearrange(self.conv(feat), "b c h w -> b h w c") + x


class BlockStack(nn.Module):
    """Attention blocks one after the other; with `use_checkpoint` recomputed in the backward pass."""

    def __init__(self, blocks: list[SwinBlock], use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, mask, use_reentrant=False) if self.use_checkpoint else block(x, mask)
        return x


class SwinBlock(nn.Module):
    """Window attention and an MLP, each after a layer norm and around a skip: (b, h, w, c) -> (b, h, w, c)."""

    def __init__(self, attention: WindowAttention, mlp: Mlp, shift_size: int, mask_size: tuple[int, int], drop_path: float) -> None:
        super().__init__()
        self.window_size, self.shift_size = attention.window_size, shift_size
        self.norm1, self.attn = nn.LayerNorm(attention.dim), attention
        self.norm2, self.mlp = nn.LayerNorm(attention.dim), mlp
        self.drop_path = DropPath(drop_path)
        # Weight files hold a mask for the training size; forward() uses that of the actual size.
        height, width = (side + -side % self.window_size for side in mask_size)
        mask = shift_mask(height, width, self.window_size, shift_size, torch.device("cpu")).clone() if shift_size else None
        self.register_buffer("attn_mask", mask)
        self.register_load_state_dict_pre_hook(_keep_computed_buffers)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` (v, n, n) is for the shifted windows of this size; blocks without shift ignore it."""
        x = x + self.drop_path(self._attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        side, shift = self.window_size, self.shift_size
        rows = x.shape[1] // side
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
        x = rearrange(x, "b (y p) (x q) c -> b (y x) (p q) c", p=side, q=side)
        x = self.attn(x, mask if shift else None)
        x = rearrange(x, "b (y x) (p q) c -> b (y p) (x q) c", y=rows, p=side)
        return torch.roll(x, (shift, shift), (1, 2)) if shift else x


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias per head and relative position: (b, v, n, c) -> (b, v, n, c)."""

    relative_position_index: Tensor

    def __init__(
        self, dim: int, window_size: int, num_heads: int, qkv_bias: bool, qk_scale: float | None, attn_drop: float, proj_drop: float
    ) -> None:
        super().__init__()
        self.dim, self.window_size, self.num_heads = dim, window_size, num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` (v, n, n) is added to the logits of every head."""
        q, k, v = rearrange(self.qkv(x), "b v n (three a d) -> three b v a n d", three=3, a=self.num_heads)
        bias = rearrange(self.relative_position_bias_table[self.relative_position_index], "m n a -> a m n")
        if mask is not None:
            bias = bias + mask[:, None].to(bias.dtype)
        attend = self._attend if torch.is_grad_enabled() or self.training else self._attend_fused
        return self.proj_drop(self.proj(rearrange(attend(q, k, v, bias), "b v a n d -> b v n (a d)")))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        weights = (q * self.scale @ k.transpose(-2, -1) + bias).softmax(-1)
        return self.attn_drop(weights) @ v

    def _attend_fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """The same by PyTorch's kernel, 1.3 to 1.6 times faster on a CPU, where it has no gradient for the bias."""
        b, windows = q.shape[:2]
        bias = bias.to(q.dtype).expand(b, windows, -1, -1, -1).flatten(0, 1)
        out = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), bias, scale=self.scale)
        return out.unflatten(0, (b, windows))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class DropPath(nn.Module):
    """In training, drops a residual branch of single samples with probability `rate` and scales the others by 1 / (1 - rate).

    Draws from torch's global generator, so that a seed set per step makes it repeatable.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        keep = 1 - self.rate
        drawn = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x / keep * (keep + drawn).floor()


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


@lru_cache(maxsize=4)
def shift_mask(height: int, width: int, window_size: int, shift: int, device: torch.device) -> Tensor:
    """(v, n, n): -100 between tokens that only the cyclic shift has brought into one window, 0 elsewhere."""
    with torch.inference_mode(False):
        # The last window of each axis holds two regions: what belongs there, and what was rolled in from the other side.
        y = torch.arange(height, device=device) >= height - shift
        x = torch.arange(width, device=device) >= width - shift
        region = 2 * y[:, None].int() + x[None, :].int()
        # Regions are compared inside a window only, so windows that are not last need no region of their own.
        region = rearrange(region, "(y p) (x q) -> (y x) (p q)", p=window_size, q=window_size)
        return (region[:, :, None] != region[:, None, :]) * -100.0


def relative_position_index(window_size: int) -> Tensor:
    """(n, n): which row of the bias table belongs to a pair of tokens."""
    y, x = torch.meshgrid(torch.arange(window_size), torch.arange(window_size), indexing="ij")
    y, x = y.flatten(), x.flatten()
    apart = window_size - 1
    return (y[:, None] - y[None, :] + apart) * (2 * window_size - 1) + (x[:, None] - x[None, :] + apart)


def _keep_computed_buffers(block: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Weight files made for another training size, or without masks, load all the same: both buffers follow from the options."""
    state_dict.pop(prefix + "attn_mask", None)
    for name, buffer in block.named_buffers():
        state_dict[prefix + name] = buffer


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

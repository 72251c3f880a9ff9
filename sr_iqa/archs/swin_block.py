"""The block of SwinIR (Liu et al. 2021, arXiv 2103.14030): attention inside windows that shift from block to block, and an MLP.

Shapes: b batch, h w height and width in pixels, c channels, n = window_size² tokens of a window,
v windows of an image, a attention heads, d = c / a channels of a head. Features travel as (b, h, w, c).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


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

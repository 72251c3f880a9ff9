"""The block of SwinIR (Liu et al. 2021, arXiv 2103.14030): attention inside windows that shift from block to block, and an MLP.

Shapes: b batch, h w height and width in pixels, c channels, n = window_size² tokens of a window,
v windows of an image, a attention heads, d = c / a channels of a head. Features travel as (b, v, n, c), in the order of unshifted windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend

CPU_CACHE = 100_000
"""Numbers of a feature map that a CPU core works on at once, so that what it makes of them stays in its cache. Against all windows at
once, SwinIR medium infers 1.07 and trains 1.03 times as fast, light as fast (64 x 64 LQ, one AVX2 core with 1 MB of L2); and the masked
biases of a large image are never in memory all together."""
CUDA_GRID = 65535
"""The largest batch, and number of heads, of CUDA's attention kernels."""


class ShiftedWindows(NamedTuple):
    """How windows lie that are shifted cyclically, for one size of image."""

    there: Tensor
    """(v n,): the token in the order of unshifted windows that stands at each place of shifted ones."""
    back: Tensor
    """(v n,): the inverse."""
    mask: Tensor
    """(v, n, n): -100 between tokens that only the shift has brought into one window, 0 elsewhere."""


class SwinBlock(nn.Module):
    """Window attention and an MLP, each after a layer norm and around a skip: (b, v, n, c) -> (b, v, n, c)."""

    def __init__(self, attention: WindowAttention, mlp: Mlp, shift_size: int, mask_size: tuple[int, int], drop_path: float) -> None:
        super().__init__()
        self.shift_size = shift_size
        self.norm1, self.attn = nn.LayerNorm(attention.dim), attention
        self.norm2, self.mlp = nn.LayerNorm(attention.dim), mlp
        self.drop_path = DropPath(drop_path)
        # Weight files hold a mask for the training size; forward() uses that of the actual size.
        side = attention.window_size
        height, width = (length + -length % side for length in mask_size)
        mask = shifted_windows(height, width, side, shift_size, torch.device("cpu")).mask.clone() if shift_size else None
        self.register_buffer("attn_mask", mask)
        self.register_load_state_dict_pre_hook(_keep_computed_buffers)

    def forward(self, x: Tensor, shifted: ShiftedWindows | None) -> Tensor:
        """`shifted` is for this size of image; blocks without shift ignore it."""
        shifted = shifted if self.shift_size else None
        if shifted:
            x = _reorder(x, shifted.there)
        bias, drops = self.attn.bias(), (self.drop_path.draw(x), self.drop_path.draw(x))
        parts = [self._forward(part, bias if mask is None else bias + mask[:, None], drops) for part, mask in self._parts(x, shifted)]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return _reorder(x, shifted.back) if shifted else x

    def _forward(self, x: Tensor, bias: Tensor, drops: tuple[Tensor | None, Tensor | None]) -> Tensor:
        x = x + _scaled(self.attn(self.norm1(x), bias), drops[0])
        return x + _scaled(self.mlp(self.norm2(x)), drops[1])

    def _parts(self, x: Tensor, shifted: ShiftedWindows | None) -> Iterable[tuple[Tensor, Tensor | None]]:
        """The windows, as many together as the device likes, and their masks."""
        b, windows, n, c = x.shape
        if torch.compiler.is_compiling():  # which would compile every part anew
            most = windows
        else:
            most = CPU_CACHE // (b * n * c) if x.device.type == "cpu" else CUDA_GRID // max(b, self.attn.num_heads)
        most = max(most, 1)
        return zip(x.split(most, 1), shifted.mask.split(most) if shifted else repeat(None), strict=False)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows: (b, v, n, c) -> (b, v, n, c)."""

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

    def bias(self) -> Tensor:
        """(a, n, n): what is learned for each head and relative position, for every pair of tokens."""
        pairs = self.relative_position_bias_table.index_select(0, self.relative_position_index.flatten())
        return rearrange(pairs, "(m n) a -> a m n", m=self.window_size**2).contiguous()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`bias` (a, n, n) or (v, a, n, n) is added to the logits."""
        dropout = self.attn_drop.p if self.training else 0.0
        return self.proj_drop(self.proj(attend(self.qkv(x), bias, self.scale, dropout)))


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
    """In training, drops a residual branch of single samples with probability `rate` and scales the others by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def draw(self, x: Tensor) -> Tensor | None:
        """The factor (b, 1, 1, 1) on a branch of x, None for 1; from torch's global generator, so that a seed set per step repeats it."""
        if not (self.training and self.rate):
            return None
        keep = 1 - self.rate
        drawn = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return (keep + drawn).floor() / keep


def _scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """The tokens of x (b, v, n, c) in another order (v n,)."""
    return x.flatten(1, 2).index_select(1, order).view_as(x)


@lru_cache(maxsize=4)
def shifted_windows(height: int, width: int, window_size: int, shift: int, device: torch.device) -> ShiftedWindows:
    """Windows shifted by `shift` pixels down and to the right, for images whose sides are multiples of the window."""
    with torch.inference_mode(False):
        place = to_windows(torch.arange(height * width, device=device).view(1, height, width, 1), window_size).flatten()
        token = place.argsort().view(1, height, width, 1)  # of each pixel
        there = to_windows(token.roll((-shift, -shift), (1, 2)), window_size).flatten()
        # The last window of each axis holds two regions: what belongs there, and what was rolled in from the other side.
        y = torch.arange(height, device=device) >= height - shift
        x = torch.arange(width, device=device) >= width - shift
        region = 2 * y[:, None].int() + x[None, :].int()
        # Regions are compared inside a window only, so windows that are not last need no region of their own.
        region = to_windows(region[None, :, :, None], window_size)[0, :, :, 0]
        return ShiftedWindows(there, there.argsort(), (region[:, :, None] != region[:, None, :]) * -100.0)


def to_windows(x: Tensor, window_size: int) -> Tensor:
    """(b, h, w, c) -> (b, v, n, c)."""
    return rearrange(x, "b (y p) (x q) c -> b (y x) (p q) c", p=window_size, q=window_size)


def from_windows(x: Tensor, height: int, window_size: int) -> Tensor:
    """(b, v, n, c) -> (b, h, w, c)."""
    return rearrange(x, "b (y x) (p q) c -> b (y p) (x q) c", y=height // window_size, p=window_size)


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

"""softmax(scale * q k^T + bias) v inside windows, by the fastest way that the device has. Shapes as in swin_block.py."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

GPU_HEAD_MULTIPLE = 8  # of channels per head: what the memory-efficient kernel asks for (bfloat16 8, float32 4)


def attend(qkv: Tensor, bias: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    """(b, v, n, 3 c) -> (b, v, n, c).

    Args:
        qkv: queries, keys and values of every token.
        bias: on the logits, (a, n, n) for all windows or (v, a, n, n).
        scale: factor on query . key.
        dropout: chance of dropping an attention weight.
    """
    if _is_plain(qkv, bias, dropout):
        return plain_attention(qkv, bias, scale, dropout)
    return fused_attention(qkv, bias, scale, dropout, 1 if qkv.device.type == "cpu" else GPU_HEAD_MULTIPLE)


def _is_plain(qkv: Tensor, bias: Tensor, dropout: float) -> bool:
    """Here the way is chosen: training on a CPU by matrix products, all else by PyTorch's fused kernels.

    Measured on one AVX2 core, fused against plain, 8 windows at once: without gradients 1.2 to 2.4 times as fast; with gradients, which
    the CPU's kernel has for q, k and v only, 0.9 to 1.0 times. On CUDA the memory-efficient kernel has the bias's gradient and dropout.
    """
    return qkv.device.type == "cpu" and (qkv.requires_grad or bias.requires_grad or dropout > 0)


def plain_attention(qkv: Tensor, bias: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    """By matrix products; as `attend`."""
    q, k, v = rearrange(qkv, "b v n (three a d) -> three b v a n d", three=3, a=bias.shape[-3])
    weights = (q * scale @ k.transpose(-2, -1) + bias).softmax(-1)
    return rearrange(F.dropout(weights, dropout) @ v, "b v a n d -> b v n (a d)")


def fused_attention(qkv: Tensor, bias: Tensor, scale: float, dropout: float = 0.0, head_multiple: int = 1) -> Tensor:
    """By PyTorch's fused kernels; as `attend`. Channels per head are filled with zeros, which change nothing, to a multiple."""
    b, windows, n, channels = qkv.shape
    q, k, v = _for_kernel(qkv, bias, head_multiple)
    out = F.scaled_dot_product_attention(q, k, v, _bias_for_kernel(q, bias), dropout, scale=scale)
    out = out.reshape(b, windows, bias.shape[-3], n, -1)[..., : channels // 3 // bias.shape[-3]]
    return rearrange(out, "b v a n d -> b v n (a d)")


def attention_kernel(qkv: Tensor, bias: Tensor, dropout: float = 0.0) -> str:
    """The kernel that `attend` uses for such arguments: plain, or PyTorch's choice (math, flash_attention, efficient_attention, ...)."""
    if _is_plain(qkv, bias, dropout):
        return "plain"
    q, k, v = _for_kernel(qkv, bias, 1 if qkv.device.type == "cpu" else GPU_HEAD_MULTIPLE)
    choice = torch._fused_sdp_choice(q, k, v, _bias_for_kernel(q, bias), dropout)  # pyright: ignore[reportPrivateImportUsage]
    return SDPBackend(choice).name.lower()


def _for_kernel(qkv: Tensor, bias: Tensor, head_multiple: int) -> Tensor:
    """(b, v, n, 3 c) -> (3, batch, heads, n, d), d a multiple.

    Windows are the batch. Where each has a bias of its own that several samples share, they stand beside the heads instead.
    """
    layout = "three b (v a) n d" if bias.ndim == 4 and len(qkv) > 1 else "three (b v) a n d"
    split = rearrange(qkv, "b v n (three a d) -> three b v a n d", three=3, a=bias.shape[-3])
    missing = -split.shape[-1] % head_multiple
    return rearrange(F.pad(split, (0, missing)) if missing else split, f"three b v a n d -> {layout}")


def _bias_for_kernel(q: Tensor, bias: Tensor) -> Tensor:
    """(1 or batch, heads, n, n), in the type of q."""
    return bias.to(q.dtype).reshape(-1, *q.shape[1:3], q.shape[2])

"""Networks in a form that exporters can follow for images of any size: the same weights, the same output.

Exporters run a network once and keep what it did to tensors. So sizes are never compared in Python here, windows are cut by plain reshapes,
and padding is always there, as an index that changes nothing where none is needed. A trace would also keep the sizes and the device of its
example where new tensors are made, so the functions that make them are compiled for it. Shapes as in archs/swin_block.py.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..archs import RRDBNet, RRDBPSNet, SwinIR
from ..archs.spandrel_bridge import size_requirements
from ..archs.swin_block import SwinBlock, WindowAttention
from ..archs.swinir import ResidualGroup

BATCHES = (SwinIR, RRDBNet, RRDBPSNet)
"""Networks whose file takes several images at once; some of Spandrel's take one."""


def portable(net: nn.Module, magnification: int) -> nn.Module:
    """A network's portable form, in eval mode and without gradients: (b, 3, h, w) in [0, 1] -> (b, 3, s*h, s*w), not clamped."""
    form = PortableSwinIR(net) if isinstance(net, SwinIR) else Padded(_folded(net), *_size_requirements(net), magnification)
    return form.eval().requires_grad_(False)


def halved(form: nn.Module) -> nn.Module:
    """A copy in float16 but for layer norms, whose squares might overflow.

    Softmax, too, is in float32 in our attention: older runtimes have neither in float16 on CPUs.
    """
    half = deepcopy(form).half()
    for module in half.modules():
        if type(module) is nn.LayerNorm:
            module.float().__class__ = ExactLayerNorm
    return half


class ExactLayerNorm(nn.LayerNorm):
    """A layer norm that computes in float32 and gives the type that it gets."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)


class Padded(nn.Module):
    """A network behind the padding that it would do itself, which then finds nothing left to do."""

    def __init__(self, net: nn.Module, multiple: int, minimum: int, magnification: int) -> None:
        super().__init__()
        self.net, self.multiple, self.minimum, self.magnification = net, multiple, minimum, magnification

    def forward(self, x: Tensor) -> Tensor:
        if self.multiple == 1 and self.minimum <= 1:
            return self.net(x)
        height, width = x.shape[2] * self.magnification, x.shape[3] * self.magnification
        return self.net(grow(x, self.multiple, self.minimum))[..., :height, :width]


class PortableSwinIR(nn.Module):
    """SwinIR's forward pass with features as images, (b, h, w, c), and all windows at once."""

    def __init__(self, net: SwinIR) -> None:
        super().__init__()
        self.net = net
        self.biases = nn.ParameterList(block.attn.bias().detach() for group in net.layers for block in _blocks(group))

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        height, width = x.shape[2] * net.upscale, x.shape[3] * net.upscale
        x = (grow(x, net.window_size, 0) - net.mean) * net.img_range
        feat = net.conv_first(x)
        feat = net.conv_after_body(self._body(feat)) + feat
        out = net._upsample(feat) if net.upsampler else x + net.conv_last(feat)
        return (out / net.img_range + net.mean)[..., :height, :width]

    def _body(self, feat: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w), h and w multiples of the window."""
        net, biases = self.net, iter(self.biases)
        x = net.patch_embed(feat.permute(0, 2, 3, 1))
        if net.absolute_pos_embed is not None:
            x = x + net.absolute_pos_embed.view(1, *net.pos_size, -1)
        mask = shift_mask(x, net.window_size, net.shift_size) if net.shift_size else None
        for group in net.layers:
            y = x
            for block in _blocks(group):
                y = _block(block, y, next(biases), mask)
            x = x + cast(ResidualGroup, group).conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return net.norm(x).permute(0, 3, 1, 2)


def _blocks(group: nn.Module) -> list[SwinBlock]:
    return list(cast(Any, group).residual_group.blocks)


def _block(block: SwinBlock, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """(b, h, w, c) -> (b, h, w, c)."""
    shift = block.shift_size
    y = block.norm1(x)
    if shift:
        y = _attention(block.attn, y.roll((-shift, -shift), (1, 2)), bias, mask).roll((shift, shift), (1, 2))
    else:
        y = _attention(block.attn, y, bias, None)
    x = x + y
    return x + block.mlp(block.norm2(x))


def _attention(attn: WindowAttention, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """(b, h, w, c) -> (b, h, w, c), with bias (a, n, n) and mask (v, 1, n, n) on the logits."""
    b, side, heads, c = x.shape[0], attn.window_size, attn.num_heads, attn.dim
    rows, columns, n = x.shape[1] // side, x.shape[2] // side, side**2
    x = x.reshape(b, rows, side, columns, side, c).transpose(2, 3).reshape(b, rows * columns, n, c)
    q, k, v = attn.qkv(x).reshape(b, rows * columns, n, 3, heads, c // heads).permute(3, 0, 1, 4, 2, 5).unbind(0)
    logits = q * attn.scale @ k.transpose(-2, -1) + bias
    logits = logits if mask is None else logits + mask
    weights = logits.float().softmax(-1).to(v.dtype)
    x = attn.proj((weights @ v).transpose(2, 3).reshape(b, rows * columns, n, c))
    return x.reshape(b, rows, columns, side, side, c).transpose(2, 3).reshape(b, rows * side, columns * side, c)


@torch.jit.script_if_tracing
def shift_mask(x: Tensor, side: int, shift: int) -> Tensor:
    """(v, 1, n, n) for x (b, h, w, c): -100 between tokens that only the shift has brought into one window, 0 elsewhere."""
    height, width = x.shape[1], x.shape[2]
    y = (torch.arange(height, device=x.device) >= height - shift).int()
    column = (torch.arange(width, device=x.device) >= width - shift).int()
    region = 2 * y[:, None] + column
    rows, columns = height // side, width // side
    region = region.reshape(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, 1, side * side)
    return (region[..., :, None] != region[..., None, :]).to(x.dtype) * -100.0


@torch.jit.script_if_tracing
def grow(x: Tensor, multiple: int, minimum: int) -> Tensor:
    """Grows (b, c, h, w) at the right and bottom by reflection to multiples of `multiple`, and to `minimum` at least."""
    for dim in (2, 3):
        size = x.shape[dim]
        wanted = (size + multiple - 1) // multiple * multiple
        if minimum > multiple:
            wanted = (wanted + minimum + abs(wanted - minimum)) // 2  # their maximum, without comparing sizes
        last = torch.arange(size, device=x.device)[-1:]  # a tensor, because exporters do not divide by sizes
        steps = torch.arange(wanted, device=x.device) % (2 * last).clamp(min=1)
        x = x.index_select(dim, last - (steps - last).abs())
    return x


def _folded(net: nn.Module) -> nn.Module:
    """A copy in which SPAN's layers are the one convolution that they compute from their weights, by hand, at every pass."""
    net = deepcopy(net)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "Conv3XC":
                layer = cast(Any, child)
                layer.update_params()
                setattr(parent, name, nn.Sequential(layer.eval_conv, *([nn.LeakyReLU(0.05)] if layer.has_relu else [])))
    return net


def _size_requirements(net: nn.Module) -> tuple[int, int]:
    """(multiple, minimum) of the input's sides in pixels."""
    return (net.unshuffle, 0) if isinstance(net, RRDBNet) else size_requirements(net)

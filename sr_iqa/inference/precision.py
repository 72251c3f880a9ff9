"""Inference in less than float32: what is allowed where, and the last convolution kept exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..modes import tf32

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("no", "tf32", *HALVES)
"""As the option `precision` of a run: no is float32, tf32 rounds the factors of float32 products, bf16 and fp16 compute in 16 bits."""


def check_precision(precision: str, device: torch.device) -> None:
    """Raises UsageError for an unknown name, and for what a device cannot do or would do slower than float32."""
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision '{precision}'; choose one of {', '.join(PRECISIONS)}")
    if device.type != "cuda" and precision in ("fp16", "tf32"):
        raise UsageError(f"precision {precision} needs a CUDA GPU, not {device.type}; choose no or bf16")


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """The block's networks run in this precision. float32 means all its bits: torch by itself lets cuDNN round to TF32."""
    dtype = HALVES.get(precision)
    with tf32(precision == "tf32"), torch.autocast(device.type, dtype, enabled=dtype is not None):
        yield


class ExactConv2d(nn.Conv2d):
    """A convolution that stays in float32 under mixed precision."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def keep_last_convolution_exact(net: nn.Module) -> None:
    """Takes the network's last convolution, and so its output, out of mixed precision: bfloat16 has 256 steps between 0.5 and 1.

    The class is changed in place, as in training; an adapter's own convolutions do not count, their small share may be rounded.
    """
    plain = [module for name, module in net.named_modules() if type(module) is nn.Conv2d and ".lora_" not in name]
    for module in plain[-1:]:
        module.__class__ = ExactConv2d

"""Inference in less than float32: what is allowed where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

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

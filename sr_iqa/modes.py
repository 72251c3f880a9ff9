"""Where and how torch computes: the device, and scoped changes of a network's mode and of what float32 means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from .errors import UsageError


def pick_device(name: str) -> str:
    """The name of a device that works; `auto` is the GPU where there is one. Raises UsageError."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return name


@contextmanager
def eval_mode(*nets: nn.Module) -> Iterator[None]:
    """Puts networks into evaluation mode and afterwards gives every single module the mode that it had.

    Modules that were deliberately in eval inside a training network (a frozen part) stay so.
    """
    before = [(module, module.training) for net in nets for module in net.modules()]
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def practice_mode(net: nn.Module) -> Iterator[None]:
    """Training mode with nothing random and no statistics moved. (In evaluation some networks, such as PLKSR, cannot be differentiated.)"""
    asleep = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    with eval_mode(net):
        for module in net.modules():
            module.training = not (isinstance(module, asleep) or "DropPath" in type(module).__name__)
        yield


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether NVIDIA's tensor cores may round the factors of float32 products and convolutions to 10 bits of fraction."""
    matmul, cudnn = torch.backends.cuda.matmul, cast(Any, torch.backends.cudnn)
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before

"""Scoped changes of a network's mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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

"""A memory that does not suffice, the GPU's or the machine's, as one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import UserError


class MemoryShortage(UserError):
    """Something that may be done with a smaller tile or batch."""


@contextmanager
def shortage_named(what: str, advice: str) -> Iterator[None]:
    """Turns what torch, NumPy and Python raise where memory is short into a MemoryShortage: `what` needs too much, `advice` may help."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.cuda.OutOfMemoryError is a RuntimeError
        gpu = isinstance(error, torch.cuda.OutOfMemoryError)
        if gpu or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            raise MemoryShortage(f"{what} too much for the {'GPU' if gpu else 'machine'}'s memory; {advice}") from error
        raise

"""Is what was written the network that it was made from? Outputs on random images, through the program that will read the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError

FLOAT_BOUND, HALF_BOUND = 1e-4, 2 / 255
"""Largest difference on images in [0, 1]: rounding of float32, and two steps of 8 bits where weights have 16."""

Network = Callable[[Tensor], Tensor]
"""(b, 3, h, w) in [0, 1], float32 -> (b, 3, s*h, s*w), float32."""


class ExportError(UserError):
    """A file that cannot be made, or that does not give what the network gives."""


@dataclass(frozen=True)
class Check:
    """One image, or batch of them, through one reader of the file."""

    reader: str
    size: tuple[int, int, int]
    """Images, height and width in pixels."""
    difference: float
    """Largest difference from the network's own output, on a scale where white is 1."""

    def __str__(self) -> str:
        images, height, width = self.size
        batch = f"{images} x " if images > 1 else ""
        return f"{self.reader}, {batch}{height} x {width} pixels: largest difference {self.difference:.2g}"


@torch.no_grad()
def verify(
    net: Network, readers: Mapping[str, Network], sizes: Sequence[tuple[int, int, int]], bound: float, advice: str = ""
) -> tuple[Check, ...]:
    """Compares every reader's output with the network's at every size.

    Raises:
        ExportError: a reader that fails, gives another size, or differs by more than `bound`; ends in `advice`.
    """
    generator = torch.Generator().manual_seed(0)
    checks = []
    for images, height, width in sizes:
        lq = torch.rand(images, 3, height, width, generator=generator)
        expected = net(lq.clone())  # some networks change their input
        for name, reader in readers.items():
            where = f"{name}, {images} x {height} x {width}"
            try:
                found = reader(lq.clone())
            except Exception as error:  # whatever foreign runtimes trip over
                raise ExportError(f"verification failed ({where}): {reason(error, line=-1)}{advice}") from error
            if found.shape != expected.shape:
                raise ExportError(f"verification failed ({where}): the output is {tuple(found.shape)}, not {tuple(expected.shape)}{advice}")
            difference = float((found.float() - expected).abs().max())
            if not difference <= bound:  # NaN is no small difference
                raise ExportError(f"verification failed ({where}): outputs differ by {difference:.2g}, allowed is {bound:.2g}{advice}")
            checks.append(Check(name, (images, height, width), difference))
    return tuple(checks)


def reason(error: BaseException, line: int = 0) -> str:
    """An error of another program's in one line: its kind, and one of the lines of its text."""
    lines = [text for text in str(error).splitlines() if text.strip()]
    return f"{type(error).__name__}: {lines[line].strip()[:200]}" if lines else type(error).__name__

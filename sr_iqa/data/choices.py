"""What an online strategy chose, remembered: one byte for each crop of a grid, shared by all runs and processes of a machine.

With `sampling.grid` crop corners lie on a grid, so crops recur, and the GT whose crop scores best need be found only once: later epochs and
runs read that GT's crop alone. A byte is a member, or UNKNOWN. Scores are those of the crops as they stand in the images, before flips.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_write

log = logging.getLogger(__name__)
UNKNOWN = 255
"""No crop has been scored here yet; sets have at most 255 GTs."""


class Choices:
    """A file of bytes, mapped into memory by every process that uses it; safe to pickle and to fork.

    Args:
        folder: where the file is, or will be; where it cannot be written, this process alone remembers.
        made_from: everything that the choices depend on (data, metric, strategy, crop size, grid): another file for each.
        sizes: (height, width) of the images of each set.
        gt_size, step: crop side, and the distance of the grid's corners, in GT pixels.
    """

    def __init__(self, folder: Path, made_from: dict[str, Any], sizes: Sequence[tuple[int, int]], gt_size: int, step: int) -> None:
        key = json.dumps(made_from, sort_keys=True)
        self.path = folder / f"{blake2b(key.encode(), digest_size=8).hexdigest()}.choices"
        self.step = step
        rows = np.array([[max((side - gt_size) // step + 1, 0) for side in size] for size in sizes], np.int64)
        self._columns, self._starts = rows[:, 1], np.concatenate([[0], np.cumsum(rows.prod(axis=1))])
        self._bytes: np.ndarray | None = None
        self._noted: list[tuple[Tensor, Tensor]] = []
        self._create(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None, "_noted": []}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def place(self, i: int, y: int, x: int) -> int:
        """The byte of set i's crop at corner (y, x), multiples of `step`."""
        return int(self._starts[i] + y // self.step * self._columns[i] + x // self.step)

    def corners(self, i: int) -> list[tuple[int, int]]:
        """All corners (y, x) of set i, in the order of their bytes."""
        count, columns = int(self._starts[i + 1] - self._starts[i]), int(self._columns[i])
        return [(k // columns * self.step, k % columns * self.step) for k in range(count)]

    def member(self, place: int) -> int:
        """The remembered member, or UNKNOWN."""
        return int(self.bytes[place])

    def note(self, places: Tensor, members: Tensor) -> None:
        """Keeps the choices (B,) of crops at `places` (B,), both on any device, until `flush`: nobody waits for the GPU here."""
        self._noted.append((places, members))

    def flush(self) -> None:
        """Writes down what has been noted."""
        if self._noted:
            places, members = (torch.cat(column).cpu().numpy() for column in zip(*self._noted, strict=True))
            self.bytes[places] = members
            self._noted.clear()

    @property
    def known(self) -> float:
        """Share of all crops that are remembered, in [0, 1]."""
        return float(np.mean(self.bytes != UNKNOWN)) if len(self) else 1.0

    @property
    def bytes(self) -> np.ndarray:
        """uint8 (len(self),), the same memory in all processes where the file can be written."""
        if self._bytes is None:
            self._bytes = self._mapped()
        return self._bytes

    def _create(self, key: str) -> None:
        """The file, all unknown, unless it is there; a note of what it was made from beside it."""
        if self.path.is_file() and self.path.stat().st_size == len(self) and not self.path.is_symlink():  # a link is never written through
            return
        try:
            with atomic_write(self.path.with_suffix(".json")) as path:
                path.write_text(key + "\n", encoding="utf-8")
            with atomic_write(self.path) as path:
                path.write_bytes(bytes([UNKNOWN]) * len(self))
        except OSError as error:
            log.info("%s cannot be written (%s): choices are remembered by this run alone", self.path.parent, error.strerror)

    def _mapped(self) -> np.ndarray:
        try:
            with self.path.open("r+b" if os.access(self.path, os.W_OK) else "rb") as file:
                writable = file.writable()
                mapped = mmap.mmap(file.fileno(), len(self), access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_COPY)
            return np.frombuffer(mapped, np.uint8)
        except (OSError, ValueError):  # not there, or cut
            return np.full(len(self), UNKNOWN, np.uint8)

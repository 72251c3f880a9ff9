"""Running means on the device: nothing here makes the host wait for the GPU until `read`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.gtset import STANDINGS
from ..distributed import gather_objects, is_main
from ..errors import UserError


class NonFiniteError(UserError):
    """A loss or a gradient became NaN or infinite."""


@dataclass(frozen=True)
class Reading:
    """What happened since the last reading, over all processes."""

    means: dict[str, float]
    chosen: list[int]
    """How often each member of the GT sets (0 = original) supervised a sample; empty where no GTs are chosen."""
    standings: dict[str, int]
    """The same by what the GTs are in their sets (gtset.STANDINGS), as far as they occurred."""


class Meter:
    """Sums of the losses and counts of the chosen GTs since the last reading, and a flag that falls at the first non-finite value.

    While the flag `healthy` is down the optimizers change nothing (steps.py), so later steps stay finite and only the guilty terms'
    sums are spoilt when the host looks.
    """

    def __init__(self, device: torch.device, members: int = 0) -> None:
        """`members`: how many GTs a set has at most; 0 where none are chosen."""
        self._device = device
        self._places = members, len(STANDINGS)
        self.healthy = torch.ones((), dtype=torch.bool, device=device)
        self._broken_at = torch.full((), -1, device=device)
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._chosen = torch.zeros(self._places, dtype=torch.int64, device=self._device)

    def add(self, name: str, value: Tensor) -> None:
        """Adds a scalar to the mean called `name`."""
        value = value.detach().double()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def add_chosen(self, member: Tensor, standing: Tensor) -> None:
        """Counts the members (B,) that supervise a batch, and their standings (B,)."""
        self._chosen.index_put_((member, standing), torch.ones_like(member), accumulate=True)

    def judge(self, value: Tensor, step: int) -> None:
        """Lowers the flag for good if the scalar `value` is not finite."""
        finite = torch.isfinite(value.detach())
        self._broken_at = torch.where(self.healthy & ~finite, step, self._broken_at)
        self.healthy = self.healthy & finite

    def read(self) -> Reading:
        """Means over all processes since the last reading; every process must call it. Raises as `state`."""
        merged = self.state()
        self._clear()
        means = {name: total / merged["counts"][name] for name, total in merged["sums"].items()}
        by_standing = zip(STANDINGS, map(sum, zip(*merged["chosen"], strict=True)), strict=False)  # nothing where there are no members
        return Reading(means, [sum(row) for row in merged["chosen"]], {name: count for name, count in by_standing if count})

    def state(self) -> dict[str, Any]:
        """The sums of all processes as plain values, without clearing them; every process must call it.

        Stored in checkpoints, so that a resumed run logs what an undisturbed one would.

        Raises:
            NonFiniteError: a value was not finite; names the terms and the step.
        """
        names = list(self._sums)
        sums = torch.stack([self._sums[name] for name in names]).tolist() if names else []
        own = {"sums": dict(zip(names, sums, strict=True)), "counts": self._counts, "chosen": self._chosen.tolist()}
        parts = gather_objects([{**own, "broken_at": int(self._broken_at)}])
        every = dict.fromkeys(name for part in parts for name in part["sums"])
        merged = {
            "sums": {name: sum(part["sums"].get(name, 0.0) for part in parts) for name in every},
            "counts": {name: sum(part["counts"].get(name, 0) for part in parts) for name in every},
            "chosen": np.sum([part["chosen"] for part in parts], axis=0).tolist(),
        }
        _refuse_non_finite(merged["sums"], max(part["broken_at"] for part in parts))
        return merged

    def load(self, state: dict[str, Any]) -> None:
        """Takes up saved sums; one process carries them for all."""
        self._clear()
        if is_main():
            self._sums = {name: torch.tensor(total, dtype=torch.float64, device=self._device) for name, total in state["sums"].items()}
            self._counts = dict(state["counts"])
            self._chosen = torch.tensor(state["chosen"], dtype=torch.int64, device=self._device)


def _refuse_non_finite(sums: dict[str, float], broken_at: int) -> None:
    guilty = [name for name, total in sums.items() if not math.isfinite(total)]
    if guilty or broken_at >= 0:
        at = f"at step {broken_at}" if broken_at >= 0 else "since the last log line"
        raise NonFiniteError(
            f"{', '.join(guilty) or 'a gradient'} became NaN or infinite {at}. That step was not applied and nothing was saved after it.\n"
            "Look at the samples of that step (sr-iqa data show), lower the learning rate, set train.grad_clip, or use precision: no."
        )

"""The training stream: sample n is a pure function of (seed, n), whatever workers, processes, prefetching and resuming do.

Every purpose draws from a Philox generator of its own, keyed by (seed, purpose) and positioned at n, so that variants that differ in one
purpose (the GT choice, say) share all others. Each epoch is a permutation of the sets keyed by n // N.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from threading import Thread
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..config.degradation import DegradationOptions
from ..config.models import TrainDataOptions
from ..errors import UserError
from ..sampling import Strategy, choose
from . import degradations
from .choices import UNKNOWN, Choices
from .degradations import Degradation
from .gtset import LQ, GTSet, Member
from .store import Reader

PURPOSES = {"set": 0, "crop": 1, "flip": 2, "degradation": 3, "gt": 4, "negative": 5}
"""One counter each. The numbers are part of every run's identity: never change them."""
ONLINE = -1
"""The member of a sample whose GT is chosen in the training step."""


def crop_step(data: TrainDataOptions, scale: int) -> int:
    """Distance of possible crop corners in GT pixels: whole LQ pixels, and multiples of sampling.grid."""
    return math.lcm(scale, data.sampling.grid)


def rng(seed: int, purpose: str, n: int) -> np.random.Generator:
    """The generator of one purpose for sample (or epoch) n."""
    return np.random.Generator(np.random.Philox(key=[seed, PURPOSES[purpose]], counter=[0, 0, n, 0]))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return rng(seed, "set", epoch).permutation(length)


@dataclass(frozen=True)
class Plan:
    """Everything drawn for sample n; rendering it draws nothing more."""

    n: int
    index: int
    """Of the set in the reader."""
    y: int
    x: int
    """Top left of the GT crop; multiples of the scale."""
    hflip: bool
    vflip: bool
    transpose: bool
    degradation: Degradation | None
    """None where the LQ is given."""
    member: int
    """The chosen GT, or ONLINE."""
    negative: int | None
    """A negative GT for HGGT's Pos+Neg loss; None where the set has none or it is not wanted."""


class TrainStream(Dataset[dict[str, Tensor]]):
    """Sample n >= 0 -> {lq (3, h, w), gts (M, 3, H, W), standings (M,), member, n}.

    Images are uint8 RGB; M = 1, or K + 1 where an online strategy has yet to choose; `standings` are the GTs' places in gtset.STANDINGS.
    With `choices`, which remember online choices, also place, the crop's in it, and flips (3,), hflip, vflip and transpose.

    With `needs_negative` also original, negative (3, H, W), agreement, the share of annotators behind the negative label (0 where the set
    has no negative; the negative is then the original), and agreements (K + 1,), the same share for every GT's own label (the original: 1).
    `scores` is (sets of the reader, K + 1), signed.
    Raises UserError at once for images that are smaller than the crop, LQs of a wrong size, and scores that are no numbers.
    """

    def __init__(
        self,
        reader: Reader,
        data: TrainDataOptions,
        scale: int,
        seed: int,
        strategy: Strategy,
        scores: np.ndarray | None = None,
        needs_negative: bool = False,
        choices: Choices | None = None,
    ) -> None:
        if data.gt_size % scale:
            raise UserError(f"datasets.train.gt_size: {data.gt_size} is no multiple of the scale {scale}")
        self.reader, self.scale, self.seed, self.strategy = reader, scale, seed, strategy
        self.gt_size, self.use_hflip, self.use_rot = data.gt_size, data.use_hflip, data.use_rot
        self.degradation = data.degradation or DegradationOptions()
        self.needs_negative, self.choices = needs_negative, choices
        self.step = crop_step(data, scale)
        self.indices = [i for i, s in enumerate(reader.sets) if s.positive.any() or not strategy.needs_labels]
        self.dropped = len(reader.sets) - len(self.indices)
        """Sets left out because the strategy draws among positives and they have none."""
        if not self.indices:
            raise UserError(f"{data.dataroot_gt}: none of {self.dropped} sets has a positive GT, which the strategy needs")
        if data.degradation is not None and reader.sets[self.indices[0]].lq is not None:
            raise UserError(f"{data.dataroot_gt} holds LQs, none can be synthesised: remove datasets.train.degradation, or pack it anew")
        self._check_sizes()
        self._shares = None if strategy.online else self._probabilities(scores)

    def __len__(self) -> int:
        return len(self.indices)

    def _check_sizes(self) -> None:
        for i in self.indices:
            gt_set, (h, w) = self.reader.sets[i], self.reader.size(i)
            if min(h, w) < self.gt_size:
                raise UserError(f"{gt_set.paths[0]}: is {w}x{h}, smaller than the crop (datasets.train.gt_size: {self.gt_size})")
            if gt_set.lq is not None and self.reader.size(i, LQ) != (h // self.scale, w // self.scale):
                y, x = self.reader.size(i, LQ)
                raise UserError(
                    f"{gt_set.lq}: is {x}x{y}, but at scale {self.scale} a GT of {w}x{h} needs {w // self.scale}x{h // self.scale}"
                )

    def _probabilities(self, scores: np.ndarray | None) -> list[np.ndarray]:
        if scores is not None:
            for i, member in np.argwhere(~np.isfinite(scores)):
                raise UserError(
                    f"{self.reader.sets[i].paths[member]}: its score is {scores[i, member]}; score it again with `sr-iqa data score`"
                )
        rows = [None if scores is None else scores[i] for i in self.indices]
        return [self.strategy.probabilities(row, self.reader.sets[i].positive) for row, i in zip(rows, self.indices, strict=True)]

    def set_index(self, n: int) -> int:
        """Which of the reader's sets sample n comes from."""
        return self.indices[self._usable(n)]

    def probabilities_of(self, n: int) -> np.ndarray:
        """(K + 1,) the probability of each member of sample n's set; strategies that choose online have none."""
        if self._shares is None:
            raise ValueError("the strategy chooses in the training step")
        return self._shares[self._usable(n)]

    def _usable(self, n: int) -> int:
        epoch, place = divmod(n, len(self))
        return int(_permutation(self.seed, epoch, len(self))[place])

    def plan(self, n: int) -> Plan:
        """What sample n is."""
        usable = self._usable(n)
        index = self.indices[usable]
        gt_set = self.reader.sets[index]
        corners = rng(self.seed, "crop", n).random(2)
        y, x = (
            int(u * ((side - self.gt_size) // self.step + 1)) * self.step for u, side in zip(corners, self.reader.size(index), strict=True)
        )
        hflip, vflip, transpose = rng(self.seed, "flip", n).random(3) < 0.5
        synthesised = gt_set.lq is None
        return Plan(
            n=n,
            index=index,
            y=y,
            x=x,
            hflip=bool(hflip) and self.use_hflip,
            vflip=bool(vflip) and self.use_rot,
            transpose=bool(transpose) and self.use_rot,
            degradation=degradations.draw(self.degradation, rng(self.seed, "degradation", n)) if synthesised else None,
            member=self._remembered(index, y, x) if self._shares is None else self._drawn(usable, n),
            negative=self._negative(gt_set, n) if self.needs_negative else None,
        )

    def _drawn(self, usable: int, n: int) -> int:
        assert self._shares is not None
        return choose(self._shares[usable], rng(self.seed, "gt", n).random())

    def _remembered(self, index: int, y: int, x: int) -> int:
        """What an online strategy chose for this crop before, or ONLINE."""
        member = UNKNOWN if self.choices is None else self.choices.member(self.choices.place(index, y, x))
        return member if member < len(self.reader.sets[index].paths) else ONLINE  # UNKNOWN is no member, nor is a damaged byte

    def _negative(self, gt_set: GTSet, n: int) -> int | None:
        members = np.flatnonzero(gt_set.negative)
        return int(members[rng(self.seed, "negative", n).integers(len(members))]) if len(members) else None

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        plan = self.plan(n)
        gt_set = self.reader.sets[plan.index]
        members = range(len(gt_set.paths)) if plan.member == ONLINE else [plan.member]
        negative = plan.negative or 0
        crops = {member: _chw(crop) for member, crop in self.render(plan, [*members, negative]).items()}
        sample = {
            "lq": crops[LQ],
            "gts": torch.stack([crops[member] for member in members]),
            "standings": torch.tensor([gt_set.standing(member) for member in members]),
            "member": torch.tensor(plan.member),
            "n": torch.tensor(n),
        }
        if self.choices is not None:
            sample["place"] = torch.tensor(self.choices.place(plan.index, plan.y, plan.x))
            sample["flips"] = torch.tensor([plan.hflip, plan.vflip, plan.transpose])
        if self.needs_negative:
            sample["original"], sample["negative"] = crops[0], crops[negative]
            sample["agreement"] = torch.tensor(gt_set.agreement(negative) if negative else 0.0, dtype=torch.float32)
            shares = [1.0, *(gt_set.agreement(member) for member in range(1, len(gt_set.paths)))]
            sample["agreements"] = torch.tensor(shares, dtype=torch.float32)
        return sample

    def render(self, plan: Plan, members: Iterable[int]) -> dict[Member, np.ndarray]:
        """The crops of a sample, flipped as planned, uint8 (h, w, 3): LQ, the original (0) and the members asked for."""
        lq, original = self._lq_and_original(plan)
        crops: dict[Member, np.ndarray] = {LQ: lq, 0: original}
        for member in set(members) - {0}:
            crops[member] = self._gt_crop(plan, member)
        return {member: _flipped(crop, plan) for member, crop in crops.items()}

    def _gt_crop(self, plan: Plan, member: int) -> np.ndarray:
        return self.reader.crop(plan.index, member, plan.y, plan.x, self.gt_size, self.gt_size)

    def _lq_and_original(self, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        """The LQ and the original's crop, not flipped; a synthesised LQ comes from one read of the crop with its margin."""
        size, small = self.gt_size, self.gt_size // self.scale
        if plan.degradation is None:
            lq = self.reader.crop(plan.index, LQ, plan.y // self.scale, plan.x // self.scale, small, small)
            return lq, self._gt_crop(plan, 0)
        box = degradations.window(plan.degradation, (plan.y, plan.x, size, size), self.reader.size(plan.index), self.scale)
        around = self.reader.crop(plan.index, 0, *box)
        y, x = plan.y - box[0], plan.x - box[1]
        lq = degradations.apply(around, plan.degradation, self.scale)
        return lq[y // self.scale :, x // self.scale :][:small, :small], around[y : y + size, x : x + size]

    def describe(self, n: int) -> dict[str, Any]:
        """The drawn parameters of sample n, by name."""
        plan = self.plan(n)
        gt_set = self.reader.sets[plan.index]
        described: dict[str, Any] = {
            "n": n,
            "epoch": n // len(self),
            "set": gt_set.name,
            "crop": f"y {plan.y}, x {plan.x}, side {self.gt_size}",
            "flips": ", ".join(name for name in ("hflip", "vflip", "transpose") if getattr(plan, name)) or "none",
            **(degradations.describe(plan.degradation) if plan.degradation else {"given LQ": str(gt_set.lq)}),
            "labels": ", ".join(gt_set.effective) or "none",
            "member": "chosen in the training step" if plan.member == ONLINE else plan.member,
        }
        if plan.member != ONLINE:
            described["probabilities"] = self.probabilities_of(n).round(4).tolist()
        if self.needs_negative:
            described["negative"] = plan.negative
        return described


def _flipped(image: np.ndarray, plan: Plan) -> np.ndarray:
    image = image[:, ::-1] if plan.hflip else image
    image = image[::-1] if plan.vflip else image
    return image.transpose(1, 0, 2) if plan.transpose else image


def _chw(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())  # images of one column would else stay read-only memory


def train_loader(
    stream: Dataset[dict[str, Tensor]],
    batch_size: int,
    accum: int = 1,
    rank: int = 0,
    world: int = 1,
    start_n: int = 0,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[dict[str, Tensor]]:
    """Micro-batches of `stream` for this rank, forever, from sample `start_n` on (a multiple of the global batch on resuming).

    `stream` is a TrainStream or any other function of n. One optimizer step of all ranks takes the next batch_size * world * accum samples;
    micro-batch m of rank r is block m * world + r.
    """
    loader = DataLoader(
        _Guarded(stream),
        batch_sampler=_Blocks(batch_size, accum, rank, world, start_n),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_init_worker,
        prefetch_factor=prefetch if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Blocks:
    """This rank's sample numbers, micro-batch by micro-batch."""

    batch_size: int
    accum: int
    rank: int
    world: int
    start_n: int

    def __iter__(self) -> Iterator[list[int]]:
        step_start = self.start_n
        while True:
            for micro in range(self.accum):
                first = step_start + (micro * self.world + self.rank) * self.batch_size
                yield list(range(first, first + self.batch_size))
            step_start += self.batch_size * self.world * self.accum


class _Guarded(Dataset[Any]):
    """Hands a user's error over as a value: raised in a worker it would reach the user inside a traceback."""

    def __init__(self, stream: Dataset[dict[str, Tensor]]) -> None:
        self.stream = stream

    def __getitem__(self, n: int) -> dict[str, Tensor] | UserError:
        try:
            return self.stream[n]
        except UserError as error:
            return UserError(str(error))


def collate(samples: list[Any]) -> Any:
    """The batch, or the first user's error. Of a TrainStream's samples also `open`: those (B',) for which an online strategy has yet to
    choose; GTs of the others are padded."""
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    if errors:
        return errors[0]
    if "gts" not in samples[0]:
        return default_collate(samples)
    most = max(len(sample["gts"]) for sample in samples)
    for sample in samples:
        for name in ("gts", "standings"):
            short = most - len(sample[name])
            if short:
                sample[name] = torch.cat([sample[name], sample[name][:1].expand(short, *sample[name].shape[1:])])
    batch = default_collate(samples)
    batch["open"] = torch.nonzero(batch["member"] == ONLINE)[:, 0]
    return batch


def _init_worker(_: int) -> None:
    """Workers leave the cores to each other. Stop signals to the whole group are for the training process, which still wants batches to
    finish its step: workers leave when their parent asks them to."""
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_leave_when_asked, args=(os.getppid(),), daemon=True).start()


def _leave_when_asked(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)

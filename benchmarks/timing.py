"""Contenders that do the same work, timed side by side: rounds are interleaved, so that a busy machine slows all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of every round of one contender."""

    wall: list[float]
    cpu: list[float]
    """Of this process, all its threads."""

    @property
    def seconds(self) -> float:
        """Median wall time on a GPU, median CPU time else: other jobs on the machine do not count."""
        return statistics.median(self.wall if torch.cuda.is_available() else self.cpu)

    @property
    def wall_seconds(self) -> float:
        """Median wall time, for work of several threads."""
        return statistics.median(self.wall)


def race(contenders: Mapping[str, Work], rounds: int = 7, warmup: int = 2) -> dict[str, Timing]:
    """Runs each contender once per round, in an order that turns from round to round; the first `warmup` rounds are not counted."""
    names = list(contenders)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for n in range(warmup + rounds):
        turn = n % len(names)
        for name in names[turn:] + names[:turn]:
            gc.collect()
            _finish()
            started, busy = time.perf_counter(), time.process_time()
            contenders[name]()
            _finish()
            if n >= warmup:
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - busy)
    return {name: Timing(wall[name], cpu[name]) for name in names}


def on_one_core() -> None:
    """From here on neither torch nor OpenCV use more threads than one."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def repeated(work: Work, times: int) -> Work:
    """The work several times over, for what is too short to be timed once."""

    def run() -> None:
        for _ in range(times):
            work()

    return run


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

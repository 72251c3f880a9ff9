"""Reading and scoring many images, whatever they are: the loop behind scoring a data set and evaluating outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch

from sr_iqa.threads import in_threads, torch_threads_apart

Item = TypeVar("Item")
Images = TypeVar("Images")
Result = TypeVar("Result")


class Judge(Protocol):
    """What is asked of a metric here."""

    device: torch.device

    @property
    def threadable(self) -> bool:
        """Threads may call it at the same time."""
        ...


def apart(judges: Sequence[Judge]) -> bool:
    """Whether images are best scored one per core: on a CPU, if all `judges` can be shared by threads."""
    return all(judge.threadable and judge.device.type == "cpu" for judge in judges)


def judged(
    read: Callable[[Item], Images], score: Callable[[Item, Images], Result], items: Iterable[Item], one_per_core: bool
) -> Iterator[Result]:
    """score(item, read(item)) of every item, in order, without gradients.

    Items are read ahead in threads, and with `one_per_core` they are scored there too; otherwise they are scored one after the other, by
    the GPU or by all cores together.
    """

    def read_and_score(item: Item) -> Result:
        with torch.no_grad():
            return score(item, read(item))

    if one_per_core:
        with torch_threads_apart() as threads:
            yield from in_threads(read_and_score, items, threads)
        return
    for item, images in in_threads(lambda item: (item, read(item)), items):
        with torch.no_grad():
            result = score(item, images)
        yield result

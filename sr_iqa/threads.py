"""Work on many items in threads, for what releases the GIL: decoding, compressing, and torch's operators."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> Iterator[Result]:
    """What `work` makes of every item, in order, from `workers` threads (one per core by default).

    Memory holds at most three results per worker that nobody has taken yet. An exception is raised at its item's turn; what was not begun
    then is not done.
    """
    workers = workers or os.cpu_count() or 1
    coming = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque(pool.submit(work, item) for item in islice(coming, 3 * workers))
        try:
            while ahead:
                done = ahead.popleft().result()
                ahead.extend(pool.submit(work, item) for item in islice(coming, 1))
                yield done
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def torch_threads_apart() -> Iterator[int]:
    """For the length of the block torch works in one thread per caller; gives the number of callers that then keep the cores busy.

    Two images in two threads are done sooner than two images one after the other by two threads together.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)

"""The one file that knows about processes: rank, share of the work, gather, agreement.

Everything works in a single process that was started without a launcher, and then costs nothing.
Under `accelerate launch` the figures come from Accelerate's PartialState.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch

from .errors import UsageError, UserError

T = TypeVar("T")
PATIENCE_S = 1800.0
"""How long processes wait for one that does not answer, unless the environment says SR_IQA_TIMEOUT_S. Long, because the shares of a scoring
run or a validation may take different times."""


def launched_size() -> int:
    """The number of processes that the launcher says it started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _state() -> Any:
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # the Accelerator heeds the variable, PartialState alone does not
    return PartialState(cpu, **({"timeout": _patience()} if launched_size() > 1 else {}))


def _patience() -> timedelta:
    value = os.environ.get("SR_IQA_TIMEOUT_S", str(PATIENCE_S))
    try:
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"SR_IQA_TIMEOUT_S is {value}, which is no number of seconds") from error


def rank() -> int:
    """This process's number, 0 to world_size() - 1."""
    return _state().process_index if launched_size() > 1 else 0


def world_size() -> int:
    """The number of processes that work together."""
    return _state().num_processes if launched_size() > 1 else 1


def is_main() -> bool:
    """True in the one process that writes files and speaks."""
    return rank() == 0


def wait_for_everyone() -> None:
    """Returns when all processes have come here."""
    if world_size() > 1:
        _state().wait_for_everyone()


def share(n: int) -> range:
    """The indices of 0..n-1 that are this process's part of the work: every world_size()-th one.

    No index is given twice and none is padded, so a mean over the gathered results is exact.
    """
    return range(rank(), n, world_size())


def gather_objects(items: list[T]) -> list[T]:
    """All processes' items in order of rank, the same list in every process. Items must be picklable."""
    if world_size() == 1:
        return list(items)
    from accelerate.utils import gather_object

    return gather_object(list(items))


@contextmanager
def contact_with_others() -> Iterator[None]:
    """Turns what the communication library says, when a process is gone or does not answer, into words.

    Raises:
        UserError: contact was lost while the block ran.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo/" in str(error)
        if not lost or launched_size() == 1:
            raise
        raise UserError(
            f"process {os.environ.get('RANK', '?')} of {launched_size()} lost contact with another one: it ended, or its machine cannot be "
            f"reached; look there for the cause.\nThe same command, given on all machines, goes on from the last checkpoint. "
            f"({str(error).splitlines()[0]})"
        ) from error


def check_launch() -> None:
    """Refuses a launch whose processes do not know of each other.

    `accelerate launch --multi_gpu` on a machine without GPUs starts processes that each believe to be the only one;
    they would all train the same network and overwrite each other's files.

    Raises:
        UsageError: WORLD_SIZE differs from Accelerate's number of processes.
    """
    if launched_size() != world_size():
        raise UsageError(
            f"the launcher started {launched_size()} processes, but Accelerate sees {world_size()}. Without GPUs launch with\n"
            "  ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N -m sr_iqa train -opt FILE"
        )


class Agreement:
    """Lets all processes act on a flag that some of them may see earlier than others, without waiting for the GPU.

    The question is asked on the CPU, through a group of its own where the main one is the GPU's.
    """

    def __init__(self) -> None:
        self._group: Any = None
        if world_size() > 1:
            self._group = torch.distributed.new_group(backend="gloo", timeout=_patience())

    def any(self, flag: bool) -> bool:
        """True in all processes if `flag` is true in any. Every process must call it."""
        if self._group is None:
            return flag
        value = torch.tensor(int(flag))
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(value.item())

"""What surrounds every training run, a network's (trainer.py) and a metric's (metric_trainer.py): lock, devices, signals, reports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ..config.metric_models import MetricOptions
from ..config.models import Options
from ..distributed import contact_with_others, is_main, wait_for_everyone
from ..errors import UsageError
from ..modes import tf32
from . import state as states
from .folder import RunFolder, archive, only_run_in, prepare
from .logs import Logs
from .stopping import Stop

if TYPE_CHECKING:
    from accelerate import Accelerator


def earlier(folder: RunFolder, options: Options | MetricOptions, fresh: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """The state to go on from, on the CPU, and what is to be said of it; (None, []) where a run starts anew.

    Raises UserError where the run was started with other options.
    """
    saved, notes = (None, []) if fresh else states.newest_state(folder.states)
    if saved:
        states.check_unchanged(saved["options"], states.plain(options), folder.root, type(options))
    return saved, notes


@contextmanager
def surroundings(options: Options | MetricOptions, folder: RunFolder) -> Iterator[tuple[Accelerator, Stop]]:
    """Holds the run's lock, turns signals into a request to stop and lost contact into words, and sets precision and determinism."""
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(only_run_in(folder))
        stack.enter_context(contact_with_others())
        stack.enter_context(determinism(options.deterministic))
        if options.precision != "no":
            stack.enter_context(tf32(True))
        stop = stack.enter_context(Stop())
        yield make_accelerator(options, folder), stop


@contextmanager
def reports(
    folder: RunFolder,
    options: Options | MetricOptions,
    accelerator: Accelerator,
    step: int,
    *,
    fresh: bool,
    quiet: bool,
    notes: Sequence[str],
) -> Iterator[Logs]:
    """Makes the run's folder, an earlier one archived if the run is `fresh`, and its logs, which begin at `step` with the notes."""
    if is_main():
        if fresh:
            archive(folder)
        prepare(folder, options, step)
    wait_for_everyone()
    total = options.train.total_iter if options.train else 0
    logs = Logs(folder, accelerator, step, total, options.logger.use_tb_logger, quiet)
    with logs, contact_with_others():  # inside, so that status.json has the words
        for note in notes:
            logs.event(note)
        yield logs


def make_accelerator(options: Options | MetricOptions, folder: RunFolder) -> Accelerator:
    """Devices, processes, precision and accumulation."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    if options.precision == "fp16" and not torch.cuda.is_available():
        raise UsageError("precision fp16 needs a GPU; use bf16 or no")
    accumulation = options.train.accum_iter if options.train else 1
    # Accelerate keeps the first run's precision for the whole process, and refuses another one, until its state is dropped.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision="no" if options.precision == "tf32" else options.precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulation, sync_with_dataloader=False),
        log_with="tensorboard" if options.logger.use_tb_logger else None,
        project_dir=folder.root,
        # Buffers are functions of weights that are equal everywhere; broadcasting them between two passes of the discriminator would
        # overwrite what its backward pass needs.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Bit-identical kernels on CUDA, and an error from those that have none."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted == before:  # the switch imports torch's compiler, which takes seconds
        yield
        return
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)

"""The SR training loop: build, step, log, save, validate. One clock: optimizer steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..checkpoints import with_network
from ..config.models import DataOptions, Options
from ..data.sets import load_sets
from ..data.store import Reader, is_store
from ..data.stream import train_loader
from ..distributed import check_launch, contact_with_others, gather_objects, is_main, rank, wait_for_everyone, world_size
from ..errors import UsageError
from ..evaluation import evaluate
from ..images import write_png
from ..iqa.metrics import Metric, create_metric
from ..modes import tf32
from . import state as states
from .build import Run, build
from .checkpoint import averaged, capture, restore, save_networks
from .folder import RunFolder, archive, only_run_in, prepare, run_folder
from .logs import WAITING, Logs, Stopwatch, is_finished, messages_to
from .memory import STEP, VALIDATION, memory_for
from .meter import Meter
from .rehearsal import rehearse
from .samples import sample_sheet
from .schedules import is_due, learning_rate
from .steps import train_step
from .stopping import Stop, StopRequested

if TYPE_CHECKING:
    from accelerate import Accelerator


def train(options: Options, *, fresh: bool = False, quiet: bool = False) -> Path:
    """Trains a network as the options say, going on where an earlier run of the same name stopped; returns the run's folder.

    Args:
        options: checked options (check.check).
        fresh: archive the earlier run and start at step 0.
        quiet: nothing on the screen; the files are written all the same.

    Raises:
        UserError: options, data or weights that cannot be used; a loss that is no longer finite.
        SystemExit: after SIGTERM or SIGINT, when everything has been saved (143, 130 or 138).
    """
    check_launch()
    options = with_network(options)
    folder = run_folder(options)
    saved, notes = (None, []) if fresh else states.newest_state(folder.states)
    if saved:
        states.check_unchanged(saved["options"], states.plain(options), folder.root)
        if options.train and saved["step"] >= options.train.total_iter and is_finished(folder):
            return folder.root
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(only_run_in(folder))
        stack.enter_context(contact_with_others())
        stack.enter_context(determinism(options.deterministic))
        if options.precision != "no":
            stack.enter_context(tf32(True))
        stop = stack.enter_context(Stop())
        accelerator = make_accelerator(options, folder)
        with messages_to(notes.append):
            run = build(options, accelerator)
        rehearse(run)
        meter = Meter(accelerator.device, run.members)
        if saved:
            restore(run, meter, saved, folder.root)
            notes.append(f"resumed from {folder.root} at step {run.step}")
        if is_main():
            if fresh:
                archive(folder)
            prepare(folder, options, run.step)
        wait_for_everyone()
        logs = Logs(folder, accelerator, run.step, run.train.total_iter, options.logger.use_tb_logger, quiet)
        with logs, contact_with_others():  # inside, so that status.json has the words
            for note in notes:
                logs.event(note)
            loop(run, meter, folder, logs, stop)
    return folder.root


def loop(run: Run, meter: Meter, folder: RunFolder, logs: Logs, stop: Stop) -> None:
    """From run.step to total_iter."""
    total, logger, val = run.train.total_iter, run.options.logger, run.options.val
    with messages_to(logs.event):
        held_out = open_held_out(run)
    watch = Stopwatch()
    samples = _samples(run)
    try:
        if is_due(run.step, val.val_freq, total) and not gather_objects([logs.validated(run.step)])[0]:
            validate(run, held_out, folder, logs, stop)
        while run.step < total:
            with watch.spending("data"):
                batches = [next(samples) for _ in range(run.train.accum_iter)]
            with memory_for("a training step", STEP):
                train_step(run, batches, meter)
            watch.steps += 1
            logs.advance(run.step)
            if is_due(run.step, logger.print_freq, total):
                flush_choices(run)
                logs.losses(run.step, meter.read(), _rate(run), speed := watch.read(run.global_batch))
                if speed["data_share"] > WAITING and watch.readings > 1:  # workers start in the first
                    logs.once(waiting(run))
            stop.check(run.step)
            with watch.spending("other"):
                if is_due(run.step, logger.save_checkpoint_freq, total):
                    save(run, meter, folder)
                if is_due(run.step, val.val_freq, total):
                    validate(run, held_out, folder, logs, stop)
    except StopRequested:
        save(run, meter, folder)
        logs.event(f"stopped after step {run.step}, everything is saved; the same command goes on from there")
        raise SystemExit(stop.exit_code) from None


def save(run: Run, meter: Meter, folder: RunFolder) -> None:
    """Network weights, then the training state that makes them part of the run. Nothing is written after a non-finite value."""
    readings = meter.state()
    flush_choices(run)
    if is_main():
        save_networks(run, folder)
        states.save_state(folder.states, capture(run, readings), run.options.logger.keep_checkpoints)
    wait_for_everyone()


def waiting(run: Run) -> str:
    """What to do about a run that waits for its samples."""
    data = run.data
    packed = "" if is_store(data.dataroot_gt) or data.type == "single_gt" else ", or pack the data once (sr-iqa data pack)"
    return (
        f"more than {WAITING:.0%} of the time goes into waiting for samples: raise datasets.train.num_worker_per_gpu"
        f" (now {data.num_worker_per_gpu}; {os.cpu_count()} CPU cores){packed}"
    )


def flush_choices(run: Run) -> None:
    """Lets all processes and later runs know what the online strategy has chosen."""
    if run.stream.choices is not None:
        run.stream.choices.flush()


class HeldOut(NamedTuple):
    """What every validation of a run needs, opened once."""

    data: DataOptions
    reader: Reader
    judges: list[Metric]


def open_held_out(run: Run) -> HeldOut | None:
    """None without datasets.val."""
    data = run.options.datasets.val
    if data is None:
        return None
    judges = [create_metric(name, run.accelerator.device) for name in run.options.val.metrics]
    return HeldOut(data, load_sets(data, run.options.scale)[0], judges)


def validate(run: Run, held_out: HeldOut | None, folder: RunFolder, logs: Logs, stop: Stop) -> None:
    """The evaluation protocol on datasets.val, shared between the processes, and a sheet of samples; nothing without datasets.val."""
    if held_out is None:
        return
    val, scale, (data, reader, judges) = run.options.val, run.options.scale, held_out
    images = folder.pictures / str(run.step) if val.save_img else None
    with memory_for("validation", VALIDATION), averaged(run) as net, net.register_forward_pre_hook(stop.check_alone):
        evaluation = evaluate(net, data, judges, scale, val.crop_border, val.tile, images, val.max_images, reader, val.against)
        if is_main():
            sheet = sample_sheet(net, reader, data, scale, val.tile)
            write_png(folder.pictures / f"{run.step}.png", sheet)
            logs.picture(run.step, sheet)
    logs.validation(run.step, {name: evaluation.mean(name) for name in evaluation.columns})
    wait_for_everyone()


def make_accelerator(options: Options, folder: RunFolder) -> Accelerator:
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


def _samples(run: Run) -> Iterator[dict[str, torch.Tensor]]:
    """This process's micro-batches from sample number run.n on, for ever."""
    data, accumulation = run.data, run.train.accum_iter
    return train_loader(
        run.stream, data.batch_size_per_gpu, accumulation, rank(), world_size(), start_n=run.n, workers=data.num_worker_per_gpu
    )


def _rate(run: Run) -> float:
    """The generator's learning rate in the step just made."""
    return learning_rate(run.train, run.generator.rates[0], run.step - 1)

"""The SR training loop: build, step, log, save, validate. One clock: optimizer steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ..checkpoints import with_network
from ..config.models import DataOptions, Options
from ..data.sets import load_sets
from ..data.store import Reader, is_store
from ..data.stream import train_loader
from ..distributed import check_launch, gather_objects, is_main, rank, wait_for_everyone, world_size
from ..evaluation import NOISE_BASE, evaluate
from ..images import write_png
from ..inference.base import Base
from ..iqa.metrics import Metric, create_metric
from ..iqa.noise import ALARM
from . import state as states
from .build import Run, build
from .checkpoint import averaged, base_of, capture, restore, save_networks
from .folder import RunFolder, run_folder
from .frame import earlier, reports, surroundings
from .logs import WAITING, Logs, Stopwatch, is_finished, messages_to
from .memory import STEP, VALIDATION, memory_for
from .meter import Meter
from .rehearsal import rehearse
from .samples import sample_sheet
from .schedules import is_due, learning_rate
from .steps import train_step
from .stopping import Stop, StopRequested


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
    saved, notes = earlier(folder, options, fresh)
    if saved and options.train and saved["step"] >= options.train.total_iter and is_finished(folder):
        return folder.root
    with surroundings(options, folder) as (accelerator, stop):
        with messages_to(notes.append):
            run = build(options, accelerator)
        rehearse(run)
        meter = Meter(accelerator.device, run.members)
        if saved:
            restore(run, meter, saved, folder.root)
            notes.append(f"resumed from {folder.root} at step {run.step}")
        with reports(folder, options, accelerator, run.step, fresh=fresh, quiet=quiet, notes=notes) as logs:
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
    base: Base | None
    """What the outputs of a run with an adapter or a reward are compared with."""


def open_held_out(run: Run) -> HeldOut | None:
    """None without datasets.val."""
    data = run.options.datasets.val
    if data is None:
        return None
    judges = [create_metric(name, run.accelerator.device) for name in run.options.val.metrics]
    return HeldOut(data, load_sets(data, run.options.scale)[0], judges, base_of(run.options, run.accelerator.device))


def validate(run: Run, held_out: HeldOut | None, folder: RunFolder, logs: Logs, stop: Stop) -> None:
    """The evaluation protocol on datasets.val, shared between the processes, and a sheet of samples; nothing without datasets.val."""
    if held_out is None:
        return
    val, scale, (data, reader, judges, base) = run.options.val, run.options.scale, held_out
    images = folder.pictures / str(run.step) if val.save_img else None
    with memory_for("validation", VALIDATION), averaged(run) as net, net.register_forward_pre_hook(stop.check_alone):
        evaluation = evaluate(net, data, judges, scale, val.crop_border, val.tile, images, val.max_images, reader, val.against, base)
        if is_main():
            sheet = sample_sheet(net, reader, data, scale, val.tile)
            write_png(folder.pictures / f"{run.step}.png", sheet)
            logs.picture(run.step, sheet)
    means = {name: evaluation.mean(name) for name in evaluation.columns}
    logs.validation(run.step, means)
    if (share := means.get(NOISE_BASE, 0.0)) > ALARM:
        logs.event(noise_alarm(share, run.step))
    wait_for_everyone()


def noise_alarm(share: float, step: int) -> str:
    """What a validation says whose outputs differ from the base network's by more noise than clean changes make (docs/iqa.md)."""
    return (
        f"alarm at step {step}: {share:.0%} of what separates the outputs from the base network's is structured noise (noise_base is above"
        f" {ALARM}): a metric may be pleased and the picture no better. Look at the pictures; a smaller reward weight or fewer steps help"
    )


def _samples(run: Run) -> Iterator[dict[str, torch.Tensor]]:
    """This process's micro-batches from sample number run.n on, for ever."""
    data, accumulation = run.data, run.train.accum_iter
    return train_loader(
        run.stream, data.batch_size_per_gpu, accumulation, rank(), world_size(), start_n=run.n, workers=data.num_worker_per_gpu
    )


def _rate(run: Run) -> float:
    """The generator's learning rate in the step just made."""
    return learning_rate(run.train, run.generator.rates[0], run.step - 1)

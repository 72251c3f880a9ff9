"""Training a metric on pairs: the loop beside trainer.py's, on the same folder, states, logs and clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor

from ..atomic import atomic_write
from ..config.metric_models import MetricOptions
from ..config.models import Options, TrainOptions
from ..distributed import check_launch, contact_with_others, gather_objects, is_main, rank, wait_for_everyone, world_size
from ..iqa.trained import save_metric
from ..modes import tf32
from . import state as states
from .folder import RunFolder, archive, only_run_in, prepare, run_folder
from .logs import Logs, Stopwatch, is_finished, messages_to
from .memory import STEP, VALIDATION, memory_for
from .meter import Meter
from .metric_build import MetricRun, build_metric_run
from .metric_pairs import pair_loader
from .metric_state import averaged, capture, header, restore
from .metric_validation import validate_pairs
from .optimizers import only_if, update_average
from .schedules import is_due, learning_rate
from .steps import clip, seed_draws, unit
from .stopping import Stop, StopRequested
from .trainer import determinism, make_accelerator

RESULT = "metric.safetensors"
"""The newest metric of a run, in its folder; earlier ones are in models/."""
MEASURED = "measured.safetensors"


def train_metric(options: MetricOptions, *, fresh: bool = False, quiet: bool = False) -> Path:
    """Trains a metric as the options say, going on where an earlier run of the same name stopped; returns its file.

    Args and raises as `trainer.train`.
    """
    check_launch()
    shared = cast(Options, options)  # the run's folder, states and logs look at nothing that a metric's options have not
    folder = run_folder(shared)
    saved, notes = (None, []) if fresh else states.newest_state(folder.states)
    if saved:
        states.check_unchanged(_with_defaults(saved["options"]), states.plain(shared), folder.root)
        if saved["step"] >= options.train.total_iter and is_finished(folder):
            return folder.root / RESULT
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(only_run_in(folder))
        stack.enter_context(contact_with_others())
        stack.enter_context(determinism(options.deterministic))
        if options.precision != "no":
            stack.enter_context(tf32(True))
        stop = stack.enter_context(Stop())
        accelerator = make_accelerator(shared, folder)
        with messages_to(notes.append):
            run = build_metric_run(options, accelerator, folder.root / MEASURED)
        meter = Meter(accelerator.device, 1)
        if saved:
            restore(run, saved, folder.root)
            meter.load(saved["meter"])
            notes.append(f"resumed from {folder.root} at step {run.step}")
        if is_main():
            if fresh:
                archive(folder)
            prepare(folder, shared, run.step)
        wait_for_everyone()
        logs = Logs(folder, accelerator, run.step, options.train.total_iter, options.logger.use_tb_logger, quiet)
        with logs, contact_with_others():
            for note in notes:
                logs.event(note)
            loop(run, meter, folder, logs, stop)
    return folder.root / RESULT


def loop(run: MetricRun, meter: Meter, folder: RunFolder, logs: Logs, stop: Stop) -> None:
    """From run.step to total_iter."""
    train, logger, val_freq = run.options.train, run.options.logger, run.options.val.val_freq
    total, watch, samples = train.total_iter, Stopwatch(), _samples(run)
    try:
        if is_due(run.step, val_freq, total) and not gather_objects([logs.validated(run.step)])[0]:
            validate(run, logs, stop)
        while run.step < total:
            with watch.spending("data"):
                batches = [next(samples) for _ in range(train.accum_iter)]
            with memory_for("a training step", STEP):
                metric_step(run, batches, meter)
            watch.steps += 1
            logs.advance(run.step)
            if is_due(run.step, logger.print_freq, total):
                logs.losses(run.step, meter.read(), _rate(run, run.rates[0], run.step - 1), watch.read(run.global_batch))
            stop.check(run.step)
            with watch.spending("other"):
                if is_due(run.step, logger.save_checkpoint_freq, total):
                    save(run, meter, folder)
                if is_due(run.step, val_freq, total):
                    validate(run, logs, stop)
    except StopRequested:
        save(run, meter, folder)
        logs.event(f"stopped after step {run.step}, everything is saved; the same command goes on from there")
        raise SystemExit(stop.exit_code) from None


def metric_step(run: MetricRun, batches: Sequence[dict[str, Tensor]], meter: Meter) -> None:
    """One optimizer step, from this process's micro-batches."""
    for group, base in zip(run.optimizer.param_groups, run.rates, strict=True):
        group["lr"] = _rate(run, base, run.step)
    for micro, batch in enumerate(batches):
        seed_draws(run.options.manual_seed, run.step, rank(), micro)
        with run.accelerator.accumulate(run.model):
            difference, p_a = compare(run, batch)
            loss = run.loss(difference, p_a)
            meter.add("l_pair", loss)
            meter.add("agreement", _agreement(difference.detach(), p_a))
            meter.judge(loss, run.step)
            run.accelerator.backward(loss)
            if run.accelerator.sync_gradients:
                update(run, meter)
            run.optimizer.zero_grad()
    run.step += 1
    run.n += run.global_batch


def compare(run: MetricRun, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Q(A) - Q(B) of every pair (B,) in float32, and p_a (B,). Both images go through the network in one pass."""
    batch = {name: value.to(run.accelerator.device, non_blocking=True) for name, value in batch.items()}
    both = torch.cat([batch["a"], batch["b"]])
    refs = (unit(batch["ref"].repeat(2, 1, 1, 1)),) if "ref" in batch else ()
    q_a, q_b = run.model(unit(both) if both.dtype == torch.uint8 else both, *refs).float().chunk(2)
    return q_a - q_b, batch["p_a"]


def update(run: MetricRun, meter: Meter) -> None:
    """Clips, judges and applies the gradients, unless something has been non-finite: then nothing moves."""
    parameters = list(run.parameters)
    norm = clip(parameters, run.options.train.grad_clip)
    meter.add("grad_norm", norm)
    meter.judge(norm, run.step)
    with only_if(meter.healthy, run.optimizer, parameters):
        run.optimizer.step()
    if run.ema is not None:
        update_average(run.ema, run.parameters, run.options.train.ema_decay)


def save(run: MetricRun, meter: Meter, folder: RunFolder) -> None:
    """The metric's file, then the training state that makes it part of the run."""
    readings = meter.state()
    if is_main():
        path = folder.models / f"metric_{run.step}.safetensors"
        with averaged(run) as judge:
            save_metric(path, judge.net, header(run))
        with atomic_write(folder.root / RESULT) as temporary:
            shutil.copyfile(path, temporary)
        states.save_state(folder.states, capture(run, readings), run.options.logger.keep_checkpoints)
    wait_for_everyone()


def validate(run: MetricRun, logs: Logs, stop: Stop) -> None:
    """2AFC accuracy on the held-out pairs; nothing without any."""
    if not run.held_out:
        return
    data, val = run.options.datasets.train, run.options.datasets.val
    given = len(val.manifests) if val else 0
    shorter = [data.resize_px] * (len(run.held_out) - given) + [val.resize_px if val else None] * given
    with memory_for("validation", VALIDATION), averaged(run) as judge:
        logs.validation(run.step, validate_pairs(judge, run.held_out, shorter, stop.check_alone))
    wait_for_everyone()


def _with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """Stored options, complete by this version's measure; as they are where it does not know some of them."""
    try:
        return MetricOptions.model_validate(stored).model_dump(mode="json")
    except ValidationError:
        return stored


def _agreement(difference: Tensor, p_a: Tensor) -> Tensor:
    """Share of a batch's pairs on which Q and people agree; pairs that people find alike count half."""
    return (1 + difference.sign() * (2 * p_a - 1).sign()).mean() / 2


def _rate(run: MetricRun, base: float, step: int) -> float:
    return learning_rate(cast(TrainOptions, run.options.train), base, step)


def _samples(run: MetricRun) -> Iterator[dict[str, Any]]:
    """This process's micro-batches from sample number run.n on, for ever."""
    data = run.options.datasets.train
    return pair_loader(
        *(run.stream, data.batch_size_per_gpu, run.options.train.accum_iter, rank(), world_size(), run.n, data.num_worker_per_gpu)
    )

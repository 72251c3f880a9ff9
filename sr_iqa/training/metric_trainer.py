"""Training a metric on pairs: the loop beside trainer.py's, in the same frame, on the same folder, states, logs and clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import atomic_write
from ..config.metric_models import MetricOptions
from ..data.stream import train_loader
from ..distributed import check_launch, gather_objects, is_main, rank, wait_for_everyone, world_size
from ..iqa.attacks import attacked, gain_loss
from ..iqa.trained import save_metric
from . import state as states
from .folder import RunFolder, run_folder
from .frame import earlier, reports, surroundings
from .logs import Logs, Stopwatch, is_finished, messages_to
from .memory import memory_for
from .meter import Meter
from .metric_build import MetricRun, build_metric_run
from .metric_measured import measured_once
from .metric_state import averaged, capture, header, restore
from .metric_validation import validate_pairs
from .optimizers import only_if, update_average
from .schedules import is_due, learning_rate
from .steps import clip, seed_draws, unit
from .stopping import Stop, StopRequested

RESULT = "metric.safetensors"
"""The newest metric of a run, in its folder; earlier ones are in models/."""
MEASURED = "measured.safetensors"
"""What A-FINE's last stage has measured of every image, in the run's folder."""
STEP = (
    "lower datasets.train.batch_size_per_gpu (train.accum_iter keeps the global batch) or datasets.train.crop_px, or use precision: bf16 on"
    " a GPU"
)
VALIDATION = "set resize_px in datasets.val (for held-out scenes and measure_once in datasets.train): images are judged whole"
"""Where memory runs out (memory.py)."""


def train_metric(options: MetricOptions, *, fresh: bool = False, quiet: bool = False) -> Path:
    """Trains a metric as the options say, going on where an earlier run of the same name stopped; returns its file.

    Args and raises as `trainer.train`.
    """
    check_launch()
    folder = run_folder(options)
    saved, notes = earlier(folder, options, fresh)
    if saved and saved["step"] >= options.train.total_iter and is_finished(folder):
        return folder.root / RESULT
    with surroundings(options, folder) as (accelerator, stop):
        with messages_to(notes.append):
            run = build_metric_run(options, accelerator)
        meter = Meter(accelerator.device)
        if saved:
            restore(run, meter, saved, folder.root)
            notes.append(f"resumed from {folder.root} at step {run.step}")
        with reports(folder, options, accelerator, run.step, fresh=fresh, quiet=quiet, notes=notes) as logs:
            loop(run, meter, folder, logs, stop)
    return folder.root / RESULT


def loop(run: MetricRun, meter: Meter, folder: RunFolder, logs: Logs, stop: Stop) -> None:
    """From run.step to total_iter."""
    train, logger, val_freq = run.options.train, run.options.logger, run.options.val.val_freq
    total, watch, samples = train.total_iter, Stopwatch(), _samples(run)
    try:
        if run.options.datasets.train.measure_once:
            with memory_for("measuring whole images", VALIDATION), messages_to(logs.event):
                run.stream.measured = measured_once(run.judge, run.stream.sources, folder.root / MEASURED, stop.check_alone)
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
            loss = step_loss(run, batch, meter)
            meter.judge(loss, run.step)
            run.accelerator.backward(loss)
            if run.accelerator.sync_gradients:
                update(run, meter)
            run.optimizer.zero_grad()
    run.step += 1
    run.n += run.global_batch


def step_loss(run: MetricRun, batch: dict[str, Tensor], meter: Meter) -> Tensor:
    """The loss of a micro-batch: how far Q is from people, and how much an attack has gained. All images go through in one pass."""
    batch = {name: value.to(run.accelerator.device, non_blocking=True) for name, value in batch.items()}
    a, b, ref = (unit(value) if value.dtype == torch.uint8 else value for value in (batch["a"], batch["b"], batch.get("ref", batch["a"])))
    refs, p_a, attack = (ref,) if "ref" in batch else (), batch["p_a"], run.options.train.attack_opt
    worse = p_a < 0.5
    images = [a, b]
    if attack:
        with run.accelerator.autocast():
            images.append(attacked(lambda x: run.judge(x, *refs), torch.where(worse[:, None, None, None], a, b), attack))
    q_a, q_b, *q_attacked = run.model(torch.cat(images), *(part.repeat(len(images), 1, 1, 1) for part in refs)).float().chunk(len(images))
    loss = run.loss(q_a - q_b, p_a)
    meter.add("l_pair", loss)
    meter.add("agreement", _agreement((q_a - q_b).detach(), p_a))
    if attack:
        gain = (q_attacked[0] - torch.where(worse, q_a, q_b)) / run.loss.unit
        meter.add("attack_gain", gain.detach().mean())
        loss = loss + attack.weight * gain_loss(gain)
    return loss


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
    with memory_for("validation", VALIDATION), averaged(run) as judge:
        logs.validation(run.step, validate_pairs(judge, run.held_out, stop.check_alone))
    wait_for_everyone()


def _agreement(difference: Tensor, p_a: Tensor) -> Tensor:
    """Share of a batch's pairs on which Q and people agree; pairs that people find alike count half."""
    return (1 + difference.sign() * (2 * p_a - 1).sign()).mean() / 2


def _rate(run: MetricRun, base: float, step: int) -> float:
    return learning_rate(run.options.train, base, step)


def _samples(run: MetricRun) -> Iterator[dict[str, Tensor]]:
    """This process's micro-batches from sample number run.n on, for ever."""
    data, accumulation = run.options.datasets.train, run.options.train.accum_iter
    return train_loader(
        run.stream, data.batch_size_per_gpu, accumulation, rank(), world_size(), start_n=run.n, workers=data.num_worker_per_gpu
    )

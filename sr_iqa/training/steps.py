"""One optimizer step: which GT supervises, the generator's part, the discriminator's part, and the guard before each update.

L = sum of weighted losses(sr, gt) - sum of lambda_Q * Q(sr); the discriminator sees the same gt. Nothing makes the host wait for the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..archs.discriminators import advance_spectral_norm, held_spectral_norm
from ..distributed import rank
from ..sampling import OnlineStrategy
from .build import Discriminator, Learner, Run
from .meter import Meter
from .schedules import generator_learns, learning_rate, reward_weight

Batch = dict[str, Tensor]
"""lq uint8 (B, 3, h, w); gts uint8 (B, M, 3, H, W) and their standings (B, M); member (B,), -1 where the step chooses, and open (B',):
which samples these are; with remembered choices place (B,) and flips (B, 3); with negatives original, negative uint8 (B, 3, H, W),
agreement (B,) and agreements (B, K + 1)."""


def train_step(run: Run, batches: Sequence[Batch], meter: Meter) -> None:
    """One optimizer step of every network that learns now, from this process's micro-batches."""
    learners = [run.generator, *([run.discriminator] if run.discriminator else [])]
    for learner in learners:
        for group, base in zip(learner.optimizer.param_groups, learner.rates, strict=True):
            group["lr"] = learning_rate(run.train, base, run.step)
    if run.discriminator:
        advance_spectral_norm(run.discriminator.net)
    for micro, batch in enumerate(batches):
        seed_draws(run.options.manual_seed, run.step, rank(), micro)
        # One `accumulate` for all networks: entered once per network it would count each micro-batch twice.
        with run.accelerator.accumulate(*(learner.model for learner in learners)), _held(run):
            micro_step(run, batch, meter)
    run.step += 1
    run.n += run.global_batch


def micro_step(run: Run, batch: Batch, meter: Meter) -> None:
    """Forward and backward of one micro-batch; on the last one of a step also the updates."""
    batch = {name: value.to(run.accelerator.device, non_blocking=True) for name, value in batch.items()}
    lq = unit(batch["lq"])
    gt, batch["member"] = choose_gt(run, batch, meter)
    if generator_learns(run.train, run.step):
        sr = generator_step(run, batch, lq, gt, meter)
    else:
        with torch.no_grad():
            sr = run.generator.model(lq)
    if run.discriminator:
        discriminator_step(run, run.discriminator, gt, sr.detach(), meter)


def choose_gt(run: Run, batch: Batch, meter: Meter) -> tuple[Tensor, Tensor]:
    """The GT (B, 3, H, W) of each sample and its place in the set (B,): the stream's choice, or the strategy's by Q of the crops."""
    gts, member, open_ = unit(batch["gts"]), batch["member"], batch["open"]
    place = torch.zeros_like(member)  # what is chosen already comes first, or alone
    if run.judge is not None and isinstance(run.stream.strategy, OnlineStrategy) and len(open_):
        candidates = gts[open_]
        if run.stream.choices is not None:  # what is remembered holds for every flip
            candidates = unflipped(candidates, batch["flips"][open_])
        with torch.no_grad():
            scores = run.judge.signed(candidates.flatten(0, 1)).unflatten(0, candidates.shape[:2])
        meter.judge(scores.sum(), run.step)  # a NaN would never be chosen, and never be seen
        chosen = run.stream.strategy.choose_online(scores)
        place, member = (values.index_copy(0, open_, chosen) for values in (place, member))
        if run.stream.choices is None:
            meter.add("q_crops", scores.mean())
        else:
            run.stream.choices.note(batch["place"][open_], chosen)
    samples = torch.arange(len(gts), device=gts.device)
    meter.add_chosen(member, batch["standings"][samples, place])
    return gts[samples, place], member


def generator_step(run: Run, batch: Batch, lq: Tensor, gt: Tensor, meter: Meter) -> Tensor:
    """Gradients of L for the generator, and its update; returns sr (B, 3, H, W), not clamped."""
    sr = run.generator.model(lq)
    with _frozen(run.discriminator):
        terms = generator_terms(run, batch, sr, gt, meter)
    total = torch.stack(list(terms.values())).sum()
    meter.judge(total, run.step)
    run.accelerator.backward(total)
    update(run, run.generator, "g", meter)
    if run.ema is not None and run.accelerator.sync_gradients:
        run.ema.update_parameters(run.generator.parameters)
    return sr


def generator_terms(run: Run, batch: Batch, sr: Tensor, gt: Tensor, meter: Meter) -> dict[str, Tensor]:
    """The weighted scalars whose sum is L. Losses are logged with their weights, rewards as Q's own values."""
    objective = run.objective
    terms = {name: loss(sr, gt) for name, loss in objective.supervised.items()}
    if objective.negative:
        agreement = batch["agreement"], batch["agreements"].gather(1, batch["member"][:, None])[:, 0]
        terms["l_neg"] = objective.negative(sr, unit(batch["negative"]), gt, unit(batch["original"]), *agreement)
    if run.discriminator:
        # The bare network: DistributedDataParallel would wait for the discriminator's gradients, which nobody needs here.
        terms["l_g_gan"] = run.discriminator.loss(run.discriminator.net(sr), True, is_disc=False)
    for name, value in terms.items():
        meter.add(name, value)
    return terms | reward_terms(run, sr, meter)


def reward_terms(run: Run, sr: Tensor, meter: Meter) -> dict[str, Tensor]:
    """-lambda_Q(step) * mean Q(sr) for each reward; before a reward's start it is only logged."""
    if run.objective.rewards is None:
        return {}
    weights = [reward_weight(reward, run.step) for reward in run.train.reward_opt]
    with torch.set_grad_enabled(any(weights)):
        scores = run.objective.rewards(sr)
    terms = {}
    for weight, (name, score) in zip(weights, scores.items(), strict=True):
        meter.add(f"r_{name}", score.mean())
        if weight:
            terms[f"r_{name}"] = -weight * score.mean()
    return terms


def discriminator_step(run: Run, learner: Discriminator, gt: Tensor, sr: Tensor, meter: Meter) -> None:
    """Gradients for telling gt from sr (which carries none back), and the discriminator's update."""
    real, fake = learner.model(gt), learner.model(sr)
    terms = {"l_d_real": learner.loss(real, True, is_disc=True), "l_d_fake": learner.loss(fake, False, is_disc=True)}
    for name, value in (terms | {"out_d_real": real.mean(), "out_d_fake": fake.mean()}).items():
        meter.add(name, value)
    total = terms["l_d_real"] + terms["l_d_fake"]
    meter.judge(total, run.step)
    run.accelerator.backward(total)
    update(run, learner, "d", meter)


def update(run: Run, learner: Learner, label: str, meter: Meter) -> None:
    """On the last micro-batch: clips, judges and applies the gradients, unless something has been non-finite: then nothing moves."""
    if run.accelerator.sync_gradients:
        run.accelerator.unscale_gradients()
        norm = nn.utils.clip_grad_norm_(learner.parameters, run.train.grad_clip or math.inf)
        if run.options.precision != "fp16":  # there infinite gradients are ordinary, and the scaler skips them
            meter.add(f"grad_norm_{label}", norm)
            meter.judge(norm, run.step)
        with _only_if(meter.healthy, learner.parameters):
            learner.optimizer.step()
    learner.optimizer.zero_grad()


def unflipped(images: Tensor, flips: Tensor) -> Tensor:
    """(B, M, 3, H, W) squares as they were before hflip, vflip and transpose, each where `flips` (B, 3) says so."""
    hflip, vflip, transpose = (flag[:, None, None, None, None] for flag in flips.unbind(1))
    images = torch.where(transpose, images.transpose(-1, -2), images)
    images = torch.where(vflip, images.flip(-2), images)
    return torch.where(hflip, images.flip(-1), images)


def unit(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]."""
    return pixels.float() / 255


def seed_draws(*key: int) -> None:
    """Seeds torch's generators for the draws that are not the stream's: drop path, dropout, augmentation inside rewards."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


@contextmanager
def _only_if(flag: Tensor, parameters: Iterable[Tensor]) -> Iterator[None]:
    """Takes back what the block does to the parameters where the device flag is down, without asking the device."""
    before = [parameter.detach().clone() for parameter in parameters]
    yield
    with torch.no_grad():
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(torch.where(flag, parameter, old))


@contextmanager
def _frozen(learner: Learner | None) -> Iterator[None]:
    """Inside, a network passes gradients on but collects none."""
    parameters = list(learner.parameters) if learner else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _held(run: Run) -> ExitStack:
    """Spectral norm iterates once per step (in train_step), not in every pass."""
    stack = ExitStack()
    if run.discriminator:
        stack.enter_context(held_spectral_norm(run.discriminator.net))
    return stack

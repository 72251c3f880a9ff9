"""One optimizer step: which GT supervises, the generator's part, the discriminator's part, and the guard before each update.

L = sum of weighted losses(sr, gt) - sum of lambda_Q * Q(sr); the discriminator sees the same gt. Nothing makes the host wait for the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..archs.discriminators import advance_spectral_norm, held_spectral_norm
from ..distributed import rank
from ..sampling import OnlineStrategy
from .build import Discriminator, Learner, Run
from .meter import Meter
from .optimizers import only_if, update_average
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
    fake = None
    if generator_learns(run.train, run.step):
        sr, fake = generator_step(run, batch, lq, gt, meter)
    else:
        with torch.no_grad():
            sr = run.generator.model(lq)
    if run.discriminator:
        fake = run.discriminator.model(sr) if fake is None else fake
        discriminator_step(run, run.discriminator, gt, fake, meter)


def choose_gt(run: Run, batch: Batch, meter: Meter) -> tuple[Tensor, Tensor]:
    """The GT (B, 3, H, W) of each sample and its place in the set (B,): the stream's choice, or the strategy's by Q of the crops."""
    gts, member, open_ = unit(batch["gts"]), batch["member"], batch["open"]
    place = torch.zeros_like(member)  # what is chosen already comes first, or alone
    if run.judge is not None and isinstance(run.stream.strategy, OnlineStrategy) and len(open_):
        candidates = gts[open_]
        if run.stream.choices is not None:  # what is remembered holds for every flip
            candidates = unflipped(candidates, batch["flips"][open_])
        with torch.no_grad():
            scores = run.judge.verdict(run.judge.opinions(candidates.flatten(0, 1)).unflatten(0, candidates.shape[:2]))
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


def generator_step(run: Run, batch: Batch, lq: Tensor, gt: Tensor, meter: Meter) -> tuple[Tensor, Tensor | None]:
    """Gradients of L for the generator, and its update; returns sr (B, 3, H, W), not clamped, and the discriminator's logits of it."""
    sr = run.generator.model(lq)
    terms, fake = generator_terms(run, batch, lq, sr, gt, meter)
    total = torch.stack(list(terms.values())).sum()
    meter.judge(total, run.step)
    run.accelerator.backward(total)
    update(run, run.generator, "g", meter)
    if run.ema is not None and run.accelerator.sync_gradients:
        update_average(run.ema, run.generator.parameters, run.train.ema_decay)
    return sr.detach(), fake


def generator_terms(run: Run, batch: Batch, lq: Tensor, sr: Tensor, gt: Tensor, meter: Meter) -> tuple[dict[str, Tensor], Tensor | None]:
    """The weighted scalars whose sum is L, and the discriminator's logits. Losses are logged with their weights, rewards as Q's values."""
    objective, fake = run.objective, None
    terms = {name: loss(sr, gt) for name, loss in objective.supervised.items()}
    if objective.negative:
        agreement = batch["agreement"], batch["agreements"].gather(1, batch["member"][:, None])[:, 0]
        terms["l_neg"] = objective.negative(sr, unit(batch["negative"]), gt, unit(batch["original"]), *agreement)
    if objective.to_base and run.base is not None:
        with torch.no_grad(), run.accelerator.autocast():
            start = run.base(lq)
        terms["l_base"] = objective.to_base(sr, start.float())
    if run.discriminator:
        terms["l_g_gan"], fake = adversarial_term(run.discriminator, sr)
    for name, value in terms.items():
        meter.add(name, value)
    return terms | reward_terms(run, sr, gt, meter), fake


def adversarial_term(learner: Discriminator, sr: Tensor) -> tuple[Tensor, Tensor]:
    """GAN(sr) as a function of sr, and the discriminator's logits of sr as a function of its own parameters.

    One forward pass serves both networks, because the discriminator does not change in between: an eighth of its work in a step.
    """
    image = sr.detach().requires_grad_()
    # Not through DistributedDataParallel, which would wait for the discriminator's gradients: there are none yet.
    logits = learner.local(image)
    loss = learner.loss(logits, True, is_disc=False)
    (gradient,) = torch.autograd.grad(loss, image, retain_graph=True)
    return KnownGradient.apply(sr, loss.detach(), gradient), logits  # pyright: ignore[reportReturnType]


class KnownGradient(torch.autograd.Function):
    """(x, value, gradient) -> value, a scalar function of x whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        return grad_output * ctx.saved_tensors[0], None, None


def reward_terms(run: Run, sr: Tensor, gt: Tensor, meter: Meter) -> dict[str, Tensor]:
    """-lambda_Q(step) * Q(sr) for each reward; before a reward's start it is only logged."""
    if run.objective.rewards is None:
        return {}
    weights = {reward.metric: reward_weight(reward, run.step) for reward in run.train.reward_opt}
    logged, terms = run.objective.rewards.terms(sr, gt, weights)
    for name, value in logged.items():
        meter.add(f"r_{name}", value)
    return {f"r_{name}": term for name, term in terms.items()}


def discriminator_step(run: Run, learner: Discriminator, gt: Tensor, fake: Tensor, meter: Meter) -> None:
    """Gradients for telling gt from sr, whose logits are `fake`, and the discriminator's update."""
    real = learner.model(gt)
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
        norm = clip(list(learner.parameters), run.train.grad_clip)
        if run.options.precision != "fp16":  # there infinite gradients are ordinary, and the scaler skips them
            meter.add(f"grad_norm_{label}", norm)
            meter.judge(norm, run.step)
        with only_if(meter.healthy, learner.optimizer, list(learner.parameters)):
            learner.optimizer.step()
    learner.optimizer.zero_grad()


def clip(parameters: list[Tensor], largest: float | None) -> Tensor:
    """Scales the gradients down to a norm of `largest`, if given; returns the norm that they had."""
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if largest is not None:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


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


def _held(run: Run) -> ExitStack:
    """Spectral norm iterates once per step (in train_step), not in every pass."""
    stack = ExitStack()
    if run.discriminator:
        stack.enter_context(held_spectral_norm(run.discriminator.net))
    return stack

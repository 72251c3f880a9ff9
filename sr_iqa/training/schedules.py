"""Everything that changes during training, as pure functions of the optimizer step (counted from 0).

No scheduler object exists: nothing has to be saved, and neither processes nor accumulation can shift a milestone.
"""

from __future__ import annotations

import math

from ..config.metric_models import MetricTrainOptions
from ..config.models import RewardOptions, ScheduleOptions, TrainOptions


def learning_rate(train: TrainOptions | MetricTrainOptions, base: float, step: int) -> float:
    """The rate of the update that leads from `step` to `step + 1`, for a group whose full rate is `base`.

    The same values as torch's MultiStepLR and CosineAnnealingLR stepped once per optimizer step,
    times a linear warm-up 1/W, 2/W, ..., 1 over the first W = warmup_iter steps.
    """
    rate = _scheduled(train.scheduler, base, step, train.total_iter)
    return rate * min(1.0, (step + 1) / train.warmup_iter) if train.warmup_iter > 0 else rate


def _scheduled(schedule: ScheduleOptions, base: float, step: int, total: int) -> float:
    if schedule.type == "MultiStepLR":
        return base * schedule.gamma ** sum(step >= milestone for milestone in schedule.milestones)
    if schedule.type == "CosineAnnealingLR":
        # Past T_max the rate stays at eta_min; torch's scheduler would rise again.
        return _cosine(base, schedule.eta_min, step, schedule.T_max or total)
    if schedule.type == "CosineAnnealingRestartLR":
        return _cosines(schedule, base, step)
    return base


def _cosine(base: float, lowest: float, step: int, period: int) -> float:
    """From `base` at step 0 down to `lowest` at `period`, and there it stays."""
    return lowest + (base - lowest) * (1 + math.cos(math.pi * min(1.0, step / period))) / 2


def _cosines(schedule: ScheduleOptions, base: float, step: int) -> float:
    """BasicSR's CosineAnnealingRestartLR: the last step of a period is its lowest, the next one belongs to the next period."""
    start = 0
    for i, period in enumerate(schedule.periods):
        if step <= start + period:
            weight = schedule.restart_weights[i] if schedule.restart_weights else 1.0
            return schedule.eta_min + weight * (_cosine(base, schedule.eta_min, step - start, period) - schedule.eta_min)
        start += period
    return schedule.eta_min


def reward_weight(reward: RewardOptions, step: int) -> float:
    """lambda_Q at `step`: 0 up to start_iter, then rising linearly over warmup_iter steps to the full weight."""
    if step < reward.start_iter:
        return 0.0
    if reward.warmup_iter == 0:
        return reward.weight
    return reward.weight * min(1.0, (step - reward.start_iter + 1) / reward.warmup_iter)


def generator_learns(train: TrainOptions, step: int) -> bool:
    """Whether the generator is updated at `step` (BasicSR's net_d_iters and net_d_init_iters, which count from 1)."""
    return (step + 1) % train.net_d_iters == 0 and step + 1 > train.net_d_init_iters


def is_due(step: int, every: int, total: int) -> bool:
    """Whether something that happens every `every` steps, and at the end, happens when `step` updates have been made."""
    return step % every == 0 or step == total

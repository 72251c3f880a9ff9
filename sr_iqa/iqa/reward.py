"""Rewards: differentiable no-reference metrics of the network's output, each a column of its own, higher is better.

Q sees clamp(sr, 0, 1) in float32, or random views of it. There is no straight-through gradient: it would pay for pixels out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.config.models import RewardOptions
from sr_iqa.errors import UserError

from .metrics import Metric, create_metric, list_metrics
from .views import random_views


class Rewards:
    """Name -> metric. Not an nn.Module: whatever holds it, Q stays frozen and in eval mode, and out of state dicts, DDP and EMA."""

    def __init__(self, metrics: Iterable[Metric], options: Sequence[RewardOptions] = ()) -> None:
        self.metrics = {metric.name: metric for metric in metrics}
        self.options = {option.metric: option for option in options}

    def __call__(self, sr: Tensor) -> dict[str, Tensor]:
        """Signed scores (N,) float32 per metric for sr (N, 3, H, W), RGB, not clamped; gradients flow to sr."""
        images = sr.float().clamp(0, 1)
        return {name: metric.signed(images) for name, metric in self.metrics.items()}

    def terms(self, sr: Tensor, gt: Tensor, weights: Mapping[str, float]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is logged and what is added to the loss, each a scalar by metric.

        Args:
            sr: outputs (N, 3, H, W), RGB, not clamped.
            gt: their GTs, of the same shape, in [0, 1].
            weights: lambda_Q of each metric at this step. One of weight 0 is only logged.
        """
        images, logged, terms = sr.float(), {}, {}
        for name, metric in self.metrics.items():
            weight, option = weights[name], self.options[name]
            with torch.set_grad_enabled(weight > 0):
                scores, counted = _seen(metric, option, images, gt)
                logged[name] = scores.detach().mean()
            if weight:
                term = of_unit_length(counted.sum(), images) if option.normalise else counted.mean()
                terms[name] = -weight * term
        return logged, terms


def _seen(metric: Metric, option: RewardOptions, sr: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Q of every output (N,), the mean over its views, and what of it counts."""
    plain: list[Callable[[Tensor], Tensor]] = [lambda images: images]
    scores, counted = [], []
    for view in random_views(option.views, sr.shape[-2:]) if option.views else plain:
        score = metric.signed(view(sr.clamp(0, 1)))
        scores.append(score)
        if option.clip == "gt":
            with torch.no_grad():
                limit = metric.signed(view(gt))
            score = score.minimum(limit)
        counted.append(score)
    return torch.stack(scores).mean(0), torch.stack(counted).mean(0)


def of_unit_length(total: Tensor, images: Tensor) -> Tensor:
    """A scalar of value 0 with the direction of `total`'s gradient with respect to the images (N, 3, H, W).

    Each image's gradient gets the length that the mean absolute error's has there. Each image by itself: a batch may be cut between
    processes in any way. An image without gradient keeps none.
    """
    (gradient,) = torch.autograd.grad(total, images)
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    wanted = 1 / (len(images) * images[0].numel() ** 0.5)
    return ((images - images.detach()) * gradient * (wanted / length.clamp_min(torch.finfo(length.dtype).tiny))).sum()


def build_rewards(options: Sequence[RewardOptions], device: str | torch.device = "cpu") -> Rewards:
    """The rewards of `train.reward_opt`, in its order.

    Raises UserError for a metric that is full-reference or not differentiable (listing those that can be used), given twice, unknown,
    or without weights.
    """
    names = [option.metric for option in options]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"train.reward_opt has {name} twice; give it once, with the sum of the weights")
    metrics = [create_metric(name, device) for name in names]
    for metric in metrics:
        require_differentiable(metric)
    return Rewards(metrics, options)


def require_differentiable(metric: Metric) -> None:
    """Raises UserError for a metric that cannot be a reward, with the list of those that can."""
    if metric.mode == "NR" and metric.differentiable:
        return
    why = "needs a reference" if metric.mode != "NR" else "is not differentiable"
    choices = ", ".join(info.name for info in list_metrics() if info.mode == "NR" and info.differentiable and not info.refused)
    raise UserError(f"{metric.name} cannot be a reward: it {why}. Choose from {choices}")


@torch.enable_grad()
def check_gradient(rewards: Rewards, sr_size: int) -> None:
    """Try every reward once on two made-up images of the training size, before any training.

    Checks its contract: values (N,) float32 on the images' device, one per image; a finite gradient, not zero, that reaches the image
    scored, and only that one; no parameter that learns.

    Args:
        rewards: what `build_rewards` gave.
        sr_size: side of the training crops in pixels.

    Raises:
        UserError: naming the metric and what is wrong.
    """
    for name, metric in rewards.metrics.items():
        learning = sum(parameter.requires_grad for parameter in metric.parameters())
        if learning:
            raise UserError(f"reward {name}: {learning} of its parameters require gradients; Q must be frozen")
        probe = _probe(sr_size, metric.device).requires_grad_(True)
        try:
            scores = Rewards([metric])(probe)[name]
        except UserError as error:
            raise UserError(f"reward {name} cannot be computed for crops of {sr_size} pixels: {error}") from error
        if scores.shape != (2,) or scores.dtype != torch.float32 or scores.device != probe.device:
            raise UserError(
                f"reward {name} gave {tuple(scores.shape)} {scores.dtype} on {scores.device} instead of (2,) float32 on {probe.device}"
            )
        _check_reaches(name, scores, probe)


def _check_reaches(name: str, scores: Tensor, probe: Tensor) -> None:
    if not scores.requires_grad:
        raise UserError(f"reward {name} strips the gradient from its input: it detaches it, or computes without gradients")
    (gradient,) = torch.autograd.grad(scores[0], probe, allow_unused=True)
    if gradient is None or not gradient.isfinite().all() or not scores.isfinite().all():
        raise UserError(f"reward {name}: score or gradient is not finite on a plain test image, or the gradient does not reach it")
    own, other = gradient.abs().amax((1, 2, 3)).tolist()
    if own == 0:
        raise UserError(f"reward {name} has a zero gradient on a plain test image; nothing can be learnt from it")
    if other > 0:
        raise UserError(f"reward {name} mixes images: the score of one depends on the other image of the batch")


def _probe(size: int, device: torch.device) -> Tensor:
    """Two images (2, 3, size, size) with structure of several sizes and a little noise, inside (0, 1); draws nothing from global state."""
    generator = torch.Generator().manual_seed(0)
    image = torch.full((2, 3, size, size), 0.5)
    for cells in (4, 16, size):
        noise = torch.rand((2, 3, cells, cells), generator=generator) - 0.5
        image += 0.25 * F.interpolate(noise, (size, size), mode="bilinear", align_corners=False)
    return image.to(device)

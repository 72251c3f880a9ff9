"""Ensembles: several metrics as one Q, harder to fool than each of them (docs/metrics.md, docs/iqa.md).

    create_metric("0.5*musiq + 0.3*nima + 0.2*topiq_nr")   # weighted sum of normalised scores
    create_metric("min(musiq, nima)")                       # the least of them: every member must be pleased
    create_metric("rank(musiq, nima)")                      # mean rank among reference images
    create_metric("agree(musiq, nima)")                     # mean; abstains where the members disagree
    create_metric("ensemble.yml")                           # any of these with statistics of its own (ensemble_file.py)

A member's signed score s is normalised before it is combined. With statistics of reference images: z = (s - mean) / std, for `rank` the
share of reference images below s. Without: (s - worst) / (best - worst), by the range that the catalogue gives.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sr_iqa import __version__
from sr_iqa.errors import UserError

from .catalog import MetricInfo
from .ensemble_text import Recipe, is_file, parse_ensemble
from .metrics import Metric, create_metric, metric_info

SPREAD = 3.0
"""Standard deviations from worst to best, either way, as the rough range of normalised scores."""
LONGEST_IDENTITY = 900
"""Letters: score tables take no longer ones."""


@dataclass(frozen=True)
class Statistics:
    """A member's signed scores on the reference images."""

    identity: str
    """Of the metric that gave them."""
    mean: float
    std: float
    quantiles: tuple[float, ...]
    """Evenly spaced from the least to the greatest, at least two, rising."""


@dataclass(frozen=True)
class Normalisation:
    """The statistics of all members, in their order, and the images behind them."""

    images: str
    members: tuple[Statistics, ...]


class Ensemble(Metric):
    """Several metrics with the face of one; always higher-is-better. Made by `create_metric`."""

    def __init__(
        self, info: MetricInfo, recipe: Recipe, members: Sequence[Metric], normalisation: Normalisation | None, device: str | torch.device
    ) -> None:
        identity = _identity(info.name, recipe, members, normalisation)
        super().__init__(info, nn.ModuleList(member._net for member in members), identity, device)
        self.recipe = recipe
        self.members = [member.to(device) for member in members]
        self.normalisation = normalisation

    @property
    def threadable(self) -> bool:
        return all(member.threadable for member in self.members)

    def to(self, device: str | torch.device) -> Ensemble:
        """Move to a device, in place."""
        super().to(device)
        for member in self.members:
            member.to(device)
        return self

    def __call__(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        """Combined scores (N,), higher is better. As `Metric.__call__`; the references go to the full-reference members.

        The gradient of `agree` is 0 in every value of x where the members' gradients do not all have the same sign.
        """
        return self._combined(self.normalised(x, ref))

    def normalised(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        """The members' normalised scores (N, K). Raises as `Metric.__call__`."""
        self._checked(x, ref)
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            together = self.recipe.kind != "agree" or not x.requires_grad or not torch.is_grad_enabled()
            inputs: Sequence[Tensor] = [x] * len(self.members) if together else _Branches.apply(x, len(self.members))  # pyright: ignore
            scores = [member.signed(image, ref) for member, image in zip(self.members, inputs, strict=True)]
            count = max(map(len, scores))  # an image against several references: no-reference members give one value
            return torch.stack([self._normalised(k, score).expand(count) for k, score in enumerate(scores)], dim=1)

    def opinions(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        """The members' normalised scores (N, K) for `agree`, the combined one (N, 1) for the others."""
        return self.normalised(x, ref) if self.recipe.kind == "agree" else super().opinions(x, ref)

    def verdict(self, opinions: Tensor) -> Tensor:
        """As `Metric.verdict`. `agree`: the mean score where every member puts the same candidate first; elsewhere all candidates get the
        same score, their mean. Then amo takes the original (the first candidate wins ties) and softmax draws uniformly.
        """
        if self.recipe.kind != "agree":
            return super().verdict(opinions)
        first = opinions.argmax(dim=-2)
        agreed = (first == first[..., :1]).all(dim=-1, keepdim=True)
        mean = self._combined(opinions)
        return torch.where(agreed, mean, mean.mean(dim=-1, keepdim=True).expand_as(mean))

    def _normalised(self, k: int, signed: Tensor) -> Tensor:
        if self.normalisation is None:
            worst, best = signed_range(self.members[k].info)
            return (signed - worst) / (best - worst)
        statistics = self.normalisation.members[k]
        if self.recipe.kind == "rank":
            return rank(signed.double(), signed.new_tensor(statistics.quantiles, dtype=torch.float64)).float()
        return (signed - statistics.mean) / statistics.std

    def _combined(self, normalised: Tensor) -> Tensor:
        """(..., K) -> (...)."""
        if self.recipe.kind == "min":
            return normalised.amin(dim=-1)
        weights = normalised.new_tensor([weight for _, weight in self.recipe.members])
        total = (normalised * weights).sum(dim=-1)
        return total if self.recipe.kind == "sum" else total / weights.sum()


class _Branches(torch.autograd.Function):
    """K copies of x, whose gradients add up where all have the same sign, and count nothing elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> tuple[Tensor, ...]:
        return tuple(x.clone() for _ in range(count))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        gradients = torch.stack(grads)
        return torch.where((gradients > 0).all(0) | (gradients < 0).all(0), gradients.sum(0), 0.0), None


def rank(scores: Tensor, quantiles: Tensor) -> Tensor:
    """The share of reference images with a lower score, by linear interpolation between evenly spaced quantiles (Q,), rising.

    Beyond them it goes on with the mean slope, below 0 and above 1, so that there is a gradient everywhere. (The slope of the first or
    last piece has no bound: several reference images may have the best score.) In double precision, or quantiles would meet.
    """
    least, most = quantiles[0], quantiles[-1]
    inside = scores.clamp(least, most)
    upper = torch.searchsorted(quantiles, inside.detach()).clamp(1, len(quantiles) - 1)
    low, high = quantiles[upper - 1], quantiles[upper]
    return (upper - 1 + (inside - low) / (high - low)) / (len(quantiles) - 1) + (scores - inside) / (most - least)


def signed_range(info: MetricInfo) -> tuple[float, float]:
    """(worst, best) signed score by the catalogue. Raises UserError where one of them is infinite."""
    low, high = info.value_range
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(
            f"{info.name} has no finite range to be normalised by; make statistics with `sr-iqa iqa normalise` (docs/metrics.md)"
        )
    return (-high, -low) if info.lower_better else (low, high)


def create_ensemble(name: str, device: str | torch.device = "cpu", random_weights: bool = False) -> Ensemble:
    """The ensemble of a text or a file; `random_weights` as for `create_metric`, of every member. Raises UserError."""
    recipe, normalisation = read_ensemble(name)
    info = _info(name, recipe, normalisation)
    members = [create_metric(member, device, random_weights=random_weights) for member in recipe.names]
    if normalisation is not None and not random_weights:
        for member, statistics in zip(members, normalisation.members, strict=True):
            if member.identity != statistics.identity:
                raise UserError(
                    f"{name}: its statistics are of {statistics.identity}, but here is {member.identity};"
                    " make them anew with `sr-iqa iqa normalise`"
                )
    return Ensemble(info, recipe, members, normalisation, device)


def ensemble_info(name: str) -> MetricInfo:
    """What is known of an ensemble, from what is known of its members. Raises UserError."""
    return _info(name, *read_ensemble(name))


def read_ensemble(name: str) -> tuple[Recipe, Normalisation | None]:
    """The recipe of a text or a file, and the file's statistics. Raises UserError."""
    if is_file(name):
        from .ensemble_file import read_ensemble_file

        return read_ensemble_file(name)
    return parse_ensemble(name), None


def _info(name: str, recipe: Recipe, normalisation: Normalisation | None) -> MetricInfo:
    infos = [metric_info(member) for member in recipe.names]
    for info in infos:
        if info.refused:
            raise UserError(f"{name}: {info.name} cannot be used here: {info.refused}")
        if normalisation is None:
            signed_range(info)
    return MetricInfo(
        name=name,
        mode="FR" if any(info.mode == "FR" for info in infos) else "NR",
        lower_better=False,
        value_range=_range(recipe, normalisation),
        files=tuple(dict.fromkeys(file for info in infos for file in info.files)),
        differentiable=all(info.differentiable for info in infos),
        smallest=max(info.smallest for info in infos),
        multiple=math.lcm(*(info.multiple for info in infos)),
        needs=", ".join(dict.fromkeys(info.needs for info in infos if info.needs)),
    )


def _range(recipe: Recipe, normalisation: Normalisation | None) -> tuple[float, float]:
    low, high = (0.0, 1.0) if normalisation is None or recipe.kind == "rank" else (-SPREAD, SPREAD)
    size = sum(weight for _, weight in recipe.members) if recipe.kind == "sum" else 1.0
    return size * low, size * high


def _identity(name: str, recipe: Recipe, members: Sequence[Metric], normalisation: Normalisation | None) -> str:
    """Name, kind, weights and identities of the members, and what normalises them; a fingerprint of all that where it is long."""
    parts = ", ".join(f"{weight:g}*{member.identity}" for member, (_, weight) in zip(members, recipe.members, strict=True))
    told = f"{recipe.kind} of {parts}; normalised by {_told(normalisation)}"
    identity = f"{name} (sr_iqa {__version__}, {told})"
    return identity if len(identity) <= LONGEST_IDENTITY else f"{name} (sr_iqa {__version__}, {recipe.kind}, fingerprint {_hash(told)})"


def _told(normalisation: Normalisation | None) -> str:
    if normalisation is None:
        return "the catalogue's ranges"
    return f"statistics {_hash(repr(normalisation.members))}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

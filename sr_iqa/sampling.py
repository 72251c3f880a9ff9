"""How a GT is drawn from its set: labels and scores -> probabilities, crops' scores -> choice. No data access.

Members are numbered 0 (the original), 1..K (the EGTs). Scores are signed (higher is better), in the metric's own units.
A further strategy is a class with these four attributes and one line in STRATEGIES, or a dotted path in the option file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from .config.models import SamplingOptions
from .errors import UserError
from .names import find


class Strategy(Protocol):
    """What the stream and the trainer need to know of a strategy; one that chooses online is an OnlineStrategy."""

    needs_labels: ClassVar[bool]
    """It draws among the effective positives: sets without one are left out."""
    needs_scores: ClassVar[bool]
    """It needs the table made by `sr-iqa data score`."""
    online: ClassVar[bool]
    """It chooses in the training step from the crops of all members."""

    def probabilities(self, scores: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
        """Probability of each member, (K + 1,), from its scores (K + 1,) and marks of P (K + 1,)."""
        ...


@runtime_checkable
class OnlineStrategy(Strategy, Protocol):
    """A strategy that sees the scores of a sample's crops."""

    def choose_online(self, scores: Tensor) -> Tensor:
        """(B, M) scores of the crops of all members -> (B,) the member that supervises each sample."""
        ...


@dataclass(frozen=True)
class Original:
    """The original GT, always (OrigsOnly)."""

    needs_labels: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False
    online: ClassVar[bool] = False

    def probabilities(self, scores: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
        return np.eye(len(positive))[0]


@dataclass(frozen=True)
class UniformAll:
    """Uniform over all GTs of the set (Rand)."""

    needs_labels: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False
    online: ClassVar[bool] = False

    def probabilities(self, scores: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
        return np.full(len(positive), 1 / len(positive))


@dataclass(frozen=True)
class UniformPositive:
    """Uniform over the effective positives (UPos, HGGT)."""

    needs_labels: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = False
    online: ClassVar[bool] = False

    def probabilities(self, scores: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
        return positive / positive.sum()


@dataclass(frozen=True)
class SoftmaxAll:
    """softmax(scores / temperature) over all GTs of the set (SMA)."""

    temperature: float
    needs_labels: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = True
    online: ClassVar[bool] = False

    def probabilities(self, scores: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
        return _softmax(scores, np.ones(len(positive), bool), self.temperature)


@dataclass(frozen=True)
class SoftmaxPositive:
    """softmax(scores / temperature) over the effective positives (SMP)."""

    temperature: float
    needs_labels: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = True
    online: ClassVar[bool] = False

    def probabilities(self, scores: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
        return _softmax(scores, positive, self.temperature)


@dataclass(frozen=True)
class ArgmaxOnline:
    """The GT whose crop scores best, found in the training step (AMO)."""

    needs_labels: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False
    online: ClassVar[bool] = True

    def probabilities(self, scores: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
        raise TypeError("amo chooses in the training step")

    def choose_online(self, scores: Tensor) -> Tensor:
        """The lowest index wins ties, and NaN never wins."""
        return scores.nan_to_num(nan=float("-inf"), neginf=float("-inf")).argmax(dim=1)


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "original": Original,
    "uniform_all": UniformAll,
    "uniform_positive": UniformPositive,
    "sma": SoftmaxAll,
    "smp": SoftmaxPositive,
    "amo": ArgmaxOnline,
}
ALIASES = {
    "origsonly": "original",
    "rand": "uniform_all",
    "upos": "uniform_positive",
    "softmax_all": "sma",
    "softmax_positive": "smp",
    "argmax_online": "amo",
}


def resolve_strategy(name: str) -> Callable[..., Strategy]:
    """The class behind a name, an alias or a dotted path; raises UsageError that lists the choices."""
    return find("sampling strategy", ALIASES.get(name.lower(), name), STRATEGIES)


def build_strategy(options: SamplingOptions) -> Strategy:
    """The strategy of an option block, with its temperature where it takes one."""
    build = resolve_strategy(options.strategy)
    arguments: dict[str, Any] = {} if options.temperature is None else {"temperature": options.temperature}
    try:
        strategy = build(**arguments)
    except TypeError as error:
        need = "needs `temperature`, in the metric's units" if options.temperature is None else "takes no `temperature`"
        raise UserError(f"sampling: strategy {options.strategy} {need} ({error})") from error
    if strategy.online and not isinstance(strategy, OnlineStrategy):
        raise UserError(f"sampling: strategy {options.strategy} says that it is online, but has no method choose_online(scores)")
    if (strategy.needs_scores or strategy.online) and options.metric is None:
        raise UserError(f"sampling: strategy {options.strategy} needs `metric`, the quality predictor behind its choice")
    return strategy


def choose(probabilities: np.ndarray, u: float) -> int:
    """The member whose share of the cumulative probability holds u, 0 <= u < 1; members of probability 0 are never chosen."""
    member = int(np.searchsorted(np.cumsum(probabilities), u * probabilities.sum(), side="right"))
    return min(member, int(np.flatnonzero(probabilities)[-1]))  # rounding of the sum must not reach past the last one


def _softmax(scores: np.ndarray | None, among: np.ndarray, temperature: float) -> np.ndarray:
    """exp(score / temperature) over the marked members, normalised; 0 elsewhere."""
    if scores is None:
        raise UserError("this strategy needs scores: make them with `sr-iqa data score` and name the table in datasets.train.scores")
    if not np.isfinite(scores).all():
        raise UserError(f"scores must be finite numbers, got {scores.tolist()}")
    logits = np.where(among, scores, -np.inf) / temperature
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()

"""Optimizers by name: torch's, or the dotted path of anybody's."""

from __future__ import annotations

from collections.abc import Callable

from torch import optim

from ..names import find

NAMES = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SGD", "ASGD", "RMSprop", "Rprop", "Adagrad", "Adadelta")
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {name: vars(optim)[name] for name in NAMES}


def resolve_optimizer(name: str) -> Callable[..., optim.Optimizer]:
    """The constructor behind an optimizer's `type`.

    Raises:
        UsageError: unknown; lists the choices and the nearest of them.
    """
    return find("optimizer", name, OPTIMIZERS)

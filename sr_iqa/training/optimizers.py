"""Optimizers by name: torch's, or the dotted path of anybody's; and what happens to weights at the end of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel

from ..config.models import Component
from ..errors import UsageError
from ..names import find

NAMES = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SGD", "ASGD", "RMSprop", "Rprop", "Adagrad", "Adadelta")
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {name: vars(optim)[name] for name in NAMES}
FUSED = ("Adam", "AdamW", "SGD")
"""Those with one kernel for everything (3 to 5 times as fast as the default on a CPU), used unless the options choose otherwise."""


def resolve_optimizer(name: str) -> Callable[..., optim.Optimizer]:
    """The constructor behind an optimizer's `type`.

    Raises:
        UsageError: unknown; lists the choices and the nearest of them.
    """
    return find("optimizer", name, OPTIMIZERS)


def build_optimizer(component: Component, parameters: Iterable[Tensor]) -> optim.Optimizer:
    """The optimizer of a section `{type: ..., <constructor arguments>}`, fused where torch has that and the section says nothing else.

    Raises:
        UsageError: unknown type, or arguments that it refuses.
    """
    arguments: dict[str, Any] = component.arguments
    if component.type in FUSED and not arguments.keys() & {"fused", "foreach", "differentiable"}:
        arguments["fused"] = True
    try:
        return resolve_optimizer(component.type)(parameters, **arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{component.type}: {error}") from error


@contextmanager
def only_if(flag: Tensor, optimizer: optim.Optimizer, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Around a step of the optimizer, which then changes no parameter where the device flag is down; without asking the device.

    Fused optimizers look at the flag themselves (SwinIR medium, one core: 0.3 ms); others are taken back afterwards (20 ms).
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # of Accelerate's wrapper
    scaled = getattr(optimizer, "scaler", None) is not None  # GradScaler then sets found_inf by itself
    if getattr(inner, "_step_supports_amp_scaling", False) and not scaled:
        vars(inner)["found_inf"] = (~flag).float()
        try:
            yield
        finally:
            del vars(inner)["found_inf"]
        return
    before = [parameter.detach().clone() for parameter in parameters]
    yield
    with torch.no_grad():
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(torch.where(flag, parameter, old))


@torch.no_grad()
def update_average(average: AveragedModel, parameters: nn.ParameterList, decay: float) -> None:
    """average <- decay * average + (1 - decay) * parameters; at the first time a copy.

    What `average.update_parameters` does, without its work for every single parameter on the host (SwinIR medium: 5.1 instead of 7.3 ms).
    """
    averaged, live = [*average.module.parameters()], [*parameters]
    if average.n_averaged == 0:  # a counter in the host's memory
        torch._foreach_copy_(averaged, live)  # pyright: ignore
    else:
        torch._foreach_lerp_(averaged, live, 1 - decay)  # pyright: ignore
    average.n_averaged += 1


@contextmanager
def as_evaluated(net: nn.Module, parameters: nn.ParameterList, average: AveragedModel | None) -> Iterator[None]:
    """While the block runs the network has the averaged values of its parameters, where there is an average, and computes in float32."""
    # Accelerate puts mixed precision into an instance attribute `forward`; without it the class's own is back.
    mixed = vars(net).pop("forward", None)
    pairs = list(zip(parameters, average.module.parameters(), strict=True)) if average is not None else []
    _exchange(pairs)
    try:
        yield
    finally:
        _exchange(pairs)
        if mixed is not None:
            vars(net)["forward"] = mixed


def _exchange(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    for live, average in pairs:
        live.data, average.data = average.data, live.data

"""Option files of `sr-iqa iqa train` against the program: names, arguments, sizes. No data is read and nothing is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..bind import mismatches
from ..config.document import KeyPath, OptionsError
from ..config.metric_models import LoadedMetric, MetricOptions
from ..config.models import Component
from ..errors import UserError
from ..iqa.catalog import MetricInfo
from ..iqa.timm_networks import TIMM
from ..iqa.trained import architecture_info
from ..losses.preference import resolve_pair_loss
from .metric_build import build_loss
from .optimizers import resolve_optimizer


def check_metric(loaded: LoadedMetric) -> None:
    """Checks options that are valid by themselves against the rest of the program; no image is read.

    Raises:
        OptionsError: everything that cannot work, one line each with file and line.
    """
    problems = [loaded.document.say(path, text) for path, text in _problems(loaded.options)]
    if problems:
        raise OptionsError(problems)


def _problems(options: MetricOptions) -> Iterator[tuple[KeyPath, str]]:
    train, network, side = options.train, options.network, options.datasets.train.crop_px
    yield from _fit(("train", "optim"), train.optim, resolve_optimizer, ("params",))
    misfits = list(_fit(("train", "pair_opt"), train.pair_opt, resolve_pair_loss))
    yield from misfits
    try:
        info = architecture_info(network.type)
    except UserError as error:
        yield ("network", "type"), str(error)
        return
    if not misfits:
        yield from _loss_values(train.pair_opt, info)
    if network.type.startswith(TIMM) and network.start == "catalogue":
        yield ("network", "start"), f"{network.type} has no weights of its own; give random, or a file"
    if not info.differentiable:
        yield ("network", "type"), f"{network.type} gives no gradient: it cannot be trained"
    if side < info.smallest or side % info.multiple:
        needs = f"at least {info.smallest}" if side < info.smallest else f"multiples of {info.multiple}"
        yield ("datasets", "train", "crop_px"), f"{network.type} needs sides of {needs} pixels, got {side}"


def _fit(
    path: KeyPath, component: Component, resolve: Callable[[str], Callable[..., Any]], supplied: tuple[str, ...] = ()
) -> Iterator[tuple[KeyPath, str]]:
    try:
        for name, message in mismatches(resolve(component.type), component.arguments, supplied):
            yield (*path, name) if name else path, f"{component.type}: {message}"
    except UserError as error:
        yield (*path, "type"), str(error)


def _loss_values(component: Component, info: MetricInfo) -> Iterator[tuple[KeyPath, str]]:
    """What the loss itself finds wrong, such as a unit below 0."""
    try:
        build_loss(component, info)
    except UserError as error:
        yield ("train", "pair_opt"), str(error)

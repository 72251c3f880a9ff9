"""Option files of `sr-iqa iqa train` against the program: names, arguments, sizes. No data is read and nothing is built."""

from __future__ import annotations

from collections.abc import Iterator

from ..bind import mismatches
from ..config.document import KeyPath, OptionsError
from ..config.metric_models import LoadedMetric, MetricOptions
from ..errors import UserError
from ..iqa.trained import TIMM
from ..losses.preference import resolve_pair_loss
from .metric_judge import facts_of
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
    for path, component, resolve, supplied in (
        (("train", "optim"), options.train.optim, resolve_optimizer, ("params",)),
        (("train", "pair_opt"), options.train.pair_opt, resolve_pair_loss, ()),
    ):
        try:
            for name, message in mismatches(resolve(component.type), component.arguments, supplied):
                yield (*path, name) if name else path, f"{component.type}: {message}"
        except UserError as error:
            yield (*path, "type"), str(error)
    try:
        facts = facts_of(options.network.type)
    except UserError as error:
        yield ("network", "type"), str(error)
        return
    if options.network.type.startswith(TIMM) and options.network.start == "catalogue":
        yield (
            ("network", "start"),
            f"{options.network.type} has no weights of its own; give random, or a file",
        )
    if not facts.differentiable:
        yield ("network", "type"), f"{options.network.type} gives no gradient: it cannot be trained"
    side = options.datasets.train.crop_px
    if side < facts.smallest or side % facts.multiple:
        needs = f"at least {facts.smallest}" if side < facts.smallest else f"multiples of {facts.multiple}"
        yield ("datasets", "train", "crop_px"), f"{options.network.type} needs sides of {needs} pixels, got {side}"

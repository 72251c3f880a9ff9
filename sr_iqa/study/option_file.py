"""An option file of any kind, told by its keys: an SR run's, a metric's (`network`), or a study's (`variants`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sr_iqa.check import check
from sr_iqa.checkpoints import with_network
from sr_iqa.config import load
from sr_iqa.config.metric_models import load_metric_options
from sr_iqa.config.models import Section
from sr_iqa.config.yaml_text import read_document
from sr_iqa.errors import UsageError
from sr_iqa.training.metric_check import check_metric

from .runner import check_variants
from .study_file import load_study


def check_option_file(path: Path, overrides: Sequence[str] = ()) -> tuple[str, ...]:
    """Checks a file as the command that it is for would, a study's with all its variants; no data is read.

    Returns:
        Notes: what is ignored or odd, but possible.

    Raises:
        OptionsError: everything that is wrong.
        UsageError: overrides of a study file, which takes none.
    """
    if "variants" not in read_document(path).data:
        return checked_options(path, overrides)[1]
    if overrides:
        raise UsageError(f"{path} is a study file: --set is for options of runs; change them in the file")
    check_variants(load_study(path))
    return ()


def checked_options(path: Path, overrides: Sequence[str] = ()) -> tuple[Section, tuple[str, ...]]:
    """The options of an SR run or of a metric, and notes. Raises OptionsError."""
    if "network" in read_document(path).data:
        metric = load_metric_options(path, overrides)
        check_metric(metric)
        return metric.options, ()
    loaded = load(path, overrides)
    loaded = replace(loaded, options=with_network(loaded.options))
    return loaded.options, (*loaded.notes, *check(loaded))

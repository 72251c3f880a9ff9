"""docs/options.md and options/*schema.json, made from the models: `python -m sr_iqa.reference` rewrites them.

It stands above the rooms because the reference also lists the names that they offer.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .check import LOSSES
from .config.metric_models import METRIC_FILE, MetricOptions
from .config.models import Component, Options
from .config.schema import schema_text
from .config.vocabulary import models_in
from .study.study_file import STUDY_FILE, StudyOptions

_HEAD = """# Options

Every key that an option file may have. This page is made from the option models by `python -m sr_iqa.reference`.

- Numbers are YAML 1.2's: `1e-4` and `5e3` are numbers. `null` (or `~`, or nothing) means the default.
- Unknown keys, wrong types and impossible combinations are refused, all at once, with file and line.
- `--set train.total_iter=1000` overrides any key; list elements go by number: `--set train.reward_opt.0.weight=0.01`.
- A *component* is a block with `type:`; its other keys are the arguments of the class or function of that name.
- Training files of BasicSR, Real-ESRGAN and HGGT are understood as they are; `sr-iqa config check` says what is ignored,
  `sr-iqa config show` prints them in this vocabulary.
"""

_METRIC_HEAD = """## Training a metric

Files of `sr-iqa iqa train` (docs/iqa.md) have a vocabulary of their own.
"""


def reference() -> str:
    """The options reference in Markdown."""
    return "\n".join([_HEAD, _names(), *_tables(Options), _METRIC_HEAD, *(f"#{table}" for table in _tables(MetricOptions))])


def _tables(root: type[BaseModel]) -> list[str]:
    """One for every block that a file of this kind may have."""
    places: dict[type[BaseModel], list[str]] = {}
    for path, model in _sections(root, ""):
        places.setdefault(model, []).append(path)
    return [_section(paths, model) for model, paths in places.items()]


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path or "top level", model
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            if inner is not Component:
                yield from _sections(inner, f"{path}.{name}".lstrip("."))


def _section(paths: list[str], model: type[BaseModel]) -> str:
    """One table; blocks that may stand in several places are described once."""
    about = [" ".join(model.__doc__.split()), ""] if model.__doc__ else []
    also = [f"The same in {', '.join(f'`{path}`' for path in paths[1:])}.", ""] if paths[1:] else []
    required = "by preset" if ".degradation." in paths[0] else "required"
    rows = [_row(name, field, required) for name, field in model.model_fields.items()]
    return "\n".join([f"## {paths[0]}", "", *about, *also, "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(name: str, field: FieldInfo, required: str) -> str:
    default = required if field.is_required() else _default(field.default)
    cells = (f"`{name}`", _type(field.annotation), default, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _type(annotation: Any) -> str:
    """An annotation in the words of an option file."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return _plain_type(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " / ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in inner if part is not type(None))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"list of {len(inner)}: {_type(inner[0])}"
    if origin is tuple:
        return f"list: {_type(inner[0])}"
    if origin is dict:
        return f"block: {_type(inner[0])} to {_type(inner[1])}"
    return _type(inner[0])  # Annotated


def _plain_type(annotation: type) -> str:
    words = {str: "text", int: "whole number", float: "number", bool: "true / false", Path: "path", Component: "component"}
    return words.get(annotation, "block")


def _default(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, tuple) else f"`{value}`"


def _names() -> str:
    """The names that `type:` and its like can have."""
    from .archs import NETWORKS
    from .losses import LOSSES_BY_KIND
    from .sampling import ALIASES, STRATEGIES
    from .training.optimizers import OPTIMIZERS

    aliases = ", ".join(f"`{alias}` = `{name}`" for alias, name in ALIASES.items())
    rows = {
        "`network_g`, `network_d`": f"{_code(NETWORKS)}, any of BasicSR's, `spandrel.<class>` (docs/checkpoints.md), or a dotted path",
        **{f"`train.{key}`": f"{_code(LOSSES_BY_KIND[kind])}, or a dotted path" for key, kind in LOSSES.items()},
        "`train.metric_opt`": "any differentiable full-reference metric",
        "`train.optim_g`, `optim_d`": f"{_code(OPTIMIZERS)}, or a dotted path",
        "`datasets.train.sampling.strategy`": f"{_code(STRATEGIES)} ({aliases})",
        "metrics": "`sr-iqa iqa list` prints them with mode, direction and range",
    }
    return "\n".join(["## Names", "", "| where | names |", "|---|---|", *(f"| {key} | {names} |" for key, names in rows.items()), ""])


def _code(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def write(root: Path) -> None:
    """Rewrites both files below the root of the repository."""
    (root / "docs" / "options.md").write_text(reference(), encoding="utf-8")
    (root / "options" / "schema.json").write_text(schema_text() + "\n", encoding="utf-8")
    (root / "options" / "metric_schema.json").write_text(schema_text(MetricOptions, METRIC_FILE) + "\n", encoding="utf-8")
    (root / "options" / "study_schema.json").write_text(schema_text(StudyOptions, STUDY_FILE) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path.cwd())

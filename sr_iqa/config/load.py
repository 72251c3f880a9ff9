"""Option files to Options: parse, override, translate, validate; every problem found is reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .document import Document, KeyPath, NoBlockError, OptionsError
from .models import Options, Section
from .translate import translate
from .vocabulary import block_at, expectation, nearest, suggest_key
from .yaml_text import ParseError, parse, plain_value, read_document

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Loaded:
    """Options with where they came from."""

    options: Options
    document: Document
    """The translated data behind the options, with the origin of every key."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the translation of a foreign file changed or ignored."""
        return tuple(self.document.notes)

    @property
    def positions(self) -> dict[KeyPath, str]:
        """Key path -> "file.yml:12" or "--set a.b=c"."""
        return self.document.positions


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Reads an option file, ours or a published one of BasicSR, Real-ESRGAN or HGGT.

    Args:
        path: the YAML file.
        overrides: `a.b.c=value` each; value is YAML, list elements go by number, `=` with `~` removes.

    Raises:
        OptionsError: everything wrong with the file and the overrides, one line each.
    """
    if Path(path).suffix.lower() == ".toml":
        raise OptionsError([f"{path}: option files are YAML; `sr-iqa config import {path}` makes one of a neosr file"])
    document = read_document(Path(path))
    for override in overrides:
        apply_override(document, override)
    if document.problems and not document.data:
        raise OptionsError(document.problems)
    translate(document)
    return Loaded(validated(document, Options), document)


def validated(document: Document, model: type[S]) -> S:
    """The document's data as a model.

    Raises:
        OptionsError: everything that does not fit, one line each, after what was wrong with the document already.
    """
    try:
        value = model.model_validate(document.data)
    except ValidationError as error:
        raise OptionsError([*document.problems, *(_explain(document, e, model) for e in _without_echoes(error.errors()))]) from None
    if document.problems:
        raise OptionsError(document.problems)
    return value


def load_options(path: str | Path, overrides: Sequence[str] = ()) -> Options:
    """`load` for those who need the options only."""
    return load(path, overrides).options


def apply_override(document: Document, override: str) -> None:
    """Sets `a.b.c=value` in the document; blocks that the file leaves out are made, and validation judges the names."""
    name, equals, text = override.partition("=")
    where = f"--set {override}"
    if not equals or not all(name.strip().split(".")):
        document.problems.append(f"{where}: expected key=value with a dotted key, such as train.total_iter=1000")
        return
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in name.strip().split("."))
    try:
        document.put(path, parse(text, Document(), where), where)
    except ParseError as error:
        document.problems.append(f"{where}: {error.message}")
    except NoBlockError as error:
        document.problems.append(f"{where}: {error} {_why_not_inside(document.get(error.path))}")


def _why_not_inside(found: Any) -> str:
    if found is None:
        return "is not in the file; give the whole list"
    return f"is a list of {len(found)}, count from 0" if isinstance(found, list) else f"is {_shown(found)}, it has no such part"


def _without_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """One error per key: a union reports every alternative that did not fit."""
    first: dict[KeyPath, ErrorDetails] = {}
    for error in errors:
        first.setdefault(error["loc"], error)
    return list(first.values())


def _explain(document: Document, error: ErrorDetails, root: type[BaseModel]) -> str:
    path: KeyPath = error["loc"]
    got, kind = error["input"], error["type"]
    if kind == "extra_forbidden":
        return document.say(path, f"unknown key; {suggest_key(path, root)}")
    if kind == "missing":
        return document.say(path, f"missing{_meaning(path, root)}")
    if kind == "value_error":
        return document.say(path, str(error["ctx"]["error"]))  # type: ignore[typeddict-item]
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return document.say(path, f"expected a block of keys, got {_shown(got)}")
    return document.say(path, f"{expectation(error)}, got {_shown(got)}{_near_choice(kind, got, error)}")


def _meaning(path: KeyPath, root: type[BaseModel]) -> str:
    block = block_at(path[:-1], root)
    field = block.model_fields.get(str(path[-1])) if block else None
    return f" ({field.description})" if field and field.description else ""


def _shown(value: Any) -> str:
    text = "a block of keys" if isinstance(value, dict) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _near_choice(kind: str, got: Any, error: ErrorDetails) -> str:
    if kind != "literal_error" or not isinstance(got, str):
        return ""
    choices = [word for word in error["ctx"]["expected"].split("'") if word.strip(" ,") not in ("", "or")]  # type: ignore[typeddict-item]
    near = nearest(got, choices)
    return f"; did you mean {near}?" if near else ""


def options_to_yaml(options: Section) -> str:
    """The options as YAML text, defaults included; loading it gives equal options."""
    return yaml.dump(_plain(options), Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    """Only what YAML holds. A section's nulls mean its defaults and are left out; an argument's null is a value."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
        return {name: _plain(inner) for name, inner in fields.items() if not (inner is None and isinstance(value, Section))}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.2 would read as something else ("1e-4"), which PyYAML's dumper does not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(plain_value(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    """Lists of numbers and words on one line, lists of blocks one below the other."""
    short = not any(isinstance(value, (dict, list)) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=short)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)

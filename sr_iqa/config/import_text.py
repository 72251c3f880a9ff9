"""Imported options as the text of an option file: only what differs from the defaults, each key with the line that it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from .degradation import DegradationOptions
from .document import KeyPath, dotted
from .import_ledger import Ledger, Line, leaves, printable
from .models import Component, Options
from .vocabulary import models_in
from .yaml_text import plain_value

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+@ -]*(?<! )")
DEGRADATION: tuple[KeyPath, ...] = tuple(("datasets", name, "degradation") for name in ("train", "val"))


def option_text(ledger: Ledger, options: Options, lost: Sequence[Line], header: str) -> str:
    """YAML in our vocabulary and order; loading it gives `options`.

    Args:
        ledger: the translated file.
        options: its data, validated.
        lost: what has no counterpart; each becomes a comment where it would be.
        header: the first line's comment.
    """
    writer = _Writer(ledger, options, lost)
    return "\n".join([f"# {printable(header)}", *writer.block(Options, (), 0)]) + "\n"


class _Writer:
    def __init__(self, ledger: Ledger, options: Options, lost: Sequence[Line]) -> None:
        self.ledger, self.options = ledger, options
        self.became = {ledger.origin(path): path for path in reversed(list(leaves(ledger.data)))}
        self.comments: dict[KeyPath, list[str]] = {}
        for line in lost:
            self.comments.setdefault(self._place(line.path), []).append(f"# NO COUNTERPART {printable(self._behind(line))}")

    def block(self, model: type[BaseModel], path: KeyPath, depth: int, whole: bool = False) -> Iterator[str]:
        """Lines of a block: its keys in the model's order (`whole`: defaults too), comments before the key they are about, others last."""
        indent = "  " * depth
        for name, field in model.model_fields.items():
            inner = (*path, name)
            yield from (indent + comment for comment in self.comments.get(inner, ()))
            if whole and self.ledger.get(inner) is not None or self._said(inner):
                yield from self._key(next(models_in(field.annotation), None), inner, depth)
        yield from (indent + comment for comment in self.comments.get((*path, ""), ()))

    def _key(self, model: type[BaseModel] | None, path: KeyPath, depth: int) -> Iterator[str]:
        """Lines of a key with its value; none for a block in which nothing needs saying."""
        indent, key = "  " * depth, f"{path[-1]}:"
        value = self.ledger.get(path)
        if isinstance(value, list) and model is not None:
            yield f"{indent}{key}"
            for i in range(len(value)):
                lines = list(self._component((*path, i), depth + 2))
                yield from (f"{indent}  - {lines[0].lstrip()}", *lines[1:])
        elif isinstance(value, dict) and model is not None:
            lines = list(self._component(path, depth + 1) if model is Component else self.block(model, path, depth + 1))
            if not lines and not self._is_default(path):
                lines = list(self.block(model, path, depth + 1, whole=True))
            if lines:
                yield from (f"{indent}{key}", *lines)
        else:
            yield f"{indent}{key} {flow(_attribute(self.options, path))}{self._source(path)}"

    def _component(self, path: KeyPath, depth: int) -> Iterator[str]:
        block = self.ledger.block(path)
        for name in sorted(block, key=lambda name: name != "type"):
            yield f"{'  ' * depth}{flow(name)}: {flow(block[name])}{self._source((*path, name))}"

    def _said(self, path: KeyPath) -> bool:
        """Whether a key is in the file and its value is not the default; a block is, if anything in it is."""
        if path[-1] not in self.ledger.block(path[:-1]):
            return False
        for degradation in DEGRADATION:
            if path[: len(degradation)] == degradation and path != degradation:
                return self._differs_from_preset(degradation, path[len(degradation) :])
        value = self.ledger.get(path)
        if value is None:
            return False
        return isinstance(value, dict) or not self._is_default(path)

    def _is_default(self, path: KeyPath) -> bool:
        parent = _attribute(self.options, path[:-1])
        field = type(parent).model_fields[str(path[-1])]
        return not field.is_required() and getattr(parent, str(path[-1])) == field.default

    def _differs_from_preset(self, degradation: KeyPath, path: KeyPath) -> bool:
        if path == ("preset",):
            return True
        given = _attribute(self.options, degradation)
        plain = DegradationOptions.model_validate({"preset": given.preset, **{name: {} for name in ("first", "second") if path[0] == name}})
        if len(path) == 1 and _attribute(DegradationOptions(preset=given.preset), path) is None:
            return _attribute(given, path) is not None
        return _attribute(given, path) != _attribute(plain, path)

    def _source(self, path: KeyPath) -> str:
        source, where = self.ledger.origin(path), self.ledger.where(path)
        if source is None:
            said = _line(where) if where.rpartition(":")[2].isdigit() else where
            return f"  # {printable(said)}" if path in self.ledger.positions and where != self.ledger.where(()) else ""
        key = "" if source == path else f": {dotted(source)}"
        said = f"{_line(self.ledger.given[source][0])}{key}"
        return f"  # {printable(said)}{', a stand-in' if self.ledger.stands_in(path) else ''}"

    def _place(self, path: KeyPath) -> KeyPath:
        """Where a lost key would be: before what became of it or its own place, else at the end of the nearest block."""
        path = self.became.get(path, path)
        model: type[BaseModel] | None = Options
        for depth, part in enumerate(path):
            field = model.model_fields.get(str(part)) if model and model is not Component else None
            inside = isinstance(self.ledger.get(path[: depth + 1]), dict)
            if field is None:
                return (*path[:depth], "") if model is not Component else path[:depth]
            below = next(models_in(field.annotation), None)
            if not inside or below is Component or below is None or depth == len(path) - 1:
                return path[: depth + 1]
            model = below
        return ("",)

    def _behind(self, line: Line) -> str:
        return f"{_line(line.where)}: {dotted(line.path)}{line.text}"


def _line(where: str) -> str:
    """file.yml:12 -> line 12."""
    number = where.rpartition(":")[2]
    return f"line {number}" if number.isdigit() else "file"


def _attribute(value: Any, path: KeyPath) -> Any:
    for part in path:
        value = getattr(value, str(part)) if isinstance(value, BaseModel) else None
    return value


def flow(value: Any) -> str:
    """A value on one line of YAML 1.2, as yaml_text.py reads it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    if isinstance(value, int):
        return str(value)
    value = str(value)
    if _PLAIN.fullmatch(value) and isinstance(plain_value(value), str):
        return value
    if value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value).replace("\x7f", "\\x7f")

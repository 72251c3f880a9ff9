"""An option file as plain data that still knows where every key came from.

Scalars follow YAML 1.2 (`1e-4` and `5e3` are numbers; `on`, `no` and `012` are not booleans or octal), which PyYAML's own loader does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_VALUES = 10_000

_PLAIN = "!plain"
_TAG = "tag:yaml.org,2002:"


def dotted(path: KeyPath) -> str:
    """("train", "reward_opt", 0) -> "train.reward_opt.0"."""
    return ".".join(str(part) for part in path)


class OptionsError(UsageError):
    """Option files or overrides that cannot be used; `problems` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class NoBlockError(Exception):
    """A key cannot be set, because `path`, which should hold it, is something else."""

    def __init__(self, path: KeyPath) -> None:
        super().__init__(dotted(path))
        self.path = path


@dataclass
class Document:
    """Option data with the origin of every key, and what was found wrong or worth saying on the way."""

    data: dict[str, Any] = field(default_factory=dict)
    positions: dict[KeyPath, str] = field(default_factory=dict)
    """Key path -> "file.yml:12" or "--set a.b=c"; () is the file."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """Origin of the key, or of its nearest parent that has one."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, "options")

    def as_given(self, path: KeyPath) -> KeyPath:
        """The path as the file has it: where a list is allowed, a single block counts as its element 0."""
        given: KeyPath = ()
        for part in path:
            if part != 0 or isinstance(self.get(given), list):
                given = (*given, part)
        return given

    def say(self, path: KeyPath, text: str) -> str:
        """One line: where, which key, what."""
        path = self.as_given(path)
        return ": ".join(part for part in (self.where(path), dotted(path), text) if part)

    def note(self, path: KeyPath, text: str) -> None:
        self.notes.append(self.say(path, text))

    def problem(self, path: KeyPath, text: str) -> None:
        self.problems.append(self.say(path, text))

    def get(self, path: KeyPath) -> Any:
        """The value at a path; None where there is none."""
        value: Any = self.data
        for part in path:
            known = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
            if part not in known:
                return None
            value = value[part]
        return value

    def block(self, path: KeyPath) -> dict[str, Any]:
        """The mapping at a path; empty where there is none or something else stands there."""
        value = self.get(path)
        return value if isinstance(value, dict) else {}

    def put(self, path: KeyPath, value: Any, where: str) -> None:
        """Sets a value, making the blocks on the way. Raises NoBlockError."""
        container: Any = self.data
        for depth, part in enumerate(path):
            last = depth == len(path) - 1
            if isinstance(container, list):
                if not (isinstance(part, int) and part < len(container)):
                    raise NoBlockError(path[:depth])
            elif not isinstance(container, dict) or isinstance(part, int):
                raise NoBlockError(path[:depth])
            elif container.get(part) is None and not last:
                if isinstance(path[depth + 1], int):
                    raise NoBlockError(path[: depth + 1])
                container[part] = {}
                self.positions[path[: depth + 1]] = where
            if not last:
                container = container[part]
        self._forget(path)
        container[path[-1]] = value
        for inner in _paths_in(value, path):
            self.positions[inner] = where

    def pop(self, path: KeyPath) -> Any:
        """Removes a key; returns its value, None where there was none."""
        block = self.block(path[:-1])
        value = block.pop(path[-1], None)
        self._forget(path)
        return value

    def move(self, old: KeyPath, new: KeyPath) -> None:
        """Renames a key. Where the new name is there already it wins, and a note says so."""
        where = self.where(old)
        if self.get(new) is not None:
            self.note(old, f"ignored, {dotted(new)} is given ({self.where(new)})")
            self.pop(old)
            return
        inner = {path[len(old) :]: place for path, place in self.positions.items() if path[: len(old)] == old}
        value = self.pop(old)
        if value is not None:
            self.put(new, value, where)
            self.positions.update({new + rest: place for rest, place in inner.items()})

    def _forget(self, path: KeyPath) -> None:
        for known in [known for known in self.positions if known[: len(path)] == path]:
            del self.positions[known]


def _paths_in(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths_in(inner, (*path, key))


class ParseError(Exception):
    """The text is no usable YAML: line (1-based, or None) and what is wrong."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read_document(path: Path) -> Document:
    """Parses an option file; mistakes in its syntax are in the document's problems."""
    document = Document(positions={(): str(path)})
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ParseError(None, f"larger than {MAX_BYTES >> 20} MiB, not an option file")
        data = parse(path.read_bytes().decode("utf-8-sig"), document, str(path))
        if not isinstance(data, dict):
            raise ParseError(None, f"expected `key: value` lines, got {'nothing' if data is None else type(data).__name__}")
        document.data = data
    except OSError as error:
        document.problem((), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        document.problem((), "not UTF-8 text")
    except ParseError as error:
        at = f":{error.line}" if error.line else ""
        document.problems.append(f"{path}{at}: {error.message}")
    return document


def parse(text: str, document: Document, source: str) -> Any:
    """Plain data from YAML text; positions and duplicate keys go into the document. Raises ParseError."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        hint = "; indent with spaces, tabs are not allowed in YAML" if "'\\t'" in str(error.problem) else ""
        raise ParseError(line, f"not valid YAML: {error.problem}{hint}") from error
    except yaml.YAMLError as error:
        raise ParseError(None, f"not valid YAML: {str(error).splitlines()[0]}") from error
    return None if node is None else _Builder(document, source).value(node, ())


class _Loader(yaml.BaseLoader):
    """Composes nodes without deciding what plain scalars mean (`plain_value` does), and not endlessly deep."""

    depth = 0

    def resolve(self, kind: type, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", self.peek_event().start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Builder:
    """YAML nodes to plain data; the number of values is bounded, because aliases can multiply them without end."""

    def __init__(self, document: Document, source: str) -> None:
        self.document = document
        self.source = source
        self.count = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise ParseError(_line(node), f"more than {MAX_VALUES} values or {MAX_DEPTH} levels; are anchors repeated inside each other?")
        if isinstance(node, yaml.CollectionNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            raise ParseError(_line(node), f"the tag `{node.tag.replace(_TAG, '!!')}` is not known here")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.element(item, (*path, i)) for i, item in enumerate(node.value)]
        return _scalar(node)

    def element(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.positions[path] = f"{self.source}:{_line(node)}"
        return self.value(node, path)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ParseError(_line(key_node), "a key must be a single word")
            key, inner = key_node.value, (*path, key_node.value)
            if key == "<<" and key_node.tag == _PLAIN:
                merged.update(self.merge(value_node, path))
            elif key in own:
                place = self.document.positions[inner]
                self.document.problems.append(f"{self.source}:{_line(key_node)}: {dotted(inner)}: given twice, first at {place}")
            else:
                self.document.positions[inner] = f"{self.source}:{_line(key_node)}"
                own[key] = self.value(value_node, inner)
        return merged | own

    def merge(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """`<<: *name` or `<<: [*one, *two]`: the earlier mapping wins."""
        out: dict[str, Any] = {}
        for base in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            if not isinstance(base, yaml.MappingNode):
                raise ParseError(_line(node), "`<<` merges mappings only")
            out.update(self.value(base, path))
        return out


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _never(text: str) -> Any:
    raise ValueError(text)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_PLAIN_VALUES: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), _boolean),
    (re.compile(r"[-+]?[0-9]{1,18}"), int),
    (re.compile(r"0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)

_TAGGED: dict[str, Callable[[str], Any]] = {
    _TAG + "str": str,
    _TAG + "float": float,
    _TAG + "int": int,
    _TAG + "bool": _boolean,
    _TAG + "null": lambda text: None,
}


def plain_value(text: str) -> Any:
    """What an unquoted scalar means in YAML 1.2: None, bool, int, float, or the text itself."""
    for pattern, convert in _PLAIN_VALUES:
        if pattern.fullmatch(text):
            return convert(text)
    return text


def _scalar(node: yaml.Node) -> Any:
    if node.tag == _PLAIN:
        return plain_value(node.value)
    try:
        return _TAGGED.get(node.tag, _never)(node.value)
    except (ValueError, KeyError) as error:
        tag = node.tag.replace(_TAG, "!!")
        raise ParseError(
            _line(node), f"`{tag} {node.value}` cannot be read; the tags known here are !!str !!float !!int !!bool !!null"
        ) from error

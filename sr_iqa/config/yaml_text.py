"""YAML text to plain data with the line of every key. Scalars follow YAML 1.2, which PyYAML's own loader does not:
`1e-4` and `5e3` are numbers; `on`, `no` and `012` are neither booleans nor octal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from .document import Document, KeyPath, dotted

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_VALUES = 10_000

_PLAIN = "!plain"
_TAG = "tag:yaml.org,2002:"


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
    """Composes nodes without deciding what plain scalars mean (`plain_value` does), not endlessly deep and not endlessly many."""

    depth = count = 0

    def resolve(self, kind: type, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth == MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", self.peek_event().start_mark)
        self.count += 1
        if self.count > 2 * MAX_VALUES:  # keys are nodes too
            raise ComposerError(None, None, f"more than {MAX_VALUES} values", self.peek_event().start_mark)
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
        assert isinstance(node, yaml.ScalarNode)
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
            key = _text(key_node)
            inner = (*path, key)
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


def _text(node: yaml.ScalarNode) -> str:
    r"""A scalar as text; `"\ud83d\ude00"`, as JSON escapes what lies beyond 16 bits, is one character."""
    try:
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise ParseError(_line(node), "half a character (an escape from \\ud800 to \\udfff) is no text") from error
    if "\0" in text:
        raise ParseError(_line(node), "text cannot hold the character \\0")
    return text


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


def _scalar(node: yaml.ScalarNode) -> Any:
    text = _text(node)
    if node.tag == _PLAIN:
        return plain_value(text)
    try:
        return _TAGGED.get(node.tag, _never)(text)
    except (ValueError, KeyError) as error:
        tag = node.tag.replace(_TAG, "!!")
        raise ParseError(
            _line(node), f"`{tag} {text}` cannot be read; the tags known here are !!str !!float !!int !!bool !!null"
        ) from error

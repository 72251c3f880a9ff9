"""TOML text to plain data with the line of every key that a light scan finds; other keys get the line of their block."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from .document import Document, KeyPath, dotted
from .yaml_text import MAX_BYTES, MAX_DEPTH, MAX_VALUES

_NAME = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_NAMES = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_SECTION = re.compile(rf"\s*\[\s*({_NAMES})\s*\]\s*(?:#.*)?")
_ELEMENT = re.compile(rf"\s*\[\[\s*({_NAMES})\s*\]\]\s*(?:#.*)?")
_KEY = re.compile(rf"\s*({_NAMES})\s*=")


def read_toml_document(path: Path) -> Document:
    """Parses a TOML file; mistakes in its syntax are in the document's problems."""
    document = Document(positions={(): str(path)})
    try:
        if path.stat().st_size > MAX_BYTES:
            document.problem((), f"larger than {MAX_BYTES >> 20} MiB, not an option file")
            return document
        text = path.read_bytes().decode("utf-8-sig")
        data = tomllib.loads(text)
    except OSError as error:
        document.problem((), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        document.problem((), "not UTF-8 text")
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)", str(error))
        document.problems.append(f"{path}{f':{at[1]}' if at else ''}: not valid TOML: {str(error).replace(at[0], '') if at else error}")
    except (RecursionError, ValueError) as error:  # tomllib's own of arrays within arrays, and of numbers with thousands of digits
        document.problem((), f"not valid TOML: {error}")
    else:
        _bound(document, data)
        if not document.problems:
            document.data = data
            document.positions.update(_positions(text, data, str(path)))
    return document


def _bound(document: Document, data: dict[str, Any]) -> None:
    """Only what an option file holds: neither dates nor text with \\0, not endlessly deep and not endlessly much."""
    for count, (path, value) in enumerate(_values(data, ())):
        if count > MAX_VALUES or len(path) > MAX_DEPTH:
            document.problem((), f"more than {MAX_VALUES} values or {MAX_DEPTH} levels")
            return
        if isinstance(value, (date, datetime, time)):
            document.problem((), f"{dotted(path)}: a date belongs to no option")
        if any("\0" in text for text in (*map(str, path[-1:]), value) if isinstance(text, str)):
            document.problem((), f"{dotted(path)!r}: text cannot hold the character \\0")


def _values(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    yield path, value
    if len(path) > MAX_DEPTH:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _values(inner, (*path, key))


def _positions(text: str, data: dict[str, Any], source: str) -> dict[KeyPath, str]:
    """Lines of `[section]`, `[[section]]` and `key =`. What looks like one inside a long text counts only if there is such a key."""
    known = {path for path, _ in _values(data, ())}
    found: dict[KeyPath, str] = {}
    section: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _ELEMENT.fullmatch(line):
            array = _path(match[1])
            section = (*array, sum(path[:-1] == array and isinstance(path[-1], int) for path in found))
        elif match := _SECTION.fullmatch(line):
            section = _path(match[1])
        else:
            match = _KEY.match(line)
        if match:
            key = _path(match[1])
            path = section if match.re is not _KEY else (*section, *key)
            for known_path in (path[:n] for n in range(1, len(path) + 1) if path in known):
                found.setdefault(known_path, f"{source}:{number}")
    return found


def _path(names: str) -> KeyPath:
    return tuple(name.strip("\"'") for name in re.findall(_NAME, names))

"""Option data that still know where every key came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

KeyPath = tuple[str | int, ...]
LONGEST = 2_000
"""Of one problem's line: a file may hold anything."""


def dotted(path: KeyPath) -> str:
    """("train", "reward_opt", 0) -> "train.reward_opt.0"."""
    return ".".join(str(part) for part in path)


class OptionsError(UsageError):
    """Option files or overrides that cannot be used; `problems` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problem if len(problem) <= LONGEST else f"{problem[:LONGEST]}..." for problem in problems)
        super().__init__("\n".join(self.problems))


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
            value = _inside(value, part)
        return value

    def block(self, path: KeyPath) -> dict[Any, Any]:
        """The mapping at a path; empty where there is none or something else stands there."""
        value = self.get(path)
        return value if isinstance(value, dict) else {}

    def put(self, path: KeyPath, value: Any, where: str) -> None:
        """Sets a value, making the blocks on the way. Raises NoBlockError."""
        container: Any = self.data
        for depth, part in enumerate(path, 1):
            if not _can_hold(container, part):
                raise NoBlockError(path[: depth - 1])
            if depth == len(path):
                break
            if _inside(container, part) is None:
                if isinstance(path[depth], int):
                    raise NoBlockError(path[:depth])
                container[part] = {}
                self.positions[path[:depth]] = where
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


def _can_hold(container: Any, part: str | int) -> bool:
    """Any name in a block, an index that is there in a list."""
    if isinstance(container, dict):
        return isinstance(part, str)
    return isinstance(container, list) and part in range(len(container))


def _inside(container: Any, part: str | int) -> Any:
    if isinstance(container, dict):
        return container.get(part)
    return container[part] if isinstance(container, list) and isinstance(part, int) and part < len(container) else None


def _paths_in(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths_in(inner, (*path, key))

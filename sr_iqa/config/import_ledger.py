"""A document that keeps books while it is translated: what became of every key of the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from .document import Document, KeyPath, dotted

Fate = Literal["mapped", "ignored", "lost"]

WORDS: dict[Fate, str] = {"mapped": "mapped", "ignored": "ignored", "lost": "NO COUNTERPART"}

CONSEQUENTIAL = {
    "gt_usm": "sharpen the GTs beforehand if you want them sharp",
    "l1_gt_usm": "sharpen the GTs beforehand if you want them sharp",
    "percep_gt_usm": "sharpen the GTs beforehand if you want them sharp",
    "gan_gt_usm": "sharpen the GTs beforehand if you want them sharp",
    "Use_sharpen": "sharpen the GTs beforehand if you want them sharp",
    "meta_info": "",
    "meta_info_file": "",
    "io_backend": "",
    "filename_tmpl": "rename the LQ files",
    "use_shuffle": "",
    "resume_state": "to go on from its weights give path.pretrain_network_g",
}
"""Keys that plain loading ignores with a note though they change what is trained, and what to do instead where the note does not say."""

PARTNERS = {"kernel_prob": "kernel_list", "blur_kernel_size_max": "blur_kernel_size_min", "tile_process": "tile_size"}
"""Keys that become one key of ours together with another."""
ANYWAY = (("use_shuffle", True), ("reduction", "mean"), ("val_enabled", True), ("metrics_enabled", True))
"""What asks for what happens here without asking."""


@dataclass(frozen=True)
class Line:
    """What became of one key: `text` is the rest of its line in the report."""

    fate: Fate
    where: str
    path: KeyPath
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {WORDS[self.fate]} {dotted(self.path)}{self.text}"


@dataclass
class Ledger(Document):
    """A document whose changes are traced back to the file's keys. Paths of notes and losses are those that the key has at the time."""

    given: dict[KeyPath, tuple[str, Any]] = field(default_factory=dict)
    """Every key of the file, blocks included: its place and its value."""
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    """Key path now -> key path in the file, where the two differ or the value does."""
    fates: list[Line] = field(default_factory=list)
    """Ignored and lost keys, with their paths in the file."""
    gone: set[KeyPath] = field(default_factory=set)
    """Lost keys of the file; what stands at their places now is a stand-in."""

    @classmethod
    def of(cls, document: Document) -> Ledger:
        given = {path: (document.where(path), value) for path, value in _keys(copy.deepcopy(document.data), ())}
        return cls(document.data, document.positions, document.notes, document.problems, given)

    def ignored(self, path: KeyPath, why: str) -> None:
        """Takes a key out that changes nothing here."""
        self._leave("ignored", path, why)

    def lost(self, path: KeyPath, what: str) -> None:
        """Takes a key out that has no counterpart: what it does, and what to do instead."""
        self.gone.add(self._source(path))
        self._leave("lost", path, what)

    def deviation(self, path: KeyPath, what: str) -> None:
        """As `lost`, of a key that stays with another value than the file's, or is gone already."""
        self.fates.append(Line("lost", self.where(path), self._source(path), f": {what}"))

    def add(self, old: KeyPath, new: KeyPath, value: Any) -> None:
        """Sets `new`, which came of the key `old`."""
        self._set(new, value, self.where(old), self._source(old))

    def become(self, old: KeyPath, new: KeyPath, value: Any) -> None:
        """Takes the key `old` away and sets `new`, which came of it."""
        where, source = self.where(old), self._source(old)
        self.pop(old)
        self._set(new, value, where, source)

    def append(self, old: KeyPath, new: KeyPath, value: Any) -> None:
        """Takes the key `old` away and adds what came of it to the list `new`."""
        where, source, found = self.where(old), self._source(old), self.get(new)
        earlier = found if isinstance(found, list) else []
        origins = {path: origin for path, origin in self.origins.items() if path[: len(new)] == new and path != new}
        places = {path: place for path, place in self.positions.items() if path[: len(new)] == new and path != new}
        self.pop(old)
        self.put(new, [*earlier, value], where)
        self.origins.pop(new, None)
        self.origins |= {**origins, (*new, len(earlier)): source}
        self.positions.update(places)

    def move(self, old: KeyPath, new: KeyPath) -> None:
        if self.get(new) is None and self.get(old) is not None:
            inner = [path for path, _ in _keys({old[-1]: self.get(old)}, old[:-1])]
            sources = {new + path[len(old) :]: self._source(path) for path in inner}
            super().move(old, new)
            self.origins.update(sources)
        else:
            super().move(old, new)

    def put(self, path: KeyPath, value: Any, where: str) -> None:
        """The file's key is told by its place: the first one there, if `path` itself is none of the file's."""
        if path not in self.given or self.given[path][0] != where:
            there = [source for source, (place, _) in self.given.items() if place == where]
            likely = [source for source in there if is_leaf(self.given[source][1])]
            if there:
                self.origins[path] = next((source for source in likely if source[-1] == "type"), (likely or there)[0])
        super().put(path, value, where)

    def note(self, path: KeyPath, text: str) -> None:
        source, name = self._source(path), str(path[-1])
        harmless = text.startswith("ignored") and "no counterpart" not in text and name not in CONSEQUENTIAL
        advice = CONSEQUENTIAL.get(name, "")
        said = text.removeprefix("ignored, ") + (f"; {advice}" if advice else "")
        self.fates.append(Line("ignored" if harmless else "lost", self.where(path), source, f": {said}"))

    def lines(self) -> list[Line]:
        """What became of every key, in the file's order; a block that went as a whole is one line."""
        spoken = {line.path for line in self.fates}
        became: dict[KeyPath, list[KeyPath]] = {}
        for path in leaves(self.data):
            source = self.origin(path)
            if source is not None and not self.stands_in(path) and (self.get(path), self.given[source][1]) != (None, None):
                became.setdefault(source, []).append(path)
        found = list(self.fates)
        for path, (where, value) in self.given.items():
            for new in became.get(path, ()):
                found.append(Line("mapped", where, path, f" -> {dotted(new)}: {shown(self.get(new))}"))
            covered = any(path[:n] in spoken or path[:n] in became for n in range(1, len(path) + 1))
            if not covered and is_leaf(value) and value != {}:
                found.append(Line(*_unspoken(where, path, value)))
        order = {path: number for number, path in enumerate(self.given)}
        return sorted(found, key=lambda line: (order.get(line.path, len(order)), line.fate))

    def origin(self, path: KeyPath) -> KeyPath | None:
        """The file's key behind a key; None for one that the file does not have."""
        for n in range(len(path), 0, -1):
            if path[:n] in self.origins:
                return self.origins[path[:n]] if self.origins[path[:n]] in self.given else None
            if n == len(path) and path in self.given:
                return path
        return None

    def stands_in(self, path: KeyPath) -> bool:
        """Whether a key stands where the file has something without counterpart."""
        return any(path[:n] in self.gone for n in range(1, len(path) + 1))

    def _set(self, path: KeyPath, value: Any, where: str, source: KeyPath) -> None:
        self.put(path, value, where)
        self.origins = {known: origin for known, origin in self.origins.items() if known[: len(path)] != path}
        self.origins[path] = source

    def _source(self, path: KeyPath) -> KeyPath:
        return self.origins.get(path, path)

    def _leave(self, fate: Fate, path: KeyPath, text: str) -> None:
        self.fates.append(Line(fate, self.where(path), self._source(path), f": {text}"))
        self.pop(path)


def _unspoken(where: str, path: KeyPath, value: Any) -> tuple[Fate, str, KeyPath, str]:
    partner = PARTNERS.get(str(path[-1]).rstrip("2"))
    if partner:
        return "mapped", where, path, f" -> with {partner}"
    if value is None or value is False or value in (0, -1, "", "{}", "disk", [], {}):
        return "ignored", where, path, f": {shown(value)} asks for nothing"
    if (path[-1], value) in ANYWAY:
        return "ignored", where, path, f": {shown(value)} is what happens here anyway"
    return "lost", where, path, f": {shown(value)} is not carried over"


def is_leaf(value: Any) -> bool:
    """Not a block with keys, nor a list of blocks."""
    return not (isinstance(value, dict) and value) and not _is_list_of_blocks(value)


def leaves(data: dict[str, Any]) -> Iterator[KeyPath]:
    for path, value in _keys(data, ()):
        if is_leaf(value):
            yield path


def shown(value: Any) -> str:
    """A value for one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _is_list_of_blocks(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(inner, dict) for inner in value)


def _keys(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if _is_list_of_blocks(value) else ()
    for key, inner in items:
        yield (*path, key), inner
        yield from _keys(inner, (*path, key))


def printable(text: str) -> str:
    """On one line, whatever the file holds."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)

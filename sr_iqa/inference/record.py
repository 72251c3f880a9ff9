"""What was made in a folder, in a file beside the results: a line for each says from what and how.

So a rerun does what is missing, and what would come out otherwise; and a file that no line names is somebody else's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic import TEMPORARY_PREFIX, errors_name
from ..errors import UserError

NAME = "infer.jsonl"
Stamp = tuple[int, int]
"""A source's size in bytes and its time of change in nanoseconds."""
Settings = Mapping[str, str]
"""What the pixels of a result depend on, beside its source."""


@dataclass(frozen=True)
class Entry:
    """What is known of a result."""

    source: Stamp | None = None
    """None for a result that was begun: the file may be there or not, old or new."""
    settings: Settings = field(default_factory=dict)
    note: str = ""


class Record:
    """The results of a folder. Nothing is written before the first is begun."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError for a link, which would be written through."""
        if (folder / NAME).is_symlink():
            raise UserError(f"{folder / NAME}: is a link, and is not written through; take it away, or give another folder.")
        self.folder, self.entries = folder, read_entries(folder)

    def check(self, wanted: Mapping[Path, Settings], fresh: bool = False) -> None:
        """Refuses to replace what is not known to be ours, or (unless `fresh`) what was made otherwise.

        Args:
            wanted: result -> how it is to be made.
            fresh: all of them are to be made again.

        Raises:
            UserError: a file of somebody else's, or other settings, which are named.
        """
        there = [output for output in wanted if os.path.lexists(output)]
        for output in there:
            entry = self.entries.get(self._key(output))
            if entry is None:
                raise UserError(
                    f"{output}: is there already, and {NAME} does not list it as a result, so it is left alone. Give another folder or a "
                    "--suffix, or take the file away."
                )
            changed = _changes(entry.settings, wanted[output]) if entry.source and not fresh else ""
            if changed:
                raise UserError(f"{output}: was made otherwise ({changed}). Give another folder or a --suffix, or --fresh to replace it.")
        if fresh and there:
            self._append({output: Entry() for output in there})

    def stands(self, output: Path, source: Stamp | None, settings: Settings) -> bool:
        """Whether a result is there, made like this from the source as it is now."""
        entry = self.entries.get(self._key(output))
        return entry is not None and source is not None and entry.source == source and entry.settings == settings and os.path.isfile(output)

    def begin(self, output: Path) -> None:
        """Has to be said before the file appears: then a kill leaves no file of which nobody knows whose it is."""
        self._append({output: Entry()})

    def finish(self, output: Path, source: Stamp, settings: Settings, note: str = "") -> None:
        """Says that the file is there as it is to be."""
        self._append({output: Entry(source, settings, note)})

    def note(self, output: Path) -> str:
        """What was said of a result, its adapter scale; or nothing."""
        return self.entries.get(self._key(output), Entry()).note

    def _key(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()

    def _append(self, entries: Mapping[Path, Entry]) -> None:
        """Lines at the end, in one write, on the disk when this returns."""
        new = {self._key(output): entry for output, entry in entries.items()}
        lines = "".join(f"{json.dumps({'result': key} | _said(entry))}\n" for key, entry in new.items())
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / NAME
        with errors_name(path), path.open("a+b") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                lines = "\n" + lines  # the last line was cut short by a kill
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
        self.entries |= new


def read_entries(folder: Path) -> dict[str, Entry]:
    """Result, as a path below the folder -> what its last line says. Lines that were cut short are passed over."""
    path, found = folder / NAME, {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            said = json.loads(line)
            source = (int(said["source"][0]), int(said["source"][1])) if "source" in said else None
            settings = {str(key): str(value) for key, value in said.get("settings", {}).items()}
            found[str(said["result"])] = Entry(source, settings, str(said.get("note", "")))
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
    return found


def stamp_of(source: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        found = source.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def remove_leftovers(files: Iterable[Path]) -> None:
    """Removes what killed runs left of these files while they wrote them."""
    names: dict[Path, set[str]] = {}
    for file in files:
        names.setdefault(file.parent, set()).add(file.name[-50:])
    for folder, tails in names.items():
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            found = re.fullmatch(rf"{re.escape(TEMPORARY_PREFIX)}[0-9a-f]{{8}}-(.*)", path.name, re.DOTALL)
            if found and found[1] in tails and path.is_file():
                path.unlink(missing_ok=True)


def _said(entry: Entry) -> dict[str, Any]:
    if entry.source is None:
        return {}
    return {"source": entry.source, "settings": dict(entry.settings)} | ({"note": entry.note} if entry.note else {})


def _changes(before: Settings, now: Settings) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return "; ".join(f"{key} {before.get(key, 'not set')} -> {now.get(key, 'not set')}" for key in keys)

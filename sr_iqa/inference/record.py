"""How the results in a folder were made, in a file beside them: what is there is not done again, unless it would come out otherwise."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..atomic import atomic_write
from ..errors import UserError

TICK_S = 0.02
"""More than the resolution of a disk's clock: older results must have an older time than the record."""
NAME, NOTES = "infer.json", "chosen.jsonl"


@dataclass(frozen=True)
class Record:
    """Which results of a folder stand."""

    since: int
    """Time in nanoseconds, by the clock of the folder's disk: what is older was made otherwise."""

    def stands(self, output: Path, source: Path) -> bool:
        """Whether a result is there, made with these settings, from the input as it is now. Results appear whole or not at all."""
        try:
            made = output.stat(follow_symlinks=False).st_mtime_ns
            return made >= self.since and made >= source.stat().st_mtime_ns
        except OSError:
            return False


def open_record(folder: Path, settings: Mapping[str, str], exists: bool, fresh: bool = False) -> Record:
    """The record of a folder, begun where there is none.

    Args:
        settings: all that the pixels of the results depend on.
        exists: whether one of the results is there.
        fresh: do everything again.

    Raises:
        UserError: the results there were made with other settings, which are named, or nobody knows with which.
    """
    path = folder / NAME
    if not fresh:
        before = _read(path)
        if before is None and exists:
            raise UserError(f"{folder}: has results already, and no {NAME} that says how they were made. Give another folder, or --fresh.")
        changed = (
            [f"{key} {before.get(key, 'not set')} -> {settings.get(key, 'not set')}" for key in _differing(before, settings)]
            if before
            else []
        )
        if changed:
            raise UserError(
                f"{folder}: its results were made otherwise ({'; '.join(changed)}). Give another folder, or --fresh to replace them."
            )
        if before is not None:
            return Record(path.stat().st_mtime_ns)
    time.sleep(TICK_S)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"settings": dict(settings)}, indent=1) + "\n", encoding="utf-8")
    return Record(path.stat().st_mtime_ns)


def add_note(folder: Path, result: str, note: str) -> None:
    """Puts a line about a result, its adapter scale, behind the others in NOTES."""
    with (folder / NOTES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"result": result, "note": note}) + "\n")


def read_notes(folder: Path) -> dict[str, str]:
    """Result -> the last note about it; lines that a kill cut short are passed over."""
    found = {}
    for line in (folder / NOTES).read_text(encoding="utf-8", errors="replace").splitlines() if (folder / NOTES).is_file() else ():
        try:
            entry = json.loads(line)
            found[str(entry["result"])] = str(entry["note"])
        except (ValueError, LookupError, TypeError):
            continue
    return found


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def _read(path: Path) -> dict[str, str] | None:
    """The settings of a record; None where there is none, or none that can be read."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return {str(key): str(value) for key, value in settings.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None

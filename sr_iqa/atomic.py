"""Files and folders that appear whole or not at all: written beside their place, synced, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path in the same folder; the file written there becomes `path` when the block ends without an error.

    A full disk, a kill or a power cut leaves the previous file as it was. After an error the temporary file is removed;
    after a kill it stays behind under a name that starts with TEMPORARY_PREFIX.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with errors_name(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """An OSError of the block that says no file, as failing writes do not, gets this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """As atomic_write, for a folder: yields a new empty folder that takes the place of `path` when the block ends without an error.

    An existing folder of that name is moved aside first: a kill between the two renames leaves it whole, under a temporary name.
    """
    temporary = _beside(Path(path))
    temporary.mkdir(parents=True)
    try:
        yield temporary
        replace_folder(temporary, Path(path))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary: Path, path: Path) -> None:
    """Syncs a finished folder and gives it the name `path` in the same parent; what atomic_folder does when its block ends."""
    old = _beside(path)
    for entry in sorted(temporary.rglob("*"), reverse=True):
        _sync(entry)
    _sync(temporary)
    if path.exists():
        os.rename(path, old)
    os.rename(temporary, path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A free temporary name in the folder of `path` with the same suffix (writers choose formats by suffix)."""
    return path.parent / f"{TEMPORARY_PREFIX}{uuid4().hex[:8]}-{path.name[-50:]}"


def _sync(path: Path) -> None:
    """Asks the system to put a file's content, or a folder's list of names, on the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

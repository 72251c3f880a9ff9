"""Scores of a manifest's images, kept in its folder: one Parquet table, keyed by what the images and the metrics are, not by their names.

Columns: image and ref (SHA-256 of the files; ref is empty for no-reference metrics), identity (name, package, weights) and opinions
(signed, higher is better; several only for ensembles that abstain). While images are scored, finished ones go to part files in
<table>.parts; a stopped run goes on from them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from sr_iqa.atomic import atomic_write
from sr_iqa.errors import UserError
from sr_iqa.images import ImageError
from sr_iqa.threads import in_threads

NAME = "iqa_scores.parquet"
SAVE_EVERY_S = 20.0
"""Seconds between part files: what a killed run loses at most, plus the images it was at."""
Key = tuple[str, str]
"""Hashes of an image and of its reference ("" without one)."""
Opinions = tuple[float, ...]


class TableError(UserError):
    """A table of scores that cannot be read or written; the message starts with its path."""


class ScoreTable:
    """The table of a folder. Scores of files that have changed since, or of other weights, are not found in it, and stay.

    Two processes may write at the same time; then scores may be lost, and are computed again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._parts = folder / f"{NAME}.parts"

    def read(self, identity: str) -> dict[Key, Opinions]:
        """The scores of a metric. Raises TableError for a damaged table."""
        rows = (row for file in self._files() for row in _read(file, identity).to_pylist())
        return {(row["image"], row["ref"]): tuple(row["opinions"]) for row in rows}

    @contextmanager
    def writing(self, identity: str) -> Iterator[Scribe]:
        """Takes new scores of a metric; joined into the table at the end, kept as parts where the block is left by an error or a kill.

        Raises TableError, before anything is computed, where nothing can be written.
        """
        with _told(self._parts):
            self._parts.mkdir(parents=True, exist_ok=True)
        scribe = Scribe(self._parts, identity)
        try:
            yield scribe
        finally:
            scribe.save()
            with suppress(OSError):
                self._parts.rmdir()  # if it is empty
        self._join()

    def _files(self) -> list[Path]:
        return ([self.path] if self.path.is_file() else []) + sorted(self._parts.glob("[0-9a-f]*.parquet"))

    def _join(self) -> None:
        files = self._files()
        if not self._parts.is_dir() or not files:
            return
        import pyarrow as pa

        _write(self.path, pa.concat_tables(_read(file) for file in files))
        for file in files:  # not the folder with all in it: another process may be writing there
            if file != self.path:
                file.unlink(missing_ok=True)
        with suppress(OSError):
            self._parts.rmdir()


class Scribe:
    """Collects scores, and puts them on the disk from time to time."""

    def __init__(self, parts: Path, identity: str) -> None:
        self._parts, self._identity = parts, identity
        self._rows: list[dict[str, Any]] = []
        self._saved = time.monotonic()

    def add(self, key: Key, opinions: Opinions) -> None:
        self._rows.append({"image": key[0], "ref": key[1], "identity": self._identity, "opinions": list(opinions)})
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        if self._rows:
            import pyarrow as pa

            _write(self._parts / f"{uuid4().hex}.parquet", pa.Table.from_pylist(self._rows, _schema()))
        self._rows, self._saved = [], time.monotonic()


def hashes(paths: Iterable[Path]) -> Mapping[Path, str]:
    """SHA-256 of every file, 32 hex digits. Raises ImageError for one that cannot be read."""
    paths = list(dict.fromkeys(paths))
    return dict(zip(paths, in_threads(_hash, paths), strict=True))


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def _write(path: Path, table: Any) -> None:
    from pyarrow import parquet

    with _told(path), atomic_write(path) as file:
        parquet.write_table(table, file)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TableError(
            f"{path}: scores cannot be kept here ({error.strerror or error}); they lie beside the manifest, which may be in any folder of"
            " yours: `sr-iqa iqa import ... -o FOLDER/manifest.csv`, or a copy whose first line is `# root: FOLDER OF THE IMAGES`"
        ) from error


def _read(path: Path, identity: str | None = None) -> Any:
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, filters=None if identity is None else [("identity", "==", identity)])
        table = table.select(_schema().names).cast(_schema())
        if any(column.null_count for column in table.columns):
            raise ValueError("a value is missing")
        return table
    except (OSError, ValueError, LookupError, MemoryError, NotImplementedError) as error:  # pyarrow's own errors are among these
        words = str(error).partition("\n")[0][:200]
        raise TableError(f"{path} is no table of scores, or a damaged one ({words}); delete it, and its images are scored again") from error


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([("image", pa.string()), ("ref", pa.string()), ("identity", pa.string()), ("opinions", pa.list_(pa.float64()))])

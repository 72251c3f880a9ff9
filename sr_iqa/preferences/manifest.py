"""The one form of human preferences: pairs of images and how likely the first is the better one (docs/iqa.md).

A file is CSV or Parquet with the columns `img_a, img_b, p_a` and, where known, `ref, group, votes, content, mos_a, mos_b`. Paths are
relative to the file's folder, or to a root that it names: `# root: DIR` above the header of a CSV file, metadata `root` of a Parquet file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sr_iqa.atomic import atomic_write
from sr_iqa.errors import UserError

from .texts import read_text

NEEDED = ("img_a", "img_b", "p_a")
COLUMNS = (*NEEDED, "ref", "group", "votes", "content", "mos_a", "mos_b")
SUFFIXES = (".csv", ".parquet")
_ROOT_COMMENT = "# root:"


@dataclass(frozen=True)
class Pair:
    """Two images of one scene, compared by people. Raises ValueError for what cannot be a comparison."""

    img_a: Path
    img_b: Path
    p_a: float
    """Probability in [0, 1] that A is the better one; of a single label 1, 0.5 (alike) or 0."""
    ref: Path | None = None
    """The reference of full-reference metrics."""
    group: str = ""
    """A part of the data that gets figures of its own."""
    votes: float | None = None
    """How many people p_a comes from."""
    content: str = ""
    """Which scene is shown: the unit of chance, and what splits keep together."""

    def __post_init__(self) -> None:
        if not 0 <= self.p_a <= 1:
            raise ValueError(f"p_a is {self.p_a}; it must be in 0..1")
        if self.votes is not None and not (0 < self.votes < math.inf):
            raise ValueError(f"votes is {self.votes}; it must be above 0")
        if self.img_a == self.img_b:
            raise ValueError(f"img_a and img_b are the same image, {self.img_a}")

    @property
    def scene(self) -> str:
        """`content`; where there is none the reference's path, or else img_a's."""
        return self.content or str(self.ref or self.img_a)


@dataclass(frozen=True)
class Manifest:
    """Pairs, and the folder that their paths are written relative to."""

    pairs: tuple[Pair, ...]
    root: Path
    mos: Mapping[Path, float] | None = None
    """Mean opinion scores of images, higher is better, where there are any."""

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """The images that are compared, each once, in the order of their first pairs; without references that no pair compares."""
        return tuple(dict.fromkeys(path for pair in self.pairs for path in (pair.img_a, pair.img_b)))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of all that the manifest says, in its order; not of the images' content, nor of where the data lies."""
        images = {path for pair in self.pairs for path in (pair.img_a, pair.img_b, pair.ref) if path}
        folders = {os.path.dirname(os.path.abspath(image)) for image in images}
        rows = [list(row.values()) for row in _rows(self, Path(os.path.commonpath(folders)))] if folders else []
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def read_manifest(path: Path | str, check_images: bool = True) -> Manifest:
    """Read a manifest; every path in it comes back with its root before it.

    Raises UserError, naming the row: missing or unknown columns, wrong values, paths with `..`, images that are not there (unless
    `check_images` is False), one image with two opinion scores.
    """
    path = Path(path)
    root, numbered = _read_parquet(path) if file_kind(path) == ".parquet" else _read_csv(path)
    pairs: list[Pair] = []
    mos: dict[Path, float] = {}
    seen: set[Path] = set()
    for row_name, row in numbered:
        try:
            pair = _pair(row, root)
            for column, image in (("mos_a", pair.img_a), ("mos_b", pair.img_b)):
                _note_mos(mos, image, row.get(column))
            if check_images:
                _check_files(pair, seen)
        except ValueError as error:
            raise UserError(f"{path}, {row_name}: {error}") from error
        pairs.append(pair)
    if not pairs:
        raise UserError(f"{path}: no pairs in it")
    return Manifest(tuple(pairs), root, mos or None)


def write_manifest(path: Path | str, manifest: Manifest) -> None:
    """Write a manifest as CSV or Parquet, by its suffix; the file appears whole or not at all.

    Paths are written relative to the file's folder if all images lie below it, otherwise relative to the manifest's root, which the file
    then names; an image outside of both keeps its absolute path.
    """
    path = Path(path)
    kind, folder = file_kind(path), Path(os.path.abspath(path)).parent
    images = {path for pair in manifest.pairs for path in (pair.img_a, pair.img_b, pair.ref) if path}
    below = all(os.path.abspath(image).startswith(os.path.join(folder, "")) for image in images)
    root = folder if below else Path(os.path.abspath(manifest.root))
    rows = _rows(manifest, root)
    columns = [column for column in COLUMNS if column in NEEDED or any(row[column] not in ("", None) for row in rows)]
    write = _write_parquet if kind == ".parquet" else _write_csv
    try:
        with atomic_write(path) as file:
            write(file, rows, columns, None if below else root)
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: a name has bytes that are not UTF-8, {error.object[:100]!r}; rename the file") from error


def checked_name(name: str, root: Path) -> Path:
    """A path that a foreign file names, below `root` or absolute. Raises ValueError for an empty one and for one with `..` in it."""
    if not name:
        raise ValueError("an image has no name")
    if "\0" in name or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f"{name!r} is no name of an image here: '..' leads elsewhere")
    return root / name


def number(text: Any, column: str) -> float:
    """A finite number. Raises ValueError naming the column."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} is {str(text)[:60]!r}, not a number")
    return value


def file_kind(path: Path) -> str:
    """.csv or .parquet. Raises UserError for another suffix."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: a manifest is a file .csv or .parquet")
    return path.suffix.lower()


def _pair(row: Mapping[str, Any], root: Path) -> Pair:
    votes, ref = row.get("votes"), row.get("ref")
    return Pair(
        img_a=checked_name(row["img_a"] or "", root),
        img_b=checked_name(row["img_b"] or "", root),
        p_a=number(row["p_a"], "p_a"),
        ref=checked_name(ref, root) if ref else None,
        group=row.get("group") or "",
        votes=None if votes in (None, "") else number(votes, "votes"),
        content=row.get("content") or "",
    )


def _note_mos(mos: dict[Path, float], image: Path, given: Any) -> None:
    if given in (None, ""):
        return
    value = number(given, "an opinion score")
    if mos.setdefault(image, value) != value:
        raise ValueError(f"{image} has the opinion scores {mos[image]} and {value}")


def _check_files(pair: Pair, seen: set[Path]) -> None:
    for image in (pair.img_a, pair.img_b, pair.ref):
        if image is not None and image not in seen:
            if not image.is_file():
                raise ValueError(f"no such image: {image}")
            seen.add(image)


def _read_csv(path: Path) -> tuple[Path, Iterable[tuple[str, dict[str, Any]]]]:
    text, root, first = read_text(path), path.parent, 1
    if text.startswith(_ROOT_COMMENT):
        comment, _, text = text.partition("\n")
        root, first = root / comment.removeprefix(_ROOT_COMMENT).strip(), 2
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    return root, _csv_rows(reader, path, first)


def _csv_rows(reader: Any, path: Path, first: int) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        columns = _checked_columns(next(reader, []), path)
        for cells in reader:
            name = f"line {reader.line_num + first - 1}"
            if len(cells) != len(columns):
                if not cells:
                    continue
                raise UserError(f"{path}, {name}: {len(cells)} values for {len(columns)} columns")
            yield name, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + first - 1}: no CSV ({error})") from error


def _read_parquet(path: Path) -> tuple[Path, Iterable[tuple[str, dict[str, Any]]]]:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = _checked_columns(file.schema_arrow.names, path)
            named = (file.schema_arrow.metadata or {}).get(b"root", b"").decode()
            rows = file.read(columns).to_pylist()
    except (OSError, ValueError, LookupError, MemoryError, NotImplementedError) as error:  # pyarrow's own errors are among these
        words = str(error).partition("\n")[0][:200]
        raise UserError(f"{path} is no Parquet file, or a damaged one ({words})") from error
    for i, row in enumerate(rows, 1):
        wrong = [name for name in ("img_a", "img_b", "ref", "group", "content") if not isinstance(row.get(name) or "", str)]
        if wrong:
            raise UserError(f"{path}, row {i}: {wrong[0]} is {str(row[wrong[0]])[:60]}, not text")
    return path.parent / named, ((f"row {i}", row) for i, row in enumerate(rows, 1))


def _checked_columns(columns: list[str], path: Path) -> list[str]:
    columns = [column.strip() for column in columns]
    missing = [column for column in NEEDED if column not in columns]
    strange = [column for column in columns if column not in COLUMNS or columns.count(column) > 1]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; a manifest has {', '.join(COLUMNS)} (`sr-iqa iqa import csv` renames)")
    if strange:
        raise UserError(f"{path}: unknown or repeated column {strange[0]!r}; a manifest has {', '.join(COLUMNS)}")
    return columns


def _rows(manifest: Manifest, root: Path) -> list[dict[str, Any]]:
    """One dict of all COLUMNS per pair, paths as they are written."""
    mos = manifest.mos or {}
    names: dict[Path | None, str] = {None: ""}
    start = os.path.join(os.path.abspath(root), "")

    def name(path: Path | None) -> str:
        if path not in names:
            names[path] = Path(os.path.abspath(str(path)).removeprefix(start)).as_posix()
        return names[path]

    return [
        {
            **{"img_a": name(pair.img_a), "img_b": name(pair.img_b), "p_a": float(pair.p_a), "ref": name(pair.ref), "group": pair.group},
            **{
                "votes": None if pair.votes is None else float(pair.votes),
                "content": pair.content,
                "mos_a": mos.get(pair.img_a),
                "mos_b": mos.get(pair.img_b),
            },
        }
        for pair in manifest.pairs
    ]


def _write_csv(file: Path, rows: list[dict[str, Any]], columns: list[str], root: Path | None) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        if root is not None:
            out.write(f"{_ROOT_COMMENT} {root}\n")
        writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(file: Path, rows: list[dict[str, Any]], columns: list[str], root: Path | None) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    numbers = ("p_a", "votes", "mos_a", "mos_b")
    schema = pa.schema([(column, pa.float64() if column in numbers else pa.string()) for column in columns])
    table = pa.Table.from_pylist([{column: row[column] for column in columns} for row in rows], schema)
    parquet.write_table(table.replace_schema_metadata({} if root is None else {"root": str(root)}), file)

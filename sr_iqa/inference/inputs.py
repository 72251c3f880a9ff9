"""Which images are meant, and the names of their results: known, and without conflict, before any work begins."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError, UserError
from ..images import SUFFIXES
from .compare import PAGE, is_page_picture, pictures_folder
from .pictures import FORMATS
from .record import NAME, read_entries


@dataclass(frozen=True)
class Naming:
    """How results are called: folder/<the input's place and stem><suffix>.<format>."""

    folder: Path
    format: str = "png"
    suffix: str = ""


@dataclass(frozen=True)
class Job:
    """One input and its results."""

    source: Path
    outputs: dict[str, Path]
    """Title of the adapter scale -> file."""

    @property
    def name(self) -> str:
        """For people: the input's path as it was found."""
        return str(self.source)


@dataclass(frozen=True)
class Found:
    jobs: list[Job]
    others: int
    """Files that were found beside the images and are none, by their suffix."""


def parse_folder(text: str) -> Path:
    """`-o`. Raises UsageError for nothing, which would be the folder that one is in."""
    if not text.strip():
        raise UsageError("--output is empty: give a folder, or . for this one")
    return Path(text)


def find_jobs(inputs: Sequence[Path | str], naming: Naming, titles: Sequence[str] = ("",), recursive: bool = False) -> Found:
    """The jobs for files, folders and patterns such as `photos/*.jpg`; each image once, folders in the order of names.

    What folders and patterns find of earlier results in the output folder is left out; a file that is named outright is not.

    Args:
        titles: of several results for one input, put behind the name; one empty title for a single result.
        recursive: folders within folders too; results keep their places.

    Raises:
        UsageError: an empty input, a format that is not written, or a suffix that names another folder.
        UserError: no images; two that would get one name; a result that would replace an input, or take the place of a folder.
    """
    folder = naming.folder
    if f".{naming.format.lower()}" not in FORMATS:
        raise UsageError(f"--format {naming.format} is not written; choose one of {', '.join(name[1:] for name in FORMATS)}")
    if re.search(r"[/\\\0]", naming.suffix):
        raise UsageError(f"--suffix {naming.suffix}: is put behind a file's name and may not name a folder")
    if folder.is_file() or folder.suffix.lower() in SUFFIXES:
        raise UserError(f"{folder}: give a folder; the results are written there under their inputs' names")
    out = _Output(folder)
    found: dict[Path, tuple[Path, Path]] = {}
    others: set[Path] = set()
    for one in inputs:
        if not str(one).strip():
            raise UsageError("--input is empty: give a file, a folder or a pattern")
        files, searched = _files(one, recursive)
        kept = files if searched is None else [pair for pair in files if not out.has(pair[0], searched)]
        images = kept if searched is None else [pair for pair in kept if pair[0].suffix.lower() in SUFFIXES]
        if not images:
            raise UserError(f"{one}: no images there{' but earlier results' if len(kept) < len(files) else ''}.")
        others |= {_place(source) for source, _ in kept} - {_place(source) for source, _ in images}
        for source, place in images:
            found.setdefault(_place(source), (source, place))
    jobs = [Job(source, _outputs(place, naming, titles)) for source, place in found.values()]
    _check(jobs, naming)
    return Found(jobs, len(others))


def _files(one: Path | str, recursive: bool) -> tuple[list[tuple[Path, Path]], Path | None]:
    """(file, its place below the output folder) of all that is meant, and the folder that was searched; none for a file named outright."""
    path = Path(one)
    if path.is_dir():
        files = sorted(path.rglob("*") if recursive else path.iterdir())
        places = [(file, file.relative_to(path)) for file in files if file.is_file()]
        return [(file, place) for file, place in places if not any(part.startswith(".") for part in place.parts)], path
    if glob.has_magic(str(one)) and not path.exists():
        root = _fixed_part(path)
        files = [file for file in map(Path, sorted(glob.glob(str(one), recursive=True))) if file.is_file()]
        return [(file, file.relative_to(root) if recursive else Path(file.name)) for file in files], root
    if path.exists():
        return [(path, Path(path.name))], None
    raise UserError(f"{one}: no such file or folder")


class _Output:
    """What lies in the output folder and is no input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.pictures = pictures_folder(self.folder / PAGE)
        self.own = {self.folder / name for name in (*read_entries(folder), NAME, PAGE)}

    def has(self, source: Path, searched: Path) -> bool:
        """Whether a file is an earlier result, or in the output folder, where that is within the folder that was searched."""
        place, root = _place(source), searched.resolve()
        if place in self.own or (place.parent == self.pictures and is_page_picture(place)):
            return True
        return self.folder != root and self.folder.is_relative_to(root) and place.is_relative_to(self.folder)


def _place(path: Path) -> Path:
    """Where a file itself lies: a link to another file is not that file."""
    return path.parent.resolve() / path.name


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first sign that stands for others."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _outputs(place: Path, naming: Naming, titles: Sequence[str]) -> dict[str, Path]:
    stem = f"{place.stem}{naming.suffix}"
    names = {title: f"{stem}{f'_{title}' if title else ''}.{naming.format.lower()}" for title in titles}
    return {title: naming.folder / place.parent / name for title, name in names.items()}


def _check(jobs: Sequence[Job], naming: Naming) -> None:
    sources, taken = {job.source.resolve() for job in jobs}, {}
    for job in jobs:
        for output in job.outputs.values():
            beside = output.parent.resolve() == job.source.parent.resolve()
            if (beside and not naming.suffix) or output.resolve() in sources:
                raise UserError(f"{naming.folder}: the results would overwrite the inputs; give another folder, or a --suffix.")
            if output in taken:
                raise UserError(f"{taken[output].name} and {job.name}: several images would be written to {output}; rename one.")
            if os.path.isdir(output):
                raise UserError(f"{output}: is a folder, where a result is to be written; give another folder, or a --suffix.")
            taken[output] = job

"""Which images are meant, and the names of their results: known, and without conflict, before any work begins."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError, UserError
from ..images import SUFFIXES, list_images
from .pictures import FORMATS


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


def find_jobs(inputs: Sequence[Path | str], naming: Naming, titles: Sequence[str] = ("",), recursive: bool = False) -> list[Job]:
    """The jobs for files, folders and patterns such as `photos/*.jpg`; each image once, folders in the order of names.

    Args:
        titles: of several results for one input, put behind the name; one empty title for a single result.
        recursive: folders within folders too; results keep their places.

    Raises:
        UsageError: a format that is not written, or a suffix that names another folder.
        UserError: no images; two that would get one name; a result that would replace an input, or take the place of a file.
    """
    folder = naming.folder
    if f".{naming.format.lower()}" not in FORMATS:
        raise UsageError(f"--format {naming.format} is not written; choose one of {', '.join(name[1:] for name in FORMATS)}")
    if re.search(r"[/\\\0]", naming.suffix):
        raise UsageError(f"--suffix {naming.suffix}: is put behind a file's name and may not name a folder")
    if folder.is_file() or folder.suffix.lower() in SUFFIXES:
        raise UserError(f"{folder}: give a folder; the results are written there under their inputs' names")
    found: dict[Path, tuple[Path, Path]] = {}
    for one in inputs:
        new = {source.resolve(): (source, place) for source, place in _sources(one, recursive, folder.resolve())}
        if not new:
            raise UserError(f"{one}: no images there.")
        found |= {path: value for path, value in new.items() if path not in found}
    jobs = [Job(source, _outputs(place, naming, titles)) for source, place in found.values()]
    _check(jobs, naming, set(found))
    return jobs


def _sources(one: Path | str, recursive: bool, out: Path) -> Iterator[tuple[Path, Path]]:
    """(file, its place below the output folder). What lies in the output folder is no input, where that is within the input folder."""
    path = Path(one)
    if path.is_dir():
        inside = out != path.resolve() and out.is_relative_to(path.resolve())
        for source in _below(path) if recursive else list_images(path):
            if not (inside and source.resolve().is_relative_to(out)):
                yield source, source.relative_to(path)
    elif glob.has_magic(str(one)) and not path.exists():
        root = _fixed_part(path)
        for name in sorted(glob.glob(str(one), recursive=True)):
            source = Path(name)
            if source.suffix.lower() in SUFFIXES and source.is_file():
                yield source, source.relative_to(root) if recursive else Path(source.name)
    elif path.exists():
        yield path, Path(path.name)
    else:
        raise UserError(f"{one}: no such file or folder")


def _below(folder: Path) -> list[Path]:
    """Every image below a folder, without hidden files and folders."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first sign that stands for others."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _outputs(place: Path, naming: Naming, titles: Sequence[str]) -> dict[str, Path]:
    stem = f"{place.stem}{naming.suffix}"
    names = {title: f"{stem}{f'_{title}' if title else ''}.{naming.format.lower()}" for title in titles}
    return {title: naming.folder / place.parent / name for title, name in names.items()}


def _check(jobs: Sequence[Job], naming: Naming, inputs: set[Path]) -> None:
    taken: dict[Path, Job] = {}
    for job in jobs:
        for output in job.outputs.values():
            beside = output.parent.resolve() == job.source.parent.resolve()
            if (beside and not naming.suffix) or output.resolve() in inputs:
                raise UserError(f"{naming.folder}: the results would overwrite the inputs; give another folder, or a --suffix.")
            if output in taken:
                raise UserError(f"{taken[output].name} and {job.name}: several images would be written to {output}; rename one.")
            if output.is_dir():
                raise UserError(f"{output}: is a folder, where a result is to be written; give another folder, or a --suffix.")
            taken[output] = job

"""From folders to GT sets: HGGT's layout, pairs, single GTs. Only names and label files are read here, no images."""

from __future__ import annotations

import json
from pathlib import Path

from ..config.models import DataOptions
from ..errors import UserError
from ..images import list_images
from .gtset import LABELS, GTSet, Problem, is_name

MAX_LABEL_BYTES = 1 << 20


def scan(data: DataOptions) -> tuple[list[GTSet], list[Problem]]:
    """The complete sets of folders, sorted by name, and what is wrong with the others.

    Raises UserError where there is nothing to scan: a folder that does not exist, no originals.
    """
    problems: list[Problem] = []
    if data.type == "multi_gt":
        original, egts = _members(data.dataroot_gt)
    else:
        original, egts = data.dataroot_gt, []
    originals = _by_stem(original, problems)
    if not originals:
        raise UserError(f"{original}: no images")
    if data.type == "paired" and data.dataroot_lq is None:
        raise UserError(f"{data.dataroot_gt}: type paired needs dataroot_lq, the folder of LQ images")
    paths = {name: (path,) for name, path in originals.items()}
    for folder in egts:
        _add_egts(folder, paths, problems)
    labels = _all_labels(data.dataroot_labels, sorted(paths), [folder.name for folder in egts], problems)
    lqs = _all_lqs(data.dataroot_lq, sorted(paths), problems)
    bad = {problem.set_name for problem in problems}
    sets = [GTSet(name, paths[name], labels.get(name, ()), lqs.get(name)) for name in sorted(paths) if name not in bad]
    return sets, problems


def _members(root: Path) -> tuple[Path, list[Path]]:
    """(folder of originals, sorted folders of EGTs) of a tree in HGGT's layout."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    originals = [path for path in folders if path.name.lower() == "original"]
    if not originals:
        raise UserError(f"{root}: no folder 'original' in it; multi_gt data has original/, 01/, 02/, ... (docs/data.md)")
    return originals[0], [path for path in folders if path not in originals]


def _by_stem(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """Image files by name without suffix; two files of one name are a problem of that set, and so is a name that can be none."""
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if not is_name(path.stem):
            problems.append(Problem(path, "the name has control signs or bytes that are not UTF-8: rename it", path.stem))
        elif path.stem in found:
            problems.append(Problem(path, f"duplicate name: {found[path.stem].name} is there too", path.stem))
        found.setdefault(path.stem, path)
    return found


def _add_egts(folder: Path, paths: dict[str, tuple[Path, ...]], problems: list[Problem]) -> None:
    """Appends this folder's EGT to every set in `paths`, in place."""
    suffix = f"_{folder.name}"
    doubles: list[Problem] = []
    found = _by_stem(folder, doubles)
    problems += [Problem(double.path, double.message, double.path.stem.removesuffix(suffix)) for double in doubles]
    for name in paths:
        path = found.pop(name + suffix, None)
        if path is None:
            problems.append(Problem(folder / f"{name}{suffix}.png", "missing EGT", name))
        else:
            paths[name] += (path,)
    for path in found.values():
        problems.append(Problem(path, f"EGT without an original: no original is named {path.stem.removesuffix(suffix)!r}", path.stem))


def _all_lqs(folder: Path | None, names: list[str], problems: list[Problem]) -> dict[str, Path]:
    if folder is None:
        return {}
    found = _by_stem(folder, problems)
    problems += [Problem(folder / f"{name}.png", "missing LQ", name) for name in names if name not in found]
    return found


def _all_labels(root: Path | None, names: list[str], egts: list[str], problems: list[Problem]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Per set and EGT, one word per annotator; empty without a label folder or without EGTs."""
    if root is None or not egts:
        return {}
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    annotators = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not annotators:
        raise UserError(f"{root}: no annotators in it; labels lie in one folder per annotator: A/, B/, ... (docs/data.md)")
    return {name: _set_labels(name, annotators, egts, problems) for name in names}


def _set_labels(name: str, annotators: list[Path], egts: list[str], problems: list[Problem]) -> tuple[tuple[str, ...], ...]:
    by_annotator = []
    for annotator in annotators:
        path = annotator / f"{name}.json"
        try:
            by_annotator.append(read_labels(path, egts))
        except (OSError, ValueError) as error:
            message = "missing label file" if isinstance(error, FileNotFoundError) else str(error)
            problems.append(Problem(path, message, name))
    return tuple(zip(*by_annotator, strict=True))


def read_labels(path: Path, egts: list[str]) -> list[str]:
    """One annotator's words for a set's EGTs, in the order of their folders; ValueError says what is wrong."""
    if path.stat().st_size > MAX_LABEL_BYTES or not path.is_file():  # a pipe would be waited for
        raise ValueError(f"no label file: larger than {MAX_LABEL_BYTES >> 20} MiB, or no file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"bad JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError("bad label file: not a JSON object of pictures")
    pictures = [entry for entry in content.values() if isinstance(entry, dict) and "File" in entry]
    given = {str(entry["File"]): entry.get("Label") for entry in pictures}
    words: list[str] = []
    for egt in egts:
        if egt not in given:
            raise ValueError(f"no label for EGT {egt}")
        if given[egt] not in LABELS:
            raise ValueError(f"wrong label {repr(given[egt])[:60]} for EGT {egt}; choose one of {', '.join(LABELS)}")
        words.append(str(given[egt]))
    return words

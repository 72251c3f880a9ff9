"""DiffIQA: enhanced images against their originals, from the annotators' label files or from A-FINE's triplet lists."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

from sr_iqa.data.gtset import NEGATIVE, POSITIVE, SIMILAR, Problem, effective_label
from sr_iqa.data.layouts import read_labels
from sr_iqa.errors import UserError
from sr_iqa.images import list_images

from .found import Found, subfolders
from .hggt import P_ENHANCED, Votes, layout_root, probability
from .manifest import Pair, checked_name, number
from .texts import text_lines

_LETTER = {POSITIVE: "P", SIMILAR: "S", NEGATIVE: "N"}


def read_diffiqa(root: Path, votes: Votes = "majority", derived: bool = False) -> Found:
    """Pairs of an enhanced image (A) and its original (B); the reference is the original.

    The majority of three is the label; an image about which all three differ is dropped, as A-FINE's lists drop it. Groups are named as in
    those lists: PYY, SYY, NYY against the original, and PSY, PNY, SNY, SSY of derived pairs.

    Args:
        root: holds `images/{Original,01,...}` and `labels/{A,B,C}/{01,...}`.
        votes: p_a of the majority, or the mean over annotators.
        derived: also pair the enhanced images of one original that have different labels, or are both Similar. Nobody compared them.

    Raises:
        UserError: folders are missing.
    """
    images, annotators = layout_root(root / "images", "Original"), subfolders(layout_root(root / "labels", "A"))
    originals, folders = _folders(images)
    pairs: list[Pair] = []
    problems: list[Problem] = []
    dropped: Counter[str] = Counter()
    for original in list_images(originals):
        judged: list[tuple[Path, str]] = []
        for folder in folders:
            image = folder / f"{original.stem}_{folder.name}{original.suffix}"
            try:
                words = tuple(read_labels(a / folder.name / f"{image.stem}.json", [folder.name])[0] for a in annotators)
            except (OSError, ValueError) as error:
                where, message = _blame(error, annotators, folder.name, image.stem)
                problems.append(Problem(where, message, original.stem))
                continue
            if len(words) > 1 and len(set(words)) == len(words):
                dropped["all annotators differ"] += 1
                continue
            label = effective_label(words)
            judged.append((image, label))
            facts = {"ref": original, "votes": len(words), "content": content_of(original.stem)}
            pairs.append(Pair(image, original, probability(words, votes), group=f"{_LETTER[label]}YY", **facts))
        pairs += _derived(judged, original) if derived else []
    return Found(pairs, problems=tuple(problems), dropped=dropped)


def read_triplets(root: Path, lists: list[Path]) -> Found:
    """A-FINE's lists, lines `x1,x2,ref,s12[,s1ref,s2ref]`: x1 is A, x2 is B.

    A list's name is the group where it is a type's (TripletEachType/PSY.txt). An image lies in the folder that its suffix `_NN` names, or
    in `Original`.

    Args:
        root: holds `images/`.
        lists: the files; in a folder, all .txt in it.

    Raises:
        UserError: folders or lists are missing.
    """
    originals, _ = _folders(layout_root(root / "images", "Original"))
    files = [file for entry in lists for file in (sorted(entry.glob("*.txt")) if entry.is_dir() else [entry])]
    if not files:
        raise UserError(f"{', '.join(map(str, lists)) or 'no list given'}: no lists (.txt); name them with --list")
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for file in files:
        group = file.stem if re.fullmatch("[PNSY]{3}", file.stem) else ""
        for line_number, line in text_lines(file):
            try:
                pairs.append(_triplet(line, originals, group))
            except ValueError as error:
                problems.append(Problem(file, f"line {line_number}: {error}"))
    return Found(pairs, problems=tuple(problems))


def content_of(stem: str) -> str:
    """The photo that a patch was cut from: DiffIQA names patches <photo>x<x>y<y>."""
    patch = re.fullmatch(r"(.+?)x\d+y\d+", stem)
    return patch[1] if patch else stem


def _folders(images: Path) -> tuple[Path, list[Path]]:
    folders = subfolders(images)
    original = next(path for path in folders if path.name.lower() == "original")
    return original, [path for path in folders if path != original]


def _blame(error: OSError | ValueError, annotators: list[Path], folder: str, stem: str) -> tuple[Path, str]:
    """The first label file that is missing or wrong, and why."""
    for annotator in annotators:
        path = annotator / folder / f"{stem}.json"
        try:
            read_labels(path, [folder])
        except FileNotFoundError:
            return path, "missing label file"
        except (OSError, ValueError) as own:
            return path, str(own)
    return annotators[0] / folder / f"{stem}.json", str(error)


def _derived(judged: list[tuple[Path, str]], original: Path) -> list[Pair]:
    pairs = []
    for (a, label_a), (b, label_b) in combinations(judged, 2):
        if label_a != label_b or label_a == SIMILAR:
            p_a = (P_ENHANCED[label_a] > P_ENHANCED[label_b]) + 0.5 * (label_a == label_b)
            letters = "".join(sorted((_LETTER[label_a], _LETTER[label_b]), key="PSN".index))
            pairs.append(Pair(a, b, p_a, original, group=f"{letters}Y", content=content_of(original.stem)))
    return pairs


def _triplet(line: str, originals: Path, group: str) -> Pair:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) not in (4, 6):
        raise ValueError(f"{len(cells)} values; it should be x1,x2,ref,s12 or x1,x2,ref,s12,s1ref,s2ref")
    img_a, img_b, ref = (_place(name, originals) for name in cells[:3])
    p_a = number(cells[3], "s12")
    if p_a not in (0, 0.5, 1):
        raise ValueError(f"s12 is {cells[3]}, not 1, 0.5 or 0")
    return Pair(img_a, img_b, p_a, ref, group=group, content=content_of(ref.stem))


def _place(name: str, originals: Path) -> Path:
    stem, _, version = Path(name).stem.rpartition("_")
    checked_name(name, originals)
    if Path(name).name != name:
        raise ValueError(f"{name!r} is a path; a list holds names")
    return originals.parent / version / name if stem else originals / name

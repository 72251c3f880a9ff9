"""What a reader of preferences hands back, and what readers share: folders, names of images, the check that images are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sr_iqa.data.gtset import Problem
from sr_iqa.errors import UserError
from sr_iqa.images import SUFFIXES

from .manifest import Pair


@dataclass(frozen=True)
class Found:
    """The pairs of a data set, and what is wrong with the rest of it."""

    pairs: Sequence[Pair]
    mos: dict[Path, float] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """Files, lines and images that cannot be used; their pairs are not among `pairs`."""
    dropped: Counter[str] = field(default_factory=Counter)
    """What was left out by rule, with no fault of the data: why, and how many."""


def with_images(found: Found) -> Found:
    """Without the pairs whose images are not there; each such image is a problem that says how many pairs it costs."""
    there: dict[Path, bool] = {}
    costs: Counter[Path] = Counter()
    kept = []
    for pair in found.pairs:
        images = [image for image in (pair.img_a, pair.img_b, pair.ref) if image is not None]
        missing = [image for image in dict.fromkeys(images) if not there.setdefault(image, image.is_file())]
        costs.update(missing)
        if not missing:
            kept.append(pair)
    problems = [Problem(image, f"missing image ({costs[image]} pairs)") for image in sorted(costs)]
    return replace(found, pairs=kept, problems=(*found.problems, *problems))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones. Raises UserError if it is not there."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


class ImageIndex:
    """Images of some folders by name, whatever its case and suffix: lists and disks disagree about both."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._by_stem: dict[str, list[Path]] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                    self._by_stem.setdefault(path.stem.lower(), []).append(path)

    def __getitem__(self, name: str) -> Path:
        """The image of that name; of several the one that is spelt exactly so. Raises ValueError for none, or for two alike."""
        candidates = self._by_stem.get(Path(name).stem.lower(), [])
        exact = [path for path in candidates if path.name == name] or [path for path in candidates if path.name.lower() == name.lower()]
        found = exact or candidates
        if Path(name).name != name or not found:
            raise ValueError(f"no image named {name!r}")
        if len(found) > 1:
            raise ValueError(f"two images named {name!r}: {found[0]} and {found[1]}")
        return found[0]

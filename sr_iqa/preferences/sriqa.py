"""SRIQA-Bench: opinion scores of SR outputs, per scene; all pairs within a scene (A-FINE)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sr_iqa.data.gtset import Problem
from sr_iqa.errors import UserError

from .found import Found, ImageIndex, subfolders
from .manifest import Pair, number
from .mos_pairs import TOO_CLOSE, Line, PairRule, Rated, pairs_of, read_rated
from .texts import text_lines

GROUPS = {"MOS_Reg": "Reg", "MOS_Gen": "Gen", "MOS": "All"}
"""Folder of scores -> group. The manifest's opinion scores are those of MOS."""


def read_sriqa(root: Path, rule: PairRule | None = None) -> Found:
    """All pairs within a scene, once for each of the folders MOS_Reg, MOS_Gen and MOS that is there, as groups Reg, Gen and All.

    Lines of `MOS*/xN.txt` are `name score` with a comma or spaces between. Names say the method, so an image may lie in any folder of
    `images/` (`SwinIRx4`, or `SwinIR`); the reference is the scene's `Original`.

    Raises:
        UserError: folders are missing.
    """
    index = ImageIndex(subfolders(root / "images"))
    there = [name for name in GROUPS if (root / name).is_dir()]
    if not there:
        raise UserError(f"{root}: none of the folders {', '.join(GROUPS)} is there")
    pairs: list[Pair] = []
    problems: list[Problem] = []
    mos: dict[Path, float] = {}
    close = 0
    for name in there:
        rated, wrong = read_rated(_lines(root / name), lambda cells: _rated(cells, index))
        found, left = pairs_of(rated, rule or PairRule(), GROUPS[name])
        pairs, close, problems = pairs + found, close + left, problems + wrong
        mos |= {entry.image: entry.mos for entry in rated} if name == "MOS" else {}
    return Found(pairs, mos, tuple(problems), Counter({TOO_CLOSE: close}))


def _lines(folder: Path) -> Iterator[Line]:
    files = sorted(folder.glob("*.txt"), key=lambda path: (len(path.stem), path.stem))
    return ((file, n, re.split(r"\s*,\s*|\s+", line)) for file in files for n, line in text_lines(file))


def _rated(cells: list[str], index: ImageIndex) -> Rated:
    if len(cells) != 2:
        raise ValueError(f"{len(cells)} values; it should be a name and a score")
    image = index[cells[0]]
    scene = image.stem.partition("_")[0]
    return Rated(image, number(cells[1], "the score"), scene, index[f"{scene}_Original{image.suffix}"])

"""SRIQA-Bench: opinion scores of SR outputs, per scene; all pairs within a scene (A-FINE)."""

from __future__ import annotations

import re
from pathlib import Path

from sr_iqa.data.gtset import Problem
from sr_iqa.errors import UserError

from .found import Found, subfolders, text_lines
from .manifest import Pair, checked_name, number
from .mos_pairs import PairRule, Rated, pairs_of

GROUPS = {"MOS_Reg": "Reg", "MOS_Gen": "Gen", "MOS": "All"}
"""Folder of scores -> group. The manifest's opinion scores are those of MOS."""


def read_sriqa(root: Path, rule: PairRule | None = None) -> Found:
    """All pairs within a scene, once for each of the folders MOS_Reg, MOS_Gen and MOS that is there, as groups Reg, Gen and All.

    Lines of `MOS*/xN.txt` are `name score` with a comma or spaces between. An image `xN_SwinIRx4.png` lies in `images/SwinIRx4` or in
    `images/SwinIR`; the reference is the scene's `Original`.

    Raises:
        UserError: folders are missing.
    """
    folders = {path.name.lower(): path for path in subfolders(root / "images")}
    there = [name for name in GROUPS if (root / name).is_dir()]
    if not there:
        raise UserError(f"{root}: none of the folders {', '.join(GROUPS)} is there")
    pairs: list[Pair] = []
    problems: list[Problem] = []
    mos: dict[Path, float] = {}
    close = 0
    for name in there:
        rated: list[Rated] = []
        for file in sorted((root / name).glob("*.txt"), key=lambda path: (len(path.stem), path.stem)):
            rated += _scene(file, folders, problems)
        found, left = pairs_of(rated, rule or PairRule(), GROUPS[name])
        pairs, close = pairs + found, close + left
        mos |= {entry.image: entry.mos for entry in rated} if name == "MOS" else {}
    found = Found(pairs, mos, tuple(problems))
    found.dropped["scores too close"] = close
    return found


def _scene(file: Path, folders: dict[str, Path], problems: list[Problem]) -> list[Rated]:
    rated = []
    for line_number, line in text_lines(file):
        try:
            cells = re.split(r"\s*,\s*|\s+", line)
            if len(cells) != 2:
                raise ValueError(f"{len(cells)} values; it should be a name and a score")
            image = _place(cells[0], folders)
            ref = _place(f"{image.stem.partition('_')[0]}_Original{image.suffix}", folders)
            rated.append(Rated(image, number(cells[1], "the score"), file.stem, ref))
        except ValueError as error:
            problems.append(Problem(file, f"line {line_number}: {error}"))
    return rated


def _place(name: str, folders: dict[str, Path]) -> Path:
    """The image's path in the folder of its method's token, with or without the scale in the folder's name."""
    checked_name(name, Path())
    token = Path(name).stem.partition("_")[2].lower()
    if not token or Path(name).name != name:
        raise ValueError(f"{name!r} is no name of the form x1_SwinIRx4.png")
    for spelling in (token, re.sub(r"x\d+$", "", token)):
        if spelling in folders:
            return folders[spelling] / name
    raise ValueError(f"no folder of images is named {token} or {re.sub(r'x[0-9]+$', '', token)}")

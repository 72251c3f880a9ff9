"""Lists of opinion scores: KADID-10k, PIPAL, TID2013 and KonIQ-10k, as their files are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sr_iqa.data.gtset import Problem
from sr_iqa.errors import UserError

from .found import Found, ImageIndex, subfolders
from .manifest import number
from .mos_pairs import TOO_CLOSE, Line, PairRule, Rated, in_blocks, pairs_of, read_rated
from .texts import csv_table, text_lines

KONIQ_BLOCK = 20
"""Images of KonIQ that pairs are drawn from together: its images show scenes of their own."""


def read_kadid(root: Path, rule: PairRule) -> Found:
    """`dmos.csv` (dist_img,ref_img,dmos,var; a higher dmos is better) and `images/`, distorted and reference images together."""
    index = ImageIndex([_folder(root, "images")])
    lines = _table(_file(root, "dmos.csv"), ["dist_img", "ref_img", "dmos"])
    return _found(*read_rated(lines, lambda cells: _rated(index[cells[0]], cells[2], index[cells[1]])), rule)


def read_pipal(root: Path, rule: PairRule) -> Found:
    """`Train_Label/A0001.txt`, lines `A0001_00_00.bmp,1441.2` (Elo scores), and images in any folders below the root."""
    folder = next((path for path in subfolders(root) if path.name.lower() in ("train_label", "train_labels")), None)
    if folder is None:
        raise UserError(f"{root}: no folder Train_Label in it")
    index = ImageIndex([root])

    def rated(cells: list[str]) -> Rated:
        image = index[cells[0]]
        return _rated(image, cells[1], index[f"{image.stem.partition('_')[0]}{image.suffix}"])

    lines = ((file, n, line.split(",")) for file in sorted(folder.glob("*.txt")) for n, line in text_lines(file))
    return _found(*read_rated(_wide(lines, 2), rated), rule)


def read_tid2013(root: Path, rule: PairRule) -> Found:
    """`mos_with_names.txt`, lines `5.51429 I01_01_1.bmp`, `distorted_images*/`, `reference_images*/`; names in any case, any suffix."""
    file = _file(root, "mos_with_names.txt")
    distorted, references = (_folders(root, kind) for kind in ("distorted_images", "reference_images"))
    images, refs = ImageIndex(distorted), ImageIndex(references)

    def rated(cells: list[str]) -> Rated:
        return _rated(images[cells[1]], cells[0], refs[cells[1].partition("_")[0] + Path(cells[1]).suffix])

    lines = ((file, n, line.split()) for n, line in text_lines(file))
    return _found(*read_rated(_wide(lines, 2), rated), rule)


def read_koniq(root: Path, rule: PairRule, mos_column: str = "MOS", block: int = KONIQ_BLOCK) -> Found:
    """`koniq10k_scores_and_distributions.csv` (image_name, MOS, MOS_zscore, ...) and `1024x768/` or `512x384/`.

    Its images have no common scene: they are put into random blocks, pairs are drawn within a block, and a block counts as one content.
    """
    files = sorted(root.rglob("koniq10k*scores*.csv"))
    if not files:
        raise UserError(f"{root}: no koniq10k_scores_and_distributions.csv in it")
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir() and re.fullmatch(r"1024x768|512x384", path.name)]
    index = ImageIndex(folders[:1] or [root])
    lines = _table(files[0], ["image_name", mos_column])
    rated, problems = read_rated(lines, lambda cells: Rated(index[cells[0]], number(cells[1], mos_column), content=""))
    return _found(in_blocks(rated, block, rule.seed), problems, rule)


def _found(rated: list[Rated], problems: list[Problem], rule: PairRule) -> Found:
    pairs, close = pairs_of(rated, rule)
    return Found(pairs, {entry.image: entry.mos for entry in rated}, tuple(problems), Counter({TOO_CLOSE: close}))


def _rated(image: Path, score: str, ref: Path) -> Rated:
    return Rated(image, number(score, "the score"), ref.stem.lower(), ref)


def _wide(lines: Iterator[Line], least: int) -> Iterator[Line]:
    """Lines of too few values get empty ones, which the number's check then names."""
    return ((file, n, [cell.strip() for cell in cells] + [""] * (least - len(cells))) for file, n, cells in lines)


def _table(file: Path, columns: list[str]) -> Iterator[Line]:
    """The named columns of a CSV file. Raises UserError where one is missing."""
    head, rows = csv_table(file)
    missing = [column for column in columns if column not in head]
    if missing:
        raise UserError(f"{file}: no column {', '.join(missing)} (found: {', '.join(head)[:200]})")
    places = [head.index(column) for column in columns]
    return ((file, n, [row[place] if place < len(row) else "" for place in places]) for n, row in rows)


def _file(root: Path, name: str) -> Path:
    path = next((path for path in sorted(root.glob("*")) if path.name.lower() == name), None)
    if path is None:
        raise UserError(f"{root}: no {name} in it")
    return path


def _folder(root: Path, name: str) -> Path:
    return _folders(root, name)[0]


def _folders(root: Path, name: str) -> list[Path]:
    found = [path for path in subfolders(root) if path.name.lower().startswith(name)]
    if not found:
        raise UserError(f"{root}: no folder {name} in it")
    return found

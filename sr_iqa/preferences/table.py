"""Any table of comparisons: columns and words named by the user (SBS180K and others)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sr_iqa.data.gtset import Problem
from sr_iqa.errors import UsageError, UserError

from .found import Found
from .manifest import COLUMNS, Pair, checked_name, number
from .texts import csv_table

FIELDS = (*COLUMNS, "votes_a", "votes_b")
"""What a table may hold: a manifest's columns, or how many chose each image in place of p_a and votes."""


@dataclass(frozen=True)
class TableRule:
    """How a table is read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> the table's name for it; the others are looked for under their own names."""
    words: Mapping[str, float] = field(default_factory=dict)
    """What words in the column of p_a mean, as {"left": 1, "right": 0}."""
    separator: str = ","
    images: Path | None = None
    """The folder that paths are relative to; by default the table's."""


def table_rule(columns: str = "", words: str = "", separator: str = ",", images: Path | None = None) -> TableRule:
    """A rule from the command line's texts, "img_a=left,p_a=choice" and "left=1,right=0". Raises UsageError."""
    named, meant = _assignments(columns, "--columns"), _assignments(words, "--words")
    try:
        values = {word: number(value, f"--words {word}") for word, value in meant.items()}
    except ValueError as error:
        raise UsageError(str(error)) from error
    return TableRule(named, values, separator.replace("\\t", "\t"), images)


def read_table(path: Path, rule: TableRule) -> Found:
    """One pair per line. Raises UsageError for fields that do not exist, UserError for missing columns and unreadable files."""
    unknown = [name for name in rule.columns if name not in FIELDS]
    if unknown:
        raise UsageError(f"--columns: there is no field {unknown[0]!r}; the fields are {', '.join(FIELDS)}")
    if len(rule.separator) != 1:
        raise UsageError(f"--separator must be one sign, not {rule.separator!r}")
    root = rule.images or path.parent
    pairs: list[Pair] = []
    mos: dict[Path, float] = {}
    problems: list[Problem] = []
    head, rows = csv_table(path, rule.separator)
    places = _places(path, rule, head)
    for n, cells in rows:
        try:
            row = _row(cells, head, places)
            pair = _pair(row, root, rule)
            scores = {image: number(row[key], key) for key, image in (("mos_a", pair.img_a), ("mos_b", pair.img_b)) if row.get(key)}
            if any(mos.get(image, value) != value for image, value in scores.items()):
                raise ValueError("an image has another opinion score than in an earlier line")
        except ValueError as error:
            problems.append(Problem(path, f"line {n}: {error}"))
        else:
            pairs.append(pair)
            mos |= scores
    return Found(pairs, mos, tuple(problems))


def _assignments(text: str, option: str) -> dict[str, str]:
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    wrong = [name for name, sign, value in parts if not (name.strip() and sign and value.strip())]
    if wrong:
        raise UsageError(f"{option}: {wrong[0]!r} has no value; write NAME=VALUE,NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in parts}


def _places(path: Path, rule: TableRule, head: list[str]) -> dict[str, int]:
    """Which column each field that the table has is in."""
    places = {name: head.index(rule.columns.get(name, name)) for name in FIELDS if rule.columns.get(name, name) in head}
    _check(path, rule, places, head)
    return places


def _row(cells: list[str], head: list[str], places: Mapping[str, int]) -> dict[str, str]:
    if len(cells) != len(head):
        raise ValueError(f"{len(cells)} values for {len(head)} columns")
    return {name: cells[place] for name, place in places.items()}


def _check(path: Path, rule: TableRule, places: Mapping[str, int], head: list[str]) -> None:
    wanted = [*rule.columns, "img_a", "img_b"]
    if "votes_a" in places or "votes_b" in places:
        wanted += ["votes_a", "votes_b"]
    else:
        wanted += ["p_a"]
    missing = [name for name in wanted if name not in places]
    if missing:
        names = ", ".join(rule.columns.get(name, name) for name in dict.fromkeys(missing))
        found = ", ".join(head)[:200]
        raise UserError(f"{path}: no column {names} (found: {found}); say which is which: --columns img_a=left,img_b=right,p_a=choice")


def _number_or_word(given: str) -> float:
    try:
        return number(given, "p_a")
    except ValueError as error:
        raise ValueError(f"{error}; what words mean is said by --words left=1,right=0") from error


def _pair(row: Mapping[str, str], root: Path, rule: TableRule) -> Pair:
    if "votes_a" in row and "votes_b" in row:
        a, b = number(row["votes_a"], "votes_a"), number(row["votes_b"], "votes_b")
        if min(a, b) < 0 or a + b == 0:
            raise ValueError(f"votes {a:g} and {b:g} say nothing")
        p_a, votes = a / (a + b), a + b
    else:
        given = row.get("p_a", "")
        p_a = rule.words[given] if given in rule.words else _number_or_word(given)
        votes = number(row["votes"], "votes") if row.get("votes") else None
    return Pair(
        checked_name(row.get("img_a", ""), root),
        checked_name(row.get("img_b", ""), root),
        p_a,
        checked_name(row["ref"], root) if row.get("ref") else None,
        row.get("group", ""),
        votes,
        row.get("content", ""),
    )

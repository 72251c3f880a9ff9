"""From lists of opinion scores to pairs: two images of one scene, the higher score is the better image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from sr_iqa.data.gtset import Problem

from .manifest import Pair

TOO_CLOSE = "scores too close"
"""Why a pair of scores is left out."""
Line = tuple[Path, int, list[str]]
"""A list, the number of a line in it, and the line's values."""


@dataclass(frozen=True)
class Rated:
    """An image with its mean opinion score; higher is better."""

    image: Path
    mos: float
    content: str
    ref: Path | None = None


@dataclass(frozen=True)
class PairRule:
    """Which pairs are made of the rated images of a scene."""

    per_content: int | None = None
    """At most so many of a scene, drawn at random; all by default."""
    least_gap: float = 0.0
    """Pairs whose scores lie closer together are left out."""
    seed: int = 0
    references: bool = False
    """Also pair every image with its reference, which wins: A-FINE's first stage is trained so."""


def read_rated(lines: Iterable[Line], rated: Callable[[list[str]], Rated]) -> tuple[list[Rated], list[Problem]]:
    """What `rated` makes of the lines' values, and the lines that are wrong: it raises ValueError, or the image had a line before."""
    entries: dict[Path, Rated] = {}
    problems: list[Problem] = []
    for file, n, cells in lines:
        try:
            entry = rated(cells)
            if entries.setdefault(entry.image, entry) is not entry:
                raise ValueError(f"{entry.image.name} is there twice")
        except ValueError as error:
            problems.append(Problem(file, f"line {n}: {error}"))
    return list(entries.values()), problems


def pairs_of(rated: Sequence[Rated], rule: PairRule, group: str = "") -> tuple[list[Pair], int]:
    """(pairs, how many were left out for too small a gap). Equal scores give p_a 0.5; scenes and pairs keep their order."""
    scenes: dict[str, list[Rated]] = {}
    for entry in rated:
        scenes.setdefault(entry.content, []).append(entry)
    rng = np.random.default_rng(rule.seed)
    pairs: list[Pair] = []
    close = 0
    for content, members in scenes.items():
        every = list(combinations(members, 2))
        apart = [(a, b) for a, b in every if abs(a.mos - b.mos) >= rule.least_gap]
        close += len(every) - len(apart)
        for a, b in _drawn(apart, rule.per_content, rng):
            p_a = 0.5 if a.mos == b.mos else float(a.mos > b.mos)
            pairs.append(Pair(a.image, b.image, p_a, a.ref, group=group, content=content))
        for entry in members if rule.references else ():
            if entry.ref and entry.ref != entry.image:
                pairs.append(Pair(entry.image, entry.ref, 0.0, entry.ref, group=group, content=content))
    return pairs, close


def in_blocks(rated: Sequence[Rated], size: int, seed: int) -> list[Rated]:
    """Images of scenes of their own, in random blocks that stand for contents: pairs are drawn within a block, so that no image is in two.

    Raises ValueError for blocks of less than two.
    """
    if size < 2:
        raise ValueError(f"blocks of {size} give no pairs")
    order = np.random.default_rng(seed).permutation(len(rated))
    blocks = max(1, len(rated) // size)  # some are larger than `size`: no image is alone
    return [replace(rated[i], content=f"block {place % blocks:05d}") for place, i in enumerate(order)]


def _drawn(pairs: list[tuple[Rated, Rated]], most: int | None, rng: np.random.Generator) -> list[tuple[Rated, Rated]]:
    if most is None or len(pairs) <= most:
        return pairs
    return [pairs[i] for i in sorted(rng.choice(len(pairs), most, replace=False))]

"""From opinion scores to pairs: two images of one scene, the higher score is the better image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from .manifest import Pair


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
    return pairs, close


def in_blocks(scores: Iterable[tuple[Path, float]], size: int, seed: int) -> list[Rated]:
    """Images of scenes of their own, in random blocks that stand for contents: pairs are drawn within a block, so that no image is in two.

    Raises ValueError for blocks of less than two.
    """
    if size < 2:
        raise ValueError(f"blocks of {size} give no pairs")
    scores = list(scores)
    order = np.random.default_rng(seed).permutation(len(scores))
    blocks = max(1, len(scores) // size)  # the last ones are larger: no image is alone
    return [Rated(*scores[i], content=f"block {place % blocks:05d}") for place, i in enumerate(order)]


def _drawn(pairs: list[tuple[Rated, Rated]], most: int | None, rng: np.random.Generator) -> list[tuple[Rated, Rated]]:
    if most is None or len(pairs) <= most:
        return pairs
    return [pairs[i] for i in sorted(rng.choice(len(pairs), most, replace=False))]

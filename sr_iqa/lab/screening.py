"""The two-phase protocol: screen all metrics on a small part of the scenes, judge the best of them on the others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from sr_iqa.errors import UserError
from sr_iqa.preferences.manifest import Manifest

from .agreement import Agreement, Share, agreement, overall_pairs, ranked
from .scoring import Scored, Unusable

Score = Callable[[Manifest, Collection[str] | None], tuple[list[Scored], list[Unusable]]]
"""Scores a manifest with the metrics of these names, or with all that there are."""


@dataclass(frozen=True)
class Screened:
    """A metric in both phases."""

    name: str
    train: Share
    """2AFC accuracy on the screening scenes."""
    test: Share | None
    """On all other scenes; None for metrics that were left behind."""


@dataclass(frozen=True)
class Screening:
    """The outcome: metrics in the order of the first phase, and what the second says of the best."""

    rows: tuple[Screened, ...]
    agreements: tuple[Agreement, ...]
    """Of the best, on the test scenes."""
    unusable: tuple[Unusable, ...]
    train: Manifest
    test: Manifest


def screen(score: Score, manifest: Manifest, pairs: int, best: int, seed: int = 0) -> Screening:
    """Both phases.

    Args:
        pairs: screening takes as many random scenes as are needed for so many pairs.
        best: how many metrics the second phase keeps.

    Raises:
        UserError: no scenes are left for a phase, no metric can be screened; what `score` raises.
    """
    train, test = parts(manifest, pairs, seed)
    scored, unusable = score(train, None)
    first = [entry for entry in ranked([agreement(one, train, seed) for one in scored]) if entry.overall is not None]
    if not first:
        raise UserError("no metric could be screened: no pair of the screening part has an answer, or no metric can be used")
    again, failed = score(test, [entry.scored.name for entry in first[:best]])
    second = ranked([agreement(one, test, seed) for one in again])
    tests = {entry.scored.name: entry.overall for entry in second}
    rows = tuple(Screened(entry.scored.name, entry.overall, tests.get(entry.scored.name)) for entry in first if entry.overall)
    return Screening(rows, tuple(second), (*unusable, *failed), train, test)


def parts(manifest: Manifest, pairs: int, seed: int) -> tuple[Manifest, Manifest]:
    """(screening part, the rest): whole scenes, random ones until they hold `pairs` pairs. Raises UserError where nothing is left."""
    scenes = np.array([pair.scene for pair in manifest.pairs])
    names, index = np.unique(scenes, return_inverse=True)
    sizes = np.bincount(index, overall_pairs(manifest.pairs).astype(float))
    order = np.random.default_rng(seed).permutation(len(names))
    count = int(np.searchsorted(np.cumsum(sizes[order]), pairs)) + 1
    if count >= len(names):
        raise UserError(f"--screen {pairs} takes all {len(names)} scenes of the manifest, and leaves none to judge the best metrics on")
    chosen = np.isin(index, order[:count])
    first = tuple(pair for pair, inside in zip(manifest.pairs, chosen, strict=True) if inside)
    rest = tuple(pair for pair, inside in zip(manifest.pairs, chosen, strict=True) if not inside)
    return replace(manifest, pairs=first), replace(manifest, pairs=rest)

"""Which metrics make up for each other's mistakes: where each errs, and what two or three of them decide together (docs/iqa.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from sr_iqa.errors import UserError
from sr_iqa.preferences.manifest import Manifest

from .agreement import Share, overall_pairs, probabilities, right, share, split_scenes
from .scoring import Scored

MOST_IN_TEAMS = 20
"""Metrics that teams are made of, the best ones: three of twenty are 1,140 teams."""
Rule = Literal["majority", "mean z"]


@dataclass(frozen=True)
class Team:
    """Several metrics that decide together."""

    names: tuple[str, ...]
    rule: Rule
    train: float
    """2AFC accuracy on the scenes that the team was chosen on."""
    test: Share
    """On the others."""


@dataclass(frozen=True)
class Complementarity:
    """Of M metrics; an error is a pair on which a metric does not prefer whom people prefer, equal scores included."""

    names: tuple[str, ...]
    errors: tuple[int, ...]
    pairs: int
    rescue: np.ndarray
    """(M, M): accuracy of the column's metric where the row's errs; NaN where that one never errs."""
    jaccard: np.ndarray
    """(M, M): errors in common / errors of either; 1: they err on the same pairs, 0: never together. NaN where neither errs."""
    phi: np.ndarray
    """(M, M): correlation of the errors; 0 for independent ones. NaN where a metric errs always or never."""
    teams: tuple[Team, ...]
    """The best single metric, pair and triple by each rule, chosen on half of the scenes."""
    train_scenes: int


def complementarity(scored: Sequence[Scored], manifest: Manifest, seed: int = 0) -> Complementarity:
    """Compares metrics on the pairs of which people prefer one. Raises UserError for less than two metrics, or no such pair."""
    if len(scored) < 2:
        raise UserError("complementarity takes at least two metrics that can be used")
    p_a = probabilities(manifest.pairs)
    decided = overall_pairs(manifest.pairs) & (p_a != 0.5)
    if not decided.any():
        raise UserError("no pair of the manifest has an answer: all p_a are 0.5")
    p_a, scenes = p_a[decided], np.array([pair.scene for pair in manifest.pairs])[decided]
    differences = np.stack([one.pairs[decided, 0] - one.pairs[decided, 1] for one in scored])  # (M, P)
    correct = np.stack([right(difference, p_a) for difference in differences])
    wrong = correct < 1
    teams, train_scenes = _teams(scored, differences, p_a, scenes, seed)
    return Complementarity(
        names=tuple(one.name for one in scored),
        errors=tuple(wrong.sum(1).tolist()),
        pairs=len(p_a),
        rescue=_rescue(correct, wrong),
        jaccard=_jaccard(wrong),
        phi=_phi(wrong),
        teams=teams,
        train_scenes=train_scenes,
    )


def team_difference(differences: np.ndarray, deviations: np.ndarray, rule: Rule) -> np.ndarray:
    """(P,): above 0 where the team prefers A, 0 where it cannot decide.

    Args:
        differences: scores of A minus scores of B (K, P).
        deviations: (K,) standard deviations of the metrics' scores over all images, which make them comparable in `mean z`.
        rule: `majority` counts who prefers whom, `mean z` adds up by how much.
    """
    return np.sign(differences).sum(0) if rule == "majority" else (differences / deviations[:, None]).mean(0)


def _rescue(correct: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    counts = wrong.sum(1, keepdims=True).astype(np.float64)
    return np.divide(wrong.astype(np.float64) @ correct.T, counts, out=np.full((len(wrong),) * 2, np.nan), where=counts > 0)


def _jaccard(wrong: np.ndarray) -> np.ndarray:
    both = wrong.astype(np.float64) @ wrong.T.astype(np.float64)
    either = wrong.sum(1)[:, None] + wrong.sum(1)[None] - both
    return np.divide(both, either, out=np.full_like(both, np.nan), where=either > 0)


def _phi(wrong: np.ndarray) -> np.ndarray:
    centred = wrong - wrong.mean(1, keepdims=True)
    norms = np.sqrt((centred**2).sum(1))
    product = norms[:, None] * norms[None]
    return np.divide(centred @ centred.T, product, out=np.full_like(product, np.nan), where=product > 1e-12)


def _teams(
    scored: Sequence[Scored], differences: np.ndarray, p_a: np.ndarray, scenes: np.ndarray, seed: int
) -> tuple[tuple[Team, ...], int]:
    """The best teams of one, two and three, chosen on the training scenes; none where there is a single scene."""
    if len(set(scenes)) < 2:
        return (), 0
    train = split_scenes(scenes, seed)
    singles = [_accuracy(difference, p_a, train) for difference in differences]
    able = sorted(np.argsort(singles, kind="stable")[::-1][:MOST_IN_TEAMS].tolist())
    deviations = np.array([np.std(list(one.images.values())) or 1.0 for one in scored])
    teams = []
    rules: tuple[Rule, ...] = ("majority", "mean z")
    for size in (1, 2, 3):
        for rule in rules[1:] if size == 1 else rules:
            every = {
                members: team_difference(differences[list(members)], deviations[list(members)], rule)
                for members in combinations(able, size)
            }
            if every:
                best = max(every, key=lambda members: _accuracy(every[members], p_a, train))
                test = share(every[best][~train], p_a[~train], scenes[~train])
                names = tuple(scored[k].name for k in best)
                teams += [Team(names, rule, _accuracy(every[best], p_a, train), test)] if test else []
    return tuple(teams), len(set(scenes[train]))


def _accuracy(difference: np.ndarray, p_a: np.ndarray, part: np.ndarray) -> float:
    return float(right(difference, p_a)[part].mean())

"""How well a metric agrees with people: forced choice between two and three answers, correlation with opinion scores (docs/iqa.md).

The unit of chance is the scene (Pair.scene): intervals draw scenes with replacement, and parts of the data are whole scenes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sr_iqa.preferences.manifest import Manifest, Pair
from sr_iqa.study.statistics import DRAWS, Interval, bootstrap_interval

from .correlation import Correlation, correlate
from .scoring import Scored

WHOLE = "All"
"""The group that stands for the whole: of a manifest that has it, its other groups hold the same pairs again."""
_DRAWN_VALUES = 20_000_000
"""Numbers that a bootstrap holds at once."""


@dataclass(frozen=True)
class Share:
    """A share of pairs, with its 95 % interval."""

    value: float
    interval: Interval
    pairs: int
    scenes: int


@dataclass(frozen=True)
class ThreeWay:
    """Three answers: A, B, alike. Alike is where the scores differ by at most `threshold`."""

    share: Share
    """Pairs of the test scenes that get the people's answer."""
    threshold: float
    """In units of the metric; the best on the training scenes."""
    train: float
    """Share on the training scenes."""


@dataclass(frozen=True)
class Group:
    """One metric on the pairs of a group."""

    share: Share | None
    """2AFC accuracy; None where people prefer nobody."""
    mos: Correlation | None
    """With the opinion scores of the group's images."""


@dataclass(frozen=True)
class Agreement:
    """One metric on one manifest."""

    scored: Scored
    overall: Share | None
    """2AFC accuracy: pairs of which people prefer one (p_a not 0.5) and the metric the same one; equal scores count one half."""
    groups: dict[str, Group]
    """Every group but WHOLE, in the manifest's order."""
    votes: float | None
    """Mean share of the votes that the metric's choice got, where p_a has values between; no metric can exceed `votes_limit`."""
    votes_limit: float | None
    three_way: ThreeWay | None
    """Where there are pairs that people found alike."""
    mos: Correlation | None
    """With the images' opinion scores, over all images."""


def agreement(scored: Scored, manifest: Manifest, seed: int = 0) -> Agreement:
    """Everything that is said of one metric. `seed` chooses the training scenes of the three-way threshold."""
    difference = scored.pairs[:, 0] - scored.pairs[:, 1]
    p_a, scenes = probabilities(manifest.pairs), np.array([pair.scene for pair in manifest.pairs])
    names = np.array([pair.group for pair in manifest.pairs])
    whole = overall_pairs(manifest.pairs)
    groups = {}
    for name in dict.fromkeys(pair.group for pair in manifest.pairs if pair.group not in ("", WHOLE)):
        inside = names == name
        mos = _with_mos(scored, manifest.mos, [pair for pair in manifest.pairs if pair.group == name])
        groups[name] = Group(share(difference[inside], p_a[inside], scenes[inside]), mos)
    between = bool(np.any((p_a != 0) & (p_a != 1) & (p_a != 0.5)))
    return Agreement(
        scored=scored,
        overall=share(difference[whole], p_a[whole], scenes[whole]),
        groups=groups,
        votes=float(votes_won(difference, p_a)[whole].mean()) if between else None,
        votes_limit=float(np.maximum(p_a, 1 - p_a)[whole].mean()) if between else None,
        three_way=_three_way(difference[whole], p_a[whole], scenes[whole], seed),
        mos=_with_mos(scored, manifest.mos, manifest.pairs),
    )


def probabilities(pairs: Sequence[Pair]) -> np.ndarray:
    """(P,) p_a."""
    return np.array([pair.p_a for pair in pairs], dtype=np.float64)


def overall_pairs(pairs: Sequence[Pair]) -> np.ndarray:
    """bool (P,): the pairs that figures of the whole are of: those of the group WHOLE if it is there, or else all."""
    whole = np.array([pair.group == WHOLE for pair in pairs], dtype=bool)
    return whole if whole.any() else ~whole


def right(difference: np.ndarray, p_a: np.ndarray) -> np.ndarray:
    """1 where the metric prefers whom people prefer, 0 where the other, 0.5 where its scores are equal. Meaningless where p_a is 0.5."""
    return np.where(difference == 0, 0.5, ((difference > 0) == (p_a > 0.5)).astype(np.float64))


def votes_won(difference: np.ndarray, p_a: np.ndarray) -> np.ndarray:
    """The share of the votes that went to the metric's choice (BAPPS calls its mean the 2AFC score); 0.5 where its scores are equal."""
    return np.where(difference > 0, p_a, np.where(difference < 0, 1 - p_a, 0.5))


def share(difference: np.ndarray, p_a: np.ndarray, scenes: np.ndarray) -> Share | None:
    """2AFC accuracy of differences A - B (P,); None where people prefer nobody."""
    decided = p_a != 0.5
    return _share(right(difference, p_a)[decided], scenes[decided]) if decided.any() else None


def split_scenes(scenes: Sequence[str] | np.ndarray, seed: int, part: float = 0.5) -> np.ndarray:
    """bool (P,): pairs of the training scenes, a random `part` of all scenes, but neither none nor all where there are two."""
    names = np.unique(np.asarray(scenes))
    count = min(max(round(part * len(names)), 1), max(len(names) - 1, 1))
    chosen = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return np.isin(np.asarray(scenes), names[chosen])


def best_threshold(difference: np.ndarray, p_a: np.ndarray) -> float:
    """The |difference| up to which scores had best count as alike: halfway between two that occur, or 0; of equally good ones the least."""
    size = np.abs(difference)
    order = np.argsort(size, kind="stable")
    alike = (p_a == 0.5)[order]
    chosen = ((np.sign(difference) == np.sign(p_a - 0.5)) & (difference != 0))[order]
    gained = np.concatenate([[0], np.cumsum(alike)])  # with the k smallest taken for alike
    kept = chosen.sum() - np.concatenate([[0], np.cumsum(chosen)])
    sizes = np.concatenate([[0.0], size[order]])
    last = np.flatnonzero(np.append(sizes[1:] != sizes[:-1], True))  # equal sizes go together
    best = last[np.argmax((gained + kept)[last])]
    following = sizes[best + 1] if 0 < sizes[best] < sizes[-1] else sizes[best]
    return float((sizes[best] + following) / 2)


def three_answers(difference: np.ndarray, p_a: np.ndarray, threshold: float) -> np.ndarray:
    """1 where the answer is the people's (A-FINE's rule): alike where scores differ by at most the threshold, else the better one."""
    answer = np.where(np.abs(difference) <= threshold, 0.0, np.sign(difference))
    return (answer == np.sign(p_a - 0.5)).astype(np.float64)


def _three_way(difference: np.ndarray, p_a: np.ndarray, scenes: np.ndarray, seed: int) -> ThreeWay | None:
    if not np.any(p_a == 0.5) or len(set(scenes)) < 2:
        return None
    train = split_scenes(scenes, seed)
    threshold = best_threshold(difference[train], p_a[train])
    answers = three_answers(difference, p_a, threshold)
    return ThreeWay(_share(answers[~train], scenes[~train]), threshold, float(answers[train].mean()))


def _share(values: np.ndarray, scenes: np.ndarray) -> Share:
    count = len(set(scenes))
    interval = bootstrap_interval(values[None], scenes.tolist(), draws=min(DRAWS, max(200, _DRAWN_VALUES // count)))
    return Share(float(values.mean()), interval, len(values), count)


def _with_mos(scored: Scored, mos: Mapping[Path, float] | None, pairs: Sequence[Pair]) -> Correlation | None:
    """Over the images of these pairs that have an opinion score."""
    if mos is None:
        return None
    scene_of: dict[Path, str] = {}
    for pair in pairs:
        scene_of.setdefault(pair.img_a, pair.scene)
        scene_of.setdefault(pair.img_b, pair.scene)
    images = [image for image in scene_of if image in mos]
    scores, opinions = (np.array([values[image] for image in images]) for values in (scored.images, mos))
    return correlate(scores, opinions, [scene_of[image] for image in images])


def ranked(agreements: Sequence[Agreement]) -> list[Agreement]:
    """The best first: by 2AFC accuracy, or where nobody has any by SRCC."""

    def key(entry: Agreement) -> float:
        if entry.overall is not None:
            return entry.overall.value
        return entry.mos.srcc if entry.mos is not None and np.isfinite(entry.mos.srcc) else -1.0

    return sorted(agreements, key=key, reverse=True)

"""A set: one original GT, K enhanced GTs (EGTs) of the same scene, and what annotators said about them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import printable

LQ = "lq"
Member = int | str
"""An image of a set: 0 (the original), 1..K (the EGTs), or LQ."""
POSITIVE, SIMILAR, NEGATIVE = LABELS = ("Positive", "Similar", "Negative")
STANDINGS = ("original", *LABELS, "unlabelled")
"""What a GT can be in its set: the original, or an EGT with its effective label or without one."""


def effective_label(words: tuple[str, ...]) -> str:
    """The most frequent word of the annotators; Similar where the first place is shared (HGGT's rule for any number of annotators)."""
    ranked = Counter(words).most_common(2)
    tied = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    return SIMILAR if tied or not ranked else ranked[0][0]


def is_name(text: str) -> bool:
    """Whether a text can be a set's name, which goes into tables, pages and other files' names: one line, and no path."""
    return printable(text) == text and text not in ("", ".", "..") and not any(sign in text for sign in "/\n\t")


@dataclass(frozen=True)
class GTSet:
    """Member 0 is the original, 1..K are the EGTs, everywhere."""

    name: str
    paths: tuple[Path, ...]
    """K + 1 image files; in a store, the files that were packed."""
    labels: tuple[tuple[str, ...], ...] = ()
    """Per EGT, one word per annotator; empty without labels."""
    lq: Path | None = None
    """The given LQ image; None where the LQ is synthesised."""

    @property
    def effective(self) -> tuple[str, ...]:
        """The effective label of each EGT; empty without labels."""
        return tuple(effective_label(words) for words in self.labels)

    @property
    def positive(self) -> np.ndarray:
        """bool (K + 1,): the effective positives P; the original never is one."""
        return self._labelled(POSITIVE)

    @property
    def negative(self) -> np.ndarray:
        """bool (K + 1,): the effective negatives."""
        return self._labelled(NEGATIVE)

    def standing(self, member: int) -> int:
        """Place in STANDINGS of member 0..K."""
        if member == 0:
            return 0
        return STANDINGS.index(self.effective[member - 1] if self.labels else "unlabelled")

    def agreement(self, member: int) -> float:
        """Share of the annotators who gave EGT `member` its effective label."""
        words = self.labels[member - 1]
        return words.count(effective_label(words)) / len(words)

    @property
    def source(self) -> str:
        """The photo that the set was cut from: HGGT names patches <photo>-<x>-<y>."""
        patch = re.fullmatch(r"(.+)-\d+-\d+", self.name)
        return patch.group(1) if patch else self.name

    def _labelled(self, label: str) -> np.ndarray:
        marks = np.zeros(len(self.paths), bool)
        marks[1 : 1 + len(self.labels)] = [word == label for word in self.effective]
        return marks


@dataclass(frozen=True)
class Problem:
    """Something that keeps a set, or all of them, from being used."""

    path: Path
    message: str
    set_name: str | None = None
    """The set that it damages; None where the whole data set cannot be used."""

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.message}").replace("\n", "\\n")

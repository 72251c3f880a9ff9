"""HGGT's labels as pairs: an enhanced GT (A) against its original (B)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from sr_iqa.config.models import DataOptions
from sr_iqa.data.gtset import NEGATIVE, POSITIVE, SIMILAR, effective_label
from sr_iqa.data.layouts import scan
from sr_iqa.errors import UserError

from .found import Found, subfolders
from .manifest import Pair

P_ENHANCED = {POSITIVE: 1.0, SIMILAR: 0.5, NEGATIVE: 0.0}
Votes = Literal["majority", "mean"]


def probability(words: tuple[str, ...], votes: Votes) -> float:
    """Of the enhanced image being better: of the effective label, or the mean over annotators."""
    return P_ENHANCED[effective_label(words)] if votes == "majority" else float(np.mean([P_ENHANCED[word] for word in words]))


def read_hggt(root: Path, votes: Votes = "majority") -> Found:
    """One pair per EGT; its group is the EGT's folder, its content the photo that the set was cut from, its reference the original.

    Args:
        root: holds `images/` and `labels/`, each with HGGT's folders in it or in its one subfolder (`0-20193`, `Test-100`).
        votes: p_a of the effective label, or the mean over annotators.

    Raises:
        UserError: folders are missing.
    """
    images, labels = layout_root(root / "images", "original"), layout_root(root / "labels", "A")
    sets, problems = scan(DataOptions(type="multi_gt", dataroot_gt=images, dataroot_labels=labels))
    pairs = [
        Pair(
            *(gt_set.paths[member], gt_set.paths[0], probability(words, votes), gt_set.paths[0]),
            group=gt_set.paths[member].parent.name,
            votes=len(words),
            content=gt_set.source,
        )
        for gt_set in sets
        for member, words in enumerate(gt_set.labels, 1)
    ]
    return Found(pairs, problems=tuple(problems), dropped=Counter())


def layout_root(folder: Path, inside: str) -> Path:
    """`folder`, or its one subfolder, whichever holds the folder `inside` in any case. Raises UserError."""
    members = subfolders(folder)
    if any(path.name.lower() == inside.lower() for path in members):
        return folder
    deeper = [path for path in members if any(member.name.lower() == inside.lower() for member in subfolders(path))]
    if len(deeper) != 1:
        found = ", ".join(path.name for path in members[:5]) or "nothing"
        raise UserError(f"{folder}: no folder {inside} in it or in one of its folders (found: {found}); name the folder above images/")
    return deeper[0]

"""The door to data sets: find, verify and load GT sets, whatever holds them (docs/data.md)."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from ..config.models import DataOptions, TrainDataOptions
from ..errors import UserError
from .checks import check_images, refuse_or_skip
from .gtset import LABELS, GTSet, Problem
from .layouts import scan
from .store import FolderReader, Reader, StoreReader, is_store, open_reader

__all__ = ["GTSet", "Problem", "crop_side", "find_sets", "fingerprint", "load_sets", "statistics", "verify"]

logger = logging.getLogger(__name__)


def find_sets(data: DataOptions) -> list[GTSet]:
    """The complete sets, sorted by name, without looking at pixels; incomplete ones stop it or are skipped, as `on_bad_set` says."""
    if is_store(data.dataroot_gt):
        return list(StoreReader(data.dataroot_gt).sets)
    sets, problems = scan(data)
    refuse_or_skip(data, problems, len(sets))
    return sets


def verify(data: DataOptions, scale: int | None = None) -> list[Problem]:
    """Everything that would keep sets from being used at `scale`, found by decoding every image."""
    if is_store(data.dataroot_gt):
        return list(StoreReader(data.dataroot_gt).problems())
    sets, problems = scan(data)
    return problems + check_images(sets, scale, crop_side(data))


def crop_side(data: DataOptions) -> int:
    """The least side of a GT in pixels: the training crop's, or 1 for data that are not cropped."""
    return data.gt_size if isinstance(data, TrainDataOptions) else 1


def load_sets(data: DataOptions, scale: int | None = None) -> tuple[Reader, Sequence[GTSet]]:
    """A reader of the sets that passed the checks of `verify`; raises UserError or skips bad sets, as `on_bad_set` says.

    Folders are decoded once, in threads, before anything starts (about 5 ms per 512x512 PNG and core). A store was checked when it was
    packed and opens at once.
    """
    if is_store(data.dataroot_gt):
        reader = open_reader(data)
        for i, gt_set in enumerate(reader.sets):
            if min(reader.size(i)) < (scale or 1):
                raise UserError(f"{data.dataroot_gt}: set {gt_set.name} is too small for a scale of {scale}")
        return reader, reader.sets
    sets, problems = scan(data)
    logger.info("checking the images of %d sets in %s (a packed store is checked once)", len(sets), data.dataroot_gt)
    problems += check_images(sets, scale, crop_side(data))
    bad = {problem.set_name for problem in problems}
    good = [gt_set for gt_set in sets if gt_set.name not in bad]
    refuse_or_skip(data, problems, len(good))
    return FolderReader(good), good


def fingerprint(data: DataOptions) -> str:
    """16 hex digits that change when the data do; empty where they are not there. Nothing is decoded.

    Of a store the names and hashes count, of folders (labels and LQs too) the files' names, sizes and times, of a score table its bytes.
    """
    if not data.dataroot_gt.exists():
        return ""
    digest = blake2b(digest_size=8)
    if is_store(data.dataroot_gt):
        digest.update(json.dumps(StoreReader(data.dataroot_gt).records, sort_keys=True).encode())
    roots = [root for root in (data.dataroot_gt, data.dataroot_labels, data.dataroot_lq) if root is not None and not is_store(root)]
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                found = path.stat()
                digest.update(f"{path.relative_to(root)} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    if data.scores is not None and data.scores.is_file():
        digest.update(data.scores.read_bytes())
    return digest.hexdigest()


def statistics(data: DataOptions) -> dict[str, str]:
    """Counts for people: sets, images, sizes, effective labels, sets without a positive."""
    sets = find_sets(data)
    reader = open_reader(data, sets)
    sizes = Counter(reader.size(i) for i in range(len(sets)))
    labels = Counter(label for gt_set in sets for label in gt_set.effective)
    positives = [int(gt_set.positive.sum()) for gt_set in sets]
    return {
        "sets": str(len(sets)),
        "photos": str(len({gt_set.source for gt_set in sets})),
        "GTs per set": ", ".join(str(k) for k in sorted({len(gt_set.paths) for gt_set in sets})),
        "sizes": ", ".join(f"{w}x{h} ({count})" for (h, w), count in sizes.most_common(5)) + (", ..." if len(sizes) > 5 else ""),
        "annotators": ", ".join(str(k) for k in sorted({len(words) for gt_set in sets for words in gt_set.labels})) or "none",
        "effective labels": ", ".join(f"{label} {labels[label]}" for label in LABELS),
        "sets without a positive": str(positives.count(0)),
        "given LQ": str(sum(gt_set.lq is not None for gt_set in sets)),
    }

"""Decode every image of every set and say what is wrong: the one check behind verify, pack and the start of training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..config.models import DataOptions
from ..errors import UserError
from ..images import ImageError, image_size, read_image
from ..threads import in_threads
from .gtset import LQ, GTSet, Member, Problem

logger = logging.getLogger(__name__)

Images = dict[Member, np.ndarray]
T = TypeVar("T")
SHOWN = 20
"""Problems written out in one error."""


def check_images(sets: Sequence[GTSet], scale: int | None = None, smallest: int = 1) -> list[Problem]:
    """All problems of the sets' images, found by decoding them in threads.

    LQs must be `scale` times smaller than their GTs (where it is not given, by the factor that most pairs have), and no side of a GT may
    be below that factor, which would leave no LQ, or below `smallest` pixels, the training crop.
    """
    examined = examine(sets, scale or usual_factor(sets), smallest, lambda gt_set, images: None)
    return [problem for _, problems, _ in examined for problem in problems]


def examine(
    sets: Sequence[GTSet], factor: int, smallest: int, then: Callable[[GTSet, Images], T], workers: int | None = None
) -> Iterator[tuple[GTSet, list[Problem], T | None]]:
    """Every set, in order, with its problems and, of a set without any, what `then` makes of its images.

    Decoding and `then` run in `workers` threads (one per core by default; decoding releases the GIL). Memory holds the images of `workers`
    sets and what was made of three times as many.
    """

    def work(gt_set: GTSet) -> tuple[GTSet, list[Problem], T | None]:
        images, problems = _decode_set(gt_set)
        problems = problems or list(_size_problems(gt_set, images, factor, smallest))
        return gt_set, problems, None if problems else then(gt_set, images)

    return in_threads(work, sets, workers)


def refuse_or_skip(data: DataOptions, problems: Sequence[Problem], usable: int) -> None:
    """Raises UserError with the problems, or logs them where `on_bad_set` is skip and some sets are usable."""
    if not problems:
        return
    listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    if len(problems) > SHOWN:
        listed += f"\n  ... and {len(problems) - SHOWN} more (`sr-iqa data verify` lists them all)"
    bad = len({problem.set_name or str(problem.path) for problem in problems})
    if data.on_bad_set == "fail":
        raise UserError(f"{data.dataroot_gt}: {bad} bad set(s)\n{listed}\nMend them, or leave them out with on_bad_set: skip")
    if not usable:
        raise UserError(f"{data.dataroot_gt}: no usable set left\n{listed}")
    logger.warning("%s: %d bad set(s) left out (on_bad_set: skip), %d used\n%s", data.dataroot_gt, bad, usable, listed)


def _decode_set(gt_set: GTSet) -> tuple[Images, list[Problem]]:
    files: list[tuple[Member, Path]] = list(enumerate(gt_set.paths))
    if gt_set.lq is not None:
        files.append((LQ, gt_set.lq))
    images: Images = {}
    problems = []
    for member, path in files:
        try:
            images[member] = read_image(path)
        except ImageError as error:
            problems.append(Problem(path, str(error).removeprefix(f"{path}: "), gt_set.name))
    return images, problems


def _size_problems(gt_set: GTSet, images: Images, factor: int, smallest: int) -> Iterator[Problem]:
    h, w = images[0].shape[:2]
    if min(h, w) < smallest:
        yield Problem(gt_set.paths[0], f"is {w}x{h}, smaller than the crop (datasets.train.gt_size: {smallest})", gt_set.name)
    elif min(h, w) < factor:
        yield Problem(gt_set.paths[0], f"is {w}x{h}, too small for a scale of {factor}", gt_set.name)
    for member, image in images.items():
        y, x = image.shape[:2]
        if member == LQ and gt_set.lq is not None:
            if (h // factor, w // factor) != (y, x):
                wanted = f"a GT of {w}x{h} needs {w // factor}x{h // factor}"
                yield Problem(gt_set.lq, f"LQ is {x}x{y}, but at scale {factor} {wanted}", gt_set.name)
        elif (y, x) != (h, w):
            yield Problem(gt_set.paths[int(member)], f"is {x}x{y}, but its original is {w}x{h}", gt_set.name)


def usual_factor(sets: Sequence[GTSet]) -> int:
    """The most common ratio of GT to LQ height among the first readable pairs; 1 where no LQ is given."""
    factors: Counter[int] = Counter()
    for gt_set in sets[:100]:
        if gt_set.lq is not None:
            try:
                factors[image_size(gt_set.paths[0])[0] // image_size(gt_set.lq)[0]] += 1
            except ImageError:
                continue
    return max(factors.most_common(1)[0][0], 1) if factors else 1

"""Synthetic preferences: photos with known distortions (sr_iqa/data/distortions.py), of which the fainter is the better one.

Nobody has seen these pairs. A metric that fails here fails at the easiest there is; one that does well has shown nothing about taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from sr_iqa.data.distortions import DISTORTIONS, LEVELS, distort
from sr_iqa.errors import UsageError, UserError
from sr_iqa.images import list_images, read_image_lenient, write_png
from sr_iqa.names import unknown
from sr_iqa.preferences.manifest import Manifest, Pair, write_manifest

MANIFEST = "synthetic.csv"


@dataclass(frozen=True)
class Synthetic:
    """What to make."""

    photos: Path
    """A folder of photos; each is a content."""
    out: Path
    """Gets images/ and the manifest."""
    kinds: tuple[str, ...] = tuple(DISTORTIONS)
    """Groups of the manifest."""
    levels: tuple[int, ...] = tuple(range(LEVELS + 1))
    """0 is the photo itself; every two of them make a pair."""
    crop_px: int = 256
    """The middle of each photo, a square of this side."""
    count: int | None = None
    """Only the first so many photos."""
    seed: int = 0


def make_synthetic(wanted: Synthetic) -> Path:
    """Writes the images and the manifest, which it returns. Which image of a pair is A is drawn.

    Raises:
        UsageError: unknown kinds, or levels that make no pair.
        UserError: no photo is large enough.
    """
    _check(wanted)
    pairs: list[Pair] = []
    for photo in list_images(wanted.photos)[: wanted.count]:
        image = read_image_lenient(photo).astype(np.float32) / 255
        h, w = image.shape[:2]
        side = wanted.crop_px
        if min(h, w) < side:
            continue
        y, x = (h - side) // 2, (w - side) // 2
        pairs += _pairs(wanted, photo, image[y : y + side, x : x + side])
    if not pairs:
        raise UserError(f"{wanted.photos}: no photo of {wanted.crop_px} x {wanted.crop_px} pixels or more")
    path = wanted.out / MANIFEST
    write_manifest(path, Manifest(tuple(pairs), wanted.out))
    return path


def parse_kinds(text: str) -> tuple[str, ...]:
    """Names with commas between them; all where there is none."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) or tuple(DISTORTIONS)


def parse_levels(text: str) -> tuple[int, ...]:
    """Numbers with commas between them. Raises UsageError."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise UsageError(f"--levels: expected numbers with commas between them, 0,1,3, got {text!r}") from None


def _pairs(wanted: Synthetic, photo: Path, image: np.ndarray) -> list[Pair]:
    """Those of one photo, whose images are written; a distortion does not depend on what else is asked for."""
    folder = wanted.out / "images" / photo.stem
    original, pairs = folder / "original.png", []
    _save(original, image)
    for kind in wanted.kinds:
        rng = np.random.default_rng([wanted.seed, *kind.encode(), *photo.stem.encode()])
        paths = {0: original} if 0 in wanted.levels else {}
        for level in range(1, LEVELS + 1):
            changed = distort(image, kind, level, rng)
            if level in wanted.levels:
                paths[level] = folder / f"{kind}_{level}.png"
                _save(paths[level], changed)
        for better, worse in combinations([paths[level] for level in sorted(paths)], 2):
            turned = rng.random() < 0.5
            a, b = (worse, better) if turned else (better, worse)
            pairs.append(Pair(a, b, float(not turned), original, kind, content=photo.stem))
    return pairs


def _save(path: Path, image: np.ndarray) -> None:
    write_png(path, np.round(image * 255).astype(np.uint8))


def _check(wanted: Synthetic) -> None:
    for kind in wanted.kinds:
        if kind not in DISTORTIONS:
            raise UsageError(unknown("kind of distortion", kind, DISTORTIONS))
    levels: Sequence[int] = wanted.levels
    if len(set(levels)) < 2 or not all(0 <= level <= LEVELS for level in levels):
        raise UsageError(f"expected at least two levels of 0 to {LEVELS}, got {', '.join(map(str, levels)) or 'none'}")

"""The stream of pairs: sample n is a pure function of (seed, n), as in data/stream.py, whose generators and loader it uses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..config.metric_models import ManifestOptions, PairDataOptions
from ..data.stream import rng
from ..errors import UserError
from ..images import ImageError, image_size, read_image_lenient
from ..preferences.manifest import Pair, read_manifest

SOURCES = 1 << 16
"""Each manifest's order has a Philox key of its own, above those of PURPOSES: part of every run's identity."""
LEAST_EPOCH = 1000
Sight = tuple[Path, Path | None]
"""What Q sees to judge an image: the image, and its reference where Q is full-reference."""
Measured = dict[Sight, Tensor]
"""What a network with frozen features has measured: (3,)."""


@dataclass(frozen=True)
class Source:
    """The usable pairs of one manifest."""

    name: str
    pairs: tuple[Pair, ...]
    weight: float
    fingerprint: str
    root: Path = Path()
    """What the manifest's paths are relative to."""
    resize_px: int | None = None
    """How long the shorter side of every image is made; None: images stay as they are."""


def load_source(options: ManifestOptions, name: str, full_reference: bool, resize_px: int | None) -> Source:
    """Raises UserError for a manifest that cannot be read, has none of the groups, or no references where they are needed."""
    manifest = read_manifest(options.path)
    pairs = tuple(pair for pair in manifest.pairs if not options.groups or pair.group in options.groups)
    if not pairs:
        there = ", ".join(sorted({pair.group or '""' for pair in manifest.pairs}))
        raise UserError(f"{options.path}: no pairs of the groups {', '.join(options.groups)}; it has {there}")
    if full_reference and (bare := next((pair for pair in pairs if pair.ref is None), None)):
        raise UserError(f"{options.path}: {bare.img_a} and {bare.img_b} have no `ref`, which a full-reference metric needs")
    return Source(name, pairs, options.weight or len(pairs), manifest.fingerprint, manifest.root, resize_px)


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Names that tell manifests apart: their stems, with as many folders before them as that takes."""
    parts = {path: path.absolute().with_suffix("").parts for path in paths}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {path: "/".join(found[-count:]) for path, found in parts.items()}
        if len({*names.values()}) == len(names):
            return names
    return {path: str(path) for path in paths}  # a.csv and a.parquet


def split(root: Path, pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, held-out pairs): about `share` of the scenes are held out, by a hash of their names.

    Pairs without content and reference are split by their images; those with one image on either side are in neither part.
    """
    training, held_out = [], []
    for pair in pairs:
        held = {_held_out(name, share) for name in _scenes(root, pair)}
        if held == {False}:
            training.append(pair)
        elif held == {True}:
            held_out.append(pair)
    return training, held_out


def _scenes(root: Path, pair: Pair) -> set[str]:
    if pair.content:
        return {pair.content}
    paths = (pair.ref,) if pair.ref else (pair.img_a, pair.img_b)
    return {str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in paths}


def _held_out(scene: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") < share * 2**64


@dataclass(frozen=True)
class PairPlan:
    """Everything drawn for sample n."""

    pair: Pair
    corner: tuple[float, float]
    """Where the crop lies between top and bottom, left and right: 0..1, the same for all images of the pair."""
    hflip: bool


class PairStream(Dataset[dict[str, Tensor]]):
    """Sample n >= 0 -> {a, b, and with references ref: uint8 (3, crop, crop); p_a}; where images are `measured`, {a, b: (3,); p_a}.

    An epoch holds as many samples as there are pairs (of several manifests at least LEAST_EPOCH, so that their shares come out); a
    manifest has its share of them by weight, and goes through its own pairs in an order of its own, none twice before all others once.
    """

    measured: Measured | None = None
    """Set before the first sample where images are measured once."""

    def __init__(self, sources: Sequence[Source], data: PairDataOptions, seed: int, full_reference: bool) -> None:
        self.sources, self.seed, self.full_reference = sources, seed, full_reference
        self.crop, self.resize, self.use_hflip = data.crop_px, data.resize_px, data.use_hflip
        total = sum(len(source.pairs) for source in sources)
        wanted = total if len(sources) == 1 else max(total, LEAST_EPOCH)
        shares = np.array([source.weight for source in sources])
        self.ends = np.maximum(1, (wanted * shares / shares.sum()).round().astype(int)).cumsum()
        """Where each manifest's places in an epoch end; each has one at least."""

    def __len__(self) -> int:
        return int(self.ends[-1])

    def pair(self, n: int) -> Pair:
        """Which pair sample n is."""
        epoch, place = divmod(n, len(self))
        slot = int(_order(self.seed, -1, epoch, len(self))[place])
        i = int(np.searchsorted(self.ends, slot, side="right"))
        start = int(self.ends[i - 1]) if i else 0
        pairs = self.sources[i].pairs
        turn, index = divmod(epoch * (int(self.ends[i]) - start) + slot - start, len(pairs))
        return pairs[_order(self.seed, i, turn, len(pairs))[index]]

    def plan(self, n: int) -> PairPlan:
        """What sample n is."""
        y, x = rng(self.seed, "crop", n).random(2)
        hflip = bool(rng(self.seed, "flip", n).random() < 0.5) and self.use_hflip
        return PairPlan(self.pair(n), (y, x), hflip)

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        if self.measured is not None:
            pair = self.pair(n)
            a, b = (self.measured[sight] for sight in sights(pair, self.full_reference))
            return {"a": a, "b": b, "p_a": _number(pair.p_a)}
        plan = self.plan(n)
        pair = plan.pair
        images = {"a": pair.img_a, "b": pair.img_b, **({"ref": pair.ref} if self.full_reference and pair.ref else {})}
        return {**{name: self._crop(path, plan) for name, path in images.items()}, "p_a": _number(pair.p_a)}

    def _crop(self, path: Path, plan: PairPlan) -> Tensor:
        image = read_resized(path, self.resize)
        if min(image.shape[:2]) < self.crop:
            h, w = image.shape[:2]
            raise UserError(f"{path}: is {w}x{h}, smaller than the crop (datasets.train.crop_px: {self.crop})")
        y, x = (int(u * (side - self.crop + 1)) for u, side in zip(plan.corner, image.shape[:2], strict=True))
        crop = image[y : y + self.crop, x : x + self.crop]
        return torch.from_numpy((crop[:, ::-1] if plan.hflip else crop).transpose(2, 0, 1).copy())


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


@lru_cache(maxsize=32)
def _order(seed: int, source: int, epoch: int, length: int) -> np.ndarray:
    """The permutation of one epoch's places (source -1), or of one manifest's pairs in its `epoch`-th turn."""
    if source < 0:
        return rng(seed, "set", epoch).permutation(length)
    return np.random.Generator(np.random.Philox(key=[seed, SOURCES + source], counter=[0, 0, epoch, 0])).permutation(length)


def read_resized(path: Path, shorter: int | None) -> np.ndarray:
    """uint8 RGB (h, w, 3), its shorter side made `shorter` pixels long if given. Raises UserError."""
    image = read_image_lenient(path)
    if shorter is None or min(image.shape[:2]) == shorter:
        return image
    ratio = shorter / min(image.shape[:2])
    h, w = (max(round(side * ratio), shorter) for side in image.shape[:2])
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)


def sights(pair: Pair, full_reference: bool) -> tuple[Sight, Sight]:
    """What is seen to judge A and B."""
    ref = pair.ref if full_reference else None
    return (pair.img_a, ref), (pair.img_b, ref)


def sights_of(sources: Sequence[Source], full_reference: bool) -> dict[Sight, int | None]:
    """Every one that the pairs need, once, in order: how long the shorter side of its images is made."""
    return {sight: source.resize_px for source in sources for pair in source.pairs for sight in sights(pair, full_reference)}


def check_sizes(pairs: Sequence[Pair], full_reference: bool) -> None:
    """Raises UserError where images that share a crop differ in size, which none can mend; only headers are read."""
    sizes: dict[Path, tuple[int, int]] = {}
    for pair in pairs:
        for path in (pair.img_a, pair.img_b, *((pair.ref,) if full_reference and pair.ref else ())):
            if path not in sizes:
                sizes[path] = image_size(path)
            if sizes[path] != sizes[pair.img_a]:
                (h, w), (other_h, other_w) = sizes[pair.img_a], sizes[path]
                raise ImageError(f"{path}: is {other_w}x{other_h}, but {pair.img_a}, which it is compared with, is {w}x{h}")

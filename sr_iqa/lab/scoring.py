"""Every pair of a manifest as metrics see it: scores of A and B, from the table where they are known (score_table.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sr_iqa.errors import UsageError, UserError
from sr_iqa.images import ImageError, read_image_lenient, to_tensor
from sr_iqa.iqa.ensemble_text import split_names
from sr_iqa.iqa.judging import apart, judged
from sr_iqa.iqa.metrics import Metric, create_metric, list_metrics, metric_info
from sr_iqa.iqa.weights import require
from sr_iqa.preferences.manifest import Manifest

from .score_table import Key, Opinions, ScoreTable, TableError, hashes

ALL = "all"
SYMMETRY_TOLERANCE = 1e-4
"""Relative difference of m(image, ref) and m(ref, image) that rounding explains."""


@dataclass(frozen=True)
class Scored:
    """What one metric says of a manifest. Scores are signed: higher is better."""

    name: str
    """As it was asked for."""
    identity: str
    mode: str
    """NR, FR (against each pair's reference), or file (scores that were given)."""
    lower_better: bool
    pairs: np.ndarray
    """(P, 2): A and B of every pair; comparable within a pair."""
    images: Mapping[Path, float]
    """Every compared image; against its first pair's reference where the metric takes one."""
    asymmetric: bool | None = None
    """FR: exchanging image and reference changes the score; None where no pair could tell."""


@dataclass(frozen=True)
class Unusable:
    """A metric that gave no scores, and why."""

    name: str
    reason: str


class Scorer:
    """Scores pairs of one manifest. The images' files are hashed once, when they are first needed.

    Args:
        folder: where the table of scores is kept; the manifest's.
        say: told what is being done.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu", say: Callable[[str], None] = print) -> None:
        self._table, self._device, self._say = ScoreTable(folder), device, say
        self._hashes: dict[Path, str] = {}

    def score(self, manifest: Manifest, names: Sequence[str], strict: bool = True) -> tuple[list[Scored], list[Unusable]]:
        """The metrics' scores, and the metrics that gave none, each with the reason.

        Args:
            strict: a metric that cannot be built is an error, not a reason.

        Raises:
            UserError: an image cannot be read, or the table of scores not be read or written; with `strict`, a metric cannot be built.
        """
        if strict:  # a name that is misspelt, or without weights, is told before the first metric scores
            for name in names:
                require(name, metric_info(name).files)
        self._hash(manifest)
        scored, unusable = [], []
        for name in names:
            try:
                metric = create_metric(name, self._device)
            except UserError as error:
                if strict:
                    raise
                unusable.append(Unusable(name, str(error).partition("\n")[0].partition("; run `")[0]))
                continue
            try:
                scored.append(self._score(manifest, metric, name))
            except (ImageError, TableError):  # the data or the disk, not the metric
                raise
            except Exception as error:  # whatever a metric trips over; the others go on
                words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                unusable.append(Unusable(name, words.partition("\n")[0][:300]))
                self._say(f"{name}: {unusable[-1].reason}")
        return scored, unusable

    def _hash(self, manifest: Manifest) -> None:
        refs = [pair.ref for pair in manifest.pairs if pair.ref is not None]
        self._hashes |= hashes(path for path in (*manifest.images, *refs) if path not in self._hashes)

    def _score(self, manifest: Manifest, metric: Metric, name: str) -> Scored:
        if metric.mode == "FR" and any(pair.ref is None for pair in manifest.pairs):
            without = sum(pair.ref is None for pair in manifest.pairs)
            raise UserError(f"{metric.name} needs references, and {without} of {len(manifest.pairs)} pairs have none")
        jobs = self._jobs(manifest, metric.mode == "FR")
        known = self._table.read(metric.identity)
        self._complete(known, metric, jobs)
        keys = [(self._key(pair.img_a, pair.ref, metric), self._key(pair.img_b, pair.ref, metric)) for pair in manifest.pairs]
        opinions = torch.tensor([[known[a], known[b]] for a, b in keys], dtype=torch.float64)  # (P, 2, K)
        images: dict[Path, Opinions] = {}
        for pair, (a, b) in zip(manifest.pairs, keys, strict=True):
            images.setdefault(pair.img_a, known[a])
            images.setdefault(pair.img_b, known[b])
        alone = metric.verdict(torch.tensor(list(images.values()), dtype=torch.float64)[:, None])[:, 0].tolist()
        return Scored(
            name=name,
            identity=metric.identity,
            mode=metric.mode,
            lower_better=metric.lower_better,
            pairs=metric.verdict(opinions).numpy(),
            images=dict(zip(images, alone, strict=True)),
            asymmetric=_asymmetric(known, jobs) if metric.mode == "FR" else None,
        )

    def _key(self, image: Path, ref: Path | None, metric: Metric) -> Key:
        return self._hashes[image], self._hashes[ref] if metric.mode == "FR" and ref else ""

    def _jobs(self, manifest: Manifest, with_refs: bool) -> dict[Key, tuple[Path, Path | None]]:
        """What is to be scored, each content once. With references also one of them against its image: the other way round."""
        if not with_refs:
            return {(self._hashes[path], ""): (path, None) for path in manifest.images}
        jobs: dict[Key, tuple[Path, Path | None]] = {}
        for pair in manifest.pairs:
            for image in (pair.img_a, pair.img_b):
                if pair.ref is not None:
                    jobs.setdefault((self._hashes[image], self._hashes[pair.ref]), (image, pair.ref))
        for (image_hash, ref_hash), (image, ref) in jobs.items():
            if image_hash != ref_hash and ref is not None:
                return {**jobs, (ref_hash, image_hash): (ref, image)}
        return jobs

    def _complete(self, known: dict[Key, Opinions], metric: Metric, jobs: Mapping[Key, tuple[Path, Path | None]]) -> None:
        """Scores what is not known, into `known` and the table."""
        todo = [key for key in jobs if key not in known]
        if not todo:
            return
        start = time.monotonic()

        def score(key: Key, images: list[np.ndarray]) -> Opinions:
            tensors = [to_tensor(image)[None].to(metric.device) for image in images]
            return tuple(metric.opinions(*tensors)[0].double().tolist())

        with self._table.writing(metric.identity) as scribe:
            read = judged(lambda key: _read(jobs[key]), score, todo, apart([metric]))
            for key, opinions in zip(todo, read, strict=True):
                if not np.isfinite(opinions).all():
                    raise UserError(f"{metric.name} gives {opinions[0]} for {jobs[key][0]}")
                known[key] = opinions
                scribe.add(key, opinions)
        before = f", {len(jobs) - len(todo)} were known" if len(todo) < len(jobs) else ""
        self._say(f"{metric.name}: {len(todo)} images scored in {time.monotonic() - start:.1f} s{before}")


def metric_names(text: str) -> tuple[list[str], bool]:
    """(names, whether each must work) of "musiq, min(nano, niqe)", of `all`, or of "all, min(nano, niqe)"; each once."""
    names = split_names(text)
    if not names:
        raise UsageError("no metric: --metrics takes names with commas between them, or all")
    if ALL in names:
        return list(dict.fromkeys([info.name for info in list_metrics()] + [name for name in names if name != ALL])), False
    return list(dict.fromkeys(names)), True


def _read(job: tuple[Path, Path | None]) -> list[np.ndarray]:
    images = [read_image_lenient(path) for path in job if path is not None]
    if images[0].shape != images[-1].shape:
        sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
        raise UserError(f"{job[0]} and its reference {job[1]} have different sizes, {sizes}")
    return images


def _asymmetric(known: Mapping[Key, Opinions], jobs: Mapping[Key, object]) -> bool | None:
    for image, ref in jobs:
        if image != ref and (ref, image) in known:
            one, other = known[image, ref][0], known[ref, image][0]
            return abs(one - other) > SYMMETRY_TOLERANCE * max(abs(one), abs(other))
    return None

"""Ensembles with their statistics as YAML files, and `sr-iqa iqa normalise`, which makes them.

kind: sum                       # sum, min, rank, agree
members:
- metric: musiq
  weight: 0.5
  statistics: {identity: ..., mean: ..., std: ..., quantiles: [...]}    # of signed scores; for all members or for none
images: 200 images of bsds500, fingerprint 0123456789abcdef
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import Field

from sr_iqa.atomic import atomic_write
from sr_iqa.config.load import validated
from sr_iqa.config.models import Section
from sr_iqa.config.yaml_text import read_document
from sr_iqa.errors import UserError
from sr_iqa.images import list_images

from .ensemble import Normalisation, Statistics, read_ensemble
from .ensemble_text import Kind, Recipe, recipe
from .metrics import create_metric
from .scores import score_files
from .weights import file_fingerprint

QUANTILES = 21
"""At 0, 5, ..., 100 %."""
LEAST_IMAGES = 10


class StatisticsOptions(Section):
    """A member's signed scores on the reference images, as `sr-iqa iqa normalise` writes them."""

    identity: str
    mean: float
    std: float = Field(gt=0)
    quantiles: tuple[float, ...] = Field(min_length=2)


class MemberOptions(Section):
    """One metric of an ensemble."""

    metric: str
    weight: float = 1.0
    statistics: StatisticsOptions | None = None


class EnsembleOptions(Section):
    """An ensemble's file."""

    kind: Kind = "sum"
    members: tuple[MemberOptions, ...]
    images: str = ""
    """The reference images behind the statistics."""


def read_ensemble_file(path: str | Path) -> tuple[Recipe, Normalisation | None]:
    """The file's recipe, and its statistics if it has any. Raises UserError naming the file, the line and the key."""
    path = Path(path)
    document = read_document(path)
    options = validated(document, EnsembleOptions)
    made = recipe(options.kind, [(member.metric, member.weight) for member in options.members], str(path))
    found = [member.statistics for member in options.members if member.statistics is not None]
    if len(found) not in (0, len(options.members)):
        lacking = next(member.metric for member in options.members if member.statistics is None)
        raise UserError(f"{path}: {lacking} has no statistics, other members have; give them for all or for none")
    for member, statistics in zip(options.members, found, strict=False):
        if any(b <= a for a, b in zip(statistics.quantiles, statistics.quantiles[1:], strict=False)):
            raise UserError(f"{path}: the quantiles of {member.metric} do not rise")
    return made, Normalisation(options.images, tuple(Statistics(**dict(entry)) for entry in found)) if found else None


def normalise(name: str, inputs: Sequence[Path], path: Path, device: str | torch.device = "cpu") -> str:
    """Scores images with every member of an ensemble and writes the ensemble with these statistics; returns a line about it.

    Args:
        name: the ensemble, a text or a file (whose statistics are replaced).
        inputs: reference images and folders of them, like those that are to be scored.
        path: the file to write, .yml.
        device: where to compute.

    Raises:
        UserError: no such ensemble, a full-reference member, missing weights, fewer than LEAST_IMAGES images, an image that cannot be
            scored, or a member that gives them all the same score.
    """
    if path.suffix.lower() not in (".yml", ".yaml"):
        raise UserError(f"{path}: an ensemble's file must end in .yml")
    made, _ = read_ensemble(name)
    names = list(made.names)
    inputs = [entry.resolve() for entry in map(Path, inputs)]
    if absent := next((entry for entry in inputs if not entry.exists()), None):
        raise UserError(f"{absent}: there is no such file or folder")
    files = [file for entry in inputs for file in (list_images(entry) if entry.is_dir() else [entry])]
    if len(files) < LEAST_IMAGES:
        raise UserError(f"{len(files)} reference images say too little about a metric; give at least {LEAST_IMAGES}")
    members = [create_metric(member, device) for member in names]
    scores = np.array([values for _, values in score_files(files, names, device)])
    statistics = [
        _statistics(member.name, member.identity, -column if member.lower_better else column)
        for member, column in zip(members, scores.T, strict=True)
    ]
    images = f"{len(files)} images of {', '.join(entry.name for entry in inputs)}, fingerprint {_fingerprint(files)}"
    _write(path, made, statistics, images)
    return f"{path}: {made.kind} of {', '.join(names)}, normalised by {images}"


def _statistics(name: str, identity: str, signed: np.ndarray) -> Statistics:
    """Raises UserError where there is nothing to divide by."""
    if not np.isfinite(signed).all():
        raise UserError(f"{name} gives a value that is not finite for one of the images")
    quantiles = np.quantile(signed, np.linspace(0, 1, QUANTILES))
    if not signed.std() > 0 or quantiles[0] == quantiles[-1]:
        raise UserError(f"{name} gives all images the same score; there is nothing to normalise by")
    steps = 1e-6 * (quantiles[-1] - quantiles[0]) * np.arange(QUANTILES)  # equal scores are told apart by this little
    return Statistics(identity, float(signed.mean()), float(signed.std()), tuple(map(float, quantiles + steps)))


def _fingerprint(files: Sequence[Path]) -> str:
    """Of the images' contents, in any order."""
    return hashlib.sha256(" ".join(sorted(map(file_fingerprint, files))).encode()).hexdigest()[:16]


def _write(path: Path, made: Recipe, statistics: Sequence[Statistics], images: str) -> None:
    members = []
    for (metric, weight), entry in zip(made.members, statistics, strict=True):
        numbers: dict[str, Any] = asdict(entry) | {"quantiles": list(entry.quantiles)}
        members.append({"metric": metric, "weight": weight, "statistics": numbers})
    data = {"kind": made.kind, "members": members, "images": images}
    with atomic_write(path) as temporary:
        temporary.write_text(
            yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120), encoding="utf-8"
        )

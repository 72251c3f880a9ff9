"""Scores of metrics from elsewhere, as a CSV table: image, and a column for each metric."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from sr_iqa.errors import UsageError, UserError
from sr_iqa.iqa.weights import file_fingerprint
from sr_iqa.preferences.manifest import Manifest, checked_name, number
from sr_iqa.preferences.texts import csv_table

from .scoring import Scored


def read_foreign(path: Path, manifest: Manifest, lower_better: Collection[str] = ()) -> list[Scored]:
    """The metrics of a table for the manifest's images; names of images are relative to the manifest's root or to the table's folder.

    Args:
        lower_better: the columns in which lower is better.

    Raises:
        UserError: no such table, wrong values, images without a score (naming the line or the first image).
    """
    head, rows = csv_table(path)
    names = head[1:]
    if len(head) < 2 or head[0] != "image" or len(set(head)) != len(head) or "" in head:
        raise UserError(f"{path}: the first line must be image,NAME[,NAME...], each name once; it is {','.join(head)[:100]!r}")
    wanted = {image: os.path.abspath(image) for image in manifest.images}
    known = set(wanted.values())
    values: dict[str, list[float]] = {}
    for n, row in rows:
        try:
            scores = _scores(row, names)
            places = [os.path.abspath(checked_name(row[0], folder)) for folder in (manifest.root, path.parent)]
        except ValueError as error:
            raise UserError(f"{path}, line {n}: {error}") from error
        image = next((place for place in places if place in known), places[0])
        if values.setdefault(image, scores) != scores:
            raise UserError(f"{path}, line {n}: {row[0]} has other scores in an earlier line")
    missing = [image for image, place in wanted.items() if place not in values]
    if missing:
        raise UserError(f"{path}: no scores of {len(missing)} of {len(manifest.images)} images, {missing[0]} among them")
    identity = f"from {path.name}, {file_fingerprint(path)}"
    by_image = {image: values[place] for image, place in wanted.items()}
    return [_scored(k, name, identity, by_image, manifest, name in lower_better) for k, name in enumerate(names)]


def read_all_foreign(paths: Collection[Path], manifest: Manifest, lower_better: Collection[str] = ()) -> list[Scored]:
    """The metrics of several tables.

    Raises UserError for two of one name, UsageError where `lower_better` names none of them, else as `read_foreign`.
    """
    scored = [entry for path in paths for entry in read_foreign(path, manifest, lower_better)]
    names = [entry.name for entry in scored]
    double = [name for name in names if names.count(name) > 1]
    if double:
        raise UserError(f"two columns of --scores are named {double[0]}; rename one")
    unknown = sorted(set(lower_better) - set(names))
    if unknown:
        raise UsageError(f"--lower-better {unknown[0]}: no table of --scores has that column")
    return scored


def _scores(row: list[str], names: list[str]) -> list[float]:
    if len(row) != len(names) + 1:
        raise ValueError(f"{len(row)} values for {len(names) + 1} columns")
    return [number(cell, column) for cell, column in zip(row[1:], names, strict=True)]


def _scored(k: int, name: str, identity: str, values: dict[Path, list[float]], manifest: Manifest, lower_better: bool) -> Scored:
    sign = -1.0 if lower_better else 1.0
    images = {image: sign * values[image][k] for image in manifest.images}
    pairs = np.array([[images[pair.img_a], images[pair.img_b]] for pair in manifest.pairs])
    return Scored(name, identity, "file", lower_better, pairs, images)

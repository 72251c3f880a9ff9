"""Scores of whole GT images: made once, stored beside the data as a Parquet table, read by the sampling strategies.

Columns: set, member (0 = the original), score (signed: higher is better), native (as the metric gives it), metric, identity.
While a table is being made, finished sets go to small part files in <table>.parts; a stopped run goes on from them.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from sr_iqa.atomic import atomic_write
from sr_iqa.config.models import DataOptions
from sr_iqa.data.sets import GTSet, load_sets
from sr_iqa.data.store import Reader
from sr_iqa.distributed import check_launch, is_main, share, wait_for_everyone
from sr_iqa.errors import UserError
from sr_iqa.images import list_images, read_image_lenient, to_tensor

from .judging import apart, judged
from .metrics import Metric, create_metric

Row = dict[str, Any]
COLUMNS = ("set", "member", "score", "native", "metric", "identity")
LONGEST = 1000
"""Letters of a name in a table."""
BATCH_PX = 2**22
"""Pixels per call of the metric: sixteen images of 512 x 512."""
SAVE_EVERY_S = 20.0
"""Seconds between part files: what a killed run loses at most, plus the set it was at."""


def score_data(data: DataOptions, metric_name: str, path: Path, device: str | torch.device = "cpu") -> int:
    """Score every GT of every set of a data set into the table `path`; returns the number of its images. Raises as `score_sets`."""
    check_launch()
    reader, sets = load_sets(data)
    score_sets(reader, create_metric(metric_name, device), path)
    return sum(len(gt_set.paths) for gt_set in sets)


def score_sets(reader: Reader, metric: Metric, path: Path, batch_px: int = BATCH_PX) -> None:
    """Score all GTs of all sets of `reader` into the table `path`.

    Sets that the table or its part files already hold with the same metric and weights are not scored again. Under `accelerate launch`
    each process scores its share, on its own device, and the main one joins the parts.

    Raises UserError for a full-reference metric, a table of another metric or other weights, or a score that is not finite.
    """
    if metric.mode != "NR":
        raise UserError(f"{metric.name} needs a reference; GTs are scored by no-reference metrics")
    path = Path(path)
    parts = path.with_name(f"{path.name}.parts")
    done = _done(_rows(path, parts), metric, path)
    todo = [i for i, gt_set in enumerate(reader.sets) if done.get(gt_set.name) != len(gt_set.paths)]
    wait_for_everyone()  # nobody writes before everybody has read
    _score_share(reader, metric, [todo[j] for j in share(len(todo))], parts, batch_px)
    wait_for_everyone()
    if is_main():
        _join(path, parts, reader.sets)
    wait_for_everyone()


def read_scores(path: Path | None, sets: Sequence[GTSet], metric_name: str | None) -> np.ndarray:
    """Signed scores of the sets' GTs: float64 (len(sets), K + 1), in the order of `sets`; NaN behind the last GT of a smaller set.

    Raises UserError: no table, another metric, sets or GTs without a score, or a score that is not a number (naming the image).
    """
    if path is None or not Path(path).is_file():
        raise UserError(f"score table {path} is not there; make it with `sr-iqa data score` and name it in datasets.train.scores")
    rows = _read(Path(path))
    found = sorted({row["metric"] for row in rows})
    if found != [metric_name]:
        raise UserError(f"score table {path} holds scores of {', '.join(found) or 'nothing'}, but {metric_name} is wanted")
    values = {(row["set"], row["member"]): row["score"] for row in rows}
    missing = [s.name for s in sets if any((s.name, member) not in values for member in range(len(s.paths)))]
    if missing:
        first = ", ".join(missing[:5])
        raise UserError(f"score table {path} lacks {len(missing)} of {len(sets)} sets: {first}{', ...' if len(missing) > 5 else ''}")
    scores = np.full((len(sets), max((len(s.paths) for s in sets), default=0)), np.nan)
    for i, gt_set in enumerate(sets):
        for member, image in enumerate(gt_set.paths):
            scores[i, member] = _finite(values[gt_set.name, member], metric_name, image)
    return scores


def score_files(
    inputs: Sequence[Path], metric_names: Sequence[str], device: str | torch.device = "cpu"
) -> Iterator[tuple[Path, list[float]]]:
    """Native values of images, one after the other: (path, one value per metric). Folders stand for the images in them.

    Raises UserError for full-reference metrics, missing weights and unreadable images.
    """
    metrics = [create_metric(name, device) for name in metric_names]
    for metric in metrics:
        if metric.mode != "NR":
            raise UserError(f"{metric.name} needs a reference; `sr-iqa test` evaluates against GTs")
    paths = [path for entry in inputs for path in (list_images(entry) if Path(entry).is_dir() else [Path(entry)])]

    def score(_: Path, image: np.ndarray) -> list[float]:
        x = to_tensor(image)[None].to(device)
        return [metric(x).item() for metric in metrics]

    yield from zip(paths, judged(read_image_lenient, score, paths, apart(metrics)), strict=True)


def _score_share(reader: Reader, metric: Metric, indices: Sequence[int], parts: Path, batch_px: int) -> None:
    def read(i: int) -> list[np.ndarray]:
        return [reader.image(i, member) for member in range(len(reader.sets[i].paths))]

    rows: list[Row] = []
    saved = time.monotonic()
    scores = judged(read, lambda _, images: _native_scores(metric, images, batch_px), indices, apart([metric]))
    try:
        for i, native in zip(indices, scores, strict=True):
            rows += _rows_of(reader.sets[i], metric, native)
            if time.monotonic() - saved > SAVE_EVERY_S:
                _save_part(parts, rows)
                rows, saved = [], time.monotonic()
    finally:  # an interrupted run keeps what it has
        _save_part(parts, rows)


def _native_scores(metric: Metric, images: Sequence[np.ndarray], batch_px: int) -> list[float]:
    """Of the GTs of one set, images of one size."""
    step = max(1, batch_px // (images[0].shape[0] * images[0].shape[1]))
    batches = [np.stack(images[first : first + step]) for first in range(0, len(images), step)]
    signed = metric.verdict(torch.cat([metric.opinions(to_tensor(batch).to(metric.device)) for batch in batches]))
    return (-signed if metric.lower_better else signed).tolist()


def _rows_of(gt_set: GTSet, metric: Metric, native: Sequence[float]) -> list[Row]:
    sign = -1.0 if metric.lower_better else 1.0
    values = [_finite(value, metric.name, image) for value, image in zip(native, gt_set.paths, strict=True)]
    facts = (metric.name, metric.identity)
    return [dict(zip(COLUMNS, (gt_set.name, i, sign * value, value, *facts), strict=True)) for i, value in enumerate(values)]


def _finite(value: float, metric_name: str | None, image: Path) -> float:
    if not np.isfinite(value):
        raise UserError(f"{metric_name} gives {value} for {image}; look at the image, or use another metric")
    return value


def _save_part(parts: Path, rows: list[Row]) -> None:
    if rows:
        _write(parts / f"{uuid4().hex}.parquet", rows)


def _write(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with atomic_write(path) as file:
        parquet.write_table(pa.Table.from_pylist(rows), file)


def _read(path: Path) -> list[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = (pa.string(), pa.int64(), pa.float64(), pa.float64(), pa.string(), pa.string())
    try:
        with parquet.ParquetFile(path, read_dictionary=["set", "metric", "identity"]) as file:
            if file.metadata.num_rows > path.stat().st_size:  # no two scores are alike: a row takes some bytes
                raise ValueError(f"{file.metadata.num_rows} rows")
            table = file.read(list(COLUMNS))
        words = [chunk.dictionary for column in table.columns for chunk in column.chunks if isinstance(chunk, pa.DictionaryArray)]
        if any(len(word or "") > LONGEST for chunk in words for word in chunk.to_pylist()):  # each may stand in every row
            raise ValueError(f"a name of more than {LONGEST} letters")
        if any(column.null_count for column in table.columns):
            raise ValueError("a value is missing")
        return table.cast(pa.schema(zip(COLUMNS, kinds, strict=True))).to_pylist()
    except (OSError, ValueError, LookupError, MemoryError, NotImplementedError) as error:  # pyarrow's own errors are among these
        words = str(error).partition("\n")[0][:200]
        raise UserError(f"{path} is no score table, or a damaged one ({words}); delete it and run `sr-iqa data score` again") from error


def _rows(path: Path, parts: Path) -> list[Row]:
    """The rows of the table and its part files, each image once."""
    files = ([path] if path.is_file() else []) + sorted(parts.glob("[0-9a-f]*.parquet"))
    rows = {(row["set"], row["member"]): row for file in files for row in _read(file)}
    return list(rows.values())


def _done(rows: list[Row], metric: Metric, path: Path) -> Counter[str]:
    """Set -> number of scored GTs. Raises UserError where they are not this metric's."""
    others = sorted({row["identity"] for row in rows} - {metric.identity})
    if others:
        raise UserError(
            f"{path} or its parts hold scores of {', '.join(others)}, not of {metric.identity}; delete them, or choose another name"
        )
    return Counter(row["set"] for row in rows)


def _join(path: Path, parts: Path, sets: Sequence[GTSet]) -> None:
    """One table, sorted; images that are no longer in the data are dropped."""
    sizes = {gt_set.name: len(gt_set.paths) for gt_set in sets}
    rows = [row for row in _rows(path, parts) if row["member"] < sizes.get(row["set"], 0)]
    _write(path, sorted(rows, key=lambda row: (row["set"], row["member"])))
    shutil.rmtree(parts, ignore_errors=True)

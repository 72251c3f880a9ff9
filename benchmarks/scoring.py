"""Scoring the GTs of a data set: `sr-iqa data score` against pyiqa's own loop over files, by the clock, the same threads on both sides.

python -m benchmarks.scoring [--images FOLDER] [--threads N]
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import torch

from sr_iqa.archs.basicsr_bridge import import_basicsr
from sr_iqa.data.packing import pack
from sr_iqa.data.store import FolderReader, Reader, StoreReader
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.iqa.scores import score_sets

from . import sets
from .report import publish, ratio
from .timing import race

import_basicsr()
import pyiqa  # noqa: E402 (after the import is mended)

SETS, METRIC = 4, "musiq"


def theirs(metric: torch.nn.Module, folder: Path) -> list[float]:
    """As pyiqa's command does: file by file."""
    return [metric(str(path)).item() for path in sorted((folder / "images").rglob("*.png"))]


def ours(metric: Metric, reader: Reader, folder: Path) -> None:
    """Into a new table."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        score_sets(reader, metric, Path(temporary) / "scores.parquet")


def main() -> None:
    parser = sets.command_line(__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as temporary:
        folder, store = sets.make_sets(Path(temporary) / "sets", SETS, arguments.images), Path(temporary) / "sets.lmdb"
        pack(sets.roots(folder), store)
        metric = create_metric(METRIC, device, random_weights=True)
        packed = StoreReader(store)
        readers = {"folder": FolderReader(packed.sets), "store": packed}
        work = {"pyiqa": partial(theirs, pyiqa.create_metric(METRIC, device=device, pretrained=False), folder)}
        work |= {name: partial(ours, metric, reader, folder) for name, reader in readers.items()}
        found = {name: timing.wall_seconds / (5 * SETS) for name, timing in race(work, arguments.rounds // 2, 1).items()}
    least = 5 if device == "cuda" else 1.5
    rows = [ratio(f"{METRIC}, an image of a {name}", "pyiqa's loop over PNG files", found["pyiqa"], found[name], least) for name in readers]
    publish("scoring", rows, f"Scoring {SETS} sets of five 512x512 GTs, by the clock, {arguments.threads} threads on both sides.")


if __name__ == "__main__":
    main()

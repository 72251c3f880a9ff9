"""How costs grow: samples per second with workers, step time with batch and crop, memory with the crop, scoring time with images.

python -m benchmarks.growth [--images FOLDER]: a table, and a plot docs/growth_cpu.png (or _cuda). SwinIR light on a CPU, medium on a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from sr_iqa.data.store import StoreReader
from sr_iqa.data.stream import train_loader
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.scores import score_sets
from sr_iqa.training.logs import peak_memory_gib

from . import runs, sets
from .networks import LIGHT, MEDIUM
from .report import Row, publish
from .timing import race

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
NETWORK = MEDIUM if GPU else LIGHT
SETS = 16
WORKERS = [workers for workers in (1, 2, 4, 8, 16) if workers <= (os.cpu_count() or 1)]
BATCHES = (1, 2, 4, 8, 16) if GPU else (1, 2, 4, 8)
CROPS = (64, 128, 192, 256)
IMAGES = (10, 20, 40, 80)
PLOT = Path(__file__).parent.parent / "docs" / f"growth_{DEVICE}.png"

Curve = dict[int, float]


def samples_per_second(folder: Path, workers: int) -> float:
    """Of the loader alone, batch 8, GT crop 256, amo: its five crops are the most that a sample can be."""
    data = {"batch_size_per_gpu": 8, "sampling": {"strategy": "amo", "metric": "nano"}}
    batches = train_loader(runs.Training(runs.options(folder, NETWORK, **data)).run.stream, 8, workers=workers)
    for _ in range(2 * workers + 2):
        next(batches)
    begun, count = time.perf_counter(), 40
    for _ in range(count):
        next(batches)
    return 8 * count / (time.perf_counter() - begun)


def step(folder: Path, batch: int, crop: int) -> Callable[[], None]:
    return runs.Training(runs.options(folder, NETWORK, batch_size_per_gpu=batch, gt_size=crop, sampling={"strategy": "uniform_all"})).step


def seconds_of_steps(folder: Path, sizes: Iterable[tuple[int, int]]) -> list[float]:
    """Of training steps of (batch, crop), taken in turns."""
    steps = {f"{size}": step(folder, *size) for size in sizes}
    return [timing.wall_seconds for timing in race(steps, 3, 1).values()]


def memory(folder: Path, crop: int) -> float:
    """GiB that two training steps of batch 2 take, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.growth", "--memory-of", str(crop), "--folder", str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def scoring(folder: Path, images: int) -> float:
    """Seconds for a table of nano's scores."""
    reader, metric = StoreReader(folder / "sets.lmdb"), create_metric("nano", DEVICE)
    reader.sets = reader.sets[: images // 5]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        score_sets(reader, metric, Path(temporary) / "scores.parquet")
    return time.perf_counter() - begun


def draw(curves: dict[str, tuple[str, str, Curve]], path: Path) -> None:
    """Title -> (x, y, curve), side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(3.1 * len(curves), 2.9), layout="constrained")
    for axis, (title, (x, y, curve)) in zip(axes, curves.items(), strict=True):
        axis.plot(list(curve), list(curve.values()), "o-", color="#2b6cb0")
        axis.set(title=title, xlabel=x, ylabel=y, ylim=(0, None), xticks=list(curve))
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def measured(folder: Path) -> dict[str, tuple[str, str, Curve]]:
    """All curves."""
    by_batch = seconds_of_steps(folder, [(batch, 128) for batch in BATCHES])
    by_crop = seconds_of_steps(folder, [(2, crop) for crop in CROPS])
    return {
        "loader alone": ("workers", "samples/s", {workers: samples_per_second(folder, workers) for workers in WORKERS}),
        "step over batch (crop 128)": ("batch", "s", dict(zip(BATCHES, by_batch, strict=True))),
        "step over crop (batch 2)": ("GT crop, px", "s", dict(zip(CROPS, by_crop, strict=True))),
        "memory over crop (batch 2)": ("GT crop, px", "GiB", {crop: memory(folder, crop) for crop in CROPS}),
        "scoring with nano": ("images of 512 px", "s", {images: scoring(folder, images) for images in IMAGES}),
    }


def main() -> None:
    parser = sets.command_line(__doc__)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        work = step(arguments.folder, 2, arguments.memory_of)
        work(), work()
        print(peak_memory_gib())
        return
    with tempfile.TemporaryDirectory() as temporary:
        curves = measured(runs.make_store(Path(temporary) / "sets", SETS, arguments.images))
    draw(curves, PLOT)
    rows = [
        Row(title, "", ", ".join(f"{x_value}: {value:.3g} {y}" for x_value, value in curve.items()), note=f"over {x}")
        for title, (x, y, curve) in curves.items()
    ]
    network = "medium" if GPU else "light"
    publish("growth", rows, f"SwinIR {network}, L1, HGGT's degradation, packed store, {os.cpu_count()} cores; plot: docs/{PLOT.name}.")


if __name__ == "__main__":
    main()

"""Memory of packing, scoring and training at two sizes of the data set: it must not grow with it.

What counts is memory that the system cannot take back (RssAnon): the pages of a mapped store can be dropped at any time.

python -m benchmarks.memory
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from . import runs
from .report import Row, publish

SIZES = (40, 200)
MOST = 1.15
STORE = ["--set", "datasets.train.dataroot_gt=sets.lmdb"]
COMMANDS = {
    "packing": ["data", "pack", "-opt", "run.yml", "-o", "made.lmdb"],
    "scoring a folder": ["data", "score", "-opt", "run.yml", "--metric", "nano", "-o", "folder.parquet"],
    "scoring a store": ["data", "score", "-opt", "run.yml", *STORE, "--metric", "nano", "-o", "store.parquet"],
    "training on a store": ["train", "-opt", "run.yml", *STORE],
}


def peak_gib(command: list[str], folder: Path) -> float:
    """Most anonymous memory of the command's process, looked at every 20 ms."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sr_iqa", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    most = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        most = max([most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
        time.sleep(0.02)
    if process.wait():
        raise SystemExit(f"{command} failed")
    return most / 2**20


def measure(temporary: Path, count: int) -> dict[str, float]:
    """Command -> GiB on `count` sets of five images of 512x512."""
    folder = runs.make_store(temporary / str(count), count, None)
    data = {"dataroot_gt": folder / "images", "num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "gt_size": 64}
    network = {"type": "SwinIR", **runs.LIGHT, "depths": [2], "num_heads": [2], "embed_dim": 16}
    options = runs.options(folder, network, {"total_iter": 150}, **data, sampling={"strategy": "uniform_all"})
    (folder / "run.yml").write_text(yaml.safe_dump(options.model_dump(mode="json", exclude_unset=True)))
    return {name: peak_gib(command, folder) for name, command in COMMANDS.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        small, large = (measure(Path(temporary), count) for count in SIZES)
    rows = []
    for name in COMMANDS:
        growth = large[name] / small[name]
        note = f"{small[name]:.2f} GiB -> {large[name]:.2f} GiB"
        rows.append(Row(name, f"{SIZES[0]} sets", f"{growth:.2f}x", f"<= {MOST}x", growth <= MOST, note))
    publish("memory", rows, f"Most anonymous memory of a process on {SIZES[1]} sets of five 512x512 GTs, against {SIZES[0]} sets.")


if __name__ == "__main__":
    main()

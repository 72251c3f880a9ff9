"""From the command to the first training step, and where that time goes; `sr-iqa --help`. By the clock, warm disk, median of several.

python -m benchmarks.start
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from . import runs
from .report import Row, publish

TINY = {
    "embed_dim": 32,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "mlp_ratio": 2,
    "window_size": 8,
    "upscale": 4,
    "upsampler": "pixelshuffledirect",
}
STAGES = """
import json, sys, time
begun = time.perf_counter()
marks = {}
def mark(name):
    marks[name] = time.perf_counter()
import torch; mark("importing torch")
from sr_iqa.check import check
from sr_iqa.config import load
loaded = load(sys.argv[1], ())
check(loaded); mark("reading and checking options")
from sr_iqa.training.frame import make_accelerator
from sr_iqa.training.trainer import Meter, _samples, run_folder, train_step, build, rehearse
mark("importing the rest")
options = loaded.options
accelerator = make_accelerator(options, run_folder(options)); mark("Accelerate")
run = build(options, accelerator); mark("building networks, optimizer and stream")
rehearse(run); mark("rehearsal")
batch = next(_samples(run)); mark("first batch")
train_step(run, [batch], Meter(accelerator.device, run.members)); mark("first step")
last = begun
for name, when in marks.items():
    marks[name], last = when - last, when
print(json.dumps(marks))
"""
"""What `sr-iqa train` does up to the end of the first step, with the time after every stage."""


def clock(command: list[str]) -> tuple[float, str]:
    """Wall seconds and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - begun, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = runs.make_store(Path(temporary) / "sets", 4, None), Path(temporary) / "start.yml"
        data = {"gt_size": 128, "sampling": {"strategy": "uniform_all"}, "num_worker_per_gpu": 2}
        chosen = runs.options(folder, {"type": "SwinIR", **TINY}, top={"logger": {"print_freq": 1, "use_tb_logger": False}}, **data)
        file.write_text(yaml.safe_dump(chosen.model_dump(mode="json", exclude_unset=True)))
        whole = [sys.executable, "-m", "sr_iqa", "train", "-opt", str(file), "--fresh"]
        commands = {"help": [sys.executable, "-m", "sr_iqa", "--help"], "train": whole, "stages": [sys.executable, "-c", STAGES, str(file)]}
        found: dict[str, list[tuple[float, str]]] = {name: [] for name in commands}
        for _ in range(rounds + 1):
            for name, command in commands.items():
                found[name].append(clock(command))
    seconds = {name: statistics.median(wall for wall, _ in results[1:]) for name, results in found.items()}
    stages = [json.loads(text) for _, text in found["stages"][1:]]
    parts = {name: statistics.median(stage[name] for stage in stages) for name in stages[0]}
    rows = [
        Row("sr-iqa --help", "", f"{seconds['help']:.2f} s", "<= 0.5 s", seconds["help"] <= 0.5),
        Row("command to first step", "", f"{seconds['stages']:.1f} s", "<= 12 s", seconds["stages"] <= 12),
        *(Row(f"- {name}", "", f"{part:.2f} s") for name, part in parts.items()),
        Row("a whole run of one step", "", f"{seconds['train']:.1f} s", note="with logs, checkpoints and the end of the process"),
    ]
    publish("start", rows, "From the command to the first step of a run of the demo's size (SwinIR of 79k parameters, batch 8, 2 workers).")


if __name__ == "__main__":
    main()

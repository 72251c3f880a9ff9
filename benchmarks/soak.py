"""Kills real processes at random instants and starts them again with the same command until they are done: the end must be the same.

python -m benchmarks.soak [--kills 60] [--seed N] [--only NAME]

Jobs: training runs of four kinds (GAN, EMA, amo, reward, LoRA, accumulation, loader workers, validation; a checkpoint at every step),
packing, scoring and a study. A killed life is ended by SIGKILL to the whole process group. What is compared with an undisturbed process on
the same machine: the training state (weights, EMA, optimizers) to the bit, weight files, metrics.jsonl but for the machine's speed, the
store's pixels, the score table, the study's values. Nothing may be logged twice, and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from sr_iqa.data.store import StoreReader, forget
from sr_iqa.training.logs import SPEED

from . import sets
from .report import Row, publish

STEPS = 24
SIDE = 48
SWINIR = {"type": "SwinIR", "upscale": 2, "img_size": 16, "window_size": 8, "depths": [1], "embed_dim": 8, "num_heads": [2], "mlp_ratio": 2}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
ADAM = {"type": "Adam", "lr": 1e-3}
GAN = {"gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}, "optim_d": ADAM}
REWARD = {"reward_opt": {"metric": "nano", "weight": 0.02, "warmup_iter": 4}}
AMO = {"strategy": "amo", "metric": "nano"}
DISCRIMINATOR = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}

TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    "plain, workers": {"network": SWINIR | {"drop_path_rate": 0.5}, "data": {"num_worker_per_gpu": 2}, "train": {"grad_clip": 0.1}},
    "GAN, EMA, accumulation": {"network": RRDB, "train": {**GAN, "ema_decay": 0.9, "accum_iter": 2}, "top": {"network_d": DISCRIMINATOR}},
    "GAN, amo on a grid": {"network": SWINIR, "data": {"sampling": {**AMO, "grid": 4}}, "train": GAN, "top": {"network_d": DISCRIMINATOR}},
    "LoRA, reward, EMA, amo": {
        "network": SWINIR,
        "data": {"sampling": AMO},
        "train": {**REWARD, "ema_decay": 0.9},
        "top": {"lora": {"rank": 2, "dropout": 0.3}},
    },
}


@dataclass(frozen=True)
class Job:
    """A command that may be given again and again, and what it leaves behind when it is done."""

    name: str
    command: Callable[[Path], list[str]]
    """Of everything that the command needs or writes, which lies in this folder."""
    outcome: Callable[[Path], Any]


def training(name: str, parts: dict[str, dict[str, Any]]) -> Job:
    def command(folder: Path) -> list[str]:
        write(folder / "run.yml", run_options(folder, **parts))
        return ["train", "-opt", "run.yml"]

    def outcome(folder: Path) -> Any:
        run = folder / "runs" / "soak"
        leftovers = [path.name for path in run.rglob(".tmp-*")]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        logged = [line["step"] for line in lines if "val" not in line]
        if leftovers or len(set(logged)) != len(logged):
            raise AssertionError(f"{name}: left behind {leftovers}; logged {logged}")
        state = torch.load(run / "training_states" / f"{STEPS}.pt", weights_only=True)
        models = {path.relative_to(run).as_posix(): load_file(path) for path in sorted(run.rglob("*.safetensors"))}
        return state, models, [{key: value for key, value in line.items() if key not in SPEED} for line in lines]

    return Job(f"training: {name}", command, outcome)


def run_options(folder: Path, network: dict[str, Any], data: Any = None, train: Any = None, top: Any = None) -> dict[str, Any]:
    """A run of STEPS steps on folder/sets, with everything saved at every step. Paths are relative: the folder may be anywhere."""
    roots = {"type": "multi_gt", "dataroot_gt": "sets/images", "dataroot_labels": "sets/labels", "degradation": {"preset": "bicubic"}}
    image_size = {"upsampler": "pixelshuffledirect"} if network["type"] == "SwinIR" else {}
    return {
        "name": "soak",
        "scale": 2,
        "datasets": {"train": {**roots, "gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, **(data or {})}, "val": roots},
        "network_g": {**network, **image_size},
        "path": {"experiments_root": "runs"},
        "train": {"total_iter": STEPS, "optim_g": ADAM, "pixel_opt": {"type": "L1Loss"}, **(train or {})},
        "val": {"metrics": ["psnr"], "val_freq": 6},
        "logger": {"print_freq": 3, "save_checkpoint_freq": 1, "use_tb_logger": False},
        **(top or {}),
    }


def packing() -> Job:
    def command(folder: Path) -> list[str]:
        write(folder / "run.yml", run_options(folder, SWINIR))
        return ["data", "pack", "-opt", "run.yml", "-o", "sets.lmdb"]

    def outcome(folder: Path) -> Any:
        store = StoreReader(folder / "sets.lmdb")
        found = [{**record, "paths": None, "problems": list(store.problems())} for record in store.records]
        forget(store.path)
        if (folder / "sets.lmdb.partial").exists():
            raise AssertionError("the partial store is still there")
        return found

    return Job("packing", command, outcome)


def scoring() -> Job:
    def command(folder: Path) -> list[str]:
        write(folder / "run.yml", run_options(folder, SWINIR))
        return ["data", "score", "-opt", "run.yml", "--metric", "nano", "-o", "scores.parquet"]

    def outcome(folder: Path) -> Any:
        from pyarrow import parquet

        if (folder / "scores.parquet.parts").exists():
            raise AssertionError("part files are still there")
        return parquet.read_table(folder / "scores.parquet").to_pylist()

    return Job("scoring", command, outcome)


def study() -> Job:
    def command(folder: Path) -> list[str]:
        base = run_options(folder, SWINIR)
        base["train"]["total_iter"] = 6
        write(folder / "base.yml", base)
        variants = {"original": {}, "amo": {"datasets.train.sampling": AMO}}
        content = {
            "name": "study",
            "base": "base.yml",
            "experiments_root": "studies",
            "optimised_metric": "nano",
            "metrics": ["psnr", "nano"],
        }
        write(folder / "study.yml", {**content, "variants": variants})
        return ["compare", "-opt", "study.yml"]

    def outcome(folder: Path) -> Any:
        results = json.loads((folder / "studies" / "study" / "results.json").read_text())
        return {
            name: {key: variant[key] for key in ("metrics", "chosen") if key in variant} for name, variant in results["variants"].items()
        }

    return Job("study", command, outcome)


def write(path: Path, content: dict[str, Any]) -> None:
    if not path.exists():
        path.write_text(yaml.safe_dump(content, sort_keys=False))


def start(job: Job, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sr_iqa", *job.command(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, start_new_session=True, **pipes)


def finish(job: Job, folder: Path) -> float:
    """Lets it run to its end; returns the seconds."""
    begun = time.perf_counter()
    process = start(job, folder)
    output, _ = process.communicate(timeout=600)
    if process.returncode:
        raise AssertionError(f"{job.name}: exit code {process.returncode}\n{output}")
    return time.perf_counter() - begun


def disturbed(job: Job, folder: Path, seconds: float, kills: int, draw: random.Random) -> int:
    """Starts it and kills it, up to `kills` times or until it ends by itself; then lets it end. Returns how often it was killed."""
    for killed in range(kills):
        process = start(job, folder)
        try:
            output, _ = process.communicate(timeout=seconds * draw.uniform(0.3, 0.95))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            continue
        if process.returncode:
            raise AssertionError(f"{job.name}: exit code {process.returncode}\n{output}") from None
        return killed
    finish(job, folder)
    return kills


def differences(one: Any, two: Any, where: str = "") -> list[str]:
    """The places where nested structures of tensors and values are not equal to the bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        return [found for key in {**one, **two} for found in differences(one.get(key), two.get(key), f"{where}.{key}")]
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
        return [found for i, pair in enumerate(zip(one, two, strict=True)) for found in differences(*pair, f"{where}.{i}")]
    same = torch.equal(one, two) if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) else one == two
    return [] if same else [where]


def soak(job: Job, source: Path, folder: Path, kills: int, draw: random.Random) -> tuple[int, int]:
    """(kills, ends): how often the job was killed, and how many disturbed jobs came to their end, all equal to the undisturbed one."""
    calm = folder / "calm"
    shutil.copytree(source, calm / "sets")
    seconds = finish(job, calm)
    expected = job.outcome(calm)
    killed = ends = 0
    while killed < kills:
        rough = folder / f"rough{ends}"
        shutil.copytree(source, rough / "sets")
        killed += disturbed(job, rough, seconds, kills - killed, draw)
        if found := differences(expected, job.outcome(rough)):
            raise AssertionError(f"{job.name} after kills: {len(found)} differences: {found[:5]}; seed and folder: {draw}, {rough}")
        shutil.rmtree(rough)
        ends += 1
    return killed, ends


def jobs() -> list[Job]:
    return [*(training(name, parts) for name, parts in TRAINING.items()), packing(), scoring(), study()]


def make_source(folder: Path, count: int) -> Path:
    """Small sets for the training runs and the study; the large ones of packing and scoring take longer to read than a process to start."""
    sets.SIDE = SIDE
    return sets.make_sets(folder, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="jobs whose names contain this; nothing is written then")
    arguments = parser.parse_args()
    chosen = [job for job in jobs() if arguments.only in job.name]
    draw, rows, total = random.Random(arguments.seed), [], 0
    with tempfile.TemporaryDirectory() as temporary:
        small = make_source(Path(temporary) / "small", 4)
        large = make_source(Path(temporary) / "large", 400)
        for k, job in enumerate(chosen):
            share = arguments.kills * (k + 1) // len(chosen) - arguments.kills * k // len(chosen)
            source = large if job.name in ("packing", "scoring") else small
            killed, ends = soak(job, source, Path(temporary) / f"job{k}", share, draw)
            total += killed
            rows.append(Row(job.name, "an undisturbed one", f"{killed} kills", note=f"{ends} ends, all equal to the bit"))
            print(rows[-1], flush=True)
    if not arguments.only:
        rows.append(Row("all", "", f"{total} kills", ">= 60", total >= 60))
        publish("soak", rows, f"Processes killed by SIGKILL at random instants and started again; seed {arguments.seed}.")


if __name__ == "__main__":
    main()

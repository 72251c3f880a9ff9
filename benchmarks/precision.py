"""What mixed precision costs in quality: PSNR on held-out photos after the same steps in float32 and in bf16, beside the spread over seeds.

python -m benchmarks.precision [--images FOLDER] [--steps N]: the demo's network from scratch on the demo's sets, L1.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

from sr_iqa.config.models import Options
from sr_iqa.data.demo import make_demo_sets
from sr_iqa.data.packing import pack
from sr_iqa.training.trainer import train

from . import sets
from .report import Row, publish
from .start import TINY

SEEDS = (0, 1)
PRECISIONS = ("no", "bf16")


def psnr(folder: Path, precision: str, seed: int, steps: int) -> float:
    """On the held-out sets, after training."""
    degradation = {"preset": "bicubic"}
    data = {"type": "multi_gt", "degradation": degradation}
    training = {"gt_size": 64, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0, "sampling": {"strategy": "original"}}
    options = Options.model_validate(
        {
            "name": f"{precision}_{seed}",
            "scale": 4,
            "manual_seed": seed,
            "precision": precision,
            "datasets": {
                "train": {**data, **training, "dataroot_gt": folder / "train.lmdb"},
                "val": {**data, "dataroot_gt": folder / "heldout.lmdb"},
            },
            "network_g": {"type": "SwinIR", "img_size": 32, "resi_connection": "1conv", **TINY},
            "path": {"experiments_root": folder / "runs"},
            "train": {
                "total_iter": steps,
                "optim_g": {"type": "Adam", "lr": 1e-3},
                "scheduler": {"type": "CosineAnnealingLR"},
                "pixel_opt": {"type": "L1Loss"},
            },
            "val": {"val_freq": steps, "metrics": ["psnr"], "against": "original"},
            "logger": {"use_tb_logger": False, "print_freq": steps},
        }
    )
    run = train(options, quiet=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line["val"]["psnr"] for line in reversed(lines) if "val" in line)


def main() -> None:
    parser = sets.command_line(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        made = make_demo_sets(Path(temporary) / "sets", arguments.images)
        for part, folder in (("train", made.train), ("heldout", made.heldout)):
            pack(sets.roots(folder), Path(temporary) / f"{part}.lmdb")
        for precision in PRECISIONS:
            found[precision] = [psnr(Path(temporary), precision, seed, arguments.steps) for seed in SEEDS]
    rows = [
        Row(f"precision: {name}", "", f"{statistics.mean(values):.3f} dB", note=", ".join(f"{value:.3f}" for value in values))
        for name, values in found.items()
    ]
    change = statistics.mean(b - a for a, b in zip(found["no"], found["bf16"], strict=True))
    spread = statistics.stdev(found["no"])
    rows.append(
        Row("bf16", "float32, the same seeds", f"{change:+.3f} dB", note=f"the seeds' standard deviation in float32: {spread:.3f} dB")
    )
    about = "SwinIR of 79k parameters from scratch, L1, batch 4, GT 64, the demo's held-out photos"
    publish("precision", rows, f"PSNR after {arguments.steps} steps: {about}.")


if __name__ == "__main__":
    main()

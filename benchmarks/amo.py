"""What choosing by crops costs: a training step with uniform sampling, with amo scored in the step, and with amo's choices remembered.

python -m benchmarks.amo [--images FOLDER] [--metric nano]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from sr_iqa.config.models import Options
from sr_iqa.data.packing import pack
from sr_iqa.data.stream import train_loader
from sr_iqa.iqa.crop_scores import score_all_crops
from sr_iqa.training.build import build
from sr_iqa.training.folder import run_folder
from sr_iqa.training.meter import Meter
from sr_iqa.training.steps import train_step
from sr_iqa.training.trainer import make_accelerator

from . import sets
from .report import Row, publish
from .timing import Work, race

SETS = 6
LIGHT = {"embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffledirect"}


def options(folder: Path, store: Path, sampling: dict[str, object]) -> Options:
    """SwinIR light, L1, batch 2, GT crop 256, HGGT's degradation."""
    data = sets.options(folder, dataroot_gt=store, dataroot_labels=None, sampling=sampling, batch_size_per_gpu=2)
    swinir = {"type": "SwinIR", "upscale": 4, "img_size": 64, "window_size": 8, "mlp_ratio": 2, "resi_connection": "1conv", **LIGHT}
    return Options.model_validate(
        {
            "name": "amo",
            "scale": 4,
            "manual_seed": 0,
            "datasets": {"train": data.model_dump(mode="json")},
            "network_g": swinir,
            "path": {"experiments_root": str(folder / "runs")},
            "train": {"total_iter": 1, "optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"}},
            "logger": {"use_tb_logger": False},
        }
    )


def stepper(run_options: Options) -> Work:
    """One training step, samples included."""
    run = build(run_options, make_accelerator(run_options, run_folder(run_options)))
    meter, samples = Meter(run.accelerator.device, run.members), train_loader(run.stream, run.data.batch_size_per_gpu)
    return lambda: train_step(run, [next(samples)], meter)


def main() -> None:
    parser = sets.command_line(__doc__)
    parser.add_argument("--metric", default="nano")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, store = sets.make_sets(Path(temporary) / "sets", SETS, arguments.images), Path(temporary) / "sets.lmdb"
        pack(sets.roots(folder), store)
        amo = {"strategy": "amo", "metric": arguments.metric}
        remembered = options(folder, store, {**amo, "grid": 64})
        print(score_all_crops(remembered, "cuda" if torch.cuda.is_available() else "cpu"))
        samplings = {"uniform": {"strategy": "uniform_all"}, "scored": amo}
        work = {name: stepper(options(folder, store, sampling)) for name, sampling in samplings.items()}
        found = {name: t.seconds for name, t in race({**work, "remembered": stepper(remembered)}, arguments.rounds).items()}
    rows = []
    for name, most in (("scored", None), ("remembered", 1.05)):
        times = found[name] / found["uniform"]
        note = f"{found[name]:.3f} s against {found['uniform']:.3f} s"
        rows.append(Row(f"amo {name}", "uniform", f"{times:.2f}x", f"<= {most}x" if most else "", times <= most if most else None, note))
    publish("amo", rows, f"One training step (SwinIR light, L1, batch 2, GT crop 256, HGGT's degradation), Q is {arguments.metric}.")


if __name__ == "__main__":
    main()

"""What choosing by crops costs: a training step with uniform sampling, with amo scored in the step, and with amo's choices remembered.

python -m benchmarks.amo [--images FOLDER] [--metric nano]. On a GPU SwinIR medium with MUSIQ (random weights), batch 8.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from sr_iqa.iqa.crop_scores import score_all_crops

from . import runs, sets
from .networks import LIGHT, MEDIUM
from .report import Row, publish
from .timing import race

SETS = 6
GPU = torch.cuda.is_available()
NETWORK, BATCH, METRIC = (MEDIUM, 8, "musiq") if GPU else (LIGHT, 2, "nano")


def main() -> None:
    parser = sets.command_line(__doc__)
    parser.add_argument("--metric", default=METRIC)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, runs.random_weights(Path(temporary), *{arguments.metric} - {"nano"}):
        folder = runs.make_store(Path(temporary) / "sets", SETS, arguments.images)
        amo = {"strategy": "amo", "metric": arguments.metric}
        samplings = {"uniform": {"strategy": "uniform_all"}, "scored": amo, "remembered": {**amo, "grid": 64}}
        chosen = {name: runs.options(folder, NETWORK, sampling=sampling, batch_size_per_gpu=BATCH) for name, sampling in samplings.items()}
        print(score_all_crops(chosen["remembered"], "cuda" if GPU else "cpu"))
        work = {name: runs.Training(run_options).step for name, run_options in chosen.items()}
        found = {name: timing.seconds for name, timing in race(work, arguments.rounds).items()}
    rows = []
    for name, most in (("scored", 1.2 if GPU else None), ("remembered", 1.05)):
        times = found[name] / found["uniform"]
        note = f"{found[name]:.3f} s against {found['uniform']:.3f} s"
        rows.append(Row(f"amo {name}", "uniform", f"{times:.2f}x", f"<= {most}x" if most else "", times <= most if most else None, note))
    network = "medium" if GPU else "light"
    publish(
        "amo", rows, f"One training step (SwinIR {network}, L1, batch {BATCH}, GT crop 256, HGGT's degradation), Q is {arguments.metric}."
    )


if __name__ == "__main__":
    main()

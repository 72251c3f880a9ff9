"""The share of a training step that is spent waiting for samples.

python -m benchmarks.waiting [--images FOLDER] [--workers N]. SwinIR light, batch 2, 2 workers; on a GPU medium, batch 8, 8 workers.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from . import runs, sets
from .networks import LIGHT, MEDIUM
from .report import Row, publish

SETS, WARMUP = 16, 3
GPU = torch.cuda.is_available()
NETWORK, BATCH, WORKERS, STEPS = (MEDIUM, 8, 8, 100) if GPU else (LIGHT, 2, 2, 12)
MOST = 0.02


def main() -> None:
    parser = sets.command_line(__doc__)
    parser.add_argument("--workers", type=int, default=WORKERS)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = runs.make_store(Path(temporary) / "sets", SETS, arguments.images)
        for strategy in ("uniform_positive", "amo"):
            sampling = {"strategy": strategy, "metric": "nano" if strategy == "amo" else None}
            data = {"sampling": sampling, "batch_size_per_gpu": BATCH, "num_worker_per_gpu": arguments.workers}
            training = runs.Training(runs.options(folder, NETWORK, **data))
            for _ in range(WARMUP):
                training.step()
            training.data_share()
            begun = time.perf_counter()
            for _ in range(STEPS):
                training.step()
            if GPU:
                torch.cuda.synchronize()
            seconds = (time.perf_counter() - begun) / STEPS
            share = training.data_share()
            rows.append(Row(f"waiting, {strategy}", "the step", f"{share:.2%}", "<= 2%", share <= MOST, f"a step takes {seconds:.3g} s"))
    network = "medium" if GPU else "light"
    about = (
        f"Waiting for samples as a share of {STEPS} training steps: SwinIR {network}, L1, batch {BATCH}, GT crop 256, HGGT's degradation"
    )
    publish("waiting", rows, f"{about}, {arguments.workers} workers, packed store; Q of amo is nano.")


if __name__ == "__main__":
    main()

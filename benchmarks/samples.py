"""Training samples per core: ours (packed store, crop and its margin, degradation in the worker) against HGGT's way (hggt.py).

python -m benchmarks.samples [--images FOLDER]
"""

from __future__ import annotations

import random
import tempfile
from itertools import count
from pathlib import Path

import numpy as np

from sr_iqa.config.models import SamplingOptions
from sr_iqa.data.packing import pack
from sr_iqa.data.store import open_reader
from sr_iqa.data.stream import TrainStream
from sr_iqa.sampling import build_strategy

from . import hggt, sets
from .report import Row, publish, ratio
from .timing import on_one_core, race, repeated

SETS, TIMES = 16, 8
REFERENCE_MS = {"item": 45.3, "degradation": 112.5}
"""What HGGT's own code took on a like machine."""


def stream(folder: Path, store: Path, strategy: str) -> TrainStream:
    """Samples of the packed sets."""
    sampling = SamplingOptions(strategy=strategy, metric="nano" if strategy in ("sma", "smp", "amo") else None)
    if strategy in ("sma", "smp"):
        sampling = sampling.model_copy(update={"temperature": 1.0})
    data = sets.options(folder, sampling=sampling, dataroot_gt=store, dataroot_labels=None)
    reader = open_reader(data)
    scores = np.random.default_rng(0).normal(50, 5, (len(reader.sets), 5)) if strategy in ("sma", "smp") else None
    return TrainStream(reader, data, 4, 0, build_strategy(sampling), scores)


def main() -> None:
    arguments = sets.command_line(__doc__).parse_args()
    on_one_core()
    random.seed(0)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = sets.make_sets(Path(temporary) / "sets", SETS, arguments.images)
        store = Path(temporary) / "sets.lmdb"
        pack(sets.roots(folder), store)
        dataset, numbers = hggt.HGGTDataset(folder), count()
        as_shipped, without_grad = hggt.HGGTFeed(grad=True), hggt.HGGTFeed(grad=False)
        batch = hggt.collate([dataset.item(i) for i in range(2)])
        ours = {name: stream(folder, store, name) for name in ("uniform_positive", "sma", "smp", "amo")}
        work = {
            "item": repeated(lambda: dataset.item(next(numbers)), TIMES),
            "degradation": repeated(lambda: as_shipped.degrade(batch), TIMES // 2),  # two images at a time
            "degradation, no_grad": repeated(lambda: without_grad.degrade(batch), TIMES // 2),
            **{name: repeated(lambda samples=samples: samples[next(numbers)], TIMES) for name, samples in ours.items()},
        }
        found = {name: timing.seconds / TIMES for name, timing in race(work, arguments.rounds).items()}
    whole = found["item"] + found["degradation"]
    rows = [
        Row(f"HGGT's {part}", "its own code", f"{1e3 * found[part]:.1f} ms", f"{reference} ms +- 30 %", _near(found[part], reference))
        for part, reference in REFERENCE_MS.items()
    ]
    rows += [ratio(f"sample, {name}", "HGGT's item + degradation", whole, found[name], 20 if name == "amo" else 25) for name in ours]
    kinder = found["item"] + found["degradation, no_grad"]
    rows += [ratio(f"sample, {name}", "the same without autograd in the degradation", kinder, found[name]) for name in ("smp", "amo")]
    publish("samples", rows, "One training sample on one core: GT crop 256 of 512x512 images, LQ by HGGT's degradation.")


def _near(seconds: float, reference_ms: float) -> bool:
    return abs(1e3 * seconds / reference_ms - 1) <= 0.3


if __name__ == "__main__":
    main()

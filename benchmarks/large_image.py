"""Memory of `sr-iqa infer` on a very large image: it must not grow with the image's height, the image itself aside.

A small network (SRVGGNetCompact, 8 channels, x4) and tiles of 256 pixels, on the CPU. What counts is RssAnon, as in memory.py.

python -m benchmarks.large_image
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage import data

from sr_iqa.archs import build_network
from sr_iqa.checkpoints import save_weights
from sr_iqa.inference.pictures import Picture, write_bands

from .memory import peak_gib
from .report import Row, publish

WIDTH, HEIGHTS = 10_000, (2_500, 10_000)
SCALE = 4
MOST = 0.1
"""GiB that the larger image may take beyond its own pixels."""
NETWORK = {"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 2, "upscale": SCALE}


def bands(height: int) -> Iterator[Picture]:
    """Rows of a photo that repeats, with noise, so that it is as hard to pack as a photo."""
    photo, noise = data.astronaut(), np.random.default_rng(0)
    for top in range(0, height, len(photo)):
        rows = np.tile(photo, (1, -(-WIDTH // photo.shape[1]), 1))[: height - top, :WIDTH].astype(np.int16)
        yield Picture(np.clip(rows + noise.integers(-3, 4, rows.shape, np.int16), 0, 255).astype(np.uint8))


def measure(folder: Path, height: int) -> tuple[float, float]:
    """(GiB, seconds) of the command on an image of this height."""
    write_bands(folder / f"{height}.png", (height, WIDTH), bands(height))
    begun = time.perf_counter()
    gib = peak_gib(["infer", "-m", "net.safetensors", "-i", f"{height}.png", "-o", "out", "--tile", "256"], folder)
    seconds = time.perf_counter() - begun
    (folder / "out" / f"{height}.png").unlink()
    return gib, seconds


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_weights(folder / "net.safetensors", build_network(NETWORK).state_dict(), {"network_g": json.dumps(NETWORK)})
        (small, _), (large, seconds) = (measure(folder, height) for height in HEIGHTS)
    pixels = 3 * WIDTH * HEIGHTS[1] / 2**30
    growth = large - small - pixels * (1 - HEIGHTS[0] / HEIGHTS[1])
    note = f"{pixels:.2f} GiB of input, {pixels * SCALE**2:.2f} GiB of output; {seconds:.0f} s"
    what = "growth from 25 megapixels, beyond the input's own, png"
    rows = [
        Row(f"100 megapixels x{SCALE} to png", "", f"{large:.2f} GiB", "", None, note),
        Row(what, "25 MP", f"{growth:.2f} GiB", f"<= {MOST} GiB", growth <= MOST, f"{small:.2f} GiB at 25 MP"),
    ]
    publish("large_image", rows, f"Most anonymous memory of sr-iqa infer: {WIDTH}x{HEIGHTS[1]} pixels, SRVGGNetCompact, tiles of 256.")


if __name__ == "__main__":
    main()

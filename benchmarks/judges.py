"""Metrics against orderings that are known: `python -m benchmarks.judges --photos DIR [--out DIR] [--metrics LIST]`.

A synthetic manifest, no people in it: each photo is blurred, made noisy, compressed and downscaled in three strengths, and of two strengths
of one kind, the photo itself being strength 0, the weaker is the better image. A metric that fails here fails at the easiest there is; one
that does well here has shown nothing about people's taste.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from sr_iqa.images import list_images, read_image, write_png
from sr_iqa.iqa.nano_families import blur, down_and_up, jpeg, quantise
from sr_iqa.lab.judges import Request, judge
from sr_iqa.lab.page import write_page
from sr_iqa.lab.results import text, together_text, write_json
from sr_iqa.preferences.manifest import Manifest, Pair, write_manifest

SIDE_PX = 320
SEED = 0
NO_REFERENCE = "nano,niqe,piqe,entropy"
FULL_REFERENCE = "psnr,ssimc,gmsd,nlpd"
"""Quick metrics that need no weights, or come with theirs. Orderings of one kind of damage are easy for those that see the reference."""
Level = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _noisy(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0, std / 255, image.shape).astype(np.float32)


LADDERS: dict[str, list[Level]] = {
    "blur": [lambda image, _, sigma=sigma: blur(image, sigma) for sigma in (0.7, 1.3, 2.4)],
    "noise": [lambda image, rng, std=std: _noisy(image, std, rng) for std in (4, 10, 25)],
    "jpeg": [lambda image, _, quality=quality: jpeg(image, quality) for quality in (80, 40, 15)],
    "downscale": [lambda image, _, factor=factor: down_and_up(image, factor) for factor in (1.5, 2.5, 4)],
}
"""From weak to strong; the photo itself comes before the first."""


def make_manifest(photos: Path, out: Path, count: int) -> Path:
    """Writes the images of the first `count` photos and their manifest; pairs stand in random order."""
    rng = np.random.default_rng(SEED)
    pairs: list[Pair] = []
    for photo in list_images(photos)[:count]:
        image = read_image(photo)[:SIDE_PX, :SIDE_PX].astype(np.float32) / 255
        for group, levels in LADDERS.items():
            paths = [out / "images" / f"{photo.stem}_original.png"]
            _save(paths[0], image)
            for k, level in enumerate(levels, 1):
                paths.append(out / "images" / f"{photo.stem}_{group}{k}.png")
                _save(paths[k], level(image, rng))
            for better, worse in combinations(paths, 2):
                turned = rng.random() < 0.5
                a, b = (worse, better) if turned else (better, worse)
                pairs.append(Pair(a, b, float(not turned), paths[0], group, content=photo.stem))
    write_manifest(out / "synthetic.csv", Manifest(tuple(pairs), out))
    return out / "synthetic.csv"


def _save(path: Path, image: np.ndarray) -> None:
    write_png(path, quantise(image))


def main() -> None:
    parser = argparse.ArgumentParser(description="Metrics against orderings that are known.")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos; nano was trained on BSDS500's train/")
    parser.add_argument("--out", type=Path, default=Path("experiments/judges"))
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--metrics", default=f"{NO_REFERENCE},{FULL_REFERENCE}")
    parser.add_argument("--together", default=NO_REFERENCE, help="the metrics whose errors are compared")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    manifest = make_manifest(arguments.photos, arguments.out, arguments.count)
    verdict, together = (judge(Request(manifest, names), say=print) for names in (arguments.metrics, arguments.together))
    write_page(verdict, arguments.out / "judges.html")
    write_page(together, arguments.out / "together.html")
    write_json(verdict, arguments.out / "judges.json")
    print(f"\n{text(verdict)}\n\n{together_text(together)}")


if __name__ == "__main__":
    main()

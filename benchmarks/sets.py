"""GT sets of HGGT's size for the benchmarks: 512x512 PNGs, five per set, made from the photos that the demo uses or from a given folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from sr_iqa.config.models import DataOptions, TrainDataOptions
from sr_iqa.data.demo import shipped_photos
from sr_iqa.data.enhance import ENHANCERS
from sr_iqa.images import list_images, read_image_lenient, write_png

SIDE = 512


def make_sets(folder: Path, count: int, images: Path | None = None) -> Path:
    """Writes `count` sets in HGGT's layout; the labels call every second EGT positive. Returns the folder."""
    for i, patch in zip(range(count), _patches(list_images(images) if images else list(shipped_photos().values())), strict=False):
        name = f"photo{i}-0-0"
        write_png(folder / "images" / "original" / f"{name}.png", patch)
        for egt, enhance in ENHANCERS.items():
            image = np.rint(255 * enhance(patch.astype(np.float32) / 255)).astype(np.uint8)
            write_png(folder / "images" / egt / f"{name}_{egt}.png", image)
        pictures = [{"Name": f"{name}.png", "File": "original", "Label": None}]
        pictures += [{"Name": f"{name}_{egt}.png", "File": egt, "Label": ("Positive", "Similar")[k % 2]} for k, egt in enumerate(ENHANCERS)]
        for annotator in "ABC":
            path = folder / "labels" / annotator / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({f"Picture_{k}": picture for k, picture in enumerate(pictures, 1)}))
    return folder


def command_line(about: str | None) -> argparse.ArgumentParser:
    """The arguments of every benchmark on sets."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--images", type=Path, help="photos to make the sets from, instead of those that dependencies ship")
    parser.add_argument("--rounds", type=int, default=9)
    return parser


def options(folder: Path, **more: object) -> TrainDataOptions:
    """Options of training on the sets, GT crop 256 and HGGT's degradation, flipped as HGGT does."""
    roots = {"dataroot_gt": folder / "images", "dataroot_labels": folder / "labels"}
    rest = {"gt_size": 256, "use_hflip": True, "use_rot": False, "batch_size_per_gpu": 8, "degradation": {"preset": "hggt"}}
    return TrainDataOptions.model_validate({"type": "multi_gt", **roots, **rest, **more})


def roots(folder: Path) -> DataOptions:
    """The sets without anything about training."""
    return DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels")


def _patches(photos: list[Path]) -> Iterator[np.ndarray]:
    """512x512 parts of the photos, other ones in every round."""
    rng = np.random.default_rng(0)
    while photos:
        for path in photos:
            photo = read_image_lenient(path)
            enlarge = max(1.0, 1.25 * SIDE / min(photo.shape[:2]))
            photo = cv2.resize(photo, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
            y, x = (int(rng.integers(side - SIDE + 1)) for side in photo.shape[:2])
            yield photo[y : y + SIDE, x : x + SIDE]

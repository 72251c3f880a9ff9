"""Small inputs shared by the tests."""

import json
from pathlib import Path

import cv2
import numpy as np

LABELS = ("Positive", "Similar", "Negative")


def picture(size=64, seed=0):
    """A smooth random colour picture with a few edges: uint8 (size, size, 3) RGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        y, x = rng.integers(0, size, 2)
        image[y : y + size // 4, x : x + size // 3] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def label_file(name, labels):
    """HGGT's label JSON for one set: `labels` are the words of EGT 01, 02, ..."""
    pictures = {"Picture_1": {"Name": f"{name}.png", "File": "original", "Label": None}}
    for k, word in enumerate(labels, 1):
        pictures[f"Picture_{k + 1}"] = {"Name": f"{name}_{k:02d}.png", "File": f"{k:02d}", "Label": word}
    return {**pictures, "Time_cost": {"Start": "", "End": "", "Total": 0}}


def make_sets(root, n=3, k=4, size=64, annotators=("A", "B", "C"), seed=0, labels=None):
    """Writes n sets of one original and k enhanced GTs in HGGT layout under root/images and root/labels; returns root.

    `labels[i]` gives set i's words for every annotator; by default EGT 01 is Positive, 02 Similar, the others Negative.
    """
    root = Path(root)
    for i in range(n):
        name = f"{i:04d}-{16 * i}-8"
        original = picture(size, seed + i)
        save(root / "images" / "original" / f"{name}.png", original)
        for j in range(1, k + 1):
            blurred = cv2.GaussianBlur(original, (0, 0), 1.0).astype(np.float32)
            enhanced = original + 0.3 * j * (original.astype(np.float32) - blurred)
            save(root / "images" / f"{j:02d}" / f"{name}_{j:02d}.png", np.clip(enhanced, 0, 255).astype(np.uint8))
        words = labels[i] if labels else [LABELS[min(j, 2)] for j in range(k)]
        for annotator in annotators:
            path = root / "labels" / annotator / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(label_file(name, words)))
    return root

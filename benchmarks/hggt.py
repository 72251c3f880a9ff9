"""HGGT's way from disk to the training step, restated from its dataset and model (PosNegGTSR, commit b735378) on BasicSR's own functions.

The item: five whole PNGs as float32, three label files, a flip, a blur kernel. The batch: blur, resize, noise, DiffJPEG and resize of the
whole images, one crop for all, then the pool of training pairs, which is reindexed as a whole at every step.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.archs.basicsr_bridge import import_basicsr

import_basicsr()
from basicsr.data.degradations import (  # noqa: E402 (after the import is mended)
    circular_lowpass_kernel,
    random_add_gaussian_noise_pt,
    random_add_poisson_noise_pt,
    random_mixed_kernels,
)
from basicsr.data.transforms import augment  # noqa: E402
from basicsr.utils import DiffJPEG, img2tensor  # noqa: E402
from basicsr.utils.img_process_util import filter2D  # noqa: E402

FOLDERS = ("original", "01", "02", "03", "04")
KERNEL_SIDES = (3, 5, 7, 9)
QUEUE = 144


class HGGTDataset:
    """item(i) -> {img_list (5, 3, 512, 512) float32, label_list, kernel1}."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(path.stem for path in (root / "labels" / "A").glob("*.json"))

    def item(self, i: int) -> dict[str, object]:
        name = self.names[i % len(self.names)]
        files = [f"{name}.png" if folder == "original" else f"{name}_{folder}.png" for folder in FOLDERS]
        images = [decoded(self.root / "images" / folder / file) for folder, file in zip(FOLDERS, files, strict=True)]
        effective = self.labels(name)
        images = augment(images, True, False)
        kernel = _kernel()
        stacked = torch.stack(img2tensor(images, bgr2rgb=True, float32=True), dim=0)
        codes = np.array([0, *({"Positive": 1, "Similar": 2, "Negative": 3}[word] for word in effective)])
        return {"img_list": stacked, "label_list": codes, "kernel1": torch.FloatTensor(kernel)}

    def labels(self, name: str) -> list[str]:
        """The effective labels of the enhanced GTs."""
        labels = [json.loads((self.root / "labels" / annotator / f"{name}.json").read_text()) for annotator in "ABC"]
        words = [[label[f"Picture_{k}"]["Label"] for label in labels] for k in range(2, 6)]
        return [Counter(word).most_common(1)[0][0] if len(set(word)) < 3 else "Similar" for word in words]


class HGGTFeed:
    """A batch of items -> (lq, the five GT crops), through the degradation and the pool."""

    def __init__(self, grad: bool = True, queue: int = QUEUE, device: str = "cpu") -> None:
        self.jpeger = DiffJPEG(differentiable=False).to(device)
        self.grad, self.queue, self.filled = grad, queue, 0
        self.pool_lq, self.pool_gts = torch.zeros(0), torch.zeros(0)

    def degrade(self, batch: dict[str, Tensor], gt_size: int = 256, scale: int = 4) -> tuple[Tensor, Tensor]:
        """(lq (b, 3, 64, 64), gts (b, 5, 3, 256, 256)) of img_list (b, 5, 3, 512, 512) and kernel1 (b, 9, 9)."""
        with torch.set_grad_enabled(self.grad):  # as shipped, no no_grad: DiffJPEG's tables are parameters
            images = batch["img_list"]
            out = filter2D(images[:, 0], batch["kernel1"])
            direction = random.choices(["up", "down", "keep"], [0.1, 0.85, 0.05])[0]
            factor = {"up": np.random.uniform(1, 1.2), "down": np.random.uniform(0.8, 1), "keep": 1}[direction]
            mode = random.choice(["area", "bilinear", "bicubic"])
            out = F.interpolate(out, scale_factor=factor, mode=mode)
            if np.random.uniform() < 0.5:
                out = random_add_gaussian_noise_pt(out, sigma_range=[1, 12], clip=True, rounds=False, gray_prob=0.2)
            else:
                out = random_add_poisson_noise_pt(out, scale_range=[0.05, 0.8], gray_prob=0.2, clip=True, rounds=False)
            quality = out.new_zeros(out.size(0)).uniform_(75, 95)
            out = self.jpeger(torch.clamp(out, 0, 1), quality=quality)
            out = F.interpolate(out, size=(images.shape[-2] // scale, images.shape[-1] // scale), mode=mode)
            lq = torch.clamp((out * 255.0).round(), 0, 255) / 255.0
        side = gt_size // scale
        top, left = random.randint(0, lq.shape[-2] - side), random.randint(0, lq.shape[-1] - side)
        gts = [images[:, k, :, top * scale : top * scale + gt_size, left * scale : left * scale + gt_size] for k in range(images.shape[1])]
        return lq[..., top : top + side, left : left + side], torch.stack(gts, dim=1)

    @torch.no_grad()
    def exchange(self, lq: Tensor, gts: Tensor) -> tuple[Tensor, Tensor]:
        """The pool of training pairs: shuffled as a whole, the first b taken out, the new ones put there."""
        b = len(lq)
        if not self.pool_lq.numel():
            self.pool_lq, self.pool_gts = (t.new_zeros(self.queue, *t.shape[1:]) for t in (lq, gts))
        if self.filled < self.queue:
            self.pool_lq[self.filled : self.filled + b], self.pool_gts[self.filled : self.filled + b] = lq.clone(), gts.clone()
            self.filled += b
            return lq, gts
        order = torch.randperm(self.queue)
        self.pool_lq, self.pool_gts = self.pool_lq[order], self.pool_gts[order]
        taken = self.pool_lq[:b].clone(), self.pool_gts[:b].clone()
        self.pool_lq[:b], self.pool_gts[:b] = lq.clone(), gts.clone()
        return taken


def collate(items: list[dict[str, object]]) -> dict[str, Tensor]:
    """As torch's default: stacked."""
    return {key: torch.stack([torch.as_tensor(item[key]) for item in items]) for key in items[0]}


def decoded(path: Path) -> np.ndarray:
    """(H, W, 3) BGR, float32 in [0, 1]."""
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR).astype(np.float32) / 255.0


def _kernel() -> np.ndarray:
    size = random.choice(KERNEL_SIDES)
    if np.random.uniform() < 0.01:
        kernel = circular_lowpass_kernel(np.random.uniform(np.pi / 3 if size < 13 else np.pi / 5, np.pi), size, pad_to=False)
    else:
        sigma = [0.1, 1.0]
        kernel = random_mixed_kernels(
            ["iso", "aniso"], [0.7, 0.3], size, sigma, sigma, [-math.pi, math.pi], [0.1, 2], [0.1, 1], noise_range=None
        )
    pad = (KERNEL_SIDES[-1] - size) // 2
    return np.pad(kernel, ((pad, pad), (pad, pad)))

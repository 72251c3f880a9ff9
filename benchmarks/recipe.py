"""HGGT's whole recipe (L1 + VGG + GAN, its degradation, amo with MUSIQ): our defaults against HGGT's way, from files to weights.

HGGT's way: BasicSR's networks, losses and optimizer in float32, its data path (hggt.py), the pool, and plain scoring of the five crops
with pyiqa's MUSIQ. All weights are random. One after the other, by the clock on a GPU.

python -m benchmarks.recipe [--images FOLDER] [--rounds N]. On a GPU SwinIR medium, batch 8, GT 256, 8 workers; else a small stand-in.
"""

from __future__ import annotations

import copy
import gc
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import models

from sr_iqa.archs.basicsr_bridge import basicsr_archs, import_basicsr

from . import hggt, runs, sets
from .networks import LIGHT, MEDIUM, UNET
from .report import Row, publish, ratio
from .timing import Work, on_one_core, race

import_basicsr()
from basicsr.losses.basic_loss import L1Loss, PerceptualLoss  # noqa: E402 (after the import is mended)
from basicsr.losses.gan_loss import GANLoss  # noqa: E402
from pyiqa.archs.musiq_arch import MUSIQ  # noqa: E402

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
SETS = 16
NETWORK, BATCH, SIDE, WORKERS = (MEDIUM, 8, 256, 8) if GPU else (LIGHT, 2, 128, 0)
DECAY = 0.999


class Items(Dataset[dict[str, Any]]):
    """Without end, for torch's loader."""

    def __init__(self, folder: Path) -> None:
        self.items = hggt.HGGTDataset(folder)

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.items.item(i)


class HGGTsWay:
    """Its model's feed_data and optimize_parameters, with the choice by MUSIQ in between."""

    def __init__(self, folder: Path) -> None:
        arguments = {name: value for name, value in NETWORK.items() if name != "type"} | {"img_size": SIDE // 4}
        self.net = basicsr_archs()["SwinIR"](**arguments).to(DEVICE)
        self.discriminator = basicsr_archs()["UNetDiscriminatorSN"](num_in_ch=3, num_feat=UNET["num_feat"]).to(DEVICE)
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.99)) for net in (self.net, self.discriminator)]
        self.pixel, self.gan = L1Loss(), GANLoss("vanilla", loss_weight=0.1).to(DEVICE)
        self.perceptual = _perceptual().to(DEVICE)
        self.judge = MUSIQ(pretrained=False).to(DEVICE).eval().requires_grad_(False)
        self.feed = hggt.HGGTFeed(device=DEVICE)
        self.batches: Iterator[dict[str, Tensor]] = iter(DataLoader(Items(folder), BATCH, num_workers=WORKERS, pin_memory=GPU))

    def step(self) -> None:
        lq, gt = self.samples()
        generator, discriminator = self.optimizers
        self.discriminator.requires_grad_(False)
        generator.zero_grad()
        output = self.net(lq)
        percep, _ = self.perceptual(output, gt)
        loss = self.pixel(output, gt) + percep + self.gan(self.discriminator(output), True, is_disc=False)
        loss.backward()
        generator.step()
        self.discriminator.requires_grad_(True)
        discriminator.zero_grad()
        self.gan(self.discriminator(gt), True, is_disc=True).backward()
        self.gan(self.discriminator(output.detach()), False, is_disc=True).backward()
        discriminator.step()
        loss.item()  # as its log does
        with torch.no_grad():
            live = dict(self.net.named_parameters())
            for name, averaged in self.ema.named_parameters():
                averaged.mul_(DECAY).add_(live[name], alpha=1 - DECAY)

    def samples(self) -> tuple[Tensor, Tensor]:
        """lq and of the five GT crops the one that MUSIQ likes best."""
        batch = {key: value.to(DEVICE) for key, value in next(self.batches).items()}
        lq, gts = self.feed.exchange(*self.feed.degrade(batch, SIDE))
        lq, gts = lq.detach(), gts.detach()
        with torch.no_grad():
            scores = self.judge(gts.flatten(0, 1)).view(gts.shape[:2])
        return lq, gts[torch.arange(len(gts)), scores.argmax(1)]


def _perceptual() -> PerceptualLoss:
    """BasicSR's, on a VGG19 that nothing is fetched for."""
    from basicsr.archs import vgg_arch

    shipped = vgg_arch.vgg
    vgg_arch.vgg = type("Vgg", (), {"vgg19": staticmethod(lambda pretrained: models.vgg19())})
    try:
        return PerceptualLoss(runs.VGG_LAYERS, vgg_type="vgg19", use_input_norm=True, perceptual_weight=1.0, criterion="l1")
    finally:
        vgg_arch.vgg = shipped


def ours(folder: Path, precision: str, compiled: bool) -> runs.Training:
    """The same recipe as options."""
    data = {"gt_size": SIDE, "batch_size_per_gpu": BATCH, "num_worker_per_gpu": WORKERS}
    data["sampling"] = {"strategy": "amo", "metric": "musiq"}
    top = {"network_d": UNET, "precision": precision, "compile": compiled}
    return runs.Training(runs.options(folder, NETWORK, runs.HGGT_LOSSES, top, **data))


def measured(step: Work, rounds: int) -> tuple[float, float]:
    """Seconds of a step, and the most GPU memory ever taken in GiB."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    seconds = race({"step": step}, rounds, 2)["step"].seconds
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if GPU else 0.0


def main() -> None:
    parser = sets.command_line(__doc__)
    arguments = parser.parse_args()
    if not GPU:
        on_one_core()
    random.seed(0)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as temporary, runs.random_weights(Path(temporary), "vgg19", "musiq"):
        folder = runs.make_store(Path(temporary) / "sets", SETS, arguments.images)
        theirs, their_gib = measured(HGGTsWay(folder).step, arguments.rounds)
        rows = []
        kinds = {"float32": ("no", False), "bf16": ("bf16", False), "bf16, compiled": ("bf16", True)}
        for name, (precision, compiled) in list(kinds.items())[: None if GPU else 1]:
            gc.collect()
            seconds, gib = measured(ours(folder, precision, compiled).step, arguments.rounds)
            rows.append(ratio(f"whole recipe, {name}", "HGGT's way", theirs, seconds, 3 if GPU and precision != "no" else None))
            if GPU:
                share = gib / their_gib
                rows.append(
                    Row(f"peak memory, {name}", "HGGT's way", f"{share:.2f}x", "<= 0.5x", share <= 0.5, f"{their_gib:.1f} -> {gib:.1f} GiB")
                )
    network = "medium" if GPU else "light"
    about = (
        f"SwinIR {network}, L1 + VGG19 + GAN with the U-Net discriminator, batch {BATCH}, GT {SIDE}, amo with MUSIQ, EMA; images of 512x512"
    )
    publish("recipe", rows, f"One step of HGGT's whole recipe: {about}.")


if __name__ == "__main__":
    main()

"""Training runs for the benchmarks, built from options as `sr-iqa train` builds them, on sets of HGGT's size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torchvision import models

from sr_iqa.config.models import Options
from sr_iqa.data.packing import pack
from sr_iqa.data.stream import train_loader
from sr_iqa.iqa.metrics import metric_info
from sr_iqa.training.build import build
from sr_iqa.training.folder import run_folder
from sr_iqa.training.frame import make_accelerator
from sr_iqa.training.logs import Stopwatch
from sr_iqa.training.meter import Meter
from sr_iqa.training.steps import train_step

from . import sets
from .networks import LIGHT

VGG_LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
HGGT_LOSSES: dict[str, Any] = {
    "perceptual_opt": {"type": "PerceptualLoss", "layer_weights": VGG_LAYERS, "vgg_type": "vgg19", "perceptual_weight": 1.0},
    "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
    "optim_d": {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]},
}
"""What HGGT's recipe has beside the L1 loss."""


def make_store(folder: Path, count: int, images: Path | None) -> Path:
    """A folder with `count` sets (sets.make_sets) and, beside them, sets.lmdb. Returns the folder."""
    pack(sets.roots(sets.make_sets(folder, count, images)), folder / "sets.lmdb")
    return folder


def options(
    folder: Path,
    network: Mapping[str, Any] = LIGHT,
    train: Mapping[str, Any] | None = None,
    top: Mapping[str, Any] | None = None,
    **data: Any,
) -> Options:
    """Options of an L1 run on the packed sets, HGGT's degradation; `train`, `top` (of the whole file) and `data` override."""
    side = data.get("gt_size", 256) // 4
    made = sets.options(folder, **{"dataroot_gt": folder / "sets.lmdb", "dataroot_labels": None, **data})
    image_size = {"img_size": side, "resi_connection": "1conv"} if network["type"] == "SwinIR" else {}
    adam = {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}
    chosen = {
        "name": "benchmark",
        "scale": 4,
        "manual_seed": 0,
        "datasets": {"train": made.model_dump(mode="json")},
        "network_g": {**network, **image_size},
        "path": {"experiments_root": str(folder / "runs")},
        "train": {"total_iter": 1, "ema_decay": 0.999, "optim_g": adam, "pixel_opt": {"type": "L1Loss"}, **(train or {})},
        "logger": {"use_tb_logger": False},
        **(top or {}),
    }
    return Options.model_validate(chosen)


class Training:
    """A run that is taken forward step by step, samples included."""

    def __init__(self, run_options: Options) -> None:
        self.run = build(run_options, make_accelerator(run_options, run_folder(run_options)))
        self.meter = Meter(self.run.accelerator.device, self.run.members)
        data = self.run.data
        self.samples = train_loader(self.run.stream, data.batch_size_per_gpu, workers=data.num_worker_per_gpu)
        self.watch = Stopwatch()

    def step(self) -> None:
        with self.watch.spending("data"):
            batch = next(self.samples)
        train_step(self.run, [batch], self.meter)
        self.watch.steps += 1

    def data_share(self) -> float:
        """Of the time since the last call."""
        return self.watch.read(1)["data_share"]


@contextmanager
def random_weights(folder: Path, *names: str) -> Iterator[None]:
    """Weight files of VGG19 ("vgg19") and of metrics, filled at random, where the loaders look for them."""
    before = os.environ.get("TORCH_HOME")
    os.environ["TORCH_HOME"] = str(folder)
    torch.manual_seed(0)
    try:
        for name in names:
            if name == "vgg19":
                _save(models.vgg19().features.state_dict(prefix="features."), folder / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth")
            else:
                _save(_pyiqas(name), metric_info(name).files[0].path)
        yield
    finally:
        os.environ.pop("TORCH_HOME") if before is None else os.environ.update(TORCH_HOME=before)


def _pyiqas(name: str) -> dict[str, torch.Tensor]:
    """Random weights in the layout of pyiqa's file."""
    from pyiqa.archs.musiq_arch import MUSIQ

    if name != "musiq":
        raise ValueError(f"no random weights for {name}")
    return MUSIQ(pretrained=False).state_dict()


def _save(state: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)

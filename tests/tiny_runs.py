"""Training runs of seconds, shared by the tests of the training room."""

import json

import torch
from safetensors.torch import load_file
from torch import nn

from sr_iqa.config.models import Options
from sr_iqa.training.logs import SPEED
from sr_iqa.training.trainer import train
from tests.helpers import make_sets

SWINIR = {
    "type": "SwinIR",
    "upscale": 2,
    "img_size": 16,
    "window_size": 8,
    "depths": [1],
    "embed_dim": 8,
    "num_heads": [2],
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
UNET = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
ADAM = {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]}
GAN = {"network_d": UNET, "train": {"gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}, "optim_d": ADAM}}


def merge(base, changes):
    """Nested dictionaries, the second one's values winning; a component of another type replaces the first one whole."""
    both = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        nested = isinstance(old, dict) and isinstance(value, dict) and value.get("type") in (None, old.get("type"))
        both[key] = merge(old, value) if nested else value
    return both


def tiny(root, name, *changes):
    """Options of a run over the sets under root/data, in root/runs/<name>."""
    if not (root / "data").exists():
        make_sets(root / "data", n=4, k=3, size=48)
    data = {"type": "multi_gt", "dataroot_gt": str(root / "data" / "images"), "dataroot_labels": str(root / "data" / "labels")}
    data["degradation"] = {"preset": "bicubic"}
    options = {
        "name": name,
        "scale": 2,
        "manual_seed": 3,
        "datasets": {"train": {**data, "gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}},
        "network_g": SWINIR,
        "path": {"experiments_root": str(root / "runs")},
        "train": {"total_iter": 6, "optim_g": ADAM, "pixel_opt": {"type": "L1Loss"}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 3, "use_tb_logger": False},
    }
    for change in changes:
        options = merge(options, change)
    return Options.model_validate(options)


def run(root, name, *changes, **arguments):
    """Trains quietly; returns the run's folder."""
    return train(tiny(root, name, *changes), quiet=True, **arguments)


def validation(root, **val):
    """The changes that add validation on the training sets."""
    data = {"type": "multi_gt", "dataroot_gt": str(root / "data" / "images"), "dataroot_labels": str(root / "data" / "labels")}
    return {"datasets": {"val": {**data, "degradation": {"preset": "bicubic"}}}, "val": {"metrics": ["psnr"], "val_freq": 3, **val}}


def state(folder, step):
    """The training state of a step, as saved."""
    return torch.load(folder / "training_states" / f"{step}.pt", weights_only=True)


def network(folder, step, label="net_g"):
    return load_file(folder / "models" / f"{label}_{step}.safetensors")


def lines(folder):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    """step -> the values of a log line that do not depend on the clock."""
    return {line["step"]: {k: v for k, v in line.items() if k not in SPEED} for line in lines(folder) if "val" not in line}


def differences(one, two, where=""):
    """The places where two nested structures of tensors and values are not equal to the bit."""
    if isinstance(one, dict):
        keys = one.keys() | two.keys()
        return [d for key in sorted(keys, key=str) for d in differences(one.get(key), two.get(key), f"{where}.{key}")]
    if isinstance(one, (list, tuple)):
        found = [d for i, pair in enumerate(zip(one, two, strict=False)) for d in differences(*pair, f"{where}.{i}")]
        return found + ([where] if len(one) != len(two) else [])
    same = torch.equal(one, two) if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) else one == two
    return [] if same else [where]


class BrokenLoss(nn.Module):
    """L1, but NaN in the call number `at`; or with a NaN gradient and a finite value there."""

    def __init__(self, at: int, gradient_only: bool = False) -> None:
        super().__init__()
        self.calls, self.at, self.gradient_only = 0, at, gradient_only

    def forward(self, sr, gt):
        value = (sr - gt).abs().mean()
        self.calls += 1
        if self.calls - 1 != self.at:
            return value
        return value + (sr.mean() * 0).sqrt() if self.gradient_only else value * float("nan")

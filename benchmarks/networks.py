"""Networks against BasicSR's with the same weights: inference, and forward and backward in training.

python -m benchmarks.networks [--rounds N]. On a GPU also in TF32 and bfloat16, and compiled on both sides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.archs import build_network
from sr_iqa.archs.attention import attention_kernel
from sr_iqa.archs.basicsr_bridge import basicsr_archs
from sr_iqa.archs.discriminators import advance_spectral_norm, held_spectral_norm
from sr_iqa.archs.layers import to_device
from sr_iqa.losses.gan import GANLoss
from sr_iqa.training.build import compile_network
from sr_iqa.training.steps import adversarial_term

from .report import Row, publish, ratio
from .timing import Work, race

SWINIR = {"type": "SwinIR", "window_size": 8, "mlp_ratio": 2, "upscale": 4}
LIGHT = {**SWINIR, "embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffledirect"}
MEDIUM = {**SWINIR, "embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "upsampler": "pixelshuffle"}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 23, "num_grow_ch": 32}
UNET = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 64}
LOSS = GANLoss("vanilla", loss_weight=0.1)


def infer(net: nn.Module, x: Tensor, ours: bool) -> None:
    with torch.no_grad():
        net(x)


def train(net: nn.Module, x: Tensor, ours: bool) -> None:
    net.zero_grad()
    net(x).square().mean().backward()


def discriminate(net: nn.Module, x: Tensor, ours: bool) -> None:
    """A discriminator step: real and fake."""
    net.zero_grad()
    (F.softplus(-net(x)).mean() + F.softplus(net(1 - x)).mean()).backward()


def oppose(net: nn.Module, x: Tensor, ours: bool) -> None:
    """All that a GAN step asks of the discriminator: a gradient for the generator, then its own step. BasicSR passes over sr twice."""
    net.zero_grad()
    sr = (1 - x).requires_grad_()
    if ours:
        with held_spectral_norm(net):
            term, fake = adversarial_term(cast(Any, SimpleNamespace(local=net, loss=LOSS)), sr)
            term.backward()
            (LOSS(net(x), True, is_disc=True) + LOSS(fake, False, is_disc=True)).backward()
        return
    net.requires_grad_(False)
    LOSS(net(sr), True, is_disc=False).backward()
    net.requires_grad_(True)
    LOSS(net(x), True, is_disc=True).backward()
    LOSS(net(sr.detach()), False, is_disc=True).backward()


@dataclass(frozen=True)
class Case:
    what: str
    network: dict[str, Any]
    work: Callable[[nn.Module, Tensor, bool], None]
    side: int
    """Of the input on a CPU, where the batch is 1."""
    gpu_side: int
    """On a GPU, where the batch is 8."""
    least: float | None = None


CASES = (
    Case("SwinIR light, inference", LIGHT, infer, 64, 64, 1.4),
    Case("SwinIR light, training", LIGHT, train, 64, 64, 1.0),
    Case("SwinIR medium, inference", MEDIUM, infer, 64, 64, 1.4),
    Case("SwinIR medium, training", MEDIUM, train, 48, 64, 1.0),
    Case("RRDBNet-23, inference", RRDB, infer, 32, 64),
    Case("RRDBNet-23, training", RRDB, train, 32, 64, 1.05),
    Case("U-Net discriminator, its own step", UNET, discriminate, 128, 256, 1.15),
    Case("U-Net discriminator, both steps of a GAN", UNET, oppose, 96, 256),
)


@dataclass(frozen=True)
class Mode:
    name: str
    tf32: bool = False
    bf16: bool = False
    compiled: bool = False


FLOAT32 = Mode("float32")
GPU_MODES = (
    Mode("TF32", tf32=True),
    Mode("bf16", tf32=True, bf16=True),
    Mode("TF32, compiled", tf32=True, compiled=True),
    Mode("bf16, compiled", tf32=True, bf16=True, compiled=True),
)


def compare(case: Case, mode: Mode, device: torch.device, rounds: int) -> Row:
    """Both networks' outputs are equal to 1e-4 on the same weights; then they are timed."""
    side, batch = (case.gpu_side, 8) if device.type == "cuda" else (case.side, 1)
    size = {"img_size": side} if case.network["type"] == "SwinIR" else {}  # BasicSR's makes its masks anew for every other size
    torch.manual_seed(0)
    ours = build_network(case.network | size)
    for _ in range(5):
        advance_spectral_norm(ours)  # which starts at random, where outputs are millions
    arguments = {name: value for name, value in (case.network | size).items() if name != "type"}
    theirs = basicsr_archs()[case.network["type"]](**arguments)
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = to_device(ours, device), theirs.to(device)
    x = torch.rand(batch, 3, side, side, device=device)
    with precision(FLOAT32, device), torch.no_grad():
        difference = (ours.eval()(x) - theirs.eval()(x)).abs().max().item()
    if difference > 1e-4:
        raise SystemExit(f"{case.what}: outputs differ by {difference:.2g}")
    if mode.compiled:
        ours, theirs = compile_network(ours), compile_network(theirs)
    for net in (ours, theirs):
        net.train(case.work is not infer)
    with precision(mode, device):
        times = race({"ours": work(case, ours, x, True), "theirs": work(case, theirs, x, False)}, rounds)
    note = f"{batch}x{side}x{side}; largest difference {difference:.1g}"
    least = case.least if mode is FLOAT32 else None
    return ratio(f"{case.what}, {mode.name}", "BasicSR", times["theirs"].seconds, times["ours"].seconds, least, note)


def work(case: Case, net: nn.Module, x: Tensor, ours: bool) -> Work:
    return lambda: case.work(net, x, ours)


@contextmanager
def precision(mode: Mode, device: torch.device) -> Iterator[None]:
    """What float32 means, and mixed precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode.tf32
    with torch.autocast(device.type, torch.bfloat16, enabled=mode.bf16):
        yield


def kernels(device: torch.device) -> list[Row]:
    """The attention kernels of both SwinIRs on this device, in blocks without and with shift."""
    rows = []
    for name, dim in (("light", 60), ("medium", 180)):
        for dtype, training in product((torch.float32, torch.bfloat16), (True, False)):
            qkv = torch.rand(8, 64, 64, 3 * dim, device=device, dtype=dtype, requires_grad=training)
            biases = [torch.rand(*shape, device=device, requires_grad=training) for shape in ((6, 64, 64), (64, 6, 64, 64))]
            what = f"SwinIR {name}, {'training' if training else 'inference'}, {str(dtype).removeprefix('torch.')}: attention kernel"
            rows.append(Row(what, "", ", ".join(dict.fromkeys(attention_kernel(qkv, bias) for bias in biases))))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose names contain this; nothing is written then")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    modes = (FLOAT32, *GPU_MODES) if device.type == "cuda" else (FLOAT32,)
    rows = []
    for case in CASES:
        if arguments.only in case.what:
            for mode in modes:
                rows.append(compare(case, mode, device, arguments.rounds))
                print(rows[-1].what, rows[-1].figure, flush=True)
    if not arguments.only:
        rows += kernels(device) if device.type == "cuda" else []
        publish("networks", rows, "Our networks and BasicSR 1.4.2's on the same weights and inputs, x4.")


if __name__ == "__main__":
    main()

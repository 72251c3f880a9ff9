"""Is an ensemble as a reward fooled less than its members? Gradient ascent on each Q, judged by metrics that no Q holds.

python -m benchmarks.ensembles --images FOLDER [--photos N] [--lora-steps N]

From the demo's x4 outputs, pixels climb Q for a number of steps, and every result is scaled to the same PSNR to the output it started
from. The judges compare with the original photo, which no Q sees (gmsd, vsi, ssimc, PSNR), and `noise` with the output before. Then LoRA
adapters on the demo's base are tuned with L1 - weight * Q and judged on other photos. Only nano and niqe have real weights everywhere.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.adapters import inject, trainable_parameters
from sr_iqa.config.models import LoraOptions
from sr_iqa.images import to_uint8, write_png
from sr_iqa.iqa.ensemble_file import normalise
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.iqa.nano_attacks import downscale
from sr_iqa.iqa.nano_training import shipped_base
from sr_iqa.iqa.noise import noise

from .noise import at_psnr, crops, rounded
from .report import Row, publish

TRAINED_ON = 40
MEMBERS = ("nano", "niqe")
KINDS = {"sum": "0.5*nano + 0.5*niqe", "min": "min(nano, niqe)", "rank": "rank(nano, niqe)", "agree": "agree(nano, niqe)"}
JUDGES = ("gmsd", "vsi", "ssimc", "psnr")
STEPS, PSNR = 8, 38.0
LORA_WEIGHT = 0.01


class Scaled:
    """A member alone, in the units of the ensembles: its z-score."""

    def __init__(self, metric: Metric, mean: float, std: float) -> None:
        self.metric, self.mean, self.std = metric, mean, std

    def __call__(self, x: Tensor) -> Tensor:
        return (self.metric.signed(x) - self.mean) / self.std


def questions(reference: Tensor) -> dict[str, Scaled | Metric]:
    """Every Q by name, normalised by the reference photos."""
    found: dict[str, Scaled | Metric] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for i, image in enumerate(reference):
            write_png(folder / "photos" / f"{i}.png", to_uint8(image))
        for kind, text in KINDS.items():
            normalise(text, [folder / "photos"], folder / f"{kind}.yml")
            found[kind] = create_metric(str(folder / f"{kind}.yml"))
    normalisation = getattr(found["sum"], "normalisation")  # noqa: B009 (a Metric in the annotation)
    alone = {name: Scaled(create_metric(name), part.mean, part.std) for name, part in zip(MEMBERS, normalisation.members, strict=True)}
    return {**alone, **found}


def climb(score: Scaled | Metric, base: Tensor, steps: int = STEPS) -> Tensor:
    """Signed-gradient ascent on the pixels within PSNR of the base, shorter steps towards the end; the best of each image's steps."""
    radius = 10 ** (-PSNR / 20)
    change, best, found = torch.zeros_like(base), torch.full((len(base),), -torch.inf), base
    for step in range(steps + 1):
        change.requires_grad_()
        values = score((base + change).clamp(0, 1))
        (gradient,) = torch.autograd.grad(values.sum(), change)
        better = (values.detach() > best) & (step > 0)  # the start is no answer
        best = torch.where(better, values.detach(), best)
        found = torch.where(better[:, None, None, None], (base + change).detach(), found)
        change = change.detach() + radius * (1 - step / (steps + 1)) * gradient.sign()
        size = change.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        change = change * (radius / size).clamp(max=1)
    return found


def tuned(score: Scaled | Metric | None, photos: Tensor, steps: int) -> nn.Module:
    """A LoRA adapter on the demo's base after `steps` of L1 - LORA_WEIGHT * Q."""
    torch.manual_seed(0)
    net, rng = inject(shipped_base(), LoraOptions(rank=4), "SwinIR"), np.random.default_rng(0)
    optimizer = torch.optim.Adam(trainable_parameters(net), 1e-3, betas=(0.9, 0.99))
    for _ in range(steps):
        targets = photos[torch.from_numpy(rng.integers(0, len(photos), 2))]
        output = net(downscale(targets))
        loss = F.l1_loss(output, targets)
        if score is not None:
            loss = loss - LORA_WEIGHT * score(output.clamp(0, 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def judged(output: Tensor, base: Tensor, photos: Tensor, scales: Mapping[str, Scaled | Metric]) -> dict[str, float]:
    """Mean changes from the base: of the members in z, of the judges in their own units (signed), and the noise measure."""
    with torch.no_grad():
        found = {name: float((scales[name](output) - scales[name](base)).mean()) for name in MEMBERS}
        for name in JUDGES:
            judge = create_metric(name)
            found[name] = float((judge.signed(output, photos) - judge.signed(base, photos)).mean())
        return found | {"noise": float(noise(output, base).mean())}


def row(what: str, against: str, found: Mapping[str, float]) -> Row:
    note = ", ".join(f"{name} {value:+.4f}" for name, value in found.items() if name != "noise")
    return Row(what, against, f"{found['noise']:.3f}", note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--lora-steps", type=int, default=60)
    arguments = parser.parse_args()
    photos = crops(arguments.images, TRAINED_ON + arguments.photos)
    train, held_out = photos[:TRAINED_ON], photos[TRAINED_ON:]
    scales = questions(train)
    net = shipped_base().eval()
    with torch.no_grad():
        base = rounded(net(rounded(downscale(held_out))))
    rows = []
    for name, score in scales.items():
        output = at_psnr(climb(score, base), base, PSNR)
        rows.append(row(f"pixels, {name}", f"equal PSNR to the start, {PSNR:g} dB", judged(output, base, held_out, scales)))
        print(rows[-1], flush=True)
    for name, score in {"no reward": None, **scales}.items() if arguments.lora_steps else ():
        adapted = tuned(score, train, arguments.lora_steps)
        with torch.no_grad():
            output = rounded(adapted(rounded(downscale(held_out))))
        rows.append(row(f"LoRA, {name}", f"{arguments.lora_steps} steps, weight {LORA_WEIGHT:g}", judged(output, base, held_out, scales)))
        print(rows[-1], flush=True)
    about = f"Rewards and their ensembles on {len(held_out)} crops: the noise measure, and changes of members (z) and judges (better is +)."
    publish("ensembles", rows, about)


if __name__ == "__main__":
    main()

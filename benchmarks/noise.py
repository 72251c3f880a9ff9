"""The noise measure (sr_iqa/iqa/noise.py) against attacked and clean outputs at equal PSNR to the base.

python -m benchmarks.noise --images FOLDER [--photos N]

The base is the demo's x4 network on photos made smaller. Clean changes: the base blurred, sharpened, deconvolved, coded as JPEG, and
outputs of other networks (two that were trained here, on photos and on sharpened photos; the base fine-tuned to sharpened photos;
bicubic). Attacks: gradient ascent on a metric from the base, free and by a tile, with several numbers of steps. Every change is scaled so
that all have the same PSNR to the base. Thresholds come from one half of the photos, the figures from the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from sr_iqa.images import list_images, read_image, to_tensor
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.nano import load_nano
from sr_iqa.iqa.nano_attacks import Upscaler, downscale
from sr_iqa.iqa.nano_evaluation import fine_tune
from sr_iqa.iqa.nano_families import blur, deconvolve, jpeg, unsharp
from sr_iqa.iqa.nano_training import shipped_base
from sr_iqa.iqa.noise import enlarged, noise, noise_of_enlarged

from .report import Row, publish

SIDE, TRAINED_ON = 192, 48
PSNR = (34, 38, 42, 46)
DISTANCE = 0.02
LEAST = 0.95
"""What is to be reached, against either base."""
NETWORK, ENLARGED = "the base network's output", "the enlarged LQ"
Change = Callable[[np.ndarray], np.ndarray]

CHANGES: dict[str, Change] = {
    "blur": lambda i: blur(i, 0.8),
    "sharpened, 1 px": lambda i: unsharp(i, 1.0, 1.0),
    "sharpened, 2 px": lambda i: unsharp(i, 2.0, 1.0),
    "deconvolved": lambda i: deconvolve(i, 1.0, 5),
    "JPEG 20": lambda i: jpeg(i, 20),
    "JPEG 50": lambda i: jpeg(i, 50),
}


def crops(folder: Path, count: int) -> Tensor:
    """The middles of the first photos that are large enough, (count, 3, SIDE, SIDE)."""
    found = []
    for path in list_images(folder):
        image = read_image(path)
        top, left = ((side - SIDE) // 2 for side in image.shape[:2])
        if min(top, left) >= 0 and len(found) < count:
            found.append(to_tensor(np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])))
    return torch.stack(found)


def each(change: Change, images: Tensor) -> Tensor:
    """A change of arrays (h, w, 3), for a batch."""
    changed = [np.ascontiguousarray(change(image.permute(1, 2, 0).numpy())) for image in images]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() for image in changed])


def other_network(images: Tensor, steps: int = 250) -> Upscaler:
    """A small x4 network trained with L1 to the images."""
    rng, net = np.random.default_rng(1), Upscaler()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        top, left = 4 * rng.integers(0, 24, 2)
        targets = images[torch.from_numpy(rng.integers(0, len(images), 4)), :, top : top + 96, left : left + 96]
        optimizer.zero_grad()
        F.l1_loss(net(downscale(targets)), targets).backward()
        optimizer.step()
    return net


def ascent(score: Callable[[Tensor], Tensor], base: Tensor, steps: int, period: int | None = None, signed: bool = True) -> Tensor:
    """Gradient ascent from the base within DISTANCE; with a period by one tile repeated over each image."""
    side = period or base.shape[-1]
    change = DISTANCE / 4 * (2 * torch.rand((len(base), 3, side, side), generator=torch.Generator().manual_seed(0)) - 1)
    for _ in range(steps):
        change.requires_grad_()
        full = change.repeat(1, 1, base.shape[-2] // side, base.shape[-1] // side)
        (gradient,) = torch.autograd.grad(score((base + full).clamp(0, 1)).sum(), change)
        step = gradient.sign() if signed else gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        change = (change.detach() + 1.5 * DISTANCE / steps * step).clamp(-3 * DISTANCE, 3 * DISTANCE)
    return base + change.detach().repeat(1, 1, base.shape[-2] // side, base.shape[-1] // side)


def contrast(x: Tensor) -> Tensor:
    """Pixel statistics as a metric: the mean difference of a pixel from those around it."""
    return (x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)).abs().mean((1, 2, 3))


def at_psnr(changed: Tensor, base: Tensor, psnr: float) -> Tensor:
    """The change scaled to that PSNR to the base, rounded to 8 bits."""
    difference = changed - base
    size = difference.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return rounded(base + difference / size * 10 ** (-psnr / 20))


def rounded(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round() / 255


def clean_outputs(train: Tensor, lq: Tensor, base_net: torch.nn.Module, base: Tensor) -> dict[str, Tensor]:
    sharpened = each(lambda i: np.clip(unsharp(i, 1.0, 1.0), 0, 1), train)
    found = {name: each(change, base) for name, change in CHANGES.items()}
    tuned = fine_tune(base_net, load_nano(), train[..., :96, :96], sharpened[..., :96, :96], steps=40, weight=0.0)
    networks = {
        "a network": other_network(train),
        "a network, sharpened targets": other_network(sharpened),
        "the base tuned to sharpened targets": tuned,
    }
    with torch.no_grad():
        return found | {"bicubic": enlarged(lq, 4)} | {name: net(lq) for name, net in networks.items()}


def attacked_outputs(base: Tensor) -> dict[str, Tensor]:
    metrics = {"nano": load_nano(), "niqe": create_metric("niqe").signed, "pixel contrast": contrast}
    found = {}
    for name, score in metrics.items():
        for steps in (1, 5, 15) if name != "niqe" else (1, 5):
            found[f"{name}, free, {steps} steps"] = ascent(score, base, steps)
            found[f"{name}, free, {steps} steps, not signed"] = ascent(score, base, steps, signed=False)
        for period in (2, 4, 8):
            found[f"{name}, tile of {period} px"] = ascent(score, base, 5, period)
    return found


def area(clean: np.ndarray, attacked: np.ndarray) -> float:
    """The area under the ROC curve."""
    return float(roc_auc_score(np.repeat([0, 1], [clean.size, attacked.size]), np.concatenate([clean.ravel(), attacked.ravel()])))


def rows_of(reference: str, values: dict[bool, np.ndarray], psnr: int) -> list[Row]:
    """AUC of all photos, and, with a threshold from the first half of them, the AUC, false alarms and attacks found in the second."""
    clean, attacked = (values[kind] for kind in (False, True))
    half = clean.shape[1] // 2
    auc, other_auc = area(clean, attacked), area(clean[:, half:], attacked[:, half:])
    threshold = float(np.quantile(clean[:, :half], 0.99))
    false, found = ((part[:, half:] > threshold).mean() for part in (clean, attacked))
    second = f"second half: AUC {other_auc:.4f}, {false:.1%} false alarms, {found:.1%} of attacks found"
    note = f"1 % threshold {threshold:.3f} (first half); {second}"
    target, holds = (f">= {LEAST}", bool(auc >= LEAST)) if reference in (NETWORK, ENLARGED) else ("", None)
    return [Row(f"AUC at {psnr} dB", f"base: {reference}", f"{auc:.4f}", target, holds, note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=24)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    photos = crops(arguments.images, TRAINED_ON + arguments.photos)
    train, held_out = photos[:TRAINED_ON], photos[TRAINED_ON:]
    base_net, lq = shipped_base().eval(), rounded(downscale(held_out))
    with torch.no_grad():
        base = rounded(base_net(lq))
    changed = {False: clean_outputs(train, lq, base_net, base), True: attacked_outputs(base)}
    rows, listed = [], []

    def against_network(output: Tensor) -> Tensor:
        return noise(output, base)

    def against_lq(output: Tensor) -> Tensor:
        return noise_of_enlarged(output, lq, 4)

    start = against_lq(base)
    measures: dict[str, Callable[[Tensor], Tensor]] = {
        NETWORK: against_network,
        ENLARGED: against_lq,
        f"{ENLARGED}, all places alike": lambda output: noise(output, enlarged(lq, 4)),
        f"{ENLARGED}, less the start's own figure on the same photo": lambda output: against_lq(output) - start,
    }
    for reference, measure in measures.items():
        for psnr in PSNR:
            values = {
                kind: {name: measure(at_psnr(output, base, psnr)).numpy() for name, output in outputs.items()}
                for kind, outputs in changed.items()
            }
            rows += rows_of(reference, {kind: np.stack(list(found.values())) for kind, found in values.items()}, psnr)
            if psnr == 38:
                kinds = {False: "clean", True: "attack"}
                listed += [
                    Row(f"{kinds[kind]}: {name}", f"base: {reference}", f"{np.median(found):.3f}", note="median at 38 dB")
                    for kind in kinds
                    for name, found in values[kind].items()
                ]
    publish("noise", [*rows, *listed], f"The noise measure on {len(held_out)} crops of {SIDE} px, changes of equal PSNR to the base.")


if __name__ == "__main__":
    main()

"""What the model card says about nano, measured: pairs of better and worse pictures, and networks that are rewarded for its score."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.iqa.attacks import LONG, SHORT, strongest
from sr_iqa.iqa.nano import Nano, grid_share
from sr_iqa.iqa.nano_attacks import downscale
from sr_iqa.iqa.nano_families import blur, deconvolve, down_and_up, enlarged, jpeg, low_pass, quantise, tensor, unsharp

CROP_PX = 128
LEAST_CONTRAST = 0.01
"""Crops whose mean vertical difference (range 1) is lower are sky or paper: they are left out."""

Operation = Callable[[np.ndarray], np.ndarray]


def noise(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian noise of sigma / 255, the same at every call."""
    return image + np.random.default_rng(0).normal(0, sigma / 255, image.shape).astype(np.float32)


WORSE: dict[str, dict[str, Operation]] = {
    "blur": {f"sigma {s}": lambda i, s=s: blur(i, s) for s in (0.8, 1.5, 3.0)},
    "noise": {f"sigma {s}": lambda i, s=s: noise(i, s) for s in (5, 10, 20)},
    "downscaling": {f"factor {f}": lambda i, f=f: down_and_up(i, f) for f in (1.5, 2, 4)},
    "JPEG": {f"quality {q}": lambda i, q=q: jpeg(i, q) for q in (60, 30, 10)},
    "ringing": {f"cut-off {c}, sharpened": lambda i, c=c: unsharp(low_pass(i, c), 1.2, 1.5) for c in (0.5, 0.35)},
    "halos": {f"unsharp {s} px x {a}": lambda i, s=s, a=a: unsharp(i, s, a) for s, a in ((1, 5), (2, 2), (2, 4))},
}
"""Degradations of a photo; the degraded photo should score below it."""
BETTER: dict[str, Operation] = {
    "deconvolution 0.6 px x 4": lambda i: deconvolve(i, 0.6, 4),
    "deconvolution 0.8 px x 5": lambda i: deconvolve(i, 0.8, 5),
    "unsharp 0.7 px x 0.4": lambda i: unsharp(i, 0.7, 0.4),
    "unsharp 1 px x 0.5": lambda i: unsharp(i, 1, 0.5),
}
"""Well-chosen enhancements of an ordinary photo; the enhanced photo should score above it."""
BETTER_SOFT: dict[str, Operation] = {
    "deconvolution 1 px x 10": lambda i: deconvolve(i, 1, 10),
    "deconvolution 1.4 px x 10": lambda i: deconvolve(i, 1.4, 10),
    "unsharp 1.2 px x 1": lambda i: unsharp(i, 1.2, 1),
    "unsharp 1 px x 2": lambda i: unsharp(i, 1, 2),
}
"""The same for photos that were resized to twice their size, as the demo's are."""


ATTACK_DISTANCE = 4 / 255
ATTACKS: dict[str, tuple[int, int | None]] = {
    "2 steps": (SHORT, None),
    "20 steps": (LONG, None),
    "2 steps, a tile of 4 px": (SHORT, 4),
    "20 steps, a tile of 4 px": (LONG, 4),
    "20 steps, a tile of 8 px": (LONG, 8),
}
"""Gradient ascent on the score: its steps, and the period of the change."""
STARTS: dict[str, Operation] = {
    "photo": lambda i: i,
    "blur, sigma 1.5": lambda i: blur(i, 1.5),
    "JPEG, quality 30": lambda i: jpeg(i, 30),
    "made 4x smaller and enlarged": lambda i: down_and_up(i, 4),
}
"""What is attacked."""


def textured_crops(photo: np.ndarray) -> list[tuple[slice, slice]]:
    """The windows of a grid of 128 px that are not flat, of a float32 photo (h, w, 3) in [0, 1]."""
    h, w = photo.shape[:2]
    windows = [
        (slice(y, y + CROP_PX), slice(x, x + CROP_PX))
        for y in range(0, h - CROP_PX + 1, CROP_PX)
        for x in range(0, w - CROP_PX + 1, CROP_PX)
    ]
    return [at for at in windows if np.abs(np.diff(photo[at].mean(2), axis=0)).mean() > LEAST_CONTRAST]


def scores(nano: Nano, photo: np.ndarray, windows: Sequence[tuple[slice, slice]]) -> Tensor:
    """The score of every window of a float32 photo, rounded to 8 bits."""
    image = quantise(photo)
    with torch.no_grad():
        return nano(tensor(np.stack([image[at] for at in windows])))


def gains(nano: Nano, photos: Sequence[np.ndarray], operations: Mapping[str, Operation]) -> dict[str, Tensor]:
    """By operation: score after minus score before, of every textured crop of the float32 photos (h, w, 3) in [0, 1]."""
    rows: dict[str, list[Tensor]] = {name: [] for name in operations}
    for photo in photos:
        if windows := textured_crops(photo):
            before = scores(nano, photo, windows)
            for name, operation in operations.items():
                rows[name].append(scores(nano, operation(photo), windows) - before)
    return {name: torch.cat(parts) for name, parts in rows.items()}


def attack_gains(nano: Nano, photos: Sequence[np.ndarray], distance: float = ATTACK_DISTANCE) -> dict[str, dict[str, float]]:
    """By attack and start: the mean gain of the score, over the first textured crop of each float32 photo (h, w, 3) in [0, 1]."""
    crops = [photo[windows[0]] for photo in photos if (windows := textured_crops(photo))]
    starts = {name: tensor(np.stack([quantise(operation(crop)) for crop in crops])) for name, operation in STARTS.items()}
    return {
        attack: {name: float(strongest(nano, images, distance, steps, period).mean()) for name, images in starts.items()}
        for attack, (steps, period) in ATTACKS.items()
    }


@dataclass(frozen=True)
class Output:
    """What a network makes of the held-out crops: mean nano score, PSNR to the originals (dB), share of detail on a 4-px grid."""

    score: float
    psnr: float
    grid: float


def judge(net: nn.Module, nano: Nano, originals: Tensor) -> Output:
    """The figures of a x4 network's outputs, rounded to 8 bits, on (N, 3, H, W) crops that it did not see."""
    with torch.no_grad():
        images = (net(downscale(originals)).clamp(0, 1) * 255).round() / 255
        error = ((images - originals) ** 2).mean((1, 2, 3))
        return Output(float(nano(images).mean()), float(-10 * error.log10().mean()), float(grid_share(images).mean()))


def fine_tune(
    net: nn.Module, nano: Nano, crops: Tensor, targets: Tensor, *, steps: int = 80, lr: float = 5e-4, weight: float = 0.02
) -> nn.Module:
    """A copy of a x4 network after `steps` of L1 to the targets minus weight x score: the demo's reward run in its bluntest form."""
    net, rng = deepcopy(net), np.random.default_rng(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    for _ in range(steps):
        rows = torch.from_numpy(rng.integers(0, len(crops), 8))
        output = net(downscale(crops[rows]))
        loss = F.l1_loss(output, targets[rows])
        if weight:
            loss = loss - weight * nano(output.clamp(0, 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def card(nano: Nano, photos: Sequence[np.ndarray]) -> str:
    """The model card's tables for float32 photos: share of right pairs and mean gain by operation; what attacks gain."""
    lines = []
    groups = [(kind, photos, operations, -1) for kind, operations in WORSE.items()]
    groups += [("better", photos, BETTER, 1), ("better, enlarged x2", [enlarged(photo) for photo in photos], BETTER_SOFT, 1)]
    for kind, images, operations, sign in groups:
        for name, gain in gains(nano, images, operations).items():
            lines.append(f"| {kind} | {name} | {(sign * gain > 0).float().mean():.3f} | {gain.mean():+.1f} | {len(gain)} |")
    found = attack_gains(nano, photos)
    attacks = [f"| {name} | {' | '.join(f'{gain:+.1f}' for gain in row.values())} |" for name, row in found.items()]
    pairs = ["| kind | operation | right | mean gain | pairs |", "|---|---|---|---|---|", *lines]
    return "\n".join([*pairs, "", f"| attack | {' | '.join(STARTS)} |", "|---" * (1 + len(STARTS)) + "|", *attacks])

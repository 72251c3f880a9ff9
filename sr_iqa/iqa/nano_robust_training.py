"""Trains nano_robust: nano's network, on families and distortions of known order, against attacks on its pixels (docs/nano.md).

`python -m sr_iqa.iqa.nano_robust_training --photos DIR --out FILE [--without-attacks]`
"""

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from safetensors.torch import save_file
from torch import Tensor

from sr_iqa.config.metric_models import AttackOptions
from sr_iqa.images import list_images
from sr_iqa.iqa.attacks import attacked, gain_loss
from sr_iqa.iqa.nano import FILTER_GAIN, Nano
from sr_iqa.iqa.nano_distorted import distorted_loss, distorted_pool, draw_distorted
from sr_iqa.iqa.nano_families import label, tensor
from sr_iqa.iqa.nano_ladder import ladder_loss, ladder_pool
from sr_iqa.iqa.nano_training import Families, Recipe, flip, loss_of, read_photo, shipped_base

logger = logging.getLogger(__name__)

GENTLE_GAIN = 4.0
"""Of the filters at the start, in place of nano.FILTER_GAIN. With that, faint patterns and edges respond nearly alike, and attacks within
4/255 gained twice as much."""
UNIT = 0.1
"""The difference of score / 100 that counts as 1, as in `sr-iqa iqa train`."""
FAMILIES = Recipe(families_per_step=6, native_families_per_step=6)
"""How families are made, drawn and ranked: as for nano, where this says nothing else."""


@dataclass(frozen=True)
class Stage:
    """Every number of a stage of the training."""

    seed: int = 0
    steps: int = 1800
    lr: float = 1.5e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.995
    distorted_per_step: int = 10
    distorted_weight: float = 1.5
    ladder_from_step: int = 100
    ladder_weight: float = 3.0
    ladder_batch: int = 4
    attack_from_step: int = 150
    """Before this step nano sees no adversarial example: there is nothing worth attacking yet."""
    attack_ramp_steps: int = 200
    """Over which the weight rises to its full value."""
    attack_weight: float = 0.6
    attack_distance: float = 8.0
    """255ths."""
    attack_steps: int = 12
    attack_shares: tuple[float, ...] = (0.1, 0.2, 0.35, 0.6)
    freely_attacked: int = 12
    tile_attacked: int = 6

    @property
    def attacks(self) -> tuple[tuple[AttackOptions, int], ...]:
        """Kinds of attack, and on how many images of a step."""
        shared = {"distance": self.attack_distance, "steps": self.attack_steps, "shares": self.attack_shares}
        free, tiled = (AttackOptions(**shared, tiled=share) for share in (0, 1))
        return (free, self.freely_attacked), (tiled, self.tile_attacked)


STAGES = (
    Stage(),
    Stage(
        seed=1,
        steps=400,
        lr=6e-4,
        attack_from_step=0,
        attack_ramp_steps=50,
        attack_weight=1.5,
        attack_steps=20,
        attack_shares=(0.06, 0.12, 0.25, 0.5),
        freely_attacked=14,
    ),
)
"""What made the shipped weights. The second stage goes on from the first's, against attacks of many short steps, which had still gained."""


def attack_loss(
    nano: Nano, images: Tensor, best: Tensor, attacks: Sequence[tuple[AttackOptions, int]], rng: Generator
) -> tuple[Tensor, Tensor]:
    """What attacks on some of the images (N, 3, H, W) gain beyond what they are worth, and the mean gain of score / 100.

    Args:
        best: the best versions known, (N, 3, H, W): what the label says of a change is granted to it.
        attacks: kinds of attack, and on how many images.
    """
    starts, references, ends = [], [], []
    nano.requires_grad_(False)
    for options, count in attacks:
        rows = torch.from_numpy(rng.choice(len(images), count, replace=False))
        starts.append(images[rows])
        references.append(best[rows])
        ends.append(attacked(nano, starts[-1], options))
    nano.requires_grad_(True)
    before, after, reference = torch.cat(starts), torch.cat(ends), torch.cat(references)
    granted = (label(after, reference) - label(before, reference)).clamp(min=0)
    gain = (nano(after) - nano(before)) / 100
    return gain_loss((gain - granted) / UNIT), gain.detach().mean()


class Data:
    """All that nano_robust is trained on, cut once from float32 photos."""

    def __init__(self, photos: list[np.ndarray], rng: Generator) -> None:
        self.families = Families(photos, FAMILIES, rng)
        self.distorted = distorted_pool(photos, FAMILIES.crop_px, rng)
        self.ladder = ladder_pool(photos, shipped_base(), rng)


def terms_of(nano: Nano, data: Data, step: int, stage: Stage, rng: Generator) -> dict[str, Tensor]:
    """The weighted terms of one step's loss, and `gain`, which is only watched: what attacks gained of score / 100."""
    batch = data.families.draw(FAMILIES, rng)
    crops, levels = draw_distorted(data.distorted, stage.distorted_per_step, rng)
    distorted = flip(tensor(crops), rng)
    scores = nano(distorted.flatten(0, 1)).unflatten(0, levels.shape) / 100
    local, whole, ranking, _ = loss_of(nano, batch, FAMILIES)
    terms = {"local": local, "whole": whole, "ranking": FAMILIES.rank_weight * ranking}
    terms["distorted"] = stage.distorted_weight * distorted_loss(scores, levels)
    if step >= stage.ladder_from_step:
        terms["ladder"] = stage.ladder_weight * ladder_loss(nano, data.ladder, stage.ladder_batch, rng)
    if stage.attack_weight and step >= stage.attack_from_step:
        clean, worse = distorted[:, :1].expand(-1, 2, -1, -1, -1), distorted[:, 1:]
        images, best = (torch.cat([part, more.flatten(0, 1)]) for part, more in ((batch.images, worse), (batch.best, clean)))
        loss, terms["gain"] = attack_loss(nano, images, best, stage.attacks, rng)
        terms["attacks"] = stage.attack_weight * min(1, (step - stage.attack_from_step) / stage.attack_ramp_steps) * loss
    return terms


def train(photos: Path, stages: Sequence[Stage] = STAGES) -> Nano:
    """Trains nano_robust; the same for given stages, thread count and torch build."""
    rng = np.random.default_rng(stages[0].seed)
    torch.manual_seed(stages[0].seed)
    start = time.time()
    data = Data([read_photo(path) for path in list_images(photos)], rng)
    logger.info("data ready after %.0f s", time.time() - start)
    nano = Nano().to(memory_format=torch.channels_last)
    with torch.no_grad():
        nano.filters.weight *= GENTLE_GAIN / FILTER_GAIN
    for k, stage in enumerate(stages):
        if k:
            torch.manual_seed(stage.seed)
            rng = np.random.default_rng(stage.seed)
        nano = train_stage(nano.requires_grad_(True), data, stage, rng)
    return nano


def train_stage(net: Nano, data: Data, stage: Stage, rng: Generator) -> Nano:
    """Trains a network in place; returns the moving average of its weights."""
    start, history = time.time(), []
    average = Nano().to(memory_format=torch.channels_last)
    average.requires_grad_(False).load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=stage.lr, weight_decay=stage.weight_decay)
    for step in range(stage.steps):
        optimizer.param_groups[0]["lr"] = stage.lr * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / stage.steps))
        terms = terms_of(net, data, step, stage, rng)
        optimizer.zero_grad()
        torch.stack([term for name, term in terms.items() if name != "gain"]).sum().backward()
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(parameter, 1 - min(stage.ema_decay, (step + 1) / (step + 10)))
        history.append({name: term.item() for name, term in terms.items()})
        if (step + 1) % 100 == 0:
            means = {name: np.mean([row.get(name, 0) for row in history[-100:]]) for name in history[-1]}
            logger.info("step %d, %.0f s: %s", step + 1, time.time() - start, ", ".join(f"{k} {v:.4f}" for k, v in means.items()))
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of at least 300 x 300 px")
    parser.add_argument("--out", type=Path, required=True, help="where to write the weights (.safetensors)")
    parser.add_argument("--without-attacks", action="store_true", help="the first stage without attacks, for comparison")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    net = train(arguments.photos, [Stage(attack_weight=0)] if arguments.without_attacks else STAGES)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, arguments.out)


if __name__ == "__main__":
    main()

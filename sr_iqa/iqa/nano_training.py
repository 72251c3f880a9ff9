"""Trains nano from a folder of photos on one CPU core, or measures it: docs/nano.md shows the commands.

`python -m sr_iqa.iqa.nano_training --photos DIR (--out FILE | --evaluate [--weights FILE])`
"""

import argparse
import json
import logging
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sr_iqa.archs import build_network
from sr_iqa.config.metric_models import AttackOptions
from sr_iqa.images import list_images, read_image_lenient
from sr_iqa.iqa.nano import Nano, load_nano
from sr_iqa.iqa.nano_attacks import attack_loss
from sr_iqa.iqa.nano_distorted import distorted_loss, distorted_pool, draw_distorted
from sr_iqa.iqa.nano_evaluation import card
from sr_iqa.iqa.nano_families import MILD_ENHANCEMENTS, label_maps, native_family, reference_family, tensor
from sr_iqa.iqa.nano_ladder import ladder_loss, ladder_pool

logger = logging.getLogger(__name__)

MILD_BONUS = 0.15
"""Label of a well-chosen enhancement of an untouched photo, above its similarity to the photo."""
WORSE_MALUS = 0.1
"""Taken from the label of a degraded photo, so that faint degradations are ranked too."""
NATIVE_MEMBERS = np.array([3, 4, 5, 6, 6, 6, 7, 7, 7, 8])
"""Degraded members of native families, the ones that are hard to tell from sharpness (JPEG, ringing) more often."""


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; the defaults made the shipped weights."""

    seed: int = 0
    crop_px: int = 64
    families_per_photo: int = 10
    native_families_per_photo: int = 6
    steps: int = 1600
    lr: float = 1.5e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.995
    families_per_step: int = 6
    members_per_family: int = 4
    native_families_per_step: int = 6
    distorted_per_step: int = 10
    rank_weight: float = 2.0
    rank_margin: float = 0.8
    """Scores must differ by this share of the difference of the labels."""
    distorted_weight: float = 1.5
    ladder_from_step: int = 100
    ladder_weight: float = 3.0
    ladder_batch: int = 4
    attack_from_step: int = 150
    """Before this step nano sees no adversarial example: there is nothing worth attacking yet."""
    attack_ramp_steps: int = 200
    """Over which the weight rises to its full value."""
    attack_weight: float = 1.2
    attack_distance: float = 8.0
    """255ths."""
    attack_steps: int = 12
    freely_attacked: int = 12
    tile_attacked: int = 6

    @property
    def attacks(self) -> tuple[tuple[AttackOptions, int], ...]:
        """Kinds of attack, and on how many images of a step."""
        free, tiled = (AttackOptions(distance=self.attack_distance, steps=self.attack_steps, tiled=share) for share in (0, 1))
        return (free, self.freely_attacked), (tiled, self.tile_attacked)


@dataclass
class Batch:
    """Images (N, 3, H, W), the best versions that they are labelled against, family number (N,), and `bonus` (N,), added to the label.

    `absolute` (N,) marks images whose reference truly is the best version; the others are only ranked within their family.
    """

    images: Tensor
    best: Tensor
    family: Tensor
    bonus: Tensor
    absolute: Tensor


def read_photo(path: Path) -> np.ndarray:
    """float32 RGB (h, w, 3) in [0, 1]."""
    return read_image_lenient(path).astype(np.float32) / 255


class Families:
    """All families of float32 photos, cut once and kept as uint8 (families, members, h, w, 3)."""

    def __init__(self, images: list[np.ndarray], recipe: Recipe, rng: np.random.Generator) -> None:
        self.reference = np.stack([reference_family(i, recipe.crop_px, rng) for i in images for _ in range(recipe.families_per_photo)])
        self.native = np.stack([native_family(i, recipe.crop_px, rng) for i in images for _ in range(recipe.native_families_per_photo)])

    def draw(self, recipe: Recipe, rng: np.random.Generator) -> Batch:
        """Some members of some families; the photo itself is always among the members of a native family."""
        parts = []
        for k in range(recipe.families_per_step + recipe.native_families_per_step):
            is_native = k >= recipe.families_per_step
            pool = self.native if is_native else self.reference
            members = rng.choice(pool.shape[1], recipe.members_per_family, replace=False)
            if is_native:
                mild = 1 + rng.permutation(MILD_ENHANCEMENTS)[: rng.integers(1, 1 + MILD_ENHANCEMENTS)]
                members = np.array([0, *mild, *rng.choice(NATIVE_MEMBERS, len(members) - 1 - len(mild))])
            crops = flip(tensor(pool[rng.integers(len(pool))][[0, *members]]), rng)
            bonus = is_native * np.select([members == 0, members < 1 + MILD_ENHANCEMENTS], [0, MILD_BONUS], -WORSE_MALUS)
            n, best = len(members), crops[:1].expand_as(crops[1:])
            parts.append(Batch(crops[1:], best, torch.full((n,), k), torch.from_numpy(bonus).float(), torch.full((n,), not is_native)))
        return Batch(*(torch.cat(column) for column in zip(*(vars(part).values() for part in parts), strict=True)))


def flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """One of the eight symmetries of the square, for the whole tensor."""
    images = images.rot90(int(rng.integers(4)), (-2, -1))
    return images.flip(-1) if rng.random() < 0.5 else images


def shipped_base() -> nn.Module:
    """The demo's base network, a SwinIR of 79k parameters: what the demo's runs start from, whose outputs nano has to judge."""
    with safe_open(str(files("sr_iqa") / "assets" / "base_x4.safetensors"), framework="pt") as file:
        net = build_network(json.loads(file.metadata()["network_g"]))
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dictionary)
    return net


def loss_of(nano: Nano, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """Regression of the label at every location, of the label as a whole, ranking within families.

    The score is taken before the grid factor, which needs no training: the convolutions must not make up for it.
    """
    quality, weight = nano.maps(batch.images)
    scores = (quality * weight).sum((1, 2)) / weight.sum((1, 2))
    true_quality, true_weight = label_maps(batch.images, batch.best)
    labels = (true_quality * true_weight).sum((1, 2)) / true_weight.sum((1, 2)) + batch.bonus
    share = true_weight / true_weight.sum((1, 2), keepdim=True)
    local = (share * F.smooth_l1_loss(quality, true_quality, beta=0.1, reduction="none")).sum((1, 2))[batch.absolute].mean()
    whole = F.smooth_l1_loss(scores[batch.absolute], labels[batch.absolute], beta=0.1)
    better = (labels[:, None] - labels) * (batch.family[:, None] == batch.family)
    ranking = F.relu(recipe.rank_margin * better - (scores[:, None] - scores))[better > 0.01].mean()
    return local, whole, ranking


class Data:
    """All that nano is trained on, cut once from float32 photos."""

    def __init__(self, photos: list[np.ndarray], recipe: Recipe, rng: np.random.Generator) -> None:
        self.families = Families(photos, recipe, rng)
        self.distorted = distorted_pool(photos, recipe.crop_px, rng)
        self.ladder = ladder_pool(photos, shipped_base(), rng)


def terms_of(nano: Nano, data: Data, step: int, recipe: Recipe, rng: np.random.Generator) -> dict[str, Tensor]:
    """The weighted terms of one step's loss, and `gain`, which is only watched: what attacks gained of score / 100."""
    batch = data.families.draw(recipe, rng)
    crops, levels = draw_distorted(data.distorted, recipe.distorted_per_step, rng)
    distorted = flip(tensor(crops), rng)
    scores = nano(distorted.flatten(0, 1)).unflatten(0, levels.shape) / 100
    local, whole, ranking = loss_of(nano, batch, recipe)
    terms = {"local": local, "whole": whole, "ranking": recipe.rank_weight * ranking}
    terms["distorted"] = recipe.distorted_weight * distorted_loss(scores, levels)
    if step >= recipe.ladder_from_step:
        terms["ladder"] = recipe.ladder_weight * ladder_loss(nano, data.ladder, recipe.ladder_batch, rng)
    if recipe.attack_weight and step >= recipe.attack_from_step:
        clean, worse = distorted[:, :1].expand(-1, 2, -1, -1, -1), distorted[:, 1:]
        images, best = (torch.cat([part, more.flatten(0, 1)]) for part, more in ((batch.images, worse), (batch.best, clean)))
        loss, terms["gain"] = attack_loss(nano, images, best, recipe.attacks, rng)
        terms["attacks"] = recipe.attack_weight * min(1, (step - recipe.attack_from_step) / recipe.attack_ramp_steps) * loss
    return terms


def train(photos: Path, recipe: Recipe) -> Nano:
    """Trains nano; the same for a given recipe, thread count and torch build."""
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    start = time.time()
    data = Data([read_photo(path) for path in list_images(photos)], recipe, rng)
    logger.info("data ready after %.0f s", time.time() - start)
    net, average = (Nano().to(memory_format=torch.channels_last) for _ in range(2))
    average.requires_grad_(False).load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    history: list[dict[str, float]] = []
    for step in range(recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.lr * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / recipe.steps))
        terms = terms_of(net, data, step, recipe, rng)
        optimizer.zero_grad()
        torch.stack([term for name, term in terms.items() if name != "gain"]).sum().backward()
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(parameter, 1 - min(recipe.ema_decay, (step + 1) / (step + 10)))
        history.append({name: term.item() for name, term in terms.items()})
        if (step + 1) % 100 == 0:
            means = {name: np.mean([row.get(name, 0) for row in history[-100:]]) for name in history[-1]}
            logger.info("step %d, %.0f s: %s", step + 1, time.time() - start, ", ".join(f"{k} {v:.4f}" for k, v in means.items()))
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of at least 300 x 300 px")
    parser.add_argument("--out", type=Path, help="where to write the weights (.safetensors)")
    parser.add_argument("--without-attacks", action="store_true", help="train the same without attacks, for comparison")
    parser.add_argument("--evaluate", action="store_true", help="no training: print the model card's figures for the photos")
    parser.add_argument("--weights", type=Path, help="what to evaluate instead of the shipped weights")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if arguments.evaluate:
        logger.info("%s", card(load_nano(arguments.weights), [read_photo(path) for path in list_images(arguments.photos)]))
    elif arguments.out:
        net = train(arguments.photos, Recipe(attack_weight=0) if arguments.without_attacks else Recipe())
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, arguments.out)
    else:
        parser.error("say --out FILE to train, or --evaluate")


if __name__ == "__main__":
    main()

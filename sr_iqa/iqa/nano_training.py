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
from sr_iqa.images import list_images, read_image_lenient
from sr_iqa.iqa.nano import Nano, load_nano
from sr_iqa.iqa.nano_attacks import Attacker, Upscaler, downscale, pixel_attack
from sr_iqa.iqa.nano_evaluation import card
from sr_iqa.iqa.nano_families import (
    MILD_ENHANCEMENTS,
    label,
    label_maps,
    native_family,
    quantise,
    reference_family,
    sharpen_coarsely,
    tensor,
)
from sr_iqa.iqa.nano_ladder import ladder_loss, ladder_pool

logger = logging.getLogger(__name__)

MILD_BONUS = 0.15
"""Label of a well-chosen enhancement of an untouched photo, above its similarity to the photo."""


WORSE_MALUS = 0.1
"""Taken from the label of a degraded photo, so that faint degradations are ranked too."""
NATIVE_MEMBERS = np.array([3, 4, 5, 6, 6, 6, 7, 7, 7, 8])
"""Degraded members of native families, the ones that are hard to tell from sharpness (JPEG, ringing) more often."""
TARGETS = (0, 0, 2, 3, 10, 11, 12)
"""Members of reference families that the attacking networks are tuned to: the best, the soft, the crisp, enhanced soft ones."""


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; the defaults made the shipped weights."""

    seed: int = 0
    crop_px: int = 64
    families_per_photo: int = 10
    native_families_per_photo: int = 6
    steps: int = 2000
    lr: float = 1.5e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.995
    families_per_step: int = 6
    members_per_family: int = 4
    native_families_per_step: int = 10
    attack_from_step: int = 300
    """Before this step nano sees no adversarial example: there is nothing worth attacking yet."""
    attack_every_steps: int = 2
    campaign_every_steps: int = 100
    campaign_steps: int = 80
    attack_batch: int = 6
    pixel_attack_batch: int = 8
    replay_batch: int = 10
    replay_size: int = 3000
    upscaler_steps: int = 800
    upscaler_lr: float = 1.5e-3
    rank_weight: float = 2.0
    ladder_weight: float = 3.0
    ladder_batch: int = 4
    rank_margin: float = 0.8
    """Scores must differ by this share of the difference of the labels."""


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

    def extended(self, images: Tensor, best: Tensor, family: Tensor) -> "Batch":
        extra = Batch(images, best, family, torch.zeros(len(images)), torch.ones(len(images), dtype=torch.bool))
        return Batch(*(torch.cat([mine, more]) for mine, more in zip(vars(self).values(), vars(extra).values(), strict=True)))


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


class Attacks:
    """The adversarial examples of a run, and a replay of what the attacking networks made: (output, honest output, best) as uint8."""

    def __init__(self, bases: list[nn.Module], recipe: Recipe, rng: np.random.Generator) -> None:
        self.recipe, self.rng, self.bases = recipe, rng, bases
        self.attackers = [Attacker(base, rng) for base in bases]
        self.replay: list[Tensor] = []

    def extend(self, nano: Nano, batch: Batch, step: int) -> Batch:
        """The batch with adversarial examples appended, those made from its images in the same families."""
        r, rng = self.recipe, self.rng
        rows = torch.from_numpy(rng.choice(r.families_per_step, r.attack_batch, replace=False)) * r.members_per_family
        best = batch.best[rows]
        attacker = self.attackers[step // self.recipe.attack_every_steps % len(self.attackers)]
        outputs, honest = self._attack(attacker, nano, batch.images[rows] if rng.random() < 0.5 else best, best)
        attacker.after(float(label(outputs, best).mean()), float(label(honest, best).mean()))
        sharper = tensor(np.stack([quantise(sharpen_coarsely(image, rng)) for image in honest.movedim(1, -1).numpy()]))
        clean = batch.absolute.nonzero().squeeze(1)
        batch = batch.extended(torch.cat([sharper, outputs, honest]), best.repeat(3, 1, 1, 1), batch.family[rows].repeat(3))
        pick = torch.cat([clean, len(batch.images) - 1 - torch.arange(r.attack_batch)])
        pick = pick[torch.from_numpy(rng.choice(len(pick), r.pixel_attack_batch, replace=False))]
        changed = rounded(pixel_attack(nano, batch.images[pick], rng))
        batch = batch.extended(changed, batch.best[pick], batch.family[pick])
        return self._with_replay(batch) if len(self.replay) >= r.replay_batch else batch

    def campaign(self, nano: Nano, data: Families) -> tuple[float, float]:
        """A whole fine-tuning run against a nano that stands still, into the replay; returns the gain of its score and of the label."""
        attacker, gain = Attacker(self.bases[int(self.rng.integers(len(self.bases)))], self.rng), (0.0, 0.0)
        for _ in range(self.recipe.campaign_steps):
            family = self.rng.integers(len(data.reference), size=self.recipe.attack_batch)
            best, target = flip(tensor(data.reference[family[:, None], (0, int(self.rng.choice(TARGETS)))]), self.rng).unbind(1)
            outputs, honest = self._attack(attacker, nano, target, best)
            with torch.no_grad():
                gain = float((nano(outputs) - nano(honest)).mean()) / 100, float((label(outputs, best) - label(honest, best)).mean())
        return gain

    def _attack(self, attacker: Attacker, nano: Nano, target: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        lq = downscale(best)
        honest, outputs = rounded(attacker.honest(lq)), rounded(attacker.step(nano, lq, target))
        for entry in (torch.stack([outputs, honest, best], 1) * 255).round().byte():
            if len(self.replay) < self.recipe.replay_size:
                self.replay.append(entry)
            else:
                self.replay[int(self.rng.integers(self.recipe.replay_size))] = entry
        return outputs, honest

    def _with_replay(self, batch: Batch) -> Batch:
        count = self.recipe.replay_batch
        chosen = torch.stack([self.replay[int(k)] for k in self.rng.integers(len(self.replay), size=count)])
        outputs, honest, best = flip(chosen.float() / 255, self.rng).unbind(1)
        family = -1 - torch.arange(count)
        return batch.extended(torch.cat([outputs, honest]), torch.cat([best, best]), torch.cat([family, family]))


def rounded(images: Tensor) -> Tensor:
    return (images * 255).round() / 255


def shipped_base() -> nn.Module:
    """The demo's base network, a SwinIR of 79k parameters: what the demo's runs start from, whose outputs nano has to judge."""
    with safe_open(str(files("sr_iqa") / "assets" / "base_x4.safetensors"), framework="pt") as file:
        net = build_network(json.loads(file.metadata()["network_g"]))
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dictionary)
    return net


def pretrain(net: nn.Module, data: Families, recipe: Recipe, rng: np.random.Generator) -> nn.Module:
    """Makes an ordinary x4 network, the attackers' starting point: L1 to the best and the soft members of the families."""
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.upscaler_lr)
    for step in range(recipe.upscaler_steps):
        optimizer.param_groups[0]["lr"] = recipe.upscaler_lr * min(1, (step + 1) / 50) * (1 - step / recipe.upscaler_steps)
        rows = rng.integers(len(data.reference), size=8)
        member = np.where(rng.random(8) < 0.5, 2, 0)
        gt = flip(tensor(data.reference[rows, member]), rng)
        loss = F.l1_loss(net(downscale(gt)), gt)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def loss_of(nano: Nano, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Regression of the label at every location, of the label as a whole, ranking within families; and score - label (N,).

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
    return local, whole, ranking, (scores - labels).detach()


def train(photos: Path, recipe: Recipe) -> Nano:
    """Trains nano; the same for a given recipe, thread count and torch build."""
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    start = time.time()
    images = [read_photo(path) for path in list_images(photos)]
    data = Families(images, recipe, rng)
    base = shipped_base()
    bases = [pretrain(Upscaler(), data, recipe, rng), base]
    ladder = ladder_pool(images, base, rng)
    logger.info("data and base networks ready after %.0f s", time.time() - start)
    net, average = (Nano().to(memory_format=torch.channels_last) for _ in range(2))
    average.requires_grad_(False).load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    attacks = Attacks(bases, recipe, rng)
    history = []
    for step in range(recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.lr * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / recipe.steps))
        batch = data.draw(recipe, rng)
        clean = len(batch.images)
        if step >= recipe.attack_from_step and step % recipe.attack_every_steps == 0:
            if step % recipe.campaign_every_steps == 0:
                logger.info("campaign: score %+.3f, label %+.3f", *attacks.campaign(average, data))
            batch = attacks.extend(net, batch, step)
        local, whole, ranking, excess = loss_of(net, batch, recipe)
        optimizer.zero_grad()
        loss = local + whole + recipe.rank_weight * ranking
        if step >= recipe.attack_from_step:
            loss = loss + recipe.ladder_weight * ladder_loss(net, ladder, recipe.ladder_batch, rng)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(parameter, 1 - min(recipe.ema_decay, (step + 1) / (step + 10)))
        history.append((local.item(), whole.item(), ranking.item(), float(excess[clean:].sum()) / max(1, len(excess) - clean)))
        if (step + 1) % 100 == 0:
            text = "step %d, %.0f s: local %.4f, whole %.4f, ranking %.4f, attacked minus label %.3f"
            logger.info(text, step + 1, time.time() - start, *np.mean(history[-100:], 0))
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of at least 300 x 300 px")
    parser.add_argument("--out", type=Path, help="where to write the weights (.safetensors)")
    parser.add_argument("--evaluate", action="store_true", help="no training: print the model card's figures for the photos")
    parser.add_argument("--weights", type=Path, help="what to evaluate instead of the shipped weights")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if arguments.evaluate:
        logger.info("%s", card(load_nano(arguments.weights), [read_photo(path) for path in list_images(arguments.photos)]))
    elif arguments.out:
        net = train(arguments.photos, Recipe())
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, arguments.out)
    else:
        parser.error("say --out FILE to train, or --evaluate")


if __name__ == "__main__":
    main()

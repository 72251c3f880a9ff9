"""A picture of one training sample, for people: what `sr-iqa data show` writes."""

from __future__ import annotations

import cv2
import numpy as np

from .gtset import LQ
from .stream import ONLINE, Plan, TrainStream

TILE = 224
"""Smallest side of a crop on the sheet; smaller ones are enlarged by repeating pixels."""
GAP = 8
LINE = 16


def sample_sheet(stream: TrainStream, n: int) -> np.ndarray:
    """uint8 (H, W, 3) RGB: the LQ with its pixels repeated, then every GT's crop, each with its label and probability below it."""
    plan = stream.plan(n)
    members = range(len(stream.reader.sets[plan.index].paths))
    crops = stream.render(plan, members)
    zoom = -(-TILE // stream.gt_size)
    tiles = [_tile(crops[LQ], zoom * stream.scale, ["LQ", f"{crops[LQ].shape[1]}x{crops[LQ].shape[0]}"])]
    tiles += [_tile(crops[member], zoom, _caption(stream, plan, member)) for member in members]
    return np.concatenate(tiles, axis=1)


def _caption(stream: TrainStream, plan: Plan, member: int) -> list[str]:
    gt_set = stream.reader.sets[plan.index]
    label = f" {gt_set.effective[member - 1]}" if member and gt_set.labels else ""
    if plan.member == ONLINE:
        return [f"EGT {member}{label}" if member else "original", "chosen in the step"]
    share = stream.probabilities_of(plan.n)[member]
    chosen = ", chosen" if member == plan.member else ", negative" if member == plan.negative else ""
    return [f"EGT {member}{label}" if member else "original", f"p = {share:.3f}{chosen}"]


def _tile(crop: np.ndarray, zoom: int, lines: list[str]) -> np.ndarray:
    """A crop, enlarged, on white with its caption."""
    image = crop.repeat(zoom, axis=0).repeat(zoom, axis=1)
    tile = np.full((image.shape[0] + 2 * GAP + LINE * len(lines), image.shape[1] + GAP, 3), 255, np.uint8)
    tile[: image.shape[0], : image.shape[1]] = image
    for row, line in enumerate(lines, 1):
        cv2.putText(tile, line, (2, image.shape[0] + LINE * row), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return tile

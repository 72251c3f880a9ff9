"""A sheet of sample images for people: input, output, original, one row per set."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..config.models import DataOptions
from ..data.store import Reader
from ..evaluation import low_quality
from ..images import to_tensor, to_uint8
from ..inference import upscale
from ..modes import eval_mode

ROWS = 3
LARGEST = 256
GAP = 4


def sample_sheet(net: nn.Module, reader: Reader, data: DataOptions, scale: int, tile: int) -> np.ndarray:
    """uint8 (H, W, 3) RGB: the middle of the reader's first sets; columns: LQ (pixels repeated), output, original."""
    device = next(net.parameters()).device
    rows = []
    for i in range(min(ROWS, len(reader.sets))):
        lq = low_quality(reader, i, data, scale)
        with eval_mode(net), torch.no_grad():
            sr = to_uint8(upscale(net, to_tensor(lq)[None].to(device), tile=tile)[0])
        rows.append((lq.repeat(scale, axis=0).repeat(scale, axis=1), sr, reader.image(i, 0)))
    side = min(LARGEST, max(max(original.shape[:2]) for _, _, original in rows))
    return np.concatenate([np.concatenate([_middle(image, side) for image in row], axis=1) for row in rows])


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    """The middle side x side pixels of (h, w, 3), white where the image is smaller, with a margin."""
    height, width = min(side, image.shape[0]), min(side, image.shape[1])
    y, x = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    tile = np.full((side + GAP, side + GAP, 3), 255, np.uint8)
    tile[:height, :width] = image[y : y + height, x : x + width]
    return tile

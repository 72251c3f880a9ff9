"""Which of our networks a state dict belongs to, and with which options: for weight files that do not say so themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

BIAS_TABLE = "layers.{}.residual_group.blocks.0.attn.relative_position_bias_table"
BLOCK = "layers.0.residual_group.blocks.0"


def detect_network(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The section `{type: ..., <arguments>}` of the network that a state dict fits, or None. Loading it shows whether it really does."""
    if BIAS_TABLE.format(0) in state and "conv_first.weight" in state:
        return _swinir(state)
    if "body.0.rdb1.conv1.weight" in state and "conv_first.weight" in state:
        return _rrdb(state)
    return None


def _swinir(state: Mapping[str, Tensor]) -> dict[str, Any]:
    embed_dim, in_chans = state["conv_first.weight"].shape[:2]
    groups = _count(state, "layers.{}.residual_group.blocks.0.norm1.weight")
    depths = [_count(state, f"layers.{i}.residual_group.blocks.{{}}.norm1.weight") for i in range(groups)]
    window_size = (math.isqrt(state[BIAS_TABLE.format(0)].shape[0]) + 1) // 2
    upsampler, upscale = _swinir_upsampler(state, in_chans)
    return {
        "type": "SwinIR",
        "img_size": _img_size(state, window_size),
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": [state[BIAS_TABLE.format(i)].shape[1] for i in range(groups)],
        "window_size": window_size,
        "mlp_ratio": state[f"{BLOCK}.mlp.fc1.weight"].shape[0] / embed_dim,
        "qkv_bias": f"{BLOCK}.attn.qkv.bias" in state,
        "ape": "absolute_pos_embed" in state,
        "patch_norm": "patch_embed.norm.weight" in state,
        "upscale": upscale,
        "img_range": 255.0 if window_size == 7 else 1.0,  # the official JPEG networks, the only ones with windows of 7
        "upsampler": upsampler,
        "resi_connection": "1conv" if "conv_after_body.weight" in state else "3conv",
    }


def _swinir_upsampler(state: Mapping[str, Tensor], in_chans: int) -> tuple[str, int]:
    if "conv_up1.weight" in state:
        return "nearest+conv", 2 ** _count(state, "conv_up{}.weight", first=1)
    if "conv_before_upsample.0.weight" in state:
        return "pixelshuffle", _shuffle_scale(state)
    if "upsample.0.weight" in state:
        return "pixelshuffledirect", math.isqrt(state["upsample.0.weight"].shape[0] // in_chans)
    return "", 1


def _img_size(state: Mapping[str, Tensor], window_size: int) -> int:
    """The (square) training size: from the position embedding, or from the mask of the first shifted block."""
    if "absolute_pos_embed" in state:
        return math.isqrt(state["absolute_pos_embed"].shape[1])
    masks = [value for name, value in state.items() if name.endswith("attn_mask")]
    if masks:
        return math.isqrt(masks[0].shape[0]) * window_size
    stored = any(name.endswith("relative_position_index") for name in state)
    return window_size if stored else 64  # a file with indices and without masks is of a network without shifts


def _rrdb(state: Mapping[str, Tensor]) -> dict[str, Any]:
    num_feat, unshuffled = state["conv_first.weight"].shape[:2]
    num_out_ch = state["conv_last.weight"].shape[0]
    options = {
        "num_out_ch": num_out_ch,
        "num_feat": num_feat,
        "num_block": _count(state, "body.{}.rdb1.conv1.weight"),
        "num_grow_ch": state["body.0.rdb1.conv1.weight"].shape[0],
    }
    if "upsample.0.weight" in state:
        return {"type": "RRDBPSNet", "num_in_ch": unshuffled, "scale": _shuffle_scale(state), **options}
    unshuffle = math.isqrt(unshuffled // num_out_ch)  # images have as many channels going in as coming out
    return {"type": "RRDBNet", "num_in_ch": num_out_ch, "scale": 4 // max(unshuffle, 1), **options}


def _shuffle_scale(state: Mapping[str, Tensor]) -> int:
    """The product of the pixel shuffles of `upsample`."""
    weights = [value for name, value in state.items() if name.startswith("upsample.") and name.endswith(".weight")]
    return math.prod(math.isqrt(weight.shape[0] // weight.shape[1]) for weight in weights)


def _count(state: Mapping[str, Tensor], pattern: str, first: int = 0) -> int:
    """How many names of a numbered series there are."""
    number = first
    while pattern.format(number) in state:
        number += 1
    return number - first

"""Networks for inference from weight files and adapters, and adapters folded into weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..adapters import base_hash, load_adapters, made_for, merge, set_scale
from ..checkpoints import file_hash, load_network, network_section, read_metadata, save_weights, weight_keys
from ..errors import UserError


def load_for_inference(
    model: Path,
    adapter: Path | Sequence[tuple[Path, float]] | None = None,
    adapter_scale: float = 1.0,
    device: torch.device | str = "cpu",
    check_base: bool = True,
) -> nn.Module:
    """The network of a weight file, with adapters on it if given, in eval mode.

    Args:
        model: .safetensors or .pth of any network that is recognised.
        adapter: an adapter folder or file, or several with the weight of each, which act together.
        adapter_scale: 0 for the base network, 1 for the full adapter, or the whole sum of several.
        check_base: refuse adapters that were trained on other base weights.

    Raises:
        UserError: files that are missing, damaged or do not fit.
    """
    adapters = [(adapter, 1.0)] if isinstance(adapter, Path) else adapter
    net = _base(model, [path for path, _ in adapters or ()])
    if adapters:
        load_adapters(net, adapters, check_base)
        set_scale(net, adapter_scale)
    return net.to(device).eval()


def _base(model: Path, adapters: Sequence[Path]) -> nn.Module:
    """The network of a weight file; of several weights in it those that the adapters were trained on, if one of them is."""
    net = load_network(model)
    wanted = {made_for(path) for path in adapters} - {""}
    if wanted and base_hash(net) not in wanted:
        others = (load_network(model, key) for key in weight_keys(model))
        net = next((other for other in others if base_hash(other) in wanted), net)
    return net


def merge_adapters(model: Path, adapters: Sequence[tuple[Path, float]], output: Path, check_base: bool = True) -> None:
    """Writes base + sum of weight * adapter as plain weights (.safetensors) that any tool loads.

    Raises:
        UserError: another suffix; files that are missing, damaged or do not fit.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: merged weights are written as .safetensors.")
    if output.exists():
        raise UserError(f"{output} is there already; give another name.")
    known = read_metadata(model) if Path(model).suffix == ".safetensors" else {}
    known.pop("adapter_hash", None)
    before = [(known[key] + ", ") if key in known else "" for key in ("merged_adapter", "adapter_scale")]
    merged = {
        "network_g": json.dumps(network_section(model)),
        "parent": Path(model).name,
        "parent_hash": file_hash(model),
        "merged_adapter": before[0] + ", ".join(path.name for path, _ in adapters),
        "adapter_scale": before[1] + ", ".join(str(weight) for _, weight in adapters),
    }
    save_weights(output, merge(load_for_inference(model, adapters, check_base=check_base)), {**known, **merged})

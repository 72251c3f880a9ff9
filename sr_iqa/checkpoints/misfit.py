"""What keeps weights from fitting a network, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..archs.canonical import readings
from ..archs.detect import detect_network
from ..archs.spandrel_bridge import recognise
from .files import SHOWN, nearest, shorten
from .limits import no_larger_than

COMPUTED = ("attn_mask", "relative_position_index")
"""Endings of what a network computes itself, whatever the file says."""


def misfit(net: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> str:
    """What keeps weights from fitting a network, in a few lines: numbers where both are known networks, else names and shapes."""
    lines = [f"{path}: these weights do not fit {type(net).__name__}."]
    numbers = _different_numbers(net, weights)
    return "\n".join(lines + (numbers or _different_names(net, weights)))


def _different_numbers(net: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """The arguments in which the file's network and this one differ; empty where one of them is not known, or they do not differ."""
    theirs, ours = section_of(weights), section_of(net.state_dict())
    if theirs is None or ours is None:
        return []
    if theirs["type"] != ours["type"]:
        return [f"The file is of {theirs['type']} {_shown(theirs)}.", "Take its type and numbers, or leave network_g out."]
    differing = [name for name in theirs if theirs[name] != ours.get(name) and name not in ("type", "img_size")]
    if not differing:
        return []
    said = [f"{name} is {theirs[name]} in the file, {ours.get(name)} in the options" for name in differing]
    return [f"They are of another {theirs['type']}: {'; '.join(said)}.", "Take the file's numbers, or leave network_g out."]


def section_of(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    for reading in readings(state):
        try:
            found = detect_network(reading)
            if found:
                return found
            with no_larger_than(reading, Path()):
                return recognise(reading)[0]
        except Exception:  # whatever foreign constructors trip over: it is not known, then
            continue
    return None


def _shown(section: Mapping[str, Any]) -> str:
    return "(" + ", ".join(f"{name} {value}" for name, value in section.items() if name != "type") + ")"


def _different_names(net: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    own = {name: value for name, value in net.state_dict().items() if not name.endswith(COMPUTED)}
    missing = [name for name in own if name not in weights]
    unknown = [name for name in weights if name not in net.state_dict()]
    shapes = [
        f"{n}: file {tuple(weights[n].shape)}, network {tuple(own[n].shape)}"
        for n in own
        if n in weights and weights[n].shape != own[n].shape
    ]
    lines = []
    if shapes:
        lines.append(f"Shapes differ ({len(shapes)}): {shorten(shapes, '; ')}.")
    if missing:
        near = [name + nearest(name, unknown, " (nearest there: {})") for name in missing[:SHOWN]]
        lines.append(f"Missing in the file ({len(missing)}): {shorten(near + missing[SHOWN:])}.")
    if unknown:
        lines.append(f"Unknown to the network ({len(unknown)}): {shorten(unknown)}.")
    return [*lines, "Check the network's options (depths, embed_dim, num_feat, upsampler, scale, ...) against those it was trained with."]

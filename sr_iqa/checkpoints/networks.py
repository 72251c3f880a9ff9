"""Which network a weight file is for, and loading one into the other. A file's words are trusted as far as they name known networks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook, register_module_parameter_registration_hook

from ..archs import build_network, resolve_network
from ..archs.detect import detect_network
from ..archs.spandrel_bridge import PREFIX, is_of_spandrel, recognise
from ..bind import mismatches
from ..config.models import AUTO, Component, Options
from ..errors import DAMAGED_FILE, UsageError, UserError
from .files import SHOWN, CheckpointError, load_weights, nearest, read_metadata, shorten

logger = logging.getLogger(__name__)

DOWNLOADS = ("VGGFeatureExtractor",)
"""Networks of BasicSR's that fetch weights when they are built: a weight file may not ask for them."""
LARGEST_WINDOWS = 2**12
"""img_size times window_size that a weight file may ask for: a SwinIR computes index and mask of up to 4 bytes times its square."""
MORE_NUMBERS, MORE_TENSORS = 2**26, 1000
"""What a network may hold beyond twice what is in its weight file, such as masks that the file leaves out."""
COMPUTED = ("attn_mask", "relative_position_index")
"""Endings of what a network computes itself, whatever the file says."""


def load_network(path: Path | str, key: str | None = None) -> nn.Module:
    """Builds the network that a weight file is for, loads it, and returns it in eval mode on the CPU.

    Our files say what they are for; only ours, BasicSR's and Spandrel's networks may be named there, never a dotted path, which is code to
    run. Others are recognised by their names and shapes: SwinIR, RRDBNet and HGGT's RRDBPSNet as ours, everything else by Spandrel.

    Raises:
        CheckpointError: as load_weights, and when no network is found.
    """
    return _recognised(Path(path), key)[1].eval()


def network_section(path: Path | str, key: str | None = None) -> dict[str, Any]:
    """The section `{type: ..., <arguments>}` of the network that a weight file is for: what `network_g` would say of it.

    Raises:
        CheckpointError: as load_network.
    """
    return _recognised(Path(path), key)[0]


def with_network(options: Options) -> Options:
    """The options with `network_g` filled in where it is left out: the network that path.pretrain_network_g is for.

    While that file is not there the options stay as they are.

    Raises:
        UsageError: no such path.
        CheckpointError: as load_network.
    """
    if options.network_g.type != AUTO:
        return options
    path = options.path.pretrain_network_g
    if path is None:
        raise UsageError("network_g: missing; give it, or path.pretrain_network_g, whose network it then is")
    if not os.path.exists(path):
        return options
    changed = path.stat()
    section = _section_of_file(path, options.path.param_key_g, (changed.st_mtime_ns, changed.st_size))
    return options.model_copy(update={"network_g": Component.model_validate(section)})


@lru_cache(maxsize=16)
def _section_of_file(path: Path, key: str | None, _version: tuple[int, int]) -> dict[str, Any]:
    return network_section(path, key)


def load_into(net: nn.Module, path: Path | str, key: str | None = None, strict: bool = True) -> None:
    """Loads a weight file into a network.

    With `strict` every name and shape must agree. Without it the tensors that fit are loaded (there must be one); a warning counts them.

    Raises:
        CheckpointError: as load_weights, and when the weights do not fit: names the numbers in which the two networks differ, where the
            file is of a known one, or else missing and unknown names and differing shapes.
    """
    weights = load_weights(path, key)
    own = net.state_dict()
    if is_of_spandrel(net) and not own.keys() <= weights.keys():
        weights = _under_its_names(weights)
    try:
        if strict:
            net.load_state_dict(weights)
            return
        fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        if not fitting:
            raise CheckpointError(_misfit(net, weights, path))
        net.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise CheckpointError(_misfit(net, weights, path)) from error
    if len(fitting) < max(len(own), len(weights)):
        logger.warning("%s: %d of %d tensors loaded into %d.", path, len(fitting), len(weights), len(own))


def _recognised(path: Path, key: str | None) -> tuple[dict[str, Any], nn.Module]:
    """A weight file's network: its section, and itself with the weights."""
    weights = load_weights(path, key)
    said = read_metadata(path).get("network_g") if path.suffix == ".safetensors" else None
    if said:
        return _as_it_says(said, weights, path)
    section = detect_network(weights)
    if section:
        try:
            net = _build(section, weights, path)
            net.load_state_dict(weights)
            return section, net
        except (UsageError, MemoryError, *DAMAGED_FILE):
            pass  # a relative of ours that Spandrel may know
    return _by_spandrel(weights, path)


def _as_it_says(said: str, weights: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], nn.Module]:
    try:
        section = _said_network(said, path)
        net = _build(section, weights, path)
    except (UsageError, MemoryError, *DAMAGED_FILE) as error:
        raise CheckpointError(f"{path}: the network that it names cannot be built ({type(error).__name__}: {error})") from error
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(_misfit(net, weights, path)) from error
    return section, net


def _said_network(said: str, path: Path) -> dict[str, Any]:
    """The section `{type: ..., <arguments>}` in a file's header, as far as it may be trusted."""
    section = json.loads(said)
    name = section["type"]
    if "." in name.removeprefix(PREFIX) or name in DOWNLOADS:
        raise CheckpointError(
            f"{path} is of the network {name}, code that a weight file may not name. Give its run's folder, or an option file whose "
            "network_g names it."
        )
    for argument, problem in mismatches(resolve_network(name), {key: value for key, value in section.items() if key != "type"}):
        raise CheckpointError(f"{path}: what it says of its network cannot be used: {name}: {argument} {problem}")
    return section


def _build(section: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The network of a section that came with the weights, or was guessed from them; never one that is much larger than they are."""
    sizes = section.get("img_size", 64)
    window = section.get("window_size", 1)
    if max(sizes if isinstance(sizes, (list, tuple)) else [sizes]) * window > LARGEST_WINDOWS:
        raise CheckpointError(f"{path}: asks for windows of {window} pixels in images of {sizes}, which is too much")
    if sum(section.get("depths", ())) > len(weights):
        raise CheckpointError(f"{path}: asks for more blocks than it has tensors")
    with no_larger_than(weights, path):
        return build_network(section)


def _by_spandrel(weights: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], nn.Module]:
    try:
        with no_larger_than(weights, path):
            section, weights = recognise(weights)
            net = build_network(section)
        net.load_state_dict(weights)
    except CheckpointError:
        raise
    except UserError as error:
        raise CheckpointError(f"{path}: {error}.") from error
    except Exception as error:  # whatever foreign constructors trip over
        raise CheckpointError(f"{path}: no known network has these weights ({type(error).__name__}: {error}).") from error
    return section, net


def _under_its_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that Spandrel's class has now; as they are where Spandrel does not know them."""
    try:
        return recognise(weights)[1]
    except Exception:  # whatever foreign constructors trip over; what is wrong with the weights is said where they are loaded
        return weights


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Stops whatever builds a network in the block with a CheckpointError before the memory is full: a small file may ask for any size."""
    numbers, tensors = MORE_NUMBERS + 2 * sum(value.numel() for value in weights.values()), MORE_TENSORS + 2 * len(weights)

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal numbers, tensors
        numbers, tensors = numbers - (0 if tensor is None else tensor.numel()), tensors - 1
        if numbers < 0 or tensors < 0:
            raise CheckpointError(f"{path}: asks for a network that is far larger than its weights")

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# ---------------------------------------------------------------- what does not fit


def _misfit(net: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> str:
    """What keeps weights from fitting a network, in a few lines: numbers where both are known networks, else names and shapes."""
    lines = [f"{path}: these weights do not fit {type(net).__name__}."]
    numbers = _different_numbers(net, weights)
    return "\n".join(lines + (numbers or _different_names(net, weights)))


def _different_numbers(net: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """The arguments in which the file's network and this one differ; empty where one of them is not known, or they do not differ."""
    theirs, ours = _section(weights), _section(net.state_dict())
    if theirs is None or ours is None:
        return []
    if theirs["type"] != ours["type"]:
        return [f"The file is of {theirs['type']} {_shown(theirs)}.", "Take its type and numbers, or leave network_g out."]
    differing = [name for name in theirs if theirs[name] != ours.get(name) and name not in ("type", "img_size")]
    if not differing:
        return []
    said = [f"{name} is {theirs[name]} in the file, {ours.get(name)} in the options" for name in differing]
    return [f"They are of another {theirs['type']}: {'; '.join(said)}.", "Take the file's numbers, or leave network_g out."]


def _section(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    try:
        found = detect_network(state)
        if found:
            return found
        with no_larger_than(state, Path()):
            return recognise(state)[0]
    except Exception:  # whatever foreign constructors trip over: it is not known, then
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

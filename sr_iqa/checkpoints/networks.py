"""Which network a weight file is for, and loading one into the other. A file's words are trusted as far as they name known networks."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..archs import NETWORKS, build_network, resolve_network
from ..archs.canonical import readings
from ..archs.detect import detect_network
from ..archs.spandrel_bridge import PREFIX, is_of_spandrel, recognise
from ..bind import mismatches
from ..config.models import AUTO, Component, Options
from ..errors import DAMAGED_FILE, UsageError, UserError
from .files import CheckpointError, load_weights, read_metadata
from .limits import check_section, check_tables, no_larger_than
from .misfit import COMPUTED, misfit

logger = logging.getLogger(__name__)

OF_BASICSR = ("EDSR", "RCAN", "SRVGGNetCompact", "MSRResNet", "RIDNet", "ECBSR")
"""BasicSR's networks from images to images: others read files or fetch weights when they are built."""
TRAINNER_KEY = "metadata"
IDLE = ("img_size", "use_checkpoint", "drop_rate", "attn_drop_rate", "drop_path_rate", "drop_path", "dropout")
"""Arguments that change nothing of what a trained network computes."""
ONLY = {"learn_residual": True}
"""Arguments of traiNNer-redux's networks that have only this value here."""


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
    own = net.state_dict()
    weights = _as_named_by(net, own, load_weights(path, key))
    try:
        if strict:
            net.load_state_dict(weights)
            return
        fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        if not fitting:
            raise CheckpointError(misfit(net, weights, path))
        net.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise CheckpointError(misfit(net, weights, path)) from error
    if len(fitting) < max(len(own), len(weights)):
        logger.warning("%s: %d of %d tensors loaded into %d.", path, len(fitting), len(weights), len(own))


def _as_named_by(net: nn.Module, own: Mapping[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reading of a file's names that has the network's own, or else the one that has most of them."""
    needed = {name for name in own if not name.endswith(COMPUTED)}
    best = max(readings(weights), key=lambda reading: len(needed & reading.keys()))  # of equals the first
    if needed <= best.keys() or not is_of_spandrel(net):
        return best
    try:
        return recognise(weights)[1].state_dict()
    except Exception:  # whatever foreign constructors trip over; what is wrong with the weights is said where they are loaded
        return best


def _recognised(path: Path, key: str | None) -> tuple[dict[str, Any], nn.Module]:
    """A weight file's network: its section, and itself with the weights."""
    weights = load_weights(path, key)
    header = read_metadata(path) if path.suffix == ".safetensors" else {}
    if header.get("network_g"):
        return _as_it_says(header["network_g"], weights, path)
    found = _ours(weights, path) or _of_spandrel(weights, path)
    return _with_numbers(header.get(TRAINNER_KEY), *found, path)


def _as_it_says(said: str, weights: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], nn.Module]:
    try:
        section = _said_network(said, path)
        net = _build(section, weights, path)
    except (UsageError, MemoryError, *DAMAGED_FILE) as error:
        raise CheckpointError(f"{path}: the network that it names cannot be built ({type(error).__name__}: {error})") from error
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(misfit(net, weights, path)) from error
    return section, net


def _ours(weights: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Any], nn.Module] | None:
    for reading in readings(weights):
        try:
            section = detect_network(reading)
            if section:
                net = _build(section, reading, path)
                net.load_state_dict(reading)
                return section, net
        except (UsageError, MemoryError, *DAMAGED_FILE):
            continue  # a relative of ours that Spandrel may know
    return None


def _of_spandrel(weights: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Any], nn.Module]:
    check_tables(weights, path)
    first: Exception | None = None
    for reading in readings(weights):
        try:
            with no_larger_than(reading, path):
                return recognise(reading)
        except CheckpointError:
            raise
        except Exception as error:  # whatever foreign constructors trip over
            first = first or error
    if isinstance(first, UserError):
        raise CheckpointError(f"{path}: {first}.") from first
    raise CheckpointError(f"{path}: no known network has these weights ({type(first).__name__}: {first}).") from first


def _with_numbers(said: str | None, section: dict[str, Any], net: nn.Module, path: Path) -> tuple[dict[str, Any], nn.Module]:
    """The network with the arguments that traiNNer-redux writes into a header, as far as they change what it computes.

    Some leave no trace in the weights: img_range, the scale of ESRGAN x3, ...

    Raises:
        CheckpointError: arguments that the network here does not have, or that do not go with the weights.
    """
    try:
        numbers = json.loads(said) if said else {}
    except ValueError:
        numbers = {}
    if not isinstance(numbers, dict):
        return section, net
    constructor = resolve_network(section["type"])
    parameters = inspect.signature(constructor).parameters
    for name, usual in ONLY.items():
        if name not in parameters and numbers.get(name, usual) != usual:
            raise CheckpointError(f"{path}: its header says {name}: {numbers[name]}, which {section['type']} does not have")
    here = {name: section.get(name, parameter.default) for name, parameter in parameters.items()}
    changed = {name: value for name, value in numbers.items() if name in here and name not in IDLE and value != here[name]}
    if not changed:
        return section, net
    words = ", ".join(f"{name}: {value}" for name, value in changed.items())
    arguments = {name: value for name, value in (section | changed).items() if name != "type"}
    for name, problem in mismatches(constructor, arguments):
        raise CheckpointError(f"{path}: its header says {words}, which cannot be used: {name} {problem}")
    try:
        other = _build(section | changed, net.state_dict(), path)
        other.load_state_dict(net.state_dict())
    except (UserError, MemoryError, *DAMAGED_FILE) as error:
        raise CheckpointError(f"{path}: its header says {words}, which does not go with its weights ({error})") from error
    return section | changed, other


def _said_network(said: str, path: Path) -> dict[str, Any]:
    """The section `{type: ..., <arguments>}` in a file's header, as far as it may be trusted."""
    section = json.loads(said)
    name = section["type"]
    if not (name in NETWORKS or name in OF_BASICSR or (name.startswith(PREFIX) and "." not in name.removeprefix(PREFIX))):
        raise CheckpointError(
            f"{path} is of the network {name}, which is code that a weight file may not name. Give its run's folder, or an option file "
            "whose network_g names it."
        )
    for argument, problem in mismatches(resolve_network(name), {key: value for key, value in section.items() if key != "type"}):
        raise CheckpointError(f"{path}: what it says of its network cannot be used: {name}: {argument} {problem}")
    return section


def _build(section: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The network of a section that came with the weights, or was guessed from them; never one that is much larger than they are."""
    check_section(section, weights, path)
    with no_larger_than(weights, path, builds=2 if section["type"].startswith(PREFIX) else 1):
        return build_network(section)

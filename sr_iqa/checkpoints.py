"""Weights in and out: BasicSR's .pth files and safetensors. Nothing in a file is ever executed."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook, register_module_parameter_registration_hook

from .archs import build_network, resolve_network
from .archs.detect import detect_network
from .atomic import atomic_write
from .bind import mismatches
from .errors import DAMAGED_FILE, UsageError, UserError

logger = logging.getLogger(__name__)

PARAM_KEYS = ("params_ema", "params")
SHOWN = 5
DOWNLOADS = ("VGGFeatureExtractor",)
"""Networks of BasicSR's that fetch weights when they are built: a weight file may not ask for them."""
LARGEST_WINDOWS = 2**12
"""img_size times window_size that a weight file may ask for: a SwinIR computes index and mask of up to 4 bytes times its square."""
MORE_NUMBERS, MORE_TENSORS = 2**26, 1000
"""What a network may hold beyond twice what is in its weight file, such as masks that the file leaves out."""


class CheckpointError(UserError):
    """A weight file that is missing, damaged, or does not fit its network."""


def load_weights(path: Path | str, key: str | None = None) -> dict[str, Tensor]:
    """Reads a state dict onto the CPU.

    Args:
        path: .safetensors, or a .pth/.pt as BasicSR writes them: {"params": ..., "params_ema": ...} or a bare state dict.
        key: which entry of a .pth to take; by default params_ema, else params, else the file itself.

    Raises:
        CheckpointError: no such file, damaged, holds other objects than tensors or numbers that are not finite, or has no such key.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            raise CheckpointError(f"{path} is an adapter: give it as --adapter, and the weights that it was trained on as --model.")
        raise CheckpointError(f"{path} is a folder; give the weight file in it.")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file.{_nearest(path.name, _names_beside(path), ' Did you mean {}?')}")
    if path.suffix == ".safetensors":
        if key is not None:
            raise CheckpointError(f"{path}: a .safetensors file holds one set of weights, it has no '{key}'. Leave the key out.")
        weights = _read_safetensors(path)
    else:
        weights = _choose(_read_pickle(path), key, path)
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    check_finite(weights, path)
    return weights


def load_into(net: nn.Module, path: Path | str, key: str | None = None, strict: bool = True) -> None:
    """Loads a weight file into a network.

    With `strict` every name and shape must agree. Without it the tensors that fit are loaded (there must be one); a warning counts them.

    Raises:
        CheckpointError: as load_weights, and when the weights do not fit: lists missing and unknown names and differing shapes.
    """
    weights = load_weights(path, key)
    try:
        if strict:
            net.load_state_dict(weights)
            return
        own = net.state_dict()
        fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        if not fitting:
            raise CheckpointError(_misfit(net, weights, path))
        net.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise CheckpointError(_misfit(net, weights, path)) from error
    if len(fitting) < max(len(own), len(weights)):
        logger.warning("%s: %d of %d tensors loaded into %d.", path, len(fitting), len(weights), len(own))


def load_network(path: Path | str, key: str | None = None) -> nn.Module:
    """Builds the network that a weight file is for, loads it, and returns it in eval mode on the CPU.

    Our files say what they are for; only ours and BasicSR's networks may be named there, never a dotted path, which is code to run. Others
    are recognised by their names and shapes: SwinIR, RRDBNet and HGGT's RRDBPSNet as ours, everything else by Spandrel.

    Raises:
        CheckpointError: as load_weights, and when no network is found.
    """
    path = Path(path)
    weights = load_weights(path, key)
    said = read_metadata(path).get("network_g") if path.suffix == ".safetensors" else None
    net = None
    try:
        section = _said_network(said, path) if said else detect_network(weights)
        net = _build(section, weights, path) if section else None
    except (UsageError, MemoryError, *DAMAGED_FILE) as error:
        if said:
            raise CheckpointError(f"{path}: the network that it names cannot be built ({type(error).__name__}: {error})") from error
    if net is not None:
        try:
            net.load_state_dict(weights)
            return net.eval()
        except RuntimeError as error:
            if said:
                raise CheckpointError(_misfit(net, weights, path)) from error
    return _from_spandrel(weights, path)


def _said_network(said: str, path: Path) -> dict[str, Any]:
    """The section `{type: ..., <arguments>}` in a file's header, as far as it may be trusted."""
    section = json.loads(said)
    name = section["type"]
    if "." in name or name in DOWNLOADS:
        raise CheckpointError(
            f"{path} is of the network {name}, code that a weight file may not name. Give its run's folder, whose option file does."
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


class SpandrelNetwork(nn.Module):
    """A network that Spandrel recognised, with the padding that it needs; for inference."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.model = descriptor.model
        self.descriptor = descriptor

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B, 3, s*h, s*w) in [0, 1]."""
        return self.descriptor(x)


def _from_spandrel(weights: dict[str, Tensor], path: Path) -> nn.Module:
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    try:
        with no_larger_than(weights, path):
            descriptor = ModelLoader(torch.device("cpu")).load_from_state_dict(weights)
    except UnsupportedModelError as error:
        raise CheckpointError(f"{path}: no known network has these weights.") from error
    except UserError:
        raise
    except Exception as error:  # whatever foreign constructors trip over
        raise CheckpointError(f"{path}: no known network has these weights ({type(error).__name__}: {error}).") from error
    if not isinstance(descriptor, ImageModelDescriptor) or (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        raise CheckpointError(f"{path}: {descriptor.architecture.name} is not a network from RGB images to RGB images.")
    return SpandrelNetwork(descriptor).eval()


def save_weights(path: Path | str, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a .safetensors file atomically, with strings of the caller's in its header.

    Raises:
        CheckpointError: the file could not be written (the previous one is untouched).
    """
    # Copies, because safetensors refuses tensors that share memory.
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state_dict.items()}
    try:
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata=dict(metadata))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: could not be written: {error}. A previous file of that name is untouched.") from error


def read_metadata(path: Path | str) -> dict[str, str]:
    """The strings in the header of a .safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file: {error}") from error


def file_hash(path: Path | str) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of the SHA-256 over names, types, shapes and values: the same for the same weights in any file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged, truncated or not a safetensors file: {error}") from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not loaded, because it is damaged or holds Python objects that could run code; only tensors are accepted."
        ) from error
    except (MemoryError, *DAMAGED_FILE) as error:
        raise CheckpointError(f"{path}: damaged, truncated or not a PyTorch file ({type(error).__name__}: {error})") from error


def _choose(content: object, key: str | None, path: Path) -> dict[str, Tensor]:
    """The state dict inside a .pth file's content."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dictionary of tensors.")
    if key is not None:
        if key not in content:
            raise CheckpointError(f"{path}: has no '{key}'; it holds {_shorten(sorted(map(str, content)))}.")
        weights = content[key]
    else:
        weights = next((content[name] for name in PARAM_KEYS if name in content), content)
    if not isinstance(weights, dict) or not all(isinstance(name, str) and _is_plain(value) for name, value in weights.items()):
        raise CheckpointError(
            f"{path}: no weights found under {' or '.join(PARAM_KEYS)}; it holds {_shorten(sorted(map(str, content)))}. Name the key."
        )
    return weights


def _is_plain(value: object) -> bool:
    """A tensor with memory of its own for every number: no promise of one (meta, sparse, expanded), which copies would keep."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuses what is not finite, the infinities of a mask excepted: a network would turn every image into NaN, without a word."""

    def finite(value: Tensor) -> bool:
        value = value if value.element_size() > 2 else value.float()
        return bool(value.sum().isfinite() or value.isfinite().all())  # the sum alone is quick, but may overflow

    floats = {name: value for name, value in weights.items() if value.is_floating_point() and not name.endswith("mask")}
    wrong = [name for name, value in floats.items() if not finite(value)]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} of {len(weights)} tensors hold NaN or infinity: {_shorten(wrong)}.\n"
            "These weights are spoilt: take an earlier checkpoint, or the file from its source again."
        )


def _misfit(net: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> str:
    """What keeps weights from fitting a network, in a few lines."""
    # Masks and position indices are computed by the network, whatever the file says.
    own = {name: value for name, value in net.state_dict().items() if not name.endswith(("attn_mask", "relative_position_index"))}
    missing = [name for name in own if name not in weights]
    unknown = [name for name in weights if name not in net.state_dict()]
    shapes = [
        f"{n}: file {tuple(weights[n].shape)}, network {tuple(own[n].shape)}"
        for n in own
        if n in weights and weights[n].shape != own[n].shape
    ]
    lines = [f"{path}: these weights do not fit {type(net).__name__}."]
    if shapes:
        lines.append(f"Shapes differ ({len(shapes)}): {_shorten(shapes, '; ')}.")
    if missing:
        nearest = [name + _nearest(name, unknown, " (nearest there: {})") for name in missing[:SHOWN]]
        lines.append(f"Missing in the file ({len(missing)}): {_shorten(nearest + missing[SHOWN:])}.")
    if unknown:
        lines.append(f"Unknown to the network ({len(unknown)}): {_shorten(unknown)}.")
    lines.append("Check the network's options (depths, embed_dim, num_feat, upsampler, scale, ...) against those it was trained with.")
    return "\n".join(lines)


def _shorten(names: list[str], separator: str = ", ") -> str:
    more = len(names) - SHOWN
    return separator.join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _nearest(name: str, choices: list[str], template: str) -> str:
    found = difflib.get_close_matches(name, choices, n=1)
    return template.format(found[0]) if found else ""


def _names_beside(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []

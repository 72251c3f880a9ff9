"""Weights in and out: BasicSR's .pth files and safetensors. Nothing in a file is ever executed."""

from __future__ import annotations

import difflib
import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..atomic import atomic_write
from ..errors import DAMAGED_FILE, UserError

PARAM_KEYS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "net", "model", "generator")
"""Entries under which trainers keep a network, the averaged one first."""
SHOWN = 5
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class CheckpointError(UserError):
    """A weight file that is missing, damaged, or does not fit its network."""


def load_weights(path: Path | str, key: str | None = None) -> dict[str, Tensor]:
    """Reads a state dict onto the CPU.

    Args:
        path: .safetensors, or a .pth/.pt as BasicSR writes them: {"params": ..., "params_ema": ...} or a bare state dict.
        key: which entry of a .pth to take; by default the first of PARAM_KEYS that is there, else the file itself.

    Raises:
        CheckpointError: no such file, damaged, holds other objects than tensors or numbers that are not finite, or has no such key.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            raise CheckpointError(f"{path} is an adapter: give it as --adapter, and the weights that it was trained on as --model.")
        raise CheckpointError(f"{path} is a folder; give the weight file in it.")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file.{nearest(path.name, _names_beside(path), ' Did you mean {}?')}")
    if path.suffix == ".safetensors":
        if key is not None:
            raise CheckpointError(f"{path}: a .safetensors file holds one set of weights, it has no '{key}'. Leave the key out.")
        weights = _read_safetensors(path)
    else:
        weights = _choose(_read_pickle(path), key, path)
    check_finite(weights, path)
    return weights


def weight_keys(path: Path | str) -> list[str]:
    """The entries of a .pth that hold weights, in the order in which `load_weights` looks for them; none for other files."""
    content = None if Path(path).suffix == ".safetensors" else _read_pickle(Path(path))
    return [key for key in PARAM_KEYS if isinstance(content, dict) and isinstance(content.get(key), dict)]


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
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise CheckpointError(
                        f"{path}: not loaded, because its parts are compressed, as PyTorch's never are: they may be of any size."
                    )
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not loaded, because it is damaged or holds Python objects that could run code; only tensors are accepted."
        ) from error
    except (MemoryError, zipfile.BadZipFile, *DAMAGED_FILE) as error:
        raise CheckpointError(f"{path}: damaged, truncated or not a PyTorch file ({type(error).__name__}: {error})") from error


def _choose(content: object, key: str | None, path: Path) -> dict[str, Tensor]:
    """The state dict inside a .pth file's content."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dictionary of tensors.")
    if key is not None:
        if key not in content:
            raise CheckpointError(f"{path}: has no '{key}'; it holds {shorten(sorted(map(str, content)))}.")
        weights = content[key]
    else:
        weights = next((content[name] for name in PARAM_KEYS if isinstance(content.get(name), dict)), content)
    if not isinstance(weights, dict) or not all(isinstance(name, str) and _is_plain(value) for name, value in weights.items()):
        raise CheckpointError(
            f"{path}: no weights found under {', '.join(PARAM_KEYS)}; it holds {shorten(sorted(map(str, content)))}. Name the key."
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
        if value.element_size() < 1 or value.dtype not in FLOATS:
            return False  # some of torch's types have no arithmetic
        value = value if value.element_size() > 2 else value.float()
        return bool(value.sum().isfinite() or value.isfinite().all())  # the sum alone is quick, but may overflow

    floats = {name: value for name, value in weights.items() if value.is_floating_point() and not name.endswith("mask")}
    wrong = [name for name, value in floats.items() if not finite(value)]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} of {len(weights)} tensors hold NaN or infinity: {shorten(wrong)}.\n"
            "These weights are spoilt: take an earlier checkpoint, or the file from its source again."
        )


def shorten(names: list[str], separator: str = ", ") -> str:
    more = len(names) - SHOWN
    return separator.join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def nearest(name: str, choices: list[str], template: str) -> str:
    found = difflib.get_close_matches(name, choices, n=1)
    return template.format(found[0]) if found else ""


def _names_beside(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []

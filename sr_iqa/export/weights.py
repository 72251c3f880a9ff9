"""Weight files, .safetensors and .pth, and who reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..checkpoints import load_network, save_weights
from .portable import Padded
from .source import Source
from .verify import Network, reason

PTH_KEYS = ("params_ema", "params")
UNKNOWN_TO_SPANDREL = ("RRDBPSNet",)
"""Networks whose files Spandrel takes for another architecture's."""


def write_safetensors(source: Source, path: Path, half: bool) -> None:
    """Plain weights, with what is known of them in the header."""
    save_weights(path, _state(source, half), source.metadata | modelspec(source.metadata))


def write_pth(source: Source, path: Path, half: bool, key: str) -> None:
    """`{key: weights}`, as the training and inference scripts around BasicSR read it."""
    torch.save({key: {name: value.contiguous() for name, value in _state(source, half).items()}}, path)


def modelspec(metadata: Mapping[str, str]) -> dict[str, str]:
    """The keys of ModelSpec 1.0.1 (github.com/Stability-AI/ModelSpec) that can be filled in truly."""
    architecture = _architecture(metadata)
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "spandrel" if architecture not in UNKNOWN_TO_SPANDREL else "sr_iqa",
        "modelspec.title": metadata["name"],
        "modelspec.description": f"Image super-resolution x{metadata['scale']}, {architecture}",
    }


def weight_readers(source: Source, path: Path) -> tuple[dict[str, Network], str]:
    """The programs that read a weight file here, and a note on Spandrel where it is not among them."""
    from spandrel import ModelLoader

    readers: dict[str, Network] = {f"sr_iqa {__version__}": load_network(path)}
    kind = source.section["type"]
    if kind in UNKNOWN_TO_SPANDREL:
        return readers, f"Spandrel, and so chaiNNer, does not know {kind}; export ONNX for them."
    try:
        descriptor: Any = ModelLoader(torch.device("cpu")).load_from_file(path)
    except Exception as error:  # whatever foreign constructors trip over
        return readers, f"Spandrel, and so chaiNNer, does not load this {kind} ({reason(error)}); export ONNX for them."
    # Not the descriptor itself, which clamps to [0, 1]: that would hide differences.
    sizes = descriptor.size_requirements
    model = Padded(descriptor.model, sizes.multiple_of, sizes.minimum, descriptor.scale)
    readers[f"Spandrel {version('spandrel')}"] = model.eval()
    return readers, ""


def _state(source: Source, half: bool) -> dict[str, Tensor]:
    state = source.net.state_dict()
    return {name: value.half() if half and value.is_floating_point() else value for name, value in state.items()}


def _architecture(metadata: Mapping[str, str]) -> str:
    return json.loads(metadata["network_g"])["type"].rpartition(".")[2]

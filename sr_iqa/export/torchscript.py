"""TorchScript files: one trace that goes for images of any size. PyTorch has deprecated the format; some programs still want it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .verify import ExportError, Network, reason

METADATA_FILE = "metadata.json"


def write_torchscript(form: nn.Module, path: Path, example: Tensor, metadata: Mapping[str, str]) -> None:
    """Traces a portable network on an example; `metadata` goes into an extra file, metadata.json.

    Raises:
        ExportError: the network cannot be traced.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(form, example, check_trace=False)
            torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    except Exception as error:  # whatever the tracer trips over
        raise ExportError(f"this network cannot be traced ({reason(error)})") from error


def torchscript_reader(path: Path, half: bool) -> Network:
    """The file in PyTorch, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.load(str(path), map_location="cpu")
    return lambda lq: traced(lq.half() if half else lq).float()

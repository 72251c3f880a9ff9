"""What is exported: a plain network, and everything that is known of it as strings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..adapters import adapter_state, merge, set_scale
from ..archs import RRDBNet, RRDBPSNet, SwinIR
from ..checkpoints import file_hash, load_network, network_section, read_metadata, weights_hash
from ..config import load_options
from ..config.models import Options
from ..errors import UsageError
from ..inference import load_for_inference
from ..training.build import starting_network
from ..training.checkpoint import load_trained, training_facts
from ..training.folder import RunFolder, final_weights
from .verify import ExportError, reason

PROBE_PX = 32
OURS = (SwinIR, RRDBNet, RRDBPSNet)
PASSED_ON = (
    *("name", "step", "training_data", "sampling", "sampling_metric", "reward_metric", "options_hash"),
    *("merged_adapter", "adapter_scale", "adapter_hash"),
)
"""Strings of a file's header that go on into what is made of it."""


@dataclass(frozen=True)
class Source:
    """A network to export."""

    net: nn.Module
    """Plain (adapters merged), on the CPU in eval mode."""
    magnification: int
    metadata: dict[str, str]
    """For the header of the file: name, step, scale, network_g, sr_iqa, parent, parent_hash, and what else is known; docs/export.md."""

    @property
    def section(self) -> dict[str, Any]:
        """The section `{type: ..., <arguments>}` that builds the network."""
        return json.loads(self.metadata["network_g"])

    @property
    def only_size(self) -> tuple[int, int] | None:
        """Height and width of the images that a network takes, where it takes no others (a SwinIR with `ape`)."""
        net = self.net
        return net.pos_size if isinstance(net, SwinIR) and net.absolute_pos_embed is not None else None

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())


def read_source(model: Path, adapter: Path | None = None, scale: float = 1.0) -> Source:
    """The network of a weight file or a run's folder, with an adapter merged into it.

    Args:
        model: .safetensors, .pth, or the folder of a run (its newest weights; in LoRA runs its adapter on its base).
        adapter: an adapter folder for the weight file.
        scale: of the adapter: 0 is the base network, 1 the full adapter.

    Raises:
        UsageError: an adapter for a run's folder, which brings its own.
        UserError: files that are missing, damaged or do not fit.
    """
    if RunFolder(model).options.is_file():
        if adapter is not None:
            raise UsageError(f"{model} is a run's folder and brings its own weights; give --adapter with a weight file")
        return _of_run(model, scale)
    net, section = load_network(model), network_section(model)
    known = _passed_on(read_metadata(model)) if model.suffix == ".safetensors" else {}
    known |= {"name": known.get("name", model.stem), "parent": model.name, "parent_hash": file_hash(model)}
    if adapter is not None:
        adapted = load_for_inference(model, adapter, scale)
        net.load_state_dict(merge(adapted))
        known |= _of_adapter(adapted, adapter, scale)
    return _source(net, section, known)


def _of_run(folder: Path, scale: float) -> Source:
    options: Options = load_options(RunFolder(folder).options)
    weights = final_weights(folder)
    net = load_trained(folder)
    known = {"name": options.name, "step": weights.stem.rpartition("_")[2], **training_facts(options)}
    if options.lora:
        set_scale(net, scale)
        adapted, net = net, starting_network(options)
        net.load_state_dict(merge(adapted))
        known |= _of_adapter(adapted, weights, scale)
    else:
        known |= {"parent": weights.name, "parent_hash": file_hash(weights)}
    return _source(net, options.network_g.model_dump(mode="json"), known)


def _of_adapter(adapted: nn.Module, path: Path, scale: float) -> dict[str, str]:
    return {"merged_adapter": path.name, "adapter_scale": str(scale), "adapter_hash": weights_hash(adapter_state(adapted))}


def _passed_on(metadata: Mapping[str, str]) -> dict[str, str]:
    """What is known of a file's origin, without paths of the machine where it was made."""
    kept = {key: metadata[key] for key in PASSED_ON if key in metadata}
    return {key: re.split(r"[/\\]", value)[-1] if key == "training_data" else value for key, value in kept.items()}


def _source(net: nn.Module, section: dict[str, Any], known: dict[str, str]) -> Source:
    net = net.cpu().eval().requires_grad_(False)
    ends = (net.conv_first.in_channels if isinstance(net, SwinIR) else net.conv_last.out_channels) if isinstance(net, OURS) else 3
    if ends != 3:
        raise ExportError(f"{type(net).__name__}: networks for RGB images are exported, this one is for images of {ends} channel(s)")
    magnification = net.upscale if isinstance(net, SwinIR) else _magnification(net)
    own = {"scale": str(magnification), "network_g": json.dumps(section), "sr_iqa": __version__}
    return Source(net, magnification, {**known, **own})


@torch.no_grad()
def _magnification(net: nn.Module) -> int:
    try:
        return net(torch.zeros(1, 3, PROBE_PX, PROBE_PX)).shape[2] // PROBE_PX
    except Exception as error:  # whatever foreign networks trip over
        raise ExportError(f"{type(net).__name__} fails on an image of {PROBE_PX} x {PROBE_PX} pixels: {reason(error)}") from error

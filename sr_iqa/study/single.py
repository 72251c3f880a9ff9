"""What one run offers to the command line: its network, its table of values, its training samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sr_iqa.adapters import set_scale
from sr_iqa.archs import build_network
from sr_iqa.archs.spandrel_bridge import PREFIX
from sr_iqa.checkpoints import load_into, read_metadata
from sr_iqa.config import Options
from sr_iqa.config.models import AUTO
from sr_iqa.data.sheet import sample_sheet
from sr_iqa.errors import UsageError
from sr_iqa.evaluation import Evaluation, evaluate, evaluate_folder
from sr_iqa.images import write_png
from sr_iqa.inference import load_for_inference
from sr_iqa.training.build import build_stream
from sr_iqa.training.checkpoint import load_base, load_trained
from sr_iqa.training.folder import RunFolder, run_folder


def load_model(
    model: Path,
    adapter: Path | Sequence[tuple[Path, float]] | None = None,
    adapter_scale: float = 1.0,
    device: str = "cpu",
    check_base: bool = True,
) -> nn.Module:
    """The network behind `-m`: a run's folder (its newest weights, adapter included) or a weight file.

    Raises:
        UsageError: an adapter for a run's folder, which brings its own.
        UserError: weights that are missing, damaged or do not fit.
    """
    if not RunFolder(model).options.is_file():
        return load_for_inference(model, adapter=adapter, adapter_scale=adapter_scale, device=device, check_base=check_base)
    if adapter is not None:
        raise UsageError(f"{model} is a run's folder and brings its own weights; give --adapter with a weight file")
    net = load_trained(model, device)
    set_scale(net, adapter_scale)
    return net


def described_model(options: Options, model: Path, device: str) -> nn.Module:
    """A weight file in the option file's `network_g`; in the network that it is for where it says so, or where the options do not."""
    says_itself = model.suffix == ".safetensors" and "." not in _said_type(model)
    if model.is_dir() or says_itself or options.network_g.type == AUTO:
        return load_model(model, device=device)
    net = build_network(options.network_g)
    load_into(net, model, options.path.param_key_g)
    return net.to(device).eval()


def _said_type(model: Path) -> str:
    """The type of the network that a .safetensors file names; "." where it names none or, as "package.module.Name", code."""
    said = read_metadata(model).get("network_g")
    try:
        return str(json.loads(said)["type"]).removeprefix(PREFIX) if said else "."
    except (ValueError, LookupError, TypeError):
        return "."


def run_test(
    options: Options,
    model: Path | None = None,
    outputs: Path | None = None,
    save_dir: Path | None = None,
    json_file: Path | None = None,
    device: str = "cpu",
) -> Evaluation:
    """`sr-iqa test`: evaluates a run's newest network, a weight file, or a folder of SR images on datasets.val.

    Raises:
        UsageError: no datasets.val, or both a model and outputs.
        UserError: data, weights or outputs that cannot be used.
    """
    data, val = options.datasets.val, options.val
    if data is None:
        raise UsageError(f"{options.name}: datasets.val is missing; `sr-iqa test` evaluates on it")
    if model and outputs:
        raise UsageError("give either --model or --outputs, not both")
    if outputs:
        evaluation = evaluate_folder(outputs, data, val.metrics, options.scale, val.crop_border, val.max_images, device, val.against)
    else:
        run = model or run_folder(options).root
        net = described_model(options, model, device) if model else load_model(run, device=device)
        base = load_base(run, device) if RunFolder(run).options.is_file() else None
        evaluation = evaluate(
            net, data, val.metrics, options.scale, val.crop_border, val.tile, save_dir, val.max_images, against=val.against, base=base
        )
    if json_file:
        evaluation.write_json(json_file)
    return evaluation


def show_sample(options: Options, n: int, path: Path) -> dict[str, Any]:
    """`sr-iqa data show`: writes training sample n as a picture (LQ, every GT's crop); returns what was drawn for it."""
    stream = build_stream(options)
    write_png(path, sample_sheet(stream, n))
    return stream.describe(n)

"""What one run offers to the command line: its network, its table of values, its training samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from sr_iqa.config import Options
from sr_iqa.data.sheet import sample_sheet
from sr_iqa.errors import UsageError
from sr_iqa.evaluation import Evaluation, evaluate, evaluate_folder
from sr_iqa.images import write_png
from sr_iqa.inference import load_for_inference
from sr_iqa.training.build import build_stream
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.folder import RunFolder, run_folder


def load_model(model: Path, adapter: Path | None = None, adapter_scale: float = 1.0, device: str = "cpu") -> nn.Module:
    """The network behind `-m`: a run's folder (its newest weights, adapter included) or a weight file."""
    if RunFolder(model).options.is_file() and adapter is None:
        return load_trained(model, device)
    return load_for_inference(model, adapter=adapter, adapter_scale=adapter_scale, device=device)


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
        evaluation = evaluate_folder(outputs, data, val.metrics, options.scale, val.crop_border, val.max_images, device)
    else:
        net = load_model(model or run_folder(options).root, device=device)
        evaluation = evaluate(net, data, val.metrics, options.scale, val.crop_border, val.tile, save_dir, val.max_images)
    if json_file:
        evaluation.write_json(json_file)
    return evaluation


def show_sample(options: Options, n: int, path: Path) -> dict[str, Any]:
    """`sr-iqa data show`: writes training sample n as a picture (LQ, every GT's crop); returns what was drawn for it."""
    stream = build_stream(options)
    write_png(path, sample_sheet(stream, n))
    return stream.describe(n)

"""ONNX files, for images of any size or of one, in float32 or float16, and ONNX Runtime as their reader."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .verify import ExportError, Network, reason

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
"""What PyTorch's exporter makes without converting, and what ONNX Runtime 1.14 and newer read."""
INPUT, OUTPUT = "input", "output"


def require_onnx() -> None:
    """Raises ExportError if a package is missing that writes and checks ONNX files."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(f'ONNX files need {", ".join(missing)}: pip install "sr_iqa[export]"')


def write_onnx(
    form: nn.Module, path: Path, example: Tensor, opset: int, dynamic: Mapping[int, str], magnification: int, metadata: Mapping[str, str]
) -> None:
    """Exports a portable network.

    Args:
        form: made by `portable`, in the type of `example`.
        example: (b, 3, h, w); the file is for this size but for the dynamic axes.
        dynamic: axis -> name, of those that may have any size.
        magnification: written into the names of the output's axes.
        metadata: strings for the file's metadata_props.

    Raises:
        ExportError: PyTorch's exporter cannot follow the network, or cannot make this opset.
    """
    import onnx

    shapes = ({axis: torch.export.Dim.DYNAMIC for axis in dynamic},) if dynamic else None
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                *(form, (example,)),
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
        model = program.model_proto
    except Exception as error:  # whatever the exporter trips over
        height, width = example.shape[2:]
        advice = f" for images of any size. Give one size: --static {height}x{width}" if dynamic else f" at {height} x {width} pixels"
        raise ExportError(f"PyTorch's exporter cannot follow this network{advice} ({reason(_cause(error))})") from error
    made = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if made != opset:
        raise ExportError(f"opset {opset} cannot be had for this network, PyTorch made {made}; leave --opset out or give another")
    _tidy(model, dynamic, magnification)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def onnx_reader(path: Path, half: bool) -> Network:
    """The file in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(lq: Tensor) -> Tensor:
        values = (lq.half() if half else lq).numpy()
        return torch.from_numpy(session.run([OUTPUT], {INPUT: values})[0]).float()

    return run


def _tidy(model: Any, dynamic: Mapping[int, str], magnification: int) -> None:
    """Leaves the graph, readable names of axes, and the oldest format version that the opset has, so that older runtimes read it.

    The exporter's notes hold paths of this machine, and its sizes inside the graph are formulas that no runtime needs.
    """
    import onnx

    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    graph.ClearField("value_info")
    for axis, name in dynamic.items():
        graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
        graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name if axis == 0 else f"{magnification}*{name}"
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells much that is no user's business."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _cause(error: BaseException) -> BaseException:
    """The error at the bottom."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error

"""The model card: a Markdown page beside the file that says what it is, from what is recorded and what was measured, and no more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..checkpoints import file_hash
from ..errors import printable
from .source import Source
from .verify import FLOAT_BOUND, Check
from .weights import UNKNOWN_TO_SPANDREL

NOT_RECORDED = "not recorded"
FORMATS = {
    "safetensors": "weights, .safetensors",
    "pth": "weights, PyTorch .pth",
    "onnx": "ONNX graph with weights",
    "torchscript": "TorchScript program with weights (a format that PyTorch has deprecated)",
}
RECORDED = {
    "name": "Name",
    "step": "Training step",
    "training_data": "Training data",
    "sampling": "Choice of ground truths",
    "sampling_metric": "Metric of that choice",
    "reward_metric": "Metric of the reward",
    "parent": "Made from",
    "parent_hash": "Hash of that file (SHA-256, 16 digits)",
    "merged_adapter": "Merged adapter",
    "adapter_scale": "Adapter scale (0 base, 1 full)",
    "adapter_hash": "Hash of the adapter's weights",
}
"""What a card says of a network's origin: key of the metadata -> words."""
ADAPTER_KEYS = ("merged_adapter", "adapter_scale", "adapter_hash")


@dataclass(frozen=True)
class Written:
    """The file that a card is for."""

    name: str
    path: Path
    """Where it lies now; it may get its name later."""
    format: str
    half: bool
    static: tuple[int, int] | None
    key: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


def card(source: Source, written: Written) -> str:
    """The page as Markdown text."""
    parts = [
        f"# {written.name}",
        f"{_title(source)}. Written by sr_iqa {__version__}.",
        "## Network\n\n" + _table(_network(source, written)),
        "## Origin\n\n" + _table(_origin(source.metadata)),
        "## Verification\n\n" + _verification(written),
        "## Use\n\n" + _use(source, written),
        "## Limits\n\n" + _bullets(_limits(source, written)),
        "## Licences\n\n" + LICENCES,
    ]
    return "\n\n".join(parts) + "\n"


def _title(source: Source) -> str:
    kind = source.section["type"].rpartition(".")[2]
    return f"{kind}, images x{source.magnification}" if source.magnification > 1 else f"{kind}, images of the same size"


def _network(source: Source, written: Written) -> dict[str, Any]:
    section = source.section
    numbers = ", ".join(f"{key} {value}" for key, value in section.items() if key != "type")
    size = f"{written.static[0]} x {written.static[1]} pixels, one at a time" if written.static else "any height and width"
    return {
        "Architecture": section["type"],
        "Its numbers": numbers or "the architecture's defaults",
        "Magnification": source.magnification,
        "Parameters": f"{source.parameters:,}",
        "Format": FORMATS[written.format],
        "Weights": "float16" if written.half else "float32",
        "Input": f"RGB images in [0, 1], (batch, 3, height, width), {size}",
        "Output": "the same, magnified; not clamped, so clip it to [0, 1]",
        "File hash (SHA-256, 16 digits)": file_hash(written.path),
        "File size": f"{written.path.stat().st_size:,} bytes",
    }


def _origin(metadata: Mapping[str, str]) -> dict[str, str]:
    rows = {}
    for key, words in RECORDED.items():
        missing = "none" if key in ADAPTER_KEYS and "merged_adapter" not in metadata else NOT_RECORDED
        rows[words] = metadata.get(key, missing)
    return rows


def _verification(written: Written) -> str:
    bound = "2/255, because the weights are rounded to float16" if written.half else f"{FLOAT_BOUND:g}"
    intro = (
        "The file was read back and run on random images in [0, 1]. Largest difference from the network's own float32 output, where white "
        f"is 1 (allowed: {bound}):"
    )
    rows = [f"| {c.reader} | {c.size[0]} | {c.size[1]} x {c.size[2]} | {c.difference:.2g} |" for c in written.checks]
    table = "\n".join(["| read by | images | height x width | difference |", "|---|---|---|---|", *rows])
    return "\n\n".join([intro, table, *written.notes])


def _use(source: Source, written: Written) -> str:
    in_spandrel = not written.notes
    sections = {
        "safetensors": [SR_IQA, *([SPANDREL, CHAINNER_PYTORCH] if in_spandrel else [])],
        "pth": [SR_IQA, *([SPANDREL, CHAINNER_PYTORCH] if in_spandrel else []), BASICSR],
        "onnx": [ONNXRUNTIME, CHAINNER_ONNX],
        "torchscript": [TORCHSCRIPT],
    }[written.format]
    height, width = written.static or (40, 56)
    words = {"FILE": written.name, "KEY": written.key, "HEIGHT": height, "WIDTH": width, "TYPE": "float16" if written.half else "float32"}
    text = "\n\n".join(sections)
    for word, value in words.items():
        text = text.replace(f"<{word}>", str(value))
    return text


def _limits(source: Source, written: Written) -> list[str]:
    kind = source.section["type"]
    limits = [
        "The figures above are of random images on a CPU; other devices and runtimes were not tried, and say nothing of picture quality."
    ]
    if written.static:
        limits.append("Other sizes of images are refused, or give wrong results.")
    if written.format == "torchscript":
        limits.append("PyTorch has deprecated TorchScript; prefer ONNX or the weights where a program takes them.")
    if kind == "SwinIR" and written.format in ("onnx", "torchscript"):
        limits.append("All attention windows of an image are in memory at once; cut large images into tiles.")
    if written.half and written.format in ("onnx", "torchscript"):
        limits.append("It computes in 16 bits: values beyond 65504 inside the network overflow. The images tried above did not cause that.")
    if kind in UNKNOWN_TO_SPANDREL and written.format in ("safetensors", "pth"):
        limits.append(f"{kind} is HGGT's network; Spandrel and chaiNNer take its weights for another one's and fail.")
    return limits


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {key} | {_plain(value)} |" for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _plain(value: Any) -> str:
    """Text of a stranger's file, as text: on one line, and no Markdown or HTML."""
    words = " ".join(printable(str(value)).split())
    return re.sub(r"([\\|`*_\[\]<>#])", r"\\\1", words)


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


LICENCES = """\
- Licence of these weights: not recorded. It depends on the network that training began with and on the training data; ask who made them.
- Metrics of pyiqa are licensed for non-commercial use only. Mind that where such a metric chose the ground truths or gave the reward.
- sr_iqa's own code is Apache-2.0."""

SR_IQA = """\
sr_iqa, on the command line `sr-iqa infer -m <FILE> -i photos -o upscaled`, or:

```python
import torch
from sr_iqa.checkpoints import load_network

net = load_network("<FILE>")
image = torch.rand(1, 3, 40, 56)  # RGB in [0, 1]
with torch.no_grad():
    output = net(image).clamp(0, 1)
```"""

SPANDREL = """\
Spandrel:

```python
import torch
from spandrel import ModelLoader

model = ModelLoader("cpu").load_from_file("<FILE>")
image = torch.rand(1, 3, 40, 56)  # RGB in [0, 1]
output = model(image)
```"""

CHAINNER_PYTORCH = "chaiNNer: PyTorch > Load Model, then Upscale Image."

CHAINNER_ONNX = "chaiNNer: ONNX > Load Model, then Upscale Image, with a tile size that fits your memory."

BASICSR = """\
Scripts around BasicSR: build the network with the numbers above, and load the key `<KEY>`:

```python
import torch

weights = torch.load("<FILE>", weights_only=True)["<KEY>"]
```"""

ONNXRUNTIME = """\
ONNX Runtime:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("<FILE>", providers=["CPUExecutionProvider"])
image = np.random.rand(1, 3, <HEIGHT>, <WIDTH>).astype("<TYPE>")  # RGB in [0, 1]
output = session.run(["output"], {"input": image})[0].clip(0, 1)
```"""

TORCHSCRIPT = """\
PyTorch, without sr_iqa:

```python
import torch

net = torch.jit.load("<FILE>", map_location="cpu")
image = torch.rand(1, 3, <HEIGHT>, <WIDTH>, dtype=torch.<TYPE>)  # RGB in [0, 1]
with torch.no_grad():
    output = net(image).clamp(0, 1)
```"""

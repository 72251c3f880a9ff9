"""The export itself: write beside the place, verify what was written, then give it its name and a card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..atomic import atomic_write
from ..errors import UsageError
from .card import Written, card
from .onnx_file import OPSET, onnx_reader, require_onnx, write_onnx
from .portable import BATCHES, halved, portable
from .source import Source, read_source
from .torchscript import torchscript_reader, write_torchscript
from .verify import FLOAT_BOUND, HALF_BOUND, Check, ExportError, verify
from .weights import PTH_KEYS, weight_readers, write_pth, write_safetensors

SUFFIXES = {"pth": ".pth", "safetensors": ".safetensors", "onnx": ".onnx", "torchscript": ".pt"}
GRAPHS = ("onnx", "torchscript")
"""Formats that hold what the network does, and not its weights alone."""
EXAMPLE = (19, 26)
"""Height and width, in pixels, at which exporters follow a network."""
OTHERS = ((32, 40), (33, 17), (11, 50))
"""More sizes for the verification: one that windows divide, odd ones, and one smaller than two windows."""
WHOLE = ((24, 32), (32, 40))
"""Sizes for weight files: other programs may pad odd ones otherwise, which shows at the border."""


@dataclass(frozen=True)
class Exported:
    """What was made."""

    path: Path
    card: Path
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    """What a user should know of this file."""
    magnification: int


@dataclass(frozen=True)
class Request:
    """How a file is to be."""

    format: str
    half: bool
    opset: int
    static: tuple[int, int] | None
    key: str


def export_network(
    model: Path,
    output: Path,
    format: str | None = None,
    adapter: Path | None = None,
    scale: float = 1.0,
    half: bool = False,
    opset: int | None = None,
    static: str | None = None,
    key: str | None = None,
    force: bool = False,
) -> Exported:
    """Writes a network as a file for other programs, and a model card `<output>.md`; neither appears unless the file was verified.

    Args:
        model: a weight file or a run's folder.
        output: the file; its suffix tells the format where `format` does not.
        format: pth, safetensors, onnx or torchscript.
        adapter: an adapter folder to merge into the network.
        scale: of the adapter, 0 .. 1.
        half: weights in float16; ONNX and TorchScript files then also take and give float16.
        opset: of an ONNX file.
        static: "HxW", the only size of image that an ONNX or TorchScript file is to take.
        key: of a .pth, params_ema or params.
        force: replace existing files.

    Raises:
        UsageError: arguments that do not go together.
        UserError: no such model, an existing file, a missing package.
        ExportError: a file that cannot be made, or that failed the verification.
    """
    request = _request(output, format, half, opset, static, key)
    card_path = output.with_name(f"{output.name}.md")
    for path in (output, card_path):
        if path.is_dir() or (path.exists() and not force):
            raise ExportError(f"{path} exists; " + ("give a file" if path.is_dir() else "give another name, or --force to replace it"))
    if request.format == "onnx":
        require_onnx()
    source = read_source(model, adapter, scale)
    if source.only_size and request.format in GRAPHS and request.static != source.only_size:
        raise ExportError(f"{model}: takes images of one size; add --static {source.only_size[0]}x{source.only_size[1]}")
    with atomic_write(card_path) as page, atomic_write(output) as temporary:
        checks, notes = _write(source, temporary, request)
        written = Written(output.name, temporary, request.format, half, request.static, request.key, checks, notes)
        page.write_text(card(source, written), encoding="utf-8")
    return Exported(output, card_path, checks, notes, source.magnification)


def _write(source: Source, path: Path, request: Request) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """Writes and verifies one file."""
    bound = HALF_BOUND if request.half else FLOAT_BOUND
    if request.format not in GRAPHS:
        if request.format == "pth":
            write_pth(source, path, request.half, request.key)
        else:
            write_safetensors(source, path, request.half)
        readers, note = weight_readers(source, path)
        sizes = [source.only_size] if source.only_size else WHOLE
        return verify(source.net, readers, [(1, *size) for size in sizes], bound), (note,) if note else ()
    form = portable(source.net, source.magnification)
    form = halved(form) if request.half else form
    images, height, width = _sizes(source, request.static)[0]
    example = torch.rand(images, 3, height, width, dtype=torch.float16 if request.half else torch.float32)
    if request.format == "onnx":
        dynamic = {} if request.static else {2: "height", 3: "width"} | ({0: "batch"} if images > 1 else {})
        write_onnx(form, path, example, request.opset, dynamic, source.magnification, source.metadata)
        name, reader = _onnxruntime(), onnx_reader(path, request.half)
    else:
        write_torchscript(form, path, example, source.metadata)
        name, reader = f"TorchScript in PyTorch {torch.__version__}", torchscript_reader(path, request.half)
    advice = "" if request.static else f". If it is a matter of sizes, give one: --static {height}x{width}"
    advice = ". Some networks need more than 16 bits: leave --half out" if request.half else advice
    return verify(source.net, {name: reader}, _sizes(source, request.static), bound, advice), ()


def _sizes(source: Source, static: tuple[int, int] | None) -> Sequence[tuple[int, int, int]]:
    """(images, height, width) of the verification; the first is also what exporters follow the network with."""
    if static:
        return [(1, *static)]
    return [(2 if isinstance(source.net, BATCHES) else 1, *EXAMPLE), *((1, *size) for size in OTHERS)]


def _onnxruntime() -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__} (CPU)"


def _request(output: Path, format: str | None, half: bool, opset: int | None, static: str | None, key: str | None) -> Request:
    """The arguments, checked against each other."""
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}.get(output.suffix)
    known = ", ".join(f"{name} ({suffix})" for name, suffix in SUFFIXES.items())
    if format is not None and format not in SUFFIXES:
        raise UsageError(f"--format {format} is none of {known}")
    if by_suffix is None or format not in (None, by_suffix):
        raise UsageError(f"{output}: its suffix does not go with {f'--format {format}' if format else 'any format'}; choose {known}")
    if opset is not None and by_suffix != "onnx":
        raise UsageError(f"--opset goes with onnx, not with {by_suffix}")
    if static is not None and by_suffix not in GRAPHS:
        raise UsageError(f"--static goes with onnx and torchscript, not with {by_suffix}, which holds weights for any size")
    if key is not None and (by_suffix != "pth" or key not in PTH_KEYS):
        raise UsageError(f"--key goes with pth and is {' or '.join(PTH_KEYS)}")
    return Request(by_suffix, half, opset or OPSET, _size(static), key or PTH_KEYS[0])


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise UsageError(f"--static {text}: give height x width in pixels, such as 256x256")
    return int(match[1]), int(match[2])

"""Images in, images out: whole or in tiles, from any weight file, with an adapter at any scale."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

from .adapters import load_adapter, merge, set_scale
from .checkpoints import load_network, read_metadata, save_weights
from .errors import UserError
from .images import SUFFIXES, ImageError, list_images, read_image_lenient, to_tensor, to_uint8, write_png
from .modes import eval_mode


@torch.no_grad()
def upscale(net: nn.Module, lq: Tensor, tile: int = 0, overlap: int = 16) -> Tensor:
    """Runs a network in eval mode and clamps its output.

    Args:
        net: (N, 3, h, w) -> (N, 3, s*h, s*w).
        lq: (N, 3, h, w) in [0, 1], on the network's device.
        tile: side of the tiles in LQ pixels; 0 for the whole image at once.
        overlap: LQ pixels around each tile that the network sees too; their output is cut away, so that tiles meet without seams.

    Returns:
        (N, 3, s*h, s*w) in [0, 1].
    """
    if tile < 0 or overlap < 0:
        raise UserError(f"tile and overlap must not be negative, got {tile} and {overlap}.")
    height, width = lq.shape[2:]
    with eval_mode(net):
        if tile == 0 or (height <= tile and width <= tile):
            return net(lq).clamp(0, 1)
        out = None
        for top, rows in _tiles(height, tile, overlap):
            for left, columns in _tiles(width, tile, overlap):
                seen = net(lq[:, :, rows, columns])
                scale = seen.shape[2] // (rows.stop - rows.start)
                if out is None:
                    out = seen.new_empty((*seen.shape[:2], scale * height, scale * width))
                target = out[..., _times(top, scale), _times(left, scale)]
                target.copy_(seen[..., _inside(top, rows, scale), _inside(left, columns, scale)])
    assert out is not None  # an image has at least one tile
    return out.clamp(0, 1)


def infer_folder(net: nn.Module, inputs: Path, out: Path, tile: int = 0, device: torch.device | str = "cpu") -> int:
    """Upscales an image, or every image of a folder, to PNGs of the same names in `out`; returns how many.

    Raises:
        UserError: no images, two that would get the same name, or `out` is the input folder; unreadable images are named after the
            others are done.
    """
    inputs, out = Path(inputs), Path(out)
    paths = [inputs] if inputs.is_file() else list_images(inputs)
    if out.is_file() or out.suffix.lower() in SUFFIXES:
        raise UserError(f"{out}: give a folder; the results are written there under their inputs' names, as PNG")
    _check_names(paths, inputs, out)
    net = net.to(device)
    failures = []
    for path in paths:
        try:
            lq = to_tensor(read_image_lenient(path))[None].to(device)
        except ImageError as error:
            failures.append(str(error))
            continue
        try:
            sr = upscale(net, lq, tile)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(f"{path}: {tuple(lq.shape[2:])} pixels are too much for the GPU's memory; use a (smaller) --tile.") from error
        write_png(out / f"{path.stem}.png", to_uint8(sr[0]))
    if failures:
        raise UserError("\n".join([f"{len(failures)} of {len(paths)} images could not be read:", *failures]))
    return len(paths)


def load_for_inference(
    model: Path, adapter: Path | None = None, adapter_scale: float = 1.0, device: torch.device | str = "cpu"
) -> nn.Module:
    """The network of a weight file, with an adapter folder on it if given, in eval mode.

    Args:
        model: .safetensors or .pth of any network that is recognised.
        adapter: a folder written by save_adapter.
        adapter_scale: 0 for the base network, 1 for the full adapter.

    Raises:
        UserError: files that are missing, damaged or do not fit.
    """
    net = load_network(model)
    if adapter is not None:
        load_adapter(net, adapter)
        set_scale(net, adapter_scale)
    return net.to(device).eval()


def merge_adapter(model: Path, adapter: Path, output: Path, scale: float = 1.0) -> None:
    """Writes base + scale * adapter as plain weights (.safetensors) that any tool loads."""
    output = Path(output)
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: merged weights are written as .safetensors.")
    metadata = read_metadata(model) if Path(model).suffix == ".safetensors" else {}
    state = merge(load_for_inference(model, adapter, scale))
    save_weights(output, state, {**metadata, "merged_adapter": Path(adapter).name, "adapter_scale": str(scale)})


def _tiles(size: int, tile: int, overlap: int) -> list[tuple[slice, slice]]:
    """Along one axis: (the tile itself, what the network sees of it), all seen parts of one length, so that shapes repeat."""
    seen = min(tile + 2 * overlap, size)
    tiles = []
    for start in range(0, size, tile):
        first = min(max(start - overlap, 0), size - seen)
        tiles.append((slice(start, min(start + tile, size)), slice(first, first + seen)))
    return tiles


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _inside(part: slice, seen: slice, scale: int) -> slice:
    """`part`, counted from the start of `seen`, in output pixels."""
    return slice((part.start - seen.start) * scale, (part.stop - seen.start) * scale)


def _check_names(paths: list[Path], inputs: Path, out: Path) -> None:
    if not paths:
        raise UserError(f"{inputs}: no images there.")
    if out.resolve() == paths[0].parent.resolve():
        raise UserError(f"{out}: the results would overwrite the inputs; give another folder.")
    twice = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        raise UserError(f"{inputs}: several images would be written to {twice[0]}.png; rename them.")

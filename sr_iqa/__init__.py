"""Super-resolution training guided by image quality assessment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inference.upscaler import Upscaler

__version__ = "0.1.0"


def load_upscaler(
    path: Path | str,
    adapter: Path | str | Sequence[tuple[Path | str, float]] | None = None,
    scale: float = 1.0,
    device: str = "auto",
    precision: str = "no",
    tile: int = 0,
    batch: int = 1,
) -> Upscaler:
    """A trained network, ready to upscale arrays, tensors and Pillow images (docs/python.md).

    >>> import numpy
    >>> upscaler = load_upscaler(Path(__file__).parent / "assets" / "base_x4.safetensors", device="cpu")
    >>> upscaler(numpy.zeros((12, 20, 3), numpy.uint8)).shape
    (48, 80, 3)

    Args:
        path: a weight file (.safetensors or .pth) of any network that is recognised, or a run's folder, whose newest weights are taken.
        adapter: a LoRA adapter to put on a weight file's network, or several as (path, weight); a run's folder brings its own.
        scale: the adapter scale, 0 for the base network, 1 for the full adapter or sum; `upscaler.adapter_scale` changes it later.
        device: cpu, cuda, cuda:1, ...; auto is the GPU where there is one.
        precision: no (float32), bf16, or on a CUDA GPU also tf32 and fp16.
        tile: side of the tiles in pixels of the input; 0 for whole images.
        batch: how many images of one size, or tiles of one image, go through the network together.

    Raises:
        UserError: files that are missing, damaged or do not fit, or options that cannot be used here.
    """
    from .inference.upscaler import load_upscaler as load

    if Path(path).is_dir():
        from .study.single import load_model

        return load(path, adapter, scale, device, precision, tile, batch, load_model)
    return load(path, adapter, scale, device, precision, tile, batch)

"""A network ready to upscale whatever images a program holds: arrays, tensors, Pillow images, pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..adapters import check_scale, lora_layers, set_scale
from ..archs import RRDBNet
from ..archs.layers import keep_last_convolution_exact, to_device
from ..errors import UsageError
from ..iqa.grid import LUMA
from ..modes import pick_device
from .kinds import Taken, check_tensor, take
from .loading import load_for_inference
from .memory import shortage_named
from .pictures import Picture
from .precision import HALVES, check_precision, computing
from .tiles import upscale

T = TypeVar("T")
PROBE_PX = 16


class Upscaler:
    """A network, and how it is run.

    Several threads may share one: calls take turns. `precision` tf32 and no set a switch of the whole process while a call runs.

    >>> upscaler = Upscaler(nn.Upsample(scale_factor=3), batch=2)
    >>> upscaler.magnification
    3
    >>> one, two = upscaler([torch.zeros(3, 5, 8), torch.zeros(2, 3, 4, 4)])
    >>> one.shape, two.shape
    (torch.Size([3, 15, 24]), torch.Size([2, 3, 12, 12]))
    """

    def __init__(
        self,
        net: nn.Module,
        device: torch.device | str = "cpu",
        precision: str = "no",
        tile: int = 0,
        overlap: int = 16,
        batch: int = 1,
        adapter_scale: float = 1.0,
    ) -> None:
        """Takes the network over: it is moved to the device, and with bf16 or fp16 its last convolution is kept in float32.

        Args:
            net: (N, 3, h, w) in [0, 1] -> (N, 3, s*h, s*w); with an adapter on it or without.
            precision: no (float32), tf32, bf16 or fp16.
            tile: side of the tiles in pixels of the input; 0 for whole images.
            overlap: pixels around each tile that the network sees too.
            batch: how many images of one size, or tiles of one image, go through the network together.
            adapter_scale: where the dial stands at first.

        Raises:
            UsageError: a device or precision that cannot be used here, or numbers out of range.
        """
        if tile < 0 or overlap < 0 or batch < 1:
            raise UsageError(f"tile and overlap must not be negative and batch at least 1, got {tile}, {overlap} and {batch}")
        self.device = torch.device(device)
        check_precision(precision, self.device)
        self.net = to_device(net, self.device).eval()
        if precision in HALVES:
            keep_last_convolution_exact(self.net)
        self.precision, self.tile, self.overlap, self.batch = precision, tile, overlap, batch
        self.lock = threading.RLock()
        """Held by every call; hold it to keep others out between setting the dial and a call."""
        self._adapter_scale = 1.0
        if self.has_adapter or adapter_scale != 1:
            self.adapter_scale = adapter_scale

    @property
    def has_adapter(self) -> bool:
        return bool(lora_layers(self.net))

    @property
    def adapter_scale(self) -> float:
        """The dial: 0 is the base network, 1 the full adapter. It may be set at any time; 1 and without effect where there is no adapter.

        Numbers beyond [0, 1] are warned of: nothing was trained there.

        Raises:
            UsageError: set to no finite number, or on a network without adapter.
        """
        return self._adapter_scale

    @adapter_scale.setter
    def adapter_scale(self, scale: float) -> None:
        check_scale(scale)
        self.turn(scale)

    def turn(self, scale: float) -> None:
        """Sets the dial as above, without a warning: for scales that were checked before."""
        if not self.has_adapter:
            raise UsageError("the network has no adapter, so there is no adapter scale to set; load it with adapter=...")
        with self.lock:
            set_scale(self.net, scale)
            self._adapter_scale = float(scale)

    @cached_property
    def is_gray(self) -> bool:
        """Whether the network maps gray images to gray ones; colour images then come out gray."""
        if isinstance(self.net, RRDBNet):  # which may unshuffle its input
            return self.net.conv_last.out_channels == 1
        first = next((module for module in self.net.modules() if isinstance(module, nn.Conv2d)), None)
        return first is not None and first.in_channels == 1

    @cached_property
    def magnification(self) -> int:
        """How many times larger the output is, per side; found by a pass over a few pixels."""
        return self.tensor(torch.zeros(1, 3, PROBE_PX, PROBE_PX)).shape[2] // PROBE_PX

    def __call__(self, image: T) -> T:
        """Upscales one image, or a list of images, and gives back the same kind.

        Args:
            image: one of
                - an array (h, w) gray, (h, w, 3) RGB or (h, w, 4) RGB and alpha: uint8, uint16, or float in [0, 1];
                - a Pillow image of mode 1, L, LA, P, RGB, RGBA or I;16;
                - a tensor (3, h, w) or (N, 3, h, w), float in [0, 1], on any device; N images go through the network together;
                - a `Picture`;
                - a list or tuple of these; neighbours of one size go through the network `batch` at a time, tensors by themselves.

        Returns:
            The same type, with the same channels, values in the same range, on the same device. Gray comes out gray. Alpha is enlarged
            bicubically. A Pillow image keeps its colour profile, EXIF and resolution (1 becomes L, P becomes RGB or RGBA).

        Raises:
            TypeError, ValueError: something that is no such image.
            MemoryShortage: too large for the memory. UserError: an output of NaN.
        """
        if isinstance(image, Tensor):
            return self._of_tensor(image)  # pyright: ignore[reportReturnType]
        if isinstance(image, (list, tuple)):
            return type(image)(self._many(image))  # pyright: ignore[reportCallIssue]
        return self._many([image])[0]

    def picture(self, picture: Picture) -> Picture:
        """One picture, upscaled."""
        return self._many([picture])[0]

    def pictures(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Pictures, upscaled, in the same order; those of one size go through the network `batch` at a time."""
        return self._many(pictures)

    def tensor(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w) in [0, 1] on any device -> (N, 3, s*h, s*w) in [0, 1], float32 on the upscaler's device. Nothing is checked.

        Raises:
            MemoryShortage: too large for the memory.
        """
        height, width = lq.shape[2:]
        what, advice = f"{width}x{height} pixels are", "use a (smaller) tile, or a smaller batch or overlap"
        with self.lock, computing(self.precision, self.device), shortage_named(what, advice):
            sr = upscale(self.net, self.network_input(lq.to(self.device, torch.float32)), self.tile, self.overlap, self.batch)
        return sr.float().expand(-1, 3, -1, -1)

    def network_input(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w) as the network takes it: a gray one is given the luma, (N, 1, h, w)."""
        return (lq * lq.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True) if self.is_gray else lq

    def _of_tensor(self, images: Tensor) -> Tensor:
        check_tensor(images)
        out = self.tensor(images if images.ndim == 4 else images[None]).to(images.device, images.dtype)
        return out if images.ndim == 4 else out[0]

    def _many(self, images: Sequence[Any]) -> list[Any]:
        """Neighbours of one size together; only one batch is held as floats."""
        out: list[Any] = []
        waiting: list[Taken] = []

        def flush() -> None:
            if waiting:
                sr = self.tensor(torch.stack([taken.lq for taken in waiting]))
                out.extend(taken.back(one) for taken, one in zip(waiting, sr, strict=True))
                waiting.clear()

        for image in images:
            if isinstance(image, Tensor):
                flush()
                out.append(self._of_tensor(image))
                continue
            taken = take(image)
            if waiting and (len(waiting) == self.batch or taken.size != waiting[0].size):
                flush()
            waiting.append(taken)
        flush()
        return out

    def __repr__(self) -> str:
        dial = f", adapter scale {self.adapter_scale:g}" if self.has_adapter else ""
        how = f"precision {self.precision}, tile {self.tile}, batch {self.batch}"
        return f"Upscaler({type(self.net).__name__} on {self.device}, {how}{dial})"


def load_upscaler(
    path: Path | str,
    adapter: Path | str | Sequence[tuple[Path | str, float]] | None = None,
    scale: float = 1.0,
    device: str = "auto",
    precision: str = "no",
    tile: int = 0,
    batch: int = 1,
    load: Callable[..., nn.Module] = load_for_inference,
) -> Upscaler:
    """The upscaler of a weight file; `sr_iqa.load_upscaler` takes a run's folder too.

    Args:
        load: what makes a network of `path`, `adapter`, `adapter_scale` and `device`; the rooms above bring what opens a run's folder.

    The others are described there.
    """
    chosen = pick_device(device)
    if isinstance(adapter, (str, Path)):
        adapter = [(adapter, 1.0)]
    adapters = [(Path(place), weight) for place, weight in adapter] if adapter else None
    net = load(Path(path), adapter=adapters, adapter_scale=scale, device="cpu")
    return Upscaler(net, chosen, precision, tile, batch=batch, adapter_scale=scale)

"""The dial per image: the largest adapter scale whose output stays within a budget of distortion from the base network's output.

    dial = parse_dial("auto", "psnr:30")
    choose = ScaleChooser(dial.budget, device)
    chosen = choose(upscaler, picture)     # chosen.picture, chosen.scale, chosen.value

The distance to the base's output grows with the scale almost always, so a bisection finds the scale; that it is within the budget is not
concluded but measured, on the very pixels that are handed out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..adapters import check_scale
from ..errors import UsageError, UserError
from ..images import to_tensor
from ..iqa.ensemble import read_ensemble
from ..iqa.ensemble_text import is_composed, is_trained
from ..iqa.metrics import create_metric, list_metrics, metric_info
from .bands import upscale_bands
from .kinds import LEVELS
from .pictures import Picture, join_bands
from .upscaler import Upscaler

AUTO = "auto"
STEPS = 64
"""Scales are chosen among multiples of 1/STEPS."""
STRIP_PIXELS = 2**20
STREAMED = {"psnr": False, "l1": True}
"""Distances that are summed over strips of the image -> whether lower is better. psnr is on RGB, l1 the mean absolute difference."""
UNBOUNDED = ("psnr", "psnry")
"""Metrics whose best value in the catalogue is only what is usual."""
Shrinking = Callable[[str], None] | None
Distance = Callable[[np.ndarray, np.ndarray], float]
"""Output and base's output, (H, W, 1 or 3) of one type -> the metric's native value."""


@dataclass(frozen=True)
class Budget:
    """How far an output may be from the base network's."""

    metric: str
    bound: float
    lower_better: bool

    def holds(self, value: float) -> bool:
        """Whether a value is within the budget; NaN is not."""
        return value <= self.bound if self.lower_better else value >= self.bound

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.lower_better else '>='} {self.bound:g}"


@dataclass(frozen=True)
class Dial:
    """What `--scale` and `--budget` ask for: scales to give every image, or a budget to choose by."""

    scales: tuple[float, ...] = (1.0,)
    budget: Budget | None = None


@dataclass(frozen=True)
class Chosen:
    """An output within the budget."""

    picture: Picture
    """The output at `scale`."""
    scale: float
    value: float
    """The budget's metric between this output and the base's."""
    passes: int
    """How often the image went through the network: 2 where the whole adapter fits, else 8."""

    def describe(self, budget: Budget) -> str:
        return f"adapter scale {self.scale:.3f} ({budget.metric} {self.value:.4g})"


def parse_dial(scale: str, budget: str | None = None) -> Dial:
    """The texts of `--scale` (a number, several with commas, or auto) and `--budget` (metric:bound, for auto).

    Raises:
        UsageError: one without the other, or a text that cannot be read.
    """
    if scale.strip().lower() == AUTO:
        if budget is None:
            raise UsageError("--scale auto needs a budget to keep to: --budget psnr:30, say, or ssim:0.95, l1:0.01, lpips:0.1")
        return Dial((), parse_budget(budget))
    if budget is not None:
        raise UsageError(f"--budget {budget} chooses the adapter scale and goes with --scale auto, not with --scale {scale}")
    return Dial(parse_scales(scale))


def parse_scales(text: str) -> tuple[float, ...]:
    """`0.6` or `0,0.5,1`, in the order given. Raises UsageError."""
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--scale {text}: give a number from 0 to 1, several with commas between them (0,0.5,1), or auto") from None
    names = [f"{scale:g}" for scale in scales]  # which the results have behind theirs
    for scale, name in zip(scales, names, strict=True):
        check_scale(scale)
        if names.count(name) > 1:
            raise UsageError(f"--scale {text}: {name} is there twice")
    return scales


def parse_budget(text: str) -> Budget:
    """`metric:bound`: at least the bound for metrics of which higher is better, at most the bound for the others.

    The metric is psnr, l1, one of the catalogue, an ensemble or a trained metric's file.

    Raises:
        UsageError: not of this form, a bound that even equal images would miss, or no full-reference metric.
    """
    name, _, number = text.partition(":")
    name = name.strip()
    name = name if _is_other(name) else name.lower()
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise UsageError(f"--budget {text}: give it as metric:number, as in psnr:30, ssim:0.95, l1:0.01 or lpips:0.1")
    lower_better = STREAMED[name] if name in STREAMED else _lower_better(name, text)
    best = _best(name, lower_better)
    if (bound < best) if lower_better else (bound > best):
        raise UsageError(f"--budget {text}: {name} is {best:g} at best, so nothing would be within it")
    return Budget(name, bound, lower_better)


class ScaleChooser:
    """Chooses for one image after the other; the metric is built once, before the first."""

    def __init__(self, budget: Budget, device: torch.device | str = "cpu") -> None:
        """Raises UserError where the metric's weights are missing."""
        self.budget = budget
        self._distance = _STREAMED[budget.metric] if budget.metric in STREAMED else _metric_distance(budget.metric, device)

    def __call__(self, upscaler: Upscaler, picture: Picture, shrinking: Shrinking = None) -> Chosen:
        """The output at the largest multiple of 1/64 that the bisection finds within the budget; the upscaler's own scale is put back.

        The full adapter is tried first. Scale 0, the base's own output, is within every budget. Three outputs are held in memory, as
        levels. `shrinking` is as in upscale_bands.

        Raises:
            UserError: as the upscaler, or an image that the metric cannot take.
        """
        with upscaler.lock:
            before, upscaler.adapter_scale = upscaler.adapter_scale, 0.0
            try:
                return self._choose(upscaler, picture, shrinking)
            finally:
                upscaler.adapter_scale = before

    def _choose(self, upscaler: Upscaler, picture: Picture, shrinking: Shrinking) -> Chosen:
        base = _output(upscaler, picture, shrinking)
        best, passes = Chosen(base, 0.0, math.nan, 1), 1
        low, high, step = 0, STEPS + 1, STEPS  # within the budget; not known to be; tried next
        while high - low > 1:
            upscaler.adapter_scale = step / STEPS
            output = _output(upscaler, picture, shrinking)
            passes += 1
            value = self._distance(output.pixels, base.pixels)
            if self.budget.holds(value):
                best, low = Chosen(output, step / STEPS, value, passes), step
            else:
                high = step
            del output  # or it would be held while the next is made
            step = (low + high) // 2
        value = best.value if low else self._distance(base.pixels, base.pixels)
        return Chosen(best.picture, best.scale, value, passes)


def _output(upscaler: Upscaler, picture: Picture, shrinking: Shrinking) -> Picture:
    """The output in levels; floats exist for one band of tiles only."""
    height, width = (upscaler.magnification * side for side in picture.size)
    return join_bands((height, width), (band[0] for band in upscale_bands(upscaler, [picture], shrinking)))


def _psnr(output: np.ndarray, base: np.ndarray) -> float:
    squares = sum(float(np.square(difference).sum()) for difference in _differences(output, base))
    return math.inf if squares == 0 else 10 * math.log10(output.size / squares)


def _l1(output: np.ndarray, base: np.ndarray) -> float:
    return sum(float(np.abs(difference).sum()) for difference in _differences(output, base)) / output.size


_STREAMED: dict[str, Distance] = {"psnr": _psnr, "l1": _l1}


def _differences(output: np.ndarray, base: np.ndarray) -> Iterator[np.ndarray]:
    """Strips of the difference in [-1, 1], in float64: an image of any size needs only little memory beside itself."""
    rows = max(1, STRIP_PIXELS // output.shape[1])
    for top in range(0, len(output), rows):
        yield (output[top : top + rows].astype(np.float64) - base[top : top + rows]) / LEVELS[output.dtype]


def _metric_distance(name: str, device: torch.device | str) -> Distance:
    """Any other metric, on the whole image at once."""
    metric = create_metric(name, device)

    def images(pixels: np.ndarray) -> torch.Tensor:
        planes = to_tensor(pixels) * (255 / LEVELS[pixels.dtype])
        return planes.expand(3, -1, -1)[None].to(device)

    def distance(output: np.ndarray, base: np.ndarray) -> float:
        with torch.no_grad():
            return float(metric(images(output), images(base)))

    return distance


def _lower_better(name: str, text: str) -> bool:
    """Only metrics that compare two images can be a distance."""
    if _is_other(name):
        try:
            infos = [metric_info(member) for member in (read_ensemble(name)[0].names if is_composed(name) else (name,))]
            lower_better = metric_info(name).lower_better
        except UserError as error:
            raise UsageError(f"--budget {text}: {error}") from error
        if alone := next((info.name for info in infos if info.mode != "FR"), None):
            raise UsageError(f"--budget {text}: {alone} does not compare two images")
        return lower_better
    usable = sorted({"l1", *(info.name for info in list_metrics() if info.mode == "FR" and not info.refused)})
    if name in usable:
        return metric_info(name).lower_better
    known = name in (info.name for info in list_metrics())
    why = f"{name} does not compare two images" if known else f"there is no metric '{name}'"
    raise UsageError(f"--budget {text}: {why}; a budget can be of {', '.join(usable)}")


def _is_other(name: str) -> bool:
    """Whether it is an ensemble or a trained metric's file."""
    return is_composed(name) or is_trained(name)


def _best(name: str, lower_better: bool) -> float:
    """The value of two equal images, as far as it is known to be the best."""
    if name == "l1":
        return 0.0
    if name in UNBOUNDED or is_composed(name):  # psnr may be a member, and statistics bound nothing
        return math.inf
    low, high = metric_info(name).value_range
    return low if lower_better else high

"""Networks with a dial, evaluated at several of its settings: an adapter's scale, or how far to go from one network to another (DNI).

Every setting is evaluated once for the same weights, data and metrics; a call that was killed goes on at the setting where it was.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from sr_iqa.adapters import lora_layers, merge, set_scale
from sr_iqa.atomic import atomic_write
from sr_iqa.checkpoints import file_hash
from sr_iqa.errors import UsageError
from sr_iqa.interpolation import interpolate

from .results import MetricValues

logger = logging.getLogger(__name__)

DEFAULT_SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_SCALES = 50
Metrics = dict[str, MetricValues]


def checked_scales(given: Iterable[float]) -> tuple[float, ...]:
    """The scales in rising order, each once, 0 and 1 always among them: the base, and the network as it was trained.

    Raises:
        ValueError: negative or not finite, or more than anybody will look at.
    """
    scales = sorted({0.0, 1.0, *map(float, given)})
    wrong = [scale for scale in scales if not math.isfinite(scale) or scale < 0]
    if wrong:
        raise ValueError(f"expected scales of 0 (the base) or more, such as 0, 0.5, 1; got {wrong[0]:g}")
    if len(scales) > MOST_SCALES:
        raise ValueError(f"expected at most {MOST_SCALES} different scales, got {len(scales)}")
    return tuple(scales)


def parse_scales(text: str) -> tuple[float, ...]:
    """Those of `0,0.25,1` as a command line has them; raises UsageError."""
    try:
        given = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--scales {text}: expected numbers with commas between them, such as 0,0.25,0.5,0.75,1") from None
    try:
        return checked_scales(given)
    except ValueError as error:
        raise UsageError(f"--scales {text}: {error}") from None


def warn_beyond(scales: Iterable[float], what: str) -> None:
    """A warning where the dial is turned further than training went."""
    beyond = [f"{scale:g}" for scale in scales if scale > 1]
    if beyond:
        logger.warning("%s at %s: beyond 1 nothing was trained; the curve is extrapolated there.", what, ", ".join(beyond))


class Turned(Protocol):
    """A network with a dial."""

    def at(self, scale: float) -> Any:
        """A context that gives the network at a scale."""
        ...


class AdapterDial:
    """A network with an adapter, loaded at the first use and then kept."""

    def __init__(self, load: Callable[[], nn.Module]) -> None:
        self._load, self._net = load, None

    @contextmanager
    def at(self, scale: float) -> Iterator[nn.Module]:
        """The network with its adapter at `scale`; afterwards it is at 1 again, whatever happened."""
        if self._net is None:
            self._net = self._load()
        set_scale(self._net, scale)
        try:
            yield self._net
        finally:
            set_scale(self._net, 1.0)


class DniDial:
    """Two networks that are alike, loaded at the first use: 0 is the first, 1 the second.

    `load` gives a network to put weights into, the first one's weights and the second one's.
    """

    def __init__(self, load: Callable[[], tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]]) -> None:
        self._load, self._ends = load, None

    @contextmanager
    def at(self, scale: float) -> Iterator[nn.Module]:
        """The network between them, always the same module.

        Raises:
            InterpolationError: they are not alike.
        """
        if self._ends is None:
            self._ends = self._load()
        net, a, b = self._ends
        net.load_state_dict(interpolate(a, b, scale))
        yield net


def plain_weights(net: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights of a network, its adapter (if it has one) merged into them."""
    if lora_layers(net):
        return merge(net)
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def evaluate_scales(
    dial: Turned,
    scales: Iterable[float],
    place: Callable[[float], tuple[Path, Path]],
    made_from: Mapping[str, Any],
    judge: Callable[[nn.Module, Path], Metrics],
    say: Callable[[float, Metrics], None] = lambda scale, metrics: None,
) -> dict[float, Metrics]:
    """Scale -> column -> values.

    Args:
        place: scale -> (the record of its values, the folder of its outputs).
        made_from: what the values depend on besides the scale.
        judge: evaluates a network and writes its outputs into a folder.
        say: takes what has just been evaluated, or found.
    """
    found = {}
    for scale in scales:

        def compute(outputs: Path, scale: float = scale) -> Metrics:
            with dial.at(scale) as net:
                return judge(net, outputs)

        record, outputs = place(scale)
        found[scale] = recorded(record, {**made_from, "scale": scale}, outputs, compute)
        say(scale, found[scale])
    return found


def recorded(record: Path, made_from: Mapping[str, Any], outputs: Path, compute: Callable[[Path], Metrics]) -> Metrics:
    """The values that a record holds if it was made from the same, else those that `compute` makes, recorded as a whole or not at all."""
    if record.is_file() and (known := json.loads(record.read_text()))["made_from"] == made_from and outputs.is_dir():
        return known["metrics"]
    metrics = compute(outputs)
    with atomic_write(record) as path:
        path.write_text(json.dumps({"made_from": made_from, "metrics": metrics}))
    return metrics


def weights_identity(path: Path) -> str:
    """A hash that changes when a weight file, or a file of an adapter's folder, does."""
    return "-".join(map(file_hash, sorted(path.iterdir()))) if path.is_dir() else file_hash(path)

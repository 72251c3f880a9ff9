"""Networks with a dial, evaluated at several of its settings: an adapter's scale, or how far to go from one network to another (DNI).

Every setting is evaluated once for the same weights, data and metrics; a call that was killed goes on at the setting where it was.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sr_iqa import __version__
from sr_iqa.adapters import lora_layers, merge, set_scale
from sr_iqa.adapters.files import CONFIG_FILE, WEIGHTS_FILE
from sr_iqa.atomic import atomic_write
from sr_iqa.checkpoints import file_hash
from sr_iqa.config import Options, load_options
from sr_iqa.config.models import DataOptions, ValOptions
from sr_iqa.data.sets import fingerprint
from sr_iqa.errors import UsageError, UserError
from sr_iqa.interpolation import InterpolationError, differences, interpolate
from sr_iqa.iqa.metrics import Metric
from sr_iqa.training.build import starting_network
from sr_iqa.training.folder import RunFolder, final_weights, git_commit

from .results import MetricValues

logger = logging.getLogger(__name__)

DEFAULT_SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_SCALES = 50
Metrics = dict[str, MetricValues]
Place = tuple[Path, Path]
"""The record of a network's values, and the folder of its outputs, `<set>.png`."""


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
    """Two networks that are alike, weight files or runs' folders, which `load` loads when they are needed: 0 is the first, 1 the second."""

    def __init__(self, load: Callable[[Path], nn.Module], ends: tuple[Path, Path]) -> None:
        self._load, self._paths, self._loaded = load, ends, None

    @contextmanager
    def at(self, scale: float) -> Iterator[nn.Module]:
        """The network between them, always the same module. Raises as `ends`."""
        net, a, b = self.ends()
        net.load_state_dict(interpolate(a, b, scale))
        yield net

    def ends(self) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
        """A network to put weights into, and the weights of both ends, adapters merged.

        Raises:
            InterpolationError: they are not alike.
        """
        if self._loaded is None:
            both = [self._load(path) for path in self._paths]
            a, b = map(plain_weights, both)
            if wrong := differences(a, b):
                raise InterpolationError(wrong)
            plain = next((net for net in both if not lora_layers(net)), None)
            if plain is None:
                plain = starting_network(load_options(RunFolder(self._paths[0]).options)).to(next(iter(a.values())).device).eval()
            self._loaded = plain, a, b
        return self._loaded


def plain_weights(net: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights of a network, its adapter (if it has one) merged into them."""
    if lora_layers(net):
        return merge(net)
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


# ---------------------------------------------------------------- once


def evaluate_scales(
    dial: Turned,
    scales: Iterable[float],
    place: Callable[[float], Place],
    made_from: Mapping[str, Any],
    judge: Callable[[nn.Module, Path], Metrics],
    device: str,
    say: Callable[[float, Metrics], None] = lambda scale, metrics: None,
) -> dict[float, Metrics]:
    """Scale -> column -> values.

    Args:
        place: scale -> where its values and outputs are.
        made_from: what the values depend on besides the scale.
        judge: evaluates a network and writes its outputs into a folder.
        device: for the record.
        say: takes what has just been evaluated, or found.
    """
    found = {}
    for scale in scales:

        def compute(outputs: Path, scale: float = scale) -> Metrics:
            with dial.at(scale) as net:
                return judge(net, outputs)

        found[scale] = recorded(place(scale), {**made_from, "scale": scale}, compute, device)
        say(scale, found[scale])
    return found


def recorded(place: Place, made_from: Mapping[str, Any], compute: Callable[[Path], Metrics], device: str) -> Metrics:
    """The values that a record holds if it was made from the same, else those that `compute` makes, recorded as a whole or not at all."""
    if (found := known(place, made_from)) is not None:
        return found
    record, outputs = place
    record.unlink(missing_ok=True)  # its outputs are overwritten one by one: what a kill leaves of them must not pass for its own
    metrics = compute(outputs)
    computed = {"git_commit": git_commit(), "device": device_name(device), "time": datetime.now().isoformat(timespec="seconds")}
    with atomic_write(record) as path:
        path.write_text(json.dumps({"made_from": made_from, "computed": computed, "metrics": metrics}))
    return metrics


def known(place: Place, made_from: Mapping[str, Any]) -> Metrics | None:
    """The values of a record that was made from the same and has all its outputs."""
    record, outputs = place
    if not record.is_file() or (found := json.loads(record.read_text()))["made_from"] != made_from:
        return None
    images = next(iter(found["metrics"].values()))["per_image"]
    return found["metrics"] if all((outputs / f"{image}.png").is_file() for image in images) else None


def computed_by(records: Iterable[Path]) -> list[str]:
    """What has computed the values of records: each commit (or version) and device with how many evaluations and when, in words."""
    times: dict[tuple[str, str], list[str]] = {}
    for record in records:
        computed = json.loads(record.read_text())["computed"]
        commit = f"commit {computed['git_commit']}" if computed["git_commit"] else f"sr_iqa {__version__}"
        times.setdefault((commit, computed["device"]), []).append(computed["time"])
    return [
        f"{commit} on {device}: {len(found)} evaluation{'s' if len(found) > 1 else ''}, {min(found)} to {max(found)}"
        for (commit, device), found in times.items()
    ]


def made_from(weights: str, options: Options, data: DataOptions, val: ValOptions, judges: Sequence[Metric]) -> dict[str, Any]:
    """What the values of a network on held-out sets depend on.

    Args:
        weights: its identity (weights_identity).
        options: of its run.
        data, val: how it is evaluated.
    """
    return {
        "weights": weights,
        "param_key_g": options.path.param_key_g,
        "network": options.network_g.model_dump(mode="json"),
        "scale of the network": options.scale,
        "data": fingerprint(data),
        "held_out": data.model_dump(mode="json"),
        "metrics": [judge.identity for judge in judges],
        "crop_border": val.crop_border,
        "against": val.against,
        "max_images": val.max_images,
        "tile": val.tile,
        "version": __version__,
    }


def weights_identity(path: Path) -> str:
    """A hash that changes when a weight file, an adapter's folder, or the newest weights of a run do.

    Raises:
        UserError: none of these.
    """
    path = final_weights(path) if RunFolder(path).options.is_file() else path
    files = [path / CONFIG_FILE, path / WEIGHTS_FILE] if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        raise UserError(f"{path}: expected a weight file, a run's folder or an adapter")
    return "-".join(map(file_hash, files))


def device_name(device: str) -> str:
    """The GPU's name, or CPU."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"

"""What `sr-iqa tradeoff` is asked for: a run or an adapter, other networks, and the curves that these make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_iqa.adapters import load_adapter
from sr_iqa.config import Options, load_options
from sr_iqa.config.models import folder_name
from sr_iqa.errors import UsageError, UserError
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.folder import RunFolder, final_weights, run_folder

from .dials import Kind
from .scales import DEFAULT_SCALES, AdapterDial, DniDial, Turned, weights_identity
from .single import described_model


@dataclass(frozen=True)
class Request:
    """What a curve is wanted of."""

    options: Options
    """Those of a LoRA run; its newest adapter is taken, unless `base` and `adapter` are given."""
    scales: Sequence[float] = DEFAULT_SCALES
    """Rising, with 0 and 1 (scales.checked_scales)."""
    base: Path | None = None
    """A weight file or a run's folder, and"""
    adapter: Path | None = None
    """the adapter to put on it."""
    against: Mapping[str, Path] = field(default_factory=dict)
    """Name -> a run's folder or a weight file, evaluated too."""
    dni: tuple[Path, Path] | None = None
    """Two weight files or run folders of the same network, interpolated at the same scales."""
    out: Path | None = None
    """By default the run's folder / tradeoff."""
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.out or run_folder(self.options).root / "tradeoff"


@dataclass(frozen=True)
class Curve:
    """A curve to be measured."""

    name: str
    kind: Kind
    dial: Turned
    identity: str
    """Of its weights."""
    between: Sequence[str] = ()
    """The names of the networks at its ends."""


def curves_of(request: Request) -> list[Curve]:
    """The adapter's, unless there is none and the interpolation will do, and the interpolation's."""
    options, found = request.options, []
    if request.adapter or options.lora or not request.dni:
        found.append(Curve(options.name, "adapter", *_adapter(request)))
    if request.dni:
        between, identity = _names(request.dni), " ".join(map(weights_identity, request.dni))
        dial = DniDial(lambda path: described_model(options, path, request.device), request.dni)
        found.append(Curve(" → ".join(between), "dni", dial, identity, between))
    return found


def _adapter(request: Request) -> tuple[AdapterDial, str]:
    """The network with an adapter, and the identity of both, the base first."""
    options, base, adapter, device = request.options, request.base, request.adapter, request.device
    if base and adapter:
        dial = AdapterDial(lambda: load_adapter(described_model(options, base, device), adapter).to(device))
        return dial, " ".join(map(weights_identity, (base, adapter)))
    if options.lora is None:
        raise UsageError(
            f"{options.name}: the options have no `lora` block, so the run has no adapter to scale; give --model and --adapter, or "
            "--dni A B to interpolate between two networks"
        )
    run = run_folder(options).root
    newest, start = final_weights(run), load_options(RunFolder(run).options).path.pretrain_network_g
    if start and not start.is_file():
        raise UserError(
            f"{start}: the weights that {run} started from are no longer there; say where they are: --model WEIGHTS --adapter {newest}"
        )
    return AdapterDial(lambda: load_trained(run, device)), " ".join(map(weights_identity, [*([start] if start else []), newest]))


def _names(ends: Sequence[Path]) -> list[str]:
    """What the ends of the interpolation are called: by their runs or files, or in full where that is the same."""
    runs = [path.parent.parent if path.parent.name == "models" else path for path in map(Path.absolute, ends)]
    names = [path.name if path.is_dir() else path.stem for path in runs]
    return names if len(set(names)) == len(names) else [str(path) for path in ends]


def check(request: Request) -> None:
    """Refuses what is not there or is no network, and names that would stand for two things."""
    if (request.base is None) != (request.adapter is None):
        raise UsageError(
            "give --model (the base weights) and --adapter (its adapter folder) together, or neither: then the run's newest is taken"
        )
    for path in (*request.against.values(), *(request.dni or ()), *([request.base] if request.base else ())):
        if not path.exists():
            raise UserError(f"{path}: no such weight file or run's folder")
        if path.is_dir() and not RunFolder(path).options.is_file():
            raise UserError(f"{path}: expected a weight file or a run's folder, which has an options.yml")
    for name in request.against:
        try:
            folder_name(name)
        except ValueError as error:
            raise UsageError(f"--against {name}: {error}") from None
        if name == request.options.name:
            raise UsageError(f"--against {name}: that is the name of the run itself; choose another")

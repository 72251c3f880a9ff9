"""Adapters on disk: PEFT's folders, and the same in a single .safetensors file, which says in its header what the folder's JSON says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..atomic import atomic_folder
from ..checkpoints import check_finite, no_larger_than, read_metadata, save_weights
from ..config.models import Fraction
from ..errors import UsageError
from .lora import (
    ADAPTER,
    AdapterError,
    adapter_config,
    adapter_parameters,
    adapter_weights,
    add,
    base_hash,
    check_scale,
    lora_layers,
    peft_package,
    weigh,
)

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
STOCK_PREFIX = "base_model.model."  # what PeftModel puts before every name; without it stock PEFT loads nothing and says so in a warning
LARGEST_ALPHA = 1e6
CONFIG_KEY = "adapter_config"
"""Where a single file keeps what a folder has in CONFIG_FILE."""


def adapter_state(net: nn.Module) -> dict[str, Tensor]:
    """The weights of a network's first adapter under their names in the adapter file."""
    return {_stock_name(name, ADAPTER): parameter.detach() for name, parameter in adapter_parameters(net)}


def save_adapter(net: nn.Module, path: Path | str, base_file_hash: str = "") -> None:
    """Writes a PEFT adapter folder, which stock PEFT loads too, or with the suffix .safetensors one file; whole or not at all.

    Args:
        net: a network with one adapter; its scale is not saved.
        path: replaced if it exists.
        base_file_hash: hash of the file that the base weights came from, for the record.
    """
    if len(adapter_weights(net)) > 1:
        raise AdapterError("The network has several adapters; merge them into its weights instead (`sr-iqa adapter merge`).")
    state = {name: value.to("cpu", copy=True).contiguous() for name, value in adapter_state(net).items()}
    metadata = {"format": "pt", "base_hash": base_hash(net), "base_file_hash": base_file_hash, "architecture": type(net).__name__}
    _write(Path(path), adapter_config(net), metadata, state)


def convert_adapter(source: Path | str, target: Path | str) -> None:
    """A folder to a single file or back: the target's suffix says which.

    Raises:
        AdapterError: no adapter there, or the target exists.
    """
    said, metadata, state = _read(Path(source))
    if Path(target).exists():
        raise AdapterError(f"{target} is there already; give another name.")
    if Path(target).suffix.lower() in (".pth", ".pt", ".bin", ".ckpt"):
        raise AdapterError(f"{target}: give a name ending in .safetensors, or of a folder.")
    _write(Path(target), said.peft(), metadata, state)


def load_adapter(net: nn.Module, path: Path | str, check_base: bool = True) -> nn.Module:
    """Loads an adapter into a network, in place: a plain one gets the adapter first, one with an adapter must have the same layers.

    Args:
        net: the base network.
        path: a PEFT folder, or a single .safetensors file that `save_adapter` or `convert_adapter` wrote.
        check_base: refuse base weights other than those that the adapter was trained on.

    Raises:
        AdapterError: no adapter there, other layers or shapes, or (with `check_base`) made for other base weights.
    """
    _load(net, Path(path), ADAPTER, base_hash(net) if check_base else None)
    return net


def load_adapters(net: nn.Module, adapters: Sequence[tuple[Path | str, float]], check_base: bool = True) -> nn.Module:
    """Puts several adapters on a plain network, in place, which act together: each (path, weight) is added with its weight.

    Raises:
        AdapterError: as load_adapter; a weight that is no finite number.
    """
    if not all(math.isfinite(weight) for _, weight in adapters):
        raise AdapterError(f"the weights of adapters must be finite numbers, got {[weight for _, weight in adapters]}")
    base = base_hash(net) if check_base else None
    weights = {f"{ADAPTER}{i or ''}": weight for i, (_, weight) in enumerate(adapters)}
    for name, (path, _) in zip(weights, adapters, strict=True):
        _load(net, Path(path), name, base)
    weigh(net, weights)
    return net


def with_scales(adapters: Sequence[Path], scales: Sequence[float], option: str = "scales") -> list[tuple[Path, float]]:
    """Each adapter with its scale; all 1 where none are given, and one for all where one is. Warns of scales outside [0, 1].

    Raises:
        UsageError: as many scales as there are neither one nor adapters, or no adapter; `option` is what to call them.
    """
    if scales and not adapters:
        raise UsageError(f"{option} is for adapters, and there is none: give --adapter too")
    given = list(scales) or [1.0]
    given = given * len(adapters) if len(given) == 1 else given
    if len(given) != len(adapters):
        many = f"{len(adapters)} adapter{'s' * (len(adapters) != 1)}"
        raise UsageError(f"{option}: {many}, but {len(given)} numbers; give one, or one for each adapter in their order")
    for scale in given:
        check_scale(scale)
    return list(zip(adapters, given, strict=True))


def made_for(path: Path | str) -> str:
    """The hash of the base weights that an adapter was trained on; empty where it does not say."""
    _, metadata, _ = _read(Path(path))
    return metadata.get("base_hash", "")


def describe_adapter(path: Path | str) -> dict[str, str]:
    """What an adapter says about itself, in words, without a network."""
    said, metadata, state = _read(Path(path))
    return {
        "architecture": metadata.get("architecture", "unknown"),
        "rank": str(said.r),
        "alpha": str(said.lora_alpha),
        "dropout": str(said.lora_dropout),
        "layers": str(len(state) // 2),
        "parameters": f"{sum(value.numel() for value in state.values()):,}",
        "base weights (hash)": metadata.get("base_hash", "unknown"),
        "base file (hash)": metadata.get("base_file_hash") or "unknown",
    }


def _load(net: nn.Module, path: Path, name: str, base: str | None) -> None:
    said, metadata, state = _read(path)
    wanted = metadata.get("base_hash")
    if base is not None and wanted and wanted != base:
        raise AdapterError(
            f"{path}: this adapter was trained on other base weights than those loaded (hash {wanted}, not {base}). Give the weights "
            "that it was trained on, or --force to put it on these all the same."
        )
    fresh = not any(name in layer.lora_A for _, layer in lora_layers(net))
    if fresh:
        try:
            with no_larger_than(state, path):
                add(net, said.peft(), name)
        except ValueError as error:
            raise AdapterError(f"{path}: this adapter is for another network: {error}") from error
    own = {_stock_name(full, name): parameter for full, parameter in adapter_parameters(net, name)}
    wrong = sorted(own.keys() ^ state.keys()) or [one for one in own if own[one].shape != state[one].shape]
    if wrong:
        raise AdapterError(f"{path}: this adapter is for another network or rank: {len(wrong)} tensors differ, the first is {wrong[0]}.")
    if not fresh:
        _check_strength(net, said, path)
    for full, parameter in own.items():
        parameter.data.copy_(state[full])


def _check_strength(net: nn.Module, said: _Said, path: Path) -> None:
    """The network's adapter must scale as the saved one did; the factor is in no tensor."""
    ours = adapter_config(net)
    if said.use_rslora or not math.isclose(said.lora_alpha / said.r, ours.lora_alpha / ours.r):
        raise AdapterError(
            f"{path}: this adapter was trained with alpha {said.lora_alpha:g} at rank {said.r}{' (rslora)' if said.use_rslora else ''}, "
            f"the lora block asks for alpha {ours.lora_alpha:g} at rank {ours.r}, which is another strength. Set both so."
        )


def _stock_name(name: str, adapter: str) -> str:
    return STOCK_PREFIX + name.replace(f".{adapter}.", ".")


class _Said(BaseModel):
    """What an adapter's file may say. PEFT would also import modules, compile patterns and change layers of other kinds as it is told."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    peft_type: Literal["LORA"]
    r: PositiveInt
    lora_alpha: Annotated[PositiveFloat | PositiveInt, Field(le=LARGEST_ALPHA)]
    lora_dropout: Fraction
    target_modules: list[str] = Field(min_length=1)
    exclude_modules: list[str] | None = None
    use_rslora: bool = False
    init_lora_weights: bool = True
    """Others than true and false change the base, which is not the one that is loaded."""
    bias: Literal["none"] = "none"
    use_dora: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    rank_pattern: dict[str, int] = Field({}, max_length=0)
    alpha_pattern: dict[str, float] = Field({}, max_length=0)

    def peft(self) -> LoraConfig:
        return peft_package().LoraConfig(**self.model_dump())


def _write(path: Path, config: LoraConfig, metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    if path.suffix == ".safetensors":
        said = json.dumps(_plain(config.to_dict()), sort_keys=True)
        save_weights(path, state, {**metadata, CONFIG_KEY: said})
        return
    with atomic_folder(path) as temporary:
        config.save_pretrained(str(temporary))
        save_file(dict(state), temporary / WEIGHTS_FILE, metadata={k: v for k, v in metadata.items() if k != CONFIG_KEY})


def _plain(value: Any) -> Any:
    """PEFT keeps module names in sets and kinds in enumerations."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, "value", value)


def _read(path: Path) -> tuple[_Said, dict[str, str], dict[str, Tensor]]:
    """What an adapter says, its metadata and its tensors."""
    config: bytes | str
    if path.is_file():
        source, weights = f"{path} (its header)", path
        if path.name == WEIGHTS_FILE and (path.parent / CONFIG_FILE).is_file():
            return _read(path.parent)
        if path.suffix != ".safetensors" or CONFIG_KEY not in read_metadata(path):
            raise AdapterError(f"{path}: not an adapter: give PEFT's folder, or a .safetensors file that `sr-iqa adapter convert` wrote.")
        config = read_metadata(path)[CONFIG_KEY]
    else:
        source, weights = f"{path} ({CONFIG_FILE})", path / WEIGHTS_FILE
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            if not (path / file).is_file():
                raise AdapterError(f"{path}: not an adapter folder, there is no {file}.")
        config = (path / CONFIG_FILE).read_bytes()
    try:
        said = _Said.model_validate_json(config)
        metadata, state = read_metadata(weights), load_file(weights)
    except ValidationError as error:
        wrong = error.errors()[0]
        words = ": ".join([*map(str, wrong["loc"]), wrong["msg"]])
        raise AdapterError(f"{source}: a damaged adapter, or one that cannot be used here ({words})") from error
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path}: a damaged adapter: {error}") from error
    check_finite(state, weights)
    if any(not value.is_floating_point() or (".lora_A." in name and len(value) != said.r) for name, value in state.items()):
        raise AdapterError(f"{path}: a damaged adapter: its tensors are not of rank {said.r}, or hold no fractions")
    return said, metadata, state

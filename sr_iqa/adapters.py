"""LoRA adapters on a network's linear and convolution layers. PEFT does the work and is imported only here: that takes seconds.

A layer W x becomes W x + s * (alpha / rank) * B A x, with W frozen and s the adapter scale in [0, 1] (Hu et al. 2021, arXiv 2106.09685).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .atomic import atomic_folder
from .checkpoints import check_finite, no_larger_than, read_metadata, weights_hash
from .config.models import Fraction, LoraOptions
from .errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig

logger = logging.getLogger(__name__)

ADAPTER = "default"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
STOCK_PREFIX = "base_model.model."  # what PeftModel puts before every name; without it stock PEFT loads nothing and says so in a warning
RRDB_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "SwinIR": ("qkv", "proj", "fc1", "fc2"),
    "RRDBNet": RRDB_LAYERS,
    "RRDBPSNet": RRDB_LAYERS,
}
REFUSED = {"SPAN", "SPANPlus", "ECBSR"}
"""Architectures that fold the `.weight` of their layers by hand in evaluation, where an adapter then has no effect."""


class AdapterError(UserError):
    """An adapter that cannot be made, or does not fit its network."""


@dataclass(frozen=True)
class AdapterReport:
    """What an adapter covers."""

    targets: tuple[str, ...]
    """Names of the layers with an adapter."""
    skipped: tuple[str, ...]
    """Grouped convolutions of the same kind, which LoRA cannot cover."""
    trainable: int
    """Numbers that learn."""
    total: int
    """Numbers in the network without adapter."""

    def __str__(self) -> str:
        skipped = f"; skipped, because grouped: {', '.join(self.skipped)}" if self.skipped else ""
        share = self.trainable / self.total
        return f"LoRA on {len(self.targets)} layers, {self.trainable:,} trainable parameters ({share:.1%} of {self.total:,}){skipped}"


def inject(net: nn.Module, lora: LoraOptions, arch_type: str) -> nn.Module:
    """Puts an adapter without effect yet (B = 0) on a network, in place, freezes everything else, and logs the report.

    Args:
        net: the plain network.
        lora: rank, alpha, dropout and the endings of the layer names to cover.
        arch_type: the network's `type` in the options, for the default endings (all linear and convolution layers where there is no list).

    Raises:
        AdapterError: an architecture where LoRA has no effect, or an ending that fits no layer.
    """
    name = arch_type.rpartition(".")[2]
    if name in REFUSED:
        raise AdapterError(f"lora: {name} reads its layers' weights by itself in evaluation, so an adapter would have no effect there.")
    if _lora_layers(net):
        raise AdapterError("lora: the network has an adapter already.")
    targets, grouped = _match(net, lora.target_modules or DEFAULT_TARGETS.get(name))
    config = _peft().LoraConfig(
        r=lora.rank,
        lora_alpha=lora.rank if lora.alpha is None else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=grouped or None,
    )
    _inject(net, config)
    logger.info("%s", report(net))
    return net


def report(net: nn.Module) -> AdapterReport:
    """What the adapter of a network covers."""
    targets = tuple(name for name, _ in _lora_layers(net))
    skipped = tuple(sorted(_config(net).exclude_modules or ()))
    trainable = sum(p.numel() for p in trainable_parameters(net))
    return AdapterReport(targets, skipped, trainable, sum(p.numel() for p in net.parameters()) - trainable)


def trainable_parameters(net: nn.Module) -> list[nn.Parameter]:
    """The adapter's parameters, which are the only ones with gradients."""
    return [parameter for _, parameter in _adapter_parameters(net)]


def adapter_state(net: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under their names in the adapter file."""
    return {_stock_name(name): parameter.detach() for name, parameter in _adapter_parameters(net)}


def base_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict of the network without its adapter, under the plain network's names."""
    return {name.replace(".base_layer.", "."): value for name, value in net.state_dict().items() if not _is_adapter(name)}


def base_hash(net: nn.Module) -> str:
    """A hash of the weights below the adapter, whatever file they came from."""
    plain = {name.replace(".base_layer.", ".") for name, _ in net.named_parameters()}
    return weights_hash({name: value for name, value in base_state(net).items() if name in plain})


def save_adapter(net: nn.Module, folder: Path | str, base_file_hash: str = "") -> None:
    """Writes a PEFT adapter folder, which stock PEFT loads too, as a whole or not at all.

    Args:
        net: a network with an adapter; its scale is not saved.
        folder: replaced if it exists.
        base_file_hash: hash of the file that the base weights came from, for the record.
    """
    config = _config(net)
    state = {name: value.to("cpu", copy=True).contiguous() for name, value in adapter_state(net).items()}
    metadata = {"format": "pt", "base_hash": base_hash(net), "base_file_hash": base_file_hash, "architecture": type(net).__name__}
    with atomic_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        save_file(state, temporary / WEIGHTS_FILE, metadata=metadata)


def load_adapter(net: nn.Module, folder: Path | str, check_base: bool = True) -> nn.Module:
    """Loads an adapter folder into a network, in place: a plain one gets the adapter first, one with an adapter must have the same layers.

    Raises:
        AdapterError: no adapter there, other layers or shapes, or (with `check_base`) made for other base weights.
    """
    folder = Path(folder)
    said, metadata, state = _read(folder)
    made_for = metadata.get("base_hash")
    if check_base and made_for and made_for != base_hash(net):
        raise AdapterError(
            f"{folder}: this adapter was trained on other base weights than those loaded (hash {made_for}, not {base_hash(net)})."
        )
    if not _lora_layers(net):
        try:
            with no_larger_than(state, folder):
                _inject(net, said.peft())
        except ValueError as error:
            raise AdapterError(f"{folder}: this adapter is for another network: {error}") from error
    own = {_stock_name(name): parameter for name, parameter in _adapter_parameters(net)}
    wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise AdapterError(f"{folder}: this adapter is for another network or rank: {len(wrong)} tensors differ, the first is {wrong[0]}.")
    for name, parameter in own.items():
        parameter.data.copy_(state[name])
    return net


def set_scale(net: nn.Module, scale: float) -> None:
    """Turns the dial between the base network (0) and the full adapter (1)."""
    for _, layer in _lora_layers(net):
        layer.set_scale(ADAPTER, scale)


def merge(net: nn.Module) -> dict[str, Tensor]:
    """The state dict of a plain network that equals base + adapter at its present scale; the network itself stays as it is."""
    state = {name: value.detach().clone() for name, value in base_state(net).items()}
    for name, layer in _lora_layers(net):
        state[f"{name}.weight"] += layer.get_delta_weight(ADAPTER).detach().to(state[f"{name}.weight"].dtype)
    return state


def describe_adapter(folder: Path | str) -> dict[str, str]:
    """What an adapter folder says about itself, in words, without a network."""
    folder = Path(folder)
    said, metadata, state = _read(folder)
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


def _peft() -> Any:
    """PEFT, imported at first use. bitsandbytes, which comes with it, would warn of a kernel that nobody here needs."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import peft

    return peft


def _match(net: nn.Module, endings: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Names of the layers that get an adapter, and of the grouped convolutions that cannot."""
    layers = {name: module for name, module in net.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    if endings is None:
        chosen = list(layers)
    else:
        for ending in endings:
            if not any(_ends(name, ending) for name in layers):
                known = sorted({name.rpartition(".")[2] for name in layers})
                raise AdapterError(
                    f"lora.target_modules: no linear or convolution layer's name ends in '{ending}'. There are {', '.join(known)}."
                )
        chosen = [name for name in layers if any(_ends(name, ending) for ending in endings)]
    grouped = [name for name, module in layers.items() if name in chosen and isinstance(module, nn.Conv2d) and module.groups > 1]
    targets = [name for name in chosen if name not in grouped]
    if not targets:
        raise AdapterError("lora: the network has no layer that can take an adapter.")
    return targets, grouped


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _inject(net: nn.Module, config: LoraConfig) -> None:
    _peft().inject_adapter_in_model(config, net, ADAPTER)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(_is_adapter(name))


def _lora_layers(net: nn.Module) -> list[tuple[str, Any]]:
    """(name, layer) of PEFT's LoRA layers; told by their parts, because importing the class takes seconds."""
    return [(name, module) for name, module in net.named_modules() if "lora_A" in module._modules]


def _adapter_parameters(net: nn.Module) -> list[tuple[str, nn.Parameter]]:
    found = [(name, parameter) for name, parameter in net.named_parameters() if _is_adapter(name)]
    if not found:
        raise AdapterError("The network has no adapter.")
    return found


def _config(net: nn.Module) -> LoraConfig:
    """The configuration that PEFT left on the network."""
    if "peft_config" not in vars(net):
        raise AdapterError("The network has no adapter.")
    return vars(net)["peft_config"][ADAPTER]


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _stock_name(name: str) -> str:
    return STOCK_PREFIX + name.replace(f".{ADAPTER}.", ".")


class _Said(BaseModel):
    """What an adapter's file may say. PEFT would also import modules, compile patterns and change layers of other kinds as it is told."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    peft_type: Literal["LORA"]
    r: PositiveInt
    lora_alpha: PositiveFloat | PositiveInt
    lora_dropout: Fraction
    target_modules: list[str] = Field(min_length=1)
    exclude_modules: list[str] | None = None
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    use_dora: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    rank_pattern: dict[str, int] = Field({}, max_length=0)
    alpha_pattern: dict[str, float] = Field({}, max_length=0)

    def peft(self) -> LoraConfig:
        return _peft().LoraConfig(**self.model_dump())


def _read(folder: Path) -> tuple[_Said, dict[str, str], dict[str, Tensor]]:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise AdapterError(f"{folder}: not an adapter folder, there is no {file}.")
    try:
        said = _Said.model_validate_json((folder / CONFIG_FILE).read_bytes())
        metadata, state = read_metadata(folder / WEIGHTS_FILE), load_file(folder / WEIGHTS_FILE)
    except ValidationError as error:
        wrong = error.errors()[0]
        words = ": ".join([*map(str, wrong["loc"]), wrong["msg"]])
        raise AdapterError(f"{folder}: a damaged adapter, or one that cannot be used here ({CONFIG_FILE}: {words})") from error
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{folder}: a damaged adapter: {error}") from error
    check_finite(state, folder / WEIGHTS_FILE)
    return said, metadata, state

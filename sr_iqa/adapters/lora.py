"""LoRA adapters on a network's linear and convolution layers. PEFT does the work and is imported only here: that takes seconds.

A layer W x becomes W x + s * (alpha / rank) * B A x, with W frozen and s the adapter scale in [0, 1] (Hu et al. 2021, arXiv 2106.09685).
With several adapters it is W x + s * sum_i w_i * (alpha_i / rank_i) * B_i A_i x, each with a weight w_i of its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from ..checkpoints import weights_hash
from ..config.models import LoraOptions
from ..errors import UsageError, UserError

if TYPE_CHECKING:
    from peft import LoraConfig

logger = logging.getLogger(__name__)

ADAPTER = "default"
"""PEFT's name of the first adapter on a network."""
RRDB_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "SwinIR": ("qkv", "proj", "fc1", "fc2"),
    "RRDBNet": RRDB_LAYERS,
    "RRDBPSNet": RRDB_LAYERS,
}
REFUSED = {"SPAN", "SPANPlus", "ECBSR"}
"""Architectures that fold the `.weight` of their layers by hand in evaluation, where an adapter then has no effect."""
READ_BY_HAND = {"Swin2SR": ("qkv",)}
"""Layers whose weights the network reads itself: an adapter on them has no effect."""
WEIGHTS = "adapter_weights"
"""Attribute of a network with several adapters: the weight of each by its name."""


class AdapterError(UserError):
    """An adapter that cannot be made, or does not fit its network."""


@dataclass(frozen=True)
class AdapterReport:
    """What an adapter covers."""

    targets: tuple[str, ...]
    """Names of the layers with an adapter."""
    skipped: tuple[str, ...]
    """Layers of the same names that LoRA cannot cover: convolutions that are grouped, dilated or padded by reflection, and others whose
    weights the network reads itself."""
    trainable: int
    """Numbers that learn."""
    total: int
    """Numbers in the network without adapter."""

    def __str__(self) -> str:
        skipped = f"; skipped, because LoRA cannot cover them: {', '.join(self.skipped)}" if self.skipped else ""
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
    if lora_layers(net):
        raise AdapterError("lora: the network has an adapter already.")
    targets, unfit = _match(net, lora.target_modules or DEFAULT_TARGETS.get(name), READ_BY_HAND.get(name, ()))
    config = peft_package().LoraConfig(
        r=lora.rank,
        lora_alpha=lora.rank if lora.alpha is None else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=[*unfit, *_namesakes(net, targets)] or None,
    )
    add(net, config)
    if {name for name, _ in lora_layers(net)} != set(targets):
        raise AdapterError("lora: PEFT tells layers apart by the ends of their names, which does not work in this network.")
    logger.info("%s", report(net))
    return net


def report(net: nn.Module) -> AdapterReport:
    """What the adapter of a network covers."""
    targets = tuple(name for name, _ in lora_layers(net))
    layers = {name for name, module in net.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    skipped = tuple(sorted(layers & set(adapter_config(net).exclude_modules or ())))
    trainable = sum(p.numel() for p in trainable_parameters(net))
    return AdapterReport(targets, skipped, trainable, sum(p.numel() for p in net.parameters()) - trainable)


def trainable_parameters(net: nn.Module) -> list[nn.Parameter]:
    """The adapter's parameters, which are the only ones with gradients."""
    return [parameter for _, parameter in adapter_parameters(net)]


def base_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict of the network without its adapter, under the plain network's names."""
    return {name.replace(".base_layer.", "."): value for name, value in net.state_dict().items() if not _is_adapter(name)}


def base_hash(net: nn.Module) -> str:
    """A hash of the weights below the adapter, whatever file they came from."""
    plain = {name.replace(".base_layer.", ".") for name, _ in net.named_parameters()}
    return weights_hash({name: value for name, value in base_state(net).items() if name in plain})


def check_scale(scale: float) -> None:
    """Refuses a scale that is no finite number (UsageError) and warns of one outside [0, 1]."""
    if not math.isfinite(scale):
        raise UsageError(f"an adapter scale goes from 0 (the base network) to 1 (the full adapter), got {scale}")
    if not 0 <= scale <= 1:
        logger.warning("adapter scale %g is outside [0, 1]: nothing was trained there, look at the results", scale)


def set_scale(net: nn.Module, scale: float) -> None:
    """Turns the dial between the base network (0) and the full adapter (1), or the weighted sum of several."""
    weights = adapter_weights(net)
    for _, layer in lora_layers(net):
        for name in layer.active_adapters:
            layer.set_scale(name, scale * weights[name])


def merge(net: nn.Module) -> dict[str, Tensor]:
    """The state dict of a plain network that equals base + adapter at its present scale; the network itself stays as it is."""
    state = {name: value.detach().clone() for name, value in base_state(net).items()}
    for name, layer in lora_layers(net):
        for adapter in layer.active_adapters:
            state[f"{name}.weight"] += layer.get_delta_weight(adapter).detach().to(state[f"{name}.weight"].dtype)
    return state


def adapter_weights(net: nn.Module) -> Mapping[str, float]:
    """PEFT's name of each adapter on a network -> its weight."""
    return vars(net).get(WEIGHTS, {ADAPTER: 1.0})


def add(net: nn.Module, config: LoraConfig, name: str = ADAPTER) -> None:
    """Puts an adapter on a network by PEFT's configuration, and freezes everything but adapters."""
    peft_package().inject_adapter_in_model(config, net, name)
    for parameter_name, parameter in net.named_parameters():
        parameter.requires_grad_(_is_adapter(parameter_name))
    _freeze_statistics(net)


class _Frozen(nn.Module):
    """What is put before a batch norm's class: never in training mode, in which it would change without being saved."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


def _freeze_statistics(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, _Frozen):
            module.__class__ = type(type(module).__name__, (_Frozen, type(module)), {})
            module.train(False)


def weigh(net: nn.Module, weights: Mapping[str, float]) -> None:
    """Makes the adapters of a network act together, each with its weight, at scale 1."""
    vars(net)[WEIGHTS] = dict(weights)
    for _, layer in lora_layers(net):
        layer.set_adapter([name for name in weights if name in layer.lora_A])
    set_scale(net, 1.0)


def lora_layers(net: nn.Module) -> list[tuple[str, Any]]:
    """(name, layer) of PEFT's LoRA layers; told by their parts, because importing the class takes seconds."""
    return [(name, module) for name, module in net.named_modules() if "lora_A" in module._modules]


def adapter_parameters(net: nn.Module, adapter: str = ADAPTER) -> list[tuple[str, nn.Parameter]]:
    """(name, parameter) of one adapter. Raises AdapterError where there is none."""
    found = [(name, p) for name, p in net.named_parameters() if _is_adapter(name) and f".{adapter}." in name]
    if not found:
        raise AdapterError("The network has no adapter.")
    return found


def adapter_config(net: nn.Module) -> LoraConfig:
    """The configuration that PEFT left on the network. Raises AdapterError where there is none."""
    if "peft_config" not in vars(net):
        raise AdapterError("The network has no adapter.")
    return vars(net)["peft_config"][ADAPTER]


def peft_package() -> Any:
    """PEFT, imported at first use. bitsandbytes, which comes with it, would warn of a kernel that nobody here needs."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import peft

    return peft


def _match(net: nn.Module, endings: Sequence[str] | None, read_by_hand: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the layers that get an adapter, and of those that cannot."""
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
    unfit = [name for name in chosen if not _fits(layers[name]) or any(_ends(name, ending) for ending in read_by_hand)]
    targets = [name for name in chosen if name not in unfit]
    if not targets:
        raise AdapterError("lora: the network has no layer that can take an adapter.")
    return targets, unfit


def _fits(layer: nn.Linear | nn.Conv2d) -> bool:
    """PEFT's LoRA of a convolution knows its stride and padding only: any other would silently be computed as if it were plain."""
    if isinstance(layer, nn.Linear):
        return True
    made_as_usual = type(layer).__init__ is nn.Conv2d.__init__  # PEFT makes another of the same class
    return made_as_usual and layer.groups == 1 and layer.padding_mode == "zeros" and layer.dilation == (1, 1)


def _namesakes(net: nn.Module, targets: Sequence[str]) -> list[str]:
    """Modules that PEFT, which compares the ends of names, would take for one of the targets."""
    return [name for name, _ in net.named_modules() if name not in targets and any(_ends(name, target) for target in targets)]


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name

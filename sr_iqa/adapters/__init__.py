"""LoRA adapters: on networks (lora.py) and on disk (files.py)."""

from .files import adapter_state, convert_adapter, describe_adapter, load_adapter, load_adapters, made_for, save_adapter, with_scales
from .lora import (
    REFUSED,
    AdapterError,
    AdapterReport,
    adapter_weights,
    base_hash,
    base_state,
    check_scale,
    inject,
    lora_layers,
    merge,
    report,
    set_scale,
    trainable_parameters,
)

__all__ = [
    "REFUSED",
    "AdapterError",
    "AdapterReport",
    "adapter_state",
    "adapter_weights",
    "base_hash",
    "base_state",
    "check_scale",
    "convert_adapter",
    "describe_adapter",
    "inject",
    "load_adapter",
    "load_adapters",
    "lora_layers",
    "made_for",
    "merge",
    "report",
    "save_adapter",
    "set_scale",
    "trainable_parameters",
    "with_scales",
]

"""Networks by name: ours, any of BasicSR's or Spandrel's, or the dotted path of anybody's.

Every generator maps (B, 3, h, w) in [0, 1] to (B, 3, s*h, s*w), not clamped, for any h and w.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..config.models import Component
from ..errors import UsageError, UserError
from ..names import find, unknown
from .basicsr_bridge import basicsr_archs
from .discriminators import UNetDiscriminatorSN
from .rrdbnet import RRDBNet, RRDBPSNet
from .spandrel_bridge import PREFIX, spandrel_archs
from .swinir import SwinIR

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "SwinIR": SwinIR,
    "RRDBNet": RRDBNet,
    "RRDBPSNet": RRDBPSNet,
    "UNetDiscriminatorSN": UNetDiscriminatorSN,
}


def resolve_network(name: str) -> Callable[..., nn.Module]:
    """The constructor behind a network's `type`, without building anything.

    Raises:
        UsageError: unknown; lists ours, BasicSR's where it is installed, and the nearest name.
    """
    if name.startswith(PREFIX):
        if name not in spandrel_archs():
            raise UsageError(unknown("network", name, spandrel_archs()))
        return spandrel_archs()[name]
    if name in NETWORKS or "." in name:
        return find("network", name, NETWORKS)
    if importlib.util.find_spec("basicsr") is None:
        try:
            return find("network", name, NETWORKS)
        except UsageError as error:
            raise UsageError(f"{error} (BasicSR's networks are not there: basicsr is not installed.)") from error
    return find("network", name, {**NETWORKS, **basicsr_archs(), **NETWORKS})


def build_network(opt: Component | Mapping[str, Any]) -> nn.Module:
    """Builds the network of a section `{type: ..., <constructor arguments>}`.

    Raises:
        UsageError: unknown type, unknown or missing arguments, or values that the constructor refuses.
    """
    if not isinstance(opt, Component):
        opt = Component.model_validate(dict(opt))
    constructor = resolve_network(opt.type)
    try:
        inspect.signature(constructor).bind(**opt.arguments)
    except TypeError as error:
        raise UsageError(f"{opt.type}: {error}. Its arguments: {', '.join(inspect.signature(constructor).parameters)}.") from error
    try:
        return constructor(**opt.arguments)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # constructors that are not ours divide by what they are given, or assert
        raise UsageError(f"{opt.type} cannot be built with these arguments ({type(error).__name__}: {error}).") from error

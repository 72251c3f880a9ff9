"""Losses by name. Each is a module loss(sr, gt) -> weighted scalar, sr and gt (B, 3, H, W) RGB in [0, 1], sr not clamped;
GANLoss and NegativeLoss take other inputs. To add one: write it, and put it into LOSSES_BY_KIND.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ..config.models import Component
from ..errors import UsageError
from ..names import find
from .features import NanoFeatureLoss, PerceptualLoss
from .gan import GANLoss
from .metric import LPIPSLoss, MetricLoss
from .negative import NegativeLoss
from .pixel import CharbonnierLoss, L1Loss, MSELoss

LOSSES_BY_KIND: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "pixel": {"L1Loss": L1Loss, "MSELoss": MSELoss, "CharbonnierLoss": CharbonnierLoss},
    "perceptual": {"PerceptualLoss": PerceptualLoss, "LPIPSLoss": LPIPSLoss, "NanoFeatureLoss": NanoFeatureLoss},
    "gan": {"GANLoss": GANLoss},
    "negative": {"NegativeLoss": NegativeLoss},
}
"""Kind (which option of `train`) -> name -> class. The kind "metric" takes any differentiable full-reference metric of the door."""

LOSSES: dict[str, Callable[..., nn.Module]] = {name: loss for kind in LOSSES_BY_KIND.values() for name, loss in kind.items()}


def resolve_loss(kind: str, name: str) -> Callable[..., nn.Module]:
    """The constructor behind a loss's `type`, without building anything.

    Args:
        kind: pixel, perceptual, gan, negative, or metric (then `name` is a metric's).

    Raises:
        UsageError: unknown; lists the choices.
    """
    if kind == "metric":
        return partial(MetricLoss, name)
    return find(f"{kind} loss", name, LOSSES_BY_KIND[kind])


def build_loss(kind: str, opt: Component | Mapping[str, Any]) -> Any:
    """Builds the loss of a section `{type: ..., <constructor arguments>}`.

    Raises:
        UserError: unknown type or argument, missing weights, or values that the constructor refuses.
    """
    if not isinstance(opt, Component):
        opt = Component.model_validate(dict(opt))
    constructor = resolve_loss(kind, opt.type)
    try:
        inspect.signature(constructor).bind(**opt.arguments)
    except TypeError as error:
        raise UsageError(f"{opt.type}: {error}. Its arguments: {', '.join(inspect.signature(constructor).parameters)}.") from error
    return constructor(**opt.arguments)

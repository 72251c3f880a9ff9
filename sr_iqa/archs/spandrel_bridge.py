"""The one entrance to the Spandrel package: networks of its architectures, found in weight files or built by name, to run and to train.

Their names here are `spandrel.<class>`, such as spandrel.HAT, and their arguments the class's own (Spandrel's hyperparameters).
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .layers import pad_to

PREFIX = "spandrel."
OTHER_PURPOSES = ("LaMa", "GFPGAN", "RestoreFormer")
"""Architectures that fill holes or mend faces."""


@dataclass(frozen=True)
class Constructor:
    """Builds a network of one class with random weights; has the signature of the class."""

    cls: type[nn.Module]
    architecture: Any

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.cls)

    def __call__(self, **arguments: Any) -> nn.Module:
        net = self.cls(**arguments)
        # Only a loaded network tells which sizes it takes, so the new one is loaded with its own weights.
        described = self.architecture.load(net.state_dict())
        return _padded(net, described)


@cache
def spandrel_archs() -> dict[str, Constructor]:
    """`spandrel.<class>` -> constructor, for every network of Spandrel's that maps images to images."""
    import spandrel

    found = {}
    for support in spandrel.MAIN_REGISTRY.architectures("insertion"):
        architecture = support.architecture
        if architecture.id not in OTHER_PURPOSES:
            module = importlib.import_module(f"spandrel.architectures.{architecture.id}")
            for name, cls in vars(module).items():
                if inspect.isclass(cls) and issubclass(cls, nn.Module):
                    found[PREFIX + name] = Constructor(cls, architecture)
    return found


def recognise(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], nn.Module]:
    """The network that a state dict is of, with its weights: its section `{type: spandrel.<class>, <arguments>}`, and itself.

    Raises:
        UserError: no architecture of Spandrel's, or one that does not map RGB images to RGB images.
    """
    import spandrel

    try:
        described = spandrel.ModelLoader(torch.device("cpu")).load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise UserError("no known network has these weights") from error
    name = described.architecture.name
    if not isinstance(described, spandrel.ImageModelDescriptor) or described.architecture.id in OTHER_PURPOSES:
        raise UserError(f"{name} is no network for super-resolution or restoration")
    if (described.input_channels, described.output_channels) != (3, 3):
        raise UserError(f"this {name} is not a network from RGB images to RGB images")
    net = described.model
    kind = next(name for name, constructor in spandrel_archs().items() if constructor.cls is type(net))
    return {"type": kind, **_plain_arguments(net)}, _padded(net, described)


def _plain_arguments(net: Any) -> dict[str, Any]:
    """A network's arguments as an option file holds them; classes of layers and the like are left to their defaults.

    Raises UserError where one of those is not the default.
    """
    defaults = {name: p.default for name, p in inspect.signature(type(net)).parameters.items()}
    found = {}
    for name, value in net.hyperparameters.items():
        if name not in defaults:  # a constant of the class
            continue
        try:
            found[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            if value is not defaults.get(name):
                raise UserError(f"this {type(net).__name__} has {name} {value}, which an option file cannot say") from error
    return found


class _Padded(nn.Module):
    """What is put before an architecture's class: any size comes in and the same size, times the magnification, comes out."""

    _minimum: int
    _multiple: int
    _square: bool
    _magnification: int
    _call: Callable[[Any, Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B, 3, s*h, s*w), not clamped."""
        height, width = x.shape[2:]
        rows, columns = (max(side + -side % self._multiple, self._minimum) for side in (height, width))
        if self._square:
            rows = columns = max(rows, columns)
        padded = pad_to(x, rows, columns)
        out = self._call(_Plain(self, super().forward), padded.clone() if padded is x else padded)  # RCAN writes into its input
        return out[..., : height * self._magnification, : width * self._magnification]


class _Plain:
    """A network as Spandrel's calling functions know it: called, it takes no padding; else it is the network."""

    def __init__(self, net: nn.Module, forward: Callable[..., Any]) -> None:
        self._net, self._forward = net, forward

    def __call__(self, *inputs: Any) -> Any:
        return self._forward(*inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)


def _padded(net: nn.Module, described: Any) -> nn.Module:
    """The network with the padding that Spandrel would do, in place: names of layers and weights stay what they are."""
    sizes = described.size_requirements
    net._minimum, net._multiple, net._square = sizes.minimum, sizes.multiple_of, sizes.square  # pyright: ignore
    net._magnification, net._call = described.scale, described._call_fn  # pyright: ignore
    net.__class__ = type(type(net).__name__, (_Padded, type(net)), {})
    return net


def is_of_spandrel(net: nn.Module) -> bool:
    """Whether a network is of this file's making."""
    return isinstance(net, _Padded)


def size_requirements(net: nn.Module) -> tuple[int, int]:
    """(multiple, minimum) to which one of these networks pads the sides of its input, in pixels; (1, 0) for others."""
    return (net._multiple, net._minimum) if isinstance(net, _Padded) else (1, 0)

"""Network interpolation (DNI, Wang et al. 2019, arXiv 1811.10515): one network from the weights of two that are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .errors import UserError

SHOWN = 5
"""Names in an error."""


class InterpolationError(UserError):
    """Two sets of weights that are not of the same network."""

    def __init__(self, differing: Sequence[str]) -> None:
        more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        shown = "; ".join(differing[:SHOWN])
        super().__init__(f"these weights are not of the same network, {len(differing)} tensors differ: {shown}{more}")


def interpolate(a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The state dict (1 - alpha) * a + alpha * b, in new tensors of a's order and types.

    What is equal in both stays as it is (masks may hold infinities). Numbers without fractions cannot be mixed and are copied from the
    nearer of the two. alpha 0 gives exactly a and 1 exactly b; beyond that it extrapolates.

    Raises:
        InterpolationError: names, shapes or types differ; names them.
    """
    differing = differences(a, b)
    if differing:
        raise InterpolationError(differing)
    return {name: _mixed(value, b[name], alpha) for name, value in a.items()}


def differences(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """What keeps two state dicts from being interpolated, one tensor each; empty where nothing does."""
    found = [f"{name} is only in the first" for name in a if name not in b]
    found += [f"{name} is only in the second" for name in b if name not in a]
    for name in a:
        if name in b and (a[name].shape, a[name].dtype) != (b[name].shape, b[name].dtype):
            found.append(f"{name} is {_described(a[name])} in the first, {_described(b[name])} in the second")
    return found


def _mixed(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    if not (a.is_floating_point() or a.is_complex()):
        return (b if alpha > 0.5 else a).detach().clone()
    return torch.where(a == b, a, (1 - alpha) * a + alpha * b).detach()


def _described(value: Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"

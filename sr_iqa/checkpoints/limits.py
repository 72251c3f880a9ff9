"""What a weight file may ask for: a small one could name or imply a network of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook, register_module_parameter_registration_hook

from .files import CheckpointError

LARGEST_WINDOWS = 2**12
"""img_size times window_size: a SwinIR computes index and mask of up to 4 bytes times its square."""
LARGEST_NUMBER, LARGEST_AREA = 2**12, 2**12
"""Of any argument; of windows that are not square, in pixels."""
BIAS_TABLE, LARGEST_TABLE = "relative_position_bias_table", (2 * 64 - 1) ** 2
"""Rows that a window of 64 pixels has; networks compute indices of the square of a window's pixels."""
COUNTS = ("depth", "num_block", "blocks", "layers")
"""Words in the names of arguments that are numbers of layers."""
WINDOWS = ("window", "split", "stripe")
MORE_NUMBERS, MORE_TENSORS = 2**26, 1000
"""What a network may hold beyond twice what is in its weight file, such as masks that the file leaves out."""


def check_section(section: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuses (CheckpointError) arguments with which a network would fill the memory before anything is registered."""
    sizes = section.get("img_size", 64)
    window = section.get("window_size", 1)
    if max(sizes if isinstance(sizes, (list, tuple)) else [sizes]) * window > LARGEST_WINDOWS:
        raise CheckpointError(f"{path}: asks for windows of {window} pixels in images of {sizes}, which is too much")
    if sum(section.get("depths", ())) > len(weights):
        raise CheckpointError(f"{path}: asks for more blocks than it has tensors")
    for name, value in section.items():
        numbers = [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, int)]
        limit = len(weights) if any(word in name for word in COUNTS) else LARGEST_NUMBER
        area = math.prod(numbers) if any(word in name for word in WINDOWS) and len(numbers) > 1 else 0
        if max(map(abs, numbers), default=0) > limit or area > LARGEST_AREA:
            raise CheckpointError(f"{path}: asks for {name} {value}, which is too much for what it holds")


def check_tables(weights: Mapping[str, Tensor], path: Path) -> None:
    """The same for a file that says nothing of its network."""
    large = [name for name, value in weights.items() if name.endswith(BIAS_TABLE) and len(value) > LARGEST_TABLE]
    if large:
        raise CheckpointError(f"{path}: {large[0]} is of windows that are too large")


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor], path: Path, builds: int = 1) -> Iterator[None]:
    """Stops whatever builds a network in the block, `builds` times, with a CheckpointError before the memory is full: a small file may ask
    for any size. Only what is registered with modules is counted.
    """
    numbers = MORE_NUMBERS + 2 * builds * sum(value.numel() for value in weights.values())
    tensors = MORE_TENSORS + 2 * builds * len(weights)

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal numbers, tensors
        numbers, tensors = numbers - (0 if tensor is None else tensor.numel()), tensors - 1
        if numbers < 0 or tensors < 0:
            raise CheckpointError(f"{path}: asks for a network that is far larger than its weights")

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

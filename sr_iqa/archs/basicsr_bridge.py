"""The one entrance to the BasicSR package: any architecture of its registry by name.

BasicSR 1.4.2 is imported only when something asks for it: it takes seconds and fails with torchvision >= 0.17, which is mended here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from ..errors import UserError

SHIM = "torchvision.transforms.functional_tensor"
SUFFIX = "_basicsr"  # the registry's own mark on some names


@cache
def import_basicsr() -> ModuleType:
    """Imports and returns the package `basicsr`.

    Raises:
        UserError: it is not installed (its build fails on Python 3.13 and newer).
    """
    if importlib.util.find_spec("basicsr") is None:
        raise UserError(
            "The package 'basicsr' is not installed. Run `pip install basicsr` (Python 3.12 or older), or use a network of ours."
        )
    if SHIM not in sys.modules and importlib.util.find_spec(SHIM) is None:
        from torchvision.transforms.functional import rgb_to_grayscale

        shim = ModuleType(SHIM)
        vars(shim)["rgb_to_grayscale"] = rgb_to_grayscale
        sys.modules[SHIM] = shim
    import basicsr

    return basicsr


def basicsr_archs() -> dict[str, Callable[..., Any]]:
    """BasicSR's architecture registry: name -> class."""
    import_basicsr()
    from basicsr.utils.registry import ARCH_REGISTRY

    return {name.removesuffix(SUFFIX): arch for name, arch in ARCH_REGISTRY}

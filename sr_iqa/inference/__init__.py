"""Images in, images out: whole or in tiles, from any weight file, with an adapter at any scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .loading import load_for_inference, merge_adapters
from .tiles import upscale

if TYPE_CHECKING:
    from .folder import infer_folder

__all__ = ["infer_folder", "load_for_inference", "merge_adapters", "upscale"]


def __getattr__(name: str) -> Any:
    """What evaluation and training, which take `upscale` from here, do without."""
    if name == "infer_folder":
        from .folder import infer_folder

        return infer_folder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

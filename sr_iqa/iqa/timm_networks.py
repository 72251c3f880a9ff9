"""Networks of the timm library by name, with random weights. Nothing is looked for on a hub."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from sr_iqa.errors import UserError

TIMM = "timm:"
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"dynamic_img_size": True}, {})
"""Arguments with which a network takes images of any size, the first that it knows: a ViT's, a Swin's, those of networks that need none."""


def check_timm(name: str) -> None:
    """Raises UserError for a network that the library has not; timm itself would look on a hub."""
    import timm

    if not timm.is_model(name):
        raise UserError(f"timm has no network '{name}'; `timm.list_models()` has them all")


def create_timm(name: str) -> Any:
    """The network without its classifier, in eval mode.

    Vision transformers stretch their position embedding to the image, whose sides are filled up to whole patches with the mean colour.
    Raises UserError for a network that is not there.
    """
    import timm

    check_timm(name)
    for arguments in ANY_SIZE:
        with suppress(TypeError):  # an argument that this network does not know
            return timm.create_model(name, pretrained=False, num_classes=0, **arguments).eval()
    raise UserError(f"timm:{name} cannot be built")


def side_multiple(name: str) -> int:
    """What the sides of an image must be multiples of, in pixels: the patch of a Swin, for most networks 1.

    Raises UserError for a network that is not there, or takes images of a single size only.
    """
    with torch.device("meta"):  # neither time nor memory for weights
        net = create_timm(name)
    if net.pretrained_cfg.get("fixed_input_size") and not getattr(net, "dynamic_img_size", False):
        raise UserError(
            f"timm:{name} takes images of one size only, {net.pretrained_cfg['input_size'][-1]} px; choose a convolutional network or a ViT"
        )
    patches = getattr(net, "patch_embed", None)
    return 1 if getattr(patches, "dynamic_img_pad", False) else max(getattr(patches, "patch_size", (1,)))

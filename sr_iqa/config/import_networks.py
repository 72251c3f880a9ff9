"""Networks and discriminators of traiNNer-redux and neosr as ours, BasicSR's or Spandrel's, with the numbers behind their short names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .import_ledger import Ledger


@dataclass(frozen=True)
class Network:
    """What a short name such as hat_l stands for."""

    type: str
    """`{scale}` in it is filled in."""
    scale: str | None = "upscale"
    """The argument that takes the magnification; None where the type says it."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Where the class's own defaults are others."""


RENAMED: dict[str, dict[str, str]] = {
    "spandrel.OmniSR": {"upsampling": "up_scale"},
    "RRDBNet": {"num_filters": "num_feat", "num_blocks": "num_block", "in_nc": "num_in_ch", "out_nc": "num_out_ch"},
}
"""type -> its arguments under other names."""

ANY = object()

HARMLESS: dict[str, tuple[Any, str]] = {
    "fast": (False, "false is the plain network"),
    "flash_attn": (ANY, "attention takes the fastest kernel by itself"),
    "img_size": (ANY, "the network takes any size"),
    "in_ch": (3, "images are RGB"),
    "learn_residual": (True, "the input, made larger, is always added"),
    "num_blocks": (6, "6 blocks are what it has"),
    "out_ch": (3, "images are RGB"),
    "start_unshuffle": (1, "1 is no unshuffling"),
    "unshuffle_mod": (False, "false is no unshuffling"),
    "use_checkpoint": (ANY, "it saves memory only"),
    "use_pixel_unshuffle": (True, "inputs of x1 and x2 are unshuffled"),
}
"""Arguments that can be left out: the value with which they can, and why."""

ABSENT: dict[str, tuple[str, ...]] = {
    "spandrel.DRCT": ("use_checkpoint",),
    "spandrel.DAT": ("unshuffle_mod", "flash_attn"),
    "spandrel.HAT": ("flash_attn",),
    "spandrel.CRAFT": ("flash_attn", "img_size"),
    "spandrel.Compact": ("learn_residual",),
    "spandrel.RealPLKSR": ("in_ch", "out_ch"),
    "spandrel.SPAN": ("num_blocks",),
    "SwinIR": ("flash_attn", "start_unshuffle"),
    "RRDBNet": ("use_pixel_unshuffle",),
    **{f"spandrel.UpCunet{scale}x": ("fast",) for scale in (2, 3, 4)},
}
"""type -> arguments of theirs that the class does not have."""

MOSR_UPSAMPLERS = {"pixelshuffle": "ps", "dysample": "dys", "geoensemblepixelshuffle": "gps"}


def _six(groups: int, heads: int = 6, depth: str = "depths") -> dict[str, Any]:
    return {depth: [6] * groups, "num_heads": [heads] * groups}


_SWIN = {"window_size": 8, "mlp_ratio": 2.0}
_SMALL = {"embed_dim": 60, **_SWIN, "upsampler": "pixelshuffledirect"}
_MEDIUM = {"embed_dim": 180, **_six(6), **_SWIN, "upsampler": "pixelshuffle"}
_LARGE = {"embed_dim": 240, **_six(9, 8), **_SWIN, "upsampler": "nearest+conv", "resi_connection": "3conv"}
_ATD = {"img_size": 96, "embed_dim": 210, **_six(6), "window_size": 16, "num_tokens": 128, "reducted_dim": 20, "upsampler": "pixelshuffle"}
_ATD_LIGHT = {
    **{"embed_dim": 48, "window_size": 16, "category_size": 128, "reducted_dim": 8, "convffn_kernel_size": 7},
    **{"mlp_ratio": 1.0, "upsampler": "pixelshuffledirect"},
}
_HAT = {"window_size": 16, "mlp_ratio": 2.0}
_DAT = {"split_size": [8, 32], **_six(6, depth="depth")}
_RGT = {"split_size": [8, 32], "mlp_ratio": 2.0}
_GRL = {"window_size": 32, "stripe_size": [64, 64], "stripe_shift": True, "mlp_ratio": 2.0, "anchor_window_down_factor": 4}
_GRL_FOUR = {"depths": [4] * 4, "num_heads_window": [2] * 4, "num_heads_stripe": [2] * 4, **_GRL}
_PLKSR_TINY = {"n_blocks": 12, "kernel_size": 13, "use_ea": False}
_SPAN = {"num_in_ch": 3, "num_out_ch": 3, "norm": False}
_RRDB = {"num_in_ch": 3, "num_out_ch": 3}


def _hat(groups: int, embed_dim: int) -> Network:
    return Network("spandrel.HAT", arguments={"embed_dim": embed_dim, **_six(groups), **_HAT})


def _real_plksr(**arguments: Any) -> Network:
    return Network("spandrel.RealPLKSR", "upscaling_factor", arguments)


def _span(width: int) -> Network:
    return Network("spandrel.SPAN", arguments={**_SPAN, "feature_channels": width})


def _fdat(**arguments: Any) -> Network:
    return Network("spandrel.FDAT", "scale", arguments)


_BOTH: dict[str, Network] = {
    "compact": Network("spandrel.Compact"),
    "craft": Network("spandrel.CRAFT"),
    "dat_s": Network("spandrel.DAT", arguments={**_DAT, "split_size": [8, 16], "expansion_factor": 2}),
    "dat_2": Network("spandrel.DAT", arguments={**_DAT, "expansion_factor": 2}),
    "dctlsa": Network("spandrel.DCTLSA"),
    "drct": Network("spandrel.DRCT", arguments={"upsampler": "pixelshuffle"}),
    "drct_l": Network("spandrel.DRCT", arguments={**_six(12), "upsampler": "pixelshuffle"}),
    "drct_xl": Network("spandrel.DRCT", arguments={**_six(14), "upsampler": "pixelshuffle"}),
    "esrgan": Network("RRDBNet", "scale", _RRDB),
    "hat_s": Network("spandrel.HAT", arguments={"embed_dim": 144, **_six(6), "compress_ratio": 24, "squeeze_factor": 24, **_HAT}),
    "hat_m": _hat(6, 180),
    "hat_l": _hat(12, 180),
    "omnisr": Network("spandrel.OmniSR", "up_scale", {"res_num": 5}),
    "plksr": Network("spandrel.PLKSR", "upscaling_factor", {"ccm_type": "DCCM"}),
    "plksr_tiny": Network("spandrel.PLKSR", "upscaling_factor", {"ccm_type": "DCCM", **_PLKSR_TINY}),
    "rcan": Network("spandrel.RCAN", "scale", {"norm": False}),
    "rgt": Network("spandrel.RGT", arguments={**_RGT, **_six(8, depth="depth")}),
    "rgt_s": Network("spandrel.RGT", arguments={**_RGT, **_six(6, depth="depth")}),
    "safmn": Network("spandrel.SAFMN", "upscaling_factor", {"dim": 36}),
    "safmn_l": Network("spandrel.SAFMN", "upscaling_factor", {"dim": 128, "n_blocks": 16}),
}

TRAINNER: dict[str, Network] = {
    **_BOTH,
    "atd": Network("spandrel.ATD", arguments=_ATD),
    "atd_light": Network("spandrel.ATD", arguments={**_ATD_LIGHT, "num_heads": [6] * 4}),
    "dat": Network("spandrel.DAT", arguments=_DAT),
    "dat_2_l": Network("spandrel.DAT", arguments={**_DAT, **_six(12, depth="depth"), "expansion_factor": 2}),
    "dat_light": Network(
        "spandrel.DAT",
        arguments={
            **{"embed_dim": 60, "split_size": [8, 32], "depth": [18], "num_heads": [6], "expansion_factor": 2},
            "resi_connection": "3conv",
        },
    ),
    "ditn_real": Network("spandrel.DITN"),
    "esrgan_lite": Network("RRDBNet", "scale", {**_RRDB, "num_feat": 32, "num_block": 12}),
    "fdat": _fdat(upsampler_type="pixelshuffle"),
    "fdat_tiny": _fdat(embed_dim=96, num_groups=2, depth_per_group=2, num_heads=3, ffn_expansion_ratio=1.5, drop_path_rate=0.05),
    "fdat_light": _fdat(embed_dim=108, num_groups=3, depth_per_group=2, drop_path_rate=0.08),
    "fdat_medium": _fdat(),
    "fdat_medium_aligned": _fdat(embed_dim=128),
    "fdat_large": _fdat(embed_dim=180, depth_per_group=4, num_heads=6),
    "fdat_xl": _fdat(embed_dim=180, num_groups=6, depth_per_group=6, num_heads=6),
    "grl_b": Network(
        "spandrel.GRL",
        arguments={
            **{"embed_dim": 180, "upsampler": "pixelshuffle", "depths": [4, 4, 8, 8, 8, 4, 4], "num_heads_window": [3] * 7},
            **{"num_heads_stripe": [3] * 7, **_GRL, "local_connection": True},
        },
    ),
    "grl_s": Network("spandrel.GRL", arguments={"embed_dim": 128, "upsampler": "pixelshuffle", **_GRL_FOUR}),
    "grl_t": Network("spandrel.GRL", arguments={"embed_dim": 64, "upsampler": "pixelshuffledirect", **_GRL_FOUR}),
    "hat_m_aligned": _hat(6, 192),
    "hat_l_aligned": _hat(12, 192),
    "mosr": Network("spandrel.MoSR"),
    "mosr_t": Network("spandrel.MoSR", arguments={"n_block": 5, "dim": 48}),
    "rcan_l": Network("spandrel.RCAN", "scale", {"norm": False, "n_feats": 96}),
    "rcan_unshuffle": Network("spandrel.RCAN", "scale", {"norm": False, "unshuffle_mod": True}),
    "realcugan": Network("spandrel.UpCunet{scale}x", None),
    "realplksr": _real_plksr(layer_norm=True),
    "realplksr_tiny": _real_plksr(layer_norm=True, **_PLKSR_TINY),
    "realplksr_large": _real_plksr(layer_norm=True, dim=96),
    "seemore_t": Network("spandrel.SeemoRe", "scale", {"num_experts": 3, "embedding_dim": 36, "lr_space": "exp"}),
    "span": _span(52),
    "span_s": _span(48),
    "span_f32": _span(32),
    "span_f64": _span(64),
    "span_f96": _span(96),
    "superultracompact": Network("spandrel.Compact", arguments={"num_feat": 24, "num_conv": 8}),
    "swin2sr_s": Network("spandrel.Swin2SR", arguments=_SMALL),
    "swin2sr_m": Network("spandrel.Swin2SR", arguments=_MEDIUM),
    "swin2sr_l": Network("spandrel.Swin2SR", arguments=_LARGE),
    "swinir_s": Network("SwinIR", arguments=_SMALL),
    "swinir_m": Network("SwinIR", arguments={"img_size": 48, **_MEDIUM}),
    "swinir_l": Network("SwinIR", arguments=_LARGE),
    "ultracompact": Network("spandrel.Compact", arguments={"num_conv": 8}),
}

NEOSR: dict[str, Network] = {
    **_BOTH,
    "atd": Network("spandrel.ATD", arguments={**_ATD, "norm": False}),
    "atd_light": Network("spandrel.ATD", arguments={**_ATD_LIGHT, "num_heads": [4] * 4, "norm": False}),
    "cugan": Network("spandrel.UpCunet{scale}x", None, {"pro": True}),
    "dat_m": Network("spandrel.DAT", arguments=_DAT),
    "ditn": Network("spandrel.DITN"),
    "drct_s": Network("spandrel.DRCT", arguments={"embed_dim": 48, "depths": [2] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffle"}),
    "moesr": Network("spandrel.MoESR", "scale"),
    "realplksr": _real_plksr(),
    "realplksr_s": _real_plksr(**_PLKSR_TINY),
    "realplksr_l": _real_plksr(dim=96),
    "span": Network("spandrel.SPAN", arguments={**_SPAN, "img_range": 1.0, "rgb_mean": [0.5, 0.5, 0.5]}),
    "swinir_small": Network("SwinIR", arguments={**_SMALL, "rgb_mean": [0.5] * 3}),
    "swinir_medium": Network("SwinIR", arguments={"img_size": 48, **_MEDIUM, "rgb_mean": [0.5] * 3}),
    "swinir_large": Network("SwinIR", arguments={**_LARGE, "rgb_mean": [0.5] * 3}),
}

DISCRIMINATORS = {
    "unet": "UNetDiscriminatorSN",
    "unetdiscriminatorsn": "UNetDiscriminatorSN",
    "vggstylediscriminator": "VGGStyleDiscriminator",
}
REQUIRED: dict[str, dict[str, Any]] = {
    "UNetDiscriminatorSN": {"num_in_ch": 3},
    "VGGStyleDiscriminator": {"num_in_ch": 3, "num_feat": 64},
}


def translate_generator(ledger: Ledger, table: Mapping[str, Network]) -> None:
    """network_g with the class's name and all of its numbers; a type that is none of the table's is left for the check to refuse."""
    path = ("network_g", "type")
    name = ledger.get(path)
    if not isinstance(name, str):
        return
    network = table.get(name.lower())
    if network is None:
        near = difflib.get_close_matches(name.lower(), table, n=1, cutoff=0.8)
        hint = f"did you mean {near[0]}?" if near else "in a file of ours you can name your own class (package.module.Class)"
        ledger.problem(path, f"{name} has no counterpart here; {hint}")
        return
    given = dict(ledger.block(("network_g",)))
    given.pop("type")
    scale = ledger.get(("scale",))
    kind = network.type.format(scale=scale)
    ledger.add(path, path, kind)
    _arguments(ledger, kind, given)
    arguments = {**({network.scale: scale} if network.scale else {}), **network.arguments}
    for key, value in arguments.items():
        if ledger.get(("network_g", key)) is None and value is not None:
            ledger.add(path, ("network_g", key), value)


def _arguments(ledger: Ledger, kind: str, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        path = ("network_g", key)
        if (kind, key) == ("spandrel.RealPLKSR", "upsampler"):
            ledger.become(path, ("network_g", "dysample"), value == "dysample")
        elif (kind, key) == ("spandrel.MoSR", "upsampler"):
            ledger.add(path, path, MOSR_UPSAMPLERS.get(str(value), value))
        elif key in RENAMED.get(kind, {}):
            ledger.move(path, ("network_g", RENAMED[kind][key]))
        elif key in ABSENT.get(kind, ()):
            neutral, why = HARMLESS[key]
            if neutral is ANY or value == neutral:
                ledger.ignored(path, why)
            else:
                ledger.lost(path, f"{kind} has no such argument; it is built without")


def translate_discriminator(ledger: Ledger) -> None:
    """network_d; a U-Net stands in for what has no counterpart, so that a GAN stays a GAN."""
    path = ("network_d", "type")
    name = ledger.get(path)
    if not isinstance(name, str):
        return
    kind = DISCRIMINATORS.get(name.lower())
    if kind is None:
        where = ledger.where(path)
        ledger.lost(("network_d",), f"{name} has no counterpart; UNetDiscriminatorSN stands in, loss weights may want another balance")
        ledger.put(path, "UNetDiscriminatorSN", where)
        kind = "UNetDiscriminatorSN"
        for key in ("pretrain_network_d", "param_key_d", "strict_load_d"):
            if ledger.get(("path", key)) is not None:
                ledger.lost(("path", key), f"weights of {name} fit no other discriminator; it starts from random weights")
    else:
        ledger.add(path, path, kind)
    for key, value in REQUIRED[kind].items():
        if ledger.get(("network_d", key)) is None:
            ledger.put(("network_d", key), value, ledger.where(path))
    if kind == "VGGStyleDiscriminator" and ledger.get(("network_d", "input_size")) is None:
        ledger.put(("network_d", "input_size"), ledger.get(("datasets", "train", "gt_size")), ledger.where(path))

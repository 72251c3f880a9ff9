"""Small weight files in the real layouts of other projects, and what is promised of each (docs/checkpoints.md)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_file
from spandrel.architectures.ESRGAN import ESRGAN as SpandrelESRGAN
from spandrel.architectures.SwinIR import SwinIR as SpandrelSwinIR
from torch import nn

from sr_iqa.archs import build_network
from sr_iqa.archs.basicsr_bridge import basicsr_archs
from tests.test_architectures import SMALL

RRDB = {"type": "RRDBNet", "num_feat": 8, "num_block": 1, "num_grow_ch": 32}
SWINIR = {"window_size": 8, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "mlp_ratio": 2, "img_size": 16}
SECOND = {"body.": "RRDB_trunk.", "conv_body.": "trunk_conv.", "conv_up1.": "upconv1.", "conv_up2.": "upconv2.", "conv_hr.": "HRconv."}
FIRST = {"conv_first.": "model.0.", "body.": "model.1.sub.", "conv_body.": "model.1.sub.{n}.", "conv_up1.": "model.3."}
FIRST |= {"conv_up2.": "model.6.", "conv_hr.": "model.8.", "conv_last.": "model.10."}


@dataclass(frozen=True)
class Kind:
    """A kind of weight file."""

    write: Callable[[Any], Any]
    """tmp_path -> the file's path."""
    network: str
    """The type that it has here."""
    scale: int = 4
    trains: bool = True
    lora: bool = True
    spandrel: bool = True
    """Spandrel reads what a run of it writes."""
    channels: int = 3


def randomised(net):
    """The network with random weights everywhere, in eval mode."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return net.eval()


def renamed(state, names):
    """BasicSR's names -> older ones, written the other way round than the product does."""
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("body."))
    found = {}
    for name, value in state.items():
        start = next((old for old in names if name.startswith(old)), "")
        new = names.get(start, start).format(n=blocks) + name.removeprefix(start)
        new = new.replace(".rdb", ".RDB")
        if "sub" in new and ".RDB" in new:
            new = new.replace(".weight", ".0.weight").replace(".bias", ".0.bias")
        found[new] = value
    return found


def rrdb(scale=4, **changes):
    return randomised(build_network({**RRDB, "scale": scale, **changes})).state_dict()


def pth(content, name="net.pth"):
    """A writer of a .pth file with what `content()` gives."""

    def write(folder):
        torch.save(content(), folder / name)
        return folder / name

    return write


def swinir(key, **arguments):
    return pth(lambda: {key: randomised(SpandrelSwinIR(**{**SWINIR, **arguments})).state_dict()})


def trainner(folder):
    """Its `esrgan` is Spandrel's class; its header holds the arguments."""
    arguments = {"num_filters": 8, "num_blocks": 1, "scale": 4, "use_pixel_unshuffle": True}
    net = randomised(SpandrelESRGAN(num_filters=8, num_blocks=1, scale=4))
    save_file(net.state_dict(), folder / "4x_Name_net_g_ema_1000.safetensors", metadata={"metadata": json.dumps(arguments)})
    return folder / "4x_Name_net_g_ema_1000.safetensors"


def of_basicsr(name, **arguments):
    return pth(lambda: {"params": randomised(basicsr_archs()[name](**arguments)).state_dict()})


def bsrgan_x2():
    return {name: value for name, value in renamed(rrdb(), SECOND).items() if not name.startswith("upconv2")}


def architecture(name):
    """A Kind for one of Spandrel's architectures."""

    def content():
        torch.manual_seed(0)
        return {"params": build_network({"type": f"spandrel.{name}", **SMALL[name]}).state_dict()}

    return Kind(pth(content), f"spandrel.{name}", scale=2)


SPAN = {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}
KINDS = {
    "BasicSR, `params` and `params_ema`": Kind(pth(lambda: {"params": rrdb(), "params_ema": rrdb()}), "RRDBNet"),
    "bare state dict, `module.`, `_orig_mod.`": Kind(pth(lambda: {f"module._orig_mod.{k}": v for k, v in rrdb().items()}), "RRDBNet"),
    "`state_dict` of a larger checkpoint": Kind(pth(lambda: {"state_dict": rrdb(), "epoch": 3}), "RRDBNet"),
    "ESRGAN x4, first code (`model.0`)": Kind(pth(lambda: renamed(rrdb(), FIRST)), "RRDBNet"),
    "ESRGAN x4 second code, BSRGAN x4 (`RRDB_trunk`)": Kind(pth(lambda: renamed(rrdb(), SECOND)), "RRDBNet"),
    "BSRGAN x2": Kind(pth(bsrgan_x2), "spandrel.ESRGAN", scale=2),
    "Real-ESRGAN x4plus, anime 6B": Kind(pth(lambda: {"params_ema": rrdb()}), "RRDBNet"),
    "Real-ESRGAN x2plus": Kind(pth(lambda: {"params_ema": rrdb(2)}), "RRDBNet", scale=2),
    "Real-ESRGAN general, animevideo": Kind(of_basicsr("SRVGGNetCompact", num_feat=8, num_conv=2, upscale=4), "spandrel.Compact", scale=4),
    "HGGT RRDB": Kind(pth(lambda: {"params": rrdb(type="RRDBPSNet"), "params_ema": rrdb(type="RRDBPSNet")}), "RRDBPSNet", spandrel=False),
    "SwinIR classical": Kind(swinir("params", upsampler="pixelshuffle", upscale=2), "SwinIR", scale=2),
    "SwinIR lightweight": Kind(swinir("params", upsampler="pixelshuffledirect", upscale=2), "SwinIR", scale=2),
    "SwinIR real-world M": Kind(swinir("params_ema", upsampler="nearest+conv", upscale=4), "SwinIR"),
    "SwinIR real-world L": Kind(swinir("params_ema", upsampler="nearest+conv", upscale=4, resi_connection="3conv"), "SwinIR"),
    "SwinIR color denoising": Kind(swinir("params", upsampler="", upscale=1), "SwinIR", scale=1),
    "SwinIR color JPEG": Kind(swinir("params", upsampler="", upscale=1, window_size=7, img_size=14, img_range=255.0), "SwinIR", scale=1),
    "SwinIR gray denoising, gray JPEG": Kind(
        swinir("params", upsampler="", upscale=1, in_chans=1), "SwinIR", scale=1, trains=False, lora=False, channels=1
    ),
    "traiNNer-redux esrgan, .safetensors": Kind(trainner, "RRDBNet"),
    "neosr esrgan, .pth": Kind(pth(lambda: {"params": rrdb()}, "net_g_1000.pth"), "RRDBNet"),
    **{f"{name} (Spandrel)": architecture(name) for name in SMALL},
    "SPAN (Spandrel)": Kind(
        pth(lambda: {"params": randomised(build_network({"type": "spandrel.SPAN", **SPAN})).state_dict()}), "spandrel.SPAN", 2, lora=False
    ),
}

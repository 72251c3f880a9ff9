"""What traiNNer-redux and neosr share beside networks: losses, optimizers and precision under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .document import KeyPath, dotted
from .import_ledger import Ledger, shown
from .vocabulary import nearest

VGG_LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
"""Both projects' default weights."""

PIXEL = {"l1": "L1Loss", "mse": "MSELoss", "charbonnier": "CharbonnierLoss"}
METRIC = {
    "ssim": "ssim",
    "mssim": "ms_ssim",
    "psnr": "psnr",
    "dists": "dists",
    "msswd": "msswd",
    "topiq": "topiq_fr",
}
"""Their loss -> metric of the door."""
PERCEPTUAL = ("perceptual", "vggperceptual", "perceptualfp16")

LOST = {
    "huber": "a loss between L1 and MSE; train.pixel_opt CharbonnierLoss is near",
    "chc": "clipped Huber and cosine similarity; train.pixel_opt CharbonnierLoss is near",
    "msssiml1": "MS-SSIM and L1 in one; use train.metric_opt {type: ms_ssim} and train.pixel_opt {type: L1Loss}",
    "ldl": "punishes artifacts where the EMA network has none; train without it",
    "ff": "compares spectra (focal frequency); train without it",
    "fft": "compares spectra; train without it",
    "contextual": "matches features regardless of their place; train.metric_opt {type: dists} is near",
    "cosim": "keeps colours by cosine similarity; train.pixel_opt keeps them too",
    "hsluv": "compares in the colour space HSLuv; train.pixel_opt keeps colours too",
    "color": "compares chroma of smaller images; train.pixel_opt keeps colours too",
    "luma": "compares luminance; train.metric_opt {type: psnry} is near",
    "average": "compares averages of smaller images; train without it",
    "bicubic": "compares images made smaller; train without it",
    "consistency": "keeps lightness and chroma near the LQ's; train.pixel_opt keeps colours too",
    "fdl": "matches the distribution of deep features; train.metric_opt {type: dists} is near",
    "ncc": "normalised cross correlation; train.metric_opt {type: ssim} is near",
    "kl": "compares distributions of pixels; train without it",
    "gw": "weights errors by gradients; train.metric_opt {type: gmsd} is near",
    "gradientvariance": "compares gradients' variances; train.metric_opt {type: gmsd} is near",
    "flip": "the FLIP difference; train.metric_opt {type: ssim} is near",
    "sobeledge": "compares edges; train.metric_opt {type: gmsd} is near",
    "multiscalegan": "an adversarial loss on several scales; use train.gan_opt {type: GANLoss} with UNetDiscriminatorSN",
}
"""Losses without a counterpart: what they do, and what is near."""

CRITERIA = {"l1": "l1", "l2": "l2", "fro": "fro", "charbonnier": "l1"}
GAN_TYPES = {"vanilla": "vanilla", "bce": "vanilla", "lsgan": "lsgan", "mse": "lsgan", "hinge": "hinge", "wgan_softplus": "wgan_softplus"}

OPTIMIZERS = {name.lower(): name for name in ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SGD", "ASGD", "RMSprop", "Adagrad", "Adadelta")}
STAND_IN_RATE = 2e-4
"""The rate of most published AdamW trainings of SR networks; the optimizers that it stands in for take several times as much."""


# ---------------------------------------------------------------- losses


def loss_name(kind: Any) -> str:
    """l1loss, L1Loss, l1_loss -> l1."""
    return str(kind).lower().replace("_", "").removesuffix("loss")


def translate_loss(ledger: Ledger, path: KeyPath, defaults: Mapping[str, Mapping[str, Any]]) -> None:
    """The block of one loss, wherever the file has it, into its place under train; called in the file's order.

    Args:
        path: where the block is.
        defaults: loss -> the project's default arguments that are not loss_weight: 1.
    """
    name = loss_name(ledger.block(path).get("type"))
    block = {"loss_weight": 1.0, **defaults.get(name, {}), **ledger.block(path)}
    weight = block["loss_weight"]
    if weight == 0:
        ledger.ignored(path, f"{block.get('type')} has weight 0")
    elif name in PIXEL:
        _place(ledger, path, ("train", "pixel_opt"), {"type": PIXEL[name], "loss_weight": weight, **only(block, "reduction", "eps")})
    elif name in METRIC:
        _metric(ledger, path, name, weight)
    elif name in PERCEPTUAL:
        _perceptual(ledger, path, block, weight)
    elif name == "gan":
        _gan(ledger, path, block, weight)
    else:
        near = nearest(name, (*PIXEL, *METRIC, *PERCEPTUAL, *LOST))
        unknown = f"unknown loss{f', did you mean {near}?' if near else ''}; train without it"
        ledger.lost(path, f"{block.get('type')} (weight {weight}): {LOST.get(name, unknown)}")


def _place(ledger: Ledger, path: KeyPath, new: KeyPath, block: dict[str, Any]) -> None:
    if path != new and ledger.get(new) is not None:
        ledger.lost(path, f"{block['type']}: {dotted(new)} is one loss only, and is taken by {shown(ledger.get((*new, 'type')))}")
        return
    for key, value in ledger.block(path).items():
        if key not in block and key != "loss_weight" and value:
            ledger.deviation((*path, key), f"{shown(value)} has no place in {block['type']} here")
    ledger.become(path, new, block)


def _metric(ledger: Ledger, path: KeyPath, name: str, weight: Any) -> None:
    """MS-SSIM needs five scales: where crops are too small SSIM stands in."""
    metric = METRIC[name]
    side = ledger.get(("datasets", "train", "gt_size"))
    if metric == "ms_ssim" and isinstance(side, int) and side < 161:
        ledger.deviation(path, f"MS-SSIM needs crops of at least 161 pixels, they have {side}; SSIM stands in")
        metric = "ssim"
    for key, value in ledger.block(path).items():
        if key not in ("type", "loss_weight", "reduction"):
            ledger.deviation((*path, key), f"{shown(value)} has no place in the metric {metric}")
    ledger.append(path, ("train", "metric_opt"), {"type": metric, "loss_weight": weight})


def _perceptual(ledger: Ledger, path: KeyPath, block: dict[str, Any], weight: Any) -> None:
    criterion = str(block.get("criterion", "charbonnier"))
    if criterion not in CRITERIA:
        ledger.deviation((*path, "criterion"), f"{criterion} is none of l1, l2, fro; l1 stands in")
    layers = block.get("layer_weights") or dict(VGG_LAYERS)
    _place(
        ledger,
        path,
        ("train", "perceptual_opt"),
        {
            "type": "PerceptualLoss",
            "layer_weights": layers,
            "perceptual_weight": weight,
            "criterion": CRITERIA.get(criterion, "l1"),
            **only(block, "vgg_type", "use_input_norm", "range_norm"),
        },
    )


def _gan(ledger: Ledger, path: KeyPath, block: dict[str, Any], weight: Any) -> None:
    kind = str(block.get("gan_type", "vanilla"))
    if kind not in GAN_TYPES:
        ledger.deviation((*path, "gan_type"), f"{kind} is none of {', '.join(dict.fromkeys(GAN_TYPES.values()))}; vanilla stands in")
    labels = only(block, "real_label_val", "fake_label_val")
    new = {"type": "GANLoss", "gan_type": GAN_TYPES.get(kind, "vanilla"), "loss_weight": weight, **labels}
    _place(ledger, path, ("train", "gan_opt"), new)


def only(block: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: block[name] for name in names if name in block}


# ---------------------------------------------------------------- optimizers, precision


def translate_optimizer(ledger: Ledger, name: str) -> None:
    """train.optim_g or optim_d: torch's by its own name; AdamW stands in for the others."""
    path: KeyPath = ("train", name)
    block = ledger.block(path)
    kind = str(block.get("type"))
    if not block:
        return
    if kind.lower() in OPTIMIZERS:
        ledger.add((*path, "type"), (*path, "type"), OPTIMIZERS[kind.lower()])
        return
    where, rate = ledger.where(path), block.get("lr", STAND_IN_RATE)
    rate = min(rate, STAND_IN_RATE) if isinstance(rate, (int, float)) else STAND_IN_RATE
    stand_in = {"type": "AdamW", "lr": rate, "weight_decay": block.get("weight_decay", 0), "betas": [0.9, 0.99]}
    ledger.lost(path, f"{kind} {shown(only(block, 'lr', 'betas'))}: AdamW with lr {rate} stands in; choose lr and train.scheduler for it")
    ledger.put(path, stand_in, where)


def translate_precision(ledger: Ledger, amp: KeyPath, bf16: KeyPath) -> None:
    """Mixed precision, or the fast float32 products, as `precision`."""
    half = "bf16" if ledger.get(bf16) is True else "fp16"
    if ledger.get(amp) is True:
        if half == "fp16" and ledger.get(("network_d",)) is not None:
            ledger.deviation(amp, "fp16 cannot train a GAN here (one loss scale serves two optimizers); bf16 stands in")
            half = "bf16"
        ledger.become(amp, ("precision",), half)
        if ledger.get(bf16) is True:
            ledger.ignored(bf16, "precision says it")
        if ledger.get(("fast_matmul",)) is True:
            ledger.ignored(("fast_matmul",), "mixed precision is faster still")
    elif ledger.get(("fast_matmul",)) is True:
        ledger.become(("fast_matmul",), ("precision",), "tf32")
    for path in (amp, bf16, ("fast_matmul",)):
        ledger.pop(path)


def translate_scheduler(ledger: Ledger) -> None:
    """Names in any case; a scheduler without a counterpart leaves the rate constant."""
    path: KeyPath = ("train", "scheduler", "type")
    kind = ledger.get(path)
    if not isinstance(kind, str):
        return
    known = {
        "multisteplr": "MultiStepLR",
        "multisteprestartlr": "MultiStepLR",
        "cosineannealinglr": "CosineAnnealingLR",
        "cosineannealing": "CosineAnnealingLR",
        "cosineannealingrestartlr": "CosineAnnealingRestartLR",
    }
    if kind.lower() in known:
        ledger.add(path, path, known[kind.lower()])
    else:
        ledger.lost(path[:-1], f"{kind} is none of {', '.join(dict.fromkeys(known.values()))}; the rate stays constant")


def lose_what_is_on(ledger: Ledger, switches: Mapping[KeyPath, str]) -> None:
    """Switches without a counterpart: lost where they are on."""
    for path, what in switches.items():
        value = ledger.get(path)
        if isinstance(value, dict) and value.get("enabled", True) is False:
            ledger.ignored(path, "enabled is false")
        elif value:
            ledger.lost(path, what)
        else:
            ledger.pop(path)


def ignore(ledger: Ledger, reasons: Mapping[KeyPath, str]) -> None:
    """Those of the keys that the file has."""
    for path, why in reasons.items():
        if ledger.get(path) is not None:
            ledger.ignored(path, why)


def first_folder(ledger: Ledger, path: KeyPath) -> None:
    """A list of folders: the first one is taken."""
    folders = ledger.get(path)
    if not isinstance(folders, list):
        return
    if len(folders) > 1:
        text = f"a data set is one folder here: {folders[0]} is taken, put the files (or links) of {shown(folders[1:])} into it"
        ledger.deviation(path, text)
    ledger.add(path, path, folders[0] if folders else None)


def scaled_size(ledger: Ledger, old: KeyPath, new: KeyPath) -> None:
    """Crops given in LQ pixels."""
    side, scale = ledger.get(old), ledger.get(("scale",))
    if isinstance(side, int) and isinstance(scale, int):
        ledger.become(old, new, side * scale)

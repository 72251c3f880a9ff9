"""neosr's training files: its names become BasicSR's or ours, and translate.py does the rest."""

from __future__ import annotations

from typing import Any

from .document import KeyPath, OptionsError
from .import_ledger import Ledger, shown
from .import_networks import NEOSR, translate_discriminator, translate_generator
from .import_training import (
    ignore,
    lose_what_is_on,
    scaled_size,
    translate_loss,
    translate_optimizer,
    translate_precision,
    translate_scheduler,
)
from .translate_trainner import full_reference_topiq

TRAIN: KeyPath = ("datasets", "train")
VAL: KeyPath = ("datasets", "val")

MODELS = ("image", "otf", "default")
DATASETS = {"paired": "paired", "otf": "single_gt"}
CLIPPED = 1.0
"""The norm to which neosr clips gradients unless train.grad_clip is false."""

LOSS_DEFAULTS: dict[str, dict[str, Any]] = {"gan": {"loss_weight": 0.1}, "vggperceptual": {"criterion": "chc"}}

MOVED: dict[KeyPath, KeyPath] = {
    (*TRAIN, "batch_size"): (*TRAIN, "batch_size_per_gpu"),
    (*TRAIN, "accumulate"): ("train", "accum_iter"),
    ("logger", "total_iter"): ("train", "total_iter"),
}

HARMLESS: dict[KeyPath, str] = {
    ("degradations", "blur_kernel_size"): "neosr draws kernel sides from 7 to 21 whatever it says",
    ("degradations", "blur_kernel_size2"): "neosr draws kernel sides from 7 to 21 whatever it says",
    (*TRAIN, "queue_size"): "every sample draws its own degradation, no pool is needed",
    ("logger", "save_tb_img"): "sample images go to TensorBoard anyway",
    ("val", "save_lq"): "LQs are on the sample sheet",
    ("print_network",): "it prints, and changes nothing",
    ("path", "print_network"): "it prints, and changes nothing",
}

SWITCHES: dict[KeyPath, str] = {
    (*TRAIN, "augmentation"): "mixes images with each other (mixup, cutmix, ...); train without it",
    ("train", "wavelet_guided"): "weights the GAN's and other losses by wavelets; train without it",
    ("train", "sam"): "sharpness-aware minimisation, a second pass per step; train without it",
    ("train", "eco"): "trains towards outputs of the network that approach the GT; train without it",
    ("train", "match_lq_colors"): "gives outputs the LQ's colours before the losses; train.pixel_opt keeps colours too",
    ("train", "match_lq"): "gives outputs the LQ's colours before the losses; train.pixel_opt keeps colours too",
    ("train", "clamp"): "clamps outputs and GTs to [1/255, 1] before the losses; here they are compared as they are",
    (*TRAIN, "mean"): "normalises images; they stay in [0, 1]",
    (*TRAIN, "std"): "normalises images; they stay in [0, 1]",
}

DEPENDENTS: dict[KeyPath, str] = {
    (*TRAIN, "aug_prob"): "it belongs to augmentation",
    ("train", "wavelet_init"): "it belongs to wavelet_guided",
    ("train", "sam_init"): "it belongs to sam",
    **{("train", f"eco_{name}"): "it belongs to eco" for name in ("init", "iters", "schedule")},
}


def translate_neosr(ledger: Ledger) -> None:
    """Rewrites the ledger in place.

    Raises:
        OptionsError: the file trains on something else than pairs or degraded GTs.
    """
    _data(ledger)
    ignore(ledger, HARMLESS)
    for name in list(ledger.block(("degradations",))):
        ledger.move(("degradations", name), (*TRAIN, name))
    ledger.pop(("degradations",))
    for old, new in MOVED.items():
        if ledger.get(old) is not None:
            ledger.move(old, new)
    scaled_size(ledger, (*TRAIN, "patch_size"), (*TRAIN, "gt_size"))
    if ledger.get(("model_type",)) in MODELS:
        ledger.ignored(("model_type",), "the blocks under train say what is trained")
    if ledger.get(("manual_seed",)) is not None:
        ledger.add(("manual_seed",), ("deterministic",), True)
    translate_precision(ledger, ("use_amp",), ("bfloat16",))
    translate_generator(ledger, NEOSR)
    translate_discriminator(ledger)
    _training(ledger)
    full_reference_topiq(ledger)
    lose_what_is_on(ledger, SWITCHES)
    ignore(ledger, DEPENDENTS)


def _data(ledger: Ledger) -> None:
    for data in (TRAIN, VAL):
        name = ledger.get((*data, "type"))
        if name == "single" and data == VAL:
            ledger.ignored(data, "validation needs GTs; images without GTs go through `sr-iqa infer`")
        elif isinstance(name, str) and name in DATASETS:
            ledger.add((*data, "type"), (*data, "type"), DATASETS[name])
        elif name is not None:
            text = f"{name} is none of {', '.join(DATASETS)}: training needs pairs, or GTs to degrade"
            raise OptionsError([*ledger.problems, ledger.say((*data, "type"), text)])
    if ledger.get((*TRAIN, "num_worker_per_gpu")) == "auto":
        ledger.ignored((*TRAIN, "num_worker_per_gpu"), "the default is 4")
    if ledger.get((*TRAIN, "type")) == "single_gt" and ledger.get((*TRAIN, "dataroot_lq")) is not None:
        ledger.lost((*TRAIN, "dataroot_lq"), "given LQs are not mixed into synthesised ones; for given LQs alone use type: paired")


def _training(ledger: Ledger) -> None:
    for key in [key for key in ledger.block(("train",)) if key.endswith("_opt")]:
        translate_loss(ledger, ("train", key), LOSS_DEFAULTS)
    ema = ledger.get(("train", "ema"))
    if isinstance(ema, (int, float)) and ema > 0:
        ledger.move(("train", "ema"), ("train", "ema_decay"))
    elif ema is not None:
        ledger.ignored(("train", "ema"), f"{shown(ema)} is no EMA")
    _warmup(ledger)
    for name in ("optim_g", "optim_d"):
        translate_optimizer(ledger, name)
    translate_scheduler(ledger)
    clip = ledger.get(("train", "grad_clip"))
    if clip is False:
        ledger.ignored(("train", "grad_clip"), "gradients are not clipped unless train.grad_clip is given")
    elif clip is True:
        ledger.become(("train", "grad_clip"), ("train", "grad_clip"), CLIPPED)
    elif clip is None and ledger.get(("train",)) is not None:
        ledger.put(("train", "grad_clip"), CLIPPED, "neosr's default")


def _warmup(ledger: Ledger) -> None:
    """The generator's warm-up becomes the run's; both networks follow one schedule here."""
    steps = ledger.get(("train", "optim_g", "warmup_steps"))
    if steps is not None and ledger.get(("train", "warmup_iter")) is None:
        ledger.move(("train", "optim_g", "warmup_steps"), ("train", "warmup_iter"))
    others = ledger.get(("train", "optim_d", "warmup_steps"))
    if others is not None and steps is not None and others != steps:
        ledger.lost(("train", "optim_d", "warmup_steps"), f"{others}: both networks warm up over train.warmup_iter steps")
    for name in ("optim_g", "optim_d"):
        path = ("train", name, "schedule_free")
        if ledger.get(path) is not None:
            ledger.ignored(path, "the optimizer's name says it")
        ledger.pop(("train", name, "warmup_steps"))

"""traiNNer-redux's training files: its names become BasicSR's or ours, and translate.py does the rest."""

from __future__ import annotations

from typing import Any

from .document import KeyPath, OptionsError
from .import_ledger import Ledger, shown
from .import_networks import TRAINNER, translate_discriminator, translate_generator
from .import_training import (
    first_folder,
    ignore,
    lose_what_is_on,
    scaled_size,
    translate_loss,
    translate_optimizer,
    translate_precision,
    translate_scheduler,
)

TRAIN: KeyPath = ("datasets", "train")
VAL: KeyPath = ("datasets", "val")

DATASETS = {
    "pairedimagedataset": "paired",
    "realesrgandataset": "single_gt",
    "realesrganpaireddataset": "single_gt",
    "singlegtdataset": "single_gt",
}

HARMLESS: dict[KeyPath, str] = {
    ("use_channels_last",): "the memory's layout changes no value",
    ("compile_mode",): "torch.compile takes its default mode",
    ("detect_anomaly",): "a non-finite loss stops the run and names the term",
    ("high_order_degradations_debug",): "`sr-iqa data show` shows samples",
    ("high_order_degradations_debug_limit",): "`sr-iqa data show` shows samples",
    ("watch",): "progress is shown anyway",
    ("switch_iter_per_epoch",): "samples are numbered without epochs",
    ("onnx",): "it belongs to an export",
    ("contents",): "a note of the program's own",
    ("model_type",): "the blocks under train say what is trained",
    (*TRAIN, "blur_kernel_size"): "kernels are as large as kernel_range says",
    (*TRAIN, "blur_kernel_size2"): "kernels are as large as kernel_range2 says",
    (*TRAIN, "prefetch_factor"): "the loader has its own way",
    ("lq_usm_radius_range",): "it belongs to lq_usm",
    ("train", "moa_augs"): "it belongs to use_moa",
    ("train", "moa_probs"): "it belongs to use_moa",
    ("train", "moa_debug_limit"): "it belongs to moa_debug",
    ("train", "adaptive_d_ema_decay"): "it belongs to adaptive_d",
    ("train", "adaptive_d_threshold"): "it belongs to adaptive_d",
    ("val", "tile_overlap"): "the overlap of tiles is fixed",
    ("logger", "save_checkpoint_format"): "weights are safetensors",
}

SWITCHES: dict[KeyPath, str] = {
    ("network_g_teacher",): "trains towards another network's output; train without it",
    ("network_ae",): "trains an autoencoder; train without it",
    ("lq_usm",): "sharpens before the degradation; synthesise without it, or sharpen the GTs beforehand",
    ("thicklines_prob",): "thickens lines before the degradation; synthesise without it",
    ("dataroot_lq_prob",): "mixes given LQs into synthesised ones; train on one kind, or make the LQs beforehand and pair them",
    ("train", "use_moa"): "mixes images with each other (mixup, cutmix, ...); train without it",
    ("train", "moa_debug"): "saves mixed images",
    ("train", "eco"): "trains towards GTs that approach the originals; train without it",
    ("train", "adaptive_d"): "the discriminator rests while it leads; train.net_d_iters rests the generator instead",
    ("train", "optim_ae"): "belongs to network_ae",
    ("train", "restart_scheduler"): "starts the schedule anew on resuming; give the run another name",
    ("train", "ema_update_after_step"): "delays the EMA; it averages from the first step on",
    ("train", "ema_switch_iter"): "copies the EMA back into the network; train without it",
    (*TRAIN, "mean"): "normalises images; they stay in [0, 1]",
    (*TRAIN, "std"): "normalises images; they stay in [0, 1]",
    (*TRAIN, "clip_size"): "belongs to videos",
    (*VAL, "clip_size"): "belongs to videos",
}
"""Keys that count where they are on, and have no counterpart."""

DEFAULTS: dict[str, Any] = {
    "blur_prob": 0,
    "blur_prob2": 0,
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range": [0.4, 1.5],
    "resize_range2": [0.6, 1.2],
    **{f"{name}{stage}": 0 for name in ("gaussian_noise_prob", "gray_noise_prob") for stage in ("", "2")},
    **{f"{name}{stage}": [0, 0] for name in ("noise_range", "poisson_scale_range") for stage in ("", "2")},
    **{f"jpeg_range{stage}": [75, 95] for stage in ("", "2")},
    **{f"resize_mode_list{stage}": ["bilinear", "bicubic", "nearest-exact", "lanczos"] for stage in ("", "2", "3")},
}
"""Of its degradation, where they are not Real-ESRGAN's; kernels' defaults are in KERNEL_DEFAULTS."""

KERNEL_DEFAULTS: dict[str, Any] = {
    "kernel_range": [5, 17],
    "kernel_range2": [5, 17],
    "final_kernel_range": [5, 17],
    "sinc_prob": 0,
    "sinc_prob2": 0,
    "final_sinc_prob": 0,
    "blur_sigma": [0.2, 2],
    "blur_sigma2": [0.2, 1],
}

MODES = ("area", "bilinear", "bicubic")


def translate_trainner(ledger: Ledger) -> None:
    """Rewrites the ledger in place.

    Raises:
        OptionsError: the file trains on videos.
    """
    _validation(ledger)
    _data(ledger)
    if ledger.get(("high_order_degradation",)):
        ledger.ignored(("high_order_degradation",), "LQs are synthesised where no dataroot_lq is given")
        _degradation(ledger)
    else:
        _no_degradation(ledger)
    translate_precision(ledger, ("use_amp",), ("amp_bf16",))
    ledger.move(("use_compile",), ("compile",))
    translate_generator(ledger, TRAINNER)
    translate_discriminator(ledger)
    _training(ledger)
    _pixels(ledger)
    lose_what_is_on(ledger, SWITCHES)
    ignore(ledger, HARMLESS)


def _data(ledger: Ledger) -> None:
    for data in (TRAIN, VAL):
        name = ledger.get((*data, "type"))
        if isinstance(name, str) and "video" in name.lower():
            raise OptionsError([*ledger.problems, ledger.say((*data, "type"), f"{name} trains on videos; networks here see single images")])
        if isinstance(name, str) and name.lower() in DATASETS:
            ledger.add((*data, "type"), (*data, "type"), DATASETS[name.lower()])
        if str(name).lower() == "singleimagedataset":
            ledger.ignored(data, "validation needs GTs; images without GTs go through `sr-iqa infer`")
        for key in ("dataroot_gt", "dataroot_lq"):
            first_folder(ledger, (*data, key))
    scaled_size(ledger, (*TRAIN, "lq_size"), (*TRAIN, "gt_size"))
    ledger.move((*TRAIN, "accum_iter"), ("train", "accum_iter"))
    mode = ledger.get((*TRAIN, "lq_resize_mode"))
    if mode is not None:
        if mode not in MODES:
            ledger.deviation((*TRAIN, "lq_resize_mode"), f"{mode} is none of {', '.join(MODES)}; bicubic stands in")
        final = (*TRAIN, "degradation", "final", "modes")
        ledger.become((*TRAIN, "lq_resize_mode"), final, [mode if mode in MODES else "bicubic"])
    if ledger.get((*TRAIN, "type")) == "single_gt" and ledger.get((*TRAIN, "dataroot_lq")) is not None:
        ledger.lost((*TRAIN, "dataroot_lq"), "given LQs are not mixed into synthesised ones; for given LQs alone use type: paired")


def _degradation(ledger: Ledger) -> None:
    """What translate_degradation does not know: probabilities, interpolations and kernel sides that the files give."""
    for place, defaults in (((), DEFAULTS), (TRAIN, KERNEL_DEFAULTS)):
        for name, value in defaults.items():
            if ledger.get((*place, name)) is None:
                ledger.put((*place, name), value, "traiNNer-redux's default")
    block = (*TRAIN, "degradation")
    for suffix, stage in (("", "first"), ("2", "second")):
        ledger.move((f"blur_prob{suffix}",), (*block, stage, "blur", "prob"))
        ledger.move((*TRAIN, f"kernel_range{suffix}"), (*block, stage, "blur", "kernel_size_range"))
        _modes(ledger, suffix, (*block, stage, "resize", "modes"))
        _jpeg(ledger, suffix, (*block, stage, "jpeg_range"))
        _noise(ledger, suffix, (*block, stage, "noise"))
    _modes(ledger, "3", (*block, "final", "modes"))
    ledger.move((*TRAIN, "final_kernel_range"), (*block, "final", "sinc_kernel_size_range"))


def _modes(ledger: Ledger, suffix: str, new: KeyPath) -> None:
    names, weights = (f"resize_mode_list{suffix}",), (f"resize_mode_prob{suffix}",)
    modes = ledger.get(names)
    kept = [mode for mode in modes if mode in MODES] if isinstance(modes, list) else []
    if isinstance(modes, list) and len(kept) < len(modes):
        others = [mode for mode in modes if mode not in MODES]
        ledger.deviation(names, f"{shown(others)} are no interpolations here; drawn among {shown(kept or ['bicubic'])}")
    shares = ledger.get(weights)
    if isinstance(shares, list) and any(share != shares[0] for share in shares):
        ledger.lost(weights, f"{shown(shares)}: interpolations are drawn uniformly")
    elif shares is not None:
        ledger.ignored(weights, "interpolations are drawn uniformly")
    ledger.become(names, new, kept or ["bicubic"])


def _jpeg(ledger: Ledger, suffix: str, new: KeyPath) -> None:
    share, qualities = (f"jpeg_prob{suffix}",), (f"jpeg_range{suffix}",)
    given = ledger.get(share)
    if given == 0:
        ledger.become(share, new, None)
        ledger.ignored(qualities, "no JPEG is used")
    elif given not in (None, 1):
        ledger.lost(share, f"{given} of the samples get JPEG; here all do. A wider {qualities[0]} up to 100 makes some of it invisible")
    elif given == 1:
        ledger.ignored(share, "1 is what happens here")
    bounds = ledger.get(qualities)
    if isinstance(bounds, list) and any(isinstance(bound, float) for bound in bounds):
        ledger.add(qualities, qualities, [round(bound) if isinstance(bound, float) else bound for bound in bounds])


def _noise(ledger: Ledger, suffix: str, new: KeyPath) -> None:
    """Ranges of zeros are no noise at all."""
    names = [(f"{name}{suffix}",) for name in ("noise_range", "poisson_scale_range", "gaussian_noise_prob", "gray_noise_prob")]
    ranges = [ledger.get(path) for path in names[:2]]
    if ranges == [[0, 0], [0, 0]]:
        ledger.become(names[0], new, None)
        for path in names[1:]:
            ledger.ignored(path, "noise of strength 0 is none")


def _no_degradation(ledger: Ledger) -> None:
    """Its numbers have no effect where the LQs are given or only made smaller."""
    for place, names in (((), (*DEFAULTS, *_OTHERS)), (TRAIN, (*KERNEL_DEFAULTS, *_KERNELS))):
        for name in names:
            if ledger.get((*place, name)) is not None:
                ledger.ignored((*place, name), "high_order_degradation is off")


_OTHERS = tuple(f"{name}{stage}" for name in ("jpeg_prob", "resize_mode_prob") for stage in ("", "2", "3"))
_KERNELS = tuple(f"{name}{stage}" for name in ("kernel_list", "kernel_prob", "betag_range", "betap_range") for stage in ("", "2"))


def _training(ledger: Ledger) -> None:
    losses = ledger.get(("train", "losses"))
    for i in range(len(losses)) if isinstance(losses, list) else ():
        translate_loss(ledger, ("train", "losses", i), {})
    ledger.pop(("train", "losses"))
    for key in [key for key in ledger.block(("train",)) if key.endswith("_opt") and key != "metric_opt"]:
        if losses is None:
            translate_loss(ledger, ("train", key), {})
    for name in ("optim_g", "optim_d"):
        translate_optimizer(ledger, name)
    translate_scheduler(ledger)
    if ledger.get(("train", "grad_clip")) is True:
        norm = ledger.get(("train", "grad_clip_max_norm"))
        ledger.become(("train", "grad_clip"), ("train", "grad_clip"), 100.0 if norm is None else norm)
        if norm is not None:
            ledger.ignored(("train", "grad_clip_max_norm"), "train.grad_clip says it")
    elif ledger.get(("train", "grad_clip")) is False:
        ledger.pop(("train", "grad_clip"))
        if ledger.get(("train", "grad_clip_max_norm")) is not None:
            ledger.ignored(("train", "grad_clip_max_norm"), "gradients are not clipped")
    power = ledger.get(("train", "ema_power"))
    if power is not None:
        ledger.lost(("train", "ema_power"), f"{power}: lets the EMA's decay rise to ema_decay; here it is that from the start")


def _validation(ledger: Ledger) -> None:
    if ledger.pop(("val", "val_enabled")) is False:
        for path in (VAL, ("val",)):
            if ledger.get(path) is not None:
                ledger.ignored(path, "val.val_enabled is false")
        return
    if ledger.pop(("val", "metrics_enabled")) is False and ledger.get(("val", "metrics")) is not None:
        ledger.ignored(("val", "metrics"), "val.metrics_enabled is false")
    ledger.move(("val", "tile_size"), ("val", "tile"))
    full_reference_topiq(ledger)


def full_reference_topiq(ledger: Ledger) -> None:
    """Both projects' TOPIQ compares with the GT."""
    for name, block in ledger.block(("val", "metrics")).items():
        path = ("val", "metrics", name, "type")
        if isinstance(block, dict) and block.get("type") == "calculate_topiq":
            ledger.put(path, "calculate_topiq_fr", ledger.where(path))


def _pixels(ledger: Ledger) -> None:
    for key in ("input_pixel_format", "output_pixel_format"):
        value = ledger.get((key,))
        if value == "rgb":
            ledger.ignored((key,), "images are RGB")
        elif value is not None:
            ledger.lost((key,), f"{value}: images are RGB here")

"""The one place that knows other projects' option names: BasicSR's, Real-ESRGAN's and HGGT's training files become ours.

Nothing is dropped silently: what has no counterpart is a note if training makes sense without it, and a problem if not.
Where a file (or an override) gives our own name too, ours wins.
"""

from __future__ import annotations

from typing import Any

from .document import Document, KeyPath, NoBlockError, OptionsError
from .translate_degradation import translate_degradation

TRAIN: KeyPath = ("datasets", "train")
VAL: KeyPath = ("datasets", "val")

MODELS = {
    "SRModel": "",
    "SwinIRModel": "",
    "SRGANModel": "",
    "ESRGANModel": "; its relativistic discriminator has no counterpart, the GAN loss compares each image with real/fake",
    "RealESRNetModel": "",
    "RealESRGANModel": "",
    "RealESRNet_Model": "",
    "RealESRGAN_Model": "",
    "RealESRGAN_PosGT_Model": "",
    "Ours_Model": "",
    "Ours_PosGT_Model": "",
    "Ours_PosNegGT_Model": "",
    "LDL_Model": "",
    "LDL_PosGT_Model": "",
    "LDL_noGAN_Model": "",
    "AdaTarget_Model": "",
    "AdaTarget_PosGT_Model": "",
}
"""Their classes that train networks of the kind we train, and what is lost of them."""

DATASETS = {
    "PairedImageDataset": ("paired", None),
    "RealESRGANPairedDataset": ("paired", None),
    "RealESRGANDataset": ("single_gt", None),
    "OneStageDegradation_DF2K_Dataset": ("single_gt", None),
    "TwoStageDegradation_DF2K_Dataset": ("single_gt", None),
    "PosNegGTOriDataset": ("multi_gt", "original"),
    "PosNegGTPosDataset": ("multi_gt", "uniform_positive"),
    "PosNegGTPosNeg_Dataset": ("multi_gt", "uniform_positive"),
    "TwoStageDegradation_PosNegGTPos_Dataset": ("multi_gt", "uniform_positive"),
}
"""Their data sets: our type, and the strategy that their class stands for."""

SCHEDULERS = {"MultiStepRestartLR": "MultiStepLR"}

METRICS = {
    ("calculate_psnr", False): "psnr",
    ("calculate_psnr", True): "psnry",
    ("calculate_ssim", False): "ssimc",
    ("calculate_ssim", True): "ssim",
}
"""(function, test_y_channel) -> metric of the door; any other `calculate_x` is x."""

MOVED: dict[KeyPath, KeyPath] = {
    ("gt_size",): (*TRAIN, "gt_size"),
    (*TRAIN, "dataroot_all_gt"): (*TRAIN, "dataroot_gt"),
    (*TRAIN, "dataroot_all_json"): (*TRAIN, "dataroot_labels"),
    ("train", "pixel_opt_o"): ("train", "pixel_opt"),
}

_PROCESSES = "devices and processes are set by `accelerate launch`"
_SHARPEN = "GTs are used as they are, never sharpened (USM)"
_LOADER = "the loader has its own way"

IGNORED: dict[KeyPath, str] = {
    ("num_gpu",): _PROCESSES,
    ("dist_params",): _PROCESSES,
    ("find_unused_parameters",): _PROCESSES,
    ("queue_size",): "every sample draws its own degradation, no pool is needed",
    ("gt_usm",): _SHARPEN,
    ("l1_gt_usm",): _SHARPEN,
    ("percep_gt_usm",): _SHARPEN,
    ("gan_gt_usm",): _SHARPEN,
    ("Use_sharpen",): _SHARPEN,
    ("high_order_degradation",): "LQs are synthesised exactly where no dataroot_lq is given",
    ("pre_pad",): "networks pad by themselves",
    ("tile_pad",): "the overlap of tiles is fixed",
    ("path", "resume_state"): "a run resumes by itself from its own folder",
    ("path", "ignore_resume_networks"): "a run resumes by itself from its own folder",
    ("logger", "wandb"): "scalars go to TensorBoard and metrics.jsonl",
    ("val", "pbar"): "progress is always shown",
    ("val", "suffix"): "outputs are named like their inputs",
}

IGNORED_OF_DATA = {
    "io_backend": "BasicSR's LMDB folders are not read; give the folder of images, or a store made by `sr-iqa data pack`",
    "meta_info": "all images of the folder are used; keep others elsewhere",
    "meta_info_file": "all images of the folder are used; keep others elsewhere",
    "filename_tmpl": "an LQ file is named like its GT",
    "dataset_enlarge_ratio": "samples are numbered without epochs",
    "use_shuffle": "training data are always shuffled",
    "prefetch_mode": _LOADER,
    "num_prefetch_queue": _LOADER,
    "pin_memory": _LOADER,
    "persistent_workers": _LOADER,
}

REFUSED: dict[KeyPath, str] = {
    ("train", "ldl_opt"): "LDL's artifact loss has no counterpart; remove the block to train without it",
    ("train", "adatarget_opt"): "AdaTarget's loss and its offset network (network_loc) have no counterpart",
    (*TRAIN, "color"): "training on the luminance channel has no counterpart, images are RGB",
    (*VAL, "color"): "validation on the luminance channel has no counterpart, images are RGB (metrics psnry and ssim measure it)",
}

ADATARGET: tuple[KeyPath, ...] = (
    ("network_loc",),
    ("path_loc",),
    ("load_mode_g",),
    ("load_mode_loc",),
    ("k_size",),
    ("s_size",),
    ("train", "optim_loc"),
)


def translate(document: Document) -> None:
    """Rewrites a document in place; one that is in our vocabulary already stays as it is.

    Raises:
        OptionsError: the file trains something that is no single-image SR network.
    """
    _model_type(document)
    _refuse(document)
    try:
        _rewrite(document)
    except NoBlockError:
        return  # validation names the block that is none
    _ignore(document)


def _rewrite(document: Document) -> None:
    _crop_size(document)
    _tiles(document)
    for old, new in MOVED.items():
        if document.get(old) is not None:
            document.move(old, new)
    for data in (TRAIN, VAL):
        _data_type(document, data)
    _validation_sets(document)
    _negative_loss(document)
    _rename(document, ("train", "scheduler", "type"), SCHEDULERS)
    _metrics(document)
    translate_degradation(document, TRAIN)


def _model_type(document: Document) -> None:
    name = document.get(("model_type",))
    if name is None:
        return
    if not isinstance(name, str) or name not in MODELS:
        text = f"{name} is no trainer of single-image SR networks that is known here; remove the line if the rest of the file is right"
        raise OptionsError([*document.problems, document.say(("model_type",), text)])
    document.note(("model_type",), f"ignored, the blocks under train say what is trained{MODELS[name]}")
    document.pop(("model_type",))


def _refuse(document: Document) -> None:
    for path, reason in REFUSED.items():
        if document.get(path) is not None:
            document.problem(path, reason)
            document.pop(path)
            if path[-1] == "adatarget_opt":
                for part in ADATARGET:
                    document.pop(part)


def _crop_size(document: Document) -> None:
    """BasicSR's Real-ESRGAN has gt_size twice; the one outside the data set is the crop that it trains on."""
    inner = (*TRAIN, "gt_size")
    if document.get(("gt_size",)) is None or document.get(inner) is None:
        return
    if document.get(("gt_size",)) != document.get(inner):
        document.note(inner, f"ignored, gt_size at the top of the file counts ({document.where(('gt_size',))})")
        document.pop(inner)
    else:
        document.pop(("gt_size",))


def _tiles(document: Document) -> None:
    """HGGT's tile_size counts LQ pixels, like val.tile; it counts only where tile_process is on."""
    if document.pop(("tile_process",)) and document.get(("tile_size",)) is not None:
        document.move(("tile_size",), ("val", "tile"))
        return
    for name in ("tile_size", "tile_pad"):
        document.pop((name,))


def _data_type(document: Document, data: KeyPath) -> None:
    name = document.get((*data, "type"))
    if not isinstance(name, str) or name not in DATASETS:
        return
    kind, strategy = DATASETS[name]
    where = document.where((*data, "type"))
    document.put((*data, "type"), kind, where)
    chosen = (*data, "sampling", "strategy")
    if strategy and data == TRAIN and document.get(chosen) is None:
        document.put(chosen, strategy, where)
    if name == "PosNegGTPosNeg_Dataset":
        text = "sets with negatives but no positive are left out; HGGT trains on them with the original GT"
        document.note((*data, "type"), text)


def _validation_sets(document: Document) -> None:
    """One validation set, with GTs."""
    for name in list(document.block(("datasets",))):
        if name.startswith("val_") or name.startswith("test"):
            path = ("datasets", name)
            document.note(path, "ignored, only datasets.val is validated on; evaluate others with `sr-iqa test`")
            document.pop(path)
    if document.get((*VAL, "type")) == "SingleImageDataset":
        document.note(VAL, "ignored, validation needs GTs; images without GTs go through `sr-iqa infer`")
        document.pop(VAL)


def _negative_loss(document: Document) -> None:
    """HGGT names the plain loss that it wraps; the wrapped whole is NegativeLoss here."""
    _rename(document, ("train", "neg_opt", "type"), {"L1Loss": "NegativeLoss"})
    if document.get(("train", "neg_opt", "reduction")) == "mean":
        document.pop(("train", "neg_opt", "reduction"))


def _rename(document: Document, path: KeyPath, names: dict[str, str]) -> None:
    value = document.get(path)
    if isinstance(value, str) and value in names:
        document.put(path, names[value], document.where(path))


def _metrics(document: Document) -> None:
    """`psnr: {type: calculate_psnr, crop_border: 4, ...}` -> the metric's name in a list, and one crop_border for all."""
    path: KeyPath = ("val", "metrics")
    given = document.get(path)
    if not isinstance(given, dict):
        return
    where = document.where(path)
    blocks = {name: block if isinstance(block, dict) else {} for name, block in given.items()}
    borders = [block["crop_border"] for block in blocks.values() if "crop_border" in block]
    document.put(path, [_metric(name, block) for name, block in blocks.items()], where)
    for name, block in blocks.items():
        for key in sorted(set(block) - {"type", "crop_border", "test_y_channel", "better"}):
            document.note(path, f"{name}: {key} ignored")
    if borders and document.get(("val", "crop_border")) is None:
        document.put(("val", "crop_border"), borders[0], where)
        if any(border != borders[0] for border in borders):
            document.note(path, f"all metrics are cropped by {borders[0]}, the first one's crop_border")


def _metric(name: str, block: dict[str, Any]) -> str:
    function = str(block.get("type", name))
    return METRICS.get((function, bool(block.get("test_y_channel", False))), function.removeprefix("calculate_"))


def _ignore(document: Document) -> None:
    data = {(*place, key): reason for place in (TRAIN, VAL) for key, reason in IGNORED_OF_DATA.items()}
    for path, reason in (IGNORED | data).items():
        if path[-1] not in document.block(path[:-1]):
            continue
        value = document.get(path)
        if value is False if path[-1] == "use_shuffle" else _means_something(value):
            document.note(path, f"ignored, {reason}")
        document.pop(path)


def _means_something(value: Any) -> bool:
    """False for what asks for nothing: null, false, 0, plain files, the bare file name template, and blocks of those."""
    if isinstance(value, dict):
        return any(_means_something(inner) for inner in value.values())
    return bool(value) and value not in ("{}", "disk")

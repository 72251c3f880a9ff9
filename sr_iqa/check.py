"""Option files against the program: every `type:` fits its constructor, every combination makes sense.

No data is read and nothing is built.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .bind import argument, mismatches
from .config.document import Document, KeyPath, OptionsError
from .config.load import Loaded
from .config.models import AUTO, Component, DataOptions, Options, RewardOptions
from .errors import UserError

Finding = tuple[KeyPath, str]

TRAIN: KeyPath = ("datasets", "train")
LOSSES = {"pixel_opt": "pixel", "base_opt": "pixel", "perceptual_opt": "perceptual", "gan_opt": "gan", "neg_opt": "negative"}


def check(source: Loaded | Options) -> tuple[str, ...]:
    """Checks options that are valid by themselves against the rest of the program.

    Returns:
        Notes: what is odd but possible, such as data that are not there yet.

    Raises:
        OptionsError: everything that cannot work, one line each with file and line where known.
    """
    options, document = (source.options, source.document) if isinstance(source, Loaded) else (source, Document())
    problems = [finding for rule in (*BINDINGS, *RULES) for finding in rule(options)]
    if problems:
        raise OptionsError([document.say(*problem) for problem in problems])
    return tuple(document.say(*note) for rule in NOTES for note in rule(options))


# ---------------------------------------------------------------- type: blocks and their constructors


def _fit(
    path: KeyPath, component: Component | None, resolve: Callable[[str], Callable[..., Any]], supplied: tuple[str, ...] = ()
) -> Iterator[Finding]:
    if component is None:
        return
    try:
        constructor = resolve(component.type)
    except UserError as error:
        yield (*path, "type"), str(error)
        return
    for name, message in mismatches(constructor, component.arguments, supplied):
        yield (*path, name) if name else path, f"{component.type}: {message}"


def _networks(options: Options) -> Iterator[Finding]:
    from .archs import resolve_network

    if options.network_g.type != AUTO:
        yield from _fit(("network_g",), options.network_g, resolve_network)
    yield from _fit(("network_d",), options.network_d, resolve_network)


def _optimizers(options: Options) -> Iterator[Finding]:
    from .training.optimizers import resolve_optimizer

    if options.train:
        yield from _fit(("train", "optim_g"), options.train.optim_g, resolve_optimizer, ("params",))
        yield from _fit(("train", "optim_d"), options.train.optim_d, resolve_optimizer, ("params",))


def _losses(options: Options) -> Iterator[Finding]:
    from .losses import resolve_loss

    for key, kind in LOSSES.items() if options.train else ():
        component = getattr(options.train, key)
        yield from _fit(("train", key), component, partial(resolve_loss, kind))
    for i, component in enumerate(options.train.metric_opt if options.train else ()):
        yield from _fit(("train", "metric_opt", i), component, partial(resolve_loss, "metric"))


def _metrics(options: Options) -> Iterator[Finding]:
    train, data = options.train, options.datasets.train
    side = data.gt_size if data else None
    for i, name in enumerate(options.val.metrics):
        yield from _metric(("val", "metrics", i), name)
    if data and data.sampling.metric:
        yield from _metric((*TRAIN, "sampling", "metric"), data.sampling.metric, "NR", False, side if data.scores is None else None)
    for i, reward in enumerate(train.reward_opt if train else ()):
        yield from _metric(("train", "reward_opt", i, "metric"), reward.metric, "NR", True, side)
        yield from _views(("train", "reward_opt", i, "views"), reward, side)
    for i, component in enumerate(train.metric_opt if train else ()):
        yield from _metric(("train", "metric_opt", i, "type"), component.type, "FR", True, side)


def _metric(path: KeyPath, name: str, mode: str = "", differentiable: bool = False, side: int | None = None) -> Iterator[Finding]:
    """Whether a metric is there, of the mode wanted, fit to train on, and content with crops of `side` pixels."""
    from .iqa.metrics import list_metrics, metric_info

    try:
        info = metric_info(name)
    except UserError as error:
        yield path, str(error)
        return
    if info.refused:
        yield path, f"{name} cannot be used here: {info.refused}"
    if (mode and info.mode != mode) or (differentiable and not info.differentiable):
        kind = {"NR": "no-reference", "FR": "full-reference"}[mode]
        fitting = [m.name for m in list_metrics() if m.mode == mode and (m.differentiable or not differentiable) and not m.refused]
        yield path, f"{name} is no {'differentiable ' if differentiable else ''}{kind} metric; choose from {', '.join(fitting)}"
    if side and (side < info.smallest or side % info.multiple):
        needs = f"at least {info.smallest}" if side < info.smallest else f"multiples of {info.multiple}"
        yield path, f"{name} needs sides of {needs} pixels, but crops are {side} (datasets.train.gt_size)"


def _views(path: KeyPath, reward: RewardOptions, side: int | None) -> Iterator[Finding]:
    """Whether Q takes the smallest of its random views."""
    from .iqa.metrics import metric_info

    views = reward.views
    if views is None or side is None:
        return
    try:
        info = metric_info(reward.metric)
    except UserError:
        return  # reported elsewhere
    least = int(side * views.crop / views.resize)
    if info.multiple > 1 and least < side:
        yield path, f"{reward.metric} needs sides that are multiples of {info.multiple}, which random crops and sizes are not"
    elif least < info.smallest:
        yield path, f"{reward.metric} needs sides of at least {info.smallest} pixels, but views of {side} px crops can be of {least}"


# ---------------------------------------------------------------- combinations


def _training_needs(options: Options) -> Iterator[Finding]:
    train = options.train
    if train is None:
        return
    if options.datasets.train is None:
        yield ("datasets",), "train is missing; there is nothing to train on"
    losses = (train.pixel_opt, train.perceptual_opt, train.gan_opt, *train.metric_opt, *train.reward_opt)
    if not any(losses):
        yield ("train",), "no loss; give pixel_opt, perceptual_opt, gan_opt, metric_opt or reward_opt"


def _gan(options: Options) -> Iterator[Finding]:
    train = options.train
    if train is None or train.gan_opt is None:
        return
    path = ("train", "gan_opt")
    if options.network_d is None:
        yield path, "needs network_d"
    if train.optim_d is None:
        yield path, "needs train.optim_d"
    if options.precision == "fp16":
        yield ("precision",), "fp16 cannot train a GAN (one loss scale serves two optimizers); use bf16 or no"


def _adapter(options: Options) -> Iterator[Finding]:
    from .adapters import REFUSED

    if options.lora and options.network_g.type.rpartition(".")[2] in REFUSED:
        yield ("lora",), f"{options.network_g.type} reads its layers' weights by itself, an adapter would have no effect"
    if options.path.pretrain_adapter and options.lora is None:
        yield ("path", "pretrain_adapter"), "needs a lora block"


def _base(options: Options) -> Iterator[Finding]:
    if options.train and options.train.base_opt and options.path.pretrain_network_g is None:
        yield ("train", "base_opt"), "needs path.pretrain_network_g: the base is the network as it started"


def _sizes(options: Options) -> Iterator[Finding]:
    data = options.datasets.train
    if data and data.gt_size % options.scale:
        yield (*TRAIN, "gt_size"), f"{data.gt_size} is no multiple of the scale, {options.scale}"
    found = _argument(options.network_g, ("upscale", "scale"))
    if found and found[1] != options.scale:
        yield ("network_g", found[0]), f"{found[1]}, but the run's scale is {options.scale}"
    found = _argument(options.network_d, ("input_size",))
    if data and found and found[1] != data.gt_size:
        yield ("network_d", found[0]), f"the discriminator takes {found[1]} px only, but datasets.train.gt_size is {data.gt_size}"
    for key, network in (("network_g", options.network_g), ("network_d", options.network_d)):
        for name in ("in_chans", "num_in_ch", "num_out_ch"):
            found = _argument(network, (name,))
            if found and found[1] != 3:
                yield (key, name), f"expected 3, images are RGB, got {found[1]}"


def _argument(component: Component | None, names: tuple[str, ...]) -> tuple[str, Any] | None:
    """An argument's given or default value; None where the type is unknown (reported elsewhere) or has no such argument."""
    from .archs import resolve_network

    try:
        return argument(resolve_network(component.type), component.arguments, names) if component else None
    except UserError:
        return None


def _sampling(options: Options) -> Iterator[Finding]:
    from .sampling import build_strategy, resolve_strategy

    data = options.datasets.train
    if data is None:
        return
    path, name = (*TRAIN, "sampling"), data.sampling.strategy
    try:
        resolve_strategy(name)
    except UserError as error:
        yield (*path, "strategy"), str(error)
        return
    try:
        strategy = build_strategy(data.sampling)
    except UserError as error:
        yield path, str(error)
        return
    if strategy.needs_labels and not _has_labels(data):
        yield (*path, "strategy"), f"{name} draws among positives: it needs type multi_gt with dataroot_labels, or a packed store"
    if strategy.needs_scores and data.scores is None:
        yield (*path, "strategy"), f"{name} needs datasets.train.scores, a table made by `sr-iqa data score`"


def _has_labels(data: DataOptions) -> bool:
    return data.type == "multi_gt" and (data.dataroot_labels is not None or _is_store(data))


def _is_store(data: DataOptions) -> bool:
    return data.dataroot_gt.suffix == ".lmdb"


def _data(options: Options) -> Iterator[tuple[KeyPath, DataOptions]]:
    for name, data in (("train", options.datasets.train), ("val", options.datasets.val)):
        if data is not None:
            yield ("datasets", name), data


def _data_sources(options: Options) -> Iterator[Finding]:
    for path, data in _data(options):
        if data.type == "paired" and data.dataroot_lq is None and not _is_store(data):
            yield path, "type paired needs dataroot_lq"
        if data.dataroot_lq and data.degradation:
            yield (*path, "degradation"), "LQs are given by dataroot_lq, they cannot be synthesised too; remove one of the two"
        if path[-1] == "val" and not (data.dataroot_lq or data.degradation or _is_store(data) or data.type == "paired"):
            yield path, "there is no LQ to evaluate: give dataroot_lq, or degradation to synthesise it (preset: bicubic, hggt, realesrgan)"
        if data.dataroot_labels and data.type != "multi_gt":
            yield (*path, "dataroot_labels"), f"labels belong to type multi_gt, not {data.type}"


def _negatives(options: Options) -> Iterator[Finding]:
    data, train = options.datasets.train, options.train
    if train and train.neg_opt and data and not _has_labels(data):
        yield ("train", "neg_opt"), "needs labelled sets: datasets.train of type multi_gt with dataroot_labels, or a packed store"


# ---------------------------------------------------------------- notes


def _unused(options: Options) -> Iterator[Finding]:
    train = options.train
    if train and train.gan_opt is None and (options.network_d or train.optim_d):
        yield ("network_d",) if options.network_d else ("train", "optim_d"), "unused without train.gan_opt"
    for path, data in _data(options):
        for key in ("dataroot_labels", "dataroot_lq"):
            if _is_store(data) and getattr(data, key):
                yield (*path, key), "unused, a packed store brings its own"
    data = options.datasets.train
    if data and data.type != "multi_gt" and data.sampling.strategy != "original":
        yield (*TRAIN, "sampling", "strategy"), f"there is one GT per image in type {data.type}, nothing to choose from"
    if data and not (data.dataroot_lq or data.degradation or _is_store(data)):
        yield TRAIN, "no dataroot_lq and no degradation: LQs are the originals made smaller (preset: bicubic)"
    if options.lora and options.path.pretrain_network_g is None:
        yield ("lora",), "the frozen network starts from random weights; give path.pretrain_network_g"


def _not_there(options: Options) -> Iterator[Finding]:
    for path, data in _data(options):
        for key in ("dataroot_gt", "dataroot_labels", "dataroot_lq", "scores"):
            yield from _absent((*path, key), getattr(data, key))
    for key in ("pretrain_network_g", "pretrain_network_d", "pretrain_adapter"):
        yield from _absent(("path", key), getattr(options.path, key))


def _absent(path: KeyPath, place: Path | None) -> Iterator[Finding]:
    if place is not None and not os.path.exists(place):  # Path.exists raises where the name is too long
        yield path, f"{place} is not there; training will need it"


def _weights(options: Options) -> Iterator[Finding]:
    from .iqa.metrics import metric_info

    for path, name in _metric_names(options):
        weights = metric_info(name).weights
        if weights.startswith("missing"):
            yield path, f"{name}: weights {weights}; `sr-iqa iqa fetch '{name}'` gets them"
    yield from _vgg(options)


def _vgg(options: Options) -> Iterator[Finding]:
    from .losses.features import VGG_CONFIGS, vgg_file

    loss = options.train.perceptual_opt if options.train else None
    kind = str(loss.arguments.get("vgg_type", "vgg19")) if loss and loss.type == "PerceptualLoss" else ""
    if kind.removesuffix("_bn") in VGG_CONFIGS and not (file := vgg_file(kind)).here:
        yield ("train", "perceptual_opt"), f"{kind}: weights missing: get {file.url} and put it at {file.path}"


def _metric_names(options: Options) -> Iterator[Finding]:
    train, data = options.train, options.datasets.train
    yield from ((("val", "metrics", i), name) for i, name in enumerate(options.val.metrics))
    if data and data.sampling.metric:
        yield (*TRAIN, "sampling", "metric"), data.sampling.metric
    for i, reward in enumerate(train.reward_opt if train else ()):
        yield ("train", "reward_opt", i, "metric"), reward.metric
    for i, component in enumerate(train.metric_opt if train else ()):
        yield ("train", "metric_opt", i, "type"), component.type
    loss = train.perceptual_opt if train else None
    if loss and loss.type == "LPIPSLoss":
        yield ("train", "perceptual_opt"), "lpips" if loss.arguments.get("net", "alex") == "alex" else "lpips-vgg"


Rule = Callable[[Options], Iterator[Finding]]

BINDINGS: tuple[Rule, ...] = (_networks, _optimizers, _losses, _metrics)
RULES: tuple[Rule, ...] = (_training_needs, _gan, _adapter, _base, _sizes, _sampling, _data_sources, _negatives)
NOTES: tuple[Rule, ...] = (_unused, _not_there, _weights)

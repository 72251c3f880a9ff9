"""From options to a metric in training: network, optimizer, stream of pairs, held-out pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..archs.layers import to_device
from ..config.metric_models import MetricOptions, PairDataOptions
from ..config.models import Component
from ..distributed import world_size
from ..errors import UsageError, UserError
from ..iqa.afine import PREFIX, build_afine
from ..iqa.afine_backbones import fill_backbone
from ..iqa.catalog import MetricInfo
from ..iqa.trained import BackboneHead, architecture_info, build_network
from ..losses.preference import PairLoss, resolve_pair_loss
from .metric_judge import Judge
from .metric_pairs import PairStream, Source, check_sizes, load_source, short_names, split
from .optimizers import build_optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

DEFAULT_UNITS = 10
"""By default a tenth of the metric's range counts as one unit of preference."""


@dataclass
class MetricRun:
    """A metric in training, and where it stands."""

    options: MetricOptions
    accelerator: Accelerator
    judge: Judge
    """The bare network: state, validation."""
    model: nn.Module
    """The same for passes whose gradients are to be shared between processes."""
    optimizer: torch.optim.Optimizer
    parameters: nn.ParameterList
    rates: list[float]
    loss: PairLoss
    stream: PairStream
    held_out: list[Source]
    ema: AveragedModel | None
    step: int = 0
    n: int = 0

    @property
    def global_batch(self) -> int:
        """Pairs per optimizer step, over all processes."""
        return self.options.datasets.train.batch_size_per_gpu * self.accelerator.num_processes * self.options.train.accum_iter


def build_metric_run(options: MetricOptions, accelerator: Accelerator) -> MetricRun:
    """Builds network, optimizer, loss and the stream of pairs.

    Raises UserError for options, data or weights that cannot be used.
    """
    train, data = options.train, options.datasets.train
    info = architecture_info(options.network.type)
    torch.manual_seed(options.manual_seed)
    net = starting_network(options)
    judge = Judge(to_device(net, accelerator.device), info).eval()
    training, held_out = load_data(options, info.mode == "FR")
    choose_weights(judge, options.network.learn, data)
    stream = PairStream(training, data, options.manual_seed, info.mode == "FR")
    parameters = nn.ParameterList(parameter for parameter in judge.parameters() if parameter.requires_grad)
    optimizer = build_optimizer(train.optim, parameters.parameters())
    model = accelerator.prepare_model(judge)
    if world_size() > 1:  # DistributedDataParallel sums in its final order only after a first backward pass (rehearsal.py)
        model(*made_up(judge, data)).sum().backward()
        optimizer.zero_grad()
    return MetricRun(
        options,
        accelerator,
        judge,
        model,
        accelerator.prepare_optimizer(optimizer),
        parameters,
        [group["lr"] for group in optimizer.param_groups],
        build_loss(train.pair_opt, info),
        stream,
        held_out,
        AveragedModel(parameters) if train.ema_decay else None,
    )


def starting_network(options: MetricOptions) -> nn.Module:
    """The network with the weights that it starts from; in eval mode, in which it stays."""
    network = options.network
    if network.start not in ("random", "catalogue") and not Path(network.start).exists():
        raise UserError(f"network.start: there is no file {network.start}; give catalogue, random, or a file")
    if network.type.startswith(PREFIX):
        return build_afine(network.type, network.start, network.backbone)
    net = build_network(network.type, network.start)
    if isinstance(net, BackboneHead) and network.backbone:
        fill_backbone(net.backbone, network.backbone)
    return net


def build_loss(component: Component, info: MetricInfo) -> PairLoss:
    """The loss, its unit by default from the metric's range. Raises UsageError for arguments that it refuses."""
    low, high = info.value_range
    unit = abs(high - low) / DEFAULT_UNITS if isfinite(high - low) else 1.0
    arguments: dict[str, Any] = {"unit": unit, **component.arguments}
    try:
        return resolve_pair_loss(component.type)(**arguments)
    except TypeError as error:
        raise UsageError(f"{component.type}: {error}") from error


def load_data(options: MetricOptions, full_reference: bool) -> tuple[list[Source], list[Source]]:
    """Training pairs and held-out pairs, manifest by manifest."""
    data, val = options.datasets.train, options.datasets.val
    names = short_names([given.path for given in (*data.manifests, *(val.manifests if val else ()))])
    training, held_out = [], []
    for given in data.manifests:
        source = load_source(given, names[given.path], full_reference, data.resize_px)
        check_sizes(source.pairs, full_reference)
        kept, out = split(source.root, source.pairs, data.holdout)
        if not kept:
            raise UserError(f"{given.path}: datasets.train.holdout {data.holdout} leaves no pair to train on")
        if data.holdout:
            crossing = len(source.pairs) - len(kept) - len(out)
            logger.info("%s: %d pairs to train on, %d held out, %d with a scene on either side", given.path, len(kept), len(out), crossing)
        weight = source.weight if given.weight else len(kept)
        training.append(replace(source, pairs=tuple(kept), weight=weight))
        if out:
            held_out.append(replace(source, pairs=tuple(out)))
    for given in val.manifests if val else ():
        held_out.append(load_source(given, names[given.path], full_reference, val.resize_px if val else None))
    most = options.val.max_pairs
    return training, [replace(source, pairs=source.pairs[:most]) for source in held_out]


def choose_weights(judge: Judge, prefixes: Sequence[str], data: PairDataOptions) -> None:
    """Freezes what is not to learn, and what no gradient reaches (a head for another task, say), which processes could not share.

    Raises:
        UserError: nothing would learn, or the network cannot be trained at all.
    """
    names = [name for name, _ in judge.net.named_parameters()]
    if not names:
        raise UserError("network.type: it has no weights that could learn")
    unknown = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)]
    if unknown:
        raise UsageError(f"network.learn: no weight's name starts with {unknown[0]}; the first parts are {', '.join(_first_parts(names))}")
    for name, parameter in judge.net.named_parameters():
        parameter.requires_grad_(not prefixes or name.startswith(tuple(prefixes)))
    try:
        q = judge(*made_up(judge, data))
        if q.requires_grad:
            q.sum().backward()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"this network cannot be trained on crops of {data.crop_px} pixels: {error}") from error
    reached = [parameter for parameter in judge.parameters() if parameter.grad is not None]
    total = sum(1 for _ in judge.parameters())
    if not reached:
        which = f"network.learn: Q does not depend on {', '.join(prefixes)}" if prefixes else "network.type: Q has no gradient"
        raise UserError(f"{which} in this network, so nothing would learn")
    for parameter in judge.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    logger.info("%d of %d weights learn, %d numbers", len(reached), total, sum(parameter.numel() for parameter in reached))


def made_up(judge: Judge, data: PairDataOptions) -> tuple[Tensor, ...]:
    """What the judge is given in a step: two crops of noise, with references for a full-reference network, or two measurements."""
    side, device = data.crop_px, next(judge.parameters()).device
    noise = torch.rand((2, 3) if data.measure_once else (2, 3, side, side), generator=torch.Generator().manual_seed(0)).to(device)
    return (noise, noise.flip(0)) if judge.info.mode == "FR" and not data.measure_once else (noise,)


def _first_parts(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names))

"""From options to a metric in training: network, optimizer, stream of pairs, held-out pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..archs.layers import to_device
from ..config.metric_models import MetricOptions
from ..errors import UsageError, UserError
from ..iqa.afine import PREFIX, build_afine
from ..iqa.afine_backbones import fill_backbone
from ..iqa.trained import BackboneHead, build_network
from ..losses.preference import PairLoss, resolve_pair_loss
from .metric_judge import Facts, Judge, facts_of
from .metric_measured import measured_once
from .metric_pairs import PairStream, Source, check_sizes, load_source, split
from .optimizers import build_optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


@dataclass
class MetricRun:
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


def build_metric_run(options: MetricOptions, accelerator: Accelerator, kept: Path) -> MetricRun:
    """Builds network, optimizer, loss and the stream of pairs; `kept` is where measurements are or will be.

    Raises UserError for options, data or weights that cannot be used.
    """
    train, data = options.train, options.datasets.train
    facts = facts_of(options.network.type)
    torch.manual_seed(options.manual_seed)
    net = starting_network(options)
    judge = Judge(to_device(net, accelerator.device), facts).eval()
    training, held_out = load_data(options, facts)
    measured = measured_once(judge, training, data.resize_px, kept) if data.measure_once else None
    choose_weights(judge, options.network.learn, data.crop_px, measured is not None)
    stream = PairStream(training, data, options.manual_seed, facts.full_reference, measured)
    parameters = nn.ParameterList(parameter for parameter in judge.parameters() if parameter.requires_grad)
    optimizer = build_optimizer(train.optim, parameters.parameters())
    return MetricRun(
        options,
        accelerator,
        judge,
        accelerator.prepare_model(judge),
        accelerator.prepare_optimizer(optimizer),
        parameters,
        [group["lr"] for group in optimizer.param_groups],
        build_loss(options, facts),
        stream,
        held_out,
        AveragedModel(parameters) if train.ema_decay else None,
    )


def starting_network(options: MetricOptions) -> nn.Module:
    """The network with the weights that it starts from; in eval mode, in which it stays."""
    network = options.network
    if network.type.startswith(PREFIX):
        return build_afine(network.type, network.start, network.backbone)
    net = build_network(network.type, network.start)
    if isinstance(net, BackboneHead) and network.backbone:
        fill_backbone(net.backbone, network.backbone)
    return net


def build_loss(options: MetricOptions, facts: Facts) -> PairLoss:
    """The loss, its unit by default from the metric's range."""
    component = options.train.pair_opt
    arguments: dict[str, Any] = {"unit": facts.unit, **component.arguments}
    try:
        return resolve_pair_loss(component.type)(**arguments)
    except TypeError as error:
        raise UsageError(f"train.pair_opt: {component.type}: {error}") from error


def load_data(options: MetricOptions, facts: Facts) -> tuple[list[Source], list[Source]]:
    """Training pairs and held-out pairs, manifest by manifest."""
    data, val = options.datasets.train, options.datasets.val
    training, held_out = [], []
    for given in data.manifests:
        source = load_source(given, facts.full_reference)
        check_sizes(source.pairs)
        kept, out = split(given.path.parent, source.pairs, data.holdout)
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
        held_out.append(load_source(given, facts.full_reference))
    most = options.val.max_pairs
    return training, [replace(source, pairs=source.pairs[:most]) for source in held_out]


def choose_weights(judge: Judge, prefixes: Sequence[str], side: int, measured: bool) -> None:
    """Freezes what is not to learn, and what no gradient reaches (a head for another task, say), which processes could not share.

    Raises:
        UserError: nothing would learn, or the network cannot be trained at all.
    """
    names = [name for name, _ in judge.net.named_parameters()]
    unknown = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)]
    if unknown:
        raise UsageError(f"network.learn: no weight's name starts with {unknown[0]}; the first parts are {', '.join(_first_parts(names))}")
    for name, parameter in judge.net.named_parameters():
        parameter.requires_grad_(not prefixes or name.startswith(tuple(prefixes)))
    device = next(judge.parameters()).device
    noise = torch.rand((2, 3) if measured else (2, 3, side, side), generator=torch.Generator().manual_seed(0)).to(device)
    refs = () if measured or not judge.facts.full_reference else (noise.flip(0),)
    try:
        judge(noise, *refs).sum().backward()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"this network cannot be trained on crops of {side} pixels: {error}") from error
    reached = [parameter for parameter in judge.parameters() if parameter.grad is not None]
    total = sum(1 for _ in judge.parameters())
    for parameter in judge.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    logger.info("%d of %d weights learn, %d numbers", len(reached), total, sum(parameter.numel() for parameter in reached))


def _first_parts(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names))

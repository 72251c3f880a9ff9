"""From options to everything that one training run consists of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..adapters import inject, load_adapter
from ..archs import build_network
from ..archs.layers import keep_last_convolution_exact, to_device
from ..checkpoints import load_into
from ..config.models import Component, Options, TrainDataOptions, TrainOptions
from ..data.sets import load_sets
from ..data.stream import TrainStream
from ..errors import UsageError
from ..iqa.crop_scores import choices_of
from ..iqa.metrics import Metric, create_metric
from ..iqa.reward import Rewards, build_rewards, check_gradient
from ..iqa.scores import read_scores
from ..losses import GANLoss, build_loss
from ..sampling import build_strategy
from .optimizers import build_optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


@dataclass
class Learner:
    """A network and its optimizer."""

    net: nn.Module
    """The bare network: state, evaluation."""
    local: nn.Module
    """The same for training in this process alone: in mixed precision, compiled."""
    model: nn.Module
    """The same for passes whose gradients are to be shared between processes."""
    optimizer: torch.optim.Optimizer
    parameters: nn.ParameterList
    """What is trained: the adapter's parameters in LoRA runs, else all."""
    rates: list[float]
    """The full learning rate of each parameter group."""


@dataclass
class Discriminator(Learner):
    loss: GANLoss


@dataclass
class Objective:
    """The terms of L that need no discriminator."""

    supervised: dict[str, Callable[[Tensor, Tensor], Tensor]]
    """Log name -> loss(sr, gt), weighted."""
    negative: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None
    rewards: Rewards | None
    to_base: nn.Module | None
    """Weighted loss(sr, base's output)."""


@dataclass
class Run:
    options: Options
    train: TrainOptions
    accelerator: Accelerator
    stream: TrainStream
    members: int
    """K + 1 of the largest set."""
    objective: Objective
    generator: Learner
    discriminator: Discriminator | None
    ema: AveragedModel | None
    """Over `generator.parameters` only; buffers are always the generator's own."""
    judge: Metric | None
    """The Q of amo, which chooses GTs in the step."""
    base: nn.Module | None
    """The network as it started, frozen; only where a loss asks for its outputs."""
    step: int = 0
    n: int = 0
    """The next sample number of the stream."""

    @property
    def global_batch(self) -> int:
        """Samples per optimizer step, over all processes."""
        return self.data.batch_size_per_gpu * self.accelerator.num_processes * self.train.accum_iter

    @property
    def data(self) -> TrainDataOptions:
        assert self.options.datasets.train is not None  # build() refuses options without
        return self.options.datasets.train


def build(options: Options, accelerator: Accelerator) -> Run:
    """Builds networks, optimizers, losses and the stream of samples; initial weights depend on manual_seed only.

    Raises:
        UserError: options, data or weight files that cannot be used.
    """
    train, data = options.train, options.datasets.train
    if train is None or data is None:
        raise UsageError(f"{options.name}: training needs the blocks `train` and `datasets.train`")
    device = accelerator.device
    generator = build_generator(options, train, accelerator)
    discriminator = build_discriminator(options, train, accelerator) if train.gan_opt else None
    objective = build_objective(train, device)
    if objective.rewards is not None:
        check_gradient(objective.rewards, data.gt_size)
    judge = create_metric(data.sampling.metric, device) if data.sampling.metric and build_strategy(data.sampling).online else None
    stream = build_stream(options, judge)  # last: folders are decoded here, which may take minutes
    return Run(
        options,
        train,
        accelerator,
        stream,
        max(len(gt_set.paths) for gt_set in stream.reader.sets),
        objective,
        generator,
        discriminator,
        AveragedModel(generator.parameters) if train.ema_decay else None,
        judge,
        build_base(options, accelerator) if objective.to_base else None,
    )


def build_stream(options: Options, judge: Metric | None = None) -> TrainStream:
    """The stream of training samples; with the `judge` of an online strategy on a grid of crops it remembers and is told the choices.

    Raises:
        UserError: options or data that cannot be used.
    """
    train, data = options.train, options.datasets.train
    if data is None:
        raise UsageError(f"{options.name}: there is no block `datasets.train`")
    strategy = build_strategy(data.sampling)
    reader, sets = load_sets(data, options.scale)
    scores = read_scores(data.scores, sets, data.sampling.metric) if strategy.needs_scores else None
    negative = train is not None and train.neg_opt is not None
    remembers = strategy.online and data.sampling.grid > 1
    choices = choices_of(data, options.scale, reader, judge) if remembers and judge is not None else None
    stream = TrainStream(reader, data, options.scale, options.manual_seed, strategy, scores, negative, choices)
    if choices is not None:
        logger.info("%.0f%% of the choices of %d crops are remembered: %s", 100 * choices.known, len(choices), choices.path)
    if stream.dropped:
        logger.info("%d of %d sets have no positive GT and are left out", stream.dropped, len(sets))
    return stream


def build_generator(options: Options, train: TrainOptions, accelerator: Accelerator) -> Learner:
    """The generator from its starting weights, with an adapter where `lora` is set."""
    net = starting_network(options)
    if options.precision in ("bf16", "fp16"):
        keep_last_convolution_exact(net)
    if options.lora:
        net = inject(net, options.lora, options.network_g.type)
        if options.path.pretrain_adapter:
            load_adapter(net, options.path.pretrain_adapter)
    return Learner(**_prepared(net, train.optim_g, accelerator, options.compile))


def starting_network(options: Options) -> nn.Module:
    """The generator without adapter: pretrained, or with random weights that depend on manual_seed only."""
    torch.manual_seed(options.manual_seed)
    net, paths = build_network(options.network_g), options.path
    if paths.pretrain_network_g:
        load_into(net, paths.pretrain_network_g, paths.param_key_g, paths.strict_load_g)
    return net


def build_base(options: Options, accelerator: Accelerator) -> nn.Module:
    """The pretrained generator without adapter, frozen and in eval mode. Raises UsageError for a run that starts from random weights."""
    if options.path.pretrain_network_g is None:
        raise UsageError("train.base_opt needs path.pretrain_network_g: the base is the network as it started")
    return to_device(starting_network(options), accelerator.device).requires_grad_(False).eval()


def build_discriminator(options: Options, train: TrainOptions, accelerator: Accelerator) -> Discriminator:
    """The discriminator and its loss."""
    if options.network_d is None or train.optim_d is None or train.gan_opt is None:
        raise UsageError("train.gan_opt needs network_d and train.optim_d")
    if options.precision == "fp16":
        raise UsageError("precision fp16 cannot train a GAN (one loss scale serves two optimizers); use bf16")
    net = build_network(options.network_d)
    paths = options.path
    if paths.pretrain_network_d:
        load_into(net, paths.pretrain_network_d, paths.param_key_d, paths.strict_load_d)
    loss = build_loss("gan", train.gan_opt).to(accelerator.device)
    return Discriminator(**_prepared(net, train.optim_d, accelerator, options.compile), loss=loss)


def _prepared(net: nn.Module, optimizer: Component, accelerator: Accelerator, compiled: bool) -> dict[str, Any]:
    """The fields of a Learner."""
    net = to_device(net, accelerator.device)
    parameters = nn.ParameterList(parameter for parameter in net.parameters() if parameter.requires_grad)
    made = build_optimizer(optimizer, parameters.parameters())
    local = compile_network(net) if compiled else net
    return {
        "net": net,
        "local": local,
        "model": accelerator.prepare_model(local),
        "optimizer": accelerator.prepare_optimizer(made),
        "parameters": parameters,
        "rates": [group["lr"] for group in made.param_groups],
    }


def compile_network(net: nn.Module) -> nn.Module:
    """A wrapper that compiles the network at its first pass; the network itself, its names and its files stay as they are."""
    import torch._functorch.config as functorch

    functorch.donated_buffer = False  # the gradients of the discriminator's pass over sr are asked for twice
    return cast(nn.Module, torch.compile(net, dynamic=False))  # shapes are the same in every step


def build_objective(train: TrainOptions, device: torch.device) -> Objective:
    """The losses, on the device. The L of a run without any is refused."""
    supervised = {}
    for name, kind, component in (("l_pix", "pixel", train.pixel_opt), ("l_percep", "perceptual", train.perceptual_opt)):
        if component:
            supervised[name] = build_loss(kind, component).to(device)
    for component in train.metric_opt:
        supervised[f"l_{component.type}"] = build_loss("metric", component)
    negative = build_loss("negative", train.neg_opt).to(device) if train.neg_opt else None
    rewards = build_rewards(train.reward_opt, device) if train.reward_opt else None
    to_base = build_loss("pixel", train.base_opt).to(device) if train.base_opt else None
    if not (supervised or negative or rewards or train.gan_opt):
        raise UsageError("train has no loss: give pixel_opt, perceptual_opt, gan_opt, metric_opt or reward_opt")
    return Objective(supervised, negative, rewards, to_base)

"""A throw-away forward and backward pass before training starts, where something can be learnt or must be settled by one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..adapters import lora_layers, set_scale
from ..distributed import world_size
from ..errors import UserError
from ..modes import eval_mode, practice_mode
from .build import Learner, Run

logger = logging.getLogger(__name__)

MOST_APART = 0.05
"""Of an adapter's effect, by which base and adapter may differ from merged weights: rounding moves a little, such as routing."""


def rehearse(run: Run) -> None:
    """Runs each network once and drops the gradients.

    DistributedDataParallel arranges its buckets anew after its first backward pass, which changes the order of its sums: done here, before
    any state is loaded, a resumed run adds in the same order as an undisturbed one. In LoRA runs the adapters' gradients are checked.

    Raises:
        UserError: the generator's outputs are not `scale` times larger than its inputs, or an adapter has no effect.
    """
    with eval_mode(run.generator.net):
        check_scale(run)
    with practice_mode(run.generator.net), own_weights_learn(run.generator.net):
        if run.options.lora or world_size() > 1:
            _backward(run.generator, run.data.gt_size // run.options.scale)
        if run.options.lora:
            check_adapter_gradients(run.generator.net)
        if world_size() > 1:
            check_all_learn(run.generator)
        run.generator.net.zero_grad()
    if run.options.lora:
        with eval_mode(run.generator.net):
            check_adapter_acts(run.generator.net, run.data.gt_size // run.options.scale)
    if run.discriminator and world_size() > 1:
        with eval_mode(run.discriminator.net):
            _backward(run.discriminator, run.data.gt_size)
            check_all_learn(run.discriminator)
            run.discriminator.optimizer.zero_grad()


@contextmanager
def own_weights_learn(net: nn.Module) -> Iterator[None]:
    """Lets the weights below adapters have gradients, which tell whether a layer has a part in a pass."""
    own = [layer.weight for _, layer in lora_layers(net)]
    for weight in own:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in own:
            weight.requires_grad_(False)


def _backward(learner: Learner, side: int) -> None:
    output = learner.model(_picture(learner.net, side))
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(1)).to(output.device)
    if output.requires_grad:  # not where only layers have adapters that are never called
        (output * weights).sum().backward()


def _picture(net: nn.Module, side: int) -> Tensor:
    device = next(net.parameters()).device
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)


def check_all_learn(learner: Learner) -> None:
    """Raises UserError where a parameter had no part in the pass: DistributedDataParallel would wait for its gradient and fail later."""
    idle = [name for name, p in learner.net.named_parameters() if p.requires_grad and p.grad is None and ".base_layer." not in name]
    if idle:
        raise UserError(
            f"{type(learner.net).__name__}: {len(idle)} parameters have no part in a pass ({', '.join(idle[:3])}), which training over "
            "several processes does not allow; train in one process, or choose other lora.target_modules"
        )


@torch.no_grad()
def check_adapter_acts(net: nn.Module, side: int) -> None:
    """In evaluation an adapter must do what it does when it is merged: some networks compute with their layers' weights there.

    Raises:
        UserError: it has another effect, or none.
    """
    picture, layers = _picture(net, side), lora_layers(net)
    b = [layer.lora_B[adapter].weight for _, layer in layers for adapter in layer.active_adapters]
    kept = [(weight, weight.clone()) for weight in (*b, *(layer.weight for _, layer in layers))]
    generator = torch.Generator().manual_seed(0)
    try:
        for weight in b:
            weight.copy_(torch.randn(weight.shape, generator=generator).mul_(0.02))
        acting = net(picture)
        deltas = [layer.get_delta_weight(adapter) for _, layer in layers for adapter in layer.active_adapters]
        set_scale(net, 0.0)
        before = net(picture)
        for (_, layer), delta in zip(layers, deltas, strict=True):
            layer.weight.add_(delta)
        merged = net(picture)
    finally:
        for weight, value in kept:
            weight.copy_(value)
        set_scale(net, 1.0)
    effect, difference = (merged - before).abs().max(), (merged - acting).abs().max()
    if difference > MOST_APART * effect + 1e-5:
        raise UserError(
            f"lora: in evaluation {type(net).__name__} computes with the weights of its layers instead of calling them, where an adapter "
            f"has another effect, or none (outputs differ by {difference:.2g}, the effect is {effect:.2g}); train all weights instead"
        )


@torch.no_grad()
def check_scale(run: Run) -> None:
    """One pass on a made-up crop; raises UserError where its size does not come out as the options say."""
    side, scale = run.data.gt_size // run.options.scale, run.options.scale
    picture = _picture(run.generator.net, side)
    shape = tuple(run.generator.net(picture).shape)
    if shape != (1, 3, scale * side, scale * side):
        raise UserError(
            f"network_g: {run.options.network_g.type} makes {shape} of (1, 3, {side}, {side}), but at scale {scale} "
            f"it should make (1, 3, {scale * side}, {scale * side})"
        )


def check_adapter_gradients(net: nn.Module) -> None:
    """Wherever a layer's own weights would get a gradient its adapter does (its B, that is: A's vanish at step 0, because B is zero).

    Layers that had no part in the pass, such as experts that were not asked, are told in a warning.

    Raises:
        UserError: a layer whose weights are used but whose adapter is not, so that it would have no effect; or no adapter acts at all.
    """
    passed_by, asleep = [], []
    for name, layer in lora_layers(net):
        acts = all(b.weight.grad is not None and b.weight.grad.any() for b in layer.lora_B.values())
        used = layer.weight.grad is not None and layer.weight.grad.any()
        if not acts:
            (passed_by if used else asleep).append(name)
    if passed_by:
        raise UserError(
            f"lora: the network reads the weights of {len(passed_by)} layers itself, an adapter there has no effect: "
            f"{', '.join(passed_by[:3])}. Choose other lora.target_modules."
        )
    if len(asleep) == len(lora_layers(net)):
        raise UserError("lora: no adapter gets a gradient. Choose other lora.target_modules: this network does not call those modules.")
    if asleep:
        logger.warning("%d of %d adapters had no part in a first pass: %s", len(asleep), len(lora_layers(net)), ", ".join(asleep[:3]))

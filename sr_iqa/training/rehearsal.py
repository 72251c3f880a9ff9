"""A throw-away forward and backward pass before training starts, where something can be learnt or must be settled by one."""

from __future__ import annotations

import torch
from torch import nn

from ..distributed import world_size
from ..errors import UserError
from ..modes import eval_mode
from .build import Learner, Run


def rehearse(run: Run) -> None:
    """Runs each network once and drops the gradients.

    DistributedDataParallel arranges its buckets anew after its first backward pass, which changes the order of its sums: done here, before
    any state is loaded, a resumed run adds in the same order as an undisturbed one. In LoRA runs the gradients are checked.

    Raises:
        UserError: the generator's outputs are not `scale` times larger than its inputs, or an adapter's gradients are not as they should.
    """
    with eval_mode(run.generator.net):
        check_scale(run)
        if run.options.lora or world_size() > 1:
            _backward(run.generator, run.data.gt_size // run.options.scale)
        if run.options.lora:
            check_adapter_gradients(run.generator.net)
        run.generator.optimizer.zero_grad()
    if run.discriminator and world_size() > 1:
        with eval_mode(run.discriminator.net):
            _backward(run.discriminator, run.data.gt_size)
            run.discriminator.optimizer.zero_grad()


def _backward(learner: Learner, side: int) -> None:
    device = next(learner.net.parameters()).device
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    output = learner.model(picture)
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (output * weights).sum().backward()


@torch.no_grad()
def check_scale(run: Run) -> None:
    """One pass on a made-up crop; raises UserError where its size does not come out as the options say."""
    side, scale = run.data.gt_size // run.options.scale, run.options.scale
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(run.accelerator.device)
    shape = tuple(run.generator.net(picture).shape)
    if shape != (1, 3, scale * side, scale * side):
        raise UserError(
            f"network_g: {run.options.network_g.type} makes {shape} of (1, 3, {side}, {side}), but at scale {scale} "
            f"it should make (1, 3, {scale * side}, {scale * side})"
        )


def check_adapter_gradients(net: nn.Module) -> None:
    """Only the adapter gets gradients, all of it, and its B matrices none that vanish (A's do at step 0, because B is zero).

    Raises:
        UserError: names the first parameters for which that is not so.
    """
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    cut_off = [name for name, p in trained.items() if p.grad is None or ("lora_B" in name and not p.grad.any())]
    stray = [name for name, p in net.named_parameters() if not p.requires_grad and p.grad is not None]
    if cut_off or stray:
        raise UserError(
            f"lora: {len(cut_off)} adapter parameters get no gradient and {len(stray)} of the base get one: "
            f"{', '.join([*cut_off, *stray][:3])}. Choose other lora.target_modules: this network does not call those modules."
        )

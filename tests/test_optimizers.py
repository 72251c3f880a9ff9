"""The end of a step: fused optimizers, the guard, the average."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sr_iqa.config.models import Component
from sr_iqa.errors import UsageError
from sr_iqa.training.optimizers import FUSED, OPTIMIZERS, build_optimizer, only_if, update_average
from sr_iqa.training.steps import clip

RATES = {"Rprop": {"lr": 1e-3}, "SGD": {"lr": 1e-3, "momentum": 0.9}}


def parameters_and(kind, **arguments):
    """Three parameters and their optimizer."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,), (2, 3, 3, 3))]
    return parameters, build_optimizer(Component(type=kind, **(RATES.get(kind, {"lr": 1e-2}) | arguments)), parameters)


def give_gradients(parameters, seed, value=None):
    torch.manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) if value is None else torch.full_like(parameter, value)


@pytest.mark.parametrize("kind", FUSED)
def test_fused_is_the_default_and_can_be_switched_off(kind):
    fused, plain = parameters_and(kind), parameters_and(kind, fused=False)
    assert fused[1].param_groups[0]["fused"] is True and plain[1].param_groups[0]["fused"] is False
    assert not parameters_and(kind, foreach=True)[1].param_groups[0]["fused"]
    for step in range(5):
        for parameters, optimizer in (fused, plain):
            give_gradients(parameters, step)
            optimizer.step()
    for one, other in zip(fused[0], plain[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS.keys() - set(FUSED)))
def test_others_are_left_as_they_are(kind):
    assert not parameters_and(kind)[1].defaults.get("fused")


def test_arguments_that_an_optimizer_refuses_are_user_errors():
    with pytest.raises(UsageError, match="Adam: Invalid learning rate"):
        parameters_and("Adam", lr=-1.0)
    with pytest.raises(UsageError, match="Adam: .*unexpected keyword"):
        parameters_and("Adam", rate=1.0)


@pytest.mark.parametrize(("kind", "arguments"), [("Adam", {}), ("AdamW", {}), ("SGD", {}), ("Adam", {"fused": False}), ("RMSprop", {})])
def test_the_guard_lets_healthy_steps_through_and_no_others(kind, arguments):
    parameters, optimizer = parameters_and(kind, **arguments)
    free, unguarded = parameters_and(kind, **arguments)
    for step, healthy in enumerate((True, True, False)):
        before = copy.deepcopy(parameters)
        give_gradients(parameters, step, None if healthy else math.nan)
        with only_if(torch.tensor(healthy), optimizer, parameters):
            optimizer.step()
        if healthy:
            give_gradients(free, step)
            unguarded.step()
            before = free
        assert all(torch.equal(one, other) for one, other in zip(parameters, before, strict=True))
    assert not hasattr(optimizer, "found_inf"), "the next user of the optimizer would be called off"


def test_fused_adam_called_off_keeps_its_state():
    parameters, optimizer = parameters_and("Adam")
    give_gradients(parameters, 0)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()["state"])
    give_gradients(parameters, 1, math.inf)
    with only_if(torch.tensor(False), optimizer, parameters):
        optimizer.step()
    for number, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[number][name]) for name, value in state.items())


def test_the_average_is_torchs():
    live = nn.ParameterList(nn.Parameter(torch.randn(3, 4)) for _ in range(3))
    ours, theirs = AveragedModel(live), AveragedModel(live, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    for step in range(4):
        for parameter in live:
            parameter.data += step
        update_average(ours, live, 0.7)
        theirs.update_parameters(live)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("largest", [None, 0.1, 1e6])
def test_clipping_is_torchs(largest):
    ours, _ = parameters_and("Adam")
    theirs = copy.deepcopy(ours)
    for parameters in (ours, theirs):
        give_gradients(parameters, 0)
    norm = nn.utils.clip_grad_norm_(theirs, largest or math.inf)
    assert torch.equal(clip(ours, largest), norm)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))

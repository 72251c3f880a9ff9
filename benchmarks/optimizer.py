"""The end of a training step, SwinIR medium: optimizer, averaged weights, logging; ours against BasicSR's way.

python -m benchmarks.optimizer [--rounds N]
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sr_iqa.archs import build_network
from sr_iqa.archs.layers import to_device
from sr_iqa.config.models import Component
from sr_iqa.training.meter import Meter
from sr_iqa.training.optimizers import build_optimizer, only_if, update_average
from sr_iqa.training.steps import clip

from .networks import MEDIUM
from .report import publish, ratio
from .timing import race, repeated

ADAM = Component.model_validate({"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]})
DECAY, TIMES = 0.999, 5
LOSSES = ("l_pix", "l_percep", "l_g_gan")


class BasicSR:
    """What BasicSR's SRModel does after the backward pass: Adam as it comes, model_ema, reduce_loss_dict."""

    def __init__(self, net: nn.Module, losses: dict[str, torch.Tensor]) -> None:
        self.net, self.net_ema, self.losses = net, copy.deepcopy(net), losses
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def step(self) -> None:
        self.optimizer.step()

    def average(self) -> None:
        live = dict(self.net.named_parameters())
        for name, averaged in self.net_ema.named_parameters():
            averaged.data.mul_(DECAY).add_(live[name].data, alpha=1 - DECAY)

    def log(self) -> dict[str, float]:
        with torch.no_grad():
            return {name: value.mean().item() for name, value in self.losses.items()}

    def everything(self) -> None:
        self.step()
        self.log()
        self.average()


class Ours:
    """What steps.py does after the backward pass."""

    def __init__(self, net: nn.Module, losses: dict[str, torch.Tensor]) -> None:
        self.losses = losses
        self.parameters = nn.ParameterList(net.parameters())
        self.ema = AveragedModel(self.parameters)
        self.optimizer = build_optimizer(ADAM, self.parameters.parameters())
        self.meter = Meter(next(net.parameters()).device, members=5)

    def step(self) -> None:
        self.optimizer.step()

    def average(self) -> None:
        update_average(self.ema, self.parameters, DECAY)

    def log(self) -> None:
        for name, value in self.losses.items():
            self.meter.add(name, value)

    def same_work(self) -> None:
        self.step()
        self.log()
        self.average()

    def everything(self) -> None:
        norm = clip(list(self.parameters), None)
        self.meter.add("grad_norm_g", norm)
        self.meter.judge(norm, 0)
        with only_if(self.meter.healthy, self.optimizer, list(self.parameters)):
            self.step()
        self.log()
        self.average()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    losses = {name: torch.rand((), device=device) for name in LOSSES}
    nets = [to_device(build_network({**MEDIUM, "img_size": 64}), device) for _ in range(2)]
    for net in nets:
        for parameter in net.parameters():
            parameter.grad = 1e-3 * torch.randn_like(parameter)
    theirs, ours = BasicSR(nets[0], losses), Ours(nets[1], losses)
    work = {
        "theirs": theirs.everything,
        "theirs, Adam": theirs.step,
        "theirs, EMA": theirs.average,
        "same work": ours.same_work,
        "everything": ours.everything,
        "Adam": ours.step,
        "EMA": ours.average,
    }
    found = {name: timing.seconds / TIMES for name, timing in race({name: repeated(w, TIMES) for name, w in work.items()}, rounds).items()}
    rows = [
        ratio("optimizer, EMA and logging", "BasicSR", found["theirs"], found["same work"], 3),
        ratio("with gradient norm and guard against NaN", "BasicSR, without", found["theirs"], found["everything"]),
        ratio("Adam", "BasicSR", found["theirs, Adam"], found["Adam"]),
        ratio("EMA", "BasicSR", found["theirs, EMA"], found["EMA"]),
    ]
    publish("optimizer", rows, "What follows the backward pass in a step of SwinIR medium (11.9 million parameters).")


if __name__ == "__main__":
    main()

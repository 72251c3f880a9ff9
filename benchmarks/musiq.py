"""MUSIQ, as a metric (forward) and as a reward (forward and backward to the image): ours against pyiqa's, the same random weights.

python -m benchmarks.musiq [--rounds N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from pyiqa.archs.musiq_arch import MUSIQ as PyiqasMUSIQ
from torch import Tensor, nn

from sr_iqa.iqa.musiq import MUSIQ, convert

from .report import Row, publish, ratio
from .timing import race

SIDE_PX, BATCHES = 256, (1, 5)
LEAST = {"float32": 1.25, "bf16, compiled": 4.0}
"""Targets; the second kind runs on GPUs only."""

Net = Callable[[Tensor], Tensor]


def networks(device: str) -> dict[str, Net]:
    """pyiqa's network, and ours in its kinds, in eval mode and frozen."""
    torch.manual_seed(0)
    theirs, ours = PyiqasMUSIQ(pretrained=False), MUSIQ()
    ours.load_state_dict(convert(theirs.state_dict()))
    nets: dict[str, nn.Module] = {"pyiqa": theirs, "float32": ours}
    found: dict[str, Net] = {name: net.eval().requires_grad_(False).to(device) for name, net in nets.items()}
    if device == "cuda":
        compiled = torch.compile(nets["float32"], dynamic=False, fullgraph=True)

        def rough(x: Tensor) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                return compiled(x)

        found["bf16, compiled"] = rough
    return found


def forward(net: Net, x: Tensor) -> None:
    with torch.no_grad():
        net(x)


def forward_backward(net: Net, x: Tensor) -> None:
    x = x.detach().requires_grad_()
    torch.autograd.grad(net(x).sum(), x)


def rows(nets: dict[str, Net], batch: int, device: str, rounds: int) -> list[Row]:
    """The rows of one batch size."""
    x = torch.rand(batch, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        scores = {name: net(x).flatten() for name, net in nets.items()}
    found = []
    for what, work in (("forward", forward), ("forward + backward", forward_backward)):
        timings = race({name: lambda net=net, work=work: work(net, x) for name, net in nets.items()}, rounds)
        for name, least in LEAST.items():
            if name in nets:
                off = (scores[name] - scores["pyiqa"]).abs().max().item()
                note = f"scores differ by up to {off:.1e}, being about {scores['pyiqa'].mean():.1f}"
                title = f"{what}, batch {batch}, {name}"
                found.append(ratio(title, "pyiqa's in float32", timings["pyiqa"].seconds, timings[name].seconds, least, note))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    nets = networks(device)
    found = [row for batch in BATCHES for row in rows(nets, batch, device, rounds)]
    publish("musiq", found, f"MUSIQ on images of {SIDE_PX}x{SIDE_PX}, from pixels to scores and back.")


if __name__ == "__main__":
    main()

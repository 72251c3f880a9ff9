"""A run's weights and state, in and out of its parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..adapters import load_adapter, save_adapter
from ..archs import build_network
from ..checkpoints import file_hash, load_into, save_weights
from ..config import load_options, options_to_yaml
from ..config.models import Options
from ..inference.base import Base
from . import state as states
from .build import Run, starting_network
from .folder import RunFolder, final_weights
from .meter import Meter
from .optimizers import as_evaluated


def capture(run: Run, readings: dict[str, Any]) -> dict[str, Any]:
    """Everything that the next step depends on."""
    state = {
        "step": run.step,
        "n": run.n,
        "global_batch": run.global_batch,
        "options": states.plain(run.options),
        "meter": readings,
        "net_g": run.generator.net.state_dict(),
        "optim_g": run.generator.optimizer.state_dict(),
    }
    if run.ema is not None:
        state["ema"] = run.ema.state_dict()
    if run.discriminator is not None:
        state |= {"net_d": run.discriminator.net.state_dict(), "optim_d": run.discriminator.optimizer.state_dict()}
    if run.accelerator.scaler is not None:
        state["scaler"] = run.accelerator.scaler.state_dict()
    return state


def restore(run: Run, meter: Meter, state: dict[str, Any], source: Path) -> None:
    """Puts a run into a captured state.

    Raises:
        UserError: the state belongs to another global batch.
    """
    states.check_same_batch(state["global_batch"], run.global_batch, source)
    run.step, run.n = state["step"], state["n"]
    meter.load(state["meter"])
    run.generator.net.load_state_dict(state["net_g"])
    run.generator.optimizer.load_state_dict(state["optim_g"])
    if run.ema is not None:
        run.ema.load_state_dict(state["ema"])
    if run.discriminator is not None:
        run.discriminator.net.load_state_dict(state["net_d"])
        run.discriminator.optimizer.load_state_dict(state["optim_d"])
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])


@contextmanager
def averaged(run: Run) -> Iterator[nn.Module]:
    """The generator as it is evaluated: with the averaged parameters where there is EMA, in float32 whatever the precision."""
    with as_evaluated(run.generator.net, run.generator.parameters, run.ema):
        yield run.generator.net


def save_networks(run: Run, folder: RunFolder) -> None:
    """The weights of this step: net_g, net_g_ema and net_d, or in LoRA runs the adapter alone (the EMA's where there is one)."""
    base = run.options.path.pretrain_network_g
    if run.options.lora:
        with averaged(run) as net:
            save_adapter(net, folder.adapter(run.step), file_hash(base) if base else "")
    else:
        save_weights(folder.network("net_g", run.step), run.generator.net.state_dict(), _metadata(run))
        if run.ema is not None:
            with averaged(run) as net:
                save_weights(folder.network("net_g_ema", run.step), net.state_dict(), _metadata(run))
    if run.discriminator is not None:
        save_weights(folder.network("net_d", run.step), run.discriminator.net.state_dict(), _metadata(run))


def _metadata(run: Run) -> dict[str, str]:
    """What a weight file says about itself."""
    network = run.options.network_g.model_dump(mode="json")
    return {
        "name": run.options.name,
        "step": str(run.step),
        "scale": str(run.options.scale),
        "network_g": json.dumps(network),
        "sr_iqa": __version__,
        **training_facts(run.options),
    }


def training_facts(options: Options) -> dict[str, str]:
    """What a run's options say of its weights' origin: data, metrics, parent. Names, never paths; what there is none of is left out."""
    data, train, parent = options.datasets.train, options.train, options.path.pretrain_network_g
    said = {
        "training_data": data and (data.name or data.dataroot_gt.name),
        "sampling": data and data.type == "multi_gt" and data.sampling.strategy,
        "sampling_metric": data and data.sampling.metric,
        "reward_metric": train and ", ".join(reward.metric for reward in train.reward_opt),
        "options_hash": hashlib.sha256(options_to_yaml(options).encode()).hexdigest()[:16],
        "parent": parent and parent.name,
        "parent_hash": parent and file_hash(parent),
    }
    return {key: str(value) for key, value in said.items() if value}


def base_of(options: Options, device: torch.device | str = "cpu") -> Base | None:
    """What a run's outputs are compared with for noise_base: those of its network without the adapter or, where a reward tunes all weights
    of a pretrained network, of that one. None for other runs.

    Raises:
        UserError: pretrained weights that are missing or do not fit.
    """
    if options.lora:
        return Base()
    if options.train and options.train.reward_opt and options.path.pretrain_network_g:
        return Base(starting_network(options).to(device).eval())
    return None


def load_base(folder: Path | str, device: torch.device | str = "cpu") -> Base | None:
    """`base_of` a run's folder; None where the pretrained weights are no longer there. Raises UserError: weights that do not fit."""
    options = load_options(RunFolder(Path(folder)).options)
    weights = options.path.pretrain_network_g
    return base_of(options, device) if weights is None or weights.exists() else None


def load_trained(folder: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The newest network of a run, ready for evaluation: the EMA's weights where there are any, the adapter on its base in LoRA runs.

    Raises:
        UserError: nothing saved there, or weights that do not fit.
    """
    options: Options = load_options(RunFolder(Path(folder)).options)
    weights = final_weights(folder)
    if options.lora:
        net = load_adapter(starting_network(options), weights)
    else:  # what training started from may be gone
        net = build_network(options.network_g)
        load_into(net, weights)
    return net.to(device).eval()

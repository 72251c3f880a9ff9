"""A metric's weights and state, in and out of its run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import state as states
from .meter import Meter
from .metric_build import MetricRun
from .metric_judge import Judge
from .optimizers import as_evaluated


def capture(run: MetricRun, readings: dict[str, Any]) -> dict[str, Any]:
    """Everything that the next step depends on."""
    state = {
        "step": run.step,
        "n": run.n,
        "global_batch": run.global_batch,
        "options": states.plain(run.options),
        "data": [source.fingerprint for source in run.stream.sources],
        "meter": readings,
        "net": run.judge.net.state_dict(),
        "optim": run.optimizer.state_dict(),
    }
    return state | ({"ema": run.ema.state_dict()} if run.ema is not None else {})


def restore(run: MetricRun, meter: Meter, state: dict[str, Any], source: Path) -> None:
    """Puts a run into a captured state. Raises UserError where the global batch or a manifest is another one."""
    states.check_same_batch(state["global_batch"], run.global_batch, source)
    if state["data"] != [found.fingerprint for found in run.stream.sources]:
        raise UserError(f"{source} was trained on other pairs than the manifests hold now. Restore them, or start anew with --fresh.")
    run.step, run.n = state["step"], state["n"]
    meter.load(state["meter"])
    run.judge.net.load_state_dict(state["net"])
    run.optimizer.load_state_dict(state["optim"])
    if run.ema is not None:
        run.ema.load_state_dict(state["ema"])


@contextmanager
def averaged(run: MetricRun) -> Iterator[Judge]:
    """The judge as it is validated and saved: with the averaged weights where there is EMA, in float32 whatever the precision."""
    with as_evaluated(run.judge, run.parameters, run.ema):
        yield run.judge


def header(run: MetricRun) -> dict[str, Any]:
    """What a metric's file says of itself (iqa/trained.py)."""
    info = run.judge.info
    return {
        "architecture": run.options.network.type,
        "mode": info.mode,
        "range": list(info.value_range),
        "lower_better": info.lower_better,
        "one_image": info.one_image,
        "smallest": info.smallest,
        "multiple": info.multiple,
        "run": run.options.name,
        "step": run.step,
        "start": Path(run.options.network.start).name,
        "pairs": {source.name: source.fingerprint for source in run.stream.sources},
        "loss": run.options.train.pair_opt.type,
        "unit": run.loss.unit,
    }

"""How often a metric in training agrees with people on pairs that it has not learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..distributed import gather_objects, share
from .metric_judge import Judge, fitted
from .metric_pairs import Source, sights, sights_of


def validate_pairs(judge: Judge, held_out: Sequence[Source], alone: Callable[[], None]) -> dict[str, float]:
    """2AFC accuracy of every held-out manifest, `accuracy_<name>`, and of all their pairs, `accuracy`; 1 is best, chance is 0.5.

    Images are judged whole, each once, shared between the processes; `alone` is called before each. Pairs that people find alike (p_a =
    0.5) do not count; equal scores count half.
    """
    device = next(judge.parameters()).device
    right: dict[str, list[float]] = {}
    full = judge.info.mode == "FR"
    for source in held_out:
        todo = list(sights_of([source], full))
        mine = []
        for i in share(len(todo)):
            alone()
            images = [fitted(path, source.resize_px, judge.info).to(device) for path in todo[i] if path is not None]
            with torch.no_grad():
                mine.append((todo[i], float(judge(*images)[0])))
        q = dict(gather_objects(mine))
        for pair in source.pairs:
            if pair.p_a != 0.5:
                a, b = (q[sight] for sight in sights(pair, full))
                right.setdefault(source.name, []).append(agrees(a - b, pair.p_a))
    every = [value for values in right.values() for value in values]
    columns = {"accuracy": every, **({f"accuracy_{name}": values for name, values in right.items()} if len(right) > 1 else {})}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def agrees(difference: float, p_a: float) -> float:
    """1 where Q(A) - Q(B) and people prefer the same image, 0.5 where Q finds them equal, else 0."""
    return 0.5 if difference == 0 else float((difference > 0) == (p_a > 0.5))

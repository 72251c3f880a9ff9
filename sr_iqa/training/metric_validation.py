"""How often a metric in training agrees with people on pairs that it has not learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..distributed import gather_objects, share
from .metric_judge import Judge, fitted
from .metric_pairs import Source, images_of


def validate_pairs(judge: Judge, held_out: Sequence[Source], shorter: Sequence[int | None], alone: Callable[[], None]) -> dict[str, float]:
    """2AFC accuracy of every held-out manifest, `accuracy_<name>`, and of all their pairs, `accuracy`; 1 is best, chance is 0.5.

    Images are judged whole, each once, shared between the processes; `alone` is called before each. Pairs that people find alike (p_a =
    0.5) do not count; equal scores count half.
    """
    device = next(judge.parameters()).device
    right: dict[str, list[float]] = {}
    for source, side in zip(held_out, shorter, strict=True):
        keys = images_of([source])
        mine = []
        for i in share(len(keys)):
            alone()
            images = [fitted(path, side, judge.facts).to(device) for path in keys[i] if path is not None]
            with torch.no_grad():
                mine.append((keys[i], float(judge(*images[: 1 + judge.facts.full_reference])[0])))
        q = dict(gather_objects(mine))
        decided = [pair for pair in source.pairs if pair.p_a != 0.5]
        found = [agrees(q[pair.img_a, pair.ref] - q[pair.img_b, pair.ref], pair.p_a) for pair in decided]
        right.setdefault(source.name, []).extend(found)
    every = [value for values in right.values() for value in values]
    columns = {"accuracy": every, **({f"accuracy_{name}": values for name, values in right.items()} if len(right) > 1 else {})}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def agrees(difference: float, p_a: float) -> float:
    """1 where Q(A) - Q(B) and people prefer the same image, 0.5 where Q finds them equal, else 0."""
    return 0.5 if difference == 0 else float((difference > 0) == (p_a > 0.5))

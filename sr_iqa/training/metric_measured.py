"""What A-FINE's D depends on, measured once: for the stage of training in which no feature changes any more."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..atomic import atomic_write
from ..distributed import gather_objects, is_main, share
from ..errors import DAMAGED_FILE
from ..iqa.afine import AFine
from .metric_judge import Judge, fitted
from .metric_pairs import Measured, Source, sights_of

logger = logging.getLogger(__name__)


@torch.no_grad()
def measured_once(judge: Judge, sources: Sequence[Source], kept: Path, alone: Callable[[], None] = lambda: None) -> Measured:
    """Raw N and F of every image beside its reference, whole; from the file `kept` if it is of the same network and pairs.

    Images are shared between the processes; `alone` is called before each.
    """
    assert isinstance(judge.net, AFine)
    sights = sights_of(sources, full_reference=True)
    identity = _identity(judge.net, sources)
    values = _read(kept, identity)
    if not all(gather_objects([values is not None])):  # all measure if one of them has to, on a machine without the file, say
        device = next(judge.parameters()).device
        todo, mine = list(sights.items()), []
        for i in share(len(todo)):
            alone()
            (image, ref), shorter = todo[i]
            assert ref is not None
            x, y = (fitted(path, shorter, judge.info).to(device) for path in (image, ref))
            mine.append((i, judge.net.measure(x, y)[0].cpu()))
        values = torch.stack([value for _, value in sorted(gather_objects(mine), key=lambda item: item[0])])
        logger.info("measured %d images once", len(todo))
        if is_main():
            with atomic_write(kept) as temporary:
                save_file({"measured": values}, temporary, metadata={"identity": identity})
    assert values is not None
    return dict(zip(sights, values, strict=True))


def _identity(net: AFine, sources: Sequence[Source]) -> str:
    """Of the parts that measure, and of the pairs in their order."""
    digest = hashlib.sha256(str([(source.fingerprint, len(source.pairs), source.resize_px) for source in sources]).encode())
    for name, value in net.state_dict().items():
        if name.startswith(("backbone.", "natural.", "fidelity.")):
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path, identity: str) -> Tensor | None:
    """None where nothing was kept, or what was is of another network or other pairs, or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.get_tensor("measured") if (file.metadata() or {}).get("identity") == identity else None
    except DAMAGED_FILE:
        return None

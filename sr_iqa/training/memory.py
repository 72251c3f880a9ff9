"""What to do when memory runs out, said in the options' words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import UserError

STEP = (
    "lower datasets.train.batch_size_per_gpu (train.accum_iter keeps the global batch) or datasets.train.gt_size, or use precision: bf16"
    " on a GPU; with amo, sampling.grid and `sr-iqa data score --crops` take its scoring out of the step"
)
VALIDATION = "set val.tile (such as 128), so that validation upscales in tiles"


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Turns the failure of an allocation, on a GPU or on the host, into a UserError with advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "DefaultCPUAllocator" not in str(error):
            raise
        reason = str(error).partition("\n")[0] or "MemoryError"
        raise UserError(f"there is not enough memory for {what}: {advice}.\n({reason})") from error

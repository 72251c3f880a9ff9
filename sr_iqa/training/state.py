"""Save and resume: everything that the next step depends on, in one file that appears whole or not at all.

No random state is stored. Samples are functions of their number n, which is stored, and every other draw is seeded by
(seed, step, rank, micro-batch), so that a resumed run goes on as the killed one would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..atomic import atomic_write
from ..config.models import Options, Section
from ..errors import DAMAGED_FILE, UserError

FREE_KEYS = (
    "train.total_iter",
    "logger",
    "val",
    "datasets.val",
    "datasets.train.num_worker_per_gpu",
    "path.experiments_root",
    "datasets.train.batch_size_per_gpu",
    "train.accum_iter",
)
"""Options that may change when a run resumes. Batch size and accumulation may change together: their product with the number of
processes, the global batch, may not."""


def _state_path(folder: Path, step: int) -> Path:
    return folder / f"{step}.pt"


def save_state(folder: Path, state: dict[str, Any], keep: int) -> None:
    """Writes `<step>.pt` atomically, then removes all but the newest `keep`.

    Raises:
        UserError: the file could not be written; earlier ones are untouched.
    """
    path = _state_path(folder, state["step"])
    try:
        with atomic_write(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: could not be written: {error}. Earlier checkpoints are untouched; free space and run again.") from error
    for old in list(_newest_first(folder))[keep:]:
        old.unlink()


def newest_state(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state that can be read, on the CPU, and a note on each newer one that cannot. (None, notes) where there is none."""
    notes = []
    for path in _newest_first(folder):
        try:
            return torch.load(path, map_location="cpu", weights_only=True), notes
        except DAMAGED_FILE as error:
            notes.append(f"{path} cannot be used ({type(error).__name__}: {str(error).partition(chr(10))[0]})")
    return None, notes


def _newest_first(folder: Path) -> Iterator[Path]:
    steps = [int(path.stem) for path in folder.glob("*.pt") if path.stem.isdigit()]
    return (_state_path(folder, step) for step in sorted(steps, reverse=True))


def plain(options: Section) -> dict[str, Any]:
    """The options as nested plain values, for storing beside the weights."""
    return options.model_dump(mode="json")


def check_unchanged(then: dict[str, Any], now: dict[str, Any], source: Path, kind: type[Section] = Options) -> None:
    """Refuses to go on with other options than the run was started with, FREE_KEYS excepted; both are plain values of a `kind`.

    An option that the run's version did not have counts as having its default then.

    Raises:
        UserError: names every key that differs, with both values.
    """
    before, after = dict(flat(_with_defaults(then, kind))), dict(flat(now))
    changed = [
        f"  {key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)
    ]
    if changed:
        raise UserError(
            f"{source} was written by a run with other options:\n" + "\n".join(changed) + "\n"
            "Restore them, choose another `name`, or start anew with --fresh (the old folder is kept under another name)."
        )


def _with_defaults(options: dict[str, Any], kind: type[Section]) -> dict[str, Any]:
    """Stored options, complete by this version's measure; as they are where it does not know some of them."""
    try:
        return plain(kind.model_validate(options))
    except ValidationError:
        return options


def check_same_batch(then: int, now: int, source: Path) -> None:
    """Refuses another global batch, which would change what a step is."""
    if then != now:
        raise UserError(
            f"{source} was written with a global batch of {then} samples, now it is {now} (batch_size_per_gpu x processes x accum_iter).\n"
            "Change train.accum_iter or datasets.train.batch_size_per_gpu so that the product stays the same."
        )


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", leaf) pairs of nested dictionaries; lists are leaves."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value

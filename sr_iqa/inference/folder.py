"""`sr-iqa infer`: what a plan says and is not done yet, and what is to be said of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ..adapters import adapter_weights
from ..checkpoints import weights_hash
from ..errors import UsageError, UserError
from ..images import ImageError
from .budget import Dial
from .compare import Compared, check_page, write_comparison
from .inputs import Job, Naming
from .pictures import FORMATS, read_picture
from .plan import Plan, plan_folder
from .progress import ImageProgress
from .record import Record, Settings, remove_leftovers, stamp_of
from .upscaler import Upscaler
from .work import Outcome, Work


def upscale_folder(upscaler: Upscaler, plan: Plan, say: Callable[[str], None] = lambda text: None, quiet: bool = False) -> Outcome:
    """Does what a plan says and is not done yet.

    Raises:
        UsageError: adapter scales for a network without adapter.
        UserError: before any work, if a file is in the way that is no result, or a result that was made otherwise; after all others are
            done, if images could not be read, upscaled or written: names them; at once where nothing can come out right (an output of
            NaN, a full disk).
    """
    if plan.dial != Dial() and not upscaler.has_adapter:
        raise UsageError("--scale: the network has no adapter, so there is no adapter scale to set; give one with --adapter")
    if plan.compare:
        check_page(plan.page)
    settings, record, outcome = _settings(upscaler, plan), Record(plan.naming.folder), Outcome()
    wanted = {path: how for job in plan.jobs for path, how in zip(job.outputs.values(), settings, strict=True)}
    record.check(wanted, plan.fresh)
    remove_leftovers([*wanted, plan.page])
    if plan.others:
        say(f"{plan.others} file{'s' * (plan.others != 1)} with other suffixes left out")
    todo = [job for job in plan.jobs if not _is_done(job, record, wanted)]
    outcome.skipped = len(plan.jobs) - len(todo)
    if outcome.skipped:
        say(f"{outcome.skipped} of {len(plan.jobs)} images are done already")
    end = ""
    try:
        with ImageProgress(len(todo), say, quiet) as progress:
            Work(upscaler, plan, record, settings, outcome, progress).do(todo)
        whole = [job for job in plan.jobs if all(map(os.path.isfile, job.outputs.values()))]
        if plan.compare and whole:
            say(f"page: {write_comparison(plan.page, _compared(plan, whole, record))}")
    except UserError as error:
        end = str(error)
    outcome.check(len(plan.jobs), end)
    return outcome


def infer_folder(net: nn.Module, inputs: Path, out: Path, tile: int = 0, device: torch.device | str = "cpu") -> int:
    """Upscales an image, or every image of a folder, to PNGs of the same names in `out`; earlier results are made anew. Returns how many.

    Raises:
        UserError: as `find_jobs` and `upscale_folder`.
    """
    plan = plan_folder([inputs], Naming(Path(out)), fresh=True)
    return upscale_folder(Upscaler(net, device, tile=tile), plan, quiet=True).done


def _is_done(job: Job, record: Record, wanted: Mapping[Path, Settings]) -> bool:
    stamp = stamp_of(job.source)
    return all(record.stands(path, stamp, wanted[path]) for path in job.outputs.values())


def _compared(plan: Plan, jobs: Sequence[Job], record: Record) -> Iterator[Compared]:
    for job in jobs:
        try:
            before = read_picture(job.source, plan.max_pixels)
        except ImageError:
            continue  # it is among the failures
        outputs = {title or "output": path for title, path in job.outputs.items()}
        notes = {title: record.note(path) for title, path in outputs.items() if plan.dial.budget}
        yield Compared(job.name, before, outputs, {title: note for title, note in notes.items() if note})


def _settings(upscaler: Upscaler, plan: Plan) -> list[Settings]:
    """What the pixels of an image's results depend on, one after the other. Batches and devices are to make no difference that one sees."""
    dial, settings = plan.dial, {"weights": weights_hash(upscaler.net.state_dict()), "precision": upscaler.precision}
    settings |= {"tile": "auto" if plan.auto else str(upscaler.tile), "overlap": str(upscaler.overlap)}
    if FORMATS[f".{plan.naming.format.lower()}"] in ("JPEG", "WebP"):
        settings["quality"] = str(plan.quality)
    if not upscaler.has_adapter:
        return [settings]
    settings["adapter weights"] = ",".join(f"{weight!r}" for weight in adapter_weights(upscaler.net).values())
    scales = [f"auto, {dial.budget}"] if dial.budget else [f"{scale!r}" for scale in dial.scales]
    return [{**settings, "scale": scale} for scale in scales]

"""Many images: one after the other through an upscaler, in bounded memory, without doing twice what is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import nn

from ..adapters import adapter_weights
from ..checkpoints import weights_hash
from ..errors import UsageError, UserError
from ..images import ImageError
from .bands import AUTO_CPU, AUTO_GPU, upscale_bands
from .budget import Dial, ScaleChooser
from .compare import Compared, write_comparison
from .inputs import Job, Naming, find_jobs
from .pictures import FORMATS, LARGEST_MAX, MAX_PIXELS, Picture, join_bands, read_picture, write_bands, write_picture
from .record import add_note, open_record, read_notes
from .tiles import is_whole
from .upscaler import Upscaler

PAGE = "compare.html"


@dataclass(frozen=True)
class Plan:
    """How a folder of results is to be made."""

    jobs: Sequence[Job]
    naming: Naming
    dial: Dial = Dial()
    quality: int = 95
    """Of JPEG and WebP."""
    auto: bool = False
    """Whether the upscaler's tile may be halved where the GPU's memory does not suffice."""
    fresh: bool = False
    """Do everything again."""
    max_pixels: int = MAX_PIXELS
    compare: bool = False
    """Whether to write a page with sliders."""


@dataclass
class Outcome:
    done: int = 0
    skipped: int = 0
    """Inputs whose results were there already."""
    failures: list[str] = field(default_factory=list)
    notes: dict[Path, str] = field(default_factory=dict)
    """Input -> the adapter scale chosen for it."""


def plan_folder(
    inputs: Sequence[Path | str],
    naming: Naming,
    dial: Dial = Dial(),  # noqa: B008 (frozen)
    recursive: bool = False,
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
    **options: bool,
) -> Plan:
    """A plan whose inputs and names are checked. Raises as `find_jobs`, and UsageError for numbers out of range."""
    if not 1 <= quality <= 100:
        raise UsageError(f"--quality {quality}: goes from 1 to 100")
    if not 1 <= max_pixels <= LARGEST_MAX:
        raise UsageError(f"--max-pixels {max_pixels}: goes from 1 to {LARGEST_MAX}, more cannot be decoded")
    titles = [f"s{scale:g}" for scale in dial.scales] if len(dial.scales) > 1 else [""]
    return Plan(find_jobs(inputs, naming, titles, recursive), naming, dial, quality, max_pixels=max_pixels, **options)


def parse_tile(text: str, device: str) -> tuple[int, bool]:
    """`--tile`: a number or auto -> the side to begin with, and whether it may be halved. Raises UsageError."""
    if text.strip().lower() == "auto":
        return (AUTO_GPU if device.startswith("cuda") else AUTO_CPU), True
    if not text.strip().isdecimal():
        raise UsageError(f"--tile {text}: give the side in pixels, 0 for whole images, or auto")
    return int(text), False


def upscale_folder(upscaler: Upscaler, plan: Plan, say: Callable[[str], None] = lambda text: None, quiet: bool = False) -> Outcome:
    """Does what a plan says and is not done yet.

    Raises:
        UsageError: adapter scales for a network without adapter.
        UserError: after all others are done, if images could not be read or written: names them. At once for results that were made
            otherwise, and where nothing can come out right (an output of NaN, a tile too large for the memory).
    """
    if plan.dial != Dial():
        upscaler.adapter_scale = next(iter(plan.dial.scales), 0.0)  # refused at once where there is no adapter
    outputs = [path for job in plan.jobs for path in job.outputs.values()]
    record = open_record(plan.naming.folder, _settings(upscaler, plan), any(path.exists() for path in outputs), plan.fresh)
    todo = [job for job in plan.jobs if not all(record.stands(path, job.source) for path in job.outputs.values())]
    said = read_notes(plan.naming.folder)
    notes = {job.source: said[path.name] for job in plan.jobs for path in job.outputs.values() if path.name in said}
    outcome = Outcome(skipped=len(plan.jobs) - len(todo), notes=notes)
    if outcome.skipped:
        say(f"{outcome.skipped} of {len(plan.jobs)} images are done already")
    _run(upscaler, plan, todo, outcome, say, quiet)
    if plan.compare and len(outcome.failures) < len(plan.jobs):
        say(f"page: {write_comparison(plan.naming.folder / PAGE, _compared(plan, outcome))}")
    if outcome.failures:
        raise UserError("\n".join([f"{len(outcome.failures)} of {len(plan.jobs)} images could not be upscaled:", *outcome.failures]))
    return outcome


def infer_folder(net: nn.Module, inputs: Path, out: Path, tile: int = 0, device: torch.device | str = "cpu") -> int:
    """Upscales an image, or every image of a folder, to PNGs of the same names in `out`, replacing what is there; returns how many.

    Raises:
        UserError: as `find_jobs` and `upscale_folder`.
    """
    plan = plan_folder([inputs], Naming(Path(out)))
    outcome = Outcome()
    _run(Upscaler(net, device, tile=tile), plan, plan.jobs, outcome, lambda text: None, quiet=True)
    if outcome.failures:
        raise UserError("\n".join([f"{len(outcome.failures)} of {len(plan.jobs)} images could not be upscaled:", *outcome.failures]))
    return outcome.done


def _run(upscaler: Upscaler, plan: Plan, jobs: Sequence[Job], outcome: Outcome, say: Callable[[str], None], quiet: bool) -> None:
    chooser = ScaleChooser(plan.dial.budget, upscaler.device) if plan.dial.budget else None
    with _Progress(len(jobs), say, quiet) as progress:
        for group in _groups(upscaler, plan, jobs, outcome, progress):
            names = ", ".join(job.name for job, _ in group)
            try:
                if chooser is not None:
                    _choose(upscaler, chooser, plan, group[0], outcome, progress)
                else:
                    _upscale(upscaler, plan, group, progress)
                outcome.done += len(group)
            except ImageError as error:
                outcome.failures.append(str(error))
            except UserError as error:
                if chooser is not None:  # an image that is too small for the budget's metric, say
                    outcome.failures.append(f"{names}: {error}")
                    continue
                raise UserError(f"{names}: {error}") from error


def _groups(
    upscaler: Upscaler, plan: Plan, jobs: Sequence[Job], outcome: Outcome, progress: _Progress
) -> Iterator[list[tuple[Job, Picture]]]:
    """Pictures as they are read: neighbours of one size that need no tiles together, as many as the upscaler's batch."""
    waiting: list[tuple[Job, Picture]] = []
    for job in jobs:
        try:
            picture = read_picture(job.source, plan.max_pixels)
        except ImageError as error:
            outcome.failures.append(str(error))
            progress.advance(1)
            continue
        if waiting and waiting[0][1].size != picture.size:
            yield waiting
            waiting = []
        waiting.append((job, picture))
        most = upscaler.batch if plan.dial.budget is None and is_whole(*picture.size, upscaler.tile) else 1
        if len(waiting) >= most:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _upscale(upscaler: Upscaler, plan: Plan, group: Sequence[tuple[Job, Picture]], progress: _Progress) -> None:
    """Writes the results of pictures of one size, for every adapter scale."""
    scales = plan.dial.scales
    for k, scale in enumerate(scales):
        if upscaler.has_adapter and upscaler.adapter_scale != scale:
            upscaler.adapter_scale = scale
        files = [list(job.outputs.values())[k] for job, _ in group]
        pictures = [picture for _, picture in group]
        size = (pictures[0].size[0] * upscaler.magnification, pictures[0].size[1] * upscaler.magnification)

        def bands(pictures: Sequence[Picture] = pictures, size: tuple[int, int] = size) -> Iterator[list[Picture]]:
            for band in upscale_bands(upscaler, pictures, progress.say if plan.auto else None):
                progress.advance(len(pictures) / len(scales) * len(band[0].pixels) / size[0])
                yield band

        if len(group) == 1:
            write_bands(files[0], size, (band[0] for band in bands()), plan.quality)
            continue
        for file, strips in zip(files, zip(*bands(), strict=True), strict=True):
            write_picture(file, join_bands(size, iter(strips)), plan.quality)


def _choose(upscaler: Upscaler, chooser: ScaleChooser, plan: Plan, one: tuple[Job, Picture], outcome: Outcome, progress: _Progress) -> None:
    """Writes the result at the adapter scale that the budget allows, and says which that is."""
    job, picture = one
    chosen = chooser(upscaler, picture)
    (file,) = job.outputs.values()
    write_picture(file, chosen.picture, plan.quality)
    outcome.notes[job.source] = chosen.describe(chooser.budget)
    add_note(plan.naming.folder, file.name, outcome.notes[job.source])
    progress.say(f"{job.name}: {outcome.notes[job.source]}")
    progress.advance(1)


def _compared(plan: Plan, outcome: Outcome) -> Iterator[Compared]:
    """What the page shows: every input that has all its results."""
    for job in plan.jobs:
        if not all(path.is_file() for path in job.outputs.values()):
            continue
        try:
            before = read_picture(job.source, plan.max_pixels)
        except ImageError:
            continue  # it is among the failures
        outputs = {title or "output": path for title, path in job.outputs.items()}
        note = outcome.notes.get(job.source)
        yield Compared(job.name, before, outputs, dict.fromkeys(outputs, note) if note else {})


def _settings(upscaler: Upscaler, plan: Plan) -> dict[str, str]:
    """What the pixels of the results depend on. Tiles, batches and devices are left out: they are to make no difference that one sees."""
    dial = plan.dial
    settings = {"weights": weights_hash(upscaler.net.state_dict()), "precision": upscaler.precision}
    if upscaler.has_adapter:
        settings["adapter weights"] = ",".join(f"{weight:g}" for weight in adapter_weights(upscaler.net).values())
    settings["scale"] = f"auto, {dial.budget}" if dial.budget else ",".join(f"{scale:g}" for scale in dial.scales)
    settings |= {"format": FORMATS[f".{plan.naming.format.lower()}"], "suffix": plan.naming.suffix}
    if settings["format"] in ("JPEG", "WebP"):
        settings["quality"] = str(plan.quality)
    return settings


class _Progress:
    """A bar with the time that is left, on a terminal only; messages above it."""

    def __init__(self, total: int, say: Callable[[str], None], quiet: bool) -> None:
        console = Console(file=sys.stderr)
        self._say = say
        self._bar = Progress(
            TextColumn("{task.description} {task.fields[done]}/{task.total:.0f}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("images", total=max(total, 1), done=0)
        self._done = 0.0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *trace: object) -> None:
        self._bar.stop()

    def advance(self, images: float) -> None:
        """By a number of images, or a part of one."""
        self._done += images
        self._bar.update(self._task, completed=self._done, done=int(self._done + 1e-6))

    def say(self, text: str) -> None:
        """A line that stays."""
        self._say(text)

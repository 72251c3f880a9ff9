"""Images, one group after the other through an upscaler, in bounded memory; what goes wrong with one does not stop the others."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..images import ImageError
from .bands import ADVICE, upscale_bands
from .budget import ScaleChooser
from .inputs import Job
from .memory import MemoryShortage, shortage_named
from .pictures import Picture, check_holds, read_picture, write_bands
from .plan import Plan
from .progress import ImageProgress
from .record import Record, Settings, Stamp, stamp_of
from .tiles import is_whole
from .upscaler import Upscaler

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the disk that no later image escapes."""


@dataclass
class Outcome:
    done: int = 0
    skipped: int = 0
    """Inputs whose results were there already."""
    failures: dict[Path, str] = field(default_factory=dict)
    """Input -> what went wrong with it."""

    def check(self, total: int, also: str = "") -> None:
        """UserError that names every failure, of `total` images, and what else there is to say."""
        words = [f"{len(self.failures)} of {total} images could not be upscaled:", *dict.fromkeys(self.failures.values())]
        said = [*(words if self.failures else ()), *([also] if also else ())]
        if said:
            raise UserError("\n".join(said))


@dataclass(frozen=True)
class Loaded:
    """An input, read."""

    job: Job
    picture: Picture
    stamp: Stamp


@dataclass(frozen=True)
class Work:
    """How images are brought from file to file."""

    upscaler: Upscaler
    plan: Plan
    record: Record
    settings: Sequence[Settings]
    """Of every adapter scale, or of a budget."""
    outcome: Outcome
    progress: ImageProgress

    def do(self, jobs: Sequence[Job]) -> None:
        """All jobs; what went wrong with which is in the outcome.

        Raises:
            UserError: nothing that follows can come out right: an output of NaN, a full disk.
        """
        budget = self.plan.dial.budget
        chooser = ScaleChooser(budget, self.upscaler.device) if budget else None
        for group in self._groups(jobs):
            if chooser is None:
                self._upscale(group)
            else:
                with self._attempt(group):
                    self._choose(chooser, group[0])
            self.outcome.done += len(self._well(group))
            self.progress.finish(len(group))

    def _groups(self, jobs: Sequence[Job]) -> Iterator[list[Loaded]]:
        """Pictures as they are read: neighbours of one size that need no tiles together, as many as the upscaler's batch."""
        waiting: list[Loaded] = []
        for job in jobs:
            one = self._read(job)
            if one is None:
                continue
            size = one.picture.size
            if waiting and waiting[0].picture.size != size:
                yield waiting
                waiting = []
            waiting.append(one)
            most = self.upscaler.batch if self.plan.dial.budget is None and is_whole(*size, self.upscaler.tile) else 1
            if len(waiting) >= most:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _read(self, job: Job) -> Loaded | None:
        """An input whose results the format can hold; None, and a failure, for others."""
        found = None
        with self._attempt([job]):
            stamp = stamp_of(job.source) or (0, 0)
            picture = read_picture(job.source, self.plan.max_pixels)
            for output in job.outputs.values():
                check_holds(output, self._size(picture), picture.alpha is not None)
            found = Loaded(job, picture, stamp)
        if found is None:
            self.progress.finish(1)
        return found

    def _upscale(self, group: Sequence[Loaded]) -> None:
        """Writes the results of pictures of one size, for every adapter scale."""
        for k, scale in enumerate(self.plan.dial.scales):
            group = self._well(group)
            if not group:
                return
            if self.upscaler.has_adapter and self.upscaler.adapter_scale != scale:
                self.upscaler.turn(scale)
            bands = self._bands([one.picture for one in group])
            if len(group) == 1:
                with self._attempt(group):
                    self._write(group[0], k, (band[0] for band in bands))
                continue
            strips: list[tuple[Picture, ...]] = []
            with self._attempt(group):
                strips = list(zip(*bands, strict=True))
            for one, own in zip(group, strips, strict=False):  # no strips where that failed
                with self._attempt([one]):
                    self._write(one, k, own)

    def _bands(self, pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
        rows = self._size(pictures[0])[0] * len(self.plan.dial.scales)
        for band in upscale_bands(self.upscaler, pictures, self.progress.say if self.plan.auto else None):
            self.progress.advance(len(pictures) * band[0].size[0] / rows)
            yield band

    def _choose(self, chooser: ScaleChooser, one: Loaded) -> None:
        """Writes the result at the adapter scale that the budget allows, and says which that is."""
        chosen = chooser(self.upscaler, one.picture, self.progress.say if self.plan.auto else None)
        note = chosen.describe(chooser.budget)
        self._write(one, 0, [chosen.picture], note)
        self.progress.say(f"{one.job.name}: {note}")

    def _write(self, one: Loaded, k: int, bands: Iterable[Picture], note: str = "") -> None:
        file = list(one.job.outputs.values())[k]

        def begun() -> Iterator[Picture]:
            """Nothing is written, nor a file begun, before there is something to write."""
            for number, band in enumerate(bands):
                if number == 0:
                    self.record.begin(file)
                yield band

        write_bands(file, self._size(one.picture), begun(), self.plan.quality)
        self.record.finish(file, one.stamp, self.settings[k], note)

    def _size(self, picture: Picture) -> tuple[int, int]:
        """(height, width) of a picture's results."""
        return picture.size[0] * self.upscaler.magnification, picture.size[1] * self.upscaler.magnification

    def _well(self, group: Sequence[Loaded]) -> list[Loaded]:
        return [one for one in group if one.job.source not in self.outcome.failures]

    @contextmanager
    def _attempt(self, group: Sequence[Loaded | Job]) -> Iterator[None]:
        """What goes wrong in the block is a failure of these images, unless it would go wrong with all others too."""
        jobs = [one.job if isinstance(one, Loaded) else one for one in group]
        names = ", ".join(job.name for job in jobs)
        try:
            with shortage_named("it needs", ADVICE):
                yield
        except OSError as error:
            if error.errno in FULL:
                folder = self.plan.naming.folder
                raise UserError(f"{folder}: {error.strerror}; run the same command again when there is room") from error
            self._fail(jobs, f"{names}: the result cannot be written ({error.strerror})")
        except UserError as error:
            if isinstance(error, ImageError):  # which names the file
                self._fail(jobs, str(error))
            elif isinstance(error, MemoryShortage) or self.plan.dial.budget:  # too small for the budget's metric, say
                self._fail(jobs, f"{names}: {error}")
            else:
                raise UserError(f"{names}: {error}") from error

    def _fail(self, jobs: Sequence[Job], why: str) -> None:
        self.outcome.failures |= {job.source: why for job in jobs}

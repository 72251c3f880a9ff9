"""A bar with the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column


class ImageProgress:
    """A bar of images, on a terminal only; messages above it."""

    def __init__(self, total: int, say: Callable[[str], None], quiet: bool) -> None:
        console = Console(file=sys.stderr)
        self.say = say
        """A line that stays."""
        self.done, self._part = 0, 0.0
        self._bar = Progress(
            TextColumn("{task.description} {task.fields[done]}/{task.total:.0f}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("images", total=max(total, 1), done=0)

    def __enter__(self) -> ImageProgress:
        self._bar.start()
        return self

    def __exit__(self, *trace: object) -> None:
        self._bar.stop()

    def advance(self, images: float) -> None:
        """By a part of the images at hand."""
        self._part += images
        self._bar.update(self._task, completed=self.done + self._part, done=self.done)

    def finish(self, images: int) -> None:
        """The images at hand are done with, whether they came out or not."""
        self.done, self._part = self.done + images, 0.0
        self.advance(0)

"""What a run says and leaves behind: progress, metrics.jsonl, train.log, status.json, TensorBoard. Only the main process does."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from ..atomic import atomic_write, errors_name
from ..distributed import is_main
from .folder import RunFolder
from .meter import Reading

if TYPE_CHECKING:
    from accelerate import Accelerator

SHOWN_LOSSES = 5
SPEED = ("it_s", "img_s", "data_share", "peak_gib")
"""What depends on the machine in a log line."""
WAITING = 0.1
"""Share of the time spent waiting for samples from which a run is told what to do about it."""


class Stopwatch:
    """Where the time between two log lines went."""

    def __init__(self) -> None:
        self.readings = 0
        self.restart()

    def restart(self) -> None:
        self._begun = time.perf_counter()
        self._spent = {"data": 0.0, "other": 0.0}
        self.steps = 0

    @contextmanager
    def spending(self, on: str) -> Iterator[None]:
        """Books the block's time on `data` (waiting for samples) or `other` (saving, validating), which is not training time."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._spent[on] += time.perf_counter() - begun

    def read(self, samples: int) -> dict[str, float]:
        """it_s: optimizer steps per second; img_s: samples per second, at `samples` a step; data_share: share of the training time spent
        waiting for samples; peak_gib: most memory ever taken, on the GPU or, without one, by this process. Starts anew."""
        training = max(time.perf_counter() - self._begun - self._spent["other"], 1e-9)
        self.readings += 1
        it_s, data_share = self.steps / training, min(1.0, self._spent["data"] / training)
        self.restart()
        return {"it_s": it_s, "img_s": samples * it_s, "data_share": data_share, "peak_gib": peak_memory_gib()}


def peak_memory_gib() -> float:
    """Most memory ever taken: by tensors on the GPU, or by this process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")  # on Linux ru_maxrss is at least what the parent process had
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


class Logs:
    """One run's reports, from step `start` on. Use as a context: the way it is left becomes the state in status.json."""

    def __init__(self, folder: RunFolder, accelerator: Accelerator, start: int, total: int, trackers: bool, quiet: bool) -> None:
        self._folder, self._accelerator, self._total = folder, accelerator, total
        self._step = start
        self._said: set[str] = set()
        self._console = Console(file=sys.stderr, quiet=quiet or not is_main(), soft_wrap=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description} {task.completed}/{task.total}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[news]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self._console,
            disable=quiet or not is_main() or not self._console.is_terminal,
        )
        self._task = self._progress.add_task(folder.root.name, total=total, completed=start, news="")
        if is_main():
            truncate_metrics(folder.metrics, start)
        if trackers:
            accelerator.init_trackers(folder.tensorboard.name, init_kwargs={"tensorboard": {"purge_step": start + 1}})

    def __enter__(self) -> Logs:
        self._progress.start()
        self._status("running", "")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._progress.stop()
        for tracker in self._accelerator.trackers:
            tracker.finish()
        stopped = isinstance(error, (SystemExit, KeyboardInterrupt))
        state = "done" if error is None else "stopped" if stopped else "failed"
        with suppress(OSError) if error else nullcontext():  # a full disk must not hide what it was the cause of
            self._status(state, "" if error is None or stopped else f"{type(error).__name__}: {error}")

    def event(self, text: str) -> None:
        """Something worth knowing, to the screen and train.log."""
        if is_main():
            self._console.print(text, markup=False)
            with errors_name(self._folder.log), self._folder.log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")

    def once(self, text: str) -> None:
        """An event that is worth saying a single time in this process."""
        if text not in self._said:
            self._said.add(text)
            self.event(text)

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        self._step = step
        self._progress.update(self._task, completed=step)

    def losses(self, step: int, reading: Reading, rate: float, speed: dict[str, float]) -> None:
        """One line of metrics.jsonl: step, lr, every loss and reward, speed (as SPEED), and where GTs are chosen chosen, standings."""
        values = {"lr": rate, **reading.means, **speed}
        choices = {"chosen": reading.chosen, "standings": reading.standings} if reading.chosen else {}
        self._append({"step": step, **values, **choices})
        self._accelerator.log(values, step=step)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in list(reading.means.items())[:SHOWN_LOSSES])
        news = f"{speed['it_s']:.2f} it/s  {speed['img_s']:.1f} img/s  data {speed['data_share']:.0%}  {speed['peak_gib']:.1f} GiB  {shown}"
        self._progress.update(self._task, news=news)
        if not self._console.is_terminal:
            left = timedelta(seconds=round((self._total - step) / max(speed["it_s"], 1e-9)))
            self._console.print(f"{self._folder.root.name} {step}/{self._total}  {news}  {left} left", markup=False)
        self._status("running", "")

    def validation(self, step: int, means: dict[str, float]) -> None:
        """One line of metrics.jsonl: step, val: {column: mean in native units}."""
        self._append({"step": step, "val": means})
        self._accelerator.log({f"val/{name}": value for name, value in means.items()}, step=step)
        self.event(f"validation at step {step}: " + "  ".join(f"{name} {value:.4f}" for name, value in means.items()))

    def validated(self, step: int) -> bool:
        """Whether metrics.jsonl holds the validation of a step already; only the main process knows."""
        return any(line["step"] == step and "val" in line for line in read_metrics(self._folder.metrics))

    def picture(self, step: int, image: np.ndarray) -> None:
        """A sample sheet, uint8 (H, W, 3) RGB, to TensorBoard."""
        for tracker in self._accelerator.trackers:
            tracker.log_images({"samples": image[None]}, step=step, dataformats="NHWC")

    def _append(self, line: dict[str, Any]) -> None:
        if is_main():
            with errors_name(self._folder.metrics), self._folder.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _status(self, state: str, message: str) -> None:
        """For whoever watches from outside, above all under a launcher, whose exit code says little."""
        if is_main():
            status = {"state": state, "step": self._step, "total_iter": self._total, "pid": os.getpid()}
            with atomic_write(self._folder.status) as path:
                path.write_text(json.dumps({**status, "updated": datetime.now().isoformat(timespec="seconds"), "message": message}))


@contextmanager
def messages_to(receive: Callable[[str], None]) -> Iterator[None]:
    """Passes on what the package's rooms log (sets left out, layers with an adapter) while the block runs."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            receive(record.getMessage())

    package, handler = logging.getLogger("sr_iqa"), Handler()
    before = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def is_finished(folder: RunFolder) -> bool:
    """Whether the last start of a run came to its end, the last validation included."""
    try:
        return json.loads(folder.status.read_text(encoding="utf-8"))["state"] == "done"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def truncate_metrics(path: Path, step: int) -> None:
    """Removes what was logged after `step`, which will be logged again; everything where nothing had been saved (step 0)."""
    kept = [line for line in read_metrics(path) if line["step"] <= step] if step else []
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

"""Runs a study: trains what is missing, here or in processes of their own, evaluates what is trained, writes the report."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr_iqa.config import OptionsError, options_to_yaml
from sr_iqa.errors import UsageError, UserError

from .board import Board
from .collect import collect, pictures
from .dial_runs import dial_problems, evaluate_dials
from .exports import export
from .report import Written, write_report
from .results import Results
from .study import Study

Say = Callable[[str], None]
POLL_S = 0.5
LAST_LINES = 3
"""Of a failed run's output, shown in the error."""


def run_study(
    study: Study,
    *,
    only: Sequence[str] = (),
    redo: Sequence[str] = (),
    jobs: int = 1,
    launch: str = "",
    say: Say = lambda text: None,
    data: dict[str, Any] | None = None,
    finish: Callable[[Results], None] = lambda results: None,
) -> Written:
    """Trains the variants that are not trained yet, evaluates all that are, and writes results and report into study.root.

    The same call goes on where an earlier one was stopped, at any point.

    Args:
        only: train these variants and no others; the report shows all that are trained.
        redo: train these variants anew; their old runs are kept under another name.
        jobs: runs at the same time, each in a process of its own; 1 trains in this process.
        launch: command in front of `-m sr_iqa train ...`, such as "accelerate launch --num_processes 2".
        say: takes one line of progress at a time.
        data: what results.json says of the data beyond what the data say of themselves.
        finish: may add to the results before they are written.

    Raises:
        UserError: options or data of a variant have changed since it was trained; a run failed; nothing is trained.
    """
    plan = _plan(study, only, redo)
    with Board(study, say) as board:
        if jobs == 1 and not launch:
            for seed, name in plan:
                study.train(name, seed)
                board.ended(name, seed, study.evaluate(name, seed))
        else:
            _train_in_processes(study, plan, jobs, launch, board)
    _refuse_changed(study, only)  # what has just been trained anew is not what its children started from
    rows = {}
    for name in study.variants:
        trained = [seed for seed in study.seeds if study.is_trained(name, seed)]
        if trained:
            rows[name] = [study.evaluate(name, seed) for seed in trained]
            say(f"evaluated {name}: " + _values(study, rows[name]))
    if not rows:
        raise UserError(f"{study.root}: no variant is trained, there is nothing to report")
    results = collect(study, rows, data or {}, evaluate_dials(study, rows, say))
    finish(results)
    written = write_report(results, pictures(study, _with_first_seed(study, rows), results), study.root, title=study.name)
    export(results, study.root)
    return written


def _plan(study: Study, only: Sequence[str], redo: Sequence[str]) -> list[tuple[int, str]]:
    """What has to be trained; checks the options of every variant and that no trained one has changed."""
    for name in (*only, *redo):
        if name not in study.variants:
            raise UsageError(f"there is no variant {name}; choose from {', '.join(study.variants)}")
    check_variants(study)
    _refuse_changed(study, only, redo)
    for seed, name in study.runs:
        if name in redo:
            study.redo(name, seed)
    return [(seed, name) for seed, name in study.runs if (not only or name in only) and not study.is_trained(name, seed)]


def check_variants(study: Study) -> None:
    """Checks the options of every variant. Raises OptionsError: everything that is wrong, each line naming its variant."""
    problems: list[str] = []
    for name in study.variants:
        try:
            study.options(name, study.seeds[0])
        except OptionsError as error:
            problems += error.problems
    problems += [] if problems else dial_problems(study)
    if problems:
        raise OptionsError(problems)


def _refuse_changed(study: Study, only: Sequence[str], redo: Sequence[str] = ()) -> None:
    """Raises UserError naming the runs to be trained or reported that were begun with other options, data or starting weights.

    Those that are to be made anew are excepted.
    """
    changed = [
        f"  {name} (seed {seed}): {line}"
        for seed, name in study.runs
        for line in study.changes(name, seed)
        if name not in redo and (not only or name in only or study.is_trained(name, seed))
    ]
    if changed:
        names = sorted({line.split()[0] for line in changed})
        raise UserError(
            f"{study.root}: trained with other options or data than these:\n" + "\n".join(changed) + "\n"
            f"Restore them, or train anew with {' '.join(f'--redo {name}' for name in names)} (the old runs are kept under other names)."
        )


def _train_in_processes(study: Study, plan: Sequence[tuple[int, str]], jobs: int, launch: str, board: Board) -> None:
    """Keeps up to `jobs` runs going until all of the plan have been made or cannot be."""
    queue = _Queue(study, jobs, launch, list(plan))
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        while queue.waiting or queue.running:
            queue.start_ready()
            time.sleep(POLL_S)
            ended = queue.collect_ended()
            queue.start_ready()  # before evaluating, which takes its time
            for seed, name in ended:
                board.ended(name, seed, study.evaluate(name, seed))
    finally:
        queue.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    if queue.failed:
        raise UserError("\n".join(f"{name} (seed {seed}) failed: {words}" for (seed, name), words in queue.failed.items()))


def _leave(number: int, _: object) -> None:
    """A request to end ends the study in order: its runs save and end too."""
    raise SystemExit(128 + number)


@dataclass
class _Queue:
    """Runs in processes of their own; one that starts from another waits for it, and is given up where that failed."""

    study: Study
    jobs: int
    launch: str
    waiting: list[tuple[int, str]]
    running: dict[tuple[int, str], subprocess.Popen[bytes]] = field(default_factory=dict)
    failed: dict[tuple[int, str], str] = field(default_factory=dict)

    def start_ready(self) -> None:
        for seed, name in list(self.waiting):
            parent = self.study.variants[name].starts_from
            if parent and not self.study.is_trained(parent, seed):
                if (seed, parent) not in (*self.waiting, *self.running):
                    self.failed[seed, name] = f"not started, because {parent} is not trained"
                    self.waiting.remove((seed, name))
            elif len(self.running) < self.jobs:
                self.running[seed, name] = _start(self.study, name, seed, self.jobs, self.launch)
                self.waiting.remove((seed, name))

    def collect_ended(self) -> list[tuple[int, str]]:
        """The runs that have come to their end since the last call."""
        ended = [run for run, process in self.running.items() if process.poll() is not None]
        for seed, name in ended:
            del self.running[seed, name]
            if not self.study.is_trained(name, seed):
                self.failed[seed, name] = _last_words(_log(self.study, name, seed))
        return [run for run in ended if run not in self.failed]

    def stop(self) -> None:
        """Asks what still runs to finish its step and save, and waits for it."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait()


def _start(study: Study, name: str, seed: int, jobs: int, launch: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own, with its share of the cores."""
    study.record(name, seed)
    log = _log(study, name, seed)
    log.parent.mkdir(parents=True, exist_ok=True)
    options = log.with_suffix(".yml")
    options.write_text(options_to_yaml(study.options(name, seed)), encoding="utf-8")
    command = [*(shlex.split(launch) or [sys.executable]), "-m", "sr_iqa", "train", "-opt", str(options)]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**threads, **os.environ}, start_new_session=True)


def _log(study: Study, name: str, seed: int) -> Path:
    """What a run in a process of its own printed."""
    return study.root / "logs" / f"seed{seed}" / f"{name}.log"


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n  ".join([str(log), *lines[-LAST_LINES:]])


def _values(study: Study, rows: Sequence[dict[str, Any]]) -> str:
    """The means over seeds of Q and of the PSNR to the original, for the screen."""
    columns = [c for c in (study.optimised_metric, "psnr_original") if c in rows[0]["metrics"]]
    return "  ".join(f"{c} {sum(row['metrics'][c]['mean'] for row in rows) / len(rows):.3f}" for c in columns)


def _with_first_seed(study: Study, rows: dict[str, Any]) -> list[str]:
    return [name for name in rows if study.is_trained(name, study.seeds[0])]

"""The live table of a study: what every run is doing, read from the files that runs leave behind, whoever runs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .results import Variant as Row
from .results import digits_of
from .study import Study

REFRESH_PER_S = 1
TAIL_BYTES = 1 << 15
"""What is read of a metrics.jsonl, however long it has grown."""


class Board:
    """Shown while the context lasts: a table on a terminal, otherwise one line for every run that ends."""

    def __init__(self, study: Study, say: Callable[[str], None]) -> None:
        self._study, self._say = study, say
        self._results: dict[tuple[str, int], str] = {}
        console = Console(file=sys.stderr)
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=REFRESH_PER_S) if console.is_terminal else None

    def __enter__(self) -> Board:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def ended(self, name: str, seed: int, row: Row) -> None:
        """Shows what a run has come to."""
        self._results[name, seed] = self._values({column: values["mean"] for column, values in row["metrics"].items()})
        if not self._live:
            self._say(f"trained {name} (seed {seed}): {self._results[name, seed]}")

    def _values(self, means: Mapping[str, float]) -> str:
        columns = [c for c in (self._study.optimised_metric, "psnr_original") if c in means]
        return "  ".join(f"{c} {means[c]:.{digits_of([means[c]])}f}" for c in columns)

    def _table(self) -> Table:
        table = Table("variant", "seed", "state", "step", "it/s", "last values", title=self._study.name)
        for seed, name in self._study.runs:
            table.add_row(name, str(seed), *self._row(name, seed))
        return table

    def _row(self, name: str, seed: int) -> tuple[str, str, str, str]:
        folder = self._study.folder(name, seed)
        try:
            status: dict[str, Any] = json.loads(folder.status.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "waiting", "", "", ""
        lines = last_lines(folder.metrics)
        last = next((line for line in reversed(lines) if "val" not in line), {})
        checked = next((line["val"] for line in reversed(lines) if "val" in line), {})
        loss = f"l_pix {last['l_pix']:.4f}  " if "l_pix" in last else ""
        values = self._results.get((name, seed)) or loss + self._values(checked)
        return status["state"], f"{status['step']}/{status['total_iter']}", f"{last['it_s']:.2f}" if last else "", values


def last_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines in the last part of a metrics.jsonl."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
            file.seek(start)
            parts = file.read().split(b"\n")
    except OSError:
        return []
    return [json.loads(part) for part in parts[1 if start else 0 : -1]]

"""Rows of figures beside their targets: printed, and kept as JSON with the machine and the date."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "basicsr", "pyiqa", "numpy", "opencv-python-headless", "lmdb", "accelerate")


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    against: str
    figure: str
    """The ratio or value, as it is shown."""
    target: str = ""
    holds: bool | None = None
    """Whether the figure reaches its target; None without a target."""
    note: str = ""


def ratio(what: str, against: str, theirs: float, ours: float, least: float | None = None, note: str = "") -> Row:
    """How many times faster `ours` seconds are than `theirs`; `least` is the target."""
    times = theirs / ours
    figures = f"{_time(theirs)} -> {_time(ours)}"
    return Row(
        what, against, f"{times:.2f}x", f">= {least:g}x" if least else "", times >= least if least else None, f"{figures}. {note}".strip()
    )


def publish(name: str, rows: Sequence[Row], about: str, keep: bool = False) -> None:
    """Prints the rows and writes results/<name>.json; `about` says what was run.

    With `keep` the file's rows of other things stay, with the date on which they were measured.
    """
    width = max(len(row.what) for row in rows)
    for row in rows:
        mark = {None: " ", True: "+", False: "-"}[row.holds]
        print(f"{mark} {row.what:{width}}  {row.figure:>10}  {row.target:>10}  {row.note}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    RESULTS.mkdir(exist_ok=True)
    rows = [*(_others(RESULTS / f"{name}_{device}.json", rows) if keep else ()), *rows]
    content = {"about": about, "date": date.today().isoformat(), "machine": machine(), "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}_{device}.json").write_text(json.dumps(content, indent=1) + "\n")


def _others(path: Path, rows: Sequence[Row]) -> list[Row]:
    before = json.loads(path.read_text()) if path.is_file() else {"rows": []}
    kept = [Row(**row) for row in before["rows"] if row["what"] not in {new.what for new in rows}]
    dated = f"measured {before.get('date')}"
    return [row if row.note.startswith("measured ") else replace(row, note=f"{dated}; {row.note}".strip("; ")) for row in kept]


def machine() -> dict[str, Any]:
    """The machine and what runs on it."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"

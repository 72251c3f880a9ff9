"""Puts the figures of benchmarks/results into docs/benchmarks.md, between its markers: `python -m benchmarks`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .report import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MARK = {None: "", True: "yes", False: "**no**"}
GPU_TARGETS = {
    "networks": ("SwinIR medium, training step, TF32 and bf16 | BasicSR's in the same loop", ">= 1.4x; compiled >= 2x"),
    "recipe": ("whole recipe (SwinIR medium, L1 + VGG + GAN, batch 8, amo with MUSIQ) | HGGT's way in float32", ">= 3x; memory <= 0.5x"),
    "amo": ("amo scored with MUSIQ; remembered | uniform", "<= 1.2x; <= 1.05x"),
    "musiq": ("MUSIQ forward, and with backward, bf16, compiled | pyiqa's", ">= 4x"),
    "scoring": ("scoring a data set with MUSIQ | pyiqa's loop over files", ">= 5x"),
    "evaluation": ("evaluating a folder of outputs | HGGT's scripts", ">= 3x"),
    "waiting": ("waiting for samples, 8 workers | the step", "<= 2%"),
}
"""What is to be reached on an H200; listed until a results file of that name is there."""


def results() -> dict[str, dict[str, Any]]:
    """Name, such as store_cpu -> content of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def overview(found: dict[str, dict[str, Any]]) -> list[str]:
    """Every row that has a target, and the targets that wait for a GPU."""
    lines = ["## All targets", "", "| what | against | figure | target | reached | where |", "|---|---|---|---|---|---|"]
    for name, result in found.items():
        benchmark, _, device = name.rpartition("_")
        for row in result["rows"]:
            if row["target"]:
                what = f"[{benchmark}](#{benchmark}-{device}): {row['what']}"
                lines.append(_line([what, row["against"], row["figure"], row["target"], MARK[row["holds"]], device]))
    for name, (what, target) in GPU_TARGETS.items():
        if f"{name}_cuda" not in found:
            lines.append(f"| {name}: {what} | not yet measured | {target} | | cuda, `python -m benchmarks.{name}` |")
    return [*lines, ""]


def table(name: str, result: dict[str, Any]) -> list[str]:
    """All rows of a results file."""
    benchmark, _, device = name.rpartition("_")
    machine = result["machine"]
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
    versions = ", ".join(f"{package} {number}" for package, number in machine["versions"].items())
    head = f"{result['about']} `python -m benchmarks.{benchmark}`, {result['date']}; {where}; {versions}."
    lines = [f"## {benchmark} ({device})", "", head, ""]
    lines += ["| what | against | figure | target | reached | |", "|---|---|---|---|---|---|"]
    for row in result["rows"]:
        lines.append(_line([row["what"], row["against"], row["figure"], row["target"], MARK[row["holds"]], row["note"]]))
    return [*lines, ""]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def fill(text: str, part: str, lines: list[str]) -> str:
    """The page with `lines` between the markers of a part."""
    begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    return re.sub(f"({begin}).*({end})", lambda m: f"{m[1]}\n" + "\n".join(lines) + f"\n{m[2]}", text, flags=re.S)


def main() -> None:
    found = results()
    text = fill(PAGE.read_text(), "targets", overview(found))
    PAGE.write_text(fill(text, "figures", [line for name, result in found.items() for line in table(name, result)]))


if __name__ == "__main__":
    main()

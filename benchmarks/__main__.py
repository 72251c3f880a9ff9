"""Puts the figures of benchmarks/results into docs/benchmarks.md, between its markers: `python -m benchmarks`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .report import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MARK = {None: "", True: "yes", False: "**no**"}


def tables() -> str:
    """A table for every results file."""
    parts = []
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        machine = result["machine"]
        where = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        name, _, device = path.stem.rpartition("_")
        parts += [
            f"## {name} ({device})",
            "",
            f"{result['about']} `python -m benchmarks.{name}`, {result['date']}; {where}; {versions}.",
            "",
        ]
        parts += ["| what | against | figure | target | reached | |", "|---|---|---|---|---|---|"]
        for row in result["rows"]:
            cells = [row["what"], row["against"], row["figure"], row["target"], MARK[row["holds"]], row["note"]]
            parts.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    text = PAGE.read_text()
    begin, end = "<!-- figures -->\n", "<!-- end of figures -->"
    PAGE.write_text(re.sub(f"({begin}).*({end})", lambda m: f"{m[1]}\n{tables()}\n{m[2]}", text, flags=re.S))


if __name__ == "__main__":
    main()

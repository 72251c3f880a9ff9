"""The page of a verdict: one HTML file, styles and scripts inside, every name escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sr_iqa.atomic import atomic_write
from sr_iqa.study.pages import SCRIPTS, STYLES, TEMPLATES, trusted

from .figures import accuracy_bars, overlap_map
from .judges import Verdict
from .results import agreement_table, headline, interval, percent

OWN_TEMPLATES = Path(__file__).parent / "templates"


def write_page(verdict: Verdict, path: Path) -> None:
    """Writes the page of agreement and complementarity."""
    content = _render(verdict)
    with atomic_write(path) as file:
        file.write_bytes(content)


def _render(verdict: Verdict) -> bytes:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([OWN_TEMPLATES, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css, script = (trusted("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)) for names in (STYLES, SCRIPTS))
    heads, rows = agreement_table(verdict)
    together = verdict.together
    values: dict[str, Any] = {
        "title": f"Agreement with people: {verdict.name}",
        "headline": headline(verdict),
        "heads": heads,
        "rows": [[(text, _sort_value(text, k)) for k, text in enumerate(row)] for row in rows],
        "identities": [(entry.scored.name, entry.scored.identity, entry.scored.asymmetric) for entry in verdict.agreements],
        "three_way": [(e.scored.name, e.three_way) for e in verdict.agreements if e.three_way],
        "bars": trusted(accuracy_bars(verdict.agreements).inline()) if any(entry.overall for entry in verdict.agreements) else None,
        "unusable": verdict.unusable,
        "screening": verdict.screening,
        "together": together,
        "overlap": trusted(overlap_map(together).inline()) if together else None,
        "rescue": _rescue(verdict) if together else [],
        "percent": percent,
        "interval": interval,
        "provenance": verdict.provenance,
    }
    return environment.get_template("agreement.html.j2").render(css=css, script=script, **values).encode()


def _sort_value(text: str, column: int) -> str | None:
    """What the table sorts a cell by: its number; None for words, empty for what is missing."""
    if column < 2:
        return None
    number = text.partition("..")[0]
    try:
        return str(float(number))
    except ValueError:
        return ""


def _rescue(verdict: Verdict) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """(metric, its errors, a cell (text, colour) for every metric)."""
    together = verdict.together
    if together is None:
        return []
    rows = []
    for k, name in enumerate(together.names):
        cells = []
        for j, value in enumerate(together.rescue[k]):
            known = j != k and value == value  # NaN differs from itself
            cells.append((f"{100 * value:.0f}", f"{round(70 * value)}%") if known else ("", "0%"))
        rows.append((name, together.errors[k], cells))
    return rows

"""The page of a verdict: one HTML file, styles and scripts inside, every name escaped."""

from __future__ import annotations

from pathlib import Path

from sr_iqa.atomic import atomic_write
from sr_iqa.study.pages import page, trusted

from .complementarity import Complementarity
from .figures import accuracy_bars, overlap_map
from .judges import Verdict
from .results import agreement_table, headline, interval, percent, screening_pairs, team_words

TEMPLATES = Path(__file__).parent / "templates"
WORDS = 2
"""First columns of the table of agreement that hold words; the others hold numbers."""


def write_page(verdict: Verdict, path: Path) -> None:
    """Writes the page of agreement and complementarity. Raises UserError where it would be too large (study/pages.py)."""
    content = _render(verdict)
    with atomic_write(path) as file:
        file.write_bytes(content)


def _render(verdict: Verdict) -> bytes:
    heads, rows = agreement_table(verdict)
    together, screening = verdict.together, verdict.screening
    return page(
        "agreement.html.j2",
        templates=TEMPLATES,
        title=f"Agreement with people: {verdict.name}",
        headline=headline(verdict),
        heads=heads,
        rows=[[(text, None if k < WORDS else _first_number(text)) for k, text in enumerate(row)] for row in rows],
        identities=[(entry.scored.name, entry.scored.identity, entry.scored.asymmetric) for entry in verdict.agreements],
        votes=any(entry.votes is not None for entry in verdict.agreements),
        correlations=any(entry.mos for entry in verdict.agreements),
        thresholds={entry.scored.name: entry.three_way.threshold for entry in verdict.agreements if entry.three_way},
        bars=trusted(accuracy_bars(verdict.agreements).inline()) if any(entry.overall for entry in verdict.agreements) else None,
        unusable=verdict.unusable,
        screening=screening,
        screening_pairs=screening_pairs(screening) if screening else None,
        together=together,
        overlap=trusted(overlap_map(together).inline()) if together else None,
        rescue=_rescue(together) if together else [],
        percent=percent,
        interval=interval,
        team_words=team_words,
        provenance=verdict.provenance,
    )


def _first_number(text: str) -> str:
    """What a table sorts a cell by; empty for what is missing."""
    number = text.partition("..")[0]
    try:
        return str(float(number))
    except ValueError:
        return ""


def _rescue(together: Complementarity) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """(metric, its errors, a cell (text, depth of its colour) for every metric)."""
    rows = []
    for k, name in enumerate(together.names):
        cells = []
        for j, value in enumerate(together.rescue[k]):
            known = j != k and value == value  # NaN differs from itself
            cells.append((f"{100 * value:.0f}", f"{round(70 * value)}%") if known else ("", "0%"))
        rows.append((name, together.errors[k], cells))
    return rows

"""The page of the benchmarks says what its results files say."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_is_up_to_date(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    from benchmarks import __main__ as pages

    found = pages.results()
    text = pages.PAGE.read_text()
    made = pages.fill(text, "targets", pages.overview(found))
    made = pages.fill(made, "figures", [line for name, result in found.items() for line in pages.table(name, result)])
    assert made == text, "run `python -m benchmarks`"
    assert "not yet measured" in made or all(f"{name}_cuda" in found for name in pages.GPU_TARGETS)

"""The files of `sr-iqa tradeoff`: JSON, CSV, Markdown, plots, and the page with the slider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from sr_iqa.atomic import atomic_write
from sr_iqa.scorecard import write_json

from .dial_figures import dial_plane
from .dial_page import dial_section
from .dial_words import describe_dials
from .dials import as_variants, dials
from .exports import write_scales
from .pages import page
from .pictures import SetImages
from .report import Written
from .results import Results
from .significance import can_tell
from .summary import column_notes, columns_table, statistics_tables, values_table

PICTURE_BYTES = 12_000_000
"""For the pictures of the page, as they are embedded."""


def write_tradeoff(results: Results, images: Mapping[str, SetImages], out: Path, title: str) -> Written:
    """Writes out/tradeoff.json, .csv and .md, out/figures/ and out/report/index.html (at most 15 MB).

    Nothing is written before all of it has been made.

    `results`: the layout of results.json with at least one curve (dials.py), statistics included; `images`: set -> its pictures.
    """
    flat = as_variants(results, dials(results))
    words = ["# Perception and distortion", "", *(f"{sentence}  " for sentence in describe_dials(results)), "", *values_table(flat)]
    headline = "\n".join(words) + "\n"
    written = Written(out / "tradeoff.json", out / "tradeoff.md", out / "report" / "index.html", headline)
    content = page(
        "tradeoff.html.j2",
        title=title,
        dial=dial_section(results, images, PICTURE_BYTES, [n for n, variant in results["variants"].items() if not variant.get("scales")]),
        statistics=results["statistics"] if can_tell(results) else None,
        notes=column_notes(flat),
        provenance=results["provenance"],
        held_out={key: value for key, value in results["data"].items() if key != "sets"},
    )
    tested = statistics_tables(flat) if can_tell(results) else []
    text = "\n".join([*words, *tested, *columns_table(flat)]) + "\n"
    made = {written.table: text.encode(), written.report: content, **_figures(results, out / "figures")}
    write_json(results, written.results)
    write_scales(results, out / "tradeoff.csv")
    for stem in ("tradeoff", "curve"):  # plots of an earlier call, which had other metrics
        for old in (out / "figures").glob(f"{stem}-*"):
            old.unlink()
    for path, content in made.items():
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    return written


def _figures(results: Results, folder: Path) -> dict[Path, bytes]:
    """File in `folder` -> content, of every plot."""
    with TemporaryDirectory() as temporary:
        for x, y in plane_pairs(results):
            for alone in (False, True):
                dial_plane(results, x, y, alone).save(Path(temporary), ("svg", "pdf", "png"))
        return {folder / path.name: path.read_bytes() for path in Path(temporary).iterdir()}


def plane_pairs(results: Results) -> list[tuple[str, str]]:
    """(x, y) of the plots: Q against the distance to the original, and what watches Q against it, as far as these were measured."""
    q, columns = results["optimised_metric"], dials(results)[0].rows[0]["metrics"]
    distances = [c for c in columns if columns[c]["against"] == "original"]
    first = "psnr_original" if "psnr_original" in columns else next(iter(distances), None)
    pairs = [(first, q), (q, "niqe"), (q, "grid")]
    return [(x, y) for x, y in pairs if x is not None and x in columns and y in columns and x != y]

"""results.json, results.md and report/index.html from the results of a study: one self-contained page, no external assets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sr_iqa.atomic import atomic_write
from sr_iqa.data.gtset import STANDINGS
from sr_iqa.errors import UserError
from sr_iqa.iqa.noise import ALARM
from sr_iqa.scorecard import write_json

from .dial_figures import colour_of
from .dial_page import dial_section, plane_data
from .equal_q import describe_equal_q, equal_q_table
from .gallery import draw
from .pages import page, script_json, trusted
from .pictures import AMPLIFY, SetImages, comparisons, noise_panels
from .results import Results, tier_spans
from .significance import can_tell
from .summary import (
    AGAINST,
    PROXY_HEADS,
    PROXY_NOTE,
    column_notes,
    describe,
    headline,
    markdown,
    member_names,
    option_differences,
    proxy_columns,
    proxy_rows,
    share_rows,
    standing_rows,
    table_rows,
)
from .tuning import describe_tuning

DIAL_BYTES = 4_000_000
"""Of pictures.WHOLE_BYTES, for the pictures of adapters at several scales."""


class Written(NamedTuple):
    """The files of a report."""

    results: Path
    table: Path
    report: Path
    headline: str
    """The beginning of results.md, for the screen."""


def write_report(results: Results, images: Mapping[str, SetImages], out: Path, title: str = "Study") -> Written:
    """Writes out/results.json, out/results.md and out/report/index.html (at most 15 MB).

    `results`: the layout in study/results.py: variants (through merge_seeds), gold_standard, optimised_metric, data, provenance; optional
    are reward_comparison (tuning.compare_tuning) and checks (results.order_checks).
    `images`: set -> its pictures; the report shows the sets whose variants differ most, so all of them may be given.
    """
    if not results["variants"]:
        raise UserError("there is nothing to report: results have no variants")
    paths = Written(out / "results.json", out / "results.md", out / "report" / "index.html", headline(results))
    write_json(results, paths.results)
    content = render(results, images, title)
    for path, made in ((paths.table, markdown(results).encode()), (paths.report, content)):
        with atomic_write(path) as temporary:
            temporary.write_bytes(made)
    return paths


def render(results: Results, images: Mapping[str, SetImages], title: str) -> bytes:
    """The page. Every string of the results is escaped by the template."""
    gallery = {name: [trusted(drawing.inline()) for drawing in group] for name, group in vars(draw(results)).items()}
    numbered, q = list(results["variants"]), results["optimised_metric"]
    dial = dial_section(results, images, DIAL_BYTES, numbered)
    noise = noise_panels(results, images)
    taken = (dial["bytes"] if dial else 0) + sum(panel.bytes for panel in noise)
    return page(
        "report.html.j2",
        title=title,
        q=q,
        summary=describe(results),
        columns=column_notes(results),
        tiers=tier_spans(results),
        rows=table_rows(results),
        statistics=results.get("statistics") if can_tell(results) else None,
        proxy=proxy_rows(results),
        proxy_columns=proxy_columns(results),
        proxy_note=PROXY_NOTE,
        proxy_heads=PROXY_HEADS,
        figures=gallery,
        plane_data=script_json(plane_data(results, numbered)),
        dial=dial,
        noise=noise,
        noise_alarm=ALARM,
        amplify=AMPLIFY,
        differences=option_differences(results),
        comparisons=(shown := comparisons(results, images, taken)),
        wholes=script_json({c.image: c.wholes for c in shown if c.wholes}),
        members=member_names(results),
        chosen=share_rows(results),
        standings=standing_rows(results),
        standing_names=STANDINGS,
        checks=results.get("checks", []),
        tuning=describe_tuning(results) if results.get("reward_comparison") else [],
        equal_q=(describe_equal_q(results), *equal_q_table(results)) if results.get("equal_q") else None,
        colours={name: colour_of(results, name) for name in results["variants"]},
        variants=results["variants"],
        options={name: _yaml(variant["options"]) for name, variant in results["variants"].items()},
        data={key: value for key, value in results["data"].items() if key not in ("sets", "standings")},
        provenance=results["provenance"],
        against=AGAINST,
    )


def _yaml(options: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)

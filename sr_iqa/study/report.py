"""results.json, results.md and report/index.html from the results of a study: one self-contained page, no external assets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sr_iqa.atomic import atomic_write
from sr_iqa.data.gtset import STANDINGS
from sr_iqa.errors import UserError
from sr_iqa.scorecard import write_json

from .figures import colour_of
from .gallery import draw
from .pictures import AMPLIFY, SetImages, comparisons, noise_panels
from .results import Results, columns_of, tier
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

TEMPLATES = Path(__file__).parent / "templates"
MAX_BYTES = 15_000_000


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
    page = render(results, images, title)
    if len(page) > MAX_BYTES:
        raise UserError(f"the report would have {len(page) / 1e6:.0f} MB (at most {MAX_BYTES / 1e6:.0f}): give it fewer or smaller images")
    for path, content in ((paths.table, markdown(results).encode()), (paths.report, page)):
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    return paths


def render(results: Results, images: Mapping[str, SetImages], title: str) -> bytes:
    """The page. Every string of the results is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    q = results["optimised_metric"]
    parts = {name: Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js")}  # noqa: S704 (our own files)
    html = environment.get_template("report.html.j2").render(
        title=title,
        css=parts["report.css"],
        script=parts["report.js"],
        q=q,
        summary=describe(results),
        columns=column_notes(results),
        tiers=_tier_spans(results),
        rows=table_rows(results),
        statistics=results.get("statistics") if can_tell(results) else None,
        proxy=proxy_rows(results),
        proxy_columns=proxy_columns(results),
        proxy_note=PROXY_NOTE,
        proxy_heads=PROXY_HEADS,
        figures={name: [Markup(drawing.inline()) for drawing in group] for name, group in vars(draw(results)).items()},  # noqa: S704 (ours)
        plane_data=Markup(_script_json(_plane_data(results))),  # noqa: S704 (escaped for a script)
        noise=noise_panels(results, images),
        amplify=AMPLIFY,
        differences=option_differences(results),
        comparisons=(shown := comparisons(results, images)),
        wholes=Markup(_script_json({c.image: c.wholes for c in shown if c.wholes})),  # noqa: S704 (escaped for a script)
        members=member_names(results),
        chosen=share_rows(results),
        standings=standing_rows(results),
        standing_names=STANDINGS,
        checks=results.get("checks", []),
        tuning=describe_tuning(results) if results.get("reward_comparison") else [],
        colours={name: colour_of(results, name) for name in results["variants"]},
        variants=results["variants"],
        options={name: _yaml(variant["options"]) for name, variant in results["variants"].items()},
        data={key: value for key, value in results["data"].items() if key not in ("sets", "standings")},
        provenance=results["provenance"],
        against=AGAINST,
    )
    return html.encode()


def _script_json(value: Any) -> str:
    """JSON that may stand inside a <script>, whatever its strings hold."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tier_spans(results: Results) -> list[tuple[str, int]]:
    """The table's upper head: (group, columns)."""
    groups = [tier(column) for column in columns_of(results).values()]
    return [(group, groups.count(group)) for group in dict.fromkeys(groups)]


def _plane_data(results: Results) -> dict[str, Any]:
    """What the page's script draws a plane of any two columns from."""
    columns, told = columns_of(results), can_tell(results)
    points = [
        {
            "number": number,
            "name": name,
            "colour": colour_of(results, name),
            "values": {c: [v["mean"], *(v["interval"] if told and "interval" in v else ())] for c, v in variant["metrics"].items()},
        }
        for number, (name, variant) in enumerate(results["variants"].items(), 1)
    ]
    gold = {c: entry["mean"] for c, entry in results["gold_standard"].items()}
    return {"lower": {c: column["lower_better"] for c, column in columns.items()}, "points": points, "gold": gold}


def _yaml(options: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)

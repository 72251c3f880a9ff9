"""The results in words, and as the table of results.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sr_iqa.data.gtset import LABELS, STANDINGS
from sr_iqa.training.state import flat

from .dial_words import describe_dials
from .dials import as_variants, dials
from .equal_q import describe_equal_q, equal_q_table
from .proxy import followed_metrics, optimised_by
from .results import MetricValues, Results, arrow, best_variants, columns_of, digits_of, format_value, runs_of, shares, tier
from .significance import LEAST_PHOTOS, LEVEL, can_tell
from .tuning import describe_tuning

ALL_GTS = "all GTs"
AGAINST = {
    "positives": "mean over positives",
    "all": "mean over all GTs",
    "best": "best over all GTs",
    "original": "vs. original",
    "none": "no reference",
}


@dataclass(frozen=True)
class Cell:
    """A figure of the table."""

    text: str
    spread: str
    """± standard deviation of the seeds' means, where there are several."""
    best: bool
    value: float | None
    interval: str = ""
    """95 % interval, low to high."""
    equal: bool = False
    """Not the best, but not significantly worse."""
    difference: str = ""
    """From the baseline, with its p, where that is significant."""
    optimised: bool = False
    """The variant's own sampling or reward follows this metric."""


@dataclass(frozen=True)
class Row:
    """A line of the table; the Gold Standard's cells are empty under full-reference columns."""

    name: str
    cells: list[Cell]
    kind: Literal["gold", "variant", "published"] = "variant"


def table_rows(results: Results) -> list[Row]:
    """The Gold Standard, every variant, and the published rows."""
    columns = columns_of(results)
    digits = {c: digits_of([v["metrics"][c]["mean"] for v in results["variants"].values() if c in v["metrics"]]) for c in columns}
    best = {column: best_variants(results, column) for column in columns}
    rows = []
    if results["gold_standard"]:
        means = {c: results["gold_standard"][c]["mean"] if c in results["gold_standard"] else None for c in columns}
        cells = [Cell("" if mean is None else format_value(mean, digits[c]), "", False, mean) for c, mean in means.items()]
        rows.append(Row("Gold Standard", cells, "gold"))
    for name, variant in results["variants"].items():
        followed = optimised_by(variant)
        cells = [_cell(variant["metrics"].get(c), digits[c], name in best[c], can_tell(results)) for c in columns]
        rows.append(Row(name, [replace(cell, optimised=c in followed) for cell, c in zip(cells, columns, strict=True)]))
    for name, values in results.get("reference", {}).items():
        rows.append(Row(name, [Cell(format_value(m := values.get(c), digits[c]), "", False, m) for c in columns], "published"))
    return rows


def _cell(values: MetricValues | None, digits: int, best: bool, tested: bool) -> Cell:
    if values is None:
        return Cell("–", "", False, None)
    spread = f"± {values['spread']:.{digits}f}" if "spread" in values else ""
    interval = " to ".join(format_value(end, digits) for end in values.get("interval", ()))
    equal = tested and not best and values.get("p_worse_than_best", 0) >= LEVEL
    against, difference = values.get("against_baseline"), ""
    if tested and against and against["p_holm"] < LEVEL:
        difference = f"{against['difference']:+.{digits}f}, p {_p(against['p_holm'])}"
    return Cell(format_value(values["mean"], digits), spread, best, values["mean"], interval, equal, difference)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def describe(results: Results) -> list[str]:
    """The summary: what was compared, who leads where, what it costs, which expectations fail."""
    q = results["optimised_metric"]
    columns = columns_of(results)
    variants = results["variants"]
    first = next(iter(variants.values()))
    n_seeds = max(len(runs_of(variant)) for variant in variants.values())
    seeds = "one seed" if n_seeds == 1 else f"mean over {n_seeds} seeds, ± is their standard deviation"
    followed = dict.fromkeys(metric for variant in variants.values() for metric in followed_metrics(variant["options"]))
    sentences = [
        f"{len(variants)} variants on {len(first['metrics'][q]['per_image'])} held-out sets; {seeds}."
        f" Sampling and rewards follow {' or '.join(followed) or 'no metric'}."
    ]
    ranked = sorted(variants, key=lambda name: variants[name]["metrics"][q]["mean"], reverse=not columns[q]["lower_better"])
    sentences.append(_extremes(results, ranked[0], ranked[-1]))
    others = [c for c, column in columns.items() if column["metric"] != q]
    leaders = [
        f"{c} {arrow(columns[c]['lower_better'])} {', '.join(n for n in variants if n in best_variants(results, c))}" for c in others
    ]
    sentences.append(f"Best in the columns that watch: {'; '.join(leaders)}.")
    if "statistics" in results:
        sentences.append(_statistics(results))
    checks = results.get("checks", [])
    failed = [check for check in checks if not check["holds"]]
    if failed:
        sentences.append(f"{len(failed)} of {len(checks)} expectations (below) do not hold.")
    elif checks:
        sentences.append(f"All {len(checks)} expectations hold.")
    return sentences


def _statistics(results: Results) -> str:
    """What the intervals and marks stand for, in this study."""
    photos, baseline = results["statistics"]["photos"], results["statistics"]["baseline"]
    text = f"Intervals are 95 % bootstrap intervals over the {photos} source photos (patches of one photo count together)"
    if not can_tell(results):
        return f"{text}; with fewer than {LEAST_PHOTOS} photos no difference can be significant, and none is marked."
    return f"{text}; differences from {baseline} are tested by Wilcoxon's signed-rank test over photos, Holm-corrected within a column."


def _extremes(results: Results, top: str, bottom: str) -> str:
    """The span of Q, and what the distance to the original does meanwhile."""
    q = results["optimised_metric"]
    variants, gold = results["variants"], results["gold_standard"].get(q)
    values = [variants[name]["metrics"][q]["mean"] for name in (top, bottom)]
    text = f"{q} {arrow(columns_of(results)[q]['lower_better'])} runs from {values[1]:.2f} ({bottom}) to {values[0]:.2f} ({top})"
    text += f"; the best GT of each set has {gold['mean']:.2f} on average" if gold else ""
    if all("psnr_original" in variants[name]["metrics"] for name in (top, bottom)):
        psnr = [variants[name]["metrics"]["psnr_original"]["mean"] for name in (top, bottom)]
        text += f". PSNR to the original is {psnr[0]:.2f} dB for {top} and {psnr[1]:.2f} dB for {bottom}"
    return text + "."


def option_differences(results: Results) -> dict[str, list[tuple[str, str, str]]]:
    """Variant -> (key, the baseline's value, its own) of every option in which it differs from the baseline, names and folders left out."""
    variants = results["variants"]
    baseline = results.get("statistics", {}).get("baseline", next(iter(variants)))
    options = {name: dict(flat(variant["options"])) for name, variant in variants.items()}
    found = {}
    for name in variants:
        keys = [key for key in dict.fromkeys([*options[baseline], *options[name]]) if key not in ("name", "path.experiments_root")]
        pairs = [(key, str(options[baseline].get(key, "–")), str(options[name].get(key, "–"))) for key in keys]
        found[name] = [row for row in pairs if row[1] != row[2]]
    return found


def column_notes(results: Results) -> list[dict[str, str]]:
    """How each column was computed: name, direction, group, references, convention, metric identity."""
    return [
        {
            "name": name,
            "arrow": arrow(column["lower_better"]),
            "tier": tier(column),
            "against": AGAINST[column["against"]],
            "convention": column["convention"],
            "identity": column["identity"],
        }
        for name, column in columns_of(results).items()
    ]


def share_rows(results: Results) -> dict[str, dict[str, float]]:
    """Variant -> GT -> share, for the variants whose choices were counted."""
    return {name: shares(variant["chosen"]) for name, variant in results["variants"].items() if variant["chosen"]}


def standing_rows(results: Results) -> dict[str, dict[str, float]]:
    """ "all GTs", then variant -> standing (gtset.STANDINGS) -> share of the crops; empty where the GTs have no labels."""
    rows = {name: shares(variant["standings"]) for name, variant in results["variants"].items() if variant["standings"]}
    labelled = any(standing in LABELS for row in rows.values() for standing in row)
    return {ALL_GTS: shares(results["data"]["standings"]), **rows} if labelled else {}


def member_names(results: Results) -> list[str]:
    """Every GT name that was ever chosen, the original first."""
    names = {gt for row in share_rows(results).values() for gt in row}
    return sorted(names, key=lambda gt: (gt != "original", gt))


def markdown(results: Results) -> str:
    """results.md: the headline, then intervals, tests, and how each column was computed."""
    return "\n".join([headline(results).rstrip("\n"), *statistics_tables(results), *columns_table(results)]) + "\n"


def values_table(results: Results) -> list[str]:
    """The table of results.md, the best of each column in bold."""
    return _table(["variant", *_heads(results)], [[row.name, *map(_markdown_cell, row.cells)] for row in table_rows(results)])


def statistics_tables(results: Results) -> list[str]:
    """Intervals, and every variant against the baseline."""
    if "statistics" not in results:
        return []
    rows = [[row.name, *(cell.interval for cell in row.cells)] for row in table_rows(results)]
    return ["", "## 95 % intervals", "", *_table(["variant", *_heads(results)], rows), "", *_against_baseline(results)]


def columns_table(results: Results) -> list[str]:
    """How each column was computed."""
    notes = [[n["name"], n["against"], n["convention"], n["identity"]] for n in column_notes(results)]
    return ["", "## Columns", "", *_table(["column", "against", "input", "metric"], notes)]


def headline(results: Results) -> str:
    """Summary, table (best in bold), proxy gaps, chosen-GT shares, expectations, LoRA against full tuning."""
    lines = ["# Results", "", *(f"{sentence}  " for sentence in describe(results)), ""]
    lines += values_table(results)
    lines += _proxy_gaps(results)
    chosen = share_rows(results)
    if chosen:
        names = member_names(results)
        rows = [[name, *(f"{100 * row.get(gt, 0):.0f} %" for gt in names)] for name, row in chosen.items()]
        lines += ["", "## Chosen GTs", "", "Share of training crops supervised by each GT.", "", *_table(["variant", *names], rows)]
    if standings := standing_rows(results):
        names = [name for name in STANDINGS if any(name in row for row in standings.values())]
        rows = [[name, *(f"{100 * row.get(standing, 0):.0f} %" for standing in names)] for name, row in standings.items()]
        lines += ["", "What the annotators had said of them; the first row is what a blind choice would take.", ""]
        lines += _table(["variant", *names], rows)
    if results.get("checks"):
        lines += ["", "## Expectations", "", *(f"- {'holds' if c['holds'] else 'FAILS'}: {c['text']}" for c in results["checks"])]
    if results.get("reward_comparison"):
        lines += ["", "## LoRA against tuning all weights", "", *describe_tuning(results)]
    if results.get("equal_q"):
        heads, rows = equal_q_table(results)
        lines += ["", f"## At equal {results['optimised_metric']}", "", describe_equal_q(results)]
        lines += ["", *_table(heads, rows)] if rows else []
    if curves := dials(results):
        lines += ["", "## Adapters at several scales", "", *(f"{sentence}  " for sentence in describe_dials(results))]
        for dial in curves:
            lines += ["", *values_table(as_variants(results, [dial], others=False))]
    return "\n".join(lines) + "\n"


def _heads(results: Results) -> list[str]:
    return [f"{name} {arrow(column['lower_better'])}" for name, column in columns_of(results).items()]


def proxy_rows(results: Results) -> list[tuple[str, str, list[str], list[str]]]:
    """(variant, optimised metrics, gains by column, mean gains where optimised and where not, and their difference) as text."""

    def shown(gap: float | None) -> str:
        return "–" if gap is None else f"{gap:+.2f}"

    return [
        (
            name,
            ", ".join(found["optimised"]) or "–",
            [shown(gain) for gain in found["gains"].values()],
            [shown(found[key]) for key in ("optimised_gain", "other_gain", "gap")],
        )
        for name, found in results.get("proxy_gap", {}).items()
    ]


def proxy_columns(results: Results) -> list[str]:
    """The columns that have gains in spreads of the GTs."""
    return list(next(iter(results.get("proxy_gap", {}).values()))["gains"]) if results.get("proxy_gap") else []


PROXY_HEADS = ("optimised by this variant", "not optimised by it", "proxy gap")
PROXY_NOTE = (
    "Gains over the baseline in standard deviations of the metric over all GTs, better is positive. The gap is the gain on what a variant "
    "optimised minus the mean gain on the other columns: a large one means that the metric was pleased more than the picture was improved."
)


def _proxy_gaps(results: Results) -> list[str]:
    rows = proxy_rows(results)
    if not rows:
        return []
    head = ["variant", "optimises", *proxy_columns(results), *PROXY_HEADS]
    table = _table(head, [[name, optimised, *gains, *means] for name, optimised, gains, means in rows])
    return ["", "## Proxy gap", "", PROXY_NOTE, "", *table]


def _against_baseline(results: Results) -> list[str]:
    """Every variant against the baseline in every column, whatever its p."""
    baseline = results["statistics"]["baseline"]
    rows = []
    for name, variant in results["variants"].items():
        for column, values in variant["metrics"].items():
            row = values.get("against_baseline")
            if row:
                digits = digits_of([row["difference"]])
                difference, low, high = (f"{row[key]:+.{digits}f}" for key in ("difference", "low", "high"))
                p = [_p(row["p_holm"]), f"{row['effect']:+.2f}", f"{row['win_rate']:.0%}"]
                rows.append([name, f"{column} {arrow(values['lower_better'])}", difference, f"{low} to {high}", *p])
    head = ["variant", "column", "difference", "95 % interval", "p (Holm)", "effect", "wins"]
    return [f"## Against {baseline}", "", *_table(head, rows)]


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else f"{cell.text} ≈" if cell.equal else cell.text
    return f"{text} {cell.spread}".strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: the first column left, the others right."""
    escaped = [[text.replace("|", "\\|") for text in row] for row in (head, *rows)]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])]

"""The results in words, and as the table of results.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .results import MetricValues, Results, arrow, best_variants, columns_of, digits_of, format_value, runs_of, shares, tier
from .tuning import describe_tuning

AGAINST = {"positives": "mean over positives", "original": "vs. original", "none": "no reference"}


@dataclass(frozen=True)
class Cell:
    """A figure of the table."""

    text: str
    spread: str
    best: bool
    value: float | None


@dataclass(frozen=True)
class Row:
    """A line of the table; the Gold Standard's cells are empty under full-reference columns."""

    name: str
    cells: list[Cell]
    gold: bool = False


def table_rows(results: Results) -> list[Row]:
    """The Gold Standard, then every variant."""
    columns = columns_of(results)
    digits = {c: digits_of([v["metrics"][c]["mean"] for v in results["variants"].values() if c in v["metrics"]]) for c in columns}
    best = {column: best_variants(results, column) for column in columns}
    rows = []
    if results["gold_standard"]:
        means = {c: results["gold_standard"][c]["mean"] if c in results["gold_standard"] else None for c in columns}
        rows.append(
            Row("Gold Standard", [Cell(format_value(m, digits[c]) if m is not None else "", "", False, m) for c, m in means.items()], True)
        )
    for name, variant in results["variants"].items():
        rows.append(Row(name, [_cell(variant["metrics"].get(c), digits[c], name in best[c]) for c in columns]))
    return rows


def _cell(values: MetricValues | None, digits: int, best: bool) -> Cell:
    if values is None:
        return Cell("–", "", False, None)
    spread = f"± {values['spread']:.{digits}f}" if "spread" in values else ""
    return Cell(format_value(values["mean"], digits), spread, best, values["mean"])


def describe(results: Results) -> list[str]:
    """The summary: what was compared, who leads where, what it costs, which expectations fail."""
    q = results["optimised_metric"]
    columns = columns_of(results)
    variants = results["variants"]
    first = next(iter(variants.values()))
    n_seeds = max(len(runs_of(variant)) for variant in variants.values())
    seeds = "one seed" if n_seeds == 1 else f"mean over {n_seeds} seeds, ± is their standard deviation"
    sentences = [
        f"{len(variants)} variants on {len(first['metrics'][q]['per_image'])} held-out sets; {seeds}. Sampling and reward see {q} only."
    ]
    ranked = sorted(variants, key=lambda name: variants[name]["metrics"][q]["mean"], reverse=not columns[q]["lower_better"])
    sentences.append(_extremes(results, ranked[0], ranked[-1]))
    others = [c for c, column in columns.items() if column["metric"] != q]
    leaders = [
        f"{c} {arrow(columns[c]['lower_better'])} {', '.join(n for n in variants if n in best_variants(results, c))}" for c in others
    ]
    sentences.append(f"Best in the columns that watch: {'; '.join(leaders)}.")
    checks = results.get("checks", [])
    failed = [check for check in checks if not check["holds"]]
    if failed:
        sentences.append(f"{len(failed)} of {len(checks)} expectations (below) do not hold.")
    elif checks:
        sentences.append(f"All {len(checks)} expectations hold.")
    return sentences


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


def member_names(results: Results) -> list[str]:
    """Every GT name that was ever chosen, the original first."""
    names = {gt for row in share_rows(results).values() for gt in row}
    return sorted(names, key=lambda gt: (gt != "original", gt))


def markdown(results: Results) -> str:
    """results.md: summary, table (best in bold), chosen-GT shares, LoRA against full tuning, how each column was computed."""
    columns = columns_of(results)
    heads = [f"{name} {arrow(column['lower_better'])}" for name, column in columns.items()]
    lines = ["# Results", "", *(f"{sentence}  " for sentence in describe(results)), ""]
    lines += _table(["variant", *heads], [[row.name, *map(_markdown_cell, row.cells)] for row in table_rows(results)])
    chosen = share_rows(results)
    if chosen:
        names = member_names(results)
        rows = [[name, *(f"{100 * row.get(gt, 0):.0f} %" for gt in names)] for name, row in chosen.items()]
        lines += ["", "## Chosen GTs", "", "Share of training crops supervised by each GT.", "", *_table(["variant", *names], rows)]
    if results.get("checks"):
        lines += ["", "## Expectations", "", *(f"- {'holds' if c['holds'] else 'FAILS'}: {c['text']}" for c in results["checks"])]
    if results.get("reward_comparison"):
        lines += ["", "## LoRA against tuning all weights", "", *describe_tuning(results)]
    notes = [[n["name"], n["against"], n["convention"], n["identity"]] for n in column_notes(results)]
    lines += ["", "## Columns", "", *_table(["column", "against", "input", "metric"], notes)]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} {cell.spread}".strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: the first column left, the others right."""
    escaped = [[text.replace("|", "\\|") for text in row] for row in (head, *rows)]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])]

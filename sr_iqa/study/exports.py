"""The results as files for other programs: one long table (CSV, Parquet), and for a paper the summary table (LaTeX) and the plots."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sr_iqa.atomic import atomic_write

from .dials import as_variants, dials
from .gallery import draw
from .results import Results, arrow, columns_of, runs_of
from .summary import table_rows

LATEX = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
ESCAPES = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def export(results: Results, out: Path) -> None:
    """Writes out/results.csv, results.parquet (a row per variant, seed, image and column), results.tex, figures/*.svg and *.pdf, and
    scales.csv where adapters were evaluated at several scales."""
    draw(results).save(out / "figures")
    table = long_table(results)
    (out / "scales.csv").unlink(missing_ok=True)  # of an earlier call, which had curves
    if dials(results):
        write_scales(results, out / "scales.csv")
    for path, write in (
        (out / "results.csv", lambda p: table.to_csv(p, index=False)),
        (out / "results.parquet", lambda p: table.to_parquet(p, index=False)),
        (out / "results.tex", lambda p: p.write_text(latex(results), encoding="utf-8")),
    ):
        with atomic_write(path) as temporary:
            write(temporary)


def long_table(results: Results) -> pd.DataFrame:
    """Columns variant, seed, image, photo, column, metric, value (native), lower_better, against, identity, convention."""
    columns, sets = columns_of(results), results["data"].get("sets", {})
    rows = []
    for name, variant in results["variants"].items():
        for run in runs_of(variant):
            for column, per_image in run["per_image"].items():
                about = columns[column]
                trace = {key: about[key] for key in ("metric", "lower_better", "against", "identity", "convention")}
                rows += [
                    {
                        "variant": name,
                        "seed": run["seed"],
                        "image": image,
                        "photo": sets.get(image, {}).get("source", image),
                        "column": column,
                        "value": value,
                        **trace,
                    }
                    for image, value in per_image.items()
                ]
    return pd.DataFrame(rows)


def write_scales(results: Results, path: Path) -> None:
    """One row per curve, scale, seed, image and column, and per variant without a curve: long_table with `curve` and `scale` in front."""
    curves = dials(results)
    table = long_table(as_variants(results, curves))
    places = {dial.label(row["scale"]): (dial.name, row["scale"]) for dial in curves for row in dial.rows}
    names = list(table.pop("variant"))
    table.insert(0, "scale", [places.get(name, (name, None))[1] for name in names])
    table.insert(0, "curve", [places.get(name, (name, None))[0] for name in names])
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)


def latex(results: Results) -> str:
    r"""The summary table as a tabular of booktabs, the best of each column in bold; for \input in a document with that package."""
    columns = columns_of(results)
    heads = [f"{_escaped(name)} {LATEX[arrow(column['lower_better'])]}" for name, column in columns.items()]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule", " & ".join(["variant", *heads]) + r" \\", r"\midrule"]
    for row in (rows := table_rows(results)):
        cells = [rf"\textbf{{{cell.text}}}" if cell.best else cell.text for cell in row.cells]
        lines.append(" & ".join([_escaped(row.name), *cells]) + r" \\")
        after = rows[rows.index(row) + 1 :][:1]
        lines += [r"\midrule"] if after and after[0].kind != row.kind else []
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(sign, sign) for sign in text)

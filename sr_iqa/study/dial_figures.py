"""Curves in perception-distortion planes: adapters at several scales and networks between two others; what all planes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .dials import Dial, ScaleRow, as_variants, dials
from .drawing import INK, PALETTE, Drawing, new_drawing
from .results import MetricValues, Results, arrow, columns_of
from .significance import can_tell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL_PX = (40, 12)
"""Room of a scale beside its point, at matplotlib's 100 dots per inch."""


def colour_of(results: Results, variant: str) -> str:
    """The variant's colour everywhere in the report."""
    return PALETTE[list(results["variants"]).index(variant) % len(PALETTE)]


def dial_colour(results: Results, dial: Dial) -> str:
    """An adapter's curve has its variant's colour, DNI the next free one."""
    return colour_of(results, dial.name) if dial.kind == "adapter" else PALETTE[len(results["variants"]) % len(PALETTE)]


def dial_plane(results: Results, x: str, y: str, alone: bool = False) -> Drawing:
    """Two metrics: every curve with its scales, the base (scale 0 of the first), the other variants by name, the Gold Standard of y.

    With `alone` the first curve and nothing else, which may be small beside the others. Bars are 95 % intervals, where there are enough
    photos for them.
    """
    curves = dials(results)[: 1 if alone else None]
    columns = columns_of(as_variants(results, dials(results)))
    name = f"{'curve' if alone else 'tradeoff'}-{x}-{y}"
    drawing, axes = new_drawing(name, f"{y} against {x} at every scale; the figures are in the table")
    handles: list[Any] = []
    for dial in curves:
        for row in dial.rows:
            _bars(axes, results, row, (x, y), dial_colour(results, dial))
        handles.append(add_curve(axes, results, dial, x, y, subject=True))
    base, first = curves[0].rows[0]["metrics"], "base" if curves[0].kind == "adapter" else curves[0].name.split(" → ")[0]
    handles += axes.plot(base[x]["mean"], base[y]["mean"], "s", color=INK, markersize=8, zorder=4)
    names = [*(dial.name for dial in curves), first]
    for name, variant in results["variants"].items() if not alone else ():
        if not variant.get("scales") and x in variant["metrics"] and y in variant["metrics"]:
            at = [variant["metrics"][c]["mean"] for c in (x, y)]
            handles += axes.plot(*at, "D", color=colour_of(results, name), markersize=7, zorder=4)
            names.append(name)
    finish_plane(axes, {} if alone else results["gold_standard"], columns, x, y)
    drawing.figure.draw_without_rendering()  # places in pixels are known only after the layout
    taken: list[Any] = []
    for dial in curves:
        _write_scales(axes, results, dial, x, y, taken)
    legend = axes.legend(handles, names, fontsize=8, labelcolor=INK, frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    return drawing


def add_curve(axes: Axes, results: Results, dial: Dial, x: str, y: str, subject: bool = False) -> Any:
    """Draws a curve through its scales, DNI dashed, with larger points where it is the plot's subject; returns its line."""
    rows = _placed(dial, x, y)
    means = [[row["metrics"][c]["mean"] for row in rows] for c in (x, y)]
    dash, size = "-" if dial.kind == "adapter" else (0, (4, 2)), 5 if subject else 3
    (line,) = axes.plot(*means, color=dial_colour(results, dial), linestyle=dash, linewidth=1.6, marker="o", markersize=size, zorder=1)
    return line


def _placed(dial: Dial, x: str, y: str) -> list[ScaleRow]:
    return [row for row in dial.rows if x in row["metrics"] and y in row["metrics"]]


def _write_scales(axes: Axes, results: Results, dial: Dial, x: str, y: str, taken: list[Any]) -> None:
    """The scales beside their points, where a falling curve leaves room; one that would stand on a `taken` place is left out."""
    beside, side = ((6, 4), "left") if dial.kind == "adapter" else ((-6, -10), "right")
    for row in _placed(dial, x, y):
        at = (row["metrics"][x]["mean"], row["metrics"][y]["mean"])
        place = axes.transData.transform(at) + beside
        if any(abs(place[0] - other[0]) < LABEL_PX[0] and abs(place[1] - other[1]) < LABEL_PX[1] for other in taken):
            continue
        taken.append(place)
        text = f"{dial.sign} = {row['scale']:g}"
        axes.annotate(text, at, beside, textcoords="offset points", ha=side, fontsize=7, color=dial_colour(results, dial))


def finish_plane(axes: Axes, gold_standard: Mapping[str, Any], columns: Mapping[str, MetricValues], x: str, y: str) -> None:
    """Better to the right and up, the Gold Standard of y as a line, margins and names."""
    if columns[x]["lower_better"]:
        axes.invert_xaxis()
    if columns[y]["lower_better"]:
        axes.invert_yaxis()
    gold = gold_standard.get(y)
    if gold is not None:
        axes.axhline(gold["mean"], color=INK, linewidth=1, linestyle=(0, (4, 3)))
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
        axes.annotate("Gold Standard", (1, gold["mean"]), (-2, 3), fontsize=9, color=INK, **place)
    axes.margins(0.1, 0.12)
    axes.set_xlabel(f"{x} {arrow(columns[x]['lower_better'])}")
    axes.set_ylabel(f"{y} {arrow(columns[y]['lower_better'])}")


def _bars(axes: Axes, results: Results, row: ScaleRow, names: tuple[str, str], colour: str) -> None:
    """The intervals of both columns as thin bars."""
    a, b = (row["metrics"].get(name) for name in names)
    if a and b and "interval" in a and "interval" in b and can_tell(results):
        across, up = ([[v["mean"] - v["interval"][0]], [v["interval"][1] - v["mean"]]] for v in (a, b))
        axes.errorbar(a["mean"], b["mean"], xerr=across, yerr=up, fmt="none", color=colour, elinewidth=0.8, alpha=0.5)

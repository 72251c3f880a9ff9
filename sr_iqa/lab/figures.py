"""The lab's plots."""

from __future__ import annotations

import numpy as np

from sr_iqa.study.drawing import INK, Drawing, new_drawing

from .agreement import Agreement
from .complementarity import Complementarity

MOST_WRITTEN = 14
"""Metrics up to which every cell of a map carries its number."""


def overlap_map(together: Complementarity) -> Drawing:
    """The errors that two metrics have in common (Jaccard), a cell for each two; light: they seldom err on the same pairs."""
    values, names = together.jaccard.copy(), list(together.names)
    np.fill_diagonal(values, np.nan)
    drawing, axes = new_drawing("error-overlap", "Errors in common of every two metrics; the figures are in the JSON file")
    side = max(3.5, 0.42 * len(names) + 1.4)
    drawing.figure.set_size_inches(side + 0.6, side)
    axes.grid(False)
    image = axes.imshow(values, cmap="YlOrRd", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for row, column in np.ndindex(values.shape) if len(names) <= MOST_WRITTEN else ():
        if np.isfinite(values[row, column]):
            colour = "#ffffff" if values[row, column] > 0.6 else "#2a2017"  # on the map's own colours, in light pages and dark ones
            axes.annotate(f"{values[row, column]:.2f}", (column, row), ha="center", va="center", fontsize=8, color=colour)
    bar = drawing.figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("errors in common / errors of either", color=INK)
    bar.ax.tick_params(colors=INK)  # else black, in dark pages too
    bar.outline.set_edgecolor(INK)  # pyright: ignore[reportCallIssue]
    return drawing


def accuracy_bars(agreements: tuple[Agreement, ...]) -> Drawing:
    """2AFC accuracy of every metric with its 95 % interval; the line is chance."""
    drawing, axes = new_drawing("accuracy", "2AFC accuracy of every metric with its 95 % interval; the figures are in the table")
    entries = [entry for entry in agreements if entry.overall is not None]
    drawing.figure.set_size_inches(4.6, max(2.0, 0.27 * len(entries) + 0.9))
    for row, entry in enumerate(entries):
        if entry.overall is not None:
            low, value, high = (100 * x for x in (entry.overall.interval.low, entry.overall.value, entry.overall.interval.high))
            axes.errorbar(value, row, xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], fmt="o", color="#4a8fd9", markersize=5)
    axes.axvline(50, color=INK, linewidth=1, alpha=0.6)
    axes.set_yticks(range(len(entries)), [entry.scored.name for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlabel("2AFC accuracy, %")
    return drawing

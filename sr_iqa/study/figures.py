"""The report's plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .dial_figures import add_curve, colour_of, finish_plane
from .dials import dials
from .drawing import INK, Drawing, new_drawing
from .results import MetricValues, Results, arrow, columns_of
from .significance import can_tell
from .tuning import curves


def plane(results: Results, x: str, y: str) -> Drawing:
    """Two metrics, one numbered point per variant, better to the upper right; the Pareto front; the Gold Standard of y as a line.

    Adapters at several scales are curves through their variants' points; networks between two variants (DNI) are dashed.

    Bars are 95 % intervals where there are enough photos for them, else standard deviations over seeds.

    The numbers are the variants' places in the results; the page's table and legend carry them too.
    """
    columns = columns_of(results)
    drawing, axes = new_drawing(f"plane-{x}-{y}", f"{y} against {x}; the figures are in the table")
    for number, (name, variant) in enumerate(results["variants"].items(), 1):
        if x not in variant["metrics"] or y not in variant["metrics"]:
            continue
        a, b = variant["metrics"][x], variant["metrics"][y]
        bars = {"xerr": _bar(results, a), "yerr": _bar(results, b)}
        axes.errorbar(a["mean"], b["mean"], fmt="o", color=colour_of(results, name), markersize=13, elinewidth=1.5, **bars)
        place = {"ha": "center", "va": "center_baseline", "fontsize": 8, "fontweight": "bold", "color": "#ffffff"}
        axes.annotate(str(number), (a["mean"], b["mean"]), **place)
    for dial in dials(results):
        add_curve(axes, results, dial, x, y)
    front = pareto_front(results, x, y)
    means = [[results["variants"][name]["metrics"][c]["mean"] for name in front] for c in (x, y)]
    axes.plot(*means, color=INK, linewidth=1, alpha=0.5, zorder=0)
    finish_plane(axes, results["gold_standard"], columns, x, y)
    return drawing


def pareto_front(results: Results, x: str, y: str) -> list[str]:
    """The variants that no other one beats on one of two columns without losing on the other, from the worst on x to the best."""
    columns = columns_of(results)
    signs = [-1 if columns[c]["lower_better"] else 1 for c in (x, y)]
    points = {
        name: tuple(sign * variant["metrics"][c]["mean"] for sign, c in zip(signs, (x, y), strict=True))
        for name, variant in results["variants"].items()
        if x in variant["metrics"] and y in variant["metrics"]
    }

    def beaten(p: tuple[float, ...]) -> bool:
        return any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points.values())

    return sorted((name for name, p in points.items() if not beaten(p)), key=lambda name: points[name])


def _bar(results: Results, values: MetricValues) -> Any:
    """matplotlib's error of a mean: below and above, or one for both."""
    if "interval" in values and can_tell(results):
        low, high = values["interval"]
        return [[values["mean"] - low], [high - values["mean"]]]
    return values.get("spread")


def strips(results: Results, column: str, baseline: str) -> Drawing:
    """Every image's difference from the baseline in `column`, one strip per variant, its mean as a bar; better is to the right.

    Photos lie at heights of their own within a strip, so that the patches of one photo can be told.
    """
    columns, sets = columns_of(results), results["data"].get("sets", {})
    about = f"{column} of every image as a difference from {baseline}; the mean of each variant is in the table"
    drawing, axes = new_drawing(f"strip-{column}", about)
    names = [n for n, v in results["variants"].items() if n != baseline and column in v["metrics"]]
    reference = results["variants"][baseline]["metrics"][column]["per_image"]
    photos = sorted({sets.get(image, {}).get("source", image) for image in reference})
    for row, variant in enumerate(names):
        values = results["variants"][variant]["metrics"][column]["per_image"]
        differences = [values[image] - reference[image] for image in reference]
        places = [photos.index(sets.get(image, {}).get("source", image)) / max(len(photos) - 1, 1) - 0.5 for image in reference]
        colour = colour_of(results, variant)
        axes.plot(differences, [row + 0.5 * place for place in places], "o", color=colour, markersize=4, alpha=0.55, markeredgewidth=0)
        axes.plot([float(np.mean(differences))] * 2, [row - 0.36, row + 0.36], color=colour, linewidth=2.5)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    if columns[column]["lower_better"]:
        axes.invert_xaxis()
    axes.set_xlabel(f"{column} {arrow(columns[column]['lower_better'])}, difference from {baseline}")
    return drawing


def tuning_curves(results: Results, column: str, against: str) -> Drawing:
    """LoRA and full tuning: `column` over `against`, which is "step" or the optimised metric; thin lines are seeds."""
    comparison = results["reward_comparison"]
    columns = columns_of(results)
    about = f"{column} over {against}: {comparison['lora']} and {comparison['full']}"
    drawing, axes = new_drawing(f"curve-{column}-{against}", about)
    for variant, dash, marker in ((comparison["lora"], "-", "o"), (comparison["full"], (0, (5, 2)), "s")):
        lines = curves(results, variant)
        look = {"color": colour_of(results, variant), "linestyle": dash, "marker": marker}
        for points in lines if len(lines) > 1 else []:
            axes.plot([p[against] for p in points], [p[column] for p in points], **{**look, "marker": ""}, linewidth=0.8, alpha=0.6)
        mean = _mean_curve(lines)
        axes.plot([p[against] for p in mean], [p[column] for p in mean], **look, linewidth=2, markersize=4, label=variant)
    axes.set_xlabel("optimizer steps" if against == "step" else f"{against} {arrow(columns[against]['lower_better'])}")
    axes.set_ylabel(f"{column} {arrow(columns[column]['lower_better'])}")
    axes.legend(fontsize=9, labelcolor=INK, frameon=False)
    return drawing


def training_curves(results: Results, column: str) -> Drawing:
    """`column` on the held-out sets over the steps of every variant, means over seeds; better is up."""
    columns = columns_of(results)
    drawing, axes = new_drawing(f"training-{column}", f"{column} on the held-out sets over the steps of training")
    for number, variant in enumerate(results["variants"], 1):
        lines = [line for line in curves(results, variant) if line and column in line[0]]
        if lines:
            mean = _mean_curve(lines)
            axes.plot(
                [p["step"] for p in mean],
                [p[column] for p in mean],
                color=colour_of(results, variant),
                linewidth=1.6,
                marker="o",
                markersize=3,
            )
            place = {"textcoords": "offset points", "fontsize": 8, "color": colour_of(results, variant), "fontweight": "bold"}
            axes.annotate(str(number), (mean[-1]["step"], mean[-1][column]), (4, -3), **place)
    if columns[column]["lower_better"]:
        axes.invert_yaxis()
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(f"{column} {arrow(columns[column]['lower_better'])}")
    return drawing


def _mean_curve(lines: Sequence[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """The mean over seeds at the steps that all of them have."""
    steps = sorted(set.intersection(*({p["step"] for p in points} for points in lines)))
    by_step = [{p["step"]: p for p in points} for points in lines]
    return [{key: float(np.mean([points[step][key] for points in by_step])) for key in by_step[0][step]} for step in steps]

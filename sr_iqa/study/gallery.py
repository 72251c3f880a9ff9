"""Which plots a study gets: the same in its report and as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .drawing import Drawing
from .figures import plane, strips, training_curves, tuning_curves
from .results import Results, columns_of


@dataclass(frozen=True)
class Gallery:
    """Plots by the section of the report that they stand in."""

    planes: list[Drawing] = field(default_factory=list)
    strips: list[Drawing] = field(default_factory=list)
    curves: list[Drawing] = field(default_factory=list)
    over_steps: list[Drawing] = field(default_factory=list)
    """LoRA against full tuning, over optimizer steps."""
    over_q: list[Drawing] = field(default_factory=list)
    """The same over the optimised metric."""

    def save(self, folder: Path) -> None:
        """Writes every plot as SVG and PDF."""
        for group in vars(self).values():
            for drawing in group:
                drawing.save(folder)


def draw(results: Results) -> Gallery:
    """Q against PSNR and what watches Q, as far as these were measured."""
    q, columns, variants = results["optimised_metric"], columns_of(results), results["variants"]
    baseline = results.get("statistics", {}).get("baseline", next(iter(variants)))
    watched = [c for c in (q, "psnr_original", "niqe") if c in columns]
    pairs = [("psnr_original", q), (q, "niqe"), (q, "grid")]
    logged = {column for variant in variants.values() for point in variant["curve"][:1] for column in point["metrics"]}
    return Gallery(
        planes=[plane(results, x, y) for x, y in pairs if x in columns and y in columns and x != y],
        strips=[strips(results, c, baseline) for c in watched if c in variants[baseline]["metrics"]] if len(variants) > 1 else [],
        curves=[training_curves(results, c) for c in watched if c in logged],
        **_tuning(results),
    )


def _tuning(results: Results) -> dict[str, list[Drawing]]:
    comparison = results.get("reward_comparison")
    if not comparison:
        return {}
    q, watched = comparison["q"], [c for c in ("niqe", "psnr_original", "grid") if c in comparison["left_out"]]
    return {
        "over_steps": [tuning_curves(results, c, "step") for c in (q, *watched)],
        "over_q": [tuning_curves(results, c, q) for c in watched],
    }

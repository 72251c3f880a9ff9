"""What an evaluation found: values per image and column, and for each column what it takes to compute it again."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sr_iqa.atomic import atomic_write

References = Literal["positives", "original", "best", "all"]
Against = References | Literal["none"]


@dataclass(frozen=True)
class Column:
    """One figure of the table and what it takes to compute it again."""

    metric: str
    lower_better: bool
    against: Against
    """positives, all: mean over the set's effective positives, over all its GTs; best: the best value over all its GTs; original: the
    original GT; none: no reference."""
    identity: str
    """Name, package version and weights hash of the metric."""
    convention: str
    """Colour, range, rounding and border."""


@dataclass(frozen=True)
class Evaluation:
    """Values per image and column, in the metrics' native units. Every process of a launch holds the whole table."""

    names: tuple[str, ...]
    """The sets, sorted."""
    columns: dict[str, Column]
    values: dict[str, np.ndarray]
    """Column -> float64 (n_images,)."""
    references: tuple[tuple[str, ...], ...]
    """Per set the GTs behind full-reference columns; for `positives` the original alone where there is none."""
    source: dict[str, str]
    """What was evaluated on which data, with which LQ."""

    @property
    def without_positives(self) -> int:
        """Sets that were scored against their original for want of a positive."""
        if not any(column.against == "positives" for column in self.columns.values()):
            return 0
        return sum(gts == (member_name(0),) for gts in self.references)

    def mean(self, column: str) -> float:
        """The mean over images; NaN if a single value is NaN, so that no image drops out unseen."""
        return float(np.mean(self.values[column]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: metrics.<column>.{mean, per_image} and what Column holds; references; without_positives; source."""
        metrics = {}
        for name, column in self.columns.items():
            per_image = {image: float(value) for image, value in zip(self.names, self.values[name], strict=True)}
            metrics[name] = {"mean": self.mean(name), "per_image": per_image, **asdict(column)}
        references = {name: list(gts) for name, gts in zip(self.names, self.references, strict=True)}
        return {"metrics": metrics, "references": references, "without_positives": self.without_positives, "source": dict(self.source)}

    def write_json(self, path: Path) -> None:
        """All of it as JSON."""
        write_json(self.to_dict(), path)

    def write_csv(self, path: Path) -> None:
        """One line per image: its name, the GTs that it was compared with, every column."""
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("image", "references", *self.columns))
            for i, (name, gts) in enumerate(zip(self.names, self.references, strict=True)):
                writer.writerow((name, " ".join(gts), *(f"{self.values[column][i]:.6g}" for column in self.columns)))

    def table(self) -> str:
        """The means as text, each with its direction and what it was compared with."""
        width = max(map(len, self.columns))
        lines = [f"{len(self.names)} images; " + "; ".join(f"{key}: {value}" for key, value in self.source.items())]
        for name, column in self.columns.items():
            arrow = "↓" if column.lower_better else "↑"
            lines.append(f"{name:<{width}} {arrow} {self.mean(name):9.4f}  {describe_against(column.against)}; {column.convention}")
        if self.without_positives:
            lines.append(f"{self.without_positives} of {len(self.names)} sets have no positive GT: compared with their original instead")
        return "\n".join(lines)


def member_name(member: int) -> str:
    """0 -> "original", 1 -> "01", ...: the names of HGGT's folders."""
    return "original" if member == 0 else f"{member:02d}"


def describe_against(against: Against) -> str:
    """A column's references in words."""
    return {
        "positives": "mean over effective positives",
        "all": "mean over all GTs",
        "best": "best over all GTs",
        "original": "against the original GT",
        "none": "no reference",
    }[against]


def write_json(value: dict[str, Any], path: Path) -> None:
    """Plain values as strict JSON (NaN and infinity become null), complete or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_finite(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

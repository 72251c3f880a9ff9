"""A plot with one look, as inline SVG that takes the page's colours (light and dark), and as SVG and PDF files for a paper."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_iqa.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, RULE = "#191b1f", "#d6d8db"
"""Text and rules on paper; in a page they give way to its own colours, so no other colour may equal them."""
PALETTE = (
    *("#4a8fd9", "#e0803a", "#2fa37c", "#cf5f9b", "#9479d8", "#b8942a", "#35a3b5"),
    *("#d9594f", "#7f8c3d", "#8a8f98", "#5c6bc0", "#a1745a", "#4f9d57", "#c2457a"),
)
SIZE = (4.6, 3.5)  # inches; read at full size on a phone
PNG_DPI = 200
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Drawing:
    """A plot, its name (a file's and an element's) and what it shows, in words."""

    name: str
    about: str
    figure: Figure

    def inline(self) -> str:
        """An <svg> element that uses currentColor, the page's fonts and var(--rule), with ids of its own."""
        svg = self._rendered("svg").decode()
        svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(RULE, "var(--rule)")
        svg = re.sub(r"<metadata>.*?</metadata>|<style type=\"text/css\">.*?</style>", "", svg, flags=re.S)
        svg = re.sub(r"font(-family)?: ([\d.]+px )?[^;\"]*(?=[;\"])", _font, svg)
        prefix = re.sub(r"\W", "-", self.name)
        svg = re.sub(r'(id="|url\(#|href="#)', lambda m: f"{m[1]}{prefix}-", svg)
        return re.sub(
            r"<svg [^>]*viewBox=\"([^\"]*)\"[^>]*>",
            rf'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img" aria-label="{escape(self.about)}">',
            svg,
            count=1,
        )

    def save(self, folder: Path, kinds: Sequence[str] = ("svg", "pdf")) -> None:
        """Writes <name>.svg, <name>.pdf and, if asked for, <name>.png (on white)."""
        for kind in kinds:
            with atomic_write(folder / f"{self.name}.{kind}") as path:
                path.write_bytes(self._rendered(kind))

    def _rendered(self, kind: str) -> bytes:
        import matplotlib

        out, undated = io.BytesIO(), {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Creator": None}, "png": {}}
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(out, format=kind, transparent=kind != "png", dpi=PNG_DPI, metadata=undated[kind])
        return out.getvalue()


def new_drawing(name: str, about: str) -> tuple[Drawing, Axes]:
    """An empty plot with one pair of axes."""
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
    axes.grid(True, alpha=0.9)
    return Drawing(name, about, figure), axes


def _font(match: re.Match[str]) -> str:
    """matplotlib's `font: 10px 'DejaVu Sans', ...` with the page's family instead."""
    return f"font: {match[2]}var(--sans)" if match[2] else "font-family: var(--sans)"

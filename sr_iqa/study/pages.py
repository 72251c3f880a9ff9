"""Self-contained pages from the templates: styles and scripts inside, every string of the results escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sr_iqa.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("report.css", "dial.css")
SCRIPTS = ("lens.js", "plane.js", "report.js", "dial.js")
MAX_BYTES = 15_000_000


def page(template: str, /, *, templates: Path = TEMPLATES, **values: Any) -> bytes:
    """A page of at most MAX_BYTES; the template gets `values`, `css` and `script`, and escapes what is no Markup.

    `templates` is the template's folder; it may include those of TEMPLATES too.

    Raises:
        UserError: it would be larger.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([templates, TEMPLATES]), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css, script = (trusted("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)) for names in (STYLES, SCRIPTS))
    content = environment.get_template(template).render(css=css, script=script, **values).encode()
    if len(content) > MAX_BYTES:
        raise UserError(
            f"the report would have {len(content) / 1e6:.0f} MB (at most {MAX_BYTES / 1e6:.0f}): give it fewer or smaller images"
        )
    return content


def trusted(text: str) -> Any:
    """Text of our own making that a template puts in as it is."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704


def script_json(value: Any) -> Any:
    """JSON that may stand inside a <script>, whatever its strings hold; raises ValueError for numbers that are not finite."""
    return trusted(json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))

"""The one place that knows other projects' option names."""

from __future__ import annotations

from .document import Document


def translate(document: Document) -> None:
    """Rewrites a document of BasicSR, Real-ESRGAN or HGGT into our vocabulary, in place, with a note for all that is ignored."""

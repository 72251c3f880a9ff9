"""The JSON schema of option files for editors; options/schema.json holds it."""

from __future__ import annotations

import json
from typing import Any

from .models import Options


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of an option file, with the descriptions of the models."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Options.model_json_schema(mode="validation"),
        "title": "sr_iqa option file",
    }


def schema_text() -> str:
    """The schema as JSON text."""
    return json.dumps(schema(), indent=2)

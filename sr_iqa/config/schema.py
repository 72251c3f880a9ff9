"""JSON schemas of option files and other YAML files for editors; options/*schema.json hold them."""

from __future__ import annotations

import json

from pydantic import BaseModel

from .models import Options


def schema_text(model: type[BaseModel] = Options, title: str = "sr_iqa option file") -> str:
    """JSON schema (draft 2020-12) of a model's files as JSON text, with the descriptions of the models."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(mode="validation"), "title": title}
    return json.dumps(schema, indent=2)

"""Options of LQ synthesis: stages of blur, resize, noise and JPEG; presets by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]


class DegradationOptions(BaseModel):
    """Placeholder shape until the data room fills it in: preset plus overrides."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    preset: Literal["bicubic", "hggt", "realesrgan"] = "bicubic"

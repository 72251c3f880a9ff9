"""Options of LQ synthesis: up to two stages of blur, resize, noise and JPEG, then the resize to the LQ size.

A preset fills in every number that the option file leaves out; what the file gives wins, down to the single number.
Sources of the presets: HGGT (CVPR 2023), train_SwinIRGAN_PosNegGT_Blind_Pos_x4.yml; Real-ESRGAN (ICCVW 2021), train_realesrgan_x4plus.yml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]
KernelName = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
ResizeMode = Literal["area", "bilinear", "bicubic", "antialiased"]
Preset = Literal["bicubic", "hggt", "realesrgan"]


def _some_weight(weights: Any) -> Any:
    if not sum(weights.values() if isinstance(weights, dict) else weights):
        raise ValueError("all frequencies are 0; at least one must be positive")
    return weights


def _around_one(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] <= 1 <= bounds[1]:
        raise ValueError(f"the range must contain 1 (down draws below it, up above it), got {list(bounds)}")
    return bounds


def _nothing_required(schema: dict[str, Any]) -> None:
    """In the editor's schema every number is optional: the preset fills it in."""
    schema.pop("required", None)


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, json_schema_extra=_nothing_required
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if not name.endswith("_range") or value is None:
                continue
            if value[0] > value[1]:
                raise ValueError(f"{name}: the lower bound {value[0]} is above the upper bound {value[1]}")
            if "kernel_size" in name and not (value[0] % 2 and value[1] % 2):
                raise ValueError(f"{name}: kernel sides are odd numbers, got {list(value)}")
        return self


class BlurOptions(_Section):
    prob: Probability
    """Share of samples that are blurred."""
    kernel_size_range: tuple[PositiveInt, PositiveInt]
    """Smallest and largest kernel side in pixels; drawn uniformly among the odd sizes."""
    kernels: Annotated[dict[KernelName, NonNegativeFloat], AfterValidator(_some_weight)]
    """Kernel kinds and their relative frequencies."""
    sinc_prob: Probability
    """Share of kernels that are sinc filters (circular low-pass) instead."""
    sigma_range: tuple[PositiveFloat, PositiveFloat]
    """Standard deviation along each axis of the kernel, in pixels."""
    betag_range: tuple[PositiveFloat, PositiveFloat]
    """Shape of the generalized kernels; half of the draws lie below 1, half above."""
    betap_range: tuple[PositiveFloat, PositiveFloat]
    """Shape of the plateau kernels; half of the draws lie on either side of 1."""


class ResizeOptions(_Section):
    prob: Annotated[tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat], AfterValidator(_some_weight)]
    """Relative frequencies of up, down and keep."""
    scale_range: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_around_one)]
    """Smallest factor of `down` and largest factor of `up`; the first stage counts from the GT's size, the second from the LQ's."""
    modes: tuple[ResizeMode, ...] = Field(min_length=1)
    """Interpolations, drawn uniformly; `antialiased` is MATLAB's imresize, the others do not antialias beyond what they are."""


class NoiseOptions(_Section):
    gaussian_prob: Probability
    """Share of Gaussian noise; the others get Poisson noise."""
    sigma_range: tuple[NonNegativeFloat, NonNegativeFloat]
    """Standard deviation of the Gaussian noise, in levels of 255."""
    poisson_scale_range: tuple[NonNegativeFloat, NonNegativeFloat]
    """Factor of the Poisson noise; 1 is the noise of counting as many photons as the image has levels."""
    gray_prob: Probability
    """Share of samples whose three channels get the same noise."""


class StageOptions(_Section):
    """Blur, resize, noise and JPEG, in this order; a part set to null is left out."""

    blur: BlurOptions | None
    resize: ResizeOptions | None
    noise: NoiseOptions | None
    jpeg_range: tuple[Quality, Quality] | None
    """Lowest and highest JPEG quality."""


class FinalOptions(_Section):
    """The resize to 1/scale of the GT's size, a sinc filter, and rounding to 8 bit."""

    modes: Annotated[tuple[ResizeMode, ...], Field(min_length=1)] | Literal["same"]
    """Interpolations, drawn uniformly; `same` takes the one drawn for the last stage's resize."""
    sinc_prob: Probability
    """Share of samples that get a sinc filter after the resize."""
    sinc_kernel_size_range: tuple[PositiveInt, PositiveInt] = (7, 21)
    jpeg_last_prob: Probability
    """Share of samples whose last stage's JPEG comes after the final resize and filter instead of before."""


_ESRGAN_KERNELS = {
    "iso": 0.45,
    "aniso": 0.25,
    "generalized_iso": 0.12,
    "generalized_aniso": 0.03,
    "plateau_iso": 0.12,
    "plateau_aniso": 0.03,
}
_MODES = ("area", "bilinear", "bicubic")

_HGGT_STAGE: dict[str, Any] = {
    "blur": {
        "prob": 1.0,
        "kernel_size_range": (3, 9),
        "kernels": {"iso": 0.7, "aniso": 0.3},
        "sinc_prob": 0.01,
        "sigma_range": (0.1, 1.0),
        "betag_range": (0.1, 2.0),
        "betap_range": (0.1, 1.0),
    },
    "resize": {"prob": (0.1, 0.85, 0.05), "scale_range": (0.8, 1.2), "modes": _MODES},
    "noise": {"gaussian_prob": 0.5, "sigma_range": (1, 12), "poisson_scale_range": (0.05, 0.8), "gray_prob": 0.2},
    "jpeg_range": (75, 95),
}
_ESRGAN_FIRST: dict[str, Any] = {
    "blur": {
        "prob": 1.0,
        "kernel_size_range": (7, 21),
        "kernels": _ESRGAN_KERNELS,
        "sinc_prob": 0.1,
        "sigma_range": (0.2, 3.0),
        "betag_range": (0.5, 4.0),
        "betap_range": (1.0, 2.0),
    },
    "resize": {"prob": (0.2, 0.7, 0.1), "scale_range": (0.15, 1.5), "modes": _MODES},
    "noise": {"gaussian_prob": 0.5, "sigma_range": (1, 30), "poisson_scale_range": (0.05, 3), "gray_prob": 0.4},
    "jpeg_range": (30, 95),
}
_ESRGAN_SECOND: dict[str, Any] = {
    "blur": {**_ESRGAN_FIRST["blur"], "prob": 0.8, "sigma_range": (0.2, 1.5)},
    "resize": {"prob": (0.3, 0.4, 0.3), "scale_range": (0.3, 1.2), "modes": _MODES},
    "noise": {"gaussian_prob": 0.5, "sigma_range": (1, 25), "poisson_scale_range": (0.05, 2.5), "gray_prob": 0.4},
    "jpeg_range": (30, 95),
}

PRESETS: dict[str, dict[str, Any]] = {
    "bicubic": {"first": None, "second": None, "final": {"modes": ("antialiased",), "sinc_prob": 0.0, "jpeg_last_prob": 0.0}},
    "hggt": {"first": _HGGT_STAGE, "second": None, "final": {"modes": "same", "sinc_prob": 0.0, "jpeg_last_prob": 0.0}},
    "realesrgan": {
        "first": _ESRGAN_FIRST,
        "second": _ESRGAN_SECOND,
        "final": {"modes": _MODES, "sinc_prob": 0.8, "jpeg_last_prob": 0.5},
    },
}
_STAGE_BASES = {"first": _ESRGAN_FIRST, "second": _ESRGAN_SECOND}  # what a stage that the preset lacks starts from


def _merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`given` over `base`, section by section; a mapping of kernels replaces the preset's as a whole."""
    result = dict(base)
    for key, value in given.items():
        below: Any = base.get(key)
        sections = isinstance(below, dict) and isinstance(value, dict) and key != "kernels"
        result[key] = _merged(below, value) if sections else value
    return result


class DegradationOptions(_Section):
    """How the LQ is made from the original GT."""

    preset: Preset = "bicubic"
    """bicubic: MATLAB's antialiased imresize; hggt: one blind stage; realesrgan: two blind stages. Every number below can be overridden."""
    first: StageOptions | None = None
    """The first stage; null for none."""
    second: StageOptions | None = None
    """The second stage; null for none. A stage that the preset lacks starts from Real-ESRGAN's numbers."""
    final: FinalOptions = FinalOptions(**PRESETS["bicubic"]["final"])
    """The resize to the LQ size."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("preset", "bicubic") not in tuple(PRESETS):
            return given  # pydantic names the choices
        preset = PRESETS[given.get("preset", "bicubic")]
        missing = {key: base for key, base in _STAGE_BASES.items() if preset[key] is None and given.get(key) is not None}
        return _merged({**preset, **missing}, given)

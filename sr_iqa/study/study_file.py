"""Study files: a base option file, named variants of it, seeds, and what they are compared by (docs/studies.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, model_validator

from sr_iqa.config.load import validated
from sr_iqa.config.models import Section, folder_name
from sr_iqa.config.yaml_text import read_document

from .scales import checked_scales
from .study import Study, Variant

STUDY_FILE = "sr_iqa study file"

Scales = Annotated[tuple[Annotated[float, Field(strict=True)], ...], Field(min_length=1), AfterValidator(checked_scales)]
"""Adapter scales, 0 and 1 always among them."""


class VariantOptions(Section):
    """A variant: overrides of the base options, keys with dots as after --set, and what is said of the variant itself."""

    model_config = ConfigDict(extra="allow")

    starts_from: str | None = None
    """The variant above it whose trained weights this one starts from."""
    adapter_scales: Scales | None = None
    """Scales at which its LoRA adapter is evaluated too, instead of the study's; 0 is the base, 1 the adapter as trained."""

    @property
    def overrides(self) -> dict[str, Any]:
        """Dotted option key -> value."""
        return dict(self.model_extra or {})


class StudyOptions(Section):
    """A study file. Overrides are option keys with dots, as after --set: `train.total_iter: 1000`."""

    name: Annotated[str, AfterValidator(folder_name)]
    """Name of the study, and of its folder under experiments_root."""
    base: Path
    """The option file that all variants share, relative to the study file."""
    shared: dict[str, Any] = {}
    """Overrides of the base options for all variants."""
    variants: dict[Annotated[str, AfterValidator(folder_name)], VariantOptions] = Field(min_length=1)
    """Name -> its overrides; `starts_from: NAME` starts from another variant's trained weights."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """manual_seed of each repetition."""
    metrics: tuple[str, ...] = ()
    """What the trained networks are evaluated with; by default val.metrics of the base options."""
    optimised_metric: str
    """Q: the metric that sampling and rewards follow. The report sets it apart."""
    baseline: str | None = None
    """The variant that the others are tested against; by default the first."""
    expected_order: tuple[str, ...] = ()
    """Variants in the order in which Q is expected to rise and psnr_original to fall; the report says where it does not."""
    lora_against_full: tuple[str, str] | None = None
    """A LoRA variant and the same with all weights tuned, compared at equal steps and at equal Q."""
    equal_q: tuple[str, ...] = ()
    """Variants to show where each first reaches the same Q during training, the highest that all of them reach."""
    adapter_scales: Scales | None = None
    """Scales at which every LoRA variant is evaluated too (docs/tradeoff.md); 0 and 1 are always among them."""
    dni: tuple[str, str] | None = None
    """Two variants between whose weights networks are interpolated (DNI) and evaluated at the same scales, for comparison."""
    reference: dict[str, dict[str, float]] = {}
    """Published figures to show beside the study's own: row -> column -> value. They are neither ranked nor tested."""
    experiments_root: Path = Path("experiments")
    """Where the study's folder goes."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        pairs = {"lora_against_full": self.lora_against_full or (), "dni": self.dni or ()}
        named = {"baseline": [self.baseline], "expected_order": self.expected_order, "equal_q": self.equal_q, **pairs}
        for key, names in named.items():
            for name in names:
                if name is not None and name not in self.variants:
                    raise ValueError(f"{key}: there is no variant {name}; choose from {', '.join(self.variants)}")
        seen: list[str] = []
        for name, variant in self.variants.items():
            parent = variant.starts_from
            if parent is not None and parent not in seen:
                raise ValueError(f"variants.{name}.starts_from: {parent} is no variant above it; choose from {', '.join(seen) or 'none'}")
            seen.append(name)
        if self.dni and self.dni[0] == self.dni[1]:
            raise ValueError(f"dni: expected two different variants, got {self.dni[0]} twice")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds: expected different numbers, got {list(self.seeds)}")
        return self


def load_study(path: Path) -> Study:
    """Reads a study file; the variants' options are not checked yet (Study.options does).

    Raises:
        OptionsError: everything wrong with the file itself, with its lines.
    """
    return study_of(validated(read_document(path), StudyOptions), path.parent)


def study_of(options: StudyOptions, folder: Path) -> Study:
    """The study of a file in `folder`."""
    variants = {name: Variant(given.overrides, given.starts_from, given.adapter_scales or ()) for name, given in options.variants.items()}
    return Study(
        name=options.name,
        base=folder / options.base,
        shared=options.shared,
        variants=variants,
        root=options.experiments_root / options.name,
        seeds=options.seeds,
        metrics=options.metrics,
        optimised_metric=options.optimised_metric,
        baseline=options.baseline or next(iter(variants)),
        expected_order=options.expected_order,
        lora_against_full=options.lora_against_full,
        equal_q=options.equal_q,
        reference=options.reference,
        adapter_scales=options.adapter_scales or (),
        dni=options.dni,
    )

"""Options of a metric that is trained on pairs (`sr-iqa iqa train`): the vocabulary of the SR options where the things are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from .document import Document
from .load import apply_override, validated
from .models import Component, Fraction, LoggerOptions, ScheduleOptions, Section, as_list, folder_name
from .yaml_text import read_document

METRIC_FILE = "sr_iqa metric training file"


class ManifestOptions(Section):
    path: Path
    """A manifest of pairs (docs/iqa.md): .csv or .parquet."""
    weight: PositiveFloat | None = None
    """Its share of the samples, relative to the others' weights; by default its number of pairs."""
    groups: tuple[str, ...] = ()
    """Only pairs of these groups; by default all."""


Manifests = Annotated[
    tuple[ManifestOptions, ...],
    BeforeValidator(as_list, json_schema_input_type=ManifestOptions | tuple[ManifestOptions, ...]),
    Field(min_length=1),
]


class PairDataOptions(Section):
    manifests: Manifests
    """One manifest or a list of them, mixed by their weights."""
    crop_px: PositiveInt
    """Side of the square crop that all images of a pair share."""
    resize_px: PositiveInt | None = None
    """The shorter side of every image is made this long before the crop; by default images stay as they are."""
    use_hflip: bool = True
    """Flip both images horizontally with probability 1/2."""
    batch_size_per_gpu: PositiveInt
    """Pairs per process and forward pass; the global batch is this x processes x train.accum_iter."""
    num_worker_per_gpu: NonNegativeInt = 4
    """Loader processes per training process; 0 loads in the training process. No effect on the samples."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the scenes that is kept out of training and validated on; which ones depends on their names only."""
    measure_once: bool = False
    """A-FINE with frozen features: measure every whole image once, and train on what was measured. crop_px then plays no part."""


class PairValOptions(Section):
    manifests: Manifests
    """Held-out manifests; their pairs are judged on whole images."""
    resize_px: PositiveInt | None = None
    """As in datasets.train."""


class MetricDatasetsOptions(Section):
    train: PairDataOptions
    """Pairs to learn from."""
    val: PairValOptions | None = None
    """Held-out pairs, besides those of datasets.train.holdout."""


class MetricNetworkOptions(Section):
    type: str
    """nano, a MUSIQ, lpips, any learned metric of `sr-iqa iqa list`, timm:<backbone>, or afine:<mode>:<backbone> (docs/iqa.md)."""
    start: str = "catalogue"
    """Where its weights start: `catalogue` (the metric's own), `random`, or a file: a trained metric or a weight file of its layout."""
    backbone: Path | None = None
    """timm:<backbone> and afine, with start: random: weights of the backbone alone, a file in timm's or CLIP's layout."""
    learn: tuple[str, ...] = ()
    """Only weights whose names start with one of these learn; by default all."""


class AttackOptions(Section):
    """Adversarial training: the worse image of every pair is changed so that Q rises, and Q learns not to (docs/iqa.md)."""

    weight: PositiveFloat = 1.0
    """Of the mean gain, in units of pair_opt, beside the pair loss."""
    distance: Annotated[float, Field(ge=1)] = 4.0
    """The largest change of a pixel in 255ths; each image's is drawn between 1 and this, on a logarithmic scale."""
    steps: PositiveInt = 10
    """At most so many steps of gradient ascent, at least a third of them."""
    shares: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.06, 0.12, 0.25, 0.5)
    """Length of a step as a share of the distance; each image's is one of these. Long steps hide what short ones find, and the reverse."""
    tiled: Fraction = 0.4
    """Share of the batches that one repeated tile attacks, as a pixel shuffle paints it."""
    periods: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 4, 8)
    """Sides of the tiles in pixels; divisors of crop_px."""


class MetricTrainOptions(Section):
    total_iter: PositiveInt
    """Optimizer steps."""
    accum_iter: PositiveInt = 1
    """Micro-batches per optimizer step."""
    warmup_iter: Annotated[int, Field(ge=-1)] = -1
    """Steps of linear learning-rate warm-up; -1 for none."""
    grad_clip: PositiveFloat | None = None
    """Largest gradient norm; none by default."""
    ema_decay: Fraction = 0.0
    """Exponential moving average of the weights, which is then what is validated and saved; 0 switches it off."""
    optim: Component
    """The optimizer: any of torch.optim by name, with its arguments."""
    scheduler: ScheduleOptions = ScheduleOptions()
    """Learning rates over the steps."""
    pair_opt: Component = Component(type="FidelityLoss")
    """FidelityLoss (Thurstone, as A-FINE), CrossEntropyLoss (Bradley-Terry) or MarginLoss; `unit`: the difference of Q that counts as 1."""
    attack_opt: AttackOptions | None = None
    """Adversarial training; none by default. A step takes about as many times longer as an attack has steps."""


class MetricValOptions(Section):
    val_freq: PositiveInt = 1000
    """Steps between validations; there is always one at step 0 and one at the end."""
    max_pairs: PositiveInt | None = None
    """Use only the first max_pairs pairs of each held-out manifest."""


class MetricPathOptions(Section):
    experiments_root: Path = Path("experiments")
    """Runs are written to a folder of the run's name in here."""


class MetricOptions(Section):
    """One training run of a metric."""

    name: Annotated[str, AfterValidator(folder_name)]
    """Name of the run and of its folder under path.experiments_root."""
    manual_seed: NonNegativeInt = 0
    """Seed of the samples."""
    precision: Literal["no", "tf32", "bf16"] = "no"
    """Mixed precision; differences and losses stay in float32."""
    deterministic: bool = False
    """Bit-identical runs on CUDA too, slower; on the CPU runs are always bit-identical."""
    network: MetricNetworkOptions
    """The metric's network."""
    datasets: MetricDatasetsOptions
    """Pairs to learn from and to validate on."""
    path: MetricPathOptions = MetricPathOptions()
    """Where runs are written."""
    train: MetricTrainOptions
    """Loss, optimizer, schedule."""
    val: MetricValOptions = MetricValOptions()
    """Validation during training."""
    logger: LoggerOptions = LoggerOptions()
    """Logs and checkpoints."""

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        if self.network.backbone and not self.network.type.startswith(("afine:", "timm:")):
            raise ValueError(f"network.backbone: belongs to timm:<backbone> and afine:<mode>:<backbone>, not to {self.network.type}")
        if self.network.backbone and self.network.start != "random":
            raise ValueError(f"network.backbone: goes with start: random; {self.network.start} has a backbone's weights already")
        if self.datasets.train.measure_once and not self.network.type.startswith(("afine:all:", "afine:all_scale:")):
            raise ValueError(f"datasets.train.measure_once: belongs to afine:all:<backbone>, not to {self.network.type}")
        attack, side = self.train.attack_opt, self.datasets.train.crop_px
        if attack and self.datasets.train.measure_once:
            raise ValueError("train.attack_opt: images that were measured once cannot be attacked; remove datasets.train.measure_once")
        if attack and attack.tiled and any(side % period for period in attack.periods):
            raise ValueError(f"train.attack_opt.periods: expected divisors of datasets.train.crop_px ({side}), got {list(attack.periods)}")
        return self


@dataclass(frozen=True)
class LoadedMetric:
    """Options with where they came from."""

    options: MetricOptions
    document: Document


def load_metric_options(path: str | Path, overrides: Sequence[str] = ()) -> LoadedMetric:
    """Reads an option file of `sr-iqa iqa train`; `overrides` are `a.b.c=value` each.

    Raises:
        OptionsError: everything wrong with the file and the overrides, one line each.
    """
    document = read_document(Path(path))
    for override in overrides:
        apply_override(document, override)
    return LoadedMetric(validated(document, MetricOptions), document)

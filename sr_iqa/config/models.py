"""The option vocabulary as typed, frozen models: BasicSR's names, and new blocks for sampling, reward and LoRA.

Field descriptions are the options reference (docs/options.md) and the editor schema (options/schema.json).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .degradation import DegradationOptions

Fraction = Annotated[float, Field(ge=0, le=1)]
AUTO = "auto"
"""The `type` of a network that the weights it starts from will tell."""


def folder_name(name: str) -> str:
    if not name.strip(" .") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"expected a name that can be a folder's, got {name!r}")
    return name


def as_list(value: Any) -> Any:
    """A single block as a list of one, for keys that take one block or several."""
    return [value] if isinstance(value, (dict, BaseModel)) else value


class Section(BaseModel):
    """A block of options: unknown keys are refused, null means the default, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None or name not in cls.model_fields}

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError(f"{str(value).lower()} does not belong here; the key takes no true or false")
        return value


class Component(BaseModel):
    """A block with `type:` naming a constructor; every other key is one of its arguments (bound in check.py)."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    type: str
    """A name from the tables (docs/options.md), or the dotted path of an importable class or function."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's keyword arguments."""
        return dict(self.model_extra or {})


class SamplingOptions(Section):
    strategy: str = Field("uniform_positive", examples=["original", "uniform_all", "uniform_positive", "sma", "smp", "amo"])
    """How a GT is drawn from its set: original, uniform_all, uniform_positive, sma, smp, amo (docs/concepts.md)."""
    metric: str | None = None
    """The no-reference metric Q behind the scores; required by sma, smp and amo."""
    temperature: PositiveFloat | None = None
    """Softmax temperature of sma and smp, in the metric's own units; required by both."""
    grid: PositiveInt = 1
    """Crop corners are multiples of this many GT pixels. Above 1, amo remembers the winner of every crop and scores no crop twice."""
    choices: Path | None = None
    """Folder of what amo remembers, shared by all runs; by default beside dataroot_gt."""


class DataOptions(Section):
    name: str = ""
    """A name for messages and tables."""
    type: Literal["multi_gt", "paired", "single_gt"]
    """multi_gt: HGGT layout; paired: a folder of GTs and one of LQs; single_gt: a folder of GTs."""
    dataroot_gt: Path
    """Folder of GT images (multi_gt: the folder holding original/, 01/, ...), or a store made by `sr-iqa data pack` (ends in .lmdb)."""
    dataroot_labels: Path | None = None
    """multi_gt: the folder holding one folder of label files per annotator. A store brings its own labels."""
    dataroot_lq: Path | None = None
    """Folder of given LQ images, named like the originals. Without it the LQ is synthesised from the original GT."""
    scores: Path | None = None
    """Score table made by `sr-iqa data score`; required by sma and smp."""
    degradation: DegradationOptions | None = None
    """How the LQ is synthesised where none is given."""
    on_bad_set: Literal["fail", "skip"] = "fail"
    """What to do with sets that `sr-iqa data verify` would refuse: stop before training, or go on without them."""


class TrainDataOptions(DataOptions):
    gt_size: PositiveInt
    """Side of the square GT crop in pixels; a multiple of the scale."""
    use_hflip: bool = True
    """Flip horizontally with probability 1/2."""
    use_rot: bool = True
    """Flip vertically and transpose, each with probability 1/2."""
    batch_size_per_gpu: PositiveInt
    """Samples per process and forward pass; the global batch is this x processes x train.accum_iter."""
    num_worker_per_gpu: NonNegativeInt = 4
    """Loader processes per training process; 0 loads in the training process. No effect on the samples."""
    sampling: SamplingOptions = SamplingOptions(strategy="original")
    """Which GT of a set supervises a sample; by default the original."""


class DatasetsOptions(Section):
    train: TrainDataOptions | None = None
    """Training data."""
    val: DataOptions | None = None
    """Held-out data for validation during training and for `sr-iqa test`."""


class PathOptions(Section):
    pretrain_network_g: Path | None = None
    """Weights that the generator starts from."""
    param_key_g: str | None = None
    """Which weights of a BasicSR .pth to take (params_ema, params); by default params_ema where it exists."""
    strict_load_g: bool = True
    """Every weight of the generator must be in the file, and nothing else."""
    pretrain_network_d: Path | None = None
    """Weights that the discriminator starts from."""
    param_key_d: str | None = None
    """Which weights of a BasicSR .pth to take for the discriminator."""
    strict_load_d: bool = True
    """Every weight of the discriminator must be in the file, and nothing else."""
    pretrain_adapter: Path | None = None
    """A saved adapter folder to continue from (with `lora`)."""
    experiments_root: Path = Path("experiments")
    """Runs are written to a folder of the run's name in here."""


class ScheduleOptions(Section):
    """The learning rate as a function of the step; both networks follow it."""

    type: Literal["constant", "MultiStepLR", "CosineAnnealingLR", "CosineAnnealingRestartLR"] = "constant"
    """Shape of the schedule; steps are optimizer steps whatever the number of processes."""
    milestones: tuple[PositiveInt, ...] = ()
    """MultiStepLR: optimizer steps at which the rate is multiplied by gamma."""
    gamma: PositiveFloat = 0.5
    """MultiStepLR: the factor at each milestone."""
    T_max: PositiveInt | None = None
    """CosineAnnealingLR: steps from the full rate to eta_min; by default train.total_iter."""
    eta_min: NonNegativeFloat = 0.0
    """The cosines' lowest rate."""
    periods: tuple[PositiveInt, ...] = ()
    """CosineAnnealingRestartLR: length of each cosine in steps; after the last one the rate stays at eta_min."""
    restart_weights: tuple[PositiveFloat, ...] = ()
    """CosineAnnealingRestartLR: factor of the full rate at the start of each cosine; by default 1 for all."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"MultiStepLR": "milestones", "CosineAnnealingRestartLR": "periods"}.get(self.type)
        if needed and not getattr(self, needed):
            raise ValueError(f"{self.type} needs {needed}, a list of steps")
        if self.restart_weights and len(self.restart_weights) != len(self.periods):
            raise ValueError(f"expected as many restart_weights as periods ({len(self.periods)}), got {len(self.restart_weights)}")
        return self


class ViewOptions(Section):
    """What Q sees instead of the output: random views of it, drawn anew at every step (docs/iqa.md)."""

    number: PositiveInt = 1
    """Views per step; the score is their mean."""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A view shows a random crop whose sides are between this share of the output's and all of it."""
    resize: Annotated[float, Field(ge=1)] = 1.0
    """A view is resized by a random factor between 1 / resize and resize."""
    use_hflip: bool = False
    """Flip with probability 1/2."""
    noise: NonNegativeFloat = 0.0
    """Gaussian noise is added, of a random standard deviation between 0 and this many 255ths."""


class RewardOptions(Section):
    metric: str
    """A differentiable no-reference metric of the door (`sr-iqa iqa list`)."""
    weight: PositiveFloat
    """lambda_Q: the loss gets -weight * Q(output), Q in the metric's own units, higher is better."""
    start_iter: NonNegativeInt = 0
    """Steps before the reward sets in."""
    warmup_iter: NonNegativeInt = 0
    """Steps over which the weight rises linearly from 0 after start_iter."""
    views: ViewOptions | None = None
    """Q sees random views of the output: an output that pleases only as it stands, pixel for pixel, gains little."""
    clip: Literal["gt"] | None = None
    """gt: Q of an output counts up to Q of the sample's GT and no further. Under amo by the same Q that GT is the best of its set."""
    normalise: bool = False
    """The gradient of Q with respect to each output is brought to the length of an L1 loss's of weight 1: `weight` then compares with the
    pixel loss's, whatever the metric's units and slope."""


class TrainOptions(Section):
    total_iter: PositiveInt
    """Optimizer steps."""
    accum_iter: PositiveInt = 1
    """Micro-batches per optimizer step."""
    warmup_iter: Annotated[int, Field(ge=-1)] = -1
    """Steps of linear learning-rate warm-up; -1 for none."""
    grad_clip: PositiveFloat | None = None
    """Largest gradient norm of each network; none by default."""
    ema_decay: Fraction = 0.0
    """Exponential moving average of the generator; 0 switches it off."""
    optim_g: Component
    """The generator's optimizer: any of torch.optim by name, with its arguments."""
    optim_d: Component | None = None
    """The discriminator's optimizer; required with gan_opt."""
    scheduler: ScheduleOptions = ScheduleOptions()
    """Learning rates over the steps."""
    net_d_iters: PositiveInt = 1
    """The generator is updated every net_d_iters steps."""
    net_d_init_iters: NonNegativeInt = 0
    """Steps at the start in which only the discriminator learns."""
    pixel_opt: Component | None = None
    """Pixel loss between output and GT: L1Loss, MSELoss, CharbonnierLoss."""
    base_opt: Component | None = None
    """Pixel loss between the output and that of the network as it started (path.pretrain_network_g, without adapter)."""
    perceptual_opt: Component | None = None
    """Feature loss between output and GT: PerceptualLoss (VGG19), LPIPSLoss, NanoFeatureLoss."""
    gan_opt: Component | None = None
    """Adversarial loss: GANLoss; needs network_d and optim_d."""
    neg_opt: Component | None = None
    """HGGT's negative-GT loss."""
    metric_opt: Annotated[tuple[Component, ...], BeforeValidator(as_list, json_schema_input_type=Component | tuple[Component, ...])] = ()
    """Differentiable full-reference metrics as losses: `type: <metric>`, `loss_weight`; a single block or a list of blocks."""
    reward_opt: Annotated[
        tuple[RewardOptions, ...], BeforeValidator(as_list, json_schema_input_type=RewardOptions | tuple[RewardOptions, ...])
    ] = ()
    """No-reference rewards; a single block or a list of blocks."""


class LoraOptions(Section):
    rank: PositiveInt = 8
    """Rank of the update of each adapted layer."""
    alpha: PositiveFloat | None = None
    """The update is scaled by alpha / rank; by default alpha = rank."""
    dropout: Fraction = 0.0
    """Dropout on the adapters' inputs."""
    target_modules: tuple[str, ...] | None = None
    """Module name endings that get an adapter; by default the architecture's own list."""


class ValOptions(Section):
    val_freq: PositiveInt = 5000
    """Steps between validations; there is always one at step 0 and one at the end."""
    metrics: tuple[str, ...] = ("psnr", "ssimc")
    """Metrics of the door (`sr-iqa iqa list`)."""
    crop_border: NonNegativeInt = 4
    """Pixels cut from each side before full-reference metrics."""
    against: Literal["positives", "original", "best", "all"] = "positives"
    """What full-reference values of a set are made of: the mean over its effective positives (HGGT's protocol) or over all its GTs, the
    best value over all its GTs, or the value against the original, which is a column of its own anyway."""
    save_img: bool = False
    """Write every validation output, not only the sample sheet."""
    max_images: PositiveInt | None = None
    """Use only the first max_images sets."""
    tile: NonNegativeInt = 0
    """LQ tile side for large images; 0 for whole images."""


class LoggerOptions(Section):
    print_freq: PositiveInt = 100
    """Steps between log lines."""
    save_checkpoint_freq: PositiveInt = 5000
    """Steps between checkpoints; there is always one at the end."""
    keep_checkpoints: PositiveInt = 3
    """Training states kept; network weights are always kept."""
    use_tb_logger: bool = True
    """Scalars and sample images to TensorBoard."""


class Options(Section):
    """One run."""

    name: Annotated[str, AfterValidator(folder_name)]
    """Name of the run and of its folder under path.experiments_root."""
    scale: Annotated[int, Field(ge=1, le=8)]
    """How many times larger the output is than the input, per side."""
    manual_seed: NonNegativeInt = 0
    """Seed of everything random: samples, initial weights, dropout."""
    precision: Literal["no", "tf32", "bf16", "fp16"] = "no"
    """Mixed precision: bf16, or fp16, which is refused with a GAN. tf32: float32 whose products NVIDIA's tensor cores round to 10 bits."""
    deterministic: bool = False
    """Bit-identical runs on CUDA too, slower; on the CPU runs are always bit-identical."""
    compile: bool = False
    """Train through torch.compile, which takes minutes at the start. Validation and inference do without."""
    datasets: DatasetsOptions = DatasetsOptions()
    """Training and validation data."""
    network_g: Component = Component(type=AUTO)
    """The SR network; by default (type: auto) the one that the weights in path.pretrain_network_g are of."""
    network_d: Component | None = None
    """The discriminator; required with train.gan_opt."""
    path: PathOptions = PathOptions()
    """Weights to start from, and where runs are written."""
    lora: LoraOptions | None = None
    """Train a low-rank adapter on the frozen network instead of all weights."""
    train: TrainOptions | None = None
    """Losses, optimizers, schedule. Evaluation and inference do without."""
    val: ValOptions = ValOptions()
    """Validation during training, and evaluation."""
    logger: LoggerOptions = LoggerOptions()
    """Logs and checkpoints."""

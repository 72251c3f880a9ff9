"""Options against the program: constructors' arguments and combinations, all problems at once, with their place."""

from pathlib import Path
from typing import Literal

import pytest

from sr_iqa.bind import argument, mismatches
from sr_iqa.check import check
from sr_iqa.config import Options, OptionsError, load
from sr_iqa.config.models import SamplingOptions
from sr_iqa.reference import reference
from sr_iqa.sampling import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]

GOOD = """\
name: run
scale: 4
datasets:
  train:
    type: multi_gt
    dataroot_gt: sets/images
    dataroot_labels: sets/labels
    gt_size: 128
    batch_size_per_gpu: 2
    sampling: {strategy: uniform_positive}
network_g: {type: SwinIR, upscale: 4, depths: [2, 2], num_heads: [2, 2], embed_dim: 16}
network_d: {type: UNetDiscriminatorSN, num_in_ch: 3}
train:
  total_iter: 10
  optim_g: {type: Adam, lr: 1e-4, betas: [0.9, 0.99]}
  optim_d: {type: AdamW, lr: 1e-4}
  pixel_opt: {type: L1Loss, loss_weight: 1}
  gan_opt: {type: GANLoss, gan_type: vanilla, loss_weight: 1e-1}
val: {metrics: [psnr, ssimc]}
"""


def run(tmp_path, text, *overrides):
    path = tmp_path / "run.yml"
    path.write_text(text)
    return check(load(path, overrides))


def refused(tmp_path, *overrides, text=GOOD):
    with pytest.raises(OptionsError) as caught:
        run(tmp_path, text, *overrides)
    return [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]


def test_a_good_file_passes_and_missing_data_are_notes(tmp_path):
    notes = run(tmp_path, GOOD, "datasets.train.degradation={preset: hggt}")
    assert [note.replace(f"{tmp_path}/", "") for note in notes] == [
        "run.yml:6: datasets.train.dataroot_gt: sets/images is not there; training will need it",
        "run.yml:7: datasets.train.dataroot_labels: sets/labels is not there; training will need it",
    ]


def test_lqs_that_are_nobodys_choice_are_noted(tmp_path):
    assert any("LQs are the originals made smaller" in note for note in run(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("override", "note"),
    [
        (
            "train.perceptual_opt={type: PerceptualLoss, layer_weights: {conv5_4: 1}}",
            "train.perceptual_opt: vgg19: weights missing: get https",
        ),
        ("train.perceptual_opt={type: LPIPSLoss}", "train.perceptual_opt: lpips: weights missing"),
        ("train.metric_opt={type: dists}", "train.metric_opt.type: dists: weights missing"),
    ],
)
def test_missing_weights_of_losses_are_noted(tmp_path, monkeypatch, override, note):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    assert any(note in line for line in run(tmp_path, GOOD, override))


def test_options_made_in_python_are_checked_too():
    options = Options.model_validate({"name": "a", "scale": 4, "network_g": {"type": "SwinIR", "upscale": 2}})
    with pytest.raises(OptionsError, match="network_g.upscale: 2, but the run's scale is 4"):
        check(options)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("network_g.embed_dims=16", "network_g.embed_dims: SwinIR: unknown argument; did you mean embed_dim?"),
        ("network_g.embed_dim=x", "network_g.embed_dim: SwinIR: expected a whole number, got 'x'"),
        ("network_g.depths=[2, 2.5]", "network_g.depths: SwinIR: expected a whole number, got [2, 2.5]"),
        ("network_d.skip_connection=no", "network_d.skip_connection: UNetDiscriminatorSN: expected true or false, got 'no'"),
        ("train.optim_g.lr=fast", "train.optim_g.lr: Adam: expected a number, got 'fast'"),
        ("train.optim_g.learning_rate=1", "train.optim_g.learning_rate: Adam: unknown argument; known here: "),
        ("train.pixel_opt.loss_wieght=1", "train.pixel_opt.loss_wieght: L1Loss: unknown argument; did you mean loss_weight?"),
        ("train.gan_opt.loss_weight=.nan", "train.gan_opt.loss_weight: GANLoss: expected a finite number, got nan"),
    ],
)
def test_arguments_are_bound_to_signatures(tmp_path, override, line):
    (found,) = refused(tmp_path, override)
    assert found.startswith(f"--set {override}: {line}")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network_g.type=SwimIR", "network_g.type: 'SwimIR' is not a network. Did you mean 'SwinIR'?"),
        ("network_g.type=no.such.Net", "network_g.type: 'no.such.Net' is not a network: importing no.such failed"),
        ("train.optim_g.type=Adams", "train.optim_g.type: 'Adams' is not a optimizer. Did you mean 'Adam'?"),
        ("train.pixel_opt.type=L7Loss", "train.pixel_opt.type: 'L7Loss' is not a"),
        ("val.metrics=[psnr, sim]", "val.metrics.1: there is no metric 'sim'; did you mean"),
        ("datasets.train.sampling.strategy=uniform", "datasets.train.sampling.strategy: "),
    ],
)
def test_unknown_names(tmp_path, override, words):
    found = refused(tmp_path, override)
    assert any(line.startswith(f"--set {override}: {words}") for line in found)


def test_arguments_of_a_basicsr_network(tmp_path):
    text = GOOD.replace("{type: SwinIR, upscale: 4, depths: [2, 2], num_heads: [2, 2], embed_dim: 16}", "{type: EDSR, res_scal: 1}")
    assert refused(tmp_path, text=text) == [
        "run.yml:11: network_g.res_scal: EDSR: unknown argument; did you mean res_scale?",
        "run.yml:11: network_g: EDSR: missing: num_in_ch, num_out_ch",
    ]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["precision=fp16"], "precision: fp16 cannot train a GAN"),
        (["network_d=~"], "train.gan_opt: needs network_d"),
        (["train.optim_d=~"], "train.gan_opt: needs train.optim_d"),
        (["train.gan_opt=~", "train.pixel_opt=~"], "train: no loss; give pixel_opt"),
        (["datasets=~"], "datasets: train is missing"),
        (["datasets.train.gt_size=126"], "datasets.train.gt_size: 126 is no multiple of the scale, 4"),
        (["network_g.upscale=2"], "network_g.upscale: 2, but the run's scale is 4"),
        (["network_g={type: RRDBNet, num_in_ch: 3, num_out_ch: 3, scale: 2}"], "network_g.scale: 2, but the run's scale is 4"),
        (["network_g.in_chans=1"], "network_g.in_chans: expected 3, images are RGB, got 1"),
        (
            ["network_d={type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 8, input_size: 256}"],
            "network_d.input_size: the discriminator takes 256 px only, but datasets.train.gt_size is 128",
        ),
        (
            ["datasets.train.sampling={strategy: sma, temperature: 2, metric: nano}"],
            "datasets.train.sampling.strategy: sma needs datasets.train.scores",
        ),
        (["datasets.train.sampling={strategy: sma, metric: nano}", "datasets.train.scores=x"], "datasets.train.sampling: "),
        (["datasets.train.sampling={strategy: smp, temperature: 2}", "datasets.train.scores=x"], "datasets.train.sampling: "),
        (["datasets.train.sampling={strategy: amo}"], "datasets.train.sampling: "),
        (["datasets.train.sampling={strategy: amo, metric: psnr}"], "datasets.train.sampling.metric: psnr is no no-reference metric"),
        (["datasets.train.dataroot_labels=~"], "datasets.train.sampling.strategy: uniform_positive draws among positives"),
        (
            ["datasets.train.type=single_gt", "datasets.train.dataroot_labels=~"],
            "datasets.train.sampling.strategy: uniform_positive draws among positives",
        ),
        (
            ["train.neg_opt={type: NegativeLoss}", "datasets.train.dataroot_labels=~", "datasets.train.sampling.strategy=original"],
            "train.neg_opt: needs labelled sets",
        ),
        (
            ["datasets.train.dataroot_lq=x", "datasets.train.degradation={preset: hggt}"],
            "datasets.train.degradation: LQs are given by dataroot_lq",
        ),
        (["datasets.val={type: paired, dataroot_gt: x}"], "datasets.val: type paired needs dataroot_lq"),
        (["datasets.val={type: single_gt, dataroot_gt: x}"], "datasets.val: there is no LQ to evaluate: give dataroot_lq, or degradation"),
        (
            ["datasets.val={type: single_gt, dataroot_gt: x, dataroot_labels: y, degradation: {preset: bicubic}}"],
            "datasets.val.dataroot_labels: labels belong to type multi_gt",
        ),
        (
            ["train.reward_opt={metric: qalign, weight: 1}"],
            "train.reward_opt.metric: qalign is no differentiable no-reference metric; choose from",
        ),
        (["train.reward_opt={metric: lpips, weight: 1}"], "train.reward_opt.metric: lpips is no differentiable no-reference metric"),
        (
            ["train.reward_opt={metric: niqe, weight: 1}", "datasets.train.gt_size=64"],
            "train.reward_opt.metric: niqe needs sides of at least 96",
        ),
        (["train.metric_opt={type: nano}"], "train.metric_opt.type: nano is no differentiable full-reference metric"),
        (["train.metric_opt={type: ssim, weight: 1}"], "train.metric_opt.weight: ssim: unknown argument; did you mean loss_weight?"),
        (["path.pretrain_adapter=x"], "path.pretrain_adapter: needs a lora block"),
    ],
)
def test_impossible_combinations(tmp_path, overrides, line):
    (found,) = refused(tmp_path, *overrides)
    assert line in found


@pytest.mark.parametrize(
    "overrides",
    [
        ["precision=fp16", "train.gan_opt=~"],
        ["precision=bf16"],
        ["datasets.train.dataroot_gt=sets.lmdb", "datasets.train.dataroot_labels=~"],
        ["datasets.train.sampling={strategy: upos}"],
        ["datasets.train.sampling={strategy: smp, temperature: 2, metric: nano}", "datasets.train.scores=x"],
        ["datasets.train.sampling={strategy: amo, metric: nano}"],
        ["train.reward_opt={metric: nano, weight: 1}", "lora.rank=4"],
        ["train.metric_opt={type: gmsd, loss_weight: 0.1}"],
        ["train.neg_opt={type: NegativeLoss}"],
        ["train=~"],
        ["train.optim_g.type=torch.optim.SGD", "train.optim_g.betas=~", "train.optim_g={type: torch.optim.SGD, lr: 1}"],
    ],
)
def test_possible_combinations(tmp_path, overrides):
    assert isinstance(run(tmp_path, GOOD, *overrides), tuple)  # notes at most


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (["train.gan_opt=~"], "network_d: unused without train.gan_opt"),
        (["lora.rank=4"], "lora: the frozen network starts from random weights"),
        (["datasets.train.dataroot_gt=x.lmdb"], "datasets.train.dataroot_labels: unused, a packed store brings its own"),
        (["val.metrics=[qalign]"], "val.metrics.0: qalign: weights missing"),
        (
            ["datasets.train.type=single_gt", "datasets.train.dataroot_labels=~", "datasets.train.sampling.strategy=uniform_all"],
            "datasets.train.sampling.strategy: there is one GT per image in type single_gt",
        ),
    ],
)
def test_notes(tmp_path, overrides, note):
    assert any(note in line for line in run(tmp_path, GOOD, *overrides))


def test_everything_at_once(tmp_path):
    lines = refused(tmp_path, "network_g.upscale=3", "train.optim_d.momentum=1", "val.metrics=[nope]", "precision=fp16")
    assert len(lines) == 4


class Sample:
    def __init__(self, a: int, b: tuple[float, float] = (1, 2), c: Literal["x", "y"] = "x", *, d: bool = False, e=0.5, f=True, **more):
        pass


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"a": 1, "b": [1, 2], "c": "y", "d": True, "e": 2, "f": False, "z": 1}, []),
        ({}, [("", "missing: a")]),
        ({"a": 1.5}, [("a", "expected a whole number, got 1.5")]),
        ({"a": True}, [("a", "expected a whole number, got True")]),
        ({"a": 1, "b": [1]}, [("b", "too few values, got [1]")]),
        ({"a": 1, "c": "z"}, [("c", "expected 'x' or 'y', got 'z'")]),
        ({"a": 1, "d": "no"}, [("d", "expected true or false, got 'no'")]),
        ({"a": 1, "e": "1"}, [("e", "expected a number, got '1'")]),
        ({"a": 1, "f": 1}, [("f", "expected true or false, got 1")]),
    ],
)
def test_mismatches(arguments, found):
    assert list(mismatches(Sample, arguments)) == found


def test_argument_gives_the_value_or_the_default():
    assert argument(Sample, {"e": 3}, ("zzz", "e")) == ("e", 3)
    assert argument(Sample, {}, ("e",)) == ("e", 0.5)
    assert argument(Sample, {}, ("a",)) is None


def test_the_schema_suggests_the_strategies_that_there_are():
    assert SamplingOptions.model_fields["strategy"].examples == list(STRATEGIES)


def test_the_committed_reference_is_up_to_date():
    """`python -m sr_iqa.reference` rewrites it."""
    assert (ROOT / "docs" / "options.md").read_text() == reference()


def test_reference_lists_every_name():
    text = reference()
    assert all(f"`{name}`" in text for name in (*STRATEGIES, "SwinIR", "L1Loss", "AdamW", "train.optim_g"))

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sr_iqa
from sr_iqa.adapters import inject, save_adapter, trainable_parameters
from sr_iqa.checkpoints import load_network
from sr_iqa.cli import main
from sr_iqa.config.models import LoraOptions
from sr_iqa.errors import UsageError, UserError
from sr_iqa.images import to_tensor
from sr_iqa.inference.budget import Budget, Chosen, Dial, ScaleChooser, parse_budget, parse_dial
from sr_iqa.inference.pictures import Picture, read_picture, write_picture
from sr_iqa.inference.upscaler import Upscaler
from sr_iqa.iqa.metrics import create_metric
from tests.helpers import picture

DEMO_BASE = Path(sr_iqa.__file__).parent / "assets" / "base_x4.safetensors"


@pytest.fixture(scope="module")
def upscaler():
    torch.manual_seed(0)
    net = inject(load_network(DEMO_BASE), LoraOptions(rank=2), "SwinIR")
    for parameter in trainable_parameters(net):
        nn.init.normal_(parameter, std=0.2)
    return Upscaler(net)


def output(upscaler, scale, image):
    before, upscaler.adapter_scale = upscaler.adapter_scale, scale
    out = upscaler.picture(image).pixels
    upscaler.adapter_scale = before
    return out


def value(metric, one, two):
    return float(create_metric(metric)(to_tensor(one)[None], to_tensor(two)[None]))


class Turned:
    """Stands for an upscaler whose output differs from the base's by `levels(scale)`; notes the scales that were asked for."""

    def __init__(self, levels):
        self.levels, self.adapter_scale, self.lock, self.asked = levels, 0.3, threading.RLock(), []

    def picture(self, image):
        self.asked.append(self.adapter_scale)
        return Picture(np.full((4, 4, 3), 100 + self.levels(self.adapter_scale), np.uint8))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("psnr:30", Budget("psnr", 30, False)),
        (" PSNR: 30 ", Budget("psnr", 30, False)),
        ("psnr:60", Budget("psnr", 60, False)),
        ("psnry:50", Budget("psnry", 50, False)),
        ("ssim:0.95", Budget("ssim", 0.95, False)),
        ("l1:0.01", Budget("l1", 0.01, True)),
        ("lpips:0.1", Budget("lpips", 0.1, True)),
        ("min(ssimc, gmsd): 0.95", Budget("min(ssimc, gmsd)", 0.95, False)),
        ("0.5*psnr + 0.5*ssimc:1.2", Budget("0.5*psnr + 0.5*ssimc", 1.2, False)),
    ],
)
def test_budgets_are_read_with_the_metrics_own_direction(text, budget):
    assert parse_budget(text) == budget
    assert budget.holds(budget.bound) and not budget.holds(math.nan)
    assert budget.holds(budget.bound + (-1e-3 if budget.lower_better else 1e-3)) and str(budget).startswith(budget.metric)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("psnr", "metric:number"),
        ("30", "metric:number"),
        ("psnr:", "metric:number"),
        ("psnr:nan", "metric:number"),
        ("psnr:inf", "metric:number"),
        ("psnr:30:2", "metric:number"),
        ("musiq:50", "does not compare two images"),
        ("fid:5", "does not compare two images"),
        ("pnsr:30", "no metric 'pnsr'"),
        ("ssim:95", "1 at best"),
        ("ssimc + nano:1", "nano does not compare two images"),
        ("ssimc + sim:1", "no metric 'sim'"),
        ("ssimc + ssimc:1", "ssimc twice"),
        ("runs/Mine.safetensors:1", "metric file runs/Mine.safetensors is not there"),
        ("l1:-0.1", "0 at best"),
        ("lpips:-1", "0 at best"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parse_budget(text)


def test_the_dial_is_a_number_several_or_auto():
    assert parse_dial("0.6") == Dial((0.6,)) and parse_dial("1, 0,.5") == Dial((1, 0, 0.5)) and parse_dial("1") == Dial()
    assert parse_dial("auto", "l1:0.02") == Dial((), Budget("l1", 0.02, True)) == parse_dial(" AUTO", "l1:0.02")


@pytest.mark.parametrize(
    ("scale", "budget", "words"),
    [
        ("auto", None, "needs a budget"),
        ("0.5", "psnr:30", "goes with --scale auto"),
        ("nan", None, "goes from 0"),
        ("much", None, "number from 0 to 1"),
        ("0.5,", None, "number from 0 to 1"),
        ("", None, "number from 0 to 1"),
        ("0.5,0.50", None, "twice"),
    ],
)
def test_dials_that_mean_nothing_are_refused(scale, budget, words):
    with pytest.raises(UsageError, match=words):
        parse_dial(scale, budget)


@pytest.mark.parametrize("text", ["psnr:38", "l1:0.008", "ssimc:0.99"])
def test_the_output_is_within_the_budget_and_the_next_scale_is_not(upscaler, text):
    budget, image = parse_budget(text), Picture(picture(16))
    chosen = ScaleChooser(budget)(upscaler, image)
    assert 0 < chosen.scale < 1 and chosen.passes == 8 and upscaler.adapter_scale == 1
    base = output(upscaler, 0, image)
    np.testing.assert_array_equal(chosen.picture.pixels, output(upscaler, chosen.scale, image))

    def independent(pixels):
        return float(np.abs(pixels.astype(float) - base).mean() / 255) if budget.metric == "l1" else value(budget.metric, pixels, base)

    assert independent(chosen.picture.pixels) == pytest.approx(chosen.value, rel=1e-4) and budget.holds(chosen.value)
    assert not budget.holds(independent(output(upscaler, chosen.scale + 1 / 64, image)))


def test_a_wide_budget_takes_the_whole_adapter_in_two_passes_and_a_narrow_one_the_base(upscaler):
    image = Picture(picture(16))
    wide, narrow = (ScaleChooser(parse_budget(text))(upscaler, image) for text in ("psnr:5", "psnr:90"))
    assert (wide.scale, wide.passes) == (1, 2) and (narrow.scale, narrow.passes, narrow.value) == (0, 8, math.inf)
    np.testing.assert_array_equal(narrow.picture.pixels, output(upscaler, 0, image))


@pytest.mark.parametrize("seed", range(20))
def test_where_the_distance_does_not_grow_steadily_the_output_is_still_within_the_budget(seed, monkeypatch):
    monkeypatch.setattr("sr_iqa.inference.budget._output", lambda turned, image, shrinking: turned.picture(image))
    levels = np.random.default_rng(seed).integers(0, 20, 65)
    levels[0] = 0
    turned = Turned(lambda scale: levels[round(scale * 64)])
    chosen = ScaleChooser(Budget("l1", 8 / 255, True))(turned, Picture(picture(4)))
    difference = levels[round(chosen.scale * 64)]
    assert difference <= 8 and chosen.value == pytest.approx(difference / 255) and (chosen.picture.pixels == 100 + difference).all()
    assert turned.asked[:2] == [0, 1] and chosen.passes == len(turned.asked) <= 8 and turned.adapter_scale == 0.3


def test_sixteen_bits_and_gray_are_measured_as_they_are(upscaler):
    image = Picture(picture(16)[..., :1].astype(np.uint16) * 257)
    chosen = ScaleChooser(parse_budget("psnr:38"))(upscaler, image)
    base = output(upscaler, 0, image).astype(float)
    assert chosen.picture.pixels.dtype == np.uint16 and chosen.picture.pixels.shape[2] == 1 and 0 < chosen.scale < 1
    assert chosen.value == pytest.approx(10 * np.log10(65535**2 / np.mean((chosen.picture.pixels - base) ** 2)))
    assert ScaleChooser(parse_budget("ssimc:0.99"))(upscaler, image).scale > 0
    both = ScaleChooser(parse_budget("min(ssimc, gmsd):0.99"))(upscaler, image)
    assert 0 < both.scale <= ScaleChooser(parse_budget("ssimc:0.99"))(upscaler, image).scale


def test_strips_add_up(monkeypatch, upscaler):
    image = Picture(picture(16))
    whole = [ScaleChooser(parse_budget(text))(upscaler, image).value for text in ("psnr:38", "l1:0.008")]
    monkeypatch.setattr("sr_iqa.inference.budget.STRIP_PIXELS", 100)
    assert [ScaleChooser(parse_budget(text))(upscaler, image).value for text in ("psnr:38", "l1:0.008")] == pytest.approx(whole, rel=1e-12)


def test_what_stands_in_the_way_is_said_and_the_dial_put_back(upscaler):
    with pytest.raises(UserError, match="no adapter"):
        ScaleChooser(parse_budget("psnr:30"))(Upscaler(nn.Upsample(scale_factor=2)), Picture(picture(8)))
    with pytest.raises(UserError, match="at least 161 pixels"):
        ScaleChooser(parse_budget("ms_ssim:0.9"))(upscaler, Picture(picture(16)))
    assert upscaler.adapter_scale == 1


def test_the_command_writes_the_chosen_outputs_and_says_which(tmp_path, upscaler, monkeypatch, capsys):
    save_adapter(upscaler.net, tmp_path / "adapter")
    for seed in range(2):
        write_picture(tmp_path / "in" / f"{seed}.png", Picture(picture(16 + 8 * seed, seed)))
    arguments = [
        "infer",
        "-m",
        DEMO_BASE,
        "--adapter",
        tmp_path / "adapter",
        "-i",
        tmp_path / "in",
        "-o",
        tmp_path / "out",
        "--device",
        "cpu",
    ]

    def command(*more):
        monkeypatch.setattr("sys.argv", ["sr-iqa", *map(str, arguments), *more])
        try:
            main()
        except SystemExit as end:
            return end.code or 0, capsys.readouterr()
        return 0, capsys.readouterr()

    for more, words in ((["--scale", "auto"], "needs a budget"), (["--budget", "psnr:30"], "goes with --scale auto")):
        code, said = command(*more)
        assert code == 2 and words in said.err
    code, said = command("--scale", "auto", "--budget", "psnr:38", "--compare")
    assert code == 0 and (tmp_path / "out" / "compare.html").exists()
    for seed in range(2):
        image = read_picture(tmp_path / "in" / f"{seed}.png")
        chosen = ScaleChooser(parse_budget("psnr:38"))(upscaler, image)
        np.testing.assert_array_equal(read_picture(tmp_path / "out" / f"{seed}.png").pixels, chosen.picture.pixels)
        assert 0 < chosen.scale < 1 and f"{seed}.png: adapter scale {chosen.scale:.3f} (psnr {chosen.value:.4g})" in said.err


def test_a_choice_is_told_in_words():
    assert Chosen(Picture(picture(4)), 0.5, 31.234, 8).describe(Budget("psnr", 30, False)) == "adapter scale 0.500 (psnr 31.23)"

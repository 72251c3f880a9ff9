import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sr_iqa.adapters import inject, lora_layers, set_scale
from sr_iqa.checkpoints import save_weights
from sr_iqa.config.models import DataOptions, LoraOptions
from sr_iqa.data.sets import load_sets
from sr_iqa.errors import UserError
from sr_iqa.evaluation import evaluate, evaluate_folder, low_quality
from sr_iqa.images import to_tensor, to_uint8
from sr_iqa.inference.base import Base
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.noise import ALARM, _left, _repeated, _unexplained, enlarged, noise, noise_map, noise_of_enlarged
from sr_iqa.study.single import run_test
from sr_iqa.training.build import starting_network
from sr_iqa.training.checkpoint import load_base, load_trained

from .helpers import make_sets, picture
from .test_report import curve, study
from .tiny_runs import lines, run, tiny, validation


def base(n=2, size=128):
    """Soft images, as the outputs of a network."""
    images = torch.from_numpy(np.stack([picture(size, seed) for seed in range(n)])).permute(0, 3, 1, 2).float() / 255
    return rounded(F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1))


def rounded(x):
    return (x.clamp(0, 1) * 255).round() / 255


def at_psnr(change, x, psnr=38.0):
    size = change.square().mean((1, 2, 3), keepdim=True).sqrt()
    return rounded(x + change / size * 10 ** (-psnr / 20))


def soft(x):
    return F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1)


def white(x, seed=0):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def ascent(metric, x, steps=3, size=0.02):
    change = torch.zeros_like(x)
    for _ in range(steps):
        change.requires_grad_()
        (gradient,) = torch.autograd.grad(metric.signed((x + change).clamp(0, 1)).sum(), change)
        change = change.detach() + size * gradient.sign()
    return change


CLEAN = {
    "sharpened": lambda x: x - soft(x),
    "blurred": lambda x: soft(x) - x,
    "brighter": lambda x: 0.1 * x,
    "an offset": lambda x: torch.full_like(x, 0.02),
    "contrast": lambda x: x - x.mean((2, 3), keepdim=True),
}


@pytest.mark.parametrize("name", CLEAN)
def test_filters_of_the_base_are_no_noise(name):
    x = base()
    assert noise(at_psnr(CLEAN[name](x), x), x).max() < 0.1


@pytest.mark.parametrize("name", ["nano", "niqe"])
def test_gradient_ascent_is_noise(name):
    x = base()
    assert noise(at_psnr(ascent(create_metric(name), x), x), x).min() > ALARM


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6, 7, 8])
def test_patterns_are_noise_also_where_they_are_smooth(period):
    x = base()
    wave = torch.sin(2 * torch.pi * torch.arange(128) / period + 0.3)
    change = (wave[:, None] * torch.ones(128)).expand_as(x)
    assert noise(at_psnr(change, x), x).min() > 0.7


def test_white_noise_of_unit_gain_has_a_share_of_one():
    x = base()
    assert noise(at_psnr(white(x), x, 34), x).min() > 0.9


def test_no_change_and_rounding_are_no_noise():
    x = base()
    assert noise(x, x).tolist() == [0, 0]
    other = rounded(x + 0.3 / 255 * white(x))
    assert (other != x).float().mean() > 0 and noise(other, x).max() < 0.3


def test_the_more_of_the_change_is_noise_the_higher_the_figure():
    x = base()
    sharper = x - soft(x)
    shares = [noise(at_psnr(sharper / sharper.std() + part * white(x), x, 34), x).mean().item() for part in (0, 0.3, 1, 3)]
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] > 0.8


def test_a_batch_is_its_images_and_strips_change_nothing(monkeypatch):
    x = base(3, 100)
    y = at_psnr(white(x), x)
    whole = noise(y, x)
    torch.testing.assert_close(whole, torch.cat([noise(y[i : i + 1], x[i : i + 1]) for i in range(3)]))
    monkeypatch.setattr("sr_iqa.iqa.noise.STRIP_ROWS", 7)
    torch.testing.assert_close(noise(y, x), whole, rtol=1e-4, atol=1e-5)


def test_what_is_left_is_numpys_least_squares():
    image = base(1, 40)[0, 0]
    target = white(image, 1) + 3 * image
    padded = np.pad(image.numpy().astype(np.float64), 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).reshape(-1, 25)
    windows = np.c_[windows, np.ones(len(windows))]
    solution = np.linalg.lstsq(windows, target.numpy().ravel().astype(np.float64), rcond=None)[0]
    expected = target.numpy() - (windows @ solution).reshape(40, 40)
    np.testing.assert_allclose(_unexplained(target[None], image)[0].numpy(), expected, atol=2e-3)


def test_what_repeats_is_the_energy_of_the_pattern():
    tile = white(torch.zeros(4, 4))
    tile = tile - tile.mean()
    image = tile.repeat(32, 32)[None]
    assert _repeated(image, 4).item() == pytest.approx(tile.square().mean().item(), rel=1e-4)
    assert _repeated(image, 8).item() == pytest.approx(tile.square().mean().item(), rel=1e-4)
    assert _repeated(white(image), 4).item() < 0.01
    assert _repeated(torch.ones(1, 64, 64), 4).item() < 1e-6


def test_the_map_shows_where_the_noise_is():
    x = base(1)
    y = x.clone()
    y[..., :64, :64] += 0.03 * white(x[..., :64, :64])
    found = noise_map(y, x)
    assert found.shape == (1, 128, 128)
    assert found[0, :56, :56].min() > 5 * found[0, 72:, 72:].max()
    assert (
        0.5 * 0.03 * 0.67 < found[0, 8:56, 8:56].mean() < 1.2 * 0.03 * 0.67
    )  # the luma of three independent channels has 0.67 of their spread


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ValueError, match="one shape"):
        noise(base(1), base(2))
    with pytest.raises(UserError, match="at least 16"):
        noise(torch.rand(1, 3, 12, 64), torch.rand(1, 3, 12, 64))


def test_evaluation_has_the_column_against_the_enlarged_lq(tmp_path):
    root = make_sets(tmp_path, n=2, size=64)
    data = DataOptions.model_validate(
        {"type": "multi_gt", "dataroot_gt": root / "images", "degradation": {"preset": "bicubic"}, "dataroot_labels": root / "labels"}
    )

    class Noisy(torch.nn.Module):
        def __init__(self, amount):
            super().__init__()
            self.amount = torch.nn.Parameter(torch.tensor(amount))

        def forward(self, lq):
            big = F.interpolate(lq, scale_factor=2, mode="bicubic")
            return big + self.amount * white(big)

    quiet, loud = (evaluate(Noisy(amount), data, ["psnr"], 2, save_dir=tmp_path / str(amount)) for amount in (0.0, 0.03))
    assert quiet.mean("noise") < 0.05 and loud.mean("noise") > 0.7
    column = loud.columns["noise"]
    assert column.lower_better and column.against == "none" and "enlarged LQ" in column.identity
    again = evaluate_folder(tmp_path / "0.03", data, ["psnr"], 2)
    np.testing.assert_allclose(again.values["noise"], loud.values["noise"], rtol=1e-5)
    without = evaluate_folder(tmp_path / "0.03", data.model_copy(update={"degradation": None}), ["psnr"], 2)
    assert "noise" not in without.columns


def test_against_the_lq_places_weigh_by_how_smooth_they_are():
    lq = base(1, 16)
    x = rounded(F.interpolate(lq, scale_factor=2, mode="bicubic") + 0.02 * white(torch.zeros(1, 3, 32, 32)))
    big = enlarged(lq, 2)
    luma = np.pad((big[0].permute(1, 2, 0).double().numpy() @ [0.299, 0.587, 0.114]), 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(luma, (5, 5))
    weights = 1 / (np.nanvar(windows, axis=(2, 3)) + 1e-4) ** 2
    change, _, fine = (part[0].double().numpy() for part in _left(x, big))
    weights /= weights.mean()
    expected = (weights * fine**2).mean() / ((weights * change**2).mean() + (0.5 / 255) ** 2)
    alike = 1 - noise(x, big).item()
    periodic = 1 - alike / (1 - (fine**2).mean() / ((change**2).mean() + (0.5 / 255) ** 2))
    assert noise_of_enlarged(x, lq, 2).item() == pytest.approx(1 - (1 - expected) * (1 - periodic), abs=2e-3)
    assert abs(expected - (fine**2).mean() / (change**2).mean()) > 0.02, "or the weights would not matter here"


def test_against_the_lq_noise_is_found_where_it_is_smooth_and_detail_of_textures_forgiven():
    smooth = F.interpolate(torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)), (32, 16), mode="bilinear")
    rough = (0.5 + 0.2 * white(smooth)).clamp(0, 1)
    lq = torch.cat([smooth, rough], dim=3)
    big, hidden, seen = enlarged(lq, 4), torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128)
    hidden[..., 72:], seen[..., :56] = white(hidden[..., 72:]), white(seen[..., :56])
    alike = [noise(rounded(big + 0.03 * change), big).item() for change in (hidden, seen)]
    weighted = [noise_of_enlarged(rounded(big + 0.03 * change), lq, 4).item() for change in (hidden, seen)]
    assert min(alike) > 0.7 and weighted[1] > 0.7 and weighted[0] < 0.5


def test_the_enlarged_lq_is_rounded_as_an_image_is():
    big = enlarged(torch.rand(1, 3, 8, 8), 4)
    assert big.shape == (1, 3, 32, 32)
    torch.testing.assert_close(big * 255, (big * 255).round())


# ---------------------------------------------------------------- against the base network

LORA = {"lora": {"rank": 2}}
REWARD = {"train": {"reward_opt": [{"metric": "nano", "weight": 1.0}], "optim_g": {"lr": 0.01}}}


@pytest.fixture
def pretrained(tmp_path):
    """The option for a start from weights of another seed than the run's."""
    file = tmp_path / "base.safetensors"
    save_weights(file, starting_network(tiny(tmp_path, "other", {"manual_seed": 11})).state_dict(), {})
    return {"path": {"pretrain_network_g": str(file)}}


def validations(folder):
    return {line["step"]: line["val"] for line in lines(folder) if "val" in line}


@pytest.mark.parametrize("changes", [(LORA, REWARD), (REWARD,), (LORA, {"train": {"ema_decay": 0.5}})])
def test_validations_compare_with_the_network_that_training_started_from(changes, tmp_path, pretrained):
    held_out = validation(tmp_path)
    folder = run(tmp_path, "run", pretrained, *changes, held_out)
    found = validations(folder)
    assert found[0]["noise_base"] == 0 and found[3]["noise_base"] > 0
    options = tiny(tmp_path, "run", pretrained, *changes, held_out)
    net, base = load_trained(folder), starting_network(options).eval()
    shares = []
    for i in range(4):
        lq = to_tensor(low_quality(load_sets(options.datasets.val, 2)[0], i, options.datasets.val, 2))[None]
        with torch.no_grad():
            shares.append(noise(*(rounded(network(lq)) for network in (net, base))).item())
    assert found[6]["noise_base"] == pytest.approx(np.mean(shares), rel=1e-3)
    evaluation = run_test(options)
    assert evaluation.mean("noise_base") == pytest.approx(found[6]["noise_base"], rel=1e-6)
    assert "base network" in evaluation.columns["noise_base"].identity
    alarms = [line for line in (folder / "train.log").read_text().splitlines() if " alarm at step " in line]
    assert len(alarms) == sum(value["noise_base"] > ALARM for value in found.values()) == (2 if changes == (REWARD,) else len(alarms))


def test_a_resumed_run_compares_with_the_same_base(tmp_path, pretrained):
    parts = (pretrained, LORA, REWARD, validation(tmp_path))
    whole = run(tmp_path, "whole", *parts)
    run(tmp_path, "halves", *parts, {"train": {"total_iter": 3}})
    halves = run(tmp_path, "halves", *parts)
    assert validations(halves)[6] == validations(whole)[6]


def test_runs_without_adapter_or_reward_have_no_such_column(tmp_path, pretrained):
    folder = run(tmp_path, "run", pretrained, validation(tmp_path), {"train": {"total_iter": 1}})
    assert "noise_base" not in validations(folder)[1] and "noise" in validations(folder)[1]
    assert load_base(folder) is None


def test_a_run_whose_start_is_gone_is_evaluated_without_the_column(tmp_path, pretrained):
    parts = (pretrained, REWARD, validation(tmp_path), {"train": {"total_iter": 1}})
    folder = run(tmp_path, "run", *parts)
    assert load_base(folder) is not None
    (tmp_path / "base.safetensors").unlink()
    assert load_base(folder) is None and "noise_base" not in run_test(tiny(tmp_path, "run", *parts)).columns


def test_the_base_is_the_network_without_its_adapter_and_is_asked_once(tmp_path, monkeypatch):
    options = tiny(tmp_path, "run", validation(tmp_path))
    plain = starting_network(options).eval()
    net = inject(starting_network(options), LoraOptions(rank=2), "SwinIR").eval()
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    set_scale(net, 0.7)
    lq, passes = torch.rand(1, 3, 16, 16), []
    net.register_forward_pre_hook(lambda *_: passes.append(1))
    base = Base()
    expected = to_uint8(plain(lq).detach().clamp(0, 1)[0])
    for _ in range(2):
        np.testing.assert_array_equal(base.output(net, lq, "a"), expected)
    assert len(passes) == 1 and {s for _, layer in lora_layers(net) for s in layer.scaling.values()} == {0.7}
    monkeypatch.setattr("sr_iqa.inference.base.REMEMBERED", 0)
    forgetful = Base()
    for _ in range(2):
        np.testing.assert_array_equal(forgetful.output(net, lq, "a"), expected)
    assert len(passes) == 3


def test_a_dial_turned_to_the_base_has_no_noise_against_it(tmp_path):
    options = tiny(tmp_path, "run", validation(tmp_path))
    net = inject(starting_network(options), LoraOptions(rank=2), "SwinIR").eval()
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    found = []
    for scale in (0.0, 1.0):
        set_scale(net, scale)
        found.append(evaluate(net, options.datasets.val, ["psnr"], 2).mean("noise_base"))
    assert found[0] == 0 < found[1]


def test_reward_runs_are_compared_on_the_columns_of_both():
    lora = curve((0, 40, 5, 0.1), (40, 45, 5, 0.1), (80, 50, 5, 0.2))
    for point in lora:
        point["metrics"]["noise_base"] = 0.1
    comparison = study(lora=lora)["reward_comparison"]
    assert comparison["left_out"] == ["niqe", "grid"] and list(comparison["over_range"][0]) == ["niqe", "grid"]

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sr_iqa.config.models import DataOptions
from sr_iqa.errors import UserError
from sr_iqa.evaluation import evaluate, evaluate_folder
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.noise import ALARM, _repeated, _unexplained, enlarged, noise, noise_map

from .helpers import make_sets, picture


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


def test_the_enlarged_lq_is_rounded_as_an_image_is():
    big = enlarged(torch.rand(1, 3, 8, 8), 4)
    assert big.shape == (1, 3, 32, 32)
    torch.testing.assert_close(big * 255, (big * 255).round())

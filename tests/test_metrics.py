import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from sr_iqa.errors import UserError
from sr_iqa.iqa.catalog import CATALOG, MetricInfo
from sr_iqa.iqa.metrics import Metric, create_metric, list_metrics, metric_info
from sr_iqa.threads import in_threads

from .helpers import picture

CORRECTED = {"dmm"}  # pyiqa calls it higher-is-better, yet it is a distance


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches; returns pyiqa's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "hub" / "pyiqa"


def images(n=2, size=96):
    return torch.from_numpy(np.stack([picture(size, seed) for seed in range(n)])).permute(0, 3, 1, 2).float() / 255


def noisy(x, sigma=0.05):
    """With noise, on the 8-bit grid as saved images are (pyiqa's SSIM rounds to it)."""
    return ((x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1) * 255).round() / 255


@pytest.fixture(scope="session")
def musiq():
    return create_metric("musiq", random_weights=True)


def run_python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, timeout=120)


# ---------------------------------------------------------------- the catalogue


def pyiqa_range(text):
    """'~0, ~100' -> (0.0, 100.0); an open end is infinite."""
    if ":" in text:
        return (0.0, 1.0)
    low, high = (part.strip().lstrip("~") for part in text.split(","))
    return float(low or "-inf"), float(high or "inf")


def test_catalogue_is_pyiqas_own():
    from pyiqa.api_helpers import list_models
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    ours = {name: info for name, info in CATALOG.items() if name not in ("nano", "nano_robust")}
    assert set(ours) == set(list_models())
    for name, info in ours.items():
        theirs = DEFAULT_CONFIGS[name]
        assert info.mode == theirs["metric_mode"], name
        assert info.value_range == pyiqa_range(theirs["score_range"]), name
        assert info.lower_better == (theirs.get("lower_better", False) or name in CORRECTED), name


def test_listing_needs_no_pyiqa_and_is_sorted():
    code = "import sys; from sr_iqa.iqa.metrics import list_metrics; [i.weights for i in list_metrics()]; sys.exit('pyiqa' in sys.modules)"
    assert run_python(code).returncode == 0
    names = [info.name for info in list_metrics()]
    assert names == sorted(names) and len(names) == 108


def test_weights_column(caches):
    assert metric_info("psnr").weights == "none"
    assert metric_info("niqe").weights == "shipped"
    assert metric_info("musiq").weights == "missing: musiq_koniq_ckpt-e95806b9.pth"
    assert metric_info("liqe").weights == "missing: ViT-B-32.pt, liqe_koniq.pt"
    assert metric_info("qalign").weights == "missing: q-future/one-align"
    caches.mkdir(parents=True)
    (caches / "musiq_koniq_ckpt-e95806b9.pth").touch()
    assert metric_info("musiq").weights == "present"


def test_unknown_name_suggests():
    with pytest.raises(UserError, match="did you mean musiq"):
        metric_info("muisq")


@pytest.mark.parametrize("name", ["fid", "clipscore", "fgresq_pair"])
def test_metrics_of_other_things_than_an_image_are_refused(name):
    with pytest.raises(UserError, match="cannot be used here"):
        create_metric(name)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("cw_ssim", "fsim", "vif", "vsi", "mad", "msswd")]


@pytest.mark.parametrize("name", ["psnr", "psnry", "ssim", "ms_ssim", "gmsd", "nlpd", "dmm", *SLOW])
def test_direction_more_noise_is_worse(name):
    x = images(1, size={"ms_ssim": 192, "dmm": 128}.get(name, 96))
    metric = create_metric(name, random_weights=bool(metric_info(name).files))
    with torch.no_grad():
        scores = [metric.signed(noisy(x, sigma), x).item() for sigma in (0.02, 0.1)]
    assert scores[0] > scores[1]


# ---------------------------------------------------------------- values


def test_psnr_is_numpys():
    x = images()
    y = noisy(x)
    expected = -10 * np.log10(((x - y).numpy().astype(np.float64) ** 2).mean((1, 2, 3)))
    np.testing.assert_allclose(create_metric("psnr")(y, x).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(11, 11), (64, 75), (139, 200)])
def test_ssimc_is_pyiqas_and_has_its_gradient(size):
    import pyiqa.archs.ssim_arch

    theirs = pyiqa.archs.ssim_arch.SSIM(test_y_channel=False)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    y = (x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1).requires_grad_()
    ours = create_metric("ssimc")(y, x)
    expected = theirs(y, x).float()
    assert torch.allclose(ours, expected, atol=1e-6)
    gradients = [torch.autograd.grad(value.sum(), y)[0] for value in (ours, expected)]
    assert torch.allclose(*gradients, atol=1e-7)


def test_ssimc_is_scikit_images_on_rgb():
    from skimage.metrics import structural_similarity

    x = images()
    y = noisy(x)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "channel_axis": 0}
    expected = [structural_similarity(a, b, **settings) for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True)]
    np.testing.assert_allclose(create_metric("ssimc")(y, x).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["psnr", "ssimc", "lpips"])
def test_one_image_against_many_references(name):
    metric = create_metric(name, random_weights=name == "lpips")
    refs = torch.stack([noisy(x, 0.02 * i) for i, x in enumerate(images(3), 1)])
    x = images(1)
    one_by_one = torch.cat([metric(x, ref[None]) for ref in refs])
    torch.testing.assert_close(metric(x, refs), one_by_one)
    torch.testing.assert_close(metric(x.expand(3, -1, -1, -1), refs), one_by_one)
    with pytest.raises(ValueError, match="references shaped like"):
        metric(images(2), refs)


@pytest.mark.parametrize("name", ["nano", "ssimc", "lpips", "psnr", "psnry", "niqe", pytest.param("musiq", marks=pytest.mark.slow)])
def test_threads_may_share_a_metric(name):
    metric = create_metric(name, random_weights=name in ("lpips", "musiq"))
    assert metric.threadable
    pairs = [(noisy(x[None], 0.05 * i), x[None]) for i, x in enumerate(images(6), 1)]
    expected = [metric(*pair) for pair in pairs]
    for found, value in zip(in_threads(lambda pair: metric(*pair), 5 * pairs, workers=4), 5 * expected, strict=True):
        torch.testing.assert_close(found, value)


def test_a_metric_with_state_is_not_shared_by_threads():
    assert not create_metric("cnniqa", random_weights=True).threadable


def test_ssim_is_on_luma():
    x = images(1)
    y = x.clone()
    y[:, 2] = noisy(y[:, 2])  # blue hardly counts in luma
    assert create_metric("ssim")(y, x) > create_metric("ssimc")(y, x) + 0.05


@pytest.mark.parametrize("name", ["nano", "niqe", "lpips", "musiq", "topiq_nr", "brisque"])
@pytest.mark.parametrize(("suffix", "content"), [(".safetensors", b""), (".safetensors", b"x" * 100), (".pth", b"x" * 100), (".pth", None)])
def test_weight_files_that_hold_something_else_are_named(tmp_path, name, suffix, content):
    path = tmp_path / f"other{suffix}"
    if content is None:
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        create_metric(name, weights=path)


def test_niqe_of_an_image_without_texture_is_nan_and_spares_the_others():
    niqe, images = create_metric("niqe"), torch.rand(3, 3, 96, 96)
    images[1] = 0.5
    values = niqe(images)
    assert values.isnan().tolist() == [False, True, False]
    assert torch.equal(values[[0, 2]], torch.cat([niqe(images[:1]), niqe(images[2:])]))


def test_niqe_is_basicsrs():
    from sr_iqa.archs.basicsr_bridge import import_basicsr

    import_basicsr()
    from basicsr.metrics.niqe import calculate_niqe

    pixels = picture(192)
    metric = create_metric("niqe")
    metric._net.net.color_space = "ycbcr"  # BasicSR's luma; pyiqa's default is that of YIQ
    value = metric(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255).item()
    expected = float(np.squeeze(calculate_niqe(pixels[..., ::-1], crop_border=0, input_order="HWC", convert_to="y")))
    assert value == pytest.approx(expected, rel=0.01)


def test_lower_is_better_is_negated_and_only_that():
    x = images(1)
    niqe, psnr = create_metric("niqe"), create_metric("psnr")
    assert niqe.lower_better and torch.equal(niqe.signed(x), -niqe(x))
    assert torch.equal(psnr.signed(noisy(x), x), psnr(noisy(x), x))


@pytest.mark.parametrize("name", ["psnr", "ssimc", "niqe", "piqe", pytest.param("musiq", marks=pytest.mark.slow)])
def test_a_batch_is_its_images(name, musiq):
    metric = musiq if name == "musiq" else create_metric(name)
    x = images(2)
    ref = noisy(x)
    with torch.no_grad():
        batch = metric(x, ref)
        single = torch.cat([metric(x[i : i + 1], ref[i : i + 1]) for i in range(2)])
    assert batch.shape == (2,) and batch.dtype == torch.float32
    torch.testing.assert_close(batch, single, rtol=1e-5, atol=1e-5)


class Brightness(nn.Module):
    """A metric that insists on single images and writes into its input, as A-FINE does."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        assert len(x) == 1
        x.mul_(2)
        return (self.gain * x).mean((1, 2, 3))


def test_metrics_of_one_image_are_looped_and_cannot_change_the_input():
    metric = Metric(MetricInfo("b", "NR", False, (0, 2), one_image=True), Brightness(), "b")
    x = images(3)
    before = x.clone()
    torch.testing.assert_close(metric(x), 2 * before.mean((1, 2, 3)))
    assert torch.equal(x, before)


def test_autocast_changes_nothing():
    x = images(1, 64)
    learned = create_metric("cnniqa", random_weights=True)
    plain = learned(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learned(x), plain)
    assert create_metric("psnr")(x.bfloat16(), x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("info", "size", "message"),
    [
        (metric_info("ssim"), 8, "at least 11"),
        (metric_info("niqe"), 64, "at least 96"),
        (MetricInfo("b", "NR", False, (0, 1), multiple=32), 100, "multiples of 32"),
    ],
)
def test_sizes_it_cannot_take_are_said(info, size, message):
    metric = Metric(info, nn.Identity(), info.name)
    x = torch.rand(1, 3, size, size)
    with pytest.raises(UserError, match=message):
        metric(x, x)


def test_wrong_shapes_are_said():
    with pytest.raises(ValueError, match="references shaped like"):
        create_metric("psnr")(images())
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        create_metric("psnr")(images()[0])


# ---------------------------------------------------------------- frozen, in eval mode, and without side effects


def test_frozen_in_eval_and_out_of_reach(musiq):
    metric = musiq

    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.q = nn.Conv2d(3, 3, 1), metric

    parent = Parent().train()
    assert set(parent.state_dict()) == {"net.weight", "net.bias"}
    assert metric.parameters() and not any(p.requires_grad for p in metric.parameters())
    x = images(1, 64).requires_grad_(True)
    metric(x).sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is None for p in metric.parameters())


DEEP = [pytest.param(n, marks=pytest.mark.slow) for n in ("nima", "topiq_nr", "liqe", "arniqa", "paq2piq", "lpips", "stlpips", "topiq_fr")]


@pytest.mark.parametrize("name", ["psnr", "ssim", "gmsd", "niqe", "clipiqa", *DEEP])
def test_gradient_reaches_the_image(name):
    info = metric_info(name)
    x = images(1, max(info.smallest, 96)).requires_grad_(True)
    metric = create_metric(name, random_weights=info.weights.startswith("missing"))
    metric(x, noisy(x.detach())).sum().backward()
    assert info.differentiable and x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_a_metric_without_gradient_gives_none():
    x = images(1).requires_grad_(True)
    assert not create_metric("piqe")(x).requires_grad


def test_building_and_calling_leave_no_trace():
    functions = (torch.load, torch.jit.load, torch.hub.download_url_to_file, nn.Module.load_state_dict)
    flags = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    torch.backends.cudnn.benchmark = True
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    try:
        create_metric("cnniqa", random_weights=True)(images(1, 64))
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numpy_state).all()
    assert functions == (torch.load, torch.jit.load, torch.hub.download_url_to_file, nn.Module.load_state_dict)


def test_random_weights_are_always_the_same():
    first, second = (create_metric("cnniqa", random_weights=True).parameters() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

"""The metrics of the literature, each built in its real layout, with random weights where files are needed, and run on the CPU."""

import pytest
import torch

from sr_iqa import cli
from sr_iqa.errors import UserError
from sr_iqa.iqa.catalog import CATALOG
from sr_iqa.iqa.metrics import create_metric, metric_info

from .test_metrics import images, noisy

SLOW, FAST = True, False
METRICS = {
    # name: mode, lower is better, gradient, slow to build or run
    "psnr": ("FR", False, True, FAST),
    "ssim": ("FR", False, True, FAST),
    "ms_ssim": ("FR", False, True, FAST),
    "fsim": ("FR", False, True, SLOW),
    "vsi": ("FR", False, True, SLOW),
    "vif": ("FR", False, True, SLOW),
    "gmsd": ("FR", True, True, FAST),
    "lpips": ("FR", True, True, FAST),
    "stlpips": ("FR", True, True, SLOW),
    "dists": ("FR", True, True, SLOW),
    "ahiq": ("FR", False, True, SLOW),
    "ckdn": ("FR", False, True, SLOW),
    "topiq_fr": ("FR", False, True, SLOW),
    "topiq_nr": ("NR", False, True, SLOW),
    "niqe": ("NR", True, True, FAST),
    "brisque": ("NR", True, True, FAST),
    "musiq": ("NR", False, True, SLOW),
    "maniqa": ("NR", False, True, SLOW),
    "clipiqa": ("NR", False, True, SLOW),
    "nima": ("NR", False, True, SLOW),
    "paq2piq": ("NR", False, True, SLOW),
    "liqe": ("NR", False, True, SLOW),
    "arniqa": ("NR", False, True, SLOW),
    "afine_nr": ("NR", True, None, SLOW),  # None: as the catalogue says
    "afine_fr": ("FR", True, None, SLOW),
    "afine_all": ("FR", True, None, SLOW),
}
NOT_HERE = {"qalign": "missing: q-future/one-align"}
"""What is too large to build for a test: 8 billion parameters."""
CLASSIC = ("psnr", "ssim", "ms_ssim", "fsim", "vsi", "vif", "gmsd", "niqe")
"""Those whose values mean something without weight files."""
CONFINED = ("gmsd", "lpips", "dists", "clipiqa", "nima", "liqe")
"""Those whose last layer keeps to the catalogue's range, whatever the weights."""
BOUNDED = {"psnr": (0, 80), "niqe": (0, 100)}
"""Where the catalogue's range is of another kind than the values' (psnr) or to be seen in any image."""


def parameters(names):
    return [pytest.param(name, marks=pytest.mark.slow) if METRICS[name][3] else name for name in names]


@pytest.fixture(scope="module")
def built():
    """Metrics by name, one at a time: some take gigabytes."""
    kept = {}

    def build(name):
        if name not in kept:
            kept.clear()
            kept[name] = create_metric(name, random_weights=bool(metric_info(name).files) and name != "niqe")
            for attribute in ("crops", "test_sample"):  # AHIQ and MANIQA look at twenty crops of an image
                if hasattr(kept[name]._net, attribute):
                    setattr(kept[name]._net, attribute, 1)
        return kept[name]

    return build


@pytest.fixture
def nothing_downloaded(tmp_path, monkeypatch):
    """As on a machine without weight files."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    for variable, place in (("TORCH_HOME", tmp_path), ("HF_HOME", tmp_path / "hf"), ("HOME", tmp_path)):
        monkeypatch.setenv(variable, str(place))


def size_of(name):
    return {"ms_ssim": 192, "liqe": 224, "ahiq": 224, "maniqa": 224, "afine_nr": 64, "afine_fr": 64, "afine_all": 64}.get(name, 128)


@pytest.mark.parametrize("name", parameters(METRICS))
def test_it_is_built_runs_and_keeps_what_the_catalogue_says(name, built):
    mode, lower, gradient, _ = METRICS[name]
    info, metric = metric_info(name), built(name)
    assert (info.mode, info.lower_better) == (metric.mode, metric.lower_better) == (mode, lower)
    gradient = info.differentiable if gradient is None else gradient
    assert info.differentiable == gradient
    x = images(2, size_of(name))
    y = noisy(x).requires_grad_(True)
    values = metric(y, x)
    assert values.shape == (2,) and values.dtype == torch.float32 and values.isfinite().all()
    assert torch.equal(metric.signed(y.detach(), x), -metric(y.detach(), x) if lower else metric(y.detach(), x))
    if name in CONFINED:
        assert all(info.value_range[0] <= value <= info.value_range[1] for value in values.tolist())
    assert values.requires_grad == gradient
    if gradient:
        values.sum().backward()
        assert y.grad.isfinite().all() and y.grad.flatten(1).abs().sum(1).min() > 0
        assert not any(parameter.requires_grad for parameter in metric.parameters())


@pytest.mark.parametrize("name", parameters(CLASSIC))
def test_direction_and_range_of_those_whose_values_mean_something(name, built):
    metric, x = built(name), images(1, 192)
    with torch.no_grad():
        values = [metric(noisy(x, sigma), x).item() for sigma in (0.02, 0.05, 0.15)]
    worse = sorted(values, reverse=not metric.lower_better)
    assert values == worse and len(set(values)) == 3
    low, high = BOUNDED.get(name, metric.value_range)
    assert all(low <= value <= high for value in values)


@pytest.mark.parametrize(
    "name", parameters(name for name, entry in METRICS.items() if entry[0] == "FR" and name not in ("afine_fr", "afine_all"))
)
def test_equal_images_score_best(name, built):
    if name in ("ckdn", "ahiq", "topiq_fr", "stlpips"):
        pytest.skip("a head with random weights, of any sign, has no best value")
    metric, x = built(name), images(1, size_of(name))
    with torch.no_grad():
        same, other = (metric.signed(image, x).item() for image in (x, noisy(x, 0.1)))
    assert same > other


@pytest.mark.parametrize(
    "name", ["nima", "musiq", "topiq_nr", "liqe", "clipiqa", "arniqa", "qalign", "afine_nr", "afine_all", "brisque", "dists"]
)
def test_the_list_says_what_is_missing_here(name, nothing_downloaded, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sr-iqa", "iqa", "list", name])
    with pytest.raises(SystemExit) as end:
        cli.main()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[0] == name)
    assert not end.value.code and "missing: " + CATALOG[name].files[0].name in line
    if CATALOG[name].needs:
        assert line.rstrip().endswith(CATALOG[name].needs)


def test_brisque_reads_vectors_and_nothing_else(tmp_path):
    vectors = (torch.randn(5), torch.rand(5, 36))
    torch.save(vectors, tmp_path / "svm.pth")
    metric, x = create_metric("brisque", weights=tmp_path / "svm.pth"), images(1)
    assert metric(x).isfinite().all() and metric(x) != create_metric("brisque", random_weights=True)(x)
    for content in ((torch.randn(5), torch.rand(4, 36)), {"params": vectors}, torch.rand(3)):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match="other.pth does not hold BRISQUE's"):
            create_metric("brisque", weights=tmp_path / "other.pth")


def test_what_is_not_built_here_is_listed_with_the_reason(nothing_downloaded):
    for name, reason in NOT_HERE.items():
        assert metric_info(name).weights == reason and metric_info(name).needs
    assert {info.name for info in CATALOG.values() if info.refused} == {
        *("fid", "sfid", "fid_dinov2", "inception_score", "clipscore", "fgresq_pair")
    }

"""Our MUSIQ against pyiqa's, with the same random weights. Thin images are the cheapest: every image is enlarged to 384 px."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from sr_iqa.errors import UserError
from sr_iqa.iqa import musiq
from sr_iqa.iqa.metrics import MUSIQS, create_metric, metric_info
from sr_iqa.iqa.musiq import MUSIQ, convert, random_musiq
from sr_iqa.iqa.weights import MissingWeights, file_fingerprint

CLASSES = (1, 10)


def pyiqas(classes):
    """pyiqa's network; norms, biases and embeddings, which start as ones, zeros or nearly zero, are drawn too."""
    from pyiqa.archs.musiq_arch import MUSIQ as PyiqasMUSIQ

    torch.manual_seed(0)
    net = PyiqasMUSIQ(pretrained=False, num_class=classes).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1 or name.endswith(("_emb", "cls")):
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return net


@pytest.fixture(scope="module")
def pairs():
    """classes -> pyiqa's network and ours."""
    found = {}
    for classes in CLASSES:
        theirs, ours = pyiqas(classes), MUSIQ(classes).eval().requires_grad_(False)
        ours.load_state_dict(convert(theirs.state_dict()))
        found[classes] = theirs, ours
    return found


def images(n, *size):
    """Noise of rising contrast."""
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 1, n)[:, None, None, None]


def gradient(net, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x).sum(), x)[0]


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize(
    ("classes", "n", "height", "width"),
    [(1, 2, 96, 128), (1, 1, 256, 256), (1, 1, 97, 131), (1, 1, 31, 200), (1, 1, 224, 224), (10, 2, 96, 128), (10, 1, 400, 65)],
)
def test_scores_are_pyiqas(pairs, classes, n, height, width):
    theirs, ours = pairs[classes]
    x = images(n, height, width)
    x[:, :, : height // 3, : width // 2] = 0.4  # flat
    with torch.no_grad():
        expected, scores = theirs(x)[:, 0], ours(x)
    assert scores.shape == (n,) and scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    assert n == 1 or expected.diff().abs() > 1e-3  # the images matter


@pytest.mark.parametrize("classes", CLASSES)
def test_gradient_is_pyiqas(pairs, classes):
    """To what rounding allows: pyiqa's own moves by 1e-3 if 1e-7 is added to the pixels, and by more than half in flat areas, where all
    values of a pool's window are equal but for rounding.
    """
    theirs, ours = pairs[classes]
    x = images(1, 97, 70)
    assert distance(gradient(ours, x), gradient(theirs, x)) < 5e-3


def test_in_float64_scores_and_gradient_are_the_same(pairs):
    theirs, ours = pyiqas(1).double(), MUSIQ().double().eval().requires_grad_(False)
    ours.load_state_dict(convert(theirs.state_dict()))
    x = images(1, 40, 97).double()
    assert torch.allclose(ours(x), theirs(x)[:, 0], rtol=0, atol=1e-11)
    assert distance(gradient(ours, x), gradient(theirs, x)) < 1e-9


def test_a_batch_is_its_images(pairs):
    ours = pairs[1][1]
    x = images(2, 24, 130)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), torch.cat([ours(x[:1]), ours(x[1:])]), rtol=0, atol=1e-5)


def test_positions_are_those_of_nearest_interpolation():
    """Where the count does not divide ten, rounding decides (205 patches, say)."""
    for count in range(1, 420):
        expected = F.interpolate(torch.arange(10.0)[None, None], count, mode="nearest").flatten().long()
        assert torch.equal(musiq._hashed(count, torch.device("cpu")), expected), count


def test_there_is_no_training_mode(pairs):
    net = random_musiq()
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(RuntimeError, match="no training mode"):
        net.train()(images(1, 32, 32))


def test_close_under_bfloat16_autocast(pairs):
    ours = pairs[1][1]
    x = images(2, 24, 130)
    with torch.no_grad():
        plain = ours(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = ours(x)
    assert rough.dtype == torch.float32 and (rough - plain).abs().max() < 0.03


def test_what_inference_mode_leaves_in_the_caches_serves_gradients(pairs):
    ours = pairs[1][1]
    musiq.resize_matrix.cache_clear()
    x = images(1, 24, 131)
    with torch.inference_mode():
        ours(x)
    assert gradient(ours, x).abs().sum() > 0


@pytest.mark.slow
def test_compiles_as_one_graph(monkeypatch):
    monkeypatch.setattr(musiq, "DEPTH", 2)
    net, x = random_musiq().double(), images(1, 24, 130).double()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), net(x), atol=1e-9)
    assert distance(gradient(compiled, x), gradient(net, x)) < 1e-9


# ---------------------------------------------------------------- through the door


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """pyiqa's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "pyiqa"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(("name", "classes"), [("musiq-spaq", 1), ("musiq-ava", 10)])
def test_the_door_reads_pyiqas_file_and_names_the_code(pairs, cache, name, classes):
    theirs = pairs[classes][0]
    place = metric_info(name).files[0].path
    torch.save(theirs.state_dict(), place)
    metric = create_metric(name)
    assert metric.identity.startswith(f"{name} (sr_iqa ") and file_fingerprint(place) in metric.identity
    x = images(1, 24, 130)
    with torch.no_grad():
        torch.testing.assert_close(metric(x), theirs(x)[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", ["head.weight", "transformer_encoder.transformer.encoderblock_3.attention.key.bias", "conv_root.weight"])
def test_a_file_without_one_of_the_parameters_is_refused(pairs, tmp_path, key):
    state = pairs[1][0].state_dict()
    del state[key]
    torch.save({"params": state}, tmp_path / "part.pth")
    with pytest.raises(UserError, match="does not hold the weights of MUSIQ"):
        create_metric("musiq", weights=tmp_path / "part.pth")


def test_damaged_foreign_and_absent_files_are_said(pairs, cache):
    place = metric_info("musiq").files[0].path
    with pytest.raises(MissingWeights, match="sr-iqa iqa fetch musiq"):
        create_metric("musiq")
    for content in (b"half a file", b""):
        place.write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            create_metric("musiq")
    torch.save(pairs[10][0].state_dict(), place)
    with pytest.raises(UserError, match="with 1 output: .*another network"):
        create_metric("musiq")


def test_random_weights_are_always_the_same_and_disturb_nothing():
    state = torch.get_rng_state()
    first, second = (create_metric("musiq-ava", random_weights=True).parameters() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and torch.equal(torch.get_rng_state(), state)


def test_pyiqa_is_not_imported():
    code = (
        "import sys, torch\nfrom sr_iqa.iqa.metrics import create_metric\n"
        "create_metric('musiq', random_weights=True)(torch.rand(1, 3, 32, 32))\nsys.exit('pyiqa' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120).returncode == 0


def test_all_four_are_ours():
    assert set(MUSIQS) == {name for name in MUSIQS if "musiq" in metric_info(name).files[0].name}

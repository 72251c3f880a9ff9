"""Our LPIPS against pyiqa's, with the same random weights."""

import pytest
import torch
from torchvision import models

from sr_iqa.errors import UserError
from sr_iqa.iqa.lpips import LPIPS, convert, load_lpips, random_lpips
from sr_iqa.iqa.metrics import create_metric, metric_info
from sr_iqa.iqa.pyiqa_bridge import build_pyiqa

NETS = ["alex", pytest.param("vgg", marks=pytest.mark.slow)]


def pyiqas(net):
    return build_pyiqa({"type": "LPIPS", "net": net, "version": "0.1"}, random_weights=True)


def images(n, *size, seed=0):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("size", [(64, 64), (70, 131)])
def test_values_and_gradients_are_pyiqas(net, size):
    theirs = pyiqas(net)
    ours = LPIPS(net).eval().requires_grad_(False)
    ours.load_state_dict(convert(theirs.state_dict()))
    x, ref = images(2, *size).requires_grad_(), images(2, *size, seed=1)
    values, expected = ours(x, ref), theirs(x, ref)[:, 0]
    assert values.shape == (2,) and expected.diff().abs() > 1e-6
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-7)
    gradients = [torch.autograd.grad(value.sum(), x)[0] for value in (values, expected)]
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_equal_images_have_no_distance():
    x = images(1, 40, 40)
    assert random_lpips("alex")(x, x) == 0


def test_the_gradient_is_finite_where_all_features_are_zero():
    net = random_lpips("alex")
    net.trunk[0].bias.fill_(-1e3)  # every ReLU of the first layer gives 0, and what follows is constant
    x = images(1, 40, 40).requires_grad_()
    assert torch.autograd.grad(net(x, images(1, 40, 40, seed=1)).sum(), x)[0].isfinite().all()


def test_weight_files_in_their_places(tmp_path, monkeypatch):
    """torchvision's AlexNet and LPIPS's five vectors, each in a file of its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = pyiqas("alex")
    trunk, heads = (file.path for file in metric_info("lpips").files)
    for path in (trunk, heads):
        path.parent.mkdir(parents=True)
    state = models.alexnet().state_dict()
    torch.save(state, trunk)
    torch.save(
        {name: value for name, value in theirs.state_dict().items() if name.startswith("lin") and not name.startswith("lins")}, heads
    )
    metric = create_metric("lpips")
    slices = {name.split(".", 2)[2]: name for name in theirs.state_dict() if name.startswith("net.slice")}
    theirs.load_state_dict({slices[name]: state[f"features.{name}"] for name in slices}, strict=False)
    x, ref = images(1, 64, 64), images(1, 64, 64, seed=1)
    torch.testing.assert_close(metric(x, ref), theirs(x, ref)[:, 0], rtol=1e-5, atol=1e-7)
    assert "sr_iqa" in metric.identity and "random" not in metric.identity


def test_one_file_of_pyiqas_layout(tmp_path):
    theirs = pyiqas("alex")
    torch.save(theirs.state_dict(), tmp_path / "lpips.pth")
    x, ref = images(1, 64, 64), images(1, 64, 64, seed=1)
    torch.testing.assert_close(load_lpips("alex", [tmp_path / "lpips.pth"])(x, ref), theirs(x, ref)[:, 0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("content", [b"", {"features.0.weight": torch.zeros(1)}, {"something": 1}])
def test_wrong_files_are_refused(tmp_path, content):
    path = tmp_path / "wrong.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=r"wrong\.pth: these are not the weights of LPIPS"):
        load_lpips("alex", [path])

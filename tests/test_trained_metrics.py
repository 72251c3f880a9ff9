import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sr_iqa.errors import UserError
from sr_iqa.iqa.metrics import create_metric, find_metrics, metric_info
from sr_iqa.iqa.trained import build_network, load_metric, save_metric

from .helpers import picture

NANO = {"architecture": "nano", "mode": "NR", "range": [0, 100], "smallest": 16}


def images(n=2, size=64):
    return torch.from_numpy(np.stack([picture(size, seed) for seed in range(n)])).permute(0, 3, 1, 2).float() / 255


def changed(net):
    """With other weights, as after training."""
    with torch.no_grad():
        for k, parameter in enumerate(net.parameters()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k)))
    return net


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("musiq", "topiq_nr", "dists", "topiq_fr", "timm:vit_tiny_patch16_224")]


@pytest.mark.parametrize("architecture", ["nano", "cnniqa", "lpips", "timm:resnet10t", *SLOW])
def test_what_is_saved_is_what_is_loaded(architecture, tmp_path):
    full = architecture in ("lpips", "dists", "topiq_fr")
    net = changed(build_network(architecture))
    path = tmp_path / "metric.safetensors"
    info = {"architecture": architecture, "mode": "FR" if full else "NR", "range": [0, 1], "lower_better": full, "steps": 10}
    save_metric(path, net, info)
    metric = create_metric(str(path))
    x = images()
    inputs = (x, images(2).flip(3)) if full else (x,)
    expected = net(*inputs)
    expected = (expected[0] if isinstance(expected, (tuple, list)) else expected).reshape(-1)
    torch.testing.assert_close(metric(*inputs), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(metric.signed(*inputs), -metric(*inputs) if full else metric(*inputs))
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    x.requires_grad_(True)
    metric(*((x, inputs[1]) if full else (x,))).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_the_header_says_what_it_is(tmp_path):
    path = tmp_path / "metric.safetensors"
    save_metric(path, changed(build_network("nano")), {**NANO, "range": [-3, 3], "data": "pairs.csv"})
    info = metric_info(str(path))
    assert (info.name, info.mode, info.lower_better, info.value_range, info.smallest) == (str(path), "NR", False, (-3, 3), 16)
    assert find_metrics(str(path)) == [info]
    with safe_open(str(path), framework="pt") as file:
        assert json.loads(file.metadata()["metric"])["data"] == "pairs.csv"
    with pytest.raises(UserError, match="at least 16"):
        load_metric(path)(torch.rand(1, 3, 8, 8))


def test_other_weights_have_another_identity_and_the_same_the_same(tmp_path):
    first, second, third = (tmp_path / f"{k}" / "metric.safetensors" for k in range(3))
    for path, net in ((first, build_network("nano")), (second, changed(build_network("nano"))), (third, build_network("nano"))):
        save_metric(path, net, NANO)
    identities = [load_metric(path).identity.replace(str(path), "") for path in (first, second, third)]
    assert identities[0] == identities[2] != identities[1]


def test_training_goes_on_from_a_file_or_from_the_catalogue(tmp_path):
    shipped = create_metric("nano")._net.state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in build_network("nano", "catalogue").state_dict().items())
    path = tmp_path / "metric.safetensors"
    net = changed(build_network("nano"))
    save_metric(path, net, NANO)
    again = build_network("nano", path)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    assert all(parameter.requires_grad for parameter in again.parameters())
    with pytest.raises(UserError, match="holds nano, not cnniqa"):
        build_network("cnniqa", path)


@pytest.mark.parametrize("name", ["psnr", "niqe", "ssimc", "no_such", "timm:no_such_net", "timm:hf-hub:someone/something"])
def test_what_is_no_network_to_train_is_refused(name):
    with pytest.raises(UserError, match=f"{name} is no network|timm has no network"):
        build_network(name)


def test_a_backbone_takes_any_size_and_normalises_its_input():
    net = build_network("timm:resnet10t")
    assert isinstance(net, nn.Module) and net(images(1, 80)).shape == (1,)
    assert net.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "XR"}, "metric.mode"),
        ({"range": [0]}, "metric.range"),
        ({"architecture": None}, "metric.architecture"),
        ({"smallest": "big"}, "metric.smallest"),
    ],
)
def test_a_wrong_header_is_neither_written_nor_read(change, message, tmp_path):
    path = tmp_path / "metric.safetensors"
    net = build_network("nano")
    with pytest.raises(UserError, match=message):
        save_metric(path, net, {**NANO, **change})
    assert not path.exists()
    save_file(dict(net.state_dict()), path, metadata={"metric": json.dumps({**NANO, **change})})
    with pytest.raises(UserError, match=message):
        create_metric(str(path))


def test_files_that_are_no_metric_are_said(tmp_path):
    path = tmp_path / "metric.safetensors"
    with pytest.raises(UserError, match="is not there"):
        create_metric(str(path))
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="no entry `metric`"):
        create_metric(str(path))
    save_file({"a": torch.zeros(3)}, path, metadata={"metric": json.dumps(NANO)})
    with pytest.raises(UserError, match="does not hold the weights of nano"):
        create_metric(str(path))
    save_file({"a": torch.zeros(3)}, path, metadata={"metric": "{"})
    with pytest.raises(UserError, match="damaged"):
        create_metric(str(path))
    save_metric(path, build_network("nano"), NANO)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="damaged|does not hold"):
        create_metric(str(path))
    with pytest.raises(UserError, match="must end in .safetensors"):
        save_metric(tmp_path / "metric.pth", build_network("nano"), NANO)


def test_saving_keeps_the_network_as_it_is_and_shares_no_memory(tmp_path):
    net = build_network("nano").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    save_metric(tmp_path / "m.safetensors", net, NANO)
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert load_file(tmp_path / "m.safetensors").keys() == before.keys()

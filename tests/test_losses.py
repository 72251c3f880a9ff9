from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sr_iqa.archs import build_network
from sr_iqa.archs.basicsr_bridge import import_basicsr
from sr_iqa.errors import UsageError, UserError
from sr_iqa.iqa import metrics
from sr_iqa.iqa.nano import Nano
from sr_iqa.losses import LOSSES, build_loss, resolve_loss
from sr_iqa.losses import features as feature_losses
from sr_iqa.losses.negative import negative_map


def pair(size=32, batch=2):
    return torch.rand(batch, 3, size, size), torch.rand(batch, 3, size, size)


def gradient(loss, sr):
    sr = sr.clone().requires_grad_()
    loss(sr).backward()
    return sr.grad


# ---------------------------------------------------------------- pixel and adversarial losses


@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "CharbonnierLoss"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_pixel_losses_equal_basicsr(name, reduction):
    import_basicsr()
    from basicsr.losses import basic_loss as losses

    ours = build_loss("pixel", {"type": name, "loss_weight": 0.3, "reduction": reduction})
    theirs = getattr(losses, name)(loss_weight=0.3, reduction=reduction)
    sr, gt = pair()
    assert torch.allclose(ours(sr, gt), theirs(sr, gt), rtol=1e-6)
    assert torch.allclose(gradient(lambda x: ours(x, gt), sr), gradient(lambda x: theirs(x, gt), sr), rtol=1e-5)


@pytest.mark.parametrize("gan_type", ["vanilla", "lsgan", "hinge", "wgan_softplus"])
@pytest.mark.parametrize("is_disc", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_gan_loss_equals_basicsr(gan_type, is_disc, real):
    import_basicsr()
    from basicsr.losses.gan_loss import GANLoss

    options = {"gan_type": gan_type, "real_label_val": 0.9, "fake_label_val": 0.1, "loss_weight": 0.2}
    ours, theirs = build_loss("gan", {"type": "GANLoss", **options}), GANLoss(**options)
    prediction = torch.randn(2, 1, 8, 8) * 3
    assert torch.allclose(ours(prediction, real, is_disc=is_disc), theirs(prediction, real, is_disc=is_disc), rtol=1e-6)


# ---------------------------------------------------------------- every enabled loss reaches the generator


def vgg_weights(folder, vgg_type, layers):
    """A file as torchvision's, with random weights of the first layers; returns those layers."""
    from torchvision.models import get_model_weights
    from torchvision.models.vgg import cfgs, make_layers

    config = cfgs[feature_losses.VGG_CONFIGS[vgg_type.removesuffix("_bn")]]
    end = next(i for i in range(len(config)) if sum(isinstance(c, int) for c in config[: i + 1]) == layers) + 1
    net = make_layers(config[:end], batch_norm="_bn" in vgg_type)
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    path = folder / "hub" / "checkpoints" / get_model_weights(vgg_type)["IMAGENET1K_V1"].url.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"features.{name}": value for name, value in net.state_dict().items()}, path)
    return net


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache of weight files, and a nano with random weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(feature_losses, "load_nano", lambda: Nano().requires_grad_(False))
    return tmp_path


class FrozenDiscriminator(nn.Module):
    """The generator's adversarial term as the training loop has it."""

    def __init__(self, gan_type):
        super().__init__()
        self.net = build_network({"type": "UNetDiscriminatorSN", "num_feat": 4}).requires_grad_(False)
        self.loss = build_loss("gan", {"type": "GANLoss", "gan_type": gan_type, "loss_weight": 0.1})

    def forward(self, sr, gt):
        return self.loss(self.net(sr), True, is_disc=False)


class Negative(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss = build_loss("negative", {"type": "NegativeLoss"})

    def forward(self, sr, gt):
        return self.loss(sr, gt.flip(2), gt, gt, torch.ones(len(sr)))


def every_loss(folder):
    vgg_weights(folder, "vgg11", 2)
    build = build_loss
    yield "l1", build("pixel", {"type": "L1Loss"})
    yield "mse", build("pixel", {"type": "MSELoss"})
    yield "charbonnier", build("pixel", {"type": "CharbonnierLoss"})
    vgg = {"type": "PerceptualLoss", "layer_weights": {"conv2_1": 1.0}, "vgg_type": "vgg11"}
    yield "content", build("perceptual", vgg)
    yield "style", build("perceptual", {**vgg, "perceptual_weight": 0, "style_weight": 1})
    yield "nano", build("perceptual", {"type": "NanoFeatureLoss"})
    for gan_type in ("vanilla", "lsgan", "hinge", "wgan_softplus"):
        yield gan_type, FrozenDiscriminator(gan_type)
    yield "negative", Negative()
    yield "lpips", build("perceptual", {"type": "LPIPSLoss"})
    for metric in ("ssim", "ssimc", "gmsd"):
        yield metric, build("metric", {"type": metric, "loss_weight": 0.5})


@pytest.fixture
def random_metrics(monkeypatch):
    """Metrics with random weights, where the real ones would have to be downloaded."""
    monkeypatch.setattr(metrics, "create_metric", partial(metrics.create_metric, random_weights=True))


def test_every_loss_changes_the_generators_gradient(offline, random_metrics):
    net = build_network({"type": "RRDBNet", "num_feat": 4, "num_block": 1, "num_grow_ch": 4, "scale": 4})
    lq, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    tried = set()
    for name, loss in every_loss(offline):
        net.zero_grad()
        value = loss(net(lq), gt)
        value.backward()
        assert value.ndim == 0 and value.isfinite(), name
        gradients = [p.grad.abs().max() for p in net.parameters()]
        assert all(g.isfinite() for g in gradients) and max(gradients) > 1e-8, name
        assert not any(p.grad is not None for p in loss.parameters()), f"{name} has parameters that learn"
        tried.add(type(loss).__name__)
    assert LOSSES.keys() - {"GANLoss", "NegativeLoss"} <= tried, "those two are tried inside others"


def test_weights_scale_the_losses(offline):
    sr, gt = pair()
    vgg_weights(offline, "vgg11", 2)
    for kind, options in [
        ("pixel", {"type": "L1Loss"}),
        ("perceptual", {"type": "NanoFeatureLoss"}),
        ("metric", {"type": "ssim"}),
    ]:
        torch.manual_seed(0)
        once = build_loss(kind, {**options, "loss_weight": 1.0})(sr, gt)
        torch.manual_seed(0)
        assert torch.allclose(build_loss(kind, {**options, "loss_weight": 2.5})(sr, gt), 2.5 * once), kind


# ---------------------------------------------------------------- features


@pytest.mark.parametrize(
    ("vgg_type", "change"),
    [
        ("vgg19", {}),
        ("vgg19", {"criterion": "l2", "style_weight": 0.7}),
        ("vgg19", {"criterion": "fro", "style_weight": 0.7, "perceptual_weight": 0.5}),
        ("vgg19", {"use_input_norm": False, "range_norm": True}),
        ("vgg11_bn", {"perceptual_weight": 2}),
    ],
)
def test_perceptual_loss_equals_basicsr_on_the_same_random_weights(vgg_type, change, offline, monkeypatch):
    import_basicsr()
    from basicsr.archs import vgg_arch
    from basicsr.losses.basic_loss import PerceptualLoss

    monkeypatch.setattr(nn, "L2loss", nn.MSELoss, raising=False)  # the release has this name wrong
    net = vgg_weights(offline, vgg_type, 5)
    monkeypatch.setattr(vgg_arch.vgg, vgg_type, lambda pretrained: SimpleNamespace(features=net))
    layers = (
        {"conv1_1": 0.1, "conv2_1": 0.1, "conv3_1": 1}
        if vgg_type != "vgg19"
        else {"conv1_2": 0.1, "relu2_2": 0.3, "pool2": 1, "conv3_1": 1}
    )
    options = {"layer_weights": layers, "vgg_type": vgg_type, **change}
    ours, theirs = build_loss("perceptual", {"type": "PerceptualLoss", **options}).train(), PerceptualLoss(**options)
    sr, gt = pair()

    def basicsr_sum(x):
        return sum(part for part in theirs(x, gt) if part is not None)

    assert torch.allclose(ours(sr, gt), basicsr_sum(sr), rtol=1e-5)
    a, b = gradient(lambda x: ours(x, gt), sr), gradient(basicsr_sum, sr)
    assert (a - b).abs().max() <= 1e-4 * b.abs().max()


def test_missing_vgg_weights_name_file_source_and_place(offline):
    with pytest.raises(UserError) as error:
        build_loss("perceptual", {"type": "PerceptualLoss", "layer_weights": {"conv5_4": 1}})
    message = str(error.value)
    assert "vgg19-dcbb9e9d.pth" in message and "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in message
    assert str(offline / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth") in message


def test_a_wrong_vgg_file_is_refused(offline):
    vgg_weights(offline, "vgg11", 2)
    with pytest.raises(UserError, match="does not hold the weights of vgg11"):
        build_loss("perceptual", {"type": "PerceptualLoss", "layer_weights": {"conv5_1": 1}, "vgg_type": "vgg11"})


def test_identical_images_have_no_feature_distance(offline):
    vgg_weights(offline, "vgg11", 2)
    x = pair()[0]
    for options in ({"type": "NanoFeatureLoss"}, {"type": "PerceptualLoss", "layer_weights": {"conv2_1": 1}, "vgg_type": "vgg11"}):
        assert build_loss("perceptual", options)(x, x) == 0


# ---------------------------------------------------------------- HGGT's negative loss


def slow_map(negative, positive, original, agreement, positive_agreement):
    """HGGT's map stated pixel by pixel: unbiased variance of reflected 3 x 3 windows, to the power 3/4."""

    def texture(image):
        residual = np.abs(original - image).sum(0)
        padded = np.pad(residual, 1, mode="reflect")
        height, width = residual.shape
        return np.array([[np.var(padded[y : y + 3, x : x + 3], ddof=1) for x in range(width)] for y in range(height)]) ** 0.75

    away, towards = agreement * texture(negative), positive_agreement * texture(positive)
    away[towards >= away] = 0
    return away


def test_negative_loss_equals_a_slow_restatement():
    original, positive, negative, sr = (torch.rand(3, 3, 9, 11) for _ in range(4))
    positive[1] = original[1]  # a set without positives
    negative[:, :, :4] = original[:, :, :4]  # flat residual there
    agreement, positive_agreement = torch.tensor([1.0, 2 / 3, 0.0]), torch.tensor([2 / 3, 1.0, 1.0])
    maps = negative_map(negative, positive, original, agreement, positive_agreement)
    total = 0
    for i in range(3):
        images = [t[i].double().numpy() for t in (negative, positive, original)]
        expected = slow_map(*images, float(agreement[i]), float(positive_agreement[i]))
        np.testing.assert_allclose(maps[i, 0].numpy(), expected, atol=1e-6)
        total -= 300 * np.abs(expected * sr[i].double().numpy() - expected * images[0]).mean() / 3
    loss = build_loss("negative", {"type": "NegativeLoss"})
    value = loss(sr, negative, positive, original, agreement, positive_agreement)
    assert value.item() == pytest.approx(total, rel=1e-5)
    assert maps[2].abs().max() == 0, "no negative, no loss"
    assert loss(sr, negative, positive, original, agreement).item() == pytest.approx(
        loss(sr, negative, positive, original, agreement, torch.ones(3)).item()
    )


def test_negative_map_is_exactly_zero_where_nothing_differs():
    flat = torch.full((1, 3, 8, 8), 0.7)
    assert negative_map(flat + 0.1, flat, flat, torch.ones(1)).abs().max() < 1e-9


def test_negative_loss_pushes_away():
    original = torch.rand(1, 3, 8, 8)
    negative = torch.rand(1, 3, 8, 8)
    loss = build_loss("negative", {"type": "NegativeLoss", "loss_weight": 1})
    sr = negative + 0.1
    grad = gradient(lambda x: loss(x, negative, original, original, torch.ones(1)), sr)
    assert (grad <= 0).all() and (grad < 0).any(), "descent increases the distance"


# ---------------------------------------------------------------- metrics and names


def test_metric_loss_follows_the_direction():
    x = torch.rand(1, 3, 32, 32)
    noisy = (x + 0.3 * torch.randn_like(x)).clamp(0, 1)
    for name in ("ssim", "gmsd"):  # higher and lower is better
        loss = build_loss("metric", {"type": name})
        assert loss(noisy, x) > loss(x, x), name
        assert not list(loss.parameters()) and not loss.state_dict()


@pytest.mark.parametrize("name", ["niqe", "nano", "ahiq"])
def test_metrics_that_cannot_be_losses_are_refused(name):
    with pytest.raises(UserError):
        build_loss("metric", {"type": name})


def test_lpips_goes_through_the_door(offline):
    with pytest.raises(UserError, match="LPIPS_v0.1_alex"):
        build_loss("perceptual", {"type": "LPIPSLoss", "loss_weight": 1.0})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pixel", {"type": "L1loss"}, "Did you mean 'L1Loss'"),
        ("pixel", {"type": "GANLoss"}, "not a pixel loss"),
        ("pixel", {"type": "L1Loss", "weight": 1}, "loss_weight"),
        ("pixel", {"type": "L1Loss", "reduction": "none"}, "neither mean nor sum"),
        ("gan", {"type": "GANLoss", "gan_type": "wgan"}, "none of vanilla"),
        ("perceptual", {"type": "PerceptualLoss", "layer_weights": {"conv9_1": 1}}, "not a layer of vgg19"),
        ("perceptual", {"type": "PerceptualLoss", "layer_weights": {}}, "names no layer"),
        ("perceptual", {"type": "PerceptualLoss", "layer_weights": {"conv1_1": 1}, "vgg_type": "vgg99"}, "not a vgg_type"),
        ("perceptual", {"type": "PerceptualLoss", "layer_weights": {"conv1_1": 1}, "criterion": "l3"}, "l1, l2, fro"),
        ("perceptual", {"type": "LPIPSLoss", "net": "squeeze"}, "neither alex nor vgg"),
    ],
)
def test_wrong_sections_are_usage_errors(kind, options, message):
    with pytest.raises(UsageError, match=message):
        build_loss(kind, options)


def test_names_and_dotted_paths():
    assert resolve_loss("pixel", "torch.nn.SmoothL1Loss") is nn.SmoothL1Loss
    assert {"L1Loss", "PerceptualLoss", "LPIPSLoss", "NanoFeatureLoss", "GANLoss", "NegativeLoss"} <= LOSSES.keys()

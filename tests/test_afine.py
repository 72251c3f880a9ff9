"""Our A-FINE against pyiqa's on the same random weights; batches, gradients, the door; its three stages of training."""

import math
import os
import signal

import pytest
import torch
from pyiqa.archs import afine_arch as theirs
from pyiqa.archs.afineclip_model import AFINECLIP
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from sr_iqa.errors import UserError
from sr_iqa.iqa.afine import AFine, build_afine, load_afine, random_afine
from sr_iqa.iqa.afine_backbones import ClipViT, build_backbone, fill_backbone
from sr_iqa.iqa.metrics import create_metric, metric_info
from sr_iqa.losses import build_loss
from tests import tiny_runs
from tests.test_metric_trainer import lines, make_pairs, run

WIDTH, DEPTH = 64, 2
CHANNELS = (3, *[WIDTH] * DEPTH)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Theirs(theirs.AFINE):
    """pyiqa's network of any size; its constructor would download weights of the one size it knows."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.mean, self.std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        self.clip_model = AFINECLIP(32, 224, DEPTH, WIDTH, 32, 8, 10, 64, 1, 1).eval()
        self.net_qhead = theirs.AFINEQhead(CHANNELS, input_dim=WIDTH)
        self.net_dhead = theirs.AFINEDhead(CHANNELS)
        self.net_scale_fr = theirs.AFINENLM_FR_Fit_with_limit(2, -2, 0.5, 0.15, 0.95, 0.05, 0.70, 0.01)
        self.net_scale_nr = theirs.AFINENLM_NR_Fit(2, -2, 0.2, 0.5)
        self.adapter = theirs.AFINELearnLambda(1.0)

    def sections(self):
        """The content of a file like afine.pth."""
        parts = ("clip_model", "net_qhead", "net_dhead", "net_scale_fr", "net_scale_nr", "adapter")
        names = ("finetuned_clip", "natural", "fidelity", "fidelity_scale", "natural_scale", "adapter")
        return {name: getattr(self, part).state_dict() for name, part in zip(names, parts, strict=True)}

    def score(self, mode, x, ref):
        self.model_type = f"afine_{mode}"
        # one image at a time, and it changes its inputs
        return torch.cat([self(a[None].clone(), b[None].clone()).reshape(1) for a, b in zip(x, ref, strict=True)])


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """(pyiqa's network, the file of its weights)."""
    torch.manual_seed(0)
    net = Theirs()
    path = tmp_path_factory.mktemp("afine") / "afine.pth"
    torch.save(net.sections(), path)
    return net, path


def images(size, count=3):
    generator = torch.Generator().manual_seed(sum(size))
    x = torch.rand(count, 3, *size, generator=generator)
    return x, (0.6 * x + 0.4 * torch.rand(x.shape, generator=generator)) ** 1.3


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize("size", [(224, 224), (32, 64), (96, 160)])  # of the training's own grid, smaller, longer
@pytest.mark.parametrize("mode", ["nr", "fr", "all", "all_scale"])
def test_the_same_numbers_as_pyiqa(network, mode, size):
    net, path = network
    x, ref = images(size)
    expected = net.score(mode, x, ref)
    values = load_afine(path, mode)(x, ref)
    assert torch.allclose(values, expected, atol=1e-5, rtol=1e-5), (values, expected)
    assert expected.std() > 1e-4, "a constant proves nothing"


@pytest.mark.slow
def test_the_same_numbers_as_pyiqa_in_full_size():
    metric = create_metric("afine_all", random_weights=True)
    state = metric._net.state_dict()
    torch.manual_seed(0)
    clip = AFINECLIP(512, 224, 12, 768, 32, 77, 64, 64, 1, 1).eval()
    names = {f"visual.{name}": name for name in clip.visual.state_dict()}
    ours = {name: state[f"backbone.{ClipViT.renamed(name)}"] for name in names if ClipViT.renamed(name)}
    clip.load_state_dict(ours, strict=False)
    x, ref = images((256, 320), 1)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    with torch.no_grad():
        for mine, other in zip(metric._net.backbone(x), clip.encode_image((x - mean) / std)[1], strict=True):
            assert torch.allclose(mine, other, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(metric(x, ref)).all()


def test_one_image_stands_against_many_references(network):
    net = load_afine(network[1], "all")
    x, ref = images((64, 64))
    assert torch.allclose(net(x[:1], ref), net(x[:1].expand_as(ref), ref), atol=1e-6)


def test_equal_images_have_no_distance_and_the_sides_do_not_change_places(network):
    x, ref = images((64, 64))
    assert load_afine(network[1], "fidelity")(x, x).abs().max() < 1e-4
    net = load_afine(network[1], "all")
    assert not torch.allclose(net(x, ref), net(ref, x), atol=1e-3)


def test_gradients_reach_the_image_and_are_those_of_the_values(network):
    net = load_afine(network[1], "all").double()
    x, ref = (t.double() for t in images((32, 32), 1))
    x.requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(net(x, ref).sum(), x)
    with torch.no_grad():
        slope = (net(x + 1e-6 * direction, ref) - net(x - 1e-6 * direction, ref)) / 2e-6
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_bad_files_are_refused_with_words(network, tmp_path):
    sections = network[0].sections()
    del sections["natural"]["proj_feat.weight"]
    torch.save(sections, tmp_path / "part.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("part.pth", "text.pth"):
        with pytest.raises(UserError, match=f"{name} does not hold the weights of A-FINE"):
            load_afine(tmp_path / name, "nr")


# ---------------------------------------------------------------- the door


def test_the_door_opens_it_as_a_metric_and_a_loss(network, monkeypatch):
    x, ref = images((64, 64))
    for name in ("afine_nr", "afine_fr", "afine_all", "afine_all_scale"):
        metric = create_metric(name, weights=network[1])
        assert metric.lower_better and metric.mode == ("NR" if name == "afine_nr" else "FR")
        assert torch.equal(metric.signed(x, ref), -load_afine(network[1], name.removeprefix("afine_"))(x, ref))
        assert metric_info(name).differentiable and metric.info.files[0].name == "afine.pth"
    monkeypatch.setattr("sr_iqa.iqa.afine.load_afine", lambda _, mode: load_afine(network[1], mode))
    monkeypatch.setattr("sr_iqa.iqa.metrics.require", lambda *_: None)
    monkeypatch.setattr("sr_iqa.iqa.metrics.fingerprint", lambda _: "")
    loss = build_loss("metric", {"type": "afine_all", "loss_weight": 0.5})
    sr = x.clone().requires_grad_()
    value = loss(sr, ref)
    value.backward()
    assert value.item() == pytest.approx(0.5 * load_afine(network[1], "all")(x, ref).mean().item(), rel=1e-5)
    assert sr.grad is not None and sr.grad.abs().sum() > 0


def test_other_sides_are_enlarged_to_whole_patches(network):
    """As the authors' code does, and pyiqa's would if it did not refuse them first."""
    net = load_afine(network[1], "all_scale")
    x, ref = images((100, 72))
    larger = [F.interpolate(t, (128, 96), mode="bicubic", align_corners=False) for t in (x, ref)]
    assert torch.allclose(net(x, ref), network[0].score("all_scale", *larger), atol=1e-4)
    with pytest.raises(UserError, match="at least 32 pixels"):
        create_metric("afine_nr", weights=network[1])(torch.rand(1, 3, 24, 64))


# ---------------------------------------------------------------- backbones


@pytest.mark.parametrize("name", ["clip-tiny", "timm:test_vit", "timm:test_resnet", "timm:resnet18"])
def test_backbones(name):
    net = build_afine(f"afine:all:{name}")
    x, ref = images((64, 96), 2)
    layers = net.backbone(x)
    assert tuple(layer.shape[2] for layer in layers) == net.backbone.channels and len(layers) > 1
    values = net(x, ref)
    assert values.shape == (2,) and torch.isfinite(values).all()


def test_unknown_backbones_and_modes_are_named():
    with pytest.raises(UserError, match="sr-iqa iqa fetch afine_all`"):
        build_afine("afine:all:clip", "catalogue")
    with pytest.raises(UserError, match="no network 'resnet51'"):
        build_backbone("timm:resnet51")
    with pytest.raises(UserError, match="no backbone 'vgg'"):
        build_afine("afine:all:vgg")
    with pytest.raises(UserError, match="no mode 'every'"):
        build_afine("afine:every:clip")


def test_a_backbone_takes_weights_in_clips_and_in_timms_layout(network, tmp_path):
    sections = network[0].sections()
    torch.save(sections["finetuned_clip"], tmp_path / "clip.pth")
    backbone = ClipViT(WIDTH, DEPTH)
    fill_backbone(backbone, tmp_path / "clip.pth")
    assert torch.equal(backbone.conv1.weight, sections["finetuned_clip"]["visual.conv1.weight"])
    resnet = build_backbone("timm:test_resnet")
    weights = {name: value + 1 for name, value in resnet.net.state_dict().items()}
    save_file({**weights, "head.fc.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    fill_backbone(resnet, tmp_path / "resnet.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in resnet.net.state_dict().items())
    with pytest.raises(UserError, match="does not hold the weights of this backbone"):
        fill_backbone(backbone, tmp_path / "resnet.safetensors")


# ---------------------------------------------------------------- its three stages


def stage(root, number, start, mode, learn, **train):
    """A stage of a few steps on the tiny backbone; returns the run's folder."""
    options = {"network": {"type": f"afine:{mode}:clip-tiny", "start": str(start), "learn": learn}, "train": {"total_iter": 4, **train}}
    once = {"datasets": {"train": {"measure_once": number == 3}}}
    return run(root, f"stage{number}", options, once, {"train": {"optim": {"lr": 1e-3}}})


def moved(before, after):
    """The parts of the network whose weights differ."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_three_stages_each_train_their_part_and_make_a_metric(tmp_path):
    make_pairs(tmp_path, 3)
    torch.manual_seed(0)
    start = build_afine("afine:natural:clip-tiny").state_dict()
    one = stage(tmp_path, 1, "random", "natural", ["backbone", "natural."])
    two = stage(tmp_path, 2, one / "metric.safetensors", "fidelity", ["fidelity."])
    three = stage(tmp_path, 3, two / "metric.safetensors", "all", ["natural_map", "fidelity_map", "k"])
    states = [start, *(load_file(folder / "metric.safetensors") for folder in (one, two, three))]
    assert moved(states[0], states[1]) == {"backbone", "natural"}
    assert moved(states[1], states[2]) == {"fidelity"}
    assert moved(states[2], states[3]) == {"natural_map", "fidelity_map", "k"}
    assert "measured 9 images once" in (three / "train.log").read_text()
    assert stage(tmp_path, 3, two / "metric.safetensors", "all", ["natural_map", "fidelity_map", "k"], total_iter=5) == three
    trained = load_file(three / "metric.safetensors")
    assert (three / "train.log").read_text().count("measured 9 images") == 1, "what was kept has not been used"
    assert all(math.isfinite(line["l_pair"]) for folder in (one, two, three) for line in lines(folder))
    metric = create_metric(str(three / "metric.safetensors"))
    x, ref = images((64, 64))
    net = AFine("all", ClipViT(64, 2))
    net.load_state_dict(trained)
    assert metric.mode == "FR" and torch.allclose(metric.signed(x, ref), -net(x, ref))


def test_a_trained_one_is_a_loss_and_a_column_of_sr_training(tmp_path):
    make_pairs(tmp_path, 2)
    learn = {"network": {"type": "afine:all:clip-tiny", "start": "random"}, "train": {"total_iter": 1}}
    metric = str(run(tmp_path, "judge", learn) / "metric.safetensors")
    tiny_runs.tiny(tmp_path, "sr")  # makes the data that validation needs
    loss = {"train": {"metric_opt": {"type": metric, "loss_weight": 0.1}, "total_iter": 2}}
    folder = tiny_runs.run(tmp_path, "sr", loss, tiny_runs.validation(tmp_path, metrics=["psnr", metric]))  # a border of 4 px is cut
    found = lines(folder)
    assert math.isfinite(found[0]["val"][metric]) and math.isfinite(found[-1]["val"][metric])
    assert any(f"l_{metric}" in line for line in found)


def test_what_was_measured_once_gives_the_same_loss_as_whole_images(tmp_path):
    make_pairs(tmp_path, 3)
    whole = {"datasets": {"train": {"crop_px": 64, "use_hflip": False}}, "train": {"total_iter": 2}}
    learn = {"network": {"type": "afine:all:clip-tiny", "start": "random", "learn": ["natural_map", "fidelity_map", "k"]}}
    folders = [run(tmp_path, name, learn, whole, {"datasets": {"train": {"measure_once": name == "once"}}}) for name in ("once", "anew")]
    once, anew = ([line["l_pair"] for line in lines(folder)] for folder in folders)
    assert once == pytest.approx(anew, rel=1e-4)


def test_measuring_can_be_stopped_and_a_fresh_run_keeps_what_it_measures(tmp_path, monkeypatch):
    make_pairs(tmp_path, 3)
    learn = {"network": {"type": "afine:all:clip-tiny", "start": "random", "learn": ["k"]}, "train": {"total_iter": 1}}
    once = {"datasets": {"train": {"measure_once": True}}}
    measure, seen = AFine.measure, []

    def signalling(*arguments):
        seen.append(os.kill(os.getpid(), signal.SIGTERM) if not seen else None)
        return measure(*arguments)

    monkeypatch.setattr(AFine, "measure", signalling)
    with pytest.raises(SystemExit):
        run(tmp_path, "stopped", learn, once)
    assert len(seen) == 1
    run(tmp_path, "stopped", learn, once)
    folder = run(tmp_path, "new", learn, once, fresh=True)
    assert [path.name for path in folder.parent.glob("new*")] == ["new"], "nothing was there that had to be kept"
    assert (folder / "measured.safetensors").exists()


def test_random_weights_are_always_the_same():
    assert random_afine("nr").k.item() == 5
    states = [build_afine("afine:nr:clip-tiny").state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

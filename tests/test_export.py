import json
import os
import re

import numpy as np
import pytest
import torch
from spandrel import ModelLoader
from torch import nn
from typer.testing import CliRunner

from sr_iqa.adapters import inject, save_adapter, set_scale, trainable_parameters
from sr_iqa.archs import build_network
from sr_iqa.archs.basicsr_bridge import basicsr_archs
from sr_iqa.checkpoints import file_hash, load_network, read_metadata, save_weights
from sr_iqa.cli import app
from sr_iqa.config.models import LoraOptions
from sr_iqa.errors import UsageError, UserError
from sr_iqa.export import ExportError, export_network, onnx_file
from sr_iqa.export.portable import portable

SWINIR = {"type": "SwinIR", "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 4, "img_size": 8, "mlp_ratio": 2}
LIGHT = {**SWINIR, "upsampler": "pixelshuffledirect", "upscale": 2}
RRDB = {"type": "RRDBNet", "num_feat": 8, "num_block": 1, "scale": 2}
HGGT = {"type": "RRDBPSNet", "num_feat": 8, "num_block": 1, "num_grow_ch": 4, "scale": 4}
SPAN = {"type": "spandrel.SPAN", "num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2}
RCAN = {"type": "spandrel.RCAN", "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "scale": 2}
COMPACT = {"type": "spandrel.Compact", "num_feat": 8, "num_conv": 2, "upscale": 2}
SIZES = ((3, 3, 21, 10), (1, 3, 5, 3), (1, 3, 16, 24))


def lq(*size, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def write(path, section, **metadata):
    """A weight file of a network whose parts all have an effect; returns the network."""
    torch.manual_seed(0)
    net = build_network(section).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    save_weights(path, net.state_dict(), {"network_g": json.dumps(section), **metadata})
    return net


def largest(one, two):
    return float((one.detach().float() - two.detach()).abs().max())


def in_onnxruntime(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "section",
    [
        LIGHT,
        {**SWINIR, "upsampler": "pixelshuffle", "upscale": 3, "resi_connection": "3conv"},
        {**SWINIR, "upsampler": "nearest+conv", "upscale": 4, "patch_norm": False, "qkv_bias": False},
        {**SWINIR, "upsampler": "", "upscale": 1, "window_size": 7, "img_size": 14, "img_range": 255.0},
        {**LIGHT, "img_size": 4},  # one window holds the training image: no shifts
        RRDB,
        {**RRDB, "scale": 1},
        {**RRDB, "scale": 4},
        HGGT,
        COMPACT,
        SPAN,
    ],
    ids=lambda section: f"{section['type']}-{section.get('upsampler', '')}-{section.get('scale') or section['upscale']}",
)
def test_the_portable_form_and_its_trace_equal_the_network_at_any_size(section, tmp_path):
    net = write(tmp_path / "net.safetensors", section)
    made = export_network(tmp_path / "net.safetensors", tmp_path / "net.pt")
    traced = torch.jit.load(str(made.path))
    assert 'value="cpu"' not in str(traced.inlined_graph)  # which would keep it from running on a GPU
    form = portable(net, made.magnification)
    for size in SIZES:
        x, expected = lq(*size), net(lq(*size))
        assert expected.shape[2] == made.magnification * size[2]
        assert largest(form(x), expected) <= 1e-5 and largest(traced(x), expected) <= 1e-5


@pytest.mark.parametrize(
    ("section", "half"),
    [
        (LIGHT, False),
        (COMPACT, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((LIGHT, True), (RRDB, True), (RRDB, False), (HGGT, False), (SPAN, False))
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else f"half={value}",
)
def test_onnx_files_take_any_size_in_onnx_runtime(section, half, here):
    net = write(here / "net.safetensors", section, name="mine")
    made = export_network(here / "net.safetensors", here / "net.onnx", half=half)
    for size in SIZES:
        if section["type"].startswith("spandrel."):
            size = (1, *size[1:])
        x = lq(*size, seed=1)
        found = in_onnxruntime(made.path, x.half() if half else x)
        assert found.dtype == (torch.float16 if half else torch.float32)
        assert largest(found, net(x)) <= (2 / 255 if half else 1e-4)
    check_graph(made.path)
    for code in snippets(made.card):
        names = {}
        exec(code, names)
        assert names["output"].shape == (1, 3, 40 * made.magnification, 56 * made.magnification)


def check_graph(path):
    """What chaiNNer and older runtimes look at, and that no path of the machine went into the file."""
    import onnx

    model = onnx.load(path)
    assert model.ir_version <= 8 and {entry.version for entry in model.opset_import} == {18}
    shape = [dim.dim_value or dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape in (["batch", 3, "height", "width"], [1, 3, "height", "width"])
    assert model.graph.input[0].type.tensor_type.elem_type == model.graph.output[0].type.tensor_type.elem_type
    assert {entry.key: entry.value for entry in model.metadata_props}["name"] == "mine"
    assert b"site-packages" not in path.read_bytes() and b".py" not in path.read_bytes()


def test_another_opset_or_an_error_that_says_so(here):
    import onnx

    write(here / "net.safetensors", COMPACT)
    made = export_network(here / "net.safetensors", here / "net.onnx", opset=17, static="12x9")
    model = onnx.load(made.path)
    assert [entry.version for entry in model.opset_import] == [17]
    assert [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim] == [1, 3, 24, 18]
    assert {check.size for check in made.checks} == {(1, 12, 9)}
    with pytest.raises(ExportError, match="opset 12 cannot be had"):
        export_network(here / "net.safetensors", here / "old.onnx", opset=12, static="12x9")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("section", [LIGHT, RRDB, COMPACT], ids=lambda s: s["type"])
def test_safetensors_load_in_spandrel_and_here(section, half, here):
    net = write(here / "net.safetensors", section)
    made = export_network(here / "net.safetensors", here / "out.safetensors", half=half)
    x, bound = lq(1, 3, 16, 24), 2 / 255 if half else 1e-5
    assert largest(ModelLoader("cpu").load_from_file(made.path)(x), net(x).clamp(0, 1)) <= bound
    assert largest(load_network(made.path)(x), net(x)) <= bound
    for code in snippets(made.card):
        exec(code, {})
    if half:
        assert made.path.stat().st_size < 0.8 * (here / "net.safetensors").stat().st_size


@pytest.mark.parametrize("key", ["params", "params_ema"])
def test_a_pth_loads_in_basicsr_and_spandrel(key, here):
    net = write(here / "net.safetensors", {**RRDB, "scale": 4})
    made = export_network(here / "net.safetensors", here / "net.pth", key=key)
    theirs = basicsr_archs()["RRDBNet"](num_in_ch=3, num_out_ch=3, num_feat=8, num_block=1, scale=4)
    from basicsr.models.base_model import BaseModel

    BaseModel({"num_gpu": 0, "is_train": False}).load_network(theirs, str(made.path), True, key)
    x = lq(1, 3, 17, 10)
    assert largest(theirs(x), net(x)) <= 1e-6
    assert largest(ModelLoader("cpu").load_from_file(made.path)(x), net(x).clamp(0, 1)) <= 1e-6
    for code in snippets(made.card):
        exec(code, {})


def test_metadata_pass_from_file_to_file_and_into_the_card(here):
    write(here / "net.safetensors", LIGHT, name="mine", step="500", training_data="photos", sampling_metric="musiq")
    made = export_network(here / "net.safetensors", here / "out.safetensors")
    said = read_metadata(made.path)
    assert said["name"] == said["modelspec.title"] == "mine" and said["modelspec.architecture"] == "SwinIR" and said["scale"] == "2"
    assert said["parent"] == "net.safetensors" and said["parent_hash"] == file_hash(here / "net.safetensors")
    assert json.loads(said["network_g"]) == LIGHT
    card = made.card.read_text()
    for fact in ("SwinIR", "| 500 |", "photos", "musiq", said["parent_hash"], file_hash(made.path), "non-commercial"):
        assert fact in card
    assert "| Metric of the reward | not recorded |" in card and str(here) not in card


def test_networks_that_spandrel_does_not_know_are_said_to_be(here):
    write(here / "net.safetensors", HGGT)
    made = export_network(here / "net.safetensors", here / "out.safetensors")
    assert "Spandrel, and so chaiNNer, does not know RRDBPSNet" in made.notes[0] and made.notes[0] in made.card.read_text()
    assert len(snippets(made.card)) == 1  # sr_iqa's own
    write(here / "narrow.safetensors", {**RRDB, "num_grow_ch": 4})  # Spandrel takes all RRDBNets to grow by 32
    assert "does not load this RRDBNet" in export_network(here / "narrow.safetensors", here / "narrow.pth").notes[0]


@pytest.mark.parametrize("name", ["out.safetensors", "out.pt"])
def test_a_merged_adapter_equals_base_and_adapter(name, here):
    net = write(here / "net.safetensors", LIGHT)
    base = net(lq(1, 3, 9, 14))
    inject(net, LoraOptions(rank=2), "SwinIR")
    for parameter in trainable_parameters(net):
        nn.init.normal_(parameter, std=0.2)
    save_adapter(net, here / "adapter")
    set_scale(net, 0.5)
    made = export_network(here / "net.safetensors", here / name, adapter=here / "adapter", scale=0.5)
    out = (load_network(made.path) if name.endswith("safetensors") else torch.jit.load(name))(lq(1, 3, 9, 14))
    assert largest(out, net(lq(1, 3, 9, 14))) <= 1e-5 < 1e-3 < largest(out, base)
    assert "| Merged adapter | adapter |" in made.card.read_text() and "| 0.5 |" in made.card.read_text()


def test_a_file_that_others_would_read_differently_does_not_appear(here):
    """Nothing in weights tells Spandrel of a range of 255, so its network is another one."""
    write(here / "net.safetensors", {**LIGHT, "img_range": 255.0})
    with pytest.raises(ExportError, match="verification failed .Spandrel"):
        export_network(here / "net.safetensors", here / "out.safetensors")
    assert os.listdir(here) == ["net.safetensors"]


@pytest.mark.parametrize("name", ["out.pt", pytest.param("out.onnx", marks=pytest.mark.slow)])
def test_a_file_that_overflows_does_not_appear_and_the_old_one_stays(name, here):
    net = write(here / "net.safetensors", {**RRDB, "scale": 4})
    state = net.state_dict()
    state["conv_first.weight"] *= 1e5
    state["conv_last.weight"] *= 1e-5
    save_weights(here / "net.safetensors", state, {"network_g": json.dumps({**RRDB, "scale": 4})})
    (here / name).write_bytes(b"old")
    with pytest.raises(ExportError, match="verification failed .*leave --half out"):
        export_network(here / "net.safetensors", here / name, half=True, force=True)
    assert (here / name).read_bytes() == b"old" and sorted(os.listdir(here)) == ["net.safetensors", name]


def test_a_network_that_would_change_its_input_is_verified(here):
    write(here / "net.safetensors", RCAN)
    assert len(export_network(here / "net.safetensors", here / "out.safetensors").checks) == 4


def test_what_exists_is_replaced_only_when_told(here):
    write(here / "net.safetensors", LIGHT)
    for existing in ("out.pth", "out.pth.md"):
        (here / existing).write_text("old")
        with pytest.raises(UserError, match="--force"):
            export_network(here / "net.safetensors", here / "out.pth")
        assert (here / existing).read_text() == "old" and len(os.listdir(here)) == 2
        (here / existing).unlink()
    (here / "out.pth").write_text("old")
    assert load_network(export_network(here / "net.safetensors", here / "out.pth", force=True).path)


def test_one_size_only(here):
    ape = {**LIGHT, "ape": True}
    net = write(here / "net.safetensors", ape)
    with pytest.raises(UserError, match="--static 8x8"):
        export_network(here / "net.safetensors", here / "out.pt")
    made = export_network(here / "net.safetensors", here / "out.pt", static="8x8")
    assert largest(torch.jit.load(str(made.path))(lq(1, 3, 8, 8)), net(lq(1, 3, 8, 8))) <= 1e-5
    assert [check.size for check in made.checks] == [(1, 8, 8)] and "8 x 8 pixels" in made.card.read_text()
    assert export_network(here / "net.safetensors", here / "out.pth").checks[0].size == (1, 8, 8)
    for code in snippets(made.card):
        exec(code, {})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("out.bin", {}, "safetensors"),
        ("out.onnx", {"format": "pth"}, "does not go with --format pth"),
        ("out.onnx", {"format": "ncnn"}, "none of"),
        ("out.pth", {"opset": 18}, "--opset goes with onnx"),
        ("out.safetensors", {"static": "8x8"}, "--static goes with"),
        ("out.onnx", {"static": "8,8"}, "256x256"),
        ("out.onnx", {"static": "0x8"}, "256x256"),
        ("out.pth", {"key": "weights"}, "params_ema"),
        ("out.onnx", {"key": "params"}, "goes with pth"),
    ],
)
def test_arguments_that_do_not_go_together(name, options, words, here):
    write(here / "net.safetensors", LIGHT)
    with pytest.raises(UsageError, match=words):
        export_network(here / "net.safetensors", here / name, **options)
    assert os.listdir(here) == ["net.safetensors"]


def test_no_model_and_no_packages(here, monkeypatch):
    (here / "text.pth").write_text("no weights")
    for model in ("text.pth", "missing.safetensors"):
        with pytest.raises(UserError, match=model):
            export_network(here / model, here / "out.pt")
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match=r'onnxscript: pip install "sr_iqa\[export\]"'):
        export_network(here / "text.pth", here / "out.onnx")
    assert os.listdir(here) == ["text.pth"]


def test_a_run_says_where_its_network_comes_from(here):
    from tests.tiny_runs import run

    folder = run(here, "mine", {"datasets": {"train": {"sampling": {"strategy": "uniform_all"}}}})
    made = export_network(folder, here / "out.safetensors")
    said = read_metadata(made.path)
    assert (said["name"], said["step"], said["training_data"], said["sampling"]) == ("mine", "6", "images", "uniform_all")
    assert said["parent"] == "net_g_6.safetensors" and "| images |" in made.card.read_text()
    with pytest.raises(UsageError, match="brings its own weights"):
        export_network(folder, here / "more.pt", adapter=here)


def test_the_command_prints_what_it_checked(here):
    write(here / "net.safetensors", LIGHT)
    result = CliRunner().invoke(app, ["export", "-m", "net.safetensors", "-o", "net.pt", "--half"])
    assert result.exit_code == 0, result.output
    assert "33 x 17 pixels: largest difference 0.0" in result.output and "model card: net.pt.md" in result.output
    assert torch.jit.load("net.pt")(lq(1, 3, 9, 9).half()).dtype == torch.float16


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "section",
    [
        {
            **{"type": "SwinIR", "img_size": 64, "window_size": 8, "depths": [6] * 6, "embed_dim": 180, "num_heads": [6] * 6},
            **{"mlp_ratio": 2, "upsampler": "nearest+conv", "upscale": 4},
        },
        {"type": "RRDBNet", "num_block": 23},
        {"type": "spandrel.SPAN", "num_in_ch": 3, "num_out_ch": 3, "feature_channels": 48, "upscale": 4},
        {"type": "spandrel.RealPLKSR"},
    ],
    ids=lambda section: section["type"],
)
def test_networks_of_real_size(section, half, here):
    if half and section["type"] == "spandrel.SPAN":
        pytest.skip("with random weights its output is far from [0, 1], where 16 bits are not enough")
    net = write_plain(here / "net.safetensors", section)
    made = export_network(here / "net.safetensors", here / "net.onnx", half=half)
    x = lq(1, 3, 29, 50, seed=2)
    found = in_onnxruntime(made.path, x.half() if half else x)
    assert np.isfinite(found.numpy()).all() and largest(found, net(x)) <= (2 / 255 if half else 1e-4)


def write_plain(path, section):
    torch.manual_seed(0)
    net = build_network(section).eval().requires_grad_(False)
    save_weights(path, net.state_dict(), {"network_g": json.dumps(section)})
    return net


def test_what_a_strangers_header_says_is_text_in_the_card(here):
    evil = "x |\n\n## Licences\n\nCC0 <script>alert(1)</script> [a](b)"
    write(here / "net.safetensors", LIGHT, name=evil, training_data="/home/me/secret/photos", other="/root/x")
    card = export_network(here / "net.safetensors", here / "out.safetensors").card.read_text()
    assert card.count("\n## Licences") == 1 and "<script>" not in card and "[a](b)" not in card
    assert "/home/me" not in card and "photos" in card
    said = read_metadata(here / "out.safetensors")
    assert said["training_data"] == "photos" and "other" not in said


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_gray_networks_are_refused_in_a_sentence(here, suffix):
    write(here / "gray.safetensors", {**LIGHT, "in_chans": 1, "upscale": 1, "upsampler": ""})
    with pytest.raises(UserError, match=r"SwinIR: networks for RGB images are exported, this one is for images of 1 channel"):
        export_network(here / "gray.safetensors", here / f"out{suffix}")

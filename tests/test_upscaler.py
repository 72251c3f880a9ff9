import doctest
import importlib
import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import sr_iqa
from sr_iqa.adapters import inject, save_adapter, trainable_parameters
from sr_iqa.archs import build_network
from sr_iqa.checkpoints import load_network, save_weights
from sr_iqa.config.models import LoraOptions
from sr_iqa.errors import UsageError, UserError
from sr_iqa.images import to_tensor, to_uint8
from sr_iqa.inference import load_for_inference, upscale
from sr_iqa.inference.pictures import Picture
from sr_iqa.inference.upscaler import Upscaler
from sr_iqa.study.single import load_model
from tests.helpers import picture
from tests.tiny_runs import RRDB, run

LORA = {"lora": {"rank": 2}}
DEMO_BASE = Path(sr_iqa.__file__).parent / "assets" / "base_x4.safetensors"


class Enlarge(nn.Module):
    """Repeats pixels; notes the shapes that it saw."""

    def __init__(self, scale=2):
        super().__init__()
        self.scale, self.seen = scale, []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


def repeat(array, times=2):
    return array.repeat(times, 0).repeat(times, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A weight file and an adapter that changes much."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    net = build_network(RRDB)
    save_weights(folder / "base.safetensors", net.state_dict(), {"network_g": json.dumps(RRDB), "scale": "2"})
    inject(net, LoraOptions(rank=2), "RRDBNet")
    for parameter in trainable_parameters(net):
        nn.init.normal_(parameter, std=0.3)
    save_adapter(net, folder / "adapter")
    return folder


@pytest.mark.parametrize("name", ["sr_iqa", "sr_iqa.inference.upscaler"])
def test_the_examples_of_the_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed


def test_an_array_comes_out_as_the_command_line_would_write_it(files):
    image = picture(20)[:14]
    expected = to_uint8(upscale(load_for_inference(files / "base.safetensors"), to_tensor(image)[None])[0])
    np.testing.assert_array_equal(sr_iqa.load_upscaler(files / "base.safetensors", device="cpu")(image), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1), (7, 9, 3), (1, 1, 3), (1, 5)])
def test_arrays_keep_type_and_shape_and_lose_nothing(dtype, shape):
    image = np.random.default_rng(0).random(shape)
    image = image.astype(dtype) if np.issubdtype(dtype, np.floating) else (image * np.iinfo(dtype).max).astype(dtype)
    before = image.copy()
    out = Upscaler(Enlarge())(image)
    assert out.dtype == dtype and out.flags.c_contiguous
    np.testing.assert_allclose(out.astype(float), repeat(image).astype(float), rtol=1e-6 if dtype != np.float16 else 1e-3)
    np.testing.assert_array_equal(image, before)


def test_alpha_is_enlarged_bicubically_and_colours_are_not_mixed_with_it():
    image = np.concatenate([picture(12), np.full((12, 12, 1), 77, np.uint8)], 2)
    image[:, 6:, 3] = 200
    out = Upscaler(Enlarge())(image)
    np.testing.assert_array_equal(out[..., :3], repeat(image[..., :3]))
    assert (out[:, :6, 3] == 77).all() and (out[:, -6:, 3] == 200).all()
    assert ((out[:, 11:13, 3] > 77) & (out[:, 11:13, 3] < 200)).all()  # a soft edge
    gray = image[..., [0, 3]]
    np.testing.assert_array_equal(Upscaler(Enlarge())(gray)[..., 0], repeat(gray[..., 0]))


def test_gray_is_the_luma_of_a_coloured_output():
    net = nn.Conv2d(3, 3, 1)
    nn.init.zeros_(net.weight)
    net.bias.data = torch.tensor([1.0, 0.5, 0.0])
    assert (Upscaler(net)(np.zeros((4, 4), np.uint8)) == round(255 * (0.299 + 0.5 * 0.587))).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pillow_images_keep_mode_profile_and_resolution(mode):
    image = Image.fromarray(picture(10))
    image = Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600) if mode == "I;16" else image.convert(mode)
    image.info.update(icc_profile=b"a profile", dpi=(300, 300), comment="not kept")
    out = Upscaler(Enlarge())(image)
    assert out.mode == {"1": "L", "P": "RGB"}.get(mode, mode) and out.size == (20, 20)
    assert out.info == {"icc_profile": b"a profile", "dpi": (300, 300)}
    if mode in ("L", "RGB", "I;16"):
        np.testing.assert_array_equal(np.asarray(out), repeat(np.asarray(image)))


def test_a_palette_with_a_transparent_colour_gets_alpha():
    image = Image.fromarray(picture(10)).convert("P")
    image.info["transparency"] = image.getpixel((0, 0))
    assert Upscaler(Enlarge())(image).mode == "RGBA"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_type_and_build_no_graph(dtype):
    x = torch.rand(2, 3, 5, 4).to(dtype).requires_grad_()
    net = Enlarge()
    out = Upscaler(net)(x)
    assert out.dtype == dtype and not out.requires_grad and torch.equal(out, F.interpolate(x, scale_factor=2.0))
    assert net.seen == [(2, 3, 5, 4)]
    assert torch.equal(Upscaler(net)(x[0]), out[0])


def test_pictures_keep_what_their_file_said():
    given = Picture(picture(6)[..., :1], alpha=np.full((6, 6), 9, np.uint8), icc=b"profile")
    out = Upscaler(Enlarge()).picture(given)
    np.testing.assert_array_equal(out.pixels, repeat(given.pixels))
    assert out.icc == b"profile" and (out.alpha == 9).all() and out.alpha.shape == (12, 12)


def test_lists_go_through_in_batches_of_one_size():
    net = Enlarge()
    images = [picture(8, seed) for seed in range(3)] + [picture(6)] + [Image.fromarray(picture(6, 1))]
    out = Upscaler(net, batch=2)(images)
    assert [shape[0] for shape in net.seen] == [2, 1, 2] and isinstance(out, list)
    for one, image in zip(out, images, strict=True):
        np.testing.assert_array_equal(np.asarray(one), repeat(np.asarray(image)))
    assert Upscaler(net)([]) == [] and isinstance(Upscaler(net)((picture(8),)), tuple)


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (np.zeros((4, 4, 5), np.uint8), ValueError, "RGB"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "RGB"),
        (np.zeros((4, 4, 3), np.int64), ValueError, "uint8"),
        (np.full((4, 4, 3), 255.0), ValueError, r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), ValueError, r"\[0, 1\]"),
        (torch.zeros(1, 1, 4, 4), ValueError, "N, 3"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError, "float"),
        (torch.full((3, 4, 4), 200.0), ValueError, r"\[0, 1\]"),
        (Image.new("CMYK", (4, 4)), ValueError, "CMYK"),
        ("image.png", TypeError, "str"),
    ],
)
def test_what_is_no_image_is_refused(image, kind, words):
    with pytest.raises(kind, match=words):
        Upscaler(Enlarge())(image)


def test_an_output_of_nan_is_refused():
    net = nn.Conv2d(3, 3, 1)
    nn.init.constant_(net.weight, float("nan"))
    with pytest.raises(UserError, match="NaN"):
        Upscaler(net)(picture(8))


def test_tiles_and_magnification(files):
    whole = sr_iqa.load_upscaler(files / "base.safetensors", device="cpu")
    tiled = sr_iqa.load_upscaler(files / "base.safetensors", device="cpu", tile=16, batch=4)
    image = picture(40)
    assert np.abs(whole(image).astype(int) - tiled(image)).max() <= 1
    assert whole.magnification == 2 and Upscaler(Enlarge(3)).magnification == 3


def test_the_dial_turns_after_loading(files, caplog):
    image = picture(16)
    upscaler = sr_iqa.load_upscaler(files / "base.safetensors", files / "adapter", scale=0.5, device="cpu")
    half = upscaler(image)
    assert upscaler.adapter_scale == 0.5
    upscaler.adapter_scale = 0
    np.testing.assert_array_equal(upscaler(image), sr_iqa.load_upscaler(files / "base.safetensors", device="cpu")(image))
    upscaler.adapter_scale = 1
    full = upscaler(image)
    assert (full != half).any()
    np.testing.assert_array_equal(full, sr_iqa.load_upscaler(files / "base.safetensors", files / "adapter", device="cpu")(image))
    for wrong in (float("inf"), float("nan")):
        with pytest.raises(UsageError, match="from 0"):
            upscaler.adapter_scale = wrong
    upscaler.adapter_scale = 1.5
    assert (upscaler(image) != full).any() and "adapter scale 1.5 is outside [0, 1]" in caplog.text
    upscaler.adapter_scale = 1
    np.testing.assert_array_equal(upscaler(image), full)


def test_several_adapters_act_together_and_under_one_dial(files):
    pair, image = [(files / "adapter", 0.25), (str(files / "adapter"), 0.5)], picture(16).astype(np.float32) / 255
    upscaler = sr_iqa.load_upscaler(files / "base.safetensors", pair, device="cpu")
    one = sr_iqa.load_upscaler(files / "base.safetensors", files / "adapter", scale=0.75, device="cpu")
    np.testing.assert_allclose(upscaler(image), one(image), atol=1e-5)
    upscaler.adapter_scale, one.adapter_scale = 0.5, 0.375
    np.testing.assert_allclose(upscaler(image), one(image), atol=1e-5)


def test_without_adapter_there_is_no_dial(files):
    with pytest.raises(UsageError, match="no adapter"):
        sr_iqa.load_upscaler(files / "base.safetensors", scale=0.5, device="cpu")
    upscaler = sr_iqa.load_upscaler(files / "base.safetensors", device="cpu")
    with pytest.raises(UsageError, match="no adapter"):
        upscaler.adapter_scale = 0.5


@pytest.mark.parametrize("changes", [(), (LORA,)], ids=["plain", "lora"])
def test_a_runs_folder_is_taken_too(tmp_path, changes):
    folder = run(tmp_path, "run", {"network_g": RRDB, "train": {"total_iter": 1}}, *changes)
    image = picture(16)
    expected = to_uint8(upscale(load_model(folder), to_tensor(image)[None])[0])
    np.testing.assert_array_equal(sr_iqa.load_upscaler(folder, device="cpu")(image), expected)
    with pytest.raises(UsageError, match="brings its own"):
        sr_iqa.load_upscaler(folder, folder / "models" / "adapter_1", device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "nowhere"}, "nowhere"),
        ({"precision": "fp8"}, "choose one of"),
        ({"device": "cpu", "precision": "fp16"}, "CUDA"),
        ({"device": "cpu", "tile": -1}, "negative"),
        ({"device": "cpu", "batch": 0}, "at least 1"),
        ({"device": "cpu", "scale": float("nan")}, "from 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(files, options, words):
    with pytest.raises(UsageError, match=words):
        sr_iqa.load_upscaler(files / "base.safetensors", files / "adapter", **options)
    with pytest.raises(UserError, match=r"none\.safetensors"):
        sr_iqa.load_upscaler(files / "none.safetensors")


def test_bf16_keeps_the_output_exact(files):
    """The output is a picture of more levels than bfloat16 has, near that of float32."""
    image = np.full((16, 16, 3), 0.7, np.float32) + np.linspace(0, 0.01, 16, dtype=np.float32)[:, None, None]
    exact = sr_iqa.load_upscaler(files / "base.safetensors", device="cpu")(image)
    rounded = sr_iqa.load_upscaler(files / "base.safetensors", device="cpu", precision="bf16")(image)
    assert 0 < np.abs(exact - rounded).max() < 0.02
    assert (rounded != torch.from_numpy(rounded).bfloat16().float().numpy()).any()


def test_threads_take_turns(files):
    upscaler = sr_iqa.load_upscaler(files / "base.safetensors", files / "adapter", device="cpu")
    images = [picture(16, seed) for seed in range(4)]
    expected, found = [upscaler(image) for image in images], [None] * 4

    def work(k):
        found[k] = upscaler(images[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_documentations_code_runs(tmp_path, monkeypatch):
    """In order, in a folder with the files that it names."""
    text = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO_BASE, "base_x4.safetensors")
    net = inject(load_network(DEMO_BASE), LoraOptions(rank=2), "SwinIR")
    for parameter in trainable_parameters(net):
        nn.init.normal_(parameter, std=0.2)
    save_adapter(net, "adapter")
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    Image.fromarray(picture(24)[:20]).save("photo.png", exif=exif, dpi=(300, 300))
    names = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 7 and names["batch"].shape == (2, 3, 128, 128) and names["second"].shape == (192, 256, 3)
    assert (names["full"] != names["half"]).any() and names["chosen"].value >= 40 and 0 < names["chosen"].scale < 1
    assert Path("comparison.html").exists()
    for name in ("larger.png", "larger.jpg"):
        with Image.open(name) as image:
            assert image.size == (80, 96) and image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
            assert image.getexif()[271] == "Maker" and image.getexif().get(274, 1) == 1


def test_gray_networks_take_and_give_gray(tmp_path):
    swinir = {"type": "SwinIR", "in_chans": 1, "upscale": 1, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4}
    torch.manual_seed(0)
    net = build_network(swinir).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "gray.pth")
    upscaler = sr_iqa.load_upscaler(tmp_path / "gray.pth", device="cpu")
    image = torch.rand(1, 1, 8, 12)
    with torch.no_grad():
        expected = net(image).clamp(0, 1)
    assert upscaler.magnification == 1
    assert (upscaler(image.expand(1, 3, 8, 12)) - expected).abs().max() <= 1e-6
    gray = (image[0, 0].numpy() * 255).astype(np.uint8)
    assert upscaler(gray).shape == gray.shape
    colour = upscaler(torch.rand(3, 8, 12))
    assert torch.equal(colour[0], colour[1]) and torch.equal(colour[0], colour[2])

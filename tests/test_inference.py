import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sr_iqa
from sr_iqa.adapters import inject, save_adapter, trainable_parameters
from sr_iqa.archs import build_network
from sr_iqa.checkpoints import CheckpointError, load_network, read_metadata, save_weights
from sr_iqa.config.models import LoraOptions
from sr_iqa.errors import UserError
from sr_iqa.images import read_image, write_png
from sr_iqa.inference import infer_folder, load_for_inference, merge_adapters, upscale
from sr_iqa.inference.pictures import read_picture
from sr_iqa.inference.tiles import multiple_of
from tests.helpers import picture

DEMO_BASE = Path(sr_iqa.__file__).parent / "assets" / "base_x4.safetensors"


class Enlarge(nn.Module):
    """Repeats pixels: an identity but for the size. Notes what it saw."""

    def __init__(self, scale=2):
        super().__init__()
        self.scale, self.seen = scale, set()

    def forward(self, x):
        assert not self.training
        self.seen.add(tuple(x.shape[2:]))
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


@pytest.mark.parametrize("overlap", [0, 1, 3, 7, 16, 100])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (16, 16), (17, 33), (31, 9)])
def test_tiles_of_an_identity_give_the_whole(overlap, size):
    x = torch.rand(2, 3, *size)
    for tile in (1, 5, 8, 16):
        for scale in (1, 3):
            assert torch.equal(upscale(Enlarge(scale), x, tile, overlap), upscale(Enlarge(scale), x)), tile


def test_enough_overlap_hides_the_tiles_of_a_convolution():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2))
    x = torch.rand(1, 3, 37, 29)
    assert (upscale(net, x, tile=8, overlap=2) - upscale(net, x)).abs().max() <= 1e-6
    assert (upscale(net, x, tile=8, overlap=0) - upscale(net, x)).abs().max() > 1e-3


def test_all_tiles_have_one_shape_and_small_images_are_not_cut():
    net = Enlarge()
    upscale(net, torch.rand(1, 3, 37, 29), tile=8, overlap=4)
    assert net.seen == {(16, 16)}
    upscale(net, torch.rand(1, 3, 7, 5), tile=8)
    assert (7, 5) in net.seen


def test_tiles_go_through_the_network_together():
    net = Enlarge()
    calls = []
    net.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    x = torch.rand(1, 3, 20, 17)
    for batch, expected in ((1, [1] * 9), (4, [4, 4, 1]), (100, [9])):
        calls.clear()
        assert torch.equal(upscale(net, x, tile=7, overlap=2, batch=batch), F.interpolate(x, scale_factor=2)) and calls == expected
    pair = torch.rand(2, 3, 20, 17)
    calls.clear()
    assert torch.equal(upscale(net, pair, tile=7, overlap=2, batch=4), F.interpolate(pair, scale_factor=2))
    assert calls == [4, 4, 4, 4, 2]


def gradient(height, width):
    """A smooth picture, on which seams would show: (1, 3, height, width)."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    return torch.stack([0.5 * (x + y), x * y, 0.5 + 0.5 * torch.sin(3 * x + 2 * y)])[None]


def test_tiles_of_a_smooth_picture_meet_without_seams():
    torch.manual_seed(0)
    net = build_network({"type": "RRDBNet", "scale": 4, **RRDB, "num_block": 3}).eval()  # sees 50 pixels around each
    x = gradient(61, 90)
    whole, tiled = upscale(net, x), upscale(net, x, tile=24, overlap=16)
    assert whole.std() > 1e-3 and (whole - tiled).abs().max() <= 1 / 255
    seams = [4 * 24 * k for k in (1, 2, 3) if 4 * 24 * k < whole.shape[3]]
    steps = (tiled[..., 1:] - tiled[..., :-1] - whole[..., 1:] + whole[..., :-1]).abs()
    assert steps[..., [seam - 1 for seam in seams]].max() <= 0.5 / 255


def windowed(seed=0, gain=5.0, window=8):
    """A SwinIR whose attention has a say: its matrices are larger than at the start of training."""
    torch.manual_seed(seed)
    options = {**SWINIR, "img_size": 64, "window_size": window, "depths": [4, 4], "upsampler": "pixelshuffledirect", "upscale": 2}
    net = build_network(options).eval()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= gain
    return net


@pytest.mark.parametrize(("tile", "overlap"), [(32, 16), (29, 13), (3, 9)])
def test_tiles_of_a_windowed_network_are_laid_on_its_windows(tile, overlap):
    net, x = windowed(), torch.from_numpy(picture(52)).permute(2, 0, 1)[None, :, :37].float() / 255
    assert (upscale(net, x, tile, overlap) - upscale(net, x)).abs().max() <= 1 / 255
    seen = set()
    net.register_forward_pre_hook(lambda _, inputs: seen.add(tuple(inputs[0].shape)))
    upscale(net, x, tile, overlap)
    assert len(seen) == 1 and all(side % 8 == 0 for side in next(iter(seen))[2:])


def test_an_overlap_of_16_hides_the_tiles_of_the_shipped_network():
    """What docs/inference.md says of it, in levels of 255."""
    net, x = load_for_inference(DEMO_BASE), torch.from_numpy(picture(104)).permute(2, 0, 1)[None, :, :, :80].float() / 255
    whole = upscale(net, x)
    none, eight, sixteen = (255 * float((upscale(net, x, 48, overlap) - whole).abs().max()) for overlap in (0, 8, 16))
    assert none > 8 and eight < 1 and sixteen < 0.1


def test_tiles_beside_the_windows_would_show(monkeypatch):
    """What the test above would not notice if windows made no difference."""
    net, x = windowed(), torch.rand(1, 3, 64, 64)
    monkeypatch.setattr("sr_iqa.inference.tiles.multiple_of", lambda net: 1)
    assert (upscale(net, x, 29, 14) - upscale(net, x)).abs().max() > 4 / 255


@pytest.mark.parametrize("scale", [1, 2])
def test_tiles_of_an_unshuffling_network_start_on_its_grid(scale):
    torch.manual_seed(0)
    net = build_network({"type": "RRDBNet", "scale": scale, **RRDB, "num_block": 1}).eval()
    x = torch.rand(1, 3, 47, 35)
    assert (upscale(net, x, tile=13, overlap=21) - upscale(net, x)).abs().max() <= 1e-5
    assert multiple_of(net) == 4 // scale


def test_upscale_clamps_restores_the_mode_and_builds_no_graph():
    net = nn.Conv2d(3, 3, 1).train()
    nn.init.constant_(net.weight, 5.0)
    out = upscale(net, torch.rand(1, 3, 4, 4))
    assert net.training and not out.requires_grad and out.min() >= 0 and out.max() <= 1
    with pytest.raises(UserError, match="negative"):
        upscale(net, out, tile=-1)


def test_a_folder_of_users_images_is_upscaled(tmp_path):
    image = picture(20)
    write_png(tmp_path / "in" / "rgb.png", image)
    cv2.imwrite(str(tmp_path / "in" / "gray.png"), image[..., 0])
    cv2.imwrite(str(tmp_path / "in" / "deep.tif"), image[..., ::-1].astype(np.uint16) * 257)
    assert infer_folder(Enlarge(2), tmp_path / "in", tmp_path / "out", tile=8) == 3
    expected = image.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "rgb.png"), expected)
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "deep.png").pixels, expected.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "gray.png").pixels, expected[..., :1])
    assert infer_folder(Enlarge(2), tmp_path / "in" / "rgb.png", tmp_path / "one") == 1


def test_bad_images_are_named_after_the_others_are_done(tmp_path):
    write_png(tmp_path / "in" / "good.png", picture(8))
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 2 images(.|\n)*bad.png"):
        infer_folder(Enlarge(), tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "good.png").exists()


def test_nothing_is_overwritten_by_accident(tmp_path):
    write_png(tmp_path / "in" / "a.png", picture(8))
    with pytest.raises(UserError, match="overwrite"):
        infer_folder(Enlarge(), tmp_path / "in", tmp_path / "in")
    cv2.imwrite(str(tmp_path / "in" / "a.jpg"), picture(8))
    with pytest.raises(UserError, match="several images"):
        infer_folder(Enlarge(), tmp_path / "in", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        infer_folder(Enlarge(), tmp_path / "empty", tmp_path / "out")


# ---------------------------------------------------------------- weight files

SWINIR = {"type": "SwinIR", "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "img_size": 16, "mlp_ratio": 2.5}
RRDB = {"num_feat": 8, "num_block": 2, "num_grow_ch": 4}
NETWORKS = [
    {**SWINIR, "upsampler": "pixelshuffle", "upscale": 4, "resi_connection": "3conv"},
    {**SWINIR, "upsampler": "pixelshuffle", "upscale": 3, "ape": True},
    {**SWINIR, "upsampler": "pixelshuffle", "upscale": 1, "qkv_bias": False},
    {**SWINIR, "upsampler": "pixelshuffledirect", "upscale": 2, "patch_norm": False},
    {**SWINIR, "upsampler": "nearest+conv", "upscale": 4, "depths": [1, 3]},
    {**SWINIR, "upsampler": "", "upscale": 1, "window_size": 7, "img_size": 14, "img_range": 255.0},
    {**SWINIR, "upsampler": "", "upscale": 1, "in_chans": 1},
    {**SWINIR, "upsampler": "pixelshuffledirect", "upscale": 2, "img_size": 4},
    {"type": "RRDBNet", "scale": 4, **RRDB},
    {"type": "RRDBNet", "scale": 2, **RRDB},
    {"type": "RRDBNet", "scale": 1, **RRDB},
    {"type": "RRDBPSNet", "scale": 4, **RRDB},
]


@pytest.mark.parametrize("options", NETWORKS, ids=lambda o: "-".join(str(o.get(k)) for k in ("type", "upsampler", "upscale", "scale")))
def test_our_networks_are_recognised_in_foreign_files(options, tmp_path):
    net = build_network(options).eval()
    torch.save({"params_ema": net.state_dict()}, tmp_path / "net.pth")
    found = load_network(tmp_path / "net.pth")
    x = torch.rand(1, options.get("in_chans", 3), 16, 16)
    with torch.no_grad():
        assert type(found) is type(net) and torch.equal(found(x), net(x))


def test_our_own_files_say_what_they_are(tmp_path):
    options = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2}
    net = build_network(options).eval()
    save_weights(tmp_path / "a.safetensors", net.state_dict(), {"network_g": json.dumps(options)})
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_for_inference(tmp_path / "a.safetensors")(x), net(x))
    save_weights(tmp_path / "b.safetensors", net.state_dict(), {"network_g": json.dumps({**options, "num_feat": 4})})
    with pytest.raises(CheckpointError, match="do not fit EDSR"):
        load_network(tmp_path / "b.safetensors")


def test_other_networks_are_left_to_spandrel(tmp_path):
    net = build_network({"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 2, "upscale": 2}).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "compact.pth")
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert (upscale(load_for_inference(tmp_path / "compact.pth"), x) - net(x).clamp(0, 1)).abs().max() <= 1e-6


def test_files_of_no_network_are_refused(tmp_path):
    save_weights(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {})
    with pytest.raises(CheckpointError, match="no known network"):
        load_network(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_network(tmp_path)


def test_adapters_are_loaded_scaled_and_merged(tmp_path):
    options = {"type": "RRDBNet", "scale": 2, **RRDB}
    net = build_network(options)
    save_weights(tmp_path / "base.safetensors", net.state_dict(), {"network_g": json.dumps(options), "scale": "2"})
    inject(net, LoraOptions(rank=2), "RRDBNet")
    for parameter in trainable_parameters(net):
        nn.init.normal_(parameter, std=0.3)
    save_adapter(net, tmp_path / "adapter")
    x = torch.rand(1, 3, 8, 8)

    def run(**options):
        return upscale(load_for_inference(tmp_path / "base.safetensors", **options), x)

    assert torch.equal(run(adapter=tmp_path / "adapter"), upscale(net, x))
    assert torch.equal(run(adapter=tmp_path / "adapter", adapter_scale=0), run())
    half = run(adapter=tmp_path / "adapter", adapter_scale=0.5)
    merge_adapters(tmp_path / "base.safetensors", [(tmp_path / "adapter", 0.5)], tmp_path / "merged.safetensors")
    assert (upscale(load_for_inference(tmp_path / "merged.safetensors"), x) - half).abs().max() <= 1e-5
    assert (half - run()).abs().max() > 1e-3
    said = read_metadata(tmp_path / "merged.safetensors")
    assert said["adapter_scale"] == "0.5" and said["scale"] == "2" and said["merged_adapter"] == "adapter"
    with pytest.raises(UserError, match="safetensors"):
        merge_adapters(tmp_path / "base.safetensors", [(tmp_path / "adapter", 1.0)], tmp_path / "merged.pth")

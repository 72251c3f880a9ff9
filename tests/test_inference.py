import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sr_iqa.adapters import inject, save_adapter, trainable_parameters
from sr_iqa.archs import build_network
from sr_iqa.checkpoints import CheckpointError, load_network, read_metadata, save_weights
from sr_iqa.config.models import LoraOptions
from sr_iqa.errors import UserError
from sr_iqa.images import read_image, write_png
from sr_iqa.inference import infer_folder, load_for_inference, merge_adapter, upscale
from tests.helpers import picture


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
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "deep.png"), expected)
    assert read_image(tmp_path / "out" / "gray.png").shape == (40, 40, 3)
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
    merge_adapter(tmp_path / "base.safetensors", tmp_path / "adapter", tmp_path / "merged.safetensors", scale=0.5)
    assert (upscale(load_for_inference(tmp_path / "merged.safetensors"), x) - half).abs().max() <= 1e-5
    assert (half - run()).abs().max() > 1e-3
    said = read_metadata(tmp_path / "merged.safetensors")
    assert said["adapter_scale"] == "0.5" and said["scale"] == "2" and said["merged_adapter"] == "adapter"
    with pytest.raises(UserError, match="safetensors"):
        merge_adapter(tmp_path / "base.safetensors", tmp_path / "adapter", tmp_path / "merged.pth")

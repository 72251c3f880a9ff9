"""Architectures that Spandrel knows, trained through its modules: recognised, run, given an adapter, merged, saved, loaded."""

import json

import pytest
import torch
from spandrel import ModelLoader
from torch import nn

from sr_iqa.adapters import AdapterError, inject, load_adapter, merge, report, save_adapter, set_scale, trainable_parameters
from sr_iqa.archs import build_network
from sr_iqa.archs.spandrel_bridge import recognise, spandrel_archs
from sr_iqa.checkpoints import CheckpointError, load_into, load_network, network_section, read_metadata, save_weights
from sr_iqa.config.models import AUTO, LoraOptions
from sr_iqa.errors import UsageError, UserError
from tests.tiny_runs import run

TRANSFORMER = {"img_size": 64, "embed_dim": 24, "num_heads": [2], "mlp_ratio": 2, "upscale": 2, "upsampler": "pixelshuffle"}
SMALL = {
    "ATD": {**TRANSFORMER, "depths": [2], "window_size": 8, "num_tokens": 8, "reducted_dim": 4, "category_size": 256},
    "CRAFT": {"embed_dim": 24, "depths": [2], "num_heads": [2], "upscale": 2, "mlp_ratio": 2},
    "Compact": {"num_feat": 8, "num_conv": 2, "upscale": 2},
    "DAT": {"img_size": 64, "embed_dim": 24, "split_size": [4, 8], "depth": [2], "num_heads": [2], "expansion_factor": 2, "upscale": 2}
    | {"upsampler": "pixelshuffle"},
    "DITN": {"dim": 16, "ITL_blocks": 1, "SAL_blocks": 1, "UFONE_blocks": 1, "patch_size": 8, "upscale": 2},
    "DRCT": {**TRANSFORMER, "depths": [6], "window_size": 8, "gc": 8},
    "ESRGAN": {"num_filters": 8, "num_blocks": 1, "scale": 2},
    "FDAT": {"scale": 2, "embed_dim": 16, "num_groups": 1, "depth_per_group": 1, "num_heads": 2},
    "HAT": {**TRANSFORMER, "depths": [2], "window_size": 8, "compress_ratio": 3, "squeeze_factor": 4, "overlap_ratio": 0.5},
    "MoESR": {"scale": 2, "dim": 16, "n_blocks": 1, "n_block": 1},
    "MoSR": {"dim": 16, "upscale": 2, "n_block": 1},
    "OmniSR": {"num_feat": 16, "block_num": 1, "res_num": 1, "up_scale": 2, "window_size": 8},
    "PLKSR": {"dim": 16, "n_blocks": 1, "upscaling_factor": 2},
    "RGT": {"img_size": 64, "embed_dim": 24, "depth": [2], "num_heads": [2], "mlp_ratio": 2, "upscale": 2, "split_size": [4, 8]},
    "RealPLKSR": {"dim": 16, "n_blocks": 1, "upscaling_factor": 2},
    "SAFMN": {"dim": 8, "n_blocks": 1, "upscaling_factor": 2},
    "SeemoRe": {"scale": 2, "embedding_dim": 16, "num_layers": 1},
    "Swin2SR": {**TRANSFORMER, "depths": [2], "window_size": 8},
}
X = torch.rand(1, 3, 17, 21, generator=torch.Generator().manual_seed(0))


def section(name):
    return {"type": f"spandrel.{name}", **SMALL[name]}


def built(name):
    torch.manual_seed(0)
    return build_network(section(name)).eval()


@torch.no_grad()
def output(net):
    return net.eval()(X)


@pytest.mark.parametrize("name", SMALL)
def test_files_are_recognised_and_run_as_spandrel_runs_them(name, tmp_path):
    net = built(name)
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    found = network_section(tmp_path / "net.pth")
    assert found["type"] == f"spandrel.{name}" and {key: found[key] for key in SMALL[name]} == SMALL[name]
    assert json.loads(json.dumps(found)) == found
    loaded = load_network(tmp_path / "net.pth")
    theirs = ModelLoader().load_from_file(tmp_path / "net.pth")
    assert (output(loaded).clamp(0, 1) - theirs(X)).abs().max() <= 1e-6
    assert output(loaded).shape == (1, 3, 34, 42) and torch.equal(output(loaded), output(net))
    save_weights(tmp_path / "net.safetensors", loaded.state_dict(), {"network_g": json.dumps(found)})
    assert torch.equal(output(load_network(tmp_path / "net.safetensors")), output(net))
    load_into(build_network(found), tmp_path / "net.pth")


@pytest.mark.parametrize("name", SMALL)
def test_adapters_learn_act_and_merge(name, tmp_path):
    """One LoRA step; the output in evaluation changes with the adapter; merged, in both modes, and after a round trip it is the same."""
    net = built(name)
    before = output(net)
    inject(net, LoraOptions(rank=2), f"spandrel.{name}")
    assert torch.equal(output(net), before)
    optimizer = torch.optim.SGD(trainable_parameters(net), lr=1.0)
    (net.train()(torch.rand(2, 3, 16, 16)) - 0.5).square().mean().backward()
    optimizer.step()
    moved = [p for p_name, p in net.named_parameters() if "lora_B" in p_name and p.abs().sum() > 0]
    assert moved and all(p.grad is None for p_name, p in net.named_parameters() if "lora_" not in p_name)
    for parameter_name, parameter in net.named_parameters():
        if "lora_B" in parameter_name:
            nn.init.normal_(parameter, std=0.1)
    adapted = output(net)
    assert (adapted - before).abs().max() > 1e-3
    plain = build_network(section(name))
    plain.load_state_dict(merge(net))
    assert (output(plain) - adapted).abs().max() <= 1e-5
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.manual_seed(1)  # drop path
        in_training = net.train()(x)
        torch.manual_seed(1)
        merged = plain.train()
        for module in merged.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # under an adapter a base does not move
        assert (merged(x) - in_training).abs().max() <= 1e-5
    save_adapter(net, tmp_path / "adapter")
    assert torch.equal(output(load_adapter(built(name), tmp_path / "adapter")), adapted)
    set_scale(net, 0.0)
    assert torch.equal(output(net), before)


def test_inputs_stay_as_they_are():
    net = build_network({"type": "spandrel.RCAN", "scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 8, "reduction": 4}).eval()
    x = torch.rand(1, 3, 16, 16)
    before = x.clone()
    with torch.no_grad():
        net(x)
    assert torch.equal(x, before)


def test_what_lora_cannot_cover_is_skipped_and_listed():
    grouped = report(inject(built("MoSR"), LoraOptions(rank=2), "spandrel.MoSR"))
    assert grouped.skipped and all(built("MoSR").get_submodule(name).groups > 1 for name in grouped.skipped)
    assert "skipped" in str(grouped)
    by_hand = report(inject(built("Swin2SR"), LoraOptions(rank=2), "spandrel.Swin2SR"))
    assert by_hand.skipped and all(name.endswith("qkv") for name in by_hand.skipped)


class Odd(nn.Module):
    """A convolution that PEFT's LoRA would compute as if it were plain, beside one that it covers."""

    def __init__(self, **arguments):
        super().__init__()
        self.odd, self.plain = nn.Conv2d(3, 3, 3, padding="same", **arguments), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.plain(self.odd(x))


@pytest.mark.parametrize("arguments", [{"padding_mode": "reflect"}, {"dilation": 2}, {"groups": 3}], ids=str)
def test_convolutions_that_peft_misunderstands_are_skipped(arguments):
    assert report(inject(Odd(**arguments), LoraOptions(rank=2), "my.Odd")).skipped == ("odd",)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x))


def test_statistics_of_a_base_stay_as_they_are():
    net = inject(Normed(), LoraOptions(rank=2), "my.Normed")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()(torch.rand(4, 3, 8, 8) + 5)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_networks_that_read_their_weights_are_refused_by_name(tmp_path):
    options = {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}
    net = build_network({"type": "spandrel.SPAN", **options})
    with pytest.raises(AdapterError, match=r"spandrel.SPAN|SPAN reads"):
        inject(net, LoraOptions(rank=2), "spandrel.SPAN")
    torch.save({"params": net.state_dict()}, tmp_path / "span.pth")
    changes = {"network_g": {"type": AUTO}, "path": {"pretrain_network_g": str(tmp_path / "span.pth")}, "lora": {"rank": 2}}
    with pytest.raises(UserError, match="SPAN reads"):
        run(tmp_path, "span", changes)


def test_a_run_tunes_a_foreign_network_with_an_adapter(tmp_path):
    """From a file alone: recognised, trained with LoRA and a reward's kind of loop, resumed, evaluated."""
    torch.save({"params": built("OmniSR").state_dict()}, tmp_path / "omni.pth")
    changes = {"network_g": {"type": AUTO}, "path": {"pretrain_network_g": str(tmp_path / "omni.pth")}, "lora": {"rank": 2}}
    folder = run(tmp_path, "omni", changes, {"train": {"reward_opt": {"metric": "nano", "weight": 0.01}}})
    assert "type: spandrel.OmniSR" in (folder / "options.yml").read_text()
    net = load_network(tmp_path / "omni.pth")
    assert (output(load_adapter(net, folder / "models" / "adapter_6")) - output(built("OmniSR"))).abs().max() > 1e-6


def test_a_run_trains_all_weights_of_a_foreign_network(tmp_path):
    torch.save({"params": built("SAFMN").state_dict()}, tmp_path / "safmn.pth")
    folder = run(tmp_path, "safmn", {"network_g": {"type": AUTO}, "path": {"pretrain_network_g": str(tmp_path / "safmn.pth")}})
    file = folder / "models" / "net_g_6.safetensors"
    assert json.loads(read_metadata(file)["network_g"])["type"] == "spandrel.SAFMN"
    assert (ModelLoader().load_from_file(file)(X) - output(load_network(file)).clamp(0, 1)).abs().max() <= 1e-6


def test_names_and_files_that_are_no_such_network(tmp_path):
    assert "spandrel.HAT" in spandrel_archs() and "spandrel.LaMa" not in spandrel_archs()
    with pytest.raises(UsageError, match=r"'spandrel.HATT' is not a network. Did you mean 'spandrel.HAT'\?"):
        build_network({"type": "spandrel.HATT"})
    with pytest.raises(UsageError, match="Its arguments"):
        build_network({"type": "spandrel.Compact", "depth": 3})
    torch.save(build_network({"type": "spandrel.Compact", "num_in_ch": 1, "num_out_ch": 1}).state_dict(), tmp_path / "gray.pth")
    with pytest.raises(CheckpointError, match="not a network from RGB images to RGB images"):
        load_network(tmp_path / "gray.pth")
    with pytest.raises(UsageError, match=r"spandrel.HAT cannot be built with these arguments \(ZeroDivisionError"):
        build_network({"type": "spandrel.HAT", "embed_dim": 16, "window_size": 8})
    with pytest.raises(UserError, match="no known network"):
        recognise({"w": torch.ones(2)})

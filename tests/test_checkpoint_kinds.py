"""Weight files as other projects write them: each is built in its real layout, read here, and held against Spandrel's reading of it."""

import json

import pytest
import torch
from safetensors.torch import save_file
from spandrel import ModelLoader
from spandrel.architectures.SwinIR import SwinIR as SpandrelSwinIR
from torch import nn

from sr_iqa.archs import build_network
from sr_iqa.archs.canonical import canonical
from sr_iqa.checkpoints import CheckpointError, load_into, load_network, load_weights, network_section, with_network
from sr_iqa.config.models import AUTO
from sr_iqa.errors import UsageError
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.trainer import train
from tests.tiny_runs import run, tiny

CLASSICAL = {"img_size": 48, "window_size": 8, "embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "mlp_ratio": 2}
OFFICIAL = {
    "classical x2": {**CLASSICAL, "upsampler": "pixelshuffle", "upscale": 2},
    "classical x3": {**CLASSICAL, "img_size": 64, "upsampler": "pixelshuffle", "upscale": 3},
    "classical x4": {**CLASSICAL, "img_size": 64, "upsampler": "pixelshuffle", "upscale": 4},
    "classical x8": {**CLASSICAL, "upsampler": "pixelshuffle", "upscale": 8},
    "lightweight x2": {**CLASSICAL, "img_size": 64, "embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upscale": 2}
    | {"upsampler": "pixelshuffledirect"},
    "lightweight x4": {**CLASSICAL, "img_size": 64, "embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upscale": 4}
    | {"upsampler": "pixelshuffledirect"},
    "real-world M x2": {**CLASSICAL, "img_size": 64, "upsampler": "nearest+conv", "upscale": 2},
    "real-world M x4": {**CLASSICAL, "img_size": 64, "upsampler": "nearest+conv", "upscale": 4},
    "real-world L x4": {**CLASSICAL, "img_size": 64, "embed_dim": 240, "depths": [6] * 9, "num_heads": [8] * 9, "upscale": 4}
    | {"upsampler": "nearest+conv", "resi_connection": "3conv"},
    "gray denoising": {**CLASSICAL, "img_size": 128, "in_chans": 1, "upsampler": "", "upscale": 1},
    "color denoising": {**CLASSICAL, "img_size": 128, "upsampler": "", "upscale": 1},
    "gray JPEG": {**CLASSICAL, "img_size": 126, "window_size": 7, "in_chans": 1, "upsampler": "", "upscale": 1, "img_range": 255.0},
    "color JPEG": {**CLASSICAL, "img_size": 126, "window_size": 7, "upsampler": "", "upscale": 1, "img_range": 255.0},
}
"""The networks of the SwinIR model zoo, as its test script builds them."""


def randomised(net):
    torch.manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return net.eval()


def same_as_spandrel(path, channels=3, size=(15, 18), limit=1e-5):
    """The file through us and through Spandrel; returns our network."""
    net = load_network(path)
    x = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    theirs = ModelLoader().load_from_file(path).eval()
    with torch.no_grad():
        ours, reference = net(x).clamp(0, 1), theirs(x)
    assert ours.shape == reference.shape and (ours - reference).abs().max() <= limit
    assert reference.std() > 0.01  # not all black or white
    return net


def swinir_agrees(kind, arguments, tmp_path):
    key = "params_ema" if kind.startswith("real") else "params"
    torch.save({key: randomised(SpandrelSwinIR(**arguments)).state_dict()}, tmp_path / "net.pth")
    size = (21, 28) if arguments["window_size"] == 7 else (15, 18)  # Spandrel's smallest is 16, which for windows of 7 is other padding
    net = same_as_spandrel(tmp_path / "net.pth", arguments.get("in_chans", 3), size)
    assert type(net).__module__.startswith("sr_iqa.archs.swinir")
    section = network_section(tmp_path / "net.pth")
    assert {name: section[name] for name in arguments if name != "img_size"} == {k: v for k, v in arguments.items() if k != "img_size"}


@pytest.mark.parametrize("kind", OFFICIAL)
def test_swinir_files_equal_spandrels(kind, tmp_path):
    heads = OFFICIAL[kind]["num_heads"][0]
    swinir_agrees(kind, {**OFFICIAL[kind], "depths": [2, 3], "num_heads": [heads] * 2, "embed_dim": 4 * heads}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OFFICIAL)
def test_official_swinir_files_equal_spandrels(kind, tmp_path):
    swinir_agrees(kind, OFFICIAL[kind], tmp_path)


# ---------------------------------------------------------------- RRDB in its many names

RRDB = {"type": "RRDBNet", "num_feat": 8, "num_block": 2, "num_grow_ch": 32}
SECOND = {"body.": "RRDB_trunk.", "conv_body.": "trunk_conv.", "conv_up1.": "upconv1.", "conv_up2.": "upconv2.", "conv_hr.": "HRconv."}
FIRST = {"conv_first.": "model.0.", "body.": "model.1.sub.", "conv_body.": "model.1.sub.2.", "conv_up1.": "model.3."}
FIRST |= {"conv_up2.": "model.6.", "conv_hr.": "model.8.", "conv_last.": "model.10."}


def rrdb_state(**arguments):
    return randomised(build_network({**RRDB, **arguments})).state_dict()


def renamed(state, names):
    """BasicSR's names -> older ones, written the other way round than the product does."""
    found = {}
    for name, value in state.items():
        start = next((old for old in names if name.startswith(old)), "")
        new = names.get(start, start) + name.removeprefix(start)
        new = new.replace(".rdb", ".RDB")
        if "sub" in new and ".RDB" in new:
            new = new.replace(".weight", ".0.weight").replace(".bias", ".0.bias")
        found[new] = value
    return found


LAYOUTS = {
    "BasicSR, both": lambda state: {"params": {k: v + 1 for k, v in state.items()}, "params_ema": state},
    "BasicSR, params": lambda state: {"params": state},
    "bare": lambda state: state,
    "DistributedDataParallel": lambda state: {"params": {f"module.{k}": v for k, v in state.items()}},
    "compiled and distributed": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "KAIR, netG": lambda state: {f"netG.{k}": v for k, v in state.items()},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "ESRGAN, first code": lambda state: renamed(state, FIRST),
    "ESRGAN, second code, and BSRGAN": lambda state: renamed(state, SECOND),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rrdb_files_of_all_layouts_are_ours(layout, tmp_path):
    state = rrdb_state(scale=4)
    torch.save(LAYOUTS[layout](state), tmp_path / "net.pth")
    net = same_as_spandrel(tmp_path / "net.pth") if "compiled" not in layout else load_network(tmp_path / "net.pth")
    assert type(net).__module__ == "sr_iqa.archs.rrdbnet"
    assert load_weights(tmp_path / "net.pth").keys() == state.keys()
    fresh = build_network({**RRDB, "scale": 4})
    load_into(fresh, tmp_path / "net.pth")
    assert all(torch.equal(value, state[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("scale", "num_block"), [(4, 23), (2, 23), (4, 6), (1, 23)], ids=["RealESRGAN_x4plus", "RealESRGAN_x2plus", "x4plus_anime_6B", "x1"]
)
def test_real_esrgan_files(scale, num_block, tmp_path):
    torch.save({"params_ema": rrdb_state(scale=scale, num_block=num_block)}, tmp_path / "net.pth")
    net = same_as_spandrel(tmp_path / "net.pth", size=(16, 20), limit=3e-5)  # sizes that need no padding, where Spandrel's is another
    assert type(net).__module__ == "sr_iqa.archs.rrdbnet"
    assert network_section(tmp_path / "net.pth") == {**RRDB, "num_in_ch": 3, "num_out_ch": 3, "scale": scale, "num_block": num_block}


def test_bsrgan_x2_has_other_layers_and_is_left_to_spandrel(tmp_path):
    state = {name: value for name, value in renamed(rrdb_state(scale=4), SECOND).items() if not name.startswith("upconv2")}
    torch.save(state, tmp_path / "BSRGANx2.pth")
    same_as_spandrel(tmp_path / "BSRGANx2.pth")
    assert network_section(tmp_path / "BSRGANx2.pth")["type"] == "spandrel.ESRGAN"
    net = build_network(network_section(tmp_path / "BSRGANx2.pth"))
    load_into(net, tmp_path / "BSRGANx2.pth")  # names of the older code


def test_hggt_files_are_recognised_before_spandrel_is_asked(tmp_path):
    net = randomised(build_network({**RRDB, "type": "RRDBPSNet", "scale": 4}))
    torch.save({"params": net.state_dict(), "params_ema": net.state_dict()}, tmp_path / "net_g_300000.pth")
    assert network_section(tmp_path / "net_g_300000.pth")["type"] == "RRDBPSNet"
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "net_g_300000.pth")(x), net(x))


def test_trainner_redux_and_neosr_files(tmp_path):
    state = rrdb_state(scale=4)
    save_file(state, tmp_path / "4x_name_net_g_ema_1000.safetensors", metadata={"format": "pt", "arch": "esrgan"})
    torch.save({"params": state}, tmp_path / "net_g_1000.pth")
    for name in ("4x_name_net_g_ema_1000.safetensors", "net_g_1000.pth"):
        assert type(same_as_spandrel(tmp_path / name)).__module__ == "sr_iqa.archs.rrdbnet"


def test_canonical_names_leave_strangers_alone():
    assert canonical({"model.0.weight": 1, "model.1.weight": 2}) == {"model.0.weight": 1, "model.1.weight": 2}
    assert canonical({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}
    assert canonical({}) == {}


# ---------------------------------------------------------------- network_g


def test_the_network_is_that_of_the_weights_where_it_is_left_out(tmp_path):
    section = {**RRDB, "scale": 2}
    torch.save({"params": rrdb_state(scale=2)}, tmp_path / "base.pth")
    options = tiny(tmp_path, "auto", {"network_g": {"type": AUTO}, "path": {"pretrain_network_g": str(tmp_path / "base.pth")}})
    assert options.network_g.model_dump() == {"type": AUTO}
    assert with_network(options).network_g.model_dump() == {**section, "num_in_ch": 3, "num_out_ch": 3}
    folder = train(options, quiet=True)
    assert "type: RRDBNet" in (folder / "options.yml").read_text()
    assert train(options, quiet=True) == folder  # done already: the same options
    nowhere = options.model_copy(update={"path": options.path.model_copy(update={"pretrain_network_g": tmp_path / "no.pth"})})
    assert with_network(nowhere) is nowhere
    with pytest.raises(UsageError, match="'auto' is not a network"):
        train(nowhere.model_copy(update={"name": "other"}), quiet=True)
    with pytest.raises(UsageError, match="network_g: missing; give it, or path.pretrain_network_g"):
        with_network(options.model_copy(update={"path": type(options.path)()}))


def test_disagreement_is_told_in_numbers_or_in_names(tmp_path):
    torch.save(rrdb_state(scale=4), tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as error:
        load_into(build_network({**RRDB, "num_block": 3, "num_feat": 16, "scale": 4}), tmp_path / "net.pth")
    assert "num_feat is 8 in the file, 16 in the options; num_block is 2 in the file, 3 in the options" in str(error.value)
    swinir = {"type": "SwinIR", "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4, "upscale": 1}
    with pytest.raises(CheckpointError, match=r"The file is of RRDBNet \(num_in_ch 3, scale 4, .*num_block 2"):
        load_into(build_network(swinir), tmp_path / "net.pth")
    state = rrdb_state(scale=4)
    state["conv_lost.weight"] = state.pop("conv_last.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"conv_last.weight \(nearest there: conv_lost.weight\)"):
        load_into(build_network({**RRDB, "scale": 4}), tmp_path / "odd.pth")


def test_what_training_writes_says_where_it_comes_from(tmp_path):
    torch.save({"params": rrdb_state(scale=2)}, tmp_path / "base.pth")
    changes = {"network_g": {**RRDB, "scale": 2}, "path": {"pretrain_network_g": str(tmp_path / "base.pth")}}
    folder = run(tmp_path, "facts", changes, {"datasets": {"train": {"name": "hggt", "sampling": {"strategy": "uniform_all"}}}})
    from sr_iqa.checkpoints import file_hash, read_metadata

    said = read_metadata(folder / "models" / "net_g_6.safetensors")
    assert json.loads(said["network_g"])["type"] == "RRDBNet" and said["scale"] == "2" and len(said["options_hash"]) == 16
    assert (said["training_data"], said["sampling"], said["parent"]) == ("hggt", "uniform_all", "base.pth")
    assert said["parent_hash"] == file_hash(tmp_path / "base.pth")
    (tmp_path / "base.pth").unlink()
    assert type(load_trained(folder)).__name__ == "RRDBNet"  # whole without its parent
    assert type(same_as_spandrel(folder / "models" / "net_g_6.safetensors", size=(16, 20))).__name__ == "RRDBNet"

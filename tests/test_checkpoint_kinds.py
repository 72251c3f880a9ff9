"""Weight files as other projects write them: each is built in its real layout, read here, and held against Spandrel's reading of it."""

import json

import pytest
import spandrel
import torch
from safetensors.torch import save_file
from spandrel import ModelLoader
from spandrel.architectures.ESRGAN import ESRGAN as SpandrelESRGAN
from spandrel.architectures.SwinIR import SwinIR as SpandrelSwinIR
from torch import nn

from sr_iqa.archs import build_network
from sr_iqa.archs.canonical import readings
from sr_iqa.checkpoints import CheckpointError, load_into, load_network, network_section, save_weights, with_network
from sr_iqa.config.models import AUTO
from sr_iqa.errors import UsageError
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.trainer import train
from tests.tiny_runs import run, tiny

SWINIR_SMALL = {"img_size": 16, "window_size": 8, "embed_dim": 12, "depths": [2], "num_heads": [2], "mlp_ratio": 2}
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


def swinir_section(kind, arguments, tmp_path):
    """What is recognised in a file of this kind, whose outputs are compared with Spandrel's; without the training size."""
    key = "params_ema" if kind.startswith("real") else "params"
    torch.save({key: randomised(SpandrelSwinIR(**arguments)).state_dict()}, tmp_path / "net.pth")
    size = (21, 28) if arguments["window_size"] == 7 else (15, 18)  # Spandrel's smallest is 16, which for windows of 7 is other padding
    net = same_as_spandrel(tmp_path / "net.pth", arguments.get("in_chans", 3), size)
    assert type(net).__module__.startswith("sr_iqa.archs.swinir")
    section = network_section(tmp_path / "net.pth")
    return {name: section[name] for name in arguments} | {"img_size": arguments["img_size"]}


@pytest.mark.parametrize("kind", OFFICIAL)
def test_swinir_files_equal_spandrels(kind, tmp_path):
    heads = OFFICIAL[kind]["num_heads"][0]
    small = {**OFFICIAL[kind], "depths": [2, 3], "num_heads": [heads] * 2, "embed_dim": 4 * heads}
    assert swinir_section(kind, small, tmp_path) == small


@pytest.mark.slow
@pytest.mark.parametrize("kind", OFFICIAL)
def test_official_swinir_files_equal_spandrels(kind, tmp_path):
    assert swinir_section(kind, OFFICIAL[kind], tmp_path) == OFFICIAL[kind]


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
    "Lightning": lambda state: {"state_dict": {f"net.{k}": v for k, v in state.items()}, "global_step": 3},
    "a GAN's state_dict": lambda state: {
        "state_dict": {f"generator.{k}": v for k, v in state.items()} | {"discriminator.w": torch.ones(2)}
    },
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in state.items()},
    "ESRGAN, first code": lambda state: renamed(state, FIRST),
    "ESRGAN, second code, and BSRGAN": lambda state: renamed(state, SECOND),
}


ALONE = ("compiled and distributed", "Lightning", "a GAN's state_dict", "AveragedModel")
"""Layouts that Spandrel does not read."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rrdb_files_of_all_layouts_are_ours(layout, tmp_path):
    state = rrdb_state(scale=4)
    torch.save(LAYOUTS[layout](state), tmp_path / "net.pth")
    net = same_as_spandrel(tmp_path / "net.pth") if layout not in ALONE else load_network(tmp_path / "net.pth")
    assert type(net).__module__ == "sr_iqa.archs.rrdbnet"
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


def test_names_are_read_as_they_are_first():
    stranger = {"model.0.weight": 1, "model.1.weight": 2}
    assert list(readings(stranger)) == [stranger]
    assert list(readings({"module.a": 1, "b": 2})) == [{"module.a": 1, "b": 2}, {"a": 1}]
    assert list(readings({"n_averaged": 0, "module.net.a": 1}))[-1] == {"a": 1}
    assert list(readings({})) == [{}]
    plus = {**renamed(rrdb_state(scale=4), FIRST), "model.1.sub.0.RDB1.conv1x1.weight": torch.ones(8, 8, 1, 1)}
    assert list(readings(plus)) == [plus]  # ESRGAN+ has layers that our RRDBNet has not


def test_esrgan_plus_keeps_its_own_layers(tmp_path):
    net = randomised(SpandrelESRGAN(num_filters=8, num_blocks=1, scale=4, plus=True))
    torch.save(net.state_dict(), tmp_path / "plus.pth")
    x = torch.rand(1, 3, 16, 16)
    assert network_section(tmp_path / "plus.pth")["plus"] is True
    with torch.no_grad():
        assert (load_network(tmp_path / "plus.pth")(x) - net(x)).abs().max() <= 1e-5


def test_networks_with_names_of_others_load_their_own_files(tmp_path):
    """Spandrel's x4 ESRGAN and a user's wrapper have names that would be taken for something else."""
    esrgan = {"type": "spandrel.ESRGAN", "num_filters": 8, "num_blocks": 1, "scale": 4}
    net = randomised(build_network(esrgan))
    save_weights(tmp_path / "a.safetensors", net.state_dict(), {"network_g": json.dumps(esrgan)})
    load_into(build_network(esrgan), tmp_path / "a.safetensors")
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "a.safetensors")(x), net(x))
    mine = nn.ModuleDict({"generator": build_network({**RRDB, "scale": 2})})
    torch.save(mine.state_dict(), tmp_path / "mine.pth")
    load_into(mine, tmp_path / "mine.pth")


DEEP = {
    "HAT": {"img_size": 64, "embed_dim": 24, "depths": [6] * 12, "num_heads": [2] * 12, "window_size": 16, "squeeze_factor": 8}
    | {"compress_ratio": 3, "upscale": 2, "upsampler": "pixelshuffle", "mlp_ratio": 2},
    "RCAN": {"scale": 2, "n_resgroups": 10, "n_resblocks": 20, "n_feats": 8, "reduction": 4},
    "DAT": {"img_size": 64, "embed_dim": 24, "split_size": [8, 32], "depth": [6] * 6, "num_heads": [2] * 6, "expansion_factor": 2}
    | {"upscale": 2, "upsampler": "pixelshuffle"},
}


@pytest.mark.parametrize("name", DEEP)
def test_networks_of_real_depth_are_not_taken_for_bombs(name, tmp_path):
    section = {"type": f"spandrel.{name}", **DEEP[name]}
    torch.save(build_network(section).state_dict(), tmp_path / "net.pth")
    found = network_section(tmp_path / "net.pth")
    assert {key: found[key] for key in DEEP[name]} == DEEP[name]
    save_weights(tmp_path / "net.safetensors", load_network(tmp_path / "net.pth").state_dict(), {"network_g": json.dumps(found)})
    assert len(load_network(tmp_path / "net.safetensors").state_dict()) > 300


@pytest.mark.parametrize("name", ["UpCunet2x", "UpCunet3x", "UpCunet4x"])
def test_real_cugan(name, tmp_path):
    net = randomised(getattr(spandrel.architectures.RealCUGAN, name)())
    torch.save(net.state_dict(), tmp_path / "net.pth")
    assert network_section(tmp_path / "net.pth")["type"] == f"spandrel.{name}"
    same_as_spandrel(tmp_path / "net.pth", size=(40, 44), limit=1e-4)


def test_numbers_that_only_a_header_knows_are_taken_from_it(tmp_path):
    """traiNNer-redux writes the arguments of its network into the header."""

    def written(arguments, net):
        save_file(net.state_dict(), tmp_path / "net.safetensors", metadata={"metadata": json.dumps(arguments)})
        return tmp_path / "net.safetensors"

    arguments = {**SWINIR_SMALL, "img_range": 255.0, "upscale": 2, "upsampler": "pixelshuffledirect", "use_checkpoint": True}
    net = randomised(SpandrelSwinIR(**SWINIR_SMALL, img_range=255.0, upscale=2, upsampler="pixelshuffledirect"))
    x = torch.rand(1, 3, 16, 16)
    path = written(arguments, net)
    with torch.no_grad():
        assert (load_network(path)(x) - net(x)).abs().max() <= 1e-4
    assert network_section(path)["img_range"] == 255.0
    triple = randomised(SpandrelESRGAN(num_filters=8, num_blocks=1, scale=3))
    assert network_section(written({"scale": 3, "num_filters": 8, "num_blocks": 1}, triple))["scale"] == 3
    with pytest.raises(CheckpointError, match="learn_residual: False, which spandrel.Compact does not have"):
        load_network(written({"learn_residual": False}, build_network({"type": "spandrel.Compact", "num_feat": 8, "num_conv": 2})))
    with pytest.raises(CheckpointError, match="its header says num_filters: 16, which does not go with its weights"):
        load_network(written({"num_filters": 16}, triple))
    with pytest.raises(CheckpointError, match="its header says num_filters: many, which"):
        load_network(written({"num_filters": "many"}, triple))
    for odd in ("{", "[1]", "3"):
        save_file(triple.state_dict(), tmp_path / "odd.safetensors", metadata={"metadata": odd})
        assert load_network(tmp_path / "odd.safetensors")


def test_files_with_parts_of_a_network_are_refused_with_words(tmp_path):
    state = rrdb_state(scale=4)
    for name, change in (("conv_last.weight", None), ("conv_first.weight", torch.ones(3))):
        spoilt = {key: value for key, value in state.items() if key != name} | ({name: change} if change is not None else {})
        torch.save(spoilt, tmp_path / "net.pth")
        with pytest.raises(CheckpointError, match="no known network"):
            load_network(tmp_path / "net.pth")


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

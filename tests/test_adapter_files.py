"""Adapters on disk: folders and single files, several at once, on other bases, and through the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sr_iqa.adapters import (
    AdapterError,
    adapter_weights,
    convert_adapter,
    describe_adapter,
    load_adapter,
    load_adapters,
    merge,
    save_adapter,
    set_scale,
    with_scales,
)
from sr_iqa.checkpoints import load_network, network_section, read_metadata, save_weights
from sr_iqa.cli import app
from sr_iqa.errors import UsageError, UserError
from sr_iqa.inference import load_for_inference, merge_adapters
from tests.test_adapters import NETS, X, adapted, plain, run


@pytest.fixture
def files(tmp_path):
    """A base and two adapters on it, of other ranks and layers."""
    save_weights(tmp_path / "base.safetensors", plain().state_dict(), {"network_g": json.dumps({"type": "SwinIR", **NETS["SwinIR"]})})
    save_adapter(adapted(), tmp_path / "a")
    torch.manual_seed(7)
    save_adapter(adapted(rank=3, target_modules=("qkv", "conv_first")), tmp_path / "b.safetensors")
    return tmp_path


def test_a_single_file_is_the_folder(files):
    convert_adapter(files / "a", files / "a.safetensors")
    convert_adapter(files / "a.safetensors", files / "again")
    nets = [load_adapter(plain(), files / name) for name in ("a", "a.safetensors", "again", "again/adapter_model.safetensors")]
    assert all(torch.equal(run(net), run(nets[0])) for net in nets) and not torch.equal(run(nets[0]), run(plain()))
    assert describe_adapter(files / "a.safetensors") == describe_adapter(files / "a")
    assert load_file(files / "again" / "adapter_model.safetensors").keys() == load_file(files / "a.safetensors").keys()
    with pytest.raises(AdapterError, match="is there already"):
        convert_adapter(files / "a", files / "again")


def test_several_adapters_add_up(files):
    base = run(plain())
    net = load_adapters(plain(), [(files / "a", 0.5), (files / "b.safetensors", -0.25)])
    assert adapter_weights(net) == {"default": 0.5, "default1": -0.25}
    state = {name: value.clone() for name, value in plain().state_dict().items()}
    for file, weight in (("a", 0.5), ("b.safetensors", -0.25)):
        one = merge(load_adapter(plain(), files / file))
        for name, value in plain().state_dict().items():
            if value.is_floating_point() and not name.endswith("attn_mask"):
                state[name] += weight * (one[name] - value)
    expected = plain()
    expected.load_state_dict(state)
    assert (run(net) - run(expected)).abs().max() <= 1e-5 and (run(net) - base).abs().max() > 1e-3
    merged = plain()
    merged.load_state_dict(merge(net))
    assert (run(merged) - run(net)).abs().max() <= 1e-5
    set_scale(net, 0.0)
    assert torch.equal(run(net), base)
    set_scale(net, 1.0)
    assert (run(net) - run(expected)).abs().max() <= 1e-5
    with pytest.raises(AdapterError, match="several adapters"):
        save_adapter(net, files / "c")
    with pytest.raises(AdapterError, match="finite"):
        load_adapters(plain(), [(files / "a", float("nan"))])


def test_another_base_is_refused_unless_forced(files):
    with pytest.raises(AdapterError, match=r"trained on other base weights .*--force"):
        load_adapters(plain(seed=5), [(files / "a", 1.0)])
    net = load_adapters(plain(seed=5), [(files / "a", 1.0)], check_base=False)
    assert (run(net) - run(plain(seed=5))).abs().max() > 1e-3


def test_scales_are_one_for_all_or_one_for_each(files, caplog):
    paths = [files / "a", files / "b.safetensors"]
    assert [scale for _, scale in with_scales(paths, [])] == [1.0, 1.0]
    assert [scale for _, scale in with_scales(paths, [0.3])] == [0.3, 0.3]
    assert not caplog.records
    assert [scale for _, scale in with_scales(paths, [0.3, 1.5])] == [0.3, 1.5]
    assert "1.5 is outside [0, 1]" in caplog.text
    with pytest.raises(UsageError, match="--weight: 2 adapters, but 3 numbers"):
        with_scales(paths, [1, 2, 3], "--weight")
    with pytest.raises(UsageError, match="--weight is for adapters"):
        with_scales([], [1], "--weight")


def test_merged_weights_are_plain_and_say_where_they_come_from(files):
    adapters = [(files / "a", 0.5), (files / "b.safetensors", 1.0)]
    merge_adapters(files / "base.safetensors", adapters, files / "merged.safetensors")
    said = read_metadata(files / "merged.safetensors")
    assert (said["merged_adapter"], said["adapter_scale"], said["parent"]) == ("a, b.safetensors", "0.5, 1.0", "base.safetensors")
    assert network_section(files / "merged.safetensors")["type"] == "SwinIR"
    with torch.no_grad():
        both = load_for_inference(files / "base.safetensors", adapters)
        assert (load_network(files / "merged.safetensors")(X) - both(X)).abs().max() <= 1e-5


def test_files_that_are_no_adapters(files):
    save_file({"w": torch.ones(1)}, files / "plain.safetensors")
    (files / "empty").mkdir()
    (files / "a.txt").write_text("x")
    for name, words in (("plain.safetensors", "not an adapter"), ("a.txt", "not an adapter"), ("empty", "there is no adapter_config")):
        with pytest.raises(AdapterError, match=words):
            load_adapter(plain(), files / name)
    content = load_file(files / "b.safetensors")
    save_file(content, files / "bad.safetensors", metadata={"adapter_config": json.dumps({"peft_type": "LOKR"})})
    with pytest.raises(AdapterError, match="damaged adapter, or one that cannot be used here"):
        load_adapter(plain(), files / "bad.safetensors")


def command(*arguments):
    result = CliRunner().invoke(app, ["adapter", *map(str, arguments)])
    return result.exit_code, result.output, result.exception


def test_the_commands(files):
    assert command("convert", files / "a", "-o", files / "one.safetensors")[0] == 0
    assert "rank: 2" in command("info", files / "one.safetensors")[1]
    arguments = (
        "merge",
        files / "one.safetensors",
        files / "b.safetensors",
        "-m",
        files / "base.safetensors",
        "-o",
        files / "m.safetensors",
    )
    assert command(*arguments, "--scale", "0.5", "--scale", "1")[0] == 0
    merge_adapters(files / "base.safetensors", [(files / "a", 0.5), (files / "b.safetensors", 1.0)], files / "same.safetensors")
    one, two = load_file(files / "m.safetensors"), load_file(files / "same.safetensors")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    save_weights(files / "other.safetensors", plain(seed=5).state_dict(), {})
    arguments = ("merge", files / "a", "-m", files / "other.safetensors", "-o", files / "forced.safetensors")
    assert isinstance(command(*arguments)[2], AdapterError)
    assert not (files / "forced.safetensors").exists()
    assert command(*arguments, "--force")[0] == 0


def test_the_weights_that_an_adapter_was_trained_on_are_taken(files):
    """A .pth holds two sets; the adapter says which it was trained on."""
    torch.save({"params_ema": plain(seed=5).state_dict(), "params": plain().state_dict()}, files / "two.pth")
    with torch.no_grad():
        expected = load_for_inference(files / "base.safetensors", files / "a")(X)
        assert torch.equal(load_for_inference(files / "two.pth", files / "a")(X), expected)
        assert not torch.equal(load_for_inference(files / "two.pth")(X), load_network(files / "base.safetensors")(X))


def test_a_second_merge_remembers_the_first_and_nothing_is_overwritten(files):
    merge_adapters(files / "base.safetensors", [(files / "a", 0.5)], files / "one.safetensors")
    merge_adapters(files / "one.safetensors", [(files / "b.safetensors", 1.0)], files / "two.safetensors", check_base=False)
    said = read_metadata(files / "two.safetensors")
    assert (said["merged_adapter"], said["adapter_scale"]) == ("a, b.safetensors", "0.5, 1.0")
    with pytest.raises(UserError, match="is there already"):
        merge_adapters(files / "base.safetensors", [(files / "a", 0.5)], files / "one.safetensors")
    with pytest.raises(AdapterError, match=r"ending in \.safetensors"):
        convert_adapter(files / "a", files / "a.pth")


@pytest.mark.parametrize(
    "change", [{"r": 10**18}, {"r": 3}, {"lora_alpha": 1e300}, {"init_lora_weights": "pissa"}, {"lora_alpha": 0}, {"r": True}], ids=str
)
def test_hostile_configurations_are_refused(files, change):
    path = files / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AdapterError, match="damaged adapter"):
        load_adapter(plain(), files / "a")


def test_tensors_that_are_no_fractions_are_refused(files):
    weights = files / "a" / "adapter_model.safetensors"
    metadata = read_metadata(weights)
    save_file({name: value.to(torch.int8) for name, value in load_file(weights).items()}, weights, metadata=metadata)
    with pytest.raises(AdapterError, match="damaged adapter"):
        load_adapter(plain(), files / "a")

import copy
import logging
import subprocess
import sys

import pytest
import torch
from torch import nn

from sr_iqa.adapters import (
    AdapterError,
    adapter_state,
    base_hash,
    describe_adapter,
    inject,
    load_adapter,
    merge,
    report,
    save_adapter,
    set_scale,
    trainable_parameters,
)
from sr_iqa.archs import build_network
from sr_iqa.config.models import LoraOptions

NETS = {
    "SwinIR": {
        "embed_dim": 12,
        "depths": [2],
        "num_heads": [2],
        "window_size": 4,
        "img_size": 8,
        "upsampler": "pixelshuffle",
        "upscale": 2,
    },
    "RRDBNet": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4, "scale": 2},
    "RRDBPSNet": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4, "scale": 4},
}
X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def plain(name="SwinIR", seed=0):
    torch.manual_seed(seed)
    return build_network({"type": name, **NETS[name]}).eval()


def adapted(name="SwinIR", seed=0, **options):
    """A network with an adapter that has an effect."""
    net = inject(plain(name, seed), LoraOptions(**{"rank": 2, "alpha": 3.0, **options}), name)
    for parameter in trainable_parameters(net):
        nn.init.normal_(parameter, std=0.1 if name == "SwinIR" else 0.3)  # RRDB scales its branches by 0.2 twice
    return net.eval()


@torch.no_grad()
def run(net):
    return net(X)


@pytest.mark.parametrize("name", NETS)
def test_a_fresh_adapter_changes_nothing_and_only_it_learns(name):
    net = inject(plain(name), LoraOptions(rank=2), name)
    assert torch.equal(run(net), run(plain(name)))
    net.train()(X).sum().backward()
    learning = {parameter_name for parameter_name, p in net.named_parameters() if p.grad is not None}
    assert learning and all("lora_" in parameter_name for parameter_name in learning)
    assert report(net).trainable == sum(p.numel() for n, p in net.named_parameters() if n in learning)
    assert report(net).total == sum(p.numel() for p in plain(name).parameters())


def test_gradients_reach_b_at_first_and_then_a():
    net = inject(plain(), LoraOptions(rank=2), "SwinIR").train()
    optimizer = torch.optim.SGD(trainable_parameters(net), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        net(X).square().mean().backward()
        moving = {n: bool(p.grad.abs().sum() > 0) for n, p in net.named_parameters() if p.requires_grad}
        assert all(moving[n] for n in moving if "lora_B" in n)
        assert all(moving[n] == (step > 0) for n in moving if "lora_A" in n)
        optimizer.step()


@pytest.mark.parametrize("name", NETS)
def test_train_eval_and_merged_agree_and_differ_from_the_base(name):
    net = adapted(name)
    expected = run(net)
    for module in net.modules():  # drop path off, so that training mode has nothing random
        if type(module).__name__ == "DropPath":
            module.rate = 0.0
    assert (run(net.train()) - expected).abs().max() <= 1e-5
    target = plain(name, seed=5)
    target.load_state_dict(merge(net.eval()))
    assert (run(target) - expected).abs().max() <= 1e-5
    assert (expected - run(plain(name))).abs().max() > 1e-3, "the adapter has an effect in evaluation"
    assert torch.equal(run(net), expected), "merging leaves the network alone"


def test_scale_is_a_dial_between_base_and_adapter():
    net = adapted()
    full = run(net)
    set_scale(net, 0)
    assert torch.equal(run(net), run(plain()))
    set_scale(net, 0.5)
    half = run(net)
    target = plain()
    target.load_state_dict(merge(net))
    assert (run(target) - half).abs().max() <= 1e-5 and not torch.equal(half, full)
    set_scale(net, 1)
    assert torch.equal(run(net), full)


@pytest.mark.parametrize("name", NETS)
def test_stock_peft_loads_our_folder_with_equal_outputs(name, tmp_path):
    from peft import PeftModel

    net = adapted(name)
    save_adapter(net, tmp_path / "adapter", "abc")
    stock = PeftModel.from_pretrained(plain(name), str(tmp_path / "adapter")).eval()
    assert (run(stock) - run(net)).abs().max() <= 1e-6
    assert (run(stock) - run(plain(name))).abs().max() > 1e-3


def test_round_trip_into_a_plain_network_and_into_one_with_an_adapter(tmp_path):
    net = adapted()
    save_adapter(net, tmp_path / "a")
    assert torch.equal(run(load_adapter(plain(), tmp_path / "a").eval()), run(net))
    other = inject(plain(), LoraOptions(rank=2, alpha=3), "SwinIR")
    assert torch.equal(run(load_adapter(other, tmp_path / "a").eval()), run(net))
    assert adapter_state(other).keys() == adapter_state(net).keys()
    other.train()(X).sum().backward()
    assert all(p.grad is not None for p in trainable_parameters(other)), "it goes on learning"


def test_a_loaded_adapter_leaves_only_itself_learning(tmp_path):
    save_adapter(adapted(), tmp_path / "a")
    net = load_adapter(plain(), tmp_path / "a")
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {n for n, _ in net.named_parameters() if "lora_" in n}


def test_an_adapter_for_other_weights_rank_or_network_is_refused(tmp_path):
    save_adapter(adapted(), tmp_path / "a")
    with pytest.raises(AdapterError, match="other base weights"):
        load_adapter(plain(seed=1), tmp_path / "a")
    load_adapter(plain(seed=1), tmp_path / "a", check_base=False)
    with pytest.raises(AdapterError, match="another network or rank"):
        load_adapter(inject(plain(), LoraOptions(rank=3), "SwinIR"), tmp_path / "a")
    with pytest.raises(AdapterError, match="no adapter_config.json"):
        load_adapter(plain(), tmp_path)
    with pytest.raises(AdapterError, match="no adapter"):
        save_adapter(plain(), tmp_path / "b")
    with pytest.raises(AdapterError, match="already"):
        inject(adapted(), LoraOptions(), "SwinIR")


def test_base_hash_is_that_of_the_plain_network_whatever_the_adapter_does():
    assert base_hash(adapted()) == base_hash(plain()) != base_hash(plain(seed=1))


def test_an_adapter_says_what_it_is(tmp_path):
    save_adapter(adapted(), tmp_path / "a", "abcd")
    said = describe_adapter(tmp_path / "a")
    assert said["rank"] == "2" and said["alpha"] == "3.0" and said["layers"] == "8" and said["base file (hash)"] == "abcd"
    assert said["base weights (hash)"] == base_hash(plain()) and said["architecture"] == "SwinIR"


def test_chosen_endings_and_wrong_ones():
    net = inject(plain(), LoraOptions(rank=2, target_modules=("qkv", "conv_last")), "SwinIR")
    assert [name.rpartition(".")[2] for name in report(net).targets] == ["qkv", "qkv", "conv_last"]
    with pytest.raises(AdapterError, match=r"ends in 'qvk'. There are 0, conv"):
        inject(plain(), LoraOptions(target_modules=("qvk",)), "SwinIR")


class Grouped(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.Conv2d(8, 4, 1))


def test_other_networks_get_all_layers_and_grouped_convolutions_are_skipped_and_listed(caplog):
    with caplog.at_level(logging.INFO):
        net = inject(nn.Sequential(Grouped(), Grouped()), LoraOptions(rank=3, target_modules=("0", "1")), "my.Net")
    assert report(net).targets == ("0.1", "1.1") and report(net).skipped == ("0.0", "1.0")
    assert "skipped, because LoRA cannot cover them: 0.0, 1.0" in caplog.text
    assert report(inject(nn.Sequential(nn.Conv2d(3, 3, 1)), LoraOptions(), "my.Net")).targets == ("0",)


@pytest.mark.parametrize("name", ["SPAN", "spandrel.architectures.SPAN.SPAN"])
def test_networks_that_fold_their_weights_are_refused(name):
    with pytest.raises(AdapterError, match="SPAN"):
        inject(plain(), LoraOptions(), name)


def test_dropout_acts_in_training_only():
    net = adapted(dropout=0.5)
    assert torch.equal(run(net), run(net))
    assert not torch.equal(run(net.train()), run(net))


def test_copies_are_independent():
    net = adapted()
    twin = copy.deepcopy(net)
    set_scale(twin, 0)
    assert not torch.equal(run(net), run(twin))


def test_importing_the_module_does_not_import_peft():
    code = "import sys, sr_iqa.adapters; sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

import copy
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sr_iqa.archs import attention, build_network, layers, resolve_network, swin_block
from sr_iqa.archs.basicsr_bridge import basicsr_archs
from sr_iqa.archs.discriminators import advance_spectral_norm, held_spectral_norm
from sr_iqa.archs.swin_block import shifted_windows
from sr_iqa.checkpoints import save_weights
from sr_iqa.errors import UsageError

SWINIR = {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "img_size": 8, "mlp_ratio": 2}
RRDB = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "num_grow_ch": 4}


def randomise(net):
    """Random weights everywhere, biases and norms included, large enough that every path matters while values stay near 1."""
    for p in net.parameters():
        nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.ndim > 1 else 0.1)
    return net


def gradients(net, x):
    """The output, and the gradients of a fixed sum of it, by name."""
    torch.manual_seed(1)
    net.zero_grad()
    x = x.clone().requires_grad_()
    y = net(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return y, {"input": x.grad, **{name: p.grad for name, p in net.named_parameters() if p.grad is not None}}


def assert_same_function(ours, theirs, x, training=False, float32=True):
    """On the same weights the same outputs and the same gradients of input and parameters.

    Both to 1e-5 in float32 and 1e-9 in float64, of their largest value where that is above 1. Without `float32` only in float64: a leaky
    ReLU whose input is 1e-8 on one side and -1e-8 on the other has another gradient.
    """
    theirs.load_state_dict(ours.state_dict())
    ours.train(training), theirs.train(training)
    dtypes = (torch.float32, torch.float64) if float32 else (torch.float64,)
    outputs = []
    for net in (ours, theirs):
        torch.manual_seed(1)
        outputs.append(net(x))
    assert outputs[0].shape == outputs[1].shape
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-5 * outputs[1].abs().max().clamp_min(1)
    for dtype in dtypes:
        (y, a), (z, b) = gradients(ours.to(dtype), x.to(dtype)), gradients(theirs.to(dtype), x.to(dtype))
        limit = 1e-5 if dtype == torch.float32 else 1e-9
        assert a.keys() == b.keys() and (y - z).abs().max() <= limit * z.abs().max().clamp_min(1)
        for name in a:
            difference = (a[name] - b[name]).abs().max()
            assert difference <= limit * max(1.0, b[name].abs().max().item()), (name, difference)
    ours.float()


UPSAMPLERS = [("pixelshuffle", 1), ("pixelshuffle", 2), ("pixelshuffle", 3), ("pixelshuffle", 4), ("pixelshuffledirect", 1)]
UPSAMPLERS += [("pixelshuffledirect", 2), ("pixelshuffledirect", 3), ("pixelshuffledirect", 4), ("nearest+conv", 4), ("", 1)]


@pytest.mark.parametrize(("upsampler", "scale"), UPSAMPLERS)
def test_swinir_equals_basicsr(upsampler, scale):
    options = {**SWINIR, "upsampler": upsampler, "upscale": scale}
    ours = randomise(build_network({"type": "SwinIR", **options}))
    size = (8, 12) if scale == 1 else (8, 8)  # the size that the masks in the file are for, and another
    assert_same_function(ours, basicsr_archs()["SwinIR"](**options), torch.rand(2, 3, *size))


@pytest.mark.parametrize(
    "change",
    [
        {"resi_connection": "3conv"},
        {"ape": True},
        {"patch_norm": False},
        {"qkv_bias": False, "qk_scale": 0.3},
        {"img_range": 255.0, "window_size": 2},
        {"window_size": 8},  # one window holds the training image: no shift
        {"in_chans": 1},
    ],
)
def test_swinir_variants_equal_basicsr(change):
    options = {**SWINIR, "upsampler": "pixelshuffledirect", "upscale": 2, **change}
    ours = randomise(build_network({"type": "SwinIR", **options}))
    assert_same_function(ours, basicsr_archs()["SwinIR"](**options), torch.rand(2, options.get("in_chans", 3), 8, 8))


def test_swinir_in_training_draws_what_basicsr_draws():
    options = {**SWINIR, "upsampler": "", "upscale": 1, "drop_path_rate": 0.5, "drop_rate": 0.1, "attn_drop_rate": 0.1}
    ours = randomise(build_network({"type": "SwinIR", **options}))
    theirs = basicsr_archs()["SwinIR"](**{**options, "drop_rate": 0.0, "attn_drop_rate": 0.0})
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the order of elements differs, so only drop path can be compared
    assert_same_function(ours, theirs, torch.rand(4, 3, 8, 8), training=True)


@pytest.mark.parametrize(
    ("upsampler", "scale", "size"),
    [
        ("nearest+conv", 2, (9, 14)),
        ("nearest+conv", 8, (5, 6)),
        ("pixelshuffle", 3, (17, 5)),
        ("pixelshuffledirect", 4, (13, 7)),
        ("", 1, (9, 14)),
    ],
)
def test_swinir_on_odd_sizes_equals_spandrel(upsampler, scale, size):
    from spandrel.architectures.SwinIR import SwinIR

    options = {**SWINIR, "upsampler": upsampler, "upscale": scale}
    ours = randomise(build_network({"type": "SwinIR", **options}))
    assert_same_function(ours, SwinIR(**options), torch.rand(1, 3, *size), float32=upsampler != "nearest+conv")
    assert ours(torch.rand(1, 3, *size)).shape[2:] == (size[0] * scale, size[1] * scale)


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_tiny_images_pass(size):
    for options in ({**SWINIR, "type": "SwinIR", "upscale": 2, "upsampler": "pixelshuffle"}, {**RRDB, "type": "RRDBNet", "scale": 1}):
        net = build_network(options)
        scale = options.get("upscale", 1)
        assert net(torch.rand(1, 3, *size)).shape[2:] == (size[0] * scale, size[1] * scale)


def test_spandrel_recognises_our_swinir_file():
    from spandrel import ModelLoader

    ours = randomise(build_network({"type": "SwinIR", **SWINIR, "img_size": 16, "upsampler": "pixelshuffle", "upscale": 4})).eval()
    loaded = ModelLoader().load_from_state_dict(dict(ours.state_dict()))
    assert loaded.architecture.id == "SwinIR" and loaded.scale == 4
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert (loaded(x) - ours(x).clamp(0, 1)).abs().max() <= 1e-5


def test_swinir_loads_files_of_another_training_size_and_files_without_masks():
    options = {**SWINIR, "type": "SwinIR", "upsampler": "pixelshuffle", "upscale": 2}
    source = randomise(build_network(options)).eval()
    target = build_network({**options, "img_size": 16}).eval()
    target.load_state_dict(source.state_dict())
    x = torch.rand(1, 3, 8, 12)
    assert torch.equal(source(x), target(x))
    bare = {k: v for k, v in source.state_dict().items() if not k.endswith(("attn_mask", "relative_position_index"))}
    target.load_state_dict(bare)
    with pytest.raises(RuntimeError, match=r"norm\.weight"):
        target.load_state_dict({k: v for k, v in bare.items() if k != "norm.weight"})


def test_swinir_mask_is_made_once_per_size_even_under_inference_mode():
    net = build_network({**SWINIR, "type": "SwinIR", "upsampler": "pixelshuffle", "upscale": 2})
    shifted_windows.cache_clear()
    with torch.inference_mode():
        net(torch.rand(1, 3, 12, 12))
    net(torch.rand(1, 3, 12, 12)).sum().backward()
    assert shifted_windows.cache_info().misses == 1


@pytest.mark.parametrize("per_window", [False, True])
@pytest.mark.parametrize(("b", "v", "head_dim"), [(1, 3, 10), (2, 4, 30), (2, 1, 8)])
def test_fused_attention_has_the_gradients_of_plain_attention(b, v, head_dim, per_window):
    """The kernels of GPUs are told apart from this one, which runs here, by their arguments only: filled-up heads and an explicit scale."""
    qkv = torch.randn(b, v, 16, 3 * 2 * head_dim, dtype=torch.float64, requires_grad=True)
    bias = torch.randn((v, 2, 16, 16) if per_window else (2, 16, 16), dtype=torch.float64, requires_grad=True)
    results = []
    for attend in (attention.plain_attention, partial(attention.fused_attention, head_multiple=attention.GPU_HEAD_MULTIPLE)):
        with sdpa_kernel(SDPBackend.MATH):
            out = attend(qkv, bias, 0.3)
        results.append((out, *torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), (qkv, bias))))
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"drop_path_rate": 0.5}, {"qk_scale": 0.3, "window_size": 2}])
def test_swinir_trains_on_a_gpu_as_on_a_cpu(monkeypatch, options):
    """Outputs and all gradients, those of the bias tables included, of the way that a GPU takes; masks and several samples included."""
    options = {"upsampler": "pixelshuffledirect", "upscale": 2, **SWINIR, **options}
    net = randomise(build_network({"type": "SwinIR", **options})).double()
    x = torch.rand(3, 3, 8, 12, dtype=torch.float64)
    y, plain = gradients(net, x)
    plain = {name: value.clone() for name, value in plain.items()}
    as_on_gpu = partial(attention.fused_attention, head_multiple=attention.GPU_HEAD_MULTIPLE)
    monkeypatch.setattr(swin_block, "attend", as_on_gpu)
    monkeypatch.setattr(swin_block, "CPU_CACHE", 10**9)
    z, fused = gradients(net, x)
    assert (y - z).abs().max() <= 1e-12
    assert any("bias_table" in name and value.any() for name, value in fused.items())
    for name, value in plain.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-9, atol=1e-9)


def test_attention_kernels_are_named():
    qkv, bias = torch.rand(1, 2, 16, 60), torch.rand(2, 16, 16)
    assert attention.attention_kernel(qkv, bias) == "flash_attention"
    assert attention.attention_kernel(qkv.requires_grad_(), bias) == "plain"
    with sdpa_kernel(SDPBackend.MATH):
        assert attention.attention_kernel(qkv.detach(), bias) == "math"


@pytest.mark.parametrize("training", [False, True])
def test_the_number_of_windows_at_once_changes_nothing(monkeypatch, training):
    options = {**SWINIR, "type": "SwinIR", "upsampler": "pixelshuffledirect", "upscale": 2, "drop_path_rate": 0.5}
    net = randomise(build_network(options)).double().train(training)
    x, results = torch.rand(2, 3, 10, 13, dtype=torch.float64), []
    for cache in (1, 2 * 16 * 12 * 2, 10**9):  # one window, two, all
        monkeypatch.setattr(swin_block, "CPU_CACHE", cache)
        y, found = gradients(net, x)
        with torch.no_grad():
            results.append({"y": y, **({} if training else {"z": net(x)}), **{name: value.clone() for name, value in found.items()}})
    for other in results[:2]:
        for name, value in results[2].items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (10, 13)])
def test_swinir_without_gradients_equals_swinir_with(size):
    net = randomise(build_network({**SWINIR, "type": "SwinIR", "upsampler": "pixelshuffledirect", "upscale": 2})).eval()
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        fused = net(x)
    assert (fused - net(x)).abs().max() <= 1e-5
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert (net(x) - fused).abs().max() <= 0.1


def test_swinir_checkpointing_changes_no_gradient():
    options = {**SWINIR, "upsampler": "pixelshuffledirect", "upscale": 2, "drop_path_rate": 0.3}
    ours = randomise(build_network({"type": "SwinIR", **options}))
    assert_same_function(ours, build_network({"type": "SwinIR", **options, "use_checkpoint": True}), torch.rand(4, 3, 8, 8), training=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upscale": 2, "upsampler": ""}, "needs an upsampler"),
        ({"upscale": 3, "upsampler": "nearest+conv"}, "2, 4 or 8"),
        ({"upscale": 5, "upsampler": "pixelshuffle"}, "by 5"),
        ({"upsampler": "pixel"}, "none of"),
        ({"resi_connection": "2conv"}, "2conv"),
        ({"num_heads": [5, 5]}, "multiple"),
        ({"num_heads": [2]}, "entries"),
        ({"patch_size": 2}, "patch_size"),
    ],
)
def test_impossible_swinir_options_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        build_network({**SWINIR, "type": "SwinIR", "upscale": 1, **change})


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_rrdbnet_equals_basicsr(scale):
    ours = randomise(build_network({"type": "RRDBNet", **RRDB, "scale": scale}))
    assert_same_function(ours, basicsr_archs()["RRDBNet"](**RRDB, scale=scale), torch.rand(2, 3, 8, 12))


@pytest.mark.parametrize("scale", [1, 2])
def test_rrdbnet_takes_odd_sizes_as_reflected(scale):
    net = randomise(build_network({"type": "RRDBNet", **RRDB, "scale": scale}))
    x = torch.rand(1, 3, 7, 9)
    padded = F.pad(x, (0, -9 % (4 // scale), 0, -7 % (4 // scale)), mode="reflect")
    assert torch.equal(net(x), net(padded)[..., : 7 * scale, : 9 * scale])


class PlainRRDBPS(nn.Module):
    """An independent statement of HGGT's network, from its description: functional, on a state dict."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *path, leaf = name.split(".")
            owner = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]
            owner.register_parameter(leaf, nn.Parameter(torch.zeros_like(value)))

    def conv(self, name, x):
        return F.conv2d(x, self.get_parameter(f"{name}.weight"), self.get_parameter(f"{name}.bias"), padding=1)

    def dense(self, name, x):
        features = [x]
        for i in (1, 2, 3, 4):
            features.append(F.leaky_relu(self.conv(f"{name}.conv{i}", torch.cat(features, 1)), 0.2))
        return x + 0.2 * self.conv(f"{name}.conv5", torch.cat(features, 1))

    def forward(self, x):
        first = body = self.conv("conv_first", x)
        for block in range(RRDB["num_block"]):
            entry = body
            for i in (1, 2, 3):
                body = self.dense(f"body.{block}.rdb{i}", body)
            body = entry + 0.2 * body
        x = first + self.conv("conv_body", body)
        for i in (0, 2):
            x = F.pixel_shuffle(self.conv(f"upsample.{i}", x), 2)
        x = F.leaky_relu(self.conv("conv_hr", F.leaky_relu(x, 0.2)), 0.2)
        return self.conv("conv_last", x)


def test_rrdbpsnet_equals_an_independent_statement():
    ours = randomise(build_network({"type": "RRDBPSNet", **RRDB}))
    assert_same_function(ours, PlainRRDBPS(ours.state_dict()), torch.rand(2, 3, 7, 9))
    with pytest.raises(UsageError, match="RRDBNet has x1 and x2"):
        build_network({"type": "RRDBPSNet", **RRDB, "scale": 2})


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("skip_connection", [False, True])
def test_discriminator_equals_basicsr(training, skip_connection):
    options = {"num_in_ch": 3, "num_feat": 8, "skip_connection": skip_connection}
    ours = build_network({"type": "UNetDiscriminatorSN", **options})
    assert {"conv1.weight_orig", "conv1.weight_u", "conv1.weight_v"} <= ours.state_dict().keys()
    assert_same_function(ours, basicsr_archs()["UNetDiscriminatorSN"](**options), torch.rand(2, 3, 16, 24), training)


def test_discriminator_takes_odd_sizes():
    assert build_network({"type": "UNetDiscriminatorSN", "num_feat": 4})(torch.rand(1, 3, 13, 22)).shape == (1, 1, 13, 22)


@pytest.mark.parametrize("kind", ["RRDBNet", "RRDBPSNet", "UNetDiscriminatorSN"])
def test_memory_formats_change_layouts_and_nothing_else(monkeypatch, tmp_path, kind):
    options = {"type": kind, **({"num_feat": 8} if "UNet" in kind else {**RRDB, "scale": 4})}
    net, x, results = build_network(options).eval().double(), torch.rand(2, 3, 16, 24, dtype=torch.float64), []
    for fast in (False, True):
        monkeypatch.setattr(layers, "AVX512", fast)
        assert layers.for_convolutions(x).is_contiguous(memory_format=torch.channels_last) == fast
        y, found = gradients(net, x)
        results.append({"y": y, **{name: value.clone() for name, value in found.items()}})
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        assert layers.for_convolutions(x).is_contiguous(memory_format=torch.channels_last)
        assert (net(x) - y).abs().max() <= 1e-9
        on_gpu = copy.deepcopy(net).to(memory_format=torch.channels_last)
        assert (on_gpu(x) - y).abs().max() <= 1e-9
    save_weights(tmp_path / "w.safetensors", on_gpu.state_dict(), {})
    loaded = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(loaded[name], value) and loaded[name].is_contiguous() for name, value in net.state_dict().items())


def test_spectral_norm_moves_when_told_and_only_then():
    net = build_network({"type": "UNetDiscriminatorSN", "num_feat": 4}).train()
    before = net.conv1.weight_u.clone()
    with held_spectral_norm(net):
        net(torch.rand(1, 3, 16, 16))
    assert torch.equal(net.conv1.weight_u, before) and net.conv1.training
    advance_spectral_norm(net)
    assert not torch.equal(net.conv1.weight_u, before)
    after = net.conv1.weight_u.clone()
    net(torch.rand(1, 3, 16, 16))
    assert not torch.equal(net.conv1.weight_u, after), "left alone, it moves at every forward pass"


def test_any_basicsr_architecture_builds_by_name():
    net = build_network({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 4})
    assert net(torch.rand(1, 3, 8, 8)).shape == (1, 3, 32, 32)
    assert resolve_network("VGGStyleDiscriminator").__module__.startswith("basicsr")
    assert resolve_network("SwinIR").__module__.startswith("sr_iqa"), "ours goes first"


def test_dotted_paths_build():
    assert isinstance(build_network({"type": "torch.nn.Identity"}), nn.Identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "SwinlR"}, "Did you mean 'SwinIR'"),
        ({"type": "SwinIR", "depth": 3}, "unexpected keyword argument 'depth'.*depths"),
        ({"type": "torch.nn.Identitty"}, "has no 'Identitty'"),
        ({"type": "nowhere.Net"}, "importing nowhere failed"),
        ({"type": "torch.pi"}, "cannot be called"),
    ],
)
def test_wrong_sections_are_user_errors(options, message):
    with pytest.raises(UsageError, match=message):
        build_network(options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "upsampler": "pixelshuffle"}])
def test_swinir_medium_equals_basicsr(options):
    options = {**options, "window_size": 8, "img_size": 64, "mlp_ratio": 2, "upscale": 4}
    ours = build_network({"type": "SwinIR", **options}).eval()
    theirs = basicsr_archs()["SwinIR"](**options).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        assert (ours(x) - theirs(x)).abs().max() <= 1e-5

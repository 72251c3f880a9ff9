"""What a training run does in one process: losses, updates, averages, rewards, adapters, guards, logs."""

import json
import math

import cv2
import pytest
import torch
from safetensors.torch import load_file

from sr_iqa.adapters import inject, lora_layers
from sr_iqa.archs import build_network
from sr_iqa.archs.discriminators import held_spectral_norm
from sr_iqa.archs.layers import ExactConv2d, keep_last_convolution_exact
from sr_iqa.checkpoints import save_weights
from sr_iqa.config.models import LoraOptions
from sr_iqa.data.stream import collate
from sr_iqa.errors import UserError
from sr_iqa.iqa import metrics
from sr_iqa.modes import tf32
from sr_iqa.training import frame, trainer
from sr_iqa.training.build import build
from sr_iqa.training.checkpoint import averaged, load_trained
from sr_iqa.training.folder import final_weights, run_folder
from sr_iqa.training.logs import SPEED
from sr_iqa.training.meter import Meter, NonFiniteError
from sr_iqa.training.rehearsal import check_adapter_acts, check_adapter_gradients, own_weights_learn
from sr_iqa.training.steps import adversarial_term, choose_gt, train_step
from tests.tiny_runs import GAN, RRDB, SWINIR, UNET, differences, lines, losses, network, run, state, tiny, validation

BROKEN = "tests.tiny_runs.BrokenLoss"
SHORT = {"train": {"total_iter": 2}, "logger": {"save_checkpoint_freq": 1}}
NANO = {"metric": "nano", "weight": 0.02}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One data set for all runs here."""
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def base(root):
    """A pretrained network for the adapter runs."""
    torch.manual_seed(5)
    path = root / "base.safetensors"
    save_weights(path, build_network(SWINIR).state_dict(), {})
    return path


def built(root, name, *changes):
    """A run that has not made a step, and its meter."""
    options = tiny(root, name, *changes)
    made = build(options, frame.make_accelerator(options, run_folder(options)))
    return made, Meter(made.accelerator.device, made.members)


def one_batch(made):
    return collate([made.stream[n] for n in range(2)])


def moved(one, two):
    """Names of tensors that differ."""
    return {name for name in one if not torch.equal(one[name], two[name])}


def test_a_plain_run_learns_and_leaves_its_folder(root):
    folder = run(root, "plain", {"train": {"total_iter": 30, "optim_g": {"lr": 3e-3}}, "logger": {"print_freq": 10}}, validation(root))
    logged = [line for line in lines(folder) if "val" not in line]
    assert [line["step"] for line in logged] == [10, 20, 30]
    assert logged[-1]["l_pix"] < 0.8 * logged[0]["l_pix"]
    assert {"lr", "grad_norm_g", *SPEED, "chosen"} < logged[0].keys()
    assert logged[0]["img_s"] == pytest.approx(2 * logged[0]["it_s"]) and 0.05 < logged[0]["peak_gib"] < 100
    assert logged[0]["chosen"] == [20, 0, 0, 0] and 0 <= logged[0]["data_share"] <= 1
    checked = {line["step"]: line["val"] for line in lines(folder) if "val" in line}
    assert list(checked) == [0, *range(3, 31, 3)]
    assert checked[30]["psnr_original"] > checked[0]["psnr_original"]
    assert cv2.imread(str(folder / "visualization" / "30.png")).shape == (3 * 52, 3 * 52, 3)
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    start = json.loads((folder / "versions.json").read_text())[0]
    assert start["packages"]["torch"] == torch.__version__.split("+")[0] and start["processes"] == 1
    assert (folder / "options.yml").exists()


def test_every_enabled_loss_is_logged_and_moves_the_generator(root):
    changes = {
        "train": {
            "perceptual_opt": {"type": "NanoFeatureLoss"},
            "neg_opt": {"type": "NegativeLoss"},
            "metric_opt": [{"type": "ssim", "loss_weight": 0.1}],
            "reward_opt": [NANO],
        }
    }
    folder = run(root, "all_losses", GAN, changes, SHORT)
    names = {"l_pix", "l_percep", "l_neg", "l_ssim", "l_g_gan", "r_nano", "l_d_real", "l_d_fake", "out_d_real", "out_d_fake"}
    for line in losses(folder).values():
        assert names <= line.keys() and all(math.isfinite(line[name]) for name in names)
    for block in ("pixel_opt", "perceptual_opt", "neg_opt", "metric_opt", "reward_opt"):
        without = run(root, f"no_{block}", GAN, changes, SHORT, {"train": {block: None}})
        assert moved(network(folder, 1), network(without, 1)), f"{block} did not change the generator's update"
    without = run(root, "no_gan", changes, SHORT)
    assert moved(network(folder, 1), network(without, 1))


def test_rates_follow_the_schedule_in_optimizer_steps(root):
    schedule = {"train": {"accum_iter": 2, "scheduler": {"type": "MultiStepLR", "milestones": [2, 4], "gamma": 0.1}}}
    folder = run(root, "rates", schedule)
    assert [line["lr"] for line in lines(folder)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert state(folder, 6)["optim_g"]["param_groups"][0]["lr"] == pytest.approx(1e-5)


@pytest.mark.parametrize("changes", [(), (GAN, {"network_g": RRDB})], ids=["plain", "gan"])
def test_accumulation_gives_the_same_curve(root, changes):
    kind = f"{len(changes)}"
    shape = {"train": {"optim_g": {"lr": 1e-4}, "ema_decay": 0.5}}
    whole = run(root, f"whole_{kind}", *changes, shape, {"datasets": {"train": {"batch_size_per_gpu": 4}}})
    parts = run(root, f"parts_{kind}", *changes, shape, {"train": {"accum_iter": 2}})
    assert_same_curve(whole, parts)


def assert_same_curve(one, two, largest=2e-5, mean=5e-6):
    """Losses of every step agree: no single value far off, and no shift to one side."""
    for name in losses(one)[1].keys() - {"step", "chosen", "standings", "lr"}:
        curves = [torch.tensor([line[name] for line in losses(folder).values()], dtype=torch.float64) for folder in (one, two)]
        gap = (curves[0] - curves[1]) / curves[0].abs().clamp(min=0.1)
        assert gap.abs().max() < largest, (name, gap)
        assert gap.mean().abs() < mean, (name, gap)
    for counts in ("chosen", "standings"):
        assert [line[counts] for line in losses(one).values()] == [line[counts] for line in losses(two).values()]


def test_gan_with_accumulation_moves_both_networks(root):
    folder = run(root, "both", GAN, {"train": {"accum_iter": 2}}, SHORT)
    weights = {label: (network(folder, 1, label), network(folder, 2, label)) for label in ("net_g", "net_d")}
    for label, (before, after) in weights.items():
        still = {name for name in before.keys() - moved(before, after) if not name.endswith(("relative_position_index", "attn_mask"))}
        assert not still, f"{label} did not learn in {still}"


def test_one_pass_over_sr_gives_the_gradients_of_two(root):
    """The generator's and the discriminator's, against a plain statement of both losses."""
    made, _ = built(root, "one_pass", GAN)
    learner = made.discriminator
    sr, calls = torch.rand(2, 3, 32, 32, requires_grad=True), []
    with held_spectral_norm(learner.net), learner.net.register_forward_hook(lambda *_: calls.append(1)):
        term, fake = adversarial_term(learner, sr)
        (0.5 * term).backward()
        assert all(parameter.grad is None for parameter in learner.parameters)
        learner.loss(fake, False, is_disc=True).backward()
        assert len(calls) == 1
        ours = [sr.grad, *(parameter.grad for parameter in learner.parameters)]
        expected = learner.loss(learner.net(sr), True, is_disc=False)
        assert torch.equal(term, expected)
        theirs = torch.autograd.grad(0.5 * expected, sr)
        theirs += torch.autograd.grad(learner.loss(learner.net(sr.detach()), False, is_disc=True), list(learner.parameters))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_generator_waits_for_the_discriminator(root):
    folder = run(root, "waits", GAN, {"train": {"total_iter": 3, "net_d_init_iters": 2}, "logger": {"save_checkpoint_freq": 1}})
    assert not moved(network(folder, 1), network(folder, 2))
    assert moved(network(folder, 2), network(folder, 3))
    assert moved(network(folder, 1, "net_d"), network(folder, 2, "net_d"))
    assert "l_pix" not in losses(folder)[2] and "l_pix" in losses(folder)[3]


def test_spectral_norm_advances_once_per_step(root):
    made, meter = built(root, "spectral", GAN, {"train": {"accum_iter": 2}})
    net, reference = made.discriminator.net, build_network(UNET)
    reference.load_state_dict(net.state_dict())
    train_step(made, [one_batch(made), one_batch(made)], meter)
    reference.train()(torch.zeros(1, 3, 16, 16))  # one pass in training mode is one power iteration
    assert torch.equal(net.conv1.weight_u, reference.conv1.weight_u)
    assert net.conv1.training


def test_ema_averages_parameters_and_leaves_buffers_alone(root):
    folder = run(root, "ema", {"train": {"total_iter": 4, "ema_decay": 0.7}, "logger": {"save_checkpoint_freq": 1}})
    steps = [network(folder, step) for step in range(1, 5)]
    name, index = "conv_first.weight", "layers.0.residual_group.blocks.0.attn.relative_position_index"
    expected = steps[0][name]
    for weights in steps[1:]:
        expected = 0.7 * expected + 0.3 * weights[name]
    average = network(folder, 4, "net_g_ema")
    torch.testing.assert_close(average[name], expected)
    assert torch.equal(average[index], steps[-1][index]) and average[index].dtype == torch.int64
    assert final_weights(folder).name == "net_g_ema_4.safetensors"


def test_the_averaged_network_is_lent_and_given_back(root):
    made, meter = built(root, "lent", {"train": {"ema_decay": 0.5}, "precision": "bf16"})
    for _ in range(2):
        train_step(made, [one_batch(made)], meter)
    before = {name: value.clone() for name, value in made.generator.net.state_dict().items()}
    with averaged(made) as net:
        inside = {name: value.clone() for name, value in net.state_dict().items()}
        assert "forward" not in vars(net)
    assert moved(before, inside) and not moved(before, made.generator.net.state_dict())
    assert "forward" in vars(made.generator.net)
    assert any(isinstance(module, ExactConv2d) for module in made.generator.net.modules())


def test_gradients_are_clipped(root):
    changes = {"train": {"total_iter": 1, "optim_g": {"type": "SGD", "lr": 1.0}, "grad_clip": 0.01}}
    made, meter = built(root, "clipped", changes)
    before = [parameter.detach().clone() for parameter in made.generator.parameters]
    train_step(made, [one_batch(made)], meter)
    step = torch.cat([(old - new).flatten() for old, new in zip(before, made.generator.parameters, strict=True)])
    assert step.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert meter.read().means["grad_norm_g"] > 0.01


# ---------------------------------------------------------------- values that are not finite


@pytest.mark.parametrize(("gradient_only", "term"), [(False, "l_pix"), (True, "grad_norm_g")])
def test_a_non_finite_value_stops_the_run_and_names_its_term(root, gradient_only, term):
    name = f"broken_{term}"
    changes = {"train": {"ema_decay": 0.9, "pixel_opt": {"type": BROKEN, "at": 4, "gradient_only": gradient_only}, "reward_opt": [NANO]}}
    with pytest.raises(NonFiniteError, match=rf"^{term}\b.* at step 4"):
        run(root, name, changes, {"logger": {"print_freq": 6}})
    folder = root / "runs" / name
    assert [path.name for path in (folder / "training_states").iterdir()] == ["3.pt"]
    assert all(value.isfinite().all() for value in network(folder, 3).values())
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed" and term in status["message"]


def test_nothing_moves_from_the_non_finite_step_on(root):
    made, meter = built(root, "frozen", GAN, {"train": {"ema_decay": 0.9}})
    train_step(made, [one_batch(made)], meter)
    before = [state.clone() for net in (made.generator.net, made.discriminator.net) for state in net.parameters()]
    made.objective.supervised["l_pix"] = lambda sr, gt: sr.mean() * math.nan
    train_step(made, [one_batch(made)], meter)
    after = [state for net in (made.generator.net, made.discriminator.net) for state in net.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    with pytest.raises(NonFiniteError, match="^l_pix, grad_norm_g"):
        meter.read()


# ---------------------------------------------------------------- GT choice, reward, adapters


def test_amo_trains_on_the_crops_that_q_likes_best(root):
    made, meter = built(root, "amo", {"datasets": {"train": {"sampling": {"strategy": "amo", "metric": "nano"}}}})
    batch = one_batch(made)
    gt, member = choose_gt(made, batch, meter)
    for i, crops in enumerate(batch["gts"]):
        scores = made.judge.signed(crops / 255)
        assert member[i] == scores.argmax()
        assert torch.equal(gt[i], crops[member[i]] / 255)


def test_an_online_strategy_of_the_users_chooses(root):
    sampling = {"strategy": "tests.test_sampling.WorstOnline", "metric": "nano"}
    made, meter = built(root, "worst", {"datasets": {"train": {"sampling": sampling}}})
    batch = one_batch(made)
    with torch.no_grad():
        scores = made.judge.signed(batch["gts"].flatten(0, 1).float() / 255).unflatten(0, batch["gts"].shape[:2])
    assert torch.equal(choose_gt(made, batch, meter)[1], scores.argmin(1))


def test_a_nan_score_of_a_crop_stops_the_run(root, monkeypatch):
    made, meter = built(root, "nan_crop", {"datasets": {"train": {"sampling": {"strategy": "amo", "metric": "nano"}}}})
    monkeypatch.setattr(made.judge, "signed", lambda x: torch.full((len(x),), float("nan")))
    train_step(made, [one_batch(made)], meter)
    with pytest.raises(NonFiniteError, match="q_crops became NaN"):
        meter.read()


class WrongSize(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 1)


def test_a_network_of_another_scale_is_named(root):
    with pytest.raises(UserError, match=r"network_g: tests.test_training.WrongSize makes \(1, 3, 16, 16\)"):
        run(root, "wrong_size", {"network_g": {"type": "tests.test_training.WrongSize"}})


def test_a_run_that_waits_for_samples_is_told_once_what_to_do(tmp_path, monkeypatch):
    root = tmp_path
    monkeypatch.setattr("sr_iqa.training.trainer.WAITING", -1.0)
    text = (run(root, "waits") / "train.log").read_text()
    assert text.count("waiting for samples: raise datasets.train.num_worker_per_gpu (now 0;") == 1 and "sr-iqa data pack" in text
    monkeypatch.setattr("sr_iqa.training.trainer.WAITING", 1.0)
    assert "waiting for samples" not in (run(root, "flows") / "train.log").read_text()


def test_chosen_gts_are_counted(root):
    labels = {"datasets": {"train": {"sampling": {"strategy": "uniform_positive"}}}}
    folder = run(root, "chosen", labels, {"logger": {"print_freq": 4}})
    assert [line["chosen"] for line in lines(folder)] == [[0, 8, 0, 0], [0, 4, 0, 0]]
    assert [line["standings"] for line in lines(folder)] == [{"Positive": 8}, {"Positive": 4}]


def test_sets_without_positives_are_left_out_and_counted(root, tmp_path):
    from tests.helpers import make_sets

    make_sets(tmp_path / "data", n=4, k=2, size=48, labels=[("Positive", "Similar")] * 3 + [("Negative", "Similar")])
    folder = run(tmp_path, "dropped", {"datasets": {"train": {"sampling": {"strategy": "uniform_positive"}}}}, SHORT)
    assert "1 of 4 sets" in (folder / "train.log").read_text()


def test_reward_moves_only_the_adapter_and_raises_q(root, base):
    changes = {"path": {"pretrain_network_g": str(base)}, "lora": {"rank": 2}, "train": {"ema_decay": 0.5, "reward_opt": [NANO]}}
    folder = run(root, "adapter", changes, validation(root))
    trained, start = state(folder, 6)["net_g"], load_file(base)
    plain = {name.replace(".base_layer.", "."): value for name, value in trained.items() if "lora_" not in name}
    assert differences(plain, start) == []
    assert all(value.any() for name, value in trained.items() if "lora_B" in name)
    assert "r_nano" in losses(folder)[1]
    assert "LoRA on" in (folder / "train.log").read_text()
    assert final_weights(folder) == folder / "models" / "adapter_6"
    assert not list((folder / "models").glob("net_g*"))
    # With decay 0.5 the averaged adapter, which is saved, differs from the live one.
    saved = load_file(folder / "models" / "adapter_6" / "adapter_model.safetensors")
    live = {name: value for name, value in trained.items() if "lora_B" in name}
    assert not all(torch.equal(value, saved[f"base_model.model.{name.replace('.default', '')}"]) for name, value in live.items())


def test_gradients_reach_b_at_step_0_and_a_at_step_1(root, base):
    made, meter = built(root, "reach", {"path": {"pretrain_network_g": str(base)}, "lora": {"rank": 2}})
    for expected in ({"lora_B"}, {"lora_A", "lora_B"}):
        made.generator.model(torch.rand(1, 3, 16, 16)).square().sum().backward()
        named = made.generator.net.named_parameters()
        alive = {kind for name, p in named for kind in ("lora_A", "lora_B") if kind in name and p.grad.any()}
        assert alive == expected
        made.generator.optimizer.zero_grad()
        train_step(made, [one_batch(made)], meter)


class Three(torch.nn.Module):
    """A layer that is called, one whose weights are read by hand, and one that has no part in anything."""

    def __init__(self, by_hand):
        super().__init__()
        self.called, self.read, self.idle = (torch.nn.Linear(4, 4) for _ in range(3))
        self.by_hand = by_hand

    def forward(self, x):
        return self.called(torch.nn.functional.linear(x, self.read.weight) if self.by_hand else self.read(x))


def test_gradient_check_of_adapters(caplog):
    def checked(net, names):
        net = inject(net, LoraOptions(rank=2, target_modules=names), "my.Three")
        with own_weights_learn(net):
            output = net(torch.ones(1, 4)).square().sum()
            if output.requires_grad:
                output.backward()
        assert not any(p.requires_grad for name, p in net.named_parameters() if "lora_" not in name)
        check_adapter_gradients(net)

    checked(Three(by_hand=False), ("called", "read"))  # A's gradient is zero at step 0, B's is not
    assert not caplog.records
    checked(Three(by_hand=False), ("called", "idle"))
    assert "1 of 2 adapters had no part in a first pass: idle" in caplog.text
    with pytest.raises(UserError, match="reads the weights of 1 layers itself, an adapter there has no effect: read"):
        checked(Three(by_hand=True), ("called", "read"))
    with pytest.raises(UserError, match="no adapter gets a gradient"):
        checked(Three(by_hand=False), ("idle",))


class Folded(torch.nn.Module):
    """Calls its layer in training, and computes with its weights in evaluation."""

    def __init__(self, folds):
        super().__init__()
        self.layer, self.folds = torch.nn.Conv2d(3, 3, 1), folds

    def forward(self, x):
        if self.training or not self.folds:
            return self.layer(x)
        return torch.nn.functional.conv2d(x, self.layer.weight, self.layer.bias)


def test_networks_that_fold_their_weights_in_evaluation_are_found():
    net = inject(Folded(folds=False), LoraOptions(rank=2), "my.Folded")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    check_adapter_acts(net.eval(), 8)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert next(layer for _, layer in lora_layers(net)).scaling == {"default": 1.0}
    with pytest.raises(UserError, match="in evaluation Folded computes with the weights of its layers"):
        check_adapter_acts(inject(Folded(folds=True), LoraOptions(rank=2), "my.Folded").eval(), 8)


def test_an_adapter_goes_on_at_its_own_strength_only(root, base):
    lora = {"path": {"pretrain_network_g": str(base)}, "lora": {"rank": 2, "alpha": 3.0}}
    folder = run(root, "strength", lora)
    on = {"path": {"pretrain_network_g": str(base), "pretrain_adapter": str(folder / "models" / "adapter_6")}}
    with pytest.raises(UserError, match=r"alpha 3 at rank 2, the lora block asks for alpha 2 at rank 2"):
        built(root, "other", on, {"lora": {"rank": 2}})
    built(root, "same", on, {"lora": {"rank": 2, "alpha": 3.0}})


@pytest.mark.parametrize("lora", [False, True])
def test_load_trained_gives_the_network_that_was_evaluated(root, base, lora, monkeypatch):
    seen = []
    original = trainer.evaluate
    picture = torch.rand(1, 3, 16, 16)

    def evaluate(net, *arguments):
        with torch.no_grad():
            seen.append(net.eval()(picture))
        return original(net, *arguments)

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    changes = {"path": {"pretrain_network_g": str(base)}, "train": {"ema_decay": 0.5}, "lora": {"rank": 2} if lora else None}
    folder = run(root, f"trained_{lora}", changes, validation(root))
    with torch.no_grad():
        assert torch.equal(load_trained(folder)(picture), seen[-1])
    assert not torch.equal(seen[0], seen[-1])


# ---------------------------------------------------------------- layouts of GPUs, precision


def test_weights_laid_out_as_on_a_gpu_train_and_resume_the_same(root, monkeypatch):
    changes = (GAN, {"network_g": RRDB, "train": {"ema_decay": 0.5}})
    plain = run(root, "plain_layout", *changes)
    monkeypatch.setattr("sr_iqa.training.build.to_device", lambda net, device: net.to(device, memory_format=torch.channels_last))
    whole = run(root, "gpu_layout", *changes)
    assert state(whole, 6)["net_d"]["conv0.weight"].is_contiguous(memory_format=torch.channels_last)
    run(root, "gpu_layout_33", *changes, {"train": {"total_iter": 3}})
    parts = run(root, "gpu_layout_33", *changes)
    assert [d for d in differences(state(whole, 6), state(parts, 6)) if d != ".options.name"] == []
    assert_same_curve(plain, whole)
    assert all(torch.allclose(value, network(whole, 6)[name], atol=1e-4) for name, value in network(plain, 6).items())


def test_the_output_is_not_rounded_to_bfloat16(root):
    net = build_network(SWINIR)
    names = list(net.state_dict())
    keep_last_convolution_exact(net)
    assert sum(isinstance(module, ExactConv2d) for module in net.modules()) == 1 and list(net.state_dict()) == names
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        output = net(torch.rand(1, 3, 16, 16))
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())


def test_runs_of_different_precision_in_one_process(root):
    for precision in ("bf16", "no"):
        folder = run(root, f"precision_{precision}", GAN, {"precision": precision}, SHORT)
        assert network(folder, 2)["conv_first.weight"].dtype == torch.float32
    assert moved(network(root / "runs" / "precision_no", 2), network(root / "runs" / "precision_bf16", 2))


def test_tf32_is_allowed_during_the_run_and_never_in_metrics(root, monkeypatch):
    """What the flags do needs a GPU; that they are set and set back does not."""
    matmul, seen = torch.backends.cuda.matmul, []
    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda *arguments: (seen.append(matmul.allow_tf32), step(*arguments)))
    for precision in ("no", "tf32"):
        run(root, f"products_{precision}", SHORT, {"precision": precision})
    assert seen == [False, False, True, True] and not matmul.allow_tf32
    assert losses(root / "runs" / "products_no") == losses(root / "runs" / "products_tf32")
    with tf32(True), metrics._float32(torch.device("cuda")):
        assert not matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"train": {"pixel_opt": None}}, "no loss"),
        ({"train": {"gan_opt": GAN["train"]["gan_opt"]}}, "needs network_d"),
        ({"train": {"optim_g": {"type": "Adamm", "lr": 1.0}}}, "Did you mean 'Adam'"),
        ({"train": {"optim_g": {"lr": -1.0}}}, "Adam: Invalid learning rate"),
        ({"train": {"reward_opt": [{"metric": "niqe", "weight": 1.0}]}}, "niqe"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(root, changes, message):
    with pytest.raises(UserError, match=message):
        run(root, "refused", changes)
    assert not (root / "runs" / "refused").exists()


def test_deterministic_kernels_are_asked_for_and_the_setting_is_given_back(root, monkeypatch):
    seen = []
    original = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda *a: (seen.append(torch.are_deterministic_algorithms_enabled()), original(*a)))
    run(root, "deterministic", GAN, {"deterministic": True}, SHORT)
    assert seen == [True, True] and not torch.are_deterministic_algorithms_enabled()


def test_tensorboard_gets_scalars_and_pictures(root):
    folder = run(root, "tb", validation(root), SHORT, {"logger": {"use_tb_logger": True}})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    assert {"l_pix", "lr", "val/psnr"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["samples"]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError(), "[enforce fail] DefaultCPUAllocator: no"]
)
def test_a_lack_of_memory_names_the_options_to_lower(root, monkeypatch, error):
    def step(*_):
        raise RuntimeError(error) if isinstance(error, str) else error

    monkeypatch.setattr(trainer, "train_step", step)
    with pytest.raises(UserError, match=r"not enough memory for a training step: lower datasets\.train\.batch_size_per_gpu"):
        run(root, "large_step", SHORT, fresh=True)
    monkeypatch.undo()
    monkeypatch.setattr(trainer, "evaluate", step)
    with pytest.raises(UserError, match=r"for validation: set val\.tile"):
        run(root, "large_image", SHORT, validation(root), fresh=True)


def test_other_errors_are_left_as_they_are(root, monkeypatch):
    def step(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(trainer, "train_step", step)
    with pytest.raises(RuntimeError, match="a defect"):
        run(root, "defect", SHORT)

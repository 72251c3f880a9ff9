import pytest
import torch
from torch import nn

from sr_iqa.config.models import RewardOptions
from sr_iqa.errors import UserError
from sr_iqa.iqa import reward
from sr_iqa.iqa.catalog import MetricInfo
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.iqa.reward import Rewards, build_rewards, check_gradient


class Judge(nn.Module):
    """A learned metric in miniature."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)

    def forward(self, x):
        return self.conv(x).abs().mean((1, 2, 3))


def metric(net, name="judge", lower_better=False):
    return Metric(MetricInfo(name, "NR", lower_better, (0, 1)), net, name)


def test_rewards_are_named_signed_and_in_order():
    torch.manual_seed(0)
    high, low = metric(Judge(), "high"), metric(Judge(), "low", lower_better=True)
    sr = torch.rand(2, 3, 16, 16)
    scores = Rewards([low, high])(sr)
    assert list(scores) == ["low", "high"]
    assert torch.equal(scores["high"], high(sr)) and torch.equal(scores["low"], -low(sr))


def test_out_of_range_pixels_earn_nothing():
    sr = torch.tensor([-0.5, 0.5, 1.5]).view(1, 1, 1, 3).repeat(1, 3, 4, 1).requires_grad_(True)
    Rewards([metric(Mean())])(sr)["judge"].sum().backward()
    assert sr.grad[..., 1].min() > 0 and (sr.grad[..., [0, 2]] == 0).all()


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))


def test_half_precision_output_is_scored_in_float32():
    scores = Rewards([metric(Judge())])
    sr = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = scores(sr)["judge"]
    assert inside.dtype == torch.float32 and torch.equal(inside, scores(sr)["judge"])
    assert scores(sr.bfloat16())["judge"].dtype == torch.float32


def test_musiq_survives_a_parent_in_train_mode_and_stays_out_of_its_state():
    """pyiqa's MUSIQ fails in train mode; as a child module it would be switched to it, saved, averaged and moved by DDP."""
    musiq = create_metric("musiq", random_weights=True)
    rewards = Rewards([musiq])

    class Trainer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 3, 3, padding=1)
            self.rewards = rewards

    parent = Trainer().train()
    assert all(key.startswith("net.") for key in parent.state_dict())
    assert len(list(parent.parameters())) == 2
    score = parent.rewards(parent.net(torch.rand(1, 3, 48, 48)))["musiq"]
    score.sum().backward()
    assert parent.net.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in musiq.parameters())
    musiq._net.train()  # as if it were a child
    with pytest.raises(RuntimeError):
        rewards(torch.rand(1, 3, 48, 48))


# ---------------------------------------------------------------- build_rewards


def test_built_in_the_order_of_the_options():
    rewards = build_rewards([RewardOptions(metric="niqe", weight=1.0)])
    assert list(rewards.metrics) == ["niqe"]
    check_gradient(rewards, 96)


@pytest.mark.parametrize(("name", "why"), [("piqe", "not differentiable"), ("psnr", "needs a reference")])
def test_metrics_that_cannot_be_rewards_are_refused_with_the_list_of_those_that_can(name, why):
    with pytest.raises(UserError, match=why) as error:
        build_rewards([RewardOptions(metric=name, weight=1.0)])
    choices = str(error.value).split("Choose from ")[1].split(", ")
    assert {"musiq", "nano", "niqe", "topiq_nr"} <= set(choices) and not {"piqe", "ssim", "qalign"} & set(choices)


def test_the_same_metric_twice_is_refused():
    with pytest.raises(UserError, match="twice"):
        build_rewards([RewardOptions(metric="niqe", weight=1.0)] * 2)


# ---------------------------------------------------------------- check_gradient


class Detached(Judge):
    def forward(self, x):
        return super().forward(x.detach())


class Flat(Judge):
    def forward(self, x):
        return (0 * x).mean((1, 2, 3))


class Infinite(Judge):
    def forward(self, x):
        return (x.mean((1, 2, 3)) - x.mean((1, 2, 3)).detach()).sqrt()


class Mixing(Judge):
    def forward(self, x):
        return super().forward(x - x.mean(0))


@pytest.mark.parametrize(
    ("net", "message"), [(Detached, "strips the gradient"), (Flat, "zero gradient"), (Infinite, "not finite"), (Mixing, "mixes images")]
)
def test_broken_rewards_stop_the_run_before_it_starts(net, message):
    with pytest.raises(UserError, match=f"judge.*{message}"):
        check_gradient(Rewards([metric(net())]), 32)


def test_a_learning_parameter_is_refused():
    judge = metric(Judge())
    judge.parameters()[0].requires_grad_(True)
    with pytest.raises(UserError, match="must be frozen"):
        check_gradient(Rewards([judge]), 32)


def test_crops_too_small_for_the_reward_are_said():
    with pytest.raises(UserError, match="crops of 64 pixels.*at least 96"):
        check_gradient(build_rewards([RewardOptions(metric="niqe", weight=1.0)]), 64)


def test_a_sound_reward_passes_in_any_mode_and_the_check_draws_nothing():
    judge = metric(Judge())
    state = torch.get_rng_state()
    with torch.no_grad():
        check_gradient(Rewards([judge]), 32)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_probe_lies_inside_the_range():
    probe = reward._probe(32, torch.device("cpu"))
    assert probe.shape == (2, 3, 32, 32) and 0 < probe.min() < probe.max() < 1

"""What restrains a reward: random views, the GT's score as limit, gradients of one length, and a loss to the base's output."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from sr_iqa.archs import build_network
from sr_iqa.check import check
from sr_iqa.config.models import RewardOptions, ViewOptions
from sr_iqa.errors import UserError
from sr_iqa.iqa.catalog import MetricInfo
from sr_iqa.iqa.metrics import Metric
from sr_iqa.iqa.reward import Rewards
from sr_iqa.iqa.views import random_views
from tests.tiny_runs import SWINIR, differences, losses, network, run, state, tiny

ALL = ViewOptions(number=3, crop=0.6, resize=1.5, use_hflip=True, noise=4)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))


class Contrast(nn.Module):
    def forward(self, x):
        return x.std((1, 2, 3))


def rewards(net, **options):
    return Rewards([Metric(MetricInfo("judge", "NR", False, (0, 1)), net, "judge")], [RewardOptions(metric="judge", weight=1, **options)])


def gradient(rewards, sr, gt, weight=1.0):
    sr = sr.clone().requires_grad_()
    logged, terms = rewards.terms(sr, gt, {"judge": weight})
    terms["judge"].backward()
    return logged["judge"], sr.grad


# ---------------------------------------------------------------- views


def test_views_without_options_are_the_image():
    image = torch.rand(2, 3, 20, 24)
    (view,) = random_views(ViewOptions(), (20, 24))
    assert torch.equal(view(image), image)


def test_views_keep_their_promises():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 40, 60)
    seen = [view(image) for _ in range(60) for view in random_views(ALL, (40, 60))]
    assert all(
        0.6 / 1.5 * 40 - 1 <= view.shape[-2] <= 1.5 * 40 + 1 and 0.6 / 1.5 * 60 - 1 <= view.shape[-1] <= 1.5 * 60 + 1 for view in seen
    )
    assert min(view.shape[-2] for view in seen) < 24 and max(view.shape[-2] for view in seen) > 46
    assert all(view.min() >= 0 and view.max() <= 1 for view in seen)


def test_one_view_is_the_same_for_every_image_and_flips_half_of_the_time():
    torch.manual_seed(0)
    image, flips = torch.rand(1, 3, 8, 8), 0
    for _ in range(100):
        (view,) = random_views(ViewOptions(use_hflip=True), (8, 8))
        assert torch.equal(view(image), image) or torch.equal(view(image), image.flip(-1))
        flips += torch.equal(view(image), image.flip(-1))
    assert 30 < flips < 70
    noisy = next(random_views(ViewOptions(noise=8), (8, 8)))
    assert torch.equal(noisy(image), noisy(image)) and not torch.equal(noisy(image), image)


def test_views_follow_the_global_seed_and_differ_from_draw_to_draw():
    image = torch.rand(1, 3, 32, 32)

    def draw():
        torch.manual_seed(5)
        return [view(image) for view in random_views(ALL, (32, 32))]

    assert differences(draw(), draw()) == []
    first, second, _ = draw()
    assert first.shape != second.shape or not torch.equal(first, second)


def test_noise_has_the_deviation_that_it_says():
    torch.manual_seed(0)
    gray = torch.full((1, 3, 64, 64), 0.5)
    stds = [(view(gray) - gray).std() * 255 for view in random_views(ViewOptions(number=200, noise=6), (64, 64))]
    assert max(stds) < 6.3 and min(stds) < 0.5 and torch.stack(stds).mean() == pytest.approx(3, abs=0.4)


def test_the_score_of_views_is_their_mean_and_gradients_reach_the_pixels_seen():
    torch.manual_seed(0)
    sr = torch.rand(2, 3, 32, 32) * 0.8 + 0.1
    judge = rewards(Mean(), views=ViewOptions(number=4, crop=0.5))
    torch.manual_seed(1)
    score, grad = gradient(judge, sr, sr)
    torch.manual_seed(1)
    expected = torch.stack([view(sr).mean() for view in random_views(judge.options["judge"].views, (32, 32))]).mean()
    assert score == pytest.approx(float(expected), abs=1e-6)
    assert grad.sum() == pytest.approx(-1, abs=1e-5)  # a mean over pixels, however they are cropped
    assert (grad == 0).any() or grad.std() > 0


# ---------------------------------------------------------------- the GT's score as limit


def test_an_output_that_scores_above_its_gt_earns_nothing_more():
    gt = torch.full((2, 3, 8, 8), 0.5)
    sr = torch.stack([torch.full((3, 8, 8), 0.4), torch.full((3, 8, 8), 0.6)])
    score, grad = gradient(rewards(Mean(), clip="gt"), sr, gt)
    assert score == pytest.approx(0.5)  # what is logged is Q itself
    assert (grad[0] < 0).all() and (grad[1] == 0).all()
    _, free = gradient(rewards(Mean()), sr, gt)
    assert torch.equal(grad[0], free[0]) and (free[1] < 0).all()


# ---------------------------------------------------------------- gradients of one length


def test_a_normalised_gradient_is_as_long_as_the_l1_loss_s_and_points_the_same_way():
    torch.manual_seed(0)
    sr, gt = torch.rand(3, 3, 16, 16) * 0.5 + 0.2, torch.rand(3, 3, 16, 16)
    plain, normal = gradient(rewards(Contrast()), sr, gt)[1], gradient(rewards(Contrast(), normalise=True), sr, gt, weight=0.3)[1]
    l1 = sr.clone().requires_grad_()
    (l1 - gt).abs().mean().backward()
    torch.testing.assert_close(normal.flatten(1).norm(dim=1), 0.3 * l1.grad.flatten(1).norm(dim=1))
    torch.testing.assert_close(F.normalize(normal.flatten(1)), F.normalize(plain.flatten(1)))


def test_normalised_gradients_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    sr, gt = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    judge = rewards(Contrast(), normalise=True)
    whole = gradient(judge, sr, gt)[1]
    halves = torch.cat([gradient(judge, sr[i : i + 2], gt[i : i + 2])[1] for i in (0, 2)]) / 2
    torch.testing.assert_close(whole, halves)


def test_no_gradient_stays_none():
    sr = torch.stack([torch.full((3, 8, 8), 0.4), torch.full((3, 8, 8), 0.6)])
    _, grad = gradient(rewards(Mean(), clip="gt", normalise=True), sr, torch.full((2, 3, 8, 8), 0.5))
    assert (grad[1] == 0).all() and grad[0].norm() > 0 and grad.isfinite().all()


def test_before_its_start_a_reward_is_only_logged():
    logged, terms = rewards(Mean(), normalise=True, views=ALL).terms(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), {"judge": 0.0})
    assert 0 < logged["judge"] < 1 and terms == {} and not logged["judge"].requires_grad


# ---------------------------------------------------------------- in training

VIEWS = {"number": 2, "crop": 0.6, "resize": 1.2, "use_hflip": True, "noise": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("robust")


@pytest.fixture(scope="module")
def base(root):
    torch.manual_seed(1)
    path = root / "base.safetensors"
    save_file(build_network(SWINIR).state_dict(), path)
    return {"path": {"pretrain_network_g": str(path)}}


def rewarded(**options):
    return {"train": {"reward_opt": {"metric": "nano", "weight": 0.05, **options}}}


def moved(one, two):
    return any(not torch.equal(one[name], two[name]) for name in one)


def test_every_restraint_changes_the_update(root, base):
    short = {"train": {"total_iter": 2}, "logger": {"save_checkpoint_freq": 2}}
    plain = network(run(root, "plain", base, rewarded(), short), 2)
    for name, option in {"views": VIEWS, "normalise": True}.items():
        assert moved(plain, network(run(root, name, base, rewarded(**{name: option}), short), 2)), name
    held = run(root, "held", base, rewarded(), short, {"train": {"base_opt": {"type": "L1Loss", "loss_weight": 3.0}}})
    assert moved(plain, network(held, 2))
    terms = [line["l_base"] for line in losses(held).values()]
    assert terms[0] == pytest.approx(0, abs=1e-6) and terms[1] > 1e-6  # the output starts as the base's


def test_the_base_of_an_adapter_is_the_network_below_it(root, base):
    changes = ({"lora": {"rank": 2}}, rewarded(), {"train": {"base_opt": {"type": "L1Loss"}}})
    terms = [line["l_base"] for line in losses(run(root, "lora", base, *changes)).values()]
    assert terms[0] == pytest.approx(0, abs=2e-7) and terms[-1] > 1e-6


def test_a_run_with_every_restraint_resumes_to_the_bit(root, base):
    changes = (base, rewarded(views=VIEWS, clip="gt", normalise=True), {"train": {"base_opt": {"type": "L1Loss"}, "ema_decay": 0.5}})
    whole = run(root, "whole", *changes)
    run(root, "parts", *changes, {"train": {"total_iter": 3}})
    (root / "parts_was").mkdir()
    parts = run(root, "parts", *changes, {"train": {"total_iter": 6}})
    assert differences(state(whole, 6)["optim_g"], state(parts, 6)["optim_g"]) == []
    assert differences(network(whole, 6), network(parts, 6)) == []


def test_the_base_needs_weights_and_views_must_be_large_enough(root):
    with pytest.raises(UserError, match=r"train\.base_opt: needs path\.pretrain_network_g"):
        check(tiny(root, "bad", {"train": {"base_opt": {"type": "L1Loss"}}}))
    with pytest.raises(UserError, match=r"train\.base_opt\.type: 'L2Loss' is not a pixel loss"):
        check(tiny(root, "bad", {"train": {"base_opt": {"type": "L2Loss"}}}))
    with pytest.raises(UserError, match=r"reward_opt\.views: nano needs sides of at least 16 pixels, but views of 32 px crops can be of 8"):
        check(tiny(root, "bad", rewarded(views={"crop": 0.5, "resize": 2.0})))

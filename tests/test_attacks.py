"""Attacks on a metric, and metrics that learn to resist them."""

import pytest
import torch

from sr_iqa.config.metric_models import AttackOptions, MetricOptions
from sr_iqa.iqa.attacks import LONG, SHORT, ascend, attacked, gain_loss, strongest
from sr_iqa.iqa.metrics import create_metric
from tests.test_metric_trainer import lines, make_pairs, only_net, plain, run
from tests.tiny_runs import differences


def brightness(x):
    return x.mean((1, 2, 3))


def bumpy(x):
    """Highest where every pixel is at 0.52."""
    return -(x - 0.52).square().mean((1, 2, 3))


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_best_change_of_a_linear_score_is_found(images):
    found = ascend(brightness, images, 0.1, steps=4, step=0.05)
    torch.testing.assert_close(found, (images + 0.1).clamp(0, 1))


@pytest.mark.parametrize("period", [None, 4])
def test_a_change_stays_within_its_distance_and_its_tile(images, period):
    distance = torch.tensor([0.01, 0.05, 0.2]).view(3, 1, 1, 1)
    inside = images * 0.5 + 0.25
    change = ascend(lambda x: (x * torch.linspace(-1, 1, 16)).sum((1, 2, 3)), inside, distance, 5, distance / 2, period) - inside
    torch.testing.assert_close(change.abs().amax((1, 2, 3)), distance.flatten())
    if period:
        torch.testing.assert_close(change, change[..., :4, :4].repeat(1, 1, 4, 4), atol=1e-6, rtol=0)


def test_the_best_image_on_the_way_is_kept_where_steps_overshoot():
    gray = torch.full((1, 3, 8, 8), 0.5)
    found = ascend(bumpy, gray, 0.5, steps=6, step=0.03)  # 0.53, 0.50, 0.53, ...
    torch.testing.assert_close(found, torch.full_like(gray, 0.53))


def test_each_image_is_attacked_by_itself(images):
    together = ascend(bumpy, images, 0.05, 5, 0.02)
    alone = torch.cat([ascend(bumpy, image[None], 0.05, 5, 0.02) for image in images])
    torch.testing.assert_close(together, alone)


def test_the_strongest_of_several_step_sizes_is_no_weaker_than_any(images):
    with torch.no_grad():  # wherever it is called
        gain = strongest(bumpy, images, 8 / 255, LONG)
        found = ascend(bumpy, images, 8 / 255, LONG, 8 / 255)
    assert (gain >= bumpy(found) - bumpy(images) - 1e-7).all() and (gain > 0).all()
    assert strongest(create_metric("nano").signed, torch.rand(2, 3, 32, 32), 4 / 255, SHORT, period=4).shape == (2,)


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    make_pairs(folder, scenes=6)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


ATTACK = {"train": {"attack_opt": {"weight": 2.0, "distance": 8, "steps": 6}}}


def test_the_loss_of_gains_is_one_sided_and_smooth():
    gain = torch.tensor([-3.0, 0.0, 0.2, 2.0], requires_grad=True)
    gain_loss(gain).backward()
    assert gain.grad.tolist() == pytest.approx([0, 0, 0.2 / 0.5 / 4, 1 / 4])


def test_attacks_on_the_way_are_within_the_distance_and_follow_the_seed(images):
    inside, options = images * 0.8 + 0.1, AttackOptions(distance=6, tiled=0)

    def draw():
        torch.manual_seed(4)
        return attacked(brightness, inside, options)

    change = (draw() - inside).abs().amax((1, 2, 3)) * 255
    assert ((change > 0.3) & (change <= 6.01)).all() and len(set(change.tolist())) == 3
    assert torch.equal(draw(), draw())


def test_a_run_with_attacks_resumes_to_the_bit(root):
    whole = run(root, "whole", ATTACK)
    run(root, "parts", ATTACK, {"train": {"total_iter": 3}})
    assert differences(only_net(whole), only_net(run(root, "parts", ATTACK))) == []
    assert all("attack_gain" in line for line in lines(whole) if "l_pair" in line)


def test_a_full_reference_metric_is_attacked_with_its_reference(root):
    folder = run(
        root,
        "fr",
        ATTACK,
        {"network": {"type": "lpips", "start": "random"}, "train": {"total_iter": 1}, "logger": {"save_checkpoint_freq": 1}},
    )
    (line,) = [line for line in lines(folder) if "l_pair" in line]
    assert line["attack_gain"] > 0


@pytest.mark.slow
def test_a_metric_that_was_attacked_in_training_gains_less(root):
    shape = {"train": {"total_iter": 150, "optim": {"lr": 2e-3}}, "logger": {"print_freq": 50, "save_checkpoint_freq": 150}}
    gains = []
    for name, change in (("naive", {}), ("robust", ATTACK)):
        metric = create_metric(str(run(root, name, shape, change) / "metric.safetensors"))
        start = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
        gains.append(float(strongest(metric.signed, start, 6 / 255, LONG).mean()))
    assert gains[1] < 0.5 * gains[0], gains


def test_tiles_must_fit_the_crop_and_measured_images_cannot_be_attacked(root):
    with pytest.raises(ValueError, match=r"attack_opt\.periods: expected divisors of datasets\.train\.crop_px \(32\), got \[5\]"):
        MetricOptions.model_validate(plain(root, "bad", {"train": {"attack_opt": {"periods": [5]}}}))
    measured = {"network": {"type": "afine:all:clip", "start": "random"}, "datasets": {"train": {"measure_once": True}}}
    with pytest.raises(ValueError, match="measured once cannot be attacked"):
        MetricOptions.model_validate(plain(root, "bad", ATTACK, measured))

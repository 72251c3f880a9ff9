import pytest
import torch

from sr_iqa.config.models import RewardOptions, TrainOptions
from sr_iqa.training.schedules import generator_learns, is_due, learning_rate, reward_weight


def train_options(**changes):
    return TrainOptions(total_iter=20, optim_g={"type": "Adam", "lr": 0.1}, **changes)


def torch_rates(scheduler_class, steps, **arguments):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = scheduler_class(optimizer, **arguments)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_multistep_equals_torch():
    ours = train_options(scheduler={"type": "MultiStepLR", "milestones": (3, 7, 8), "gamma": 0.3})
    expected = torch_rates(torch.optim.lr_scheduler.MultiStepLR, 12, milestones=[3, 7, 8], gamma=0.3)
    assert [learning_rate(ours, 0.1, step) for step in range(12)] == pytest.approx(expected)


@pytest.mark.parametrize("t_max", [None, 12])
def test_cosine_equals_torch_and_stays_down(t_max):
    ours = train_options(scheduler={"type": "CosineAnnealingLR", "T_max": t_max, "eta_min": 1e-3})
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 12, T_max=t_max or 20, eta_min=1e-3)
    assert [learning_rate(ours, 0.1, step) for step in range(12)] == pytest.approx(expected)
    assert learning_rate(ours, 0.1, 25) == pytest.approx(1e-3)


def test_restarts_equal_basicsr():
    from sr_iqa.archs.basicsr_bridge import import_basicsr

    import_basicsr()
    from basicsr.models.lr_scheduler import CosineAnnealingRestartLR

    arguments = {"periods": (4, 3, 5), "restart_weights": (1.0, 0.5, 0.25), "eta_min": 1e-3}
    ours = train_options(scheduler={"type": "CosineAnnealingRestartLR", **arguments})
    expected = torch_rates(CosineAnnealingRestartLR, 12, **arguments)
    assert [learning_rate(ours, 0.1, step) for step in range(12)] == pytest.approx(expected)
    assert learning_rate(ours, 0.1, 20) == pytest.approx(1e-3)


def test_constant_with_warmup_reaches_the_full_rate_after_warmup_iter_steps():
    ours = train_options(warmup_iter=4)
    assert [learning_rate(ours, 0.1, step) for step in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert learning_rate(train_options(), 0.1, 0) == 0.1


def test_warmup_as_torch_linear():
    expected = torch_rates(torch.optim.lr_scheduler.LinearLR, 8, start_factor=0.2, total_iters=4)
    assert [learning_rate(train_options(warmup_iter=5), 0.1, step) for step in range(8)] == pytest.approx(expected)


def test_reward_weight_starts_late_and_rises():
    reward = RewardOptions(metric="nano", weight=0.5, start_iter=2, warmup_iter=4)
    assert [reward_weight(reward, step) for step in range(7)] == pytest.approx([0, 0, 0.125, 0.25, 0.375, 0.5, 0.5])
    assert reward_weight(RewardOptions(metric="nano", weight=0.5), 0) == 0.5


def test_generator_waits_for_the_discriminator():
    train = train_options(net_d_iters=2, net_d_init_iters=3)
    assert [generator_learns(train, step) for step in range(8)] == [False, False, False, True, False, True, False, True]
    assert generator_learns(train_options(), 0)


def test_due_at_the_end_too():
    assert [step for step in range(11) if is_due(step, 4, 10)] == [0, 4, 8, 10]

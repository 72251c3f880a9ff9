"""The option `compile`: the same training, compiled once. Slow, because compiling is."""

from functools import partial

import pytest
import torch

from sr_iqa.training import trainer
from tests.test_processes import launch, started
from tests.test_training import assert_same_curve
from tests.tiny_runs import GAN, RRDB, SWINIR, differences, network, run, state, validation

pytestmark = pytest.mark.slow
DEEP = {**SWINIR, "depths": [2], "drop_path_rate": 0.5}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One data set for all runs here."""
    return tmp_path_factory.mktemp("compile")


@pytest.fixture
def graphs(monkeypatch):
    """The number of compiled graphs after each step."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    seen = []
    original = trainer.train_step

    def step(*arguments):
        original(*arguments)
        seen.append(counters["stats"]["unique_graphs"])

    monkeypatch.setattr(trainer, "train_step", step)
    yield seen
    assert not counters["graph_break"]
    torch._dynamo.reset()


@pytest.fixture
def quick(monkeypatch):
    """Graphs are traced as they are for the real compiler, and then run by torch's own kernels: seconds instead of a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def test_a_gan_run_is_compiled_once_and_trains_the_same(root, graphs, quick, monkeypatch):
    evaluated = []
    original = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", lambda net, *rest: (evaluated.append(type(net).__name__), original(net, *rest))[1])
    changes = (GAN, {"network_g": RRDB, "train": {"ema_decay": 0.5, "accum_iter": 2}}, validation(root))
    plain = run(root, "plain", *changes)
    graphs.clear()
    folder = run(root, "compiled", *changes, {"compile": True})
    assert graphs[0] and graphs == [graphs[0]] * 6, "something was compiled again after the first step"
    assert evaluated == ["RRDBNet"] * 6, "validation is not compiled"
    assert_same_curve(plain, folder, largest=1e-4, mean=2e-5)
    for label in ("net_g", "net_g_ema", "net_d"):
        one, two = network(plain, 6, label), network(folder, 6, label)
        assert one.keys() == two.keys()
        assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one if one[name].is_floating_point())


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"lora": {"rank": 2, "dropout": 0.3}}], ids=["bf16", "lora"])
def test_other_runs_are_compiled_once_and_resume_to_the_bit(root, graphs, quick, changes):
    name = f"resumed_{next(iter(changes))}"
    whole = run(root, f"{name}_6", changes, {"compile": True, "network_g": DEEP})
    assert graphs[0] and graphs == [graphs[0]] * 6
    run(root, name, changes, {"compile": True, "network_g": DEEP, "train": {"total_iter": 3}})
    parts = run(root, name, changes, {"compile": True, "network_g": DEEP})
    assert [d for d in differences(state(whole, 6), state(parts, 6)) if d != ".options.name"] == []


def test_two_processes_train_compiled_as_one_does_plain(root):
    """With the real compiler: minutes."""
    changes = (GAN, {"network_g": RRDB, "train": {"optim_g": {"lr": 1e-4}}})
    process = launch(root, "two", *changes, {"compile": True})
    assert process.returncode == 0, process.output
    assert started(root / "runs" / "two") == 2
    one = run(root, "one", *changes, {"datasets": {"train": {"batch_size_per_gpu": 4}}})
    assert_same_curve(one, root / "runs" / "two", largest=1e-4, mean=2e-5)


def test_the_real_compiler_takes_it(root, graphs):
    folder = run(root, "inductor", {"compile": True, "train": {"total_iter": 2}})
    assert graphs == [1, 1]
    assert_same_curve(run(root, "eager", {"train": {"total_iter": 2}}), folder, largest=1e-4, mean=2e-5)

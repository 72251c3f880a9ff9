from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from sr_iqa.config.models import SamplingOptions
from sr_iqa.errors import UserError
from sr_iqa.sampling import ALIASES, STRATEGIES, ArgmaxOnline, UniformAll, build_strategy, choose, resolve_strategy

SCORES = np.array([50.0, 53.0, 56.0, 41.0, 53.0])
POSITIVE = np.array([False, True, True, False, False])


def build(strategy, **more):
    return build_strategy(SamplingOptions(strategy=strategy, metric="nano", **more))


def exact(strategy, temperature=3.0):
    softmax = np.exp(SCORES / temperature)
    return {
        "original": np.array([1.0, 0, 0, 0, 0]),
        "uniform_all": np.full(5, 0.2),
        "uniform_positive": np.array([0, 0.5, 0.5, 0, 0]),
        "sma": softmax / softmax.sum(),
        "smp": softmax * POSITIVE / (softmax * POSITIVE).sum(),
    }[strategy]


@pytest.mark.parametrize("strategy", ["original", "uniform_all", "uniform_positive", "sma", "smp"])
def test_shares_over_many_draws_match_the_exact_probabilities(strategy):
    made = build(strategy, temperature=3.0) if strategy in ("sma", "smp") else build(strategy)
    probabilities = made.probabilities(SCORES, POSITIVE)
    assert np.allclose(probabilities, exact(strategy), atol=1e-12)
    draws = np.random.default_rng(0).random(20000)
    counts = np.bincount([choose(probabilities, u) for u in draws], minlength=5)
    possible = probabilities > 0
    assert not counts[~possible].any()
    if possible.sum() > 1:
        assert chisquare(counts[possible], 20000 * probabilities[possible]).pvalue > 1e-3


def test_temperature_is_in_the_metrics_units():
    """A GT that is one temperature better is e times as likely."""
    probabilities = build("sma", temperature=2.5).probabilities(np.array([10.0, 12.5]), np.zeros(2, bool))
    assert probabilities[1] / probabilities[0] == pytest.approx(np.e)
    cold = build("sma", temperature=1e-3).probabilities(SCORES, POSITIVE)
    assert cold.tolist() == [0, 0, 1, 0, 0]
    hot = build("smp", temperature=1e6).probabilities(SCORES, POSITIVE)
    assert np.allclose(hot, [0, 0.5, 0.5, 0, 0], atol=1e-4)
    assert np.allclose(build("sma", temperature=3).probabilities(SCORES + 1e6, POSITIVE), exact("sma"))


def test_needs_are_declared():
    needs = {name: (cls.needs_labels, cls.needs_scores, cls.online) for name, cls in STRATEGIES.items()}
    assert needs == {
        "original": (False, False, False),
        "uniform_all": (False, False, False),
        "uniform_positive": (True, False, False),
        "sma": (False, True, False),
        "smp": (True, True, False),
        "amo": (False, False, True),
    }


def test_sets_of_one_gt_always_give_it():
    for name in ("original", "uniform_all", "sma"):
        made = build(name, **({"temperature": 1.0} if name == "sma" else {}))
        assert made.probabilities(np.array([3.0]), np.array([False])).tolist() == [1.0]


def test_choose_covers_the_unit_interval_and_never_takes_the_impossible():
    probabilities = np.array([0, 0.25, 0, 0.75, 0])
    assert [choose(probabilities, u) for u in (0.0, 0.2499, 0.25, 0.9999999999999999)] == [1, 1, 3, 3]
    thirds = np.full(3, 1 / 3)
    assert choose(thirds * 0.9999999, 0.9999999999999999) == 2


def test_online_choice_takes_the_best_crop_and_the_lowest_index_of_ties():
    scores = torch.tensor([[1.0, 3.0, 3.0], [5.0, 5.0, 5.0], [-2.0, -3.0, -1.0], [float("nan"), 0.0, -1.0]])
    assert ArgmaxOnline().choose_online(scores).tolist() == [1, 0, 2, 1]


class WorstOnline:
    needs_labels, needs_scores, online = False, False, True

    def probabilities(self, scores, positive):
        raise TypeError

    def choose_online(self, scores):
        return scores.argmin(dim=1)


class OnlineInName(UniformAll):
    online = True


def test_an_online_strategy_must_be_able_to_choose():
    assert build("tests.test_sampling.WorstOnline").online
    with pytest.raises(UserError, match="no method choose_online"):
        build("tests.test_sampling.OnlineInName")


def test_nan_scores_and_missing_scores_are_errors():
    made = build("sma", temperature=1.0)
    with pytest.raises(UserError, match="finite"):
        made.probabilities(np.array([1.0, np.nan]), np.zeros(2, bool))
    with pytest.raises(UserError, match="sr-iqa data score"):
        made.probabilities(None, np.zeros(2, bool))


def test_names_aliases_and_dotted_paths():
    for alias, name in ALIASES.items():
        assert resolve_strategy(alias) is STRATEGIES[name]
    assert resolve_strategy("UPos") is STRATEGIES["uniform_positive"]
    assert resolve_strategy(f"{__name__}.NearBest") is NearBest
    with pytest.raises(UserError, match="Did you mean 'uniform_positive'"):
        resolve_strategy("uniform_positiv")
    with pytest.raises(UserError, match="no_such_module"):
        resolve_strategy("no_such_module.Thing")


def test_wrong_options_are_explained():
    with pytest.raises(UserError, match="needs `temperature`"):
        build("smp")
    with pytest.raises(UserError, match="takes no `temperature`"):
        build("original", temperature=1.0)
    with pytest.raises(UserError, match="needs `metric`"):
        build_strategy(SamplingOptions(strategy="amo"))


@dataclass(frozen=True)
class NearBest:
    """The seventh strategy of docs/extending.md: uniform among the GTs within one temperature of the best."""

    temperature: float
    needs_labels = False
    needs_scores = True
    online = False

    def probabilities(self, scores, positive):
        near = scores >= scores.max() - self.temperature
        return near / near.sum()


def test_a_seventh_strategy_is_a_few_lines():
    made = build_strategy(SamplingOptions(strategy=f"{__name__}.NearBest", metric="nano", temperature=3))
    assert np.allclose(made.probabilities(SCORES, POSITIVE), [0, 1 / 3, 1 / 3, 0, 1 / 3])

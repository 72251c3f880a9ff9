"""Statistics of a study, against SciPy where it has the same thing, against hand-made cases where not."""

import numpy as np
import pytest
from scipy import stats

from sr_iqa.study.statistics import bootstrap_interval, compare, holm, rank_biserial, signed_rank_p


def names(count, per_photo=1):
    return [f"photo{i // per_photo}" for i in range(count)]


def test_with_one_image_per_photo_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).gamma(2, 3, 40)
    ours = bootstrap_interval(values[None], names(40), draws=20000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(2)).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.05) and ours.high == pytest.approx(theirs.high, abs=0.05)


def test_patches_of_one_photo_count_once():
    """Twelve copies of every photo's value say no more than one."""
    values = np.random.default_rng(1).normal(0, 1, 30)
    once = bootstrap_interval(values[None], names(30))
    many = bootstrap_interval(np.repeat(values, 12)[None], names(360, 12))
    pretending = bootstrap_interval(np.repeat(values, 12)[None], names(360))
    assert (many.low, many.high) == pytest.approx((once.low, once.high))
    assert pretending.high - pretending.low < 0.4 * (once.high - once.low)


def test_photos_of_unequal_size_weigh_by_their_images():
    values, photos = np.array([[0.0, 0.0, 0.0, 10.0]]), ["a", "a", "a", "b"]
    interval = bootstrap_interval(values, photos)
    assert (interval.low, interval.high) == (0.0, 10.0)
    assert compare(values, np.zeros((1, 4)), photos, False).mean == 2.5


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        photo = rng.normal(5, 2, 30)
        values = np.repeat(photo, 4) + rng.normal(0, 1, 120)
        interval = bootstrap_interval(values[None], names(120, 4), draws=500)
        hits += interval.low <= 5 <= interval.high
    assert 0.87 <= hits / 200 <= 0.99


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(3)
    images, seeds = rng.normal(0, 0.1, 30), np.array([-1.0, 0.0, 1.0])
    one = bootstrap_interval(images[None], names(30))
    three = bootstrap_interval(images + seeds[:, None], names(30))
    assert three.high - three.low > 5 * (one.high - one.low)


def test_p_is_scipys():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 1, (1, 25)), rng.normal(0.4, 1, (1, 25))
    found = compare(b, a, names(25), lower_better=False)
    assert found.p == pytest.approx(stats.wilcoxon((b - a)[0]).pvalue) and found.photos == 25
    clustered = compare(np.repeat(b, 4, 1), np.repeat(a, 4, 1), names(100, 4), lower_better=False)
    assert clustered.p == pytest.approx(found.p) and clustered.photos == 25
    assert signed_rank_p(np.zeros(5)) == 1.0
    assert signed_rank_p(np.array([1.0, 2.0])) == 0.5  # two photos can never be significant


def test_direction_turns_effect_and_win_rate_but_not_the_difference():
    a, b = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[2.0, 3.0, 4.0, 4.0]])
    higher, lower = (compare(b, a, names(4), lower_better) for lower_better in (False, True))
    assert higher.mean == lower.mean == 0.75
    assert (higher.effect, lower.effect) == (1.0, -1.0)
    assert (higher.win_rate, lower.win_rate) == (0.875, 0.125)


def test_rank_biserial_by_hand():
    assert rank_biserial(np.array([1.0, -2.0, 3.0])) == pytest.approx((1 - 2 + 3) / 6)
    gains = np.random.default_rng(5).normal(0.3, 1, 20)
    favourable = stats.wilcoxon(gains, alternative="greater").statistic  # SciPy's W+ is the sum of the positive ranks
    assert rank_biserial(gains) == pytest.approx(2 * favourable / (20 * 21 / 2) - 1)
    assert rank_biserial(np.zeros(3)) == 0.0


def test_holm_by_hand():
    """Holm 1979: 0.01 x 4, 0.015 x 3 (raised to the one before where lower), 0.03 x 2, 0.04 x 1."""
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.015}) == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.045})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_values_must_fit_the_images():
    with pytest.raises(ValueError, match=r"\(seeds, 3\)"):
        bootstrap_interval(np.zeros((1, 4)), names(3))

"""The proxy gap by hand."""

import pytest

from sr_iqa.study.proxy import add_proxy_gaps, optimised_by


def variant(options, **means):
    metrics = {}
    for name, value in means.items():
        metrics[name] = {"mean": value, "lower_better": name in ("niqe", "grid"), "against": "none", "metric": name}
    return {"options": options, "metrics": metrics}


def sampled(strategy, metric="nano"):
    return {"datasets": {"train": {"sampling": {"strategy": strategy, "metric": metric}}}}


def test_gains_are_in_spreads_of_the_gts_and_signed_by_direction():
    scores = {"a": {"original": 40.0, "01": 50.0}, "b": {"original": 50.0, "01": 60.0}}  # standard deviation 8.165 (n - 1)
    gold = {"nano": {"scores": scores}, "niqe": {"scores": {"a": {"original": 5.0, "01": 7.0}}}}  # 1.414
    results = {"gold_standard": gold, "variants": {}}
    results["variants"]["original"] = variant({}, nano=40.0, niqe=6.0, psnr=30.0)
    results["variants"]["amo"] = variant(sampled("amo"), nano=50.0, niqe=5.0, psnr=28.0)
    results["variants"]["uniform"] = variant(sampled("uniform_all"), nano=45.0, niqe=6.0, psnr=29.0)
    add_proxy_gaps(results, "original")
    assert set(results["proxy_gap"]) == {"amo", "uniform"}
    found = results["proxy_gap"]["amo"]
    assert found["gains"] == {"nano": pytest.approx(10 / 8.165, rel=1e-3), "niqe": pytest.approx(1 / 1.41421, rel=1e-4)}
    assert (found["optimised_gain"], found["other_gain"]) == (found["gains"]["nano"], found["gains"]["niqe"])
    assert found["gap"] == pytest.approx(found["gains"]["nano"] - found["gains"]["niqe"])
    assert results["proxy_gap"]["uniform"]["optimised"] == [] and results["proxy_gap"]["uniform"]["gap"] is None


def test_what_a_variant_optimises_is_read_from_its_options():
    rewarded = {"train": {"reward_opt": [{"metric": "musiq"}, {"metric": "nima"}]}}
    assert optimised_by(variant({**sampled("smp", "musiq"), **rewarded})) == ["musiq", "nima"]
    assert optimised_by(variant(sampled("uniform_positive", "musiq"))) == []


def test_an_ensembles_members_are_optimised_with_it(tmp_path):
    rewarded = {"train": {"reward_opt": [{"metric": "0.5*musiq + 0.5*nima"}]}}
    assert optimised_by(variant({**sampled("amo", "min(nano, niqe)"), **rewarded})) == [
        *("min(nano, niqe)", "0.5*musiq + 0.5*nima", "nano", "niqe", "musiq", "nima")
    ]
    (tmp_path / "e.yml").write_text("members: [{metric: nano}, {metric: piqe}]")
    for name, members in ((tmp_path / "e.yml", ["nano", "piqe"]), (tmp_path / "gone.yml", [])):
        assert optimised_by(variant(sampled("amo", str(name)))) == [str(name), *members]

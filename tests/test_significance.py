"""Statistics in the results of a study: what is compared with what."""

import numpy as np
import pytest
from scipy import stats

from sr_iqa.errors import UsageError
from sr_iqa.study.results import merge_seeds
from sr_iqa.study.significance import add_statistics, can_tell
from sr_iqa.study.statistics import holm

IMAGES = [f"photo{i // 2}-{i % 2}-0" for i in range(40)]  # two patches of each of 20 photos
NOISE = np.random.default_rng(0).normal(0, 1, (3, 40))


def column(values, lower_better=False):
    trace = {"metric": "psnr", "identity": "psnr v1", "convention": "RGB", "against": "positives", "lower_better": lower_better}
    return {"mean": float(np.mean(values)), "per_image": dict(zip(IMAGES, map(float, values), strict=True)), **trace}


def variant(shift, seeds=1, lower_better=False):
    base = np.linspace(20, 30, 40)
    rows = [base + shift * (1 + 0.1 * NOISE[seed]) + 0.01 * NOISE[seed] for seed in range(seeds)]
    return merge_seeds(
        [
            {
                "metrics": {"psnr": column(row, lower_better)},
                "chosen": {},
                "standings": {},
                "steps": 1,
                "seed": seed,
                "options": {},
                "curve": [],
            }
            for seed, row in enumerate(rows)
        ]
    )


def study(**variants):
    sets = {image: {"source": image.rsplit("-", 2)[0]} for image in IMAGES}
    return {"variants": variants, "gold_standard": {}, "optimised_metric": "nano", "data": {"sets": sets}, "provenance": {}}


def test_photos_not_patches_are_tested_and_holm_runs_over_the_variants_of_a_column():
    results = study(base=variant(0), good=variant(0.5), same=variant(0.0), bad=variant(-0.5))
    add_statistics(results, "base")
    assert results["statistics"]["photos"] == 20 and can_tell(results)
    found = {name: v["metrics"]["psnr"].get("against_baseline") for name, v in results["variants"].items()}
    assert found["base"] is None
    values = {name: np.array(list(v["metrics"]["psnr"]["per_image"].values())) for name, v in results["variants"].items()}
    p = {}
    for name in ("good", "same", "bad"):
        p[name] = stats.wilcoxon((values[name] - values["base"]).reshape(20, 2).mean(1)).pvalue if name != "same" else 1.0
        assert found[name]["p"] == pytest.approx(p[name])
    assert {name: found[name]["p_holm"] for name in p} == pytest.approx(holm(p))
    assert found["good"]["effect"] == 1 and found["bad"]["effect"] == -1 and found["good"]["win_rate"] == 1
    assert found["good"]["low"] <= found["good"]["difference"] <= found["good"]["high"]


def test_only_the_best_and_its_equals_are_not_worse():
    results = study(a=variant(0), b=variant(0.5), c=variant(0.5))
    add_statistics(results, "a")
    p = {name: v["metrics"]["psnr"]["p_worse_than_best"] for name, v in results["variants"].items()}
    assert p["a"] < 0.05 and p["b"] == p["c"] == 1


def test_the_best_follows_the_direction():
    results = study(a=variant(0, lower_better=True), b=variant(0.5, lower_better=True))
    add_statistics(results, "b")
    assert results["variants"]["a"]["metrics"]["psnr"]["p_worse_than_best"] == 1
    assert results["variants"]["a"]["metrics"]["psnr"]["against_baseline"]["effect"] == 1


def test_seeds_are_paired_and_missing_ones_left_out():
    results = study(a=variant(0, seeds=3), b=variant(0.5, seeds=2))
    add_statistics(results, "a")
    runs = [results["variants"][name]["runs"][:2] for name in ("a", "b")]
    expected = np.mean([run["metrics"]["psnr"] for run in runs[1]]) - np.mean([run["metrics"]["psnr"] for run in runs[0]])
    assert results["variants"]["b"]["metrics"]["psnr"]["against_baseline"]["difference"] == pytest.approx(expected)


def test_an_unknown_baseline_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="choose from a, b"):
        add_statistics(study(a=variant(0), b=variant(1)), "original")

"""The demo: a shortened run of the whole pipeline, which takes two minutes, and the real one with its expectations. All slow.

tests/test_supply.py begins a demo in the default suite.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from sr_iqa.errors import UserError
from sr_iqa.study import demo
from tests.helpers import picture, save

pytestmark = pytest.mark.slow
NAMES = {"original", "uniform_all", "uniform_positive", "sma", "smp", "amo", "amo_reward", "amo_reward_nolora"}


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory):
    """run_demo with two steps per variant on three synthetic photos; (folder, what it said)."""
    folder = tmp_path_factory.mktemp("demo")
    for i in range(3):
        save(folder / "photos" / f"photo{i}.png", picture(300, seed=i))
    real = demo.make_study

    def shortened(out, data, seeds):
        study = real(out, data, seeds)
        few = {"train.total_iter": 2, "val.val_freq": 1, "train.warmup_iter": -1}
        variants = {name: replace(variant, overrides={**variant.overrides, **few}) for name, variant in study.variants.items()}
        return replace(study, variants=variants)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "make_study", shortened)
        said = []
        demo.run_demo(folder / "out", images=folder / "photos", say=said.append)
        first = json.loads((folder / "out" / "results.json").read_text())
        demo.run_demo(folder / "out", images=folder / "photos", say=said.append)
    return folder / "out", said, first


def test_results_hold_every_variant_and_trace_every_figure(short_demo):
    out, _, results = short_demo
    assert set(results["variants"]) == NAMES and results["optimised_metric"] == "nano"
    for variant in results["variants"].values():
        for column in ("nano", "niqe", "psnr", "psnr_original", "ssimc", "grid"):
            values = variant["metrics"][column]
            assert values["mean"] == pytest.approx(np.mean(list(values["per_image"].values())))
            assert values["identity"] and values["convention"]
        assert variant["options"]["train"] and sum(variant["chosen"].values()) == 2 * 8
    assert results["variants"]["original"]["chosen"]["original"] == 16
    assert results["gold_standard"]["nano"]["mean"] > 0
    assert set(results["provenance"]["weights"]) == {"nano.safetensors", "base_x4.safetensors"}
    assert len(results["checks"]) == 8


def test_held_out_photos_are_not_trained_on(short_demo):
    out, _, results = short_demo
    data = results["data"]
    assert data["training photos"] and data["held-out photos"] and not set(data["training photos"]) & set(data["held-out photos"])
    images = set(results["variants"]["amo"]["metrics"]["nano"]["per_image"])
    assert {name.rsplit("-", 2)[0] for name in images} == set(data["held-out photos"])


def test_report_is_one_page_without_outside_addresses(short_demo):
    out, _, _ = short_demo
    page = (out / "report" / "index.html").read_text()
    assert len(page) < 15e6 and {name for name in NAMES if name in page} >= NAMES
    assert 'src="http' not in page and 'href="http' not in page
    assert (out / "results.md").read_text().count("amo_reward") >= 2


def test_a_second_call_trains_nothing_again(short_demo):
    out, said, first = short_demo
    second = json.loads((out / "results.json").read_text())
    assert {n: v["metrics"] for n, v in second["variants"].items()} == {n: v["metrics"] for n, v in first["variants"].items()}
    lines = (out / "runs" / "seed0" / "amo" / "metrics.jsonl").read_text().splitlines()
    assert len({line for line in lines if '"chosen"' in line}) == len([line for line in lines if '"chosen"' in line])


def test_a_folder_of_other_photos_is_refused(short_demo):
    out, _, _ = short_demo
    photos = out.parent / "photos"
    save(photos / "photo0.png", picture(300, seed=9))
    with pytest.raises(UserError, match="holds a demo of other photos"):
        demo.run_demo(out, images=photos)


def test_reward_runs_start_from_amo_and_only_one_has_an_adapter(short_demo):
    out, _, results = short_demo
    options = {name: variant["options"] for name, variant in results["variants"].items()}
    for name in ("amo_reward", "amo_reward_nolora"):
        assert "/amo/" in options[name]["path"]["pretrain_network_g"]
    assert "lora" in options["amo_reward"] and "lora" not in options["amo_reward_nolora"]
    same = [{k: v for k, v in options[name].items() if k not in ("name", "lora")} for name in ("amo_reward", "amo_reward_nolora")]
    assert same[0] == same[1]


@pytest.mark.slow
def test_the_shipped_demo_meets_its_expectations(tmp_path):
    result = demo.run_demo(tmp_path / "demo")
    checks = json.loads(result.results.read_text())["checks"]
    assert not [check["text"] for check in checks if not check["holds"]]

"""The report: what results.json must hold, words that follow from the figures whoever wins, and a page that stands alone."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from sr_iqa.errors import UserError
from sr_iqa.study import report
from sr_iqa.study.exports import latex
from sr_iqa.study.figures import pareto_front, strips
from sr_iqa.study.gallery import draw
from sr_iqa.study.pictures import SetImages, busiest_place, comparisons, extremes, focus, noise_panels, spectrum
from sr_iqa.study.report import write_report
from sr_iqa.study.results import best_variants, merge_seeds, order_checks, shares
from sr_iqa.study.summary import describe, markdown, option_differences, standing_rows, table_rows
from sr_iqa.study.tuning import compare_tuning, describe_tuning
from tests.helpers import picture

IMAGES = ("a-0-0", "b-0-0")
LOWER = {"niqe": True, "grid": True}


def column(name, value):
    against = "original" if name.endswith("_original") else "none" if name in ("nano", "niqe", "grid") else "positives"
    per_image = {image: value + k - 0.5 for k, image in enumerate(IMAGES)}
    metric = name.removesuffix("_original")
    trace = {"metric": metric, "identity": f"{metric} v1", "convention": "8-bit RGB"}
    return {"mean": value, "per_image": per_image, "lower_better": LOWER.get(name, False), "against": against, **trace}


def variant(seed=0, chosen=None, standings=None, curve=(), **means):
    metrics = {name: column(name, value) for name, value in means.items()}
    counts = {"chosen": chosen or {}, "standings": standings or {}}
    return {"metrics": metrics, **counts, "steps": 80, "seed": seed, "options": {"name": "x"}, "curve": list(curve)}


def curve(*points):
    """Points (step, nano, niqe, grid)."""
    return [{"step": s, "metrics": {"nano": q, "niqe": n, "grid": g}} for s, q, n, g in points]


def study(lora=None, full=None, **extra):
    """Two strategies and two reward variants; LoRA is slower and cleaner by default."""
    lora = lora or curve((0, 40, 5, 0.1), (40, 45, 5, 0.1), (80, 50, 5, 0.2))
    full = full or curve((0, 40, 5, 0.1), (40, 50, 6, 0.3), (80, 60, 7, 0.5))
    means = {"psnr": 24.0, "psnr_original": 28.0, "nano": 50.0, "niqe": 5.0, "grid": 0.2}
    variants = {
        "original": merge_seeds([variant(psnr=25.0, psnr_original=30.0, nano=40.0, niqe=6.0, grid=0.1, chosen={"original": 8})]),
        "amo": merge_seeds([variant(psnr=24.5, psnr_original=29.0, nano=45.0, niqe=5.5, grid=0.1, chosen={"original": 2, "01": 6})]),
        "lora": merge_seeds([variant(**means, curve=lora)]),
        "full": merge_seeds([variant(**means, curve=full)]),
    }
    gold = {
        "mean": 55.0,
        "per_image": dict.fromkeys(IMAGES, 55.0),
        "best": dict.fromkeys(IMAGES, "01"),
        "lower_better": False,
        "identity": "nano v1",
    }
    gold["scores"] = {image: {"original": 41.0, "01": 55.0} for image in IMAGES}
    sets = {image: {"source": "a", "labels": {"01": "Positive"}} for image in IMAGES}
    data = {"name": "held-out", "sets": sets}
    rest = {"optimised_metric": "nano", "data": data, "provenance": {"versions": {"torch": "2.15"}, "command": "sr-iqa demo"}}
    results = {"variants": variants, "gold_standard": {"nano": gold}, **rest}
    return {**results, "reward_comparison": compare_tuning(results, "lora", "full"), **extra}


def pictures():
    gts = {"original": picture(128, 1), "01": picture(128, 2)}
    return {
        image: SetImages(gts, {name: picture(128, k) for k, name in enumerate(("original", "amo", "lora", "full"))}, picture(32, 1))
        for image in IMAGES
    }


# ---------------------------------------------------------------- results


def test_seeds_are_averaged_per_image_and_spread_is_that_of_their_means():
    merged = merge_seeds([variant(seed=s, nano=40.0 + s, chosen={"01": 3}) for s in (0, 1, 2)])
    nano = merged["metrics"]["nano"]
    assert nano["mean"] == 41 and nano["spread"] == pytest.approx(1.0)
    assert nano["per_image"] == {"a-0-0": 40.5, "b-0-0": 41.5}
    assert merged["chosen"] == {"01": 9} and [run["seed"] for run in merged["runs"]] == [0, 1, 2]


def test_one_seed_has_no_spread():
    assert "spread" not in merge_seeds([variant(nano=40.0)])["metrics"]["nano"]


def test_best_follows_the_direction_and_ties_at_the_digits_shown():
    results = study()
    assert best_variants(results, "psnr") == {"original"}
    assert best_variants(results, "niqe") == {"lora", "full"}
    results["variants"]["lora"]["metrics"]["niqe"]["mean"] = 4.996
    assert best_variants(results, "niqe") == {"lora", "full"}


def test_a_missing_value_is_never_the_best():
    results = study()
    results["variants"]["original"]["metrics"]["psnr"]["mean"] = float("nan")
    assert best_variants(results, "psnr") == {"amo"}


def test_order_checks_name_the_link_that_fails():
    checks = order_checks(study(), ["original", "amo", "lora"], "psnr_original", rising=True)
    assert [check["holds"] for check in checks] == [False, False]
    assert checks[0]["text"] == "psnr_original: original 30.00 < amo 29.00"
    assert all(check["holds"] for check in order_checks(study(), ["original", "amo", "lora"], "nano", rising=True))


def test_shares_sum_to_one():
    assert shares({"original": 2, "01": 6}) == {"original": 0.25, "01": 0.75} and shares({}) == {}


# ---------------------------------------------------------------- LoRA against full tuning


def test_equal_q_interpolates_where_each_curve_first_gets_there():
    comparison = study()["reward_comparison"]
    (meeting,) = comparison["equal_q"]
    assert meeting["lora"] == {"step": 80, "nano": 50, "niqe": 5, "grid": pytest.approx(0.2)}
    assert meeting["full"] == {"step": 40, "nano": 50, "niqe": 6, "grid": pytest.approx(0.3)}
    (difference,) = comparison["over_range"]
    assert difference["niqe"] == pytest.approx(np.mean([-(k / 20) for k in range(1, 21)]))


def test_lora_wins_at_equal_q_and_the_words_say_so():
    words = " ".join(describe_tuning(study()))
    assert "LoRA is better on all 2 columns" in words and "does not win" not in words and "one seed" in words


def test_lora_loses_at_equal_q_and_the_words_say_so():
    cleaner = curve((0, 40, 5, 0.1), (40, 50, 4.5, 0.1), (80, 60, 7, 0.5))
    words = " ".join(describe_tuning(study(full=cleaner)))
    assert "At equal steps (80)" in words and "LoRA is better on niqe ↓ 5.00 against 7.00" in words
    assert "full tuning is better on niqe ↓ 5.00 against 4.50" in words and "LoRA does not win" in words


def test_runs_that_never_gain_are_not_compared_at_equal_q():
    falling = curve((0, 40, 5, 0.1), (80, 39, 5, 0.1))
    results = study(lora=falling)
    assert results["reward_comparison"]["equal_q"] == []
    assert "cannot be compared" in " ".join(describe_tuning(results))


def test_seeds_that_disagree_are_undecided():
    results = study()
    worse = curve((0, 40, 5, 0.1), (40, 50, 4, 0.3), (80, 60, 7, 0.5))
    a, b = results["variants"]["lora"], results["variants"]["full"]
    a["runs"].append({**a["runs"][0], "seed": 1})
    b["runs"].append({**b["runs"][0], "seed": 1, "curve": worse})
    results["reward_comparison"] = compare_tuning(results, "lora", "full")
    words = " ".join(describe_tuning(results))
    assert "the seeds disagree on niqe" in words and "LoRA is better on grid" in words


def test_curves_are_needed_and_seeds_must_match():
    results = study()
    with pytest.raises(UserError, match="without their curves"):
        compare_tuning(results, "original", "amo")
    results["variants"]["full"]["runs"][0]["seed"] = 7
    with pytest.raises(UserError, match=r"lora has the seeds \[0\], full has \[7\]"):
        compare_tuning(results, "lora", "full")


# ---------------------------------------------------------------- pictures, words, page


def test_the_cut_is_where_the_outputs_differ():
    a = picture(200, 0)
    b = a.copy()
    b[120:160, 30:70] = 255 - b[120:160, 30:70]
    y, x, strength = busiest_place([a, b], side=40)
    assert abs(y - 120) <= 6 and abs(x - 30) <= 6 and strength > 0
    assert busiest_place([a], side=40) == (80, 80, 0.0)
    assert busiest_place([a, b], side=300)[:2] == (0, 0)


def test_summary_and_markdown_tell_failures():
    results = study(checks=[{"text": "amo chooses", "holds": False}, {"text": "fine", "holds": True}])
    text = " ".join(describe(results))
    assert "nano ↑ runs from 40.00 (original) to 50.00" in text and "1 of 2 expectations" in text
    table = markdown(results)
    assert "| Gold Standard |  |  | 55.00 |" in table and "**25.00**" in table and "- FAILS: amo chooses" in table
    assert "| amo | 25 % | 75 % |" in table and "| psnr ↑ |" not in table.split("## Columns")[1]


class Page(HTMLParser):
    """Collects what a browser would fetch, ids, and the text."""

    def __init__(self, html):
        super().__init__()
        self.links, self.ids, self.tags, self.words = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_stands_alone_and_escapes(tmp_path):
    results = study(checks=[{"text": "<script>alert(1)</script>", "holds": True}])
    results["variants"]["<b>&x"] = results["variants"].pop("amo")
    written = write_report(results, pictures(), tmp_path, title="A & B")
    html = written.report.read_text()
    page = Page(html)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"url\((?!#)|@import", html)
    assert len(page.ids) == len(set(page.ids))
    assert "<script>alert" not in html and "<b>&x" not in html and "<script>alert(1)</script>" in "".join(page.words)
    assert page.tags.count("svg") == 3 + 1 + 3 + 2 + 3 + 2 and page.tags.count("button") == 2 * (3 + 3) + 2 + 3 + 1 + 6
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    for word in (
        "A &amp; B",
        "Gold Standard",
        "Positive, nano 55.0",
        "nano 39.5, PSNR 29.5",
        "75 %",
        "LoRA is better on",
        "torch",
        "nano v1",
    ):
        assert word in html, word


def test_pictures_are_ordered_by_gain_over_the_baseline_in_q():
    results = study()
    results["variants"]["lora"]["metrics"]["nano"]["per_image"] = {"a-0-0": 39.0, "b-0-0": 60.0}
    results["statistics"] = {"baseline": "original", "photos": 2}
    assert focus(results) == ("lora", "original")  # not "full", the warning example
    assert extremes(results, list(IMAGES)) == [
        ("b-0-0", "nano +19.50: lora against original"),
        ("a-0-0", "nano -0.50: lora against original"),
    ]


def test_only_so_many_whole_pictures_as_the_page_has_room_for(monkeypatch):
    shown = comparisons(study(), pictures())
    assert [set(c.wholes) for c in shown] == [{"LQ", "GT original", "GT 01", "original", "amo", "lora", "full"}] * 2
    monkeypatch.setattr("sr_iqa.study.pictures.WHOLE_BYTES", sum(map(len, shown[0].wholes.values())) + 100)
    assert [bool(c.wholes) for c in comparisons(study(), pictures())] == [True, False]


def test_a_grid_is_a_set_of_dots_in_the_spectrum_and_noise_is_not():
    plain = picture(128, 1)
    mosaic = (plain + 2 * (np.indices((128, 128)).sum(0) % 4 == 0)[..., None]).clip(0, 255).astype(np.uint8)
    grainy = (plain + np.random.default_rng(0).normal(0, 2, plain.shape)).clip(0, 255).astype(np.uint8)
    dots, cloud = (spectrum([(changed, plain)])[..., 0] for changed in (mosaic, grainy))
    assert dots[96, 96] > 150 and dots[96, 96] > 4 * np.median(dots).clip(1)
    assert np.percentile(cloud, 99.9) < 3 * np.median(cloud)


def test_rewards_that_start_from_a_variant_get_a_noise_panel(tmp_path):
    results = study()
    results["variants"]["lora"] |= {"starts_from": "amo", "options": {"train": {"reward_opt": [{"metric": "nano"}]}}}
    (panel,) = noise_panels(results, pictures())
    assert (panel.variant, panel.start) == ("lora", "amo")
    assert "lora minus amo" in write_report(results, pictures(), tmp_path).report.read_text()


def test_what_rewards_added_takes_its_room_from_the_whole_pictures(monkeypatch):
    results = study()
    results["variants"]["lora"] |= {"starts_from": "amo", "options": {"train": {"reward_opt": [{"metric": "nano"}]}}}
    (panel,) = noise_panels(results, pictures())
    taken = []
    monkeypatch.setattr(report, "comparisons", lambda results, images, used: taken.append(used) or comparisons(results, images, used))
    report.render(results, pictures(), "room")
    assert taken == [panel.bytes] and panel.bytes > len(panel.difference)


def test_options_that_differ_from_the_baseline_are_listed():
    results = study()
    results["variants"]["original"]["options"] = {"name": "original", "train": {"total_iter": 10}}
    results["variants"]["amo"]["options"] = {"name": "amo", "train": {"total_iter": 20, "ema_decay": 0.9}}
    found = option_differences(results)
    assert found["amo"] == [("train.total_iter", "10", "20"), ("train.ema_decay", "–", "0.9")] and found["original"] == []


def test_strips_show_every_image_of_every_variant_but_the_baseline():
    svg = strips(study(), "niqe", "original").inline()
    assert svg.count("<use") >= 3 * len(IMAGES) and "original" in svg and "difference from original" in svg


def test_the_pareto_front_by_hand():
    results = study()
    means = {"original": (30.0, 40.0), "amo": (29.0, 45.0), "lora": (28.0, 44.0), "full": (25.0, 60.0)}
    for name, (psnr, nano) in means.items():
        results["variants"][name]["metrics"]["psnr_original"]["mean"] = psnr
        results["variants"][name]["metrics"]["nano"]["mean"] = nano
    assert pareto_front(results, "psnr_original", "nano") == ["full", "amo", "original"]
    results["variants"]["lora"]["metrics"]["niqe"]["mean"] = 1.0
    assert "lora" in pareto_front(results, "nano", "niqe")


def test_what_annotators_said_of_the_chosen_gts_stands_beside_a_blind_choice():
    results = study()
    for name, counts in (("original", {"original": 8}), ("amo", {"original": 2, "Positive": 5, "Negative": 1})):
        results["variants"][name] = merge_seeds([variant(psnr=1.0, nano=2.0, niqe=3.0, grid=0.1, standings=counts)] * 2)
    results["data"]["standings"] = {"original": 10, "Positive": 10, "Similar": 15, "Negative": 5}
    rows = standing_rows(results)
    assert list(rows) == ["all GTs", "original", "amo"] and rows["all GTs"]["Positive"] == 0.25
    assert rows["amo"] == {"original": 0.25, "Positive": 0.625, "Negative": 0.125}
    assert "| amo | 25 % | 62 % | 0 % | 12 % |" in markdown(results)
    assert standing_rows({**results, "variants": {"a": variant(nano=1.0, standings={"original": 4})}}) == {}


def test_published_rows_are_shown_and_never_ranked():
    results = study(reference={"paper, <AMO>": {"nano": 99.0, "psnr": 24.25, "qalign": 3.8}})
    row = table_rows(results)[-1]
    assert row.name == "paper, <AMO>" and row.kind == "published"
    assert [cell.text for cell in row.cells] == ["24.25", "–", "99.00", "–", "–"] and not any(cell.best for cell in row.cells)
    assert best_variants(results, "nano") == {"lora", "full"}
    assert "| paper, <AMO> | 24.25 |" in markdown(results)
    lines = latex(results).splitlines()
    assert lines[-3].startswith("paper, <AMO> & 24.25") and lines[-4] == r"\midrule" and lines.count(r"\midrule") == 3


def test_plots_are_files_too(tmp_path):
    draw(study()).save(tmp_path)
    names = {path.stem for path in tmp_path.iterdir()}
    assert {"plane-psnr_original-nano", "strip-nano", "training-nano", "curve-nano-step", "curve-niqe-nano"} <= names
    assert all((tmp_path / f"{name}.{kind}").stat().st_size > 1000 for name in names for kind in ("svg", "pdf"))
    svg = (tmp_path / "plane-psnr_original-nano.svg").read_text()
    assert "currentColor" not in svg and "var(--" not in svg and "Gold Standard" in svg
    assert (tmp_path / "strip-nano.pdf").read_bytes().startswith(b"%PDF")


def test_results_json_is_strict_and_complete(tmp_path):
    results = study()
    results["variants"]["amo"]["metrics"]["niqe"]["mean"] = float("nan")
    written = write_report(results, {}, tmp_path)
    loaded = json.loads(written.results.read_text(), parse_constant=pytest.fail)
    assert loaded["variants"]["amo"]["metrics"]["niqe"]["mean"] is None
    assert loaded["variants"]["lora"]["metrics"]["nano"] == results["variants"]["lora"]["metrics"]["nano"]
    assert "Pictures" not in written.report.read_text()


def test_a_study_without_reward_choices_or_gold_is_reported_too(tmp_path):
    results = {**study(), "reward_comparison": None, "gold_standard": {}}
    for entry in results["variants"].values():
        entry["chosen"] = entry["standings"] = {}
    html = write_report(results, {}, tmp_path).report.read_text()
    assert "Chosen GTs" not in html and "LoRA" not in html and "<svg" in html


def test_no_variants_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nothing to report"):
        write_report({**study(), "variants": {}}, {}, tmp_path)

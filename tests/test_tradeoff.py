"""The dial: an adapter at several scales and networks between two others, evaluated once each, as files, and in a study."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sr_iqa.cli import app
from sr_iqa.config import OptionsError, options_to_yaml
from sr_iqa.errors import UsageError, UserError
from sr_iqa.evaluation import evaluate
from sr_iqa.interpolation import InterpolationError
from sr_iqa.study import dial_runs, tradeoff
from sr_iqa.study.dials import as_variants, compare_dials, describe_dials, dials
from sr_iqa.study.scales import AdapterDial, checked_scales, parse_scales
from sr_iqa.study.single import run_test
from sr_iqa.study.study import Study
from sr_iqa.study.study_file import load_study
from sr_iqa.study.tradeoff import Request, measure, parse_against, run_tradeoff
from sr_iqa.training.build import starting_network
from sr_iqa.training.checkpoint import load_trained
from tests.test_report import column, variant
from tests.test_report import study as results_of_a_study
from tests.test_study import STUDY, changed, run, study_file  # noqa: F401 (a fixture)
from tests.tiny_runs import run as train
from tests.tiny_runs import tiny, validation

CLI = CliRunner()
REWARD = {"train": {"total_iter": 2, "reward_opt": {"metric": "nano", "weight": 0.1}, "optim_g": {"type": "Adam", "lr": 0.02}}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a base of two steps, a LoRA run and a full run that start from it, and the LoRA run's options."""
    root = tmp_path_factory.mktemp("tradeoff")
    base = train(root, "base", {"train": {"total_iter": 2}})
    start = {"path": {"pretrain_network_g": str(base / "models" / "net_g_2.safetensors")}}
    held_out = validation(root, metrics=["psnr", "nano"], val_freq=100)
    train(root, "full", held_out, start, REWARD)
    lora = ({"lora": {"rank": 2}}, held_out, start, REWARD)
    train(root, "lora", *lora)
    return root, tiny(root, "lora", *lora)


@pytest.fixture
def options(trained, tmp_path):
    """The LoRA run's options, in a copy of its folder that a test may change."""
    root, opt = trained
    shutil.copytree(root / "runs", tmp_path / "runs")
    return opt.model_copy(update={"path": opt.path.model_copy(update={"experiments_root": tmp_path / "runs"})})


@pytest.fixture
def counted(monkeypatch):
    """Counts evaluations; a number in `fails_at` makes that one fail as a kill would."""
    calls = {"n": 0, "fails_at": None}

    def counting(*arguments, **named):
        if calls["fails_at"] == calls["n"]:
            raise KeyboardInterrupt
        calls["n"] += 1
        return evaluate(*arguments, **named)

    monkeypatch.setattr(tradeoff, "evaluate", counting)
    return calls


def read(written):
    return json.loads(written.results.read_text())


def measured(options, **arguments):
    """The results of a curve, without its files."""
    return measure(Request(options, **arguments))[0]


def values(rows):
    """scale -> column -> per image."""
    return {row["scale"]: {c: v["per_image"] for c, v in row["metrics"].items()} for row in rows}


# ---------------------------------------------------------------- numbers


def test_scale_0_is_the_base_and_scale_1_the_run_itself_exactly(options, tmp_path):
    found = measured(options, scales=(0.0, 0.5, 1.0), out=tmp_path / "out")
    own = run_test(options).to_dict()["metrics"]
    val = options.val
    base = evaluate(starting_network(options).eval(), options.datasets.val, val.metrics, options.scale, val.crop_border).to_dict()[
        "metrics"
    ]
    rows = values(found["variants"]["lora"]["scales"])
    assert rows[1.0] == {c: v["per_image"] for c, v in own.items()}
    assert rows[0.0] == {c: v["per_image"] for c, v in base.items()}
    assert rows[0.5]["nano"] != rows[0.0]["nano"] != rows[1.0]["nano"]
    assert found["optimised_metric"] == "nano" and found["statistics"]["photos"] == 4


def test_the_scale_is_put_back_whatever_happens(trained):
    _, options = trained
    net = load_trained(options.path.experiments_root / "lora")
    loads = []
    dial = AdapterDial(lambda: loads.append(net) or net)
    lora = next(module for module in net.modules() if "lora_A" in module._modules)
    before = lora.scaling["default"]
    with dial.at(0.25) as turned:
        assert turned is net and lora.scaling["default"] == pytest.approx(before / 4)
    with pytest.raises(KeyError), dial.at(0.5):
        raise KeyError
    assert lora.scaling["default"] == before and len(loads) == 1


def test_the_ends_of_the_interpolation_are_the_two_networks(options, tmp_path):
    runs = options.path.experiments_root
    ends = (runs / "base" / "models" / "net_g_2.safetensors", runs / "full")
    found = measured(options, scales=(0.0, 0.5, 1.0), dni=ends, against={"other": runs / "full"}, out=tmp_path / "out")
    rows, lora = values(found["dni"]["scales"]), values(found["variants"]["lora"]["scales"])
    assert found["dni"]["between"] == ["base", "full"]
    assert rows[0.0] == lora[0.0]
    assert rows[1.0] == {c: v["per_image"] for c, v in found["variants"]["other"]["metrics"].items()}
    assert rows[0.5]["nano"] not in (rows[0.0]["nano"], rows[1.0]["nano"])


def test_between_the_base_and_the_merged_adapter_lies_the_adapters_own_curve(options, tmp_path):
    """An adapter's change is linear in the weights, so DNI between its ends is the dial itself, up to rounding."""
    runs = options.path.experiments_root
    found = measured(options, scales=(0.0, 0.5, 1.0), dni=(runs / "base", runs / "lora"), out=tmp_path / "out")
    for dial, dni in zip(found["variants"]["lora"]["scales"], found["dni"]["scales"], strict=True):
        assert dni["metrics"]["psnr"]["mean"] == pytest.approx(dial["metrics"]["psnr"]["mean"], abs=0.02)


def test_base_and_adapter_can_be_named(options, tmp_path):
    runs = options.path.experiments_root
    base, adapter = runs / "base" / "models" / "net_g_2.safetensors", runs / "lora" / "models" / "adapter_2"
    plain = options.model_copy(update={"lora": None, "name": "plain"})
    named = measured(plain, scales=(0.0, 1.0), base=base, adapter=adapter, out=tmp_path / "a")
    own = measured(options, scales=(0.0, 1.0), out=tmp_path / "b")
    assert values(named["variants"]["plain"]["scales"]) == values(own["variants"]["lora"]["scales"])


# ---------------------------------------------------------------- once


def test_nothing_is_evaluated_twice_and_a_kill_between_scales_costs_one(options, tmp_path, counted):
    counted["fails_at"] = 2
    with pytest.raises(KeyboardInterrupt):
        measured(options, out=tmp_path / "out")
    assert counted["n"] == 2 and not (tmp_path / "out" / "tradeoff.json").exists()
    counted["fails_at"] = None
    first = measured(options, out=tmp_path / "out")
    assert counted["n"] == 5
    again = measured(options, scales=(0.0, 0.25, 0.6, 1.0), out=tmp_path / "out")
    assert counted["n"] == 6
    old, new = (values(found["variants"]["lora"]["scales"]) for found in (first, again))
    assert all(old[scale] == new[scale] for scale in (0.0, 0.25, 1.0))


def test_what_is_known_needs_no_network(options, tmp_path, monkeypatch):
    measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    monkeypatch.setattr(tradeoff, "load_trained", lambda *_: pytest.fail("loaded again"))
    measured(options, scales=(0.0, 1.0), out=tmp_path / "out")


def test_a_changed_adapter_other_metrics_and_lost_pictures_are_evaluated_anew(options, tmp_path, counted):
    before = measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    folder = options.path.experiments_root / "lora" / "models" / "adapter_2"
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1}))
    after = measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    assert counted["n"] == 4
    a, b = (values(found["variants"]["lora"]["scales"]) for found in (before, after))
    assert a[0.0] == b[0.0] and a[1.0] != b[1.0]
    more = options.model_copy(update={"val": options.val.model_copy(update={"metrics": ("psnr",)})})
    assert "nano" in measured(more, scales=(0.0, 1.0), out=tmp_path / "out")["variants"]["lora"]["metrics"]
    assert counted["n"] == 4, "Q is always among the metrics"
    shutil.rmtree(tmp_path / "out" / "outputs" / "adapter" / "0")
    measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    assert counted["n"] == 5


@pytest.mark.slow
def test_kill_9_between_scales_and_rerun(options, tmp_path):
    (tmp_path / "lora.yml").write_text(options_to_yaml(options))
    command = [sys.executable, "-m", "sr_iqa", "tradeoff", "-opt", str(tmp_path / "lora.yml"), "--out", str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not (tmp_path / "killed" / "values" / "adapter" / "0.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert subprocess.run(command, capture_output=True).returncode == 0
    found = json.loads((tmp_path / "killed" / "tradeoff.json").read_text())
    whole = measured(options, out=tmp_path / "whole")
    assert values(found["variants"]["lora"]["scales"]) == values(whole["variants"]["lora"]["scales"])


# ---------------------------------------------------------------- files and page


def test_the_command_writes_every_file_and_prints_the_table(options, tmp_path, caplog):
    opt = tmp_path / "lora.yml"
    opt.write_text(options_to_yaml(options))
    full = options.path.experiments_root / "full"
    arguments = [
        "tradeoff",
        "-opt",
        str(opt),
        "--scales",
        "0,0.5,1,1.5",
        "--against",
        f"<b>full={full}",
        "--out",
        str(tmp_path / "out"),
    ]
    done = CLI.invoke(app, [*arguments, "--set", "val.max_images=2"])
    assert done.exit_code == 0, done.output
    assert "| lora, s = 0.5 |" in done.output and "at 1.5: beyond 1 nothing was trained" in caplog.text
    out = tmp_path / "out"
    names = {path.name for path in (out / "figures").iterdir()}
    assert {f"tradeoff-psnr_original-nano.{kind}" for kind in ("svg", "pdf", "png")} <= names and "curve-nano-grid.pdf" in names
    table = pd.read_csv(out / "tradeoff.csv")
    assert set(table.curve) == {"lora", "<b>full"} and sorted(table.scale.dropna().unique()) == [0, 0.5, 1, 1.5]
    row = table[(table.curve == "lora") & (table.scale == 0.5) & (table.column == "nano")]
    found = json.loads((out / "tradeoff.json").read_text())
    assert row.value.mean() == pytest.approx(found["variants"]["lora"]["scales"][1]["metrics"]["nano"]["mean"])
    assert "2 held-out images of 2 source photos" in done.output and "Q is only a proxy" not in done.output
    assert "nano is only a proxy" in done.output


def test_the_page_stands_alone_escapes_names_and_holds_every_scale(options, tmp_path):
    name = "</script><script>alert(1)</script>"[:30].replace("/", "")
    full = options.path.experiments_root / "full"
    written = run_tradeoff(Request(options, scales=(0.0, 0.5, 1.0), against={name: full}, out=tmp_path / "out"))
    page = written.report.read_text()
    assert name not in page and not re.search(r"(src|href)=\"(https?:)?//", page)
    data = json.loads(re.search(r'id="dial-data">(.*?)</script>', page, re.S)[1])
    assert data["q"] == "nano" and [curve["name"] for curve in data["curves"]] == ["lora"]
    assert [point["scale"] for point in data["curves"][0]["points"]] == [0, 0.5, 1]
    assert len(data["sets"]) == 4
    found = read(written)
    for entry in data["sets"]:
        assert len(entry["outputs"]["lora"]) == 3 and all(url.startswith("data:image/webp") for url in entry["pool"])
        assert {"LQ (bicubic)"} | {key for key in entry["references"] if key.startswith("GT original")} <= entry["references"].keys()
        own = found["variants"]["lora"]["scales"][1]["metrics"]["nano"]["per_image"][entry["image"]]
        assert entry["values"]["lora"][1]["nano"] == pytest.approx(own, abs=1e-4)
    for words in ("4 held-out images of 4 source photos", "no difference can be called significant", "nothing is blended between stops"):
        assert words in page
    assert 'type="range" id="dial-scale"' in page and "Expectations" not in page


# ---------------------------------------------------------------- words


def dial_results(psnr, nano, other=None):
    """Results of a study whose variant `lora` has the given means at scales 0, 0.5, 1; `other` are means of a variant."""
    results = results_of_a_study()
    results["variants"] = {name: v for name, v in results["variants"].items() if name == "lora"}
    rows = [
        {"scale": s, "metrics": {"psnr_original": column("psnr_original", p), "nano": column("nano", q)}}
        for s, p, q in zip((0.0, 0.5, 1.0), psnr, nano, strict=True)
    ]
    results["variants"]["lora"]["scales"] = rows
    if other:
        results["variants"]["other"] = variant(**other)
    compare_dials(results)
    return results


def test_curves_meet_variants_at_equal_q_on_the_line_between_scales():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 28.5, "nano": 46.0})
    (meeting,) = results["dial_comparison"]
    assert meeting["dial_at"]["scale"] == pytest.approx(0.75) and meeting["dial_at"]["psnr_original"] == pytest.approx(28.0)
    said = " ".join(describe_dials(results))
    assert "At equal nano (46.00; lora at scale 0.75): other is better on psnr_original ↑ 28.00 against 28.50." in said


def test_a_variant_out_of_reach_is_said_and_not_compared():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 20.0, "nano": 90.0})
    assert results["dial_comparison"] == []
    assert "cannot be compared with other" in " ".join(describe_dials(results))


def test_a_dial_that_makes_q_worse_is_said_whoever_wins():
    said = " ".join(describe_dials(dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 43.0))))
    assert "lora: nano becomes worse from s = 0.5 to 1." in said and "from s = 0 to s = 1 nano ↑ from 40.00 to 43.00" in said
    assert "becomes worse" not in " ".join(describe_dials(dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 45.0))))


def test_points_of_curves_are_rows_beside_the_variants_without_one():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 28.5, "nano": 46.0})
    assert list(as_variants(results, dials(results))["variants"]) == ["lora, s = 0", "lora, s = 0.5", "lora, s = 1", "other"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("text", ["0,half,1", "", "0,-0.5", "nan", "inf", ",".join(map(str, np.linspace(0, 1, 99)))])
def test_scales_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="--scales"):
        parse_scales(text)


def test_scales_are_sorted_and_have_both_ends():
    assert parse_scales("0.5, 2,0.5") == checked_scales([2, 0.5]) == (0.0, 0.5, 1.0, 2.0)


def test_what_cannot_be_drawn_is_explained_before_anything_is_evaluated(options, tmp_path, counted):
    runs, no_lora = options.path.experiments_root, options.model_copy(update={"lora": None})
    adapter = runs / "lora" / "models" / "adapter_2"
    no_data = options.model_copy(update={"datasets": options.datasets.model_copy(update={"val": None})})
    cases = [
        (no_lora, {}, "no `lora` block"),
        (no_data, {}, "datasets.val is missing"),
        (options.model_copy(update={"name": "nowhere"}), {}, "no network weights there"),
        (options, {"adapter": adapter}, "--model .* and --adapter .* together"),
        (options, {"dni": (runs / "base", runs / "ful")}, "ful: no such weight file"),
        (options, {"against": {"lora": runs / "full"}}, "name of the run itself"),
        (options, {"against": {"a/b": runs / "full"}}, "--against a/b"),
    ]
    for opt, arguments, message in cases:
        with pytest.raises(UserError, match=message):
            measured(opt, out=tmp_path / "out", **arguments)
    assert counted["n"] == 0
    with pytest.raises(UsageError, match="NAME=WEIGHTS"):
        parse_against(["full"])


def test_networks_that_differ_cannot_be_interpolated(options, tmp_path):
    other = train(tmp_path, "wide", {"network_g": {"embed_dim": 16}, "train": {"total_iter": 1}})
    with pytest.raises(InterpolationError, match="not of the same network"):
        measured(options, dni=(options.path.experiments_root / "base", other), out=tmp_path / "out")


def test_an_adapter_of_another_base_is_refused(options, tmp_path):
    runs = options.path.experiments_root
    with pytest.raises(UserError, match="trained on other base weights"):
        measured(options, base=runs / "full", adapter=runs / "lora" / "models" / "adapter_2", out=tmp_path / "out")


# ---------------------------------------------------------------- in a study


FULL = {"starts_from": "amo", "train.reward_opt": {"metric": "nano", "weight": 0.01}}


def test_a_study_with_scales_and_dni_reports_curves_under_their_variants(study_file, monkeypatch):  # noqa: F811
    variants = {name: STUDY["variants"][name] for name in ("amo", "amo_reward")} | {"full": FULL}
    dialled = changed(study_file, seeds=[0, 5], adapter_scales=[0.5], dni=["amo", "full"], variants=variants)
    results, said, written = run(dialled)
    rows = results["variants"]["amo_reward"]["scales"]
    assert [row["scale"] for row in rows] == [0, 0.5, 1] and [r["seed"] for r in rows[1]["runs"]] == [0, 5]
    for column_ in ("nano", "psnr"):
        a, b = (results["variants"][name]["metrics"][column_] for name in ("amo_reward", "amo"))
        assert rows[2]["metrics"][column_]["per_image"] == a["per_image"]
        assert rows[0]["metrics"][column_]["per_image"] == b["per_image"], "scale 0 is the variant that it started from"
    assert results["dni"]["between"] == ["amo", "full"]
    ends = [row["metrics"]["nano"]["per_image"] for row in results["dni"]["scales"]]
    assert ends[0] == results["variants"]["amo"]["metrics"]["nano"]["per_image"]
    assert ends[-1] == results["variants"]["full"]["metrics"]["nano"]["per_image"]
    assert "scales" not in results["variants"]["full"] and "interval" in rows[1]["metrics"]["nano"]
    page = written.report.read_text()
    assert 'id="dial-view"' in page and "amo_reward, s = 0.5" in page and "amo → full" in page
    assert "## Adapters at several scales" in written.table.read_text()
    assert set(pd.read_csv(written.results.parent / "scales.csv").curve) == {"amo_reward", "amo → full", "amo", "full"}
    monkeypatch.setattr(Study, "judged", None)
    again, _, _ = run(dialled)
    assert again["variants"]["amo_reward"]["scales"] == rows


def test_a_study_without_scales_has_no_curve_and_its_planes_are_as_ever(study_file):  # noqa: F811
    results, _, written = run(study_file, only=["original"])
    assert "scales" not in results["variants"]["original"] and "dni" not in results
    assert 'id="dial-view"' not in written.report.read_text() and not (written.results.parent / "scales.csv").exists()


def test_one_variants_scales_are_its_own(study_file):  # noqa: F811
    variants = {**STUDY["variants"], "amo_reward": {**STUDY["variants"]["amo_reward"], "adapter_scales": [0.1]}}
    study = load_study(changed(study_file, variants=variants, adapter_scales=[0.5]))
    assert dial_runs.scales_of(study, "amo_reward") == (0, 0.1, 1) and dial_runs.scales_of(study, "amo") == ()
    assert (
        study.variants["amo_reward"].overrides
        == load_study(changed(study_file, variants=STUDY["variants"])).variants["amo_reward"].overrides
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter_scales": [0, "half"]}, r"study\.yml:\d+: adapter_scales\.1: "),
        ({"adapter_scales": []}, r"study\.yml:\d+: adapter_scales: "),
        ({"adapter_scales": [-1]}, r"study\.yml:\d+: adapter_scales: expected scales of 0 .* got -1"),
        ({"adapter_scales": 0.5}, r"study\.yml:\d+: adapter_scales: "),
        ({"variants": {"a": {"adapter_scales": [0.5, True]}}}, r"study\.yml:\d+: variants\.a\.adapter_scales"),
        ({"variants": {"a": {"starts_from": 3}}}, r"study\.yml:\d+: variants\.a\.starts_from"),
        ({"dni": ["amo"]}, r"study\.yml:\d+: dni"),
        ({"dni": ["amo", "ful"]}, "dni: there is no variant ful"),
        ({"dni": ["amo", "amo"]}, "dni: expected two different variants"),
    ],
)
def test_mistakes_in_a_study_file_are_explained(study_file, change, message):  # noqa: F811
    with pytest.raises(OptionsError, match=message):
        load_study(changed(study_file, **change))


def test_scales_of_what_has_no_adapter_are_refused_before_training(study_file):  # noqa: F811
    variants = {"original": {"adapter_scales": [0.5]}, "wide": {"network_g.embed_dim": 16}}
    with pytest.raises(OptionsError) as refused:
        run(changed(study_file, variants=variants, dni=["original", "wide"]))
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["variants.original.adapter_scales", "dni"]
    with pytest.raises(OptionsError, match="no variant has `lora`"):
        run(changed(study_file, variants={"original": {}}, adapter_scales=[0.5], dni=None))


def test_the_study_file_in_the_docs_can_be_read(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "tradeoff.md").read_text()
    (tmp_path / "study.yml").write_text(text.split("```yaml\n")[1].split("```")[0])
    study = load_study(tmp_path / "study.yml")
    assert study.adapter_scales == (0, 0.25, 0.5, 0.75, 1) and study.dni == ("amo", "amo_reward_nolora")

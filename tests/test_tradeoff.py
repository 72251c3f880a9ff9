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
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from sr_iqa import evaluation
from sr_iqa.adapters import convert_adapter
from sr_iqa.cli import app
from sr_iqa.config import OptionsError, options_to_yaml
from sr_iqa.errors import UsageError, UserError
from sr_iqa.evaluation import evaluate
from sr_iqa.images import write_png
from sr_iqa.interpolation import InterpolationError
from sr_iqa.study import dial_runs, scales, tradeoff, tradeoff_report, tradeoff_request
from sr_iqa.study.dial_figures import dial_plane
from sr_iqa.study.dial_page import dial_section, pictured_sets, scale_table
from sr_iqa.study.dial_words import describe_dials
from sr_iqa.study.dials import add_dial_statistics, add_tradeoff_statistics, as_variants, dials
from sr_iqa.study.meetings import compare_dials, evaluate_meetings
from sr_iqa.study.pictures import SetImages
from sr_iqa.study.scales import AdapterDial, checked_scales, parse_scales
from sr_iqa.study.single import run_test
from sr_iqa.study.study import Study
from sr_iqa.study.study_file import load_study
from sr_iqa.study.summary import headline
from sr_iqa.study.tradeoff import Request, measure, parse_against, run_tradeoff
from sr_iqa.study.tradeoff_report import write_tradeoff
from sr_iqa.training.build import starting_network
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.folder import RunFolder
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
    noise = rows[0.0].pop("noise_base")
    assert rows[0.0] == {c: v["per_image"] for c, v in base.items()} and set(noise.values()) == {0.0}
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
    assert rows[0.0] == {c: v for c, v in lora[0.0].items() if c != "noise_base"}  # the base has no base
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


def test_an_adapter_may_be_one_file_and_its_folder_may_hold_other_things(options, tmp_path):
    runs = options.path.experiments_root
    base, adapter = runs / "base" / "models" / "net_g_2.safetensors", runs / "lora" / "models" / "adapter_2"
    convert_adapter(adapter, tmp_path / "one.safetensors")
    (adapter / ".ipynb_checkpoints").mkdir()
    rows = [
        values(measured(options, scales=(0.0, 1.0), base=base, adapter=given, out=tmp_path / str(k))["variants"]["lora"]["scales"])
        for k, given in enumerate((adapter, tmp_path / "one.safetensors"))
    ]
    assert rows[0] == rows[1]


def test_the_seed_is_the_runs_and_networks_of_other_seeds_are_compared(options, tmp_path):
    other = train(tmp_path, "seed5", {"train": {"total_iter": 1}, "manual_seed": 5})
    written = run_tradeoff(Request(options, scales=(0.0, 1.0), against={"other": other}, out=tmp_path / "out"))
    found = read(written)
    assert (
        found["variants"]["lora"]["seed"] == found["variants"]["lora"]["scales"][0]["seed"] == 3 and found["variants"]["other"]["seed"] == 5
    )
    assert "against_baseline" in found["variants"]["other"]["metrics"]["nano"]
    table = pd.read_csv(written.results.parent / "tradeoff.csv")
    assert set(table[table.curve == "lora"].seed) == {3}


# ---------------------------------------------------------------- at equal Q


def test_curves_meet_where_both_were_evaluated_and_not_on_the_line_between(options, tmp_path, counted):
    runs = options.path.experiments_root
    ends = (runs / "base", runs / "full")
    said = []
    arguments = {"scales": (0.0, 1.0), "dni": ends, "out": tmp_path / "out"}
    found = measure(Request(options, **arguments), said.append)[0]
    (meeting,) = found["dial_comparison"]
    sought = [row for dial in dials(found) for row in dial.rows if row.get("sought")]
    assert 1 <= len(sought) <= 3 and counted["n"] == 4 + len(sought) == len(said)
    assert meeting["equal"] and meeting["q"][0] == pytest.approx(meeting["q"][1], abs=0.01)
    turned = next(dial for dial in dials(found) if any(row.get("sought") for row in dial.rows))
    scale = meeting["scale"] if turned.kind == "adapter" else meeting["other_scale"]
    assert scale in [row["scale"] for row in sought]
    fresh = measured(options, scales=(0.0, scale, 1.0), dni=ends, out=tmp_path / "fresh")
    row = next(row for row in next(dial for dial in dials(fresh) if dial.kind == turned.kind).rows if row["scale"] == scale)
    assert row["metrics"]["psnr"]["mean"] in meeting["columns"]["psnr"]["values"]
    before = counted["n"]
    measured(options, **arguments)
    assert counted["n"] == before, "what was looked for is kept as every scale is"


def test_the_search_measures_a_bent_curve_within_a_few_evaluations():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0))
    results["variants"]["other"] = variant(psnr_original=28.5, nano=42.0)
    measured_at = []

    def turn(scale):
        measured_at.append(scale)
        return point(scale, 30 - 3 * scale**2, 40 + 8 * scale**0.6)

    results["variants"]["lora"]["scales"] = [point(0.0, 30.0, 40.0), point(1.0, 27.0, 48.0)]
    evaluate_meetings(results, {"lora": turn})
    compare_dials(results)
    (meeting,) = results["dial_comparison"]
    rows = results["variants"]["lora"]["scales"]
    assert len(measured_at) <= 3 and [row["scale"] for row in rows] == sorted([0, *measured_at, 1])
    assert meeting["scale"] == measured_at[-1] and meeting["q"][0] == pytest.approx(42, abs=0.16) and meeting["equal"]
    assert meeting["columns"]["psnr_original"]["values"][0] == 30 - 3 * meeting["scale"] ** 2


def test_without_a_measurement_nothing_is_called_equal_and_nobody_wins():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 28.5, "nano": 46.0}, photos=8)
    (meeting,) = results["dial_comparison"]
    assert not meeting["equal"] and meeting["scale"] in (0.5, 1)
    said = " ".join(describe_dials(results))
    assert (
        "At the nearest measured nano (44.00 and 46.00), lora at s = 0.5 against other: higher on psnr_original ↑ 29.00 against 28.50."
        in said
    )


@pytest.mark.parametrize(("photos", "clear"), [(8, True), (2, False)])
def test_winners_are_named_where_there_are_photos_enough_and_the_interval_excludes_0(photos, clear):
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 29.5, "nano": 44.0}, photos=photos)
    said = " ".join(describe_dials(results))
    both = "At equal nano (44.00 and 44.00), lora at s = 0.5 against other: "
    assert both + ("worse on" if clear else "lower on") + " psnr_original ↑ 29.00 against 29.50." in said
    assert ("better or worse is said only where" in said) == clear
    noisy = results["variants"]["other"]["metrics"]["psnr_original"]["per_image"]
    for k, image in enumerate(noisy):
        noisy[image] += 4 * (-1) ** k
    compare_dials(results)
    assert both + ("no clear difference on" if clear else "lower on") in " ".join(describe_dials(results))


def test_the_dial_that_wins_everywhere_names_the_other_too_and_seeds_are_counted():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 28.5, "nano": 44.0}, photos=8)
    assert "lora at s = 0.5 against other: better on psnr_original" in " ".join(describe_dials(results))
    row, other = results["variants"]["lora"]["scales"][1], results["variants"]["other"]
    for entry, shifts in ((row, (0, 0, 0)), (other, (0, 0, 0.8))):
        entry["runs"] = [
            {"seed": seed, "per_image": {c: {i: x + by for i, x in v["per_image"].items()} for c, v in entry["metrics"].items()}}
            for seed, by in enumerate(shifts)
        ]
    compare_dials(results)
    assert "(in 2 of 3 seeds)" in " ".join(describe_dials(results))


def test_a_lower_better_q_meets_the_other_way_round():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0))
    results["optimised_metric"] = "niqe"
    for row, q in zip(results["variants"]["lora"]["scales"], (8.0, 7.0, 7.5), strict=True):
        row["metrics"]["niqe"] = column("niqe", q)
    results["variants"]["other"] = variant(psnr_original=28.5, niqe=7.0)
    compare_dials(results)
    assert results["dial_comparison"][0]["scale"] == 0.5
    said = " ".join(describe_dials(results))
    assert "At equal niqe (7.00 and 7.00), lora at s = 0.5 against other" in said and "niqe rises from s = 0.5 to 1" in said
    assert "a better value is no proof" in said


def test_what_is_not_finite_never_wins_and_is_not_printed(tmp_path):
    results = dial_results((30.0, np.nan, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 28.5, "nano": 44.0}, photos=8)
    assert results["dial_comparison"][0]["columns"] == {}
    results["variants"]["lora"]["scales"][-1]["metrics"]["nano"]["per_image"]["p0-0-0"] = float("nan")
    results["gold_standard"]["nano"]["mean"] = float("nan")
    images = pictured(tmp_path, results, ("lora",))
    page = write_tradeoff(results, images, tmp_path / "out", "NaN").report.read_text()
    data = json.loads(re.search(r'id="dial-data">(.*?)</script>', page, re.S)[1], parse_constant=pytest.fail)
    assert data["gold"] == {} and data["sets"][-1]["image"] == "p0-0-0" and data["sets"][-1]["gain"] == ""
    assert "+nan" not in page


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
    before = measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    monkeypatch.setattr(tradeoff_request, "load_trained", lambda *_: pytest.fail("loaded again"))
    after = measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    assert values(after["variants"]["lora"]["scales"]) == values(before["variants"]["lora"]["scales"])


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


def test_a_kill_within_a_scale_that_overwrites_leaves_nothing_that_passes_for_fresh(options, tmp_path, monkeypatch, counted):
    runs, write = options.path.experiments_root, evaluation.write_png
    arguments = {"scales": (0.0, 1.0), "out": tmp_path / "out"}
    measured(options, against={"x": runs / "full"}, **arguments)
    pictures = tmp_path / "out" / "outputs" / "against" / "x" / "1"
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    written = []

    def killed(path, image):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, image)

    monkeypatch.setattr(evaluation, "write_png", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(options, against={"x": runs / "base"}, **arguments)
    monkeypatch.setattr(evaluation, "write_png", write)
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} != before
    measured(options, against={"x": runs / "full"}, **arguments)
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == before
    n = counted["n"]
    next(pictures.iterdir()).unlink()
    run_tradeoff(Request(options, against={"x": runs / "full"}, **arguments))
    assert counted["n"] == n + 1 and {path.name: path.read_bytes() for path in pictures.iterdir()} == before


def test_another_param_key_is_another_network(options, tmp_path, counted):
    runs = options.path.experiments_root
    states = {key: load_file(runs / name / "models" / "net_g_2.safetensors") for key, name in (("params", "base"), ("params_ema", "full"))}
    torch.save(states, tmp_path / "both.pth")
    means = []
    for key in states:
        opt = options.model_copy(update={"path": options.path.model_copy(update={"param_key_g": key})})
        found = measured(opt, scales=(0.0, 1.0), against={"x": tmp_path / "both.pth"}, out=tmp_path / "out")
        means.append(found["variants"]["x"]["metrics"]["nano"]["mean"])
    assert means[0] != means[1] and counted["n"] == 6


def test_every_value_keeps_the_commit_that_computed_it(options, tmp_path, monkeypatch):
    monkeypatch.setattr(scales, "git_commit", lambda: "first")
    measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    monkeypatch.setattr(scales, "git_commit", lambda: "second")
    said = measured(options, scales=(0.0, 0.5, 1.0), out=tmp_path / "out")["provenance"]["evaluated by"]
    assert [line.split(",")[0] for line in said] == ["commit first on CPU: 2 evaluations", "commit second on CPU: 1 evaluation"]


def test_a_base_that_was_moved_can_be_named_and_costs_nothing(options, tmp_path, counted):
    runs, start = options.path.experiments_root, options.path.pretrain_network_g
    own, folder = tmp_path / "start.safetensors", RunFolder(runs / "lora")
    shutil.copy(start, own)
    folder.options.write_text(folder.options.read_text().replace(str(start), str(own)))
    measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    moved = own.rename(tmp_path / "moved.safetensors")
    with pytest.raises(UserError, match=r"start.safetensors: .* --model WEIGHTS --adapter .*adapter_2") as refused:
        measured(options, scales=(0.0, 1.0), out=tmp_path / "out")
    adapter = Path(str(refused.value).split("--adapter ")[1])
    measured(options, scales=(0.0, 1.0), base=moved, adapter=adapter, out=tmp_path / "out")
    assert counted["n"] == 2


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


def test_plots_of_an_earlier_call_go_and_those_of_others_stay(options, tmp_path):
    run_tradeoff(Request(options, scales=(0.0, 1.0), out=tmp_path / "out"))
    figures = tmp_path / "out" / "figures"
    (figures / "tradeoff-old-metric.svg").touch()
    (figures / "mine.svg").touch()
    run_tradeoff(Request(options, scales=(0.0, 1.0), out=tmp_path / "out"))
    names = {path.name for path in figures.iterdir()}
    assert "mine.svg" in names and "tradeoff-old-metric.svg" not in names and "curve-psnr_original-nano.svg" in names


def test_names_are_drawn_as_they_are(tmp_path):
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 28.5, "nano": 44.0})
    for name in ("a$^{$", "a$b$", "_full"):
        results["variants"][name] = results["variants"]["other"]
    compare_dials(results)
    drawing = dial_plane(results, "psnr_original", "nano")
    assert [text.get_text() for text in drawing.figure.axes[0].get_legend().get_texts()] == [
        "lora",
        "base",
        "other",
        "a$^{$",
        "a$b$",
        "_full",
    ]
    write_tradeoff(results, {}, tmp_path, "names")
    svg = (tmp_path / "figures" / "tradeoff-psnr_original-nano.svg").read_text()
    assert ">a$^{$<" in svg and ">a$b$<" in svg and ">_full<" in svg


def test_nothing_is_written_where_a_page_cannot_be_made(tmp_path, monkeypatch):
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0))
    monkeypatch.setattr(tradeoff_report, "dial_plane", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_tradeoff(results, {}, tmp_path / "out", "none")
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_too_large_are_cut_until_four_sets_fit(tmp_path):
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), photos=6)
    images = pictured(tmp_path, results, ("lora",), size=300)
    assert [entry["size"] for entry in pictured_sets(results, images, 10**8)] == [(300, 300)] * 6
    whole = sum(len(url) for url in pictured_sets(results, images, 10**8)[0]["pool"])
    cut = pictured_sets(results, images, int(3.6 * whole))
    assert len(cut) >= 4 and {entry["size"] for entry in cut} == {(256, 256)} and "256x256 pixels at" in cut[0]["cut"]
    section = dial_section(results, images, 1000, [])
    assert not section["pictures"] and section["too_large"]


# ---------------------------------------------------------------- words


def point(scale, psnr, nano, photos=2):
    return {
        "scale": scale,
        "seed": 0,
        "metrics": {"psnr_original": over(photos, "psnr_original", psnr), "nano": over(photos, "nano", nano)},
    }


def over(photos, name, value):
    """A column with that mean over as many photos, one image each."""
    found = column(name, value)
    per_image = {f"p{k}-0-0": value + 0.5 * (k - (photos - 1) / 2) for k in range(photos)} if photos > 2 else found["per_image"]
    return {**found, "per_image": per_image}


def pictured(folder, results, curves, size=48):
    """Sets of noise at every scale of the curves."""
    rng, images = np.random.default_rng(0), {}
    for k, name in enumerate(results["data"]["sets"]):
        files = {curve: [folder / f"{curve}{k}{i}.png" for i in range(3)] for curve in curves}
        for path in (path for paths in files.values() for path in paths):
            write_png(path, rng.integers(0, 256, (size, size, 3), np.uint8))
        images[name] = SetImages({"original": rng.integers(0, 256, (size, size, 3), np.uint8)}, {}, None, files)
    return images


def dial_results(psnr, nano, other=None, photos=2):
    """Results of a study whose variant `lora` has the given means at scales 0, 0.5, 1; `other` are means of a variant."""
    results = results_of_a_study()
    results["variants"] = {name: v for name, v in results["variants"].items() if name == "lora"}
    del results["reward_comparison"]
    rows = [point(s, p, q, photos) for s, p, q in zip((0.0, 0.5, 1.0), psnr, nano, strict=True)]
    results["variants"]["lora"] |= {"scales": rows, "metrics": rows[-1]["metrics"]}
    if photos > 2:
        results["data"]["sets"] = {image: {"source": image, "labels": {}} for image in rows[0]["metrics"]["nano"]["per_image"]}
    if other:
        results["variants"]["other"] = variant(**other)
        results["variants"]["other"]["metrics"] = {name: over(photos, name, value) for name, value in other.items()}
    add_tradeoff_statistics(results)
    compare_dials(results)
    return results


def test_a_variant_out_of_reach_is_said_and_not_compared():
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), {"psnr_original": 20.0, "nano": 90.0})
    assert results["dial_comparison"] == []
    assert "cannot be compared with other" in " ".join(describe_dials(results))


@pytest.mark.parametrize("photos", [2, 8])
def test_a_dial_that_makes_q_worse_is_said_as_far_as_it_can_be_told(photos):
    said = " ".join(describe_dials(dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 43.0), photos=photos)))
    worse, chance = "lora: nano becomes worse from s = 0.5 to 1.", "lora: nano falls from s = 0.5 to 1, which may be chance."
    assert (worse in said, chance in said) == (photos == 8, photos == 2)
    assert "from s = 0 to s = 1 nano ↑ from 40.00 to 43.00" in said and ("(nano +3.00, 95 % +3.00 to +3.00)" in said) == (photos == 8)
    rising = " ".join(describe_dials(dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 45.0), photos=photos)))
    assert "becomes worse" not in rising and "falls" not in rising


def test_each_curve_is_told_from_its_own_start_and_marked_among_its_own_scales(tmp_path):
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0), photos=8)
    results["dni"] = {
        "between": ["a", "b"],
        "scales": [point(*row, 8) for row in ((0.0, 33.0, 30.0), (0.5, 31.0, 70.0), (1.0, 28.0, 99.0))],
    }
    add_tradeoff_statistics(results)
    said = " ".join(describe_dials(results))
    assert "a → b: from α = 0 to α = 1 nano ↑ from 30.00 to 99.00, psnr_original ↑ from 33.00 to 28.00 (nano +69.00" in said
    add_dial_statistics(results)
    for dial in dials(results):
        assert [row.cells[1].best for row in scale_table(results, dial)] == [False, False, True]
    table = headline(results).split("## Adapters at several scales")[1]
    assert table.count("| **48.00** |") == table.count("| **99.00** |") == 1


def test_few_photos_have_no_intervals_and_one_image_is_one(tmp_path):
    results = dial_results((30.0, 29.0, 27.0), (40.0, 44.0, 48.0))
    written = write_tradeoff(results, {}, tmp_path, "few")
    assert "95 % intervals" not in written.table.read_text() and not re.search(
        r"<small>[\d.]+ to [\d.]+</small>", written.report.read_text()
    )
    for row in results["variants"]["lora"]["scales"]:
        row["metrics"]["nano"]["per_image"] = {"a-0-0": row["metrics"]["nano"]["mean"]}
    assert describe_dials(results)[0].startswith("1 held-out image of 1 source photo;")
    del results["variants"]["lora"]
    results["dni"] = {"between": ["a", "b"], "scales": [point(0.0, 33.0, 30.0), point(1.0, 28.0, 99.0)]}
    compare_dials(results)
    assert "adapter" not in describe_dials(results)[-1]


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
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    no_data = options.model_copy(update={"datasets": options.datasets.model_copy(update={"val": None})})
    cases = [
        (no_lora, {}, "no `lora` block"),
        (no_data, {}, "datasets.val is missing"),
        (options.model_copy(update={"name": "nowhere"}), {}, "no network weights there"),
        (options, {"adapter": adapter}, "--model .* and --adapter .* together"),
        (options, {"dni": (runs / "base", runs / "ful")}, "ful: no such weight file"),
        (options, {"against": {"lora": runs / "full"}}, "name of the run itself"),
        (options, {"against": {"x": runs}}, "runs: expected a weight file or a run's folder"),
        (options, {"against": {"x": adapter}}, "adapter_2: expected a weight file or a run's folder"),
        (options, {"dni": (runs / "base", adapter)}, "adapter_2: expected a weight file or a run's folder"),
        (options, {"against": {"x": broken}}, "broken.safetensors"),
        (options, {"base": runs / "nope.pth", "adapter": adapter}, "nope.pth: no such weight file"),
        (options, {"base": runs / "base", "adapter": runs / "nope"}, "nope: expected a weight file, a run's folder or an adapter"),
        (options, {"against": {"a/b": runs / "full"}}, "--against a/b"),
    ]
    for opt, arguments, message in cases:
        with pytest.raises(UserError, match=message):
            measured(opt, out=tmp_path / "out", **arguments)
    assert counted["n"] == 0
    with pytest.raises(UsageError, match="NAME=WEIGHTS"):
        parse_against(["full"])


def test_networks_that_differ_cannot_be_interpolated(options, tmp_path, counted):
    other = train(tmp_path, "wide", {"network_g": {"embed_dim": 16}, "train": {"total_iter": 1}})
    with pytest.raises(InterpolationError, match="not of the same network"):
        measured(options, dni=(options.path.experiments_root / "base", other), out=tmp_path / "out")
    assert counted["n"] == 0


def test_the_ends_are_called_as_their_runs_are_dots_included(options, tmp_path):
    runs = options.path.experiments_root
    shutil.copytree(runs / "full", runs / "full_lr0.1")
    ends = (runs / "full_lr0.1", runs / "base" / "models" / "net_g_2.safetensors")
    assert measured(options, scales=(0.0, 1.0), dni=ends, out=tmp_path / "out")["dni"]["between"] == ["full_lr0.1", "base"]


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
    (meeting,) = results["dial_comparison"]
    assert meeting["other"] == "amo → full" and (meeting["equal"] or any(row.get("sought") for row in results["dni"]["scales"]))
    rows = [row for row in results["variants"]["amo_reward"]["scales"] if not row.get("sought")]
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
    assert again["variants"]["amo_reward"]["scales"] == results["variants"]["amo_reward"]["scales"]


def test_a_study_notices_an_edited_adapter_other_tiles_and_scales_taken_back(study_file, monkeypatch):  # noqa: F811
    variants = {name: STUDY["variants"][name] for name in ("amo", "amo_reward")}
    dialled = changed(study_file, adapter_scales=[0], variants=variants)
    _, _, written = run(dialled)
    judged, calls = Study.judged, []
    monkeypatch.setattr(Study, "judged", lambda *given: calls.append(given) or judged(*given))
    config = next(written.results.parent.glob("runs/seed0/amo_reward/models/adapter_*")) / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 1}))
    run(dialled)
    assert len(calls) == 2, "scale 0 and scale 1"
    assert (written.results.parent / "scales.csv").exists()
    base = study_file.parent / "base.yml"
    base.write_text(base.read_text().replace("val_freq: 1", "val_freq: 1\n  tile: 16"))
    calls.clear()
    run(changed(study_file, adapter_scales=None))
    assert len(calls) == 2 and not (written.results.parent / "scales.csv").exists()


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

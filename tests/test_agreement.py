"""Agreement with people and complementarity: figures against hand-made and independent ones, the table of scores, the commands."""

import csv
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from pyiqa.metrics.correlation_coefficient import calculate_krcc, calculate_plcc, calculate_srcc
from torch import nn
from typer.testing import CliRunner

from sr_iqa.cli import app
from sr_iqa.errors import UserError
from sr_iqa.iqa.catalog import MetricInfo
from sr_iqa.iqa.metrics import Metric, metric_info
from sr_iqa.iqa.trained import build_network, save_metric
from sr_iqa.lab import correlation, score_table, scoring
from sr_iqa.lab.agreement import agreement, best_threshold, split_scenes, three_answers
from sr_iqa.lab.complementarity import complementarity
from sr_iqa.lab.correlation import correlate
from sr_iqa.lab.foreign import read_foreign
from sr_iqa.lab.judges import Request, Verdict, judge
from sr_iqa.lab.results import screening_pairs, text
from sr_iqa.lab.score_table import NAME
from sr_iqa.lab.scoring import Scored, Scorer, Unusable
from sr_iqa.lab.screening import parts
from sr_iqa.preferences.manifest import Manifest, Pair, read_manifest, write_manifest
from tests.helpers import picture, save


def quiet(_):
    """Nobody is told."""


def scored(pairs, name="m", images=None):
    return Scored(name, f"{name} (test)", "NR", False, np.array(pairs, float), images or {Path("x"): 0.0, Path("y"): 1.0})


def manifest_of(p_a, groups=None, contents=None, mos=None):
    groups, contents = groups or [""] * len(p_a), contents or [str(k) for k in range(len(p_a))]
    rows = zip(p_a, groups, contents, strict=True)
    pairs = tuple(Pair(Path(f"a{k}"), Path(f"b{k}"), p, group=group, content=content) for k, (p, group, content) in enumerate(rows))
    return Manifest(pairs, Path(), mos)


# ---------------------------------------------------------------- figures


def test_2afc_leaves_out_alike_and_halves_equal_scores():
    manifest = manifest_of([1, 0, 0.5, 0.75, 0.2], ["x", "x", "x", "y", "y"])
    entry = agreement(scored([(2, 1), (2, 1), (9, 1), (3, 3), (1, 2)]), manifest)
    assert entry.overall.value == (1 + 0 + 0.5 + 1) / 4 and entry.overall.pairs == 4
    assert {name: group.share.value for name, group in entry.groups.items()} == {"x": 0.5, "y": 0.75}
    assert entry.votes == pytest.approx((1 + 0 + 0.5 + 0.5 + 0.8) / 5) and entry.votes_limit == pytest.approx(
        (1 + 1 + 0.5 + 0.75 + 0.8) / 5
    )


def test_the_group_all_stands_for_the_whole():
    manifest = manifest_of([1, 1, 1, 0], ["All", "All", "Reg", "Reg"])
    entry = agreement(scored([(2, 1), (1, 2), (2, 1), (1, 2)]), manifest)
    assert entry.overall.value == 0.5 and entry.overall.pairs == 2
    assert list(entry.groups) == ["Reg"] and entry.groups["Reg"].share.value == 1


def test_intervals_draw_scenes():
    """Pairs of one scene say the same: the interval is as wide as with a pair for each scene."""
    wins = np.random.default_rng(0).random(60) < 0.7
    single = agreement(scored([(w, 0.5) for w in wins]), manifest_of([1] * 60)).overall
    repeated = agreement(
        scored([(w, 0.5) for w in wins for _ in range(8)]), manifest_of([1] * 480, contents=[str(k // 8) for k in range(480)])
    ).overall
    assert (repeated.interval, repeated.scenes) == (single.interval, 60)
    assert 0.1 < single.interval.high - single.interval.low < 0.35
    assert single.interval.low < single.value < single.interval.high


def test_the_threshold_is_the_best_there_is():
    rng = np.random.default_rng(1)
    for trial in range(30):
        n = int(rng.integers(1, 14))
        difference = rng.integers(-3, 4, n).astype(float) * (trial % 2 or rng.random(n))
        p_a = rng.choice([0, 0.5, 1], n)
        best = max(three_answers(difference, p_a, t).mean() for t in (0, *np.abs(difference)))
        assert three_answers(difference, p_a, best_threshold(difference, p_a)).mean() == best


def test_three_answers_are_afines_rule():
    difference, p_a = np.array([0.2, 0.05, -0.2, -0.1, 0.3]), np.array([1, 0.5, 0, 0.5, 0])
    assert three_answers(difference, p_a, 0.1).tolist() == [1, 1, 1, 1, 0]


def test_three_way_is_tested_on_other_scenes():
    rng = np.random.default_rng(2)
    p_a = rng.choice([0, 0.5, 1], 400)
    difference = 2 * (p_a - 0.5) + rng.uniform(-0.4, 0.4, 400)
    manifest = manifest_of(p_a.tolist(), contents=[str(k // 4) for k in range(400)])
    three = agreement(scored(np.stack([difference, np.zeros(400)], 1)), manifest).three_way
    assert three.share.pairs == 200 and three.share.scenes == 50 and three.share.value > 0.99 and 0.35 < three.threshold < 0.61
    train = split_scenes([pair.scene for pair in manifest.pairs], 0)
    assert not {p.content for p, t in zip(manifest.pairs, train, strict=True) if t} & {
        p.content for p, t in zip(manifest.pairs, train, strict=True) if not t
    }
    assert agreement(scored([(1, 0)] * 3), manifest_of([1, 0, 1])).three_way is None


def test_correlations_are_those_of_pyiqa():
    rng = np.random.default_rng(3)
    scores = rng.normal(50, 10, 80)
    mos = 1 + 4 / (1 + np.exp(-(scores - 50) / 4)) + rng.normal(0, 0.2, 80)
    found = correlate(scores, mos, [str(k // 4) for k in range(80)])
    assert found.srcc == pytest.approx(calculate_srcc(scores, mos)) and found.krcc == pytest.approx(calculate_krcc(scores, mos))
    assert found.plcc == pytest.approx(calculate_plcc(scores, mos, "logistic_4params"), abs=1e-5)
    assert found.plcc_plain == pytest.approx(calculate_plcc(scores, mos)) and found.plcc > found.plcc_plain + 0.02
    assert found.srcc_interval.low < found.srcc < found.srcc_interval.high
    assert correlate(-scores, mos, ["x"] * 80).plcc == pytest.approx(-found.plcc_plain)  # no falling curve mends a wrong metric
    same = correlate(np.ones(80), mos, ["x"] * 80)
    assert np.isnan(same.srcc) and np.isnan(same.plcc)


def test_opinion_scores_meet_signed_scores():
    images = {Path(f"{side}{k}"): 2.0 * k + (side == "b") for k in range(5) for side in "ab"}
    mos = {path: value for path, value in images.items() if path != Path("a0")}
    entry = agreement(scored([(0, 1)] * 5, images=images), manifest_of([0] * 5, mos=mos))
    assert entry.mos.srcc == pytest.approx(1) and entry.mos.images == 9
    assert agreement(scored([(0, 1)] * 5, images=images), manifest_of([0] * 5)).mos is None
    turned = {**images, **{Path(f"{side}{k}"): -images[Path(f"{side}{k}")] for k in (3, 4) for side in "ab"}}
    groups = agreement(scored([(0, 1)] * 5, images=turned), manifest_of([0] * 5, list("xxxyy"), mos=mos)).groups
    assert [(group.mos.srcc, group.mos.images) for group in groups.values()] == [(pytest.approx(1), 5), (pytest.approx(-1), 4)]


def test_correlation_intervals_draw_scenes_however_many_there_are(monkeypatch):
    """Two alike images of each scene say what one of them says."""
    monkeypatch.setattr(correlation, "DRAWS", 20)
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 1, 6000)
    mos = scores + rng.normal(0, 2, 6000)
    single = correlate(scores, mos, [str(k) for k in range(6000)]).srcc_interval
    twice = correlate(np.repeat(scores, 2), np.repeat(mos, 2), [str(k // 2) for k in range(12000)]).srcc_interval
    assert single.low < single.high and (twice.low, twice.high) == pytest.approx((single.low, single.high))


# ---------------------------------------------------------------- complementarity


def test_errors_and_their_overlap_by_hand():
    people = manifest_of([1] * 6 + [0.5])
    a = scored([(1, 0)] * 3 + [(0, 1)] * 3 + [(1, 0)], "a")  # errs on 3, 4, 5
    b = scored([(0, 1)] * 2 + [(1, 0)] * 2 + [(0, 1), (0, 0)] + [(0, 1)], "b")  # errs on 0, 1, 4, 5 (equal scores)
    never = scored([(1, 0)] * 7, "c")
    found = complementarity([a, b, never], people)
    assert found.pairs == 6 and found.errors == (3, 4, 0)
    assert found.jaccard[0, 1] == 2 / 5 and found.jaccard[0, 0] == 1 and found.jaccard[0, 2] == 0 and np.isnan(found.jaccard[2, 2])
    assert found.phi[0, 1] == pytest.approx(np.corrcoef([0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1])[0, 1]) and np.isnan(found.phi[0, 2])
    assert found.rescue[0, 1] == pytest.approx((1 + 0 + 0.5) / 3) and found.rescue[1, 2] == 1 and np.isnan(found.rescue[2]).all()


def test_teams_are_better_where_errors_differ():
    """Three metrics that each see two thirds of the pairs rightly, in turn: their majority is always right."""
    n = 300
    people = manifest_of([1] * n, contents=[str(k // 3) for k in range(n)])
    each = [scored([(k % 3 != turn, 0.5) for k in range(n)], str(turn), {Path(str(i)): i / 10 for i in range(10)}) for turn in range(3)]
    noise = scored(np.random.default_rng(0).random((n, 2)), "noise", {Path("x"): 0.0, Path("y"): 1.0})
    teams = complementarity([*each, noise], people).teams
    triple = next(team for team in teams if len(team.names) == 3 and team.rule == "majority")
    assert set(triple.names) == {"0", "1", "2"} and triple.test.value == 1 and triple.train == 1
    single = next(team for team in teams if len(team.names) == 1)
    assert single.test.value == pytest.approx(2 / 3) and single.test.scenes == 50


def test_mean_z_does_not_depend_on_scale():
    rng = np.random.default_rng(4)
    people = manifest_of([1] * 200, contents=[str(k // 2) for k in range(200)])
    pairs = [rng.normal(0, 1, (200, 2)) + [0.5, 0] for _ in range(2)]
    images = [{Path(str(i)): float(x) for i, x in enumerate(p.ravel())} for p in pairs]
    one = [scored(p, str(k), i) for k, (p, i) in enumerate(zip(pairs, images, strict=True))]
    scaled = [one[0], replace(one[1], pairs=1000 * one[1].pairs, images={k: 1000 * v for k, v in one[1].images.items()})]
    first, second = ([t for t in complementarity(x, people).teams if t.rule == "mean z"] for x in (one, scaled))
    assert first == second


def test_one_metric_or_no_answer_is_said():
    with pytest.raises(UserError, match="at least two"):
        complementarity([scored([(1, 0)])], manifest_of([1]))
    with pytest.raises(UserError, match="all p_a are 0.5"):
        complementarity([scored([(1, 0)])] * 2, manifest_of([0.5]))


# ---------------------------------------------------------------- scores


class Brightness(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))


class Darker(nn.Module):
    """How much darker than its reference an image is: not the same the other way round."""

    def forward(self, x, ref):
        return (ref - x).clamp(min=0).mean((1, 2, 3))


class Counted(Metric):
    """Counts the images that it is asked for, and gives up after `last`."""

    asked = 0
    last = 10**9
    before_the_end = staticmethod(lambda: None)

    @property
    def threadable(self):
        return False

    def opinions(self, x, ref=None):
        if self.asked >= self.last:
            self.before_the_end()
            raise KeyboardInterrupt
        self.asked += 1
        return super().opinions(x, ref)


def metrics():
    return {
        "bright": Counted(MetricInfo("bright", "NR", False, (0, 1)), Brightness(), "bright (test)"),
        "dim": Counted(MetricInfo("dim", "NR", True, (0, 1)), Brightness(), "dim (test)"),
        "darker": Counted(MetricInfo("darker", "FR", True, (0, 1)), Darker(), "darker (test)"),
        "huge": Counted(MetricInfo("huge", "NR", False, (0, 1), smallest=500), Brightness(), "huge (test)"),
    }


@pytest.fixture
def known(monkeypatch):
    """The metrics above behind the door, besides the real ones."""
    made = metrics()
    real = scoring.create_metric
    monkeypatch.setattr(scoring, "create_metric", lambda name, device: made[name] if name in made else real(name, device))
    monkeypatch.setattr(scoring, "metric_info", lambda name: made[name].info if name in made else metric_info(name))
    return made


@pytest.fixture
def folder(tmp_path):
    """Eight scenes of three gray images, 40, 100 and 160 bright; people like the brighter ones, but not in scene 7."""
    pairs = []
    for scene in range(8):
        paths = [tmp_path / f"s{scene}_{level}.png" for level in range(3)]
        for level, path in enumerate(paths):
            save(path, np.full((16, 16, 3), 40 + 60 * level + scene, np.uint8))
        for a, b in combinations(range(3), 2):
            p_a = float(scene == 7)
            pairs.append(Pair(paths[a], paths[b], p_a, paths[2], "low" if b < 2 else "high", content=f"scene {scene}"))
    mos = {pair.img_a: float(pair.img_a.stem[-1]) for pair in pairs} | {pair.img_b: float(pair.img_b.stem[-1]) for pair in pairs}
    write_manifest(tmp_path / "m.csv", Manifest(tuple(pairs), tmp_path, mos))
    return tmp_path


def test_scores_are_signed_and_refer_to_the_reference(folder, known):
    manifest = read_manifest(folder / "m.csv")
    (bright, dim, darker), unusable = Scorer(folder, say=quiet).score(manifest, ["bright", "dim", "darker"])
    assert not unusable
    assert bright.pairs[0] == pytest.approx([40 / 255, 100 / 255]) and dim.pairs == pytest.approx(-bright.pairs)
    assert darker.pairs[0] == pytest.approx([-120 / 255, -60 / 255])  # signed(x, ref): darker than the third image
    assert darker.asymmetric is True and bright.asymmetric is None
    assert agreement(darker, manifest).overall.value == agreement(bright, manifest).overall.value == 21 / 24


def test_names_ensembles_and_files_in_one_list(folder):
    save_metric(folder / "my metric.safetensors", build_network("nano"), {"architecture": "nano", "mode": "NR", "range": [0, 100]})
    names = f"piqe, 0.5*entropy + 0.5*piqe,min(entropy, piqe), {folder / 'my metric.safetensors'}"
    for path in folder.glob("*.png"):  # flat ones tell these metrics nothing
        save(path, picture(64, seed=int(path.stem[1])) // (4 - int(path.stem[-1])))
    verdict = judge(Request(folder / "m.csv", names, together=True), say=quiet)
    assert {entry.scored.name for entry in verdict.agreements} == {
        *("piqe", "0.5*entropy + 0.5*piqe", "min(entropy, piqe)", str(folder / "my metric.safetensors"))
    }
    assert set(verdict.together.names) == {entry.scored.name for entry in verdict.agreements}


def test_psnr_is_symmetric(folder):
    (psnr,), _ = Scorer(folder, say=quiet).score(read_manifest(folder / "m.csv"), ["psnr"])
    assert psnr.asymmetric is False and psnr.pairs[0, 1] == pytest.approx(20 * np.log10(255 / 60), abs=1e-3)


def test_only_what_is_new_is_scored(folder, known):
    manifest = read_manifest(folder / "m.csv")
    first = Scorer(folder, say=quiet).score(manifest, ["bright"])[0][0]
    assert known["bright"].asked == 24
    Scorer(folder, say=quiet).score(manifest, ["bright", "dim"])
    assert (known["bright"].asked, known["dim"].asked) == (24, 24)
    save(folder / "s0_0.png", np.full((16, 16, 3), 7, np.uint8))
    changed = Scorer(folder, say=quiet).score(manifest, ["bright"])[0][0]
    assert known["bright"].asked == 25 and changed.pairs[0, 0] == pytest.approx(7 / 255) and (changed.pairs[2:] == first.pairs[2:]).all()
    known["bright"].identity = "bright (test, other weights)"
    Scorer(folder, say=quiet).score(manifest, ["bright"])
    assert known["bright"].asked == 25 + 24
    (folder / "s0_0.png").rename(folder / "renamed.png")
    pair = replace(manifest.pairs[0], img_a=folder / "renamed.png")
    Scorer(folder, say=quiet).score(replace(manifest, pairs=(pair,)), ["bright"])
    assert known["bright"].asked == 25 + 24  # the content counts, not the name


def test_what_was_scored_before_a_stop_is_kept(folder, known):
    manifest = read_manifest(folder / "m.csv")
    known["bright"].last = 10
    with pytest.raises(KeyboardInterrupt):
        Scorer(folder, say=quiet).score(manifest, ["bright"])
    known["bright"].last = 10**9
    Scorer(folder, say=quiet).score(manifest, ["bright"])
    assert known["bright"].asked == 24 and not (folder / f"{NAME}.parts").exists()


def test_a_kill_loses_what_was_not_on_the_disk_yet(folder, known, monkeypatch):
    monkeypatch.setattr(score_table, "SAVE_EVERY_S", -1.0)
    known["bright"].last = 10
    known["bright"].before_the_end = lambda: monkeypatch.setattr(score_table.Scribe, "save", lambda self: None)
    manifest = read_manifest(folder / "m.csv")
    with pytest.raises(KeyboardInterrupt):
        Scorer(folder, say=quiet).score(manifest, ["bright"])
    monkeypatch.undo()
    again = metrics()["bright"]
    monkeypatch.setattr(scoring, "create_metric", lambda name, device: again)
    monkeypatch.setattr(scoring, "metric_info", lambda name: again.info)
    Scorer(folder, say=quiet).score(manifest, ["bright"])
    assert again.asked == 24 - 10


@pytest.mark.parametrize("blocked", [NAME, f"{NAME}.parts"])
def test_a_folder_that_takes_no_scores_is_told_with_a_way_out(folder, known, blocked):
    (folder / blocked).mkdir() if blocked == NAME else (folder / blocked).write_text("")
    with pytest.raises(UserError, match=rf"{NAME}.*scores cannot be kept here .*-o FOLDER/manifest.csv"):
        Scorer(folder, say=quiet).score(read_manifest(folder / "m.csv"), ["bright", "dim"])
    assert known["bright"].asked == (24 if blocked == NAME else 0) and known["dim"].asked == 0


def test_a_damaged_table_is_named(folder, known):
    (folder / NAME).write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(UserError, match=f"{NAME} is no table of scores"):
        Scorer(folder, say=quiet).score(read_manifest(folder / "m.csv"), ["bright"])


def test_metrics_that_cannot_be_used_are_listed(folder, known, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder / "no weights"))
    monkeypatch.setattr(
        scoring, "list_metrics", lambda: [metric_info(name) for name in ("musiq", "fid")] + [known["huge"].info, known["bright"].info]
    )
    verdict = judge(Request(folder / "m.csv", "all"), say=quiet)
    assert [entry.scored.name for entry in verdict.agreements] == ["bright"]
    reasons = {entry.name: entry.reason for entry in verdict.unusable}
    assert (
        set(reasons) == {"musiq", "fid", "huge"}
        and reasons["musiq"] == "weights of musiq are missing"
        and "at least 500 pixels" in reasons["huge"]
        and "fid cannot be used" in reasons["fid"]
    )
    assert "not used (weights of it are missing): musiq" in text(verdict)
    asked = known["bright"].asked
    for wrong, message in (("niqee", "did you mean niqe"), ("musiq", "weights of musiq are missing"), ("min(dim)", "min")):
        known["bright"].identity = f"anew for {wrong}"
        with pytest.raises(UserError, match=message):
            judge(Request(folder / "m.csv", f"bright,{wrong}"), say=quiet)
    assert known["bright"].asked == asked  # told before any metric scores
    several = judge(Request(folder / "m.csv", "all, dim, min(psnr, ssimc), min(psnr, musiq)"), say=quiet)
    assert {entry.scored.name for entry in several.agreements} == {"bright", "dim", "min(psnr, ssimc)"}
    assert {entry.name for entry in several.unusable} == {"musiq", "fid", "huge", "min(psnr, musiq)"}
    with pytest.raises(UserError, match="no metric can be used\n  huge"):
        judge(Request(folder / "m.csv", "huge"), say=quiet)


def test_full_reference_metrics_need_references_of_one_size(folder, known):
    manifest = read_manifest(folder / "m.csv")
    bare = replace(manifest, pairs=tuple(replace(pair, ref=None) for pair in manifest.pairs))
    assert "24 of 24 pairs have none" in Scorer(folder, say=quiet).score(bare, ["darker"])[1][0].reason
    save(folder / "s3_1.png", np.zeros((16, 20, 3), np.uint8))
    reason = Scorer(folder, say=quiet).score(manifest, ["darker"])[1][0].reason
    assert "s3_1.png" in reason and "20x16 and 16x16" in reason


def test_an_unreadable_image_stops(folder, known):
    (folder / "s5_1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="s5_1.png: unreadable"):
        Scorer(folder, say=quiet).score(read_manifest(folder / "m.csv"), ["bright", "dim"])


def test_nan_is_a_reason(folder, known):
    known["bright"]._net.forward = lambda x: torch.full((len(x),), float("nan"))
    scored_, unusable = Scorer(folder, say=quiet).score(read_manifest(folder / "m.csv"), ["bright", "dim"])
    assert [one.name for one in scored_] == ["dim"] and "bright gives nan for" in unusable[0].reason


# ---------------------------------------------------------------- scores from elsewhere


def foreign(folder, text):
    (folder / "pcqi.csv").write_text(text)
    return folder / "pcqi.csv"


def rows(folder, value):
    return "".join(f"{path.name},{value(path)}\n" for path in sorted(folder.glob("*.png")))


def test_foreign_scores(folder):
    table = foreign(folder, "image,pcqi,error\n" + rows(folder, lambda path: f"{path.stem[-1]},{path.stem[-1]}"))
    pcqi, error = read_foreign(table, read_manifest(folder / "m.csv"), ["error"])
    assert pcqi.pairs[0].tolist() == [0, 1] and error.pairs[0].tolist() == [0, -1] and (pcqi.mode, error.lower_better) == ("file", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,pcqi\n", "first line must be image,NAME"),
        ("image\n", "first line must be image,NAME"),
        ("", "first line must be image,NAME"),
        ('image,pcqi\n"s0_0\n.png",1\n', "no scores of 24 of 24 images"),
        ('image,pcqi\n"s0_0.png,1\n', "no CSV table"),
        ("image,x,x\n", "each name once"),
        ("image,pcqi\ns0_0.png,1\n", "no scores of 23 of 24 images"),
        ("image,pcqi\ns0_0.png,good\n", "line 2: pcqi is 'good', not a number"),
        ("image,pcqi\ns0_0.png,1,2\n", "line 2: 3 values for 2 columns"),
        ("image,pcqi\n\ns0_0.png,1\ns0_0.png,2\n", "line 4: s0_0.png has other scores"),
        ("image,pcqi\n../s0_0.png,1\n", "'..'"),
    ],
)
def test_wrong_tables_are_named(folder, text, message):
    with pytest.raises(UserError) as error:
        read_foreign(foreign(folder, text), read_manifest(folder / "m.csv"))
    assert message in str(error.value) and "pcqi.csv" in str(error.value)


def test_foreign_tables_lie_anywhere_and_have_columns_of_different_names(folder, known, monkeypatch):
    """Here beside the images, which the manifest names relative to another folder."""
    (folder / "images").mkdir()
    for image in folder.glob("*.png"):
        image.rename(folder / "images" / image.name)
    (folder / "m.csv").write_text(re.sub(r"(s\d_\d\.png)", r"images/\1", (folder / "m.csv").read_text()))
    table = foreign(folder / "images", "\ufeffimage,pcqi\r\n" + rows(folder / "images", lambda path: path.stem[-1]))
    monkeypatch.chdir(folder)
    for path in (table, Path("images/pcqi.csv")):
        for manifest in ("m.csv", folder / "m.csv"):
            assert read_foreign(path, read_manifest(manifest))[0].pairs[0].tolist() == [0, 1]
    with pytest.raises(UserError, match=r"two columns of --scores are named pcqi"):
        judge(Request(Path("m.csv"), "bright", (table, table)), say=quiet)
    assert known["bright"].asked == 0  # tables are read before any metric scores
    foreign(folder / "images", "image,bright\n" + rows(folder / "images", lambda path: path.stem[-1]))
    with pytest.raises(UserError, match="two metrics are named bright"):
        judge(Request(Path("m.csv"), "bright", (table,)), say=quiet)


# ---------------------------------------------------------------- two phases


def test_figures_of_phases_are_of_the_group_all(folder, known):
    manifest = read_manifest(folder / "m.csv")
    both = tuple(replace(pair, group=group) for pair in manifest.pairs for group in ("All", "Reg"))
    write_manifest(folder / "m.csv", replace(manifest, pairs=both))
    screening = judge(Request(folder / "m.csv", "bright,dim", screen=7, seed=1), say=quiet).screening
    assert len(screening.train.pairs) == 18 and screening_pairs(screening) == (9, 15)
    assert [row.train.pairs for row in screening.rows] == [9, 9] and [row.test.pairs for row in screening.rows] == [15, 15]


def test_phases_share_no_scene_and_the_worse_metrics_are_left_behind(folder, known):
    verdict = judge(Request(folder / "m.csv", "bright,dim,darker", screen=7, best=2, seed=1), say=quiet)
    screening = verdict.screening
    scenes = [{pair.scene for pair in part.pairs} for part in (screening.train, screening.test)]
    assert not scenes[0] & scenes[1] and len(screening.train.pairs) == 9 and len(screening.test.pairs) == 15
    assert [row.name for row in screening.rows][-1] == "dim" and screening.rows[-1].test is None
    assert {entry.scored.name for entry in verdict.agreements} == {"bright", "darker"}
    assert known["dim"].asked == 9 and known["bright"].asked == 24  # a metric left behind saw the screening part only
    for row in screening.rows[:2]:
        pairs = screening.test.pairs
        assert row.test.value == sum(pair.p_a == 0 for pair in pairs) / len(pairs)
    assert "2AFC %, screening (9 pairs)  the other contents (15)" in text(verdict)
    with pytest.raises(UserError, match="takes all 8 scenes"):
        parts(read_manifest(folder / "m.csv"), 24, 0)


# ---------------------------------------------------------------- the commands


def test_agree_writes_its_files(folder, known):
    nasty = "<b>&'x"
    foreign(folder, f"image,{nasty}\n" + rows(folder, lambda path: int(path.stem[-1]) % 2))
    files = [folder / name for name in ("out.json", "out.csv", "out.html")]
    options = [word for flag, path in zip(("--json", "--csv", "--html"), files, strict=True) for word in (flag, str(path))]
    command = [
        "iqa",
        "agree",
        str(folder / "m.csv"),
        "--metrics",
        "bright,dim,darker",
        "--scores",
        str(folder / "pcqi.csv"),
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    lines = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["bright"][1:3] == ["NR", "87.5"] and lines["dim"][2] == "12.5" and lines["darker"][1:3] == ["FR", "asymmetric"]
    values = json.loads(files[0].read_text())
    assert values["metrics"]["bright"]["overall"]["accuracy"] == 0.875 and values["metrics"]["bright"]["mos"]["srcc"] > 0.9
    assert values["complementarity"]["names"][:2] == ["bright", "darker"] and values["pairs"] == 24
    with files[1].open() as file:
        table = {(row["metric"], row["group"]): row for row in csv.DictReader(file)}
    assert (
        float(table["dim", "(all)"]["accuracy"]) == 0.125
        and table[nasty, "low"]["pairs"] == "8"
        and float(table["dim", "high"]["srcc"]) < -0.9
    )
    page = files[2].read_text()
    assert "&lt;b&gt;&amp;&#39;x" in page and "<b>&" not in page and page.count("<svg") >= 2
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is loaded from elsewhere


def test_complement_prints_overlap_and_teams(folder, known):
    done = CliRunner().invoke(app, ["iqa", "complement", str(folder / "m.csv"), "--metrics", "bright,dim", "--device", "cpu"])
    assert done.exit_code == 0 and "Jaccard" in done.stdout and "bright + dim" in done.stdout
    assert next(line.split() for line in done.stdout.splitlines() if line.startswith("dim")) == ["dim", "21", "100.0", "–"]


def test_complement_says_what_it_lacks(folder, known):
    command = ["iqa", "complement", str(folder / "m.csv"), "--device", "cpu", "--metrics"]
    assert "at least two metrics" in str(CliRunner().invoke(app, [*command, "bright"]).exception)
    done = CliRunner().invoke(app, [*command, "bright,dim,huge"])
    assert done.exit_code == 0 and "not used (it needs images of at least 500 pixels" in done.stdout
    manifest = read_manifest(folder / "m.csv")
    write_manifest(folder / "m.csv", replace(manifest, pairs=tuple(replace(pair, p_a=0.5) for pair in manifest.pairs)))
    assert "all p_a are 0.5" in str(CliRunner().invoke(app, [*command, "bright,dim"]).exception)


def test_one_content_has_no_interval(folder, known):
    manifest = read_manifest(folder / "m.csv")
    write_manifest(folder / "m.csv", replace(manifest, pairs=manifest.pairs[:1]))
    done = CliRunner().invoke(app, ["iqa", "agree", str(folder / "m.csv"), "--metrics", "bright", "--device", "cpu"])
    assert done.stdout.splitlines()[-1].split()[:4] == ["bright", "NR", "100.0", "–"]


def test_reasons_keep_words_that_hold_a_metrics_name():
    verdict = Verdict(
        manifest_of([1]),
        "m",
        (agreement(scored([(1, 0)]), manifest_of([1])),),
        (Unusable("pi", "pi needs 9 pixels"), Unusable("mad", "mad needs 9 pixels")),
        *(None, None, {}),
    )
    assert text(verdict).splitlines()[-1] == "not used (it needs 9 pixels): pi, mad"


@pytest.mark.parametrize(
    ("options", "message"),
    [([], "nothing to judge"), (["--metrics", ","], "no metric"), (["--metrics", "bright", "--screen", "0"], "at least 1")],
)
def test_wrong_requests(folder, known, options, message):
    done = CliRunner().invoke(app, ["iqa", "agree", str(folder / "m.csv"), *options])
    assert isinstance(done.exception, UserError) and message in str(done.exception)

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sr_iqa import cli
from sr_iqa.check import check
from sr_iqa.config.models import DataOptions
from sr_iqa.data.sets import load_sets
from sr_iqa.errors import UserError
from sr_iqa.iqa.catalog import MetricInfo
from sr_iqa.iqa.ensemble import Ensemble, Normalisation, Statistics, create_ensemble, rank, signed_range
from sr_iqa.iqa.ensemble_file import _statistics, normalise, read_ensemble_file
from sr_iqa.iqa.ensemble_text import Recipe, is_composed, is_trained, parse_ensemble, split_names
from sr_iqa.iqa.metrics import Metric, create_metric, find_metrics, metric_info
from sr_iqa.iqa.scores import read_scores, score_sets
from sr_iqa.iqa.trained import build_network, save_metric
from sr_iqa.sampling import ArgmaxOnline
from sr_iqa.training.trainer import train

from .helpers import picture, save
from .tiny_runs import tiny, validation


def images(n=3, size=96):
    return torch.from_numpy(np.stack([picture(size, seed) for seed in range(n)])).permute(0, 3, 1, 2).float() / 255


@pytest.fixture
def sr_iqa(monkeypatch, capsys):
    """Runs `sr-iqa ARGUMENTS` in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sr-iqa", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


class Channel(nn.Module):
    """The mean of one colour channel, times a gain."""

    def __init__(self, channel, gain=1.0):
        super().__init__()
        self.channel, self.gain = channel, gain

    def forward(self, x):
        return self.gain * x[:, self.channel].mean((1, 2))


def channel(k, gain=1.0, lower_better=False):
    return Metric(MetricInfo(f"c{k}", "NR", lower_better, (0, 1)), Channel(k, gain), f"c{k} (weights {gain})")


def ensemble(kind, members, weights=None, normalisation=None):
    recipe = Recipe(kind, tuple(zip([m.name for m in members], weights or [1.0] * len(members), strict=True)))
    return Ensemble(MetricInfo("e", "NR", False, (0, 1)), recipe, members, normalisation, "cpu")


# ---------------------------------------------------------------- how they are written


@pytest.mark.parametrize(
    ("text", "kind", "members"),
    [
        ("0.5*musiq + 0.3*nima + 0.2*topiq_nr", "sum", (("musiq", 0.5), ("nima", 0.3), ("topiq_nr", 0.2))),
        ("musiq+nima", "sum", (("musiq", 1), ("nima", 1))),
        ("1e-3*musiq + 2.5E+1*nima", "sum", (("musiq", 0.001), ("nima", 25))),
        ("0.5*clipiqa++0.5*musiq", "sum", (("clipiqa+", 0.5), ("musiq", 0.5))),
        ("lpips+dists", "sum", (("lpips", 1), ("dists", 1))),
        ("lpips++dists", "sum", (("lpips+", 1), ("dists", 1))),
        ("qualiclip+-clive + .5 * clipiqa+_vitL14_512", "sum", (("qualiclip+-clive", 1), ("clipiqa+_vitL14_512", 0.5))),
        ("min(musiq, nima)", "min", (("musiq", 1), ("nima", 1))),
        ("rank(2*musiq,nima)", "rank", (("musiq", 2), ("nima", 1))),
        (" agree( musiq , nima ) ", "agree", (("musiq", 1), ("nima", 1))),
        ("0.5*runs/a+b/metric.safetensors+nano", "sum", (("runs/a+b/metric.safetensors", 0.5), ("nano", 1))),
    ],
)
def test_texts(text, kind, members):
    assert is_composed(text) and not is_trained(text)
    assert parse_ensemble(text) == Recipe(kind, members)


@pytest.mark.parametrize("name", ["musiq", "lpips+", "clipiqa+_vitL14_512", "qualiclip+-spaq", "no_such", "runs/a+b/metric.safetensors"])
def test_plain_names_are_no_ensembles(name):
    assert not is_composed(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min(musiq)", "1 member"),
        ("musiq + musiq", "musiq twice"),
        ("0*musiq + nima", "weights must be positive"),
        ("-1*musiq + nima", "weights must be positive"),
        ("min(min(musiq, nima), nano)", "member min\\(musiq, nima\\) is an ensemble itself"),
        ("min(2*musiq, nima)", "no weights"),
        ("max(musiq, nima)", "there is no max"),
        ("musiq * nima", "no metric"),
        ("min(musiq, a.yml)", "an ensemble itself"),
        ("0.5*muisq + nima", "did you mean musiq"),
        ("musiq + fid", "fid cannot be used here"),
        ("musiq + pi", "pi has no finite range"),
        ("+".join(f"{k}*nano" for k in range(200)), "letters"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text, message):
    with pytest.raises(UserError, match=message):
        metric_info(text)


def test_lists_with_commas_keep_ensembles_whole():
    assert split_names("psnr, min(musiq, nima),,rank(a,b)") == ["psnr", "min(musiq, nima)", "rank(a,b)"]


# ---------------------------------------------------------------- values


def test_a_sum_without_statistics_is_by_the_catalogues_ranges():
    x = images()
    nano, niqe = create_metric("nano"), create_metric("niqe")
    found = create_metric("0.7*nano + 0.3*niqe")(x)
    torch.testing.assert_close(found, 0.7 * nano(x) / 100 + 0.3 * (100 - niqe(x)) / 100)
    torch.testing.assert_close(create_metric("min(nano, niqe)")(x), torch.minimum(nano(x) / 100, 1 - niqe(x) / 100))
    torch.testing.assert_close(create_metric("rank(nano, niqe)")(x), (nano(x) + 100 - niqe(x)) / 200)
    assert signed_range(metric_info("niqe")) == (-100, 0)


def test_statistics_are_of_signed_scores():
    members = [channel(0), channel(1, lower_better=True)]
    statistics = (Statistics("", 0.5, 0.1, (0.0, 0.5, 1.0)), Statistics("", -0.4, 0.2, (-1.0, -0.5, 0.0)))
    x = images(2)
    red, green = x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2))
    z = torch.stack([(red - 0.5) / 0.1, (0.4 - green) / 0.2], 1)
    made = Normalisation("", statistics)
    torch.testing.assert_close(ensemble("sum", members, [2.0, 3.0], made)(x), 2 * z[:, 0] + 3 * z[:, 1])
    torch.testing.assert_close(ensemble("min", members, None, made)(x), z.min(1).values)
    torch.testing.assert_close(ensemble("agree", members, [1.0, 3.0], made)(x), (z[:, 0] + 3 * z[:, 1]) / 4)
    torch.testing.assert_close(ensemble("rank", members, None, made)(x), (red + 1 - green) / 2)


def test_ranks_are_numpys_inside_the_reference_and_go_on_outside():
    quantiles = np.array([-1.0, 0.0, 0.5, 4.0])
    scores = np.linspace(-1, 4, 23)
    found = rank(torch.tensor(scores), torch.tensor(quantiles))
    np.testing.assert_allclose(found.numpy(), np.interp(scores, quantiles, np.linspace(0, 1, 4)), atol=1e-6)
    outside = rank(torch.tensor([-3.0, -2.0, 7.5]), torch.tensor(quantiles, dtype=torch.float32))
    np.testing.assert_allclose(outside.numpy(), [-2 / 5, -1 / 5, 1 + 3.5 / 5], atol=1e-6)


def test_ranks_are_finite_where_reference_images_share_the_best_or_worst_score():
    quantiles = torch.tensor(_statistics("m", "", np.repeat([99.0, 99.5, 100.0], [3, 4, 5])).quantiles, dtype=torch.float64)
    scores = torch.tensor([97.0, 99.0, 99.5, 100.0, 101.0], dtype=torch.float64, requires_grad=True)
    found = rank(scores, quantiles)
    assert found.isfinite().all() and found.tolist() == sorted(found.tolist())
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    assert gradient[[0, 4]].tolist() == pytest.approx([1, 1], rel=1e-3), "one point of score is the reference images' whole range"
    statistics = Statistics("", 0, 1, tuple(quantiles.tolist()))
    made = ensemble("rank", [channel(0, 100.0), channel(1, 100.0)], None, Normalisation("", (statistics, statistics)))
    images = torch.tensor([0.99, 1.0])[:, None, None, None].expand(2, 3, 8, 8)
    assert made(images).isfinite().all() and made(images).max() <= 1


def test_full_reference_members_make_it_full_reference():
    made = create_metric("0.5*ssimc + 0.5*nano")
    assert made.mode == "FR" and made.differentiable
    x, ref = images(1), images(2)
    expected = 0.5 * create_metric("ssimc")(x.expand(2, -1, -1, -1), ref) + 0.005 * create_metric("nano")(x)
    torch.testing.assert_close(made(x, ref), expected)


def test_facts_follow_from_the_members():
    info = metric_info("0.5*musiq + 2*liqe")
    assert info.smallest == 224 and info.value_range == (0, 2.5) and not info.lower_better and info.needs == "openai-clip"
    assert [file.name for file in info.files] == ["musiq_koniq_ckpt-e95806b9.pth", "ViT-B-32.pt", "liqe_koniq.pt"]
    assert not metric_info("nano + piqe").differentiable and metric_info("nano + piqe").mode == "NR"
    with pytest.raises(UserError, match="min\\(niqe, nano\\) needs images of at least 96"):
        create_metric("min(niqe, nano)")(images(1, 64))


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="no other weights"):
        create_metric("nano + niqe", weights=tmp_path / "x.pth")


# ---------------------------------------------------------------- gradients and choices


@pytest.mark.parametrize("name", ["0.5*nano + 0.5*niqe", "min(nano, niqe)", "rank(nano, niqe)"])
def test_gradients_are_those_of_the_formula(name):
    x = images(1).requires_grad_(True)
    (found,) = torch.autograd.grad(create_metric(name)(x).sum(), x)
    values = [create_metric("nano")(x) / 100, 1 - create_metric("niqe")(x) / 100]
    combined = {"0": 0.5 * (values[0] + values[1]), "m": torch.minimum(*values), "r": (values[0] + values[1]) / 2}[name[0]]
    (expected,) = torch.autograd.grad(combined.sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_where_members_pull_apart_agree_has_no_gradient():
    members = [channel(0), channel(0, -0.5), channel(1)]
    x = images(1).requires_grad_(True)
    for chosen, zero in (([0, 2], {0, 1, 2}), ([0, 1], {0, 1, 2})):
        (gradient,) = torch.autograd.grad(ensemble("agree", [members[k] for k in chosen])(x).sum(), x)
        assert {k for k in range(3) if (gradient[:, k] == 0).all()} == zero
    twin = Metric(MetricInfo("twin", "NR", False, (0, 1)), Channel(0, 3.0), "twin")
    (gradient,) = torch.autograd.grad(ensemble("agree", [members[0], twin])(x).sum(), x)
    torch.testing.assert_close(gradient[:, 0], torch.full_like(x[:, 0], 2 / 96**2))


def test_agree_abstains_where_members_name_different_winners():
    made = ensemble("agree", [channel(0), channel(1)])
    agreed = torch.tensor([[0.1, 0.2], [0.9, 0.8], [0.3, 0.7]])
    torn = torch.tensor([[0.1, 0.2], [0.9, 0.3], [0.3, 0.7]])
    scores = made.verdict(torch.stack([agreed, torn]))
    torch.testing.assert_close(scores, torch.stack([agreed.mean(1), torn.mean().expand(3)]))
    assert ArgmaxOnline().choose_online(scores).tolist() == [1, 0]  # abstaining, amo takes the original
    x = images(4)
    plain = ensemble("sum", [channel(0), channel(1)])
    torch.testing.assert_close(plain.verdict(plain.opinions(x)), plain(x))
    assert made.opinions(x).shape == (4, 2)


def test_a_score_table_of_agree_is_flat_where_members_disagree(tmp_path):
    for name, colours in {"a": ((50, 50, 50), (200, 200, 50)), "b": ((50, 200, 50), (200, 50, 50))}.items():
        for folder, colour in zip(("original", "01"), colours, strict=True):
            suffix = "" if folder == "original" else "_01"
            save(tmp_path / "images" / folder / f"{name}{suffix}.png", np.full((32, 32, 3), colour, np.uint8))
    reader, sets = load_sets(DataOptions(type="multi_gt", dataroot_gt=tmp_path / "images"))
    made = ensemble("agree", [channel(0), channel(1)])
    score_sets(reader, made, tmp_path / "scores.parquet", batch_px=1024)
    scores = read_scores(tmp_path / "scores.parquet", sets, "e")
    np.testing.assert_allclose(scores, [[50 / 255, 200 / 255], [125 / 255, 125 / 255]], atol=1e-6)


# ---------------------------------------------------------------- files and statistics


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(12):
        save(folder / f"{seed}.png", picture(96, seed))
    return folder


def test_normalise_writes_what_the_metrics_say_of_the_images(photos, tmp_path, sr_iqa):
    file = tmp_path / "e.yml"
    code, out, _ = sr_iqa("iqa", "normalise", "0.5*nano + 2*niqe", photos, "-o", file)
    assert code == 0 and "12 images" in out
    recipe, normalisation = read_ensemble_file(file)
    assert recipe == Recipe("sum", (("nano", 0.5), ("niqe", 2.0)))
    x = images(12)
    signed = torch.stack([create_metric("nano")(x), -create_metric("niqe")(x)]).double()
    for member, values in zip(normalisation.members, signed, strict=True):
        assert member.mean == pytest.approx(values.mean().item(), rel=1e-4)
        assert member.std == pytest.approx(values.std(correction=0).item(), rel=1e-3)
        np.testing.assert_allclose(member.quantiles, np.quantile(values.numpy(), np.linspace(0, 1, 21)), rtol=1e-3, atol=1e-3)
    made = create_metric(str(file))
    assert made.name == str(file) and abs(made(x).mean()) < 1e-3
    assert made.value_range == (-7.5, 7.5)
    assert find_metrics(str(file))[0].weights == "shipped"


def test_a_reference_image_has_its_rank(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    assert f"12 images of {photos.name}," in normalise("rank(nano, niqe)", [Path(".")], tmp_path / "r.yml")
    ranks = create_metric(str(tmp_path / "r.yml"))(images(12))
    order = sum(create_metric(name).signed(images(12)).argsort().argsort() for name in ("nano", "niqe")) / 22
    torch.testing.assert_close(ranks, order, atol=0.03, rtol=0)


def test_statistics_change_the_identity(photos, tmp_path):
    normalise("nano + niqe", [photos], tmp_path / "a.yml")
    text = (tmp_path / "a.yml").read_text()
    first = create_metric(str(tmp_path / "a.yml")).identity
    assert "nano (sr_iqa" in first and "weights" in first and len(first) < 1000
    (tmp_path / "a.yml").write_text(text.replace("weight: 1.0", "weight: 1.5", 1))
    second = create_metric(str(tmp_path / "a.yml")).identity
    data = text.splitlines()
    place = next(k for k, line in enumerate(data) if "mean:" in line)
    data[place] = data[place].split("mean:")[0] + "mean: 12.5" + ("" if "," not in data[place] else data[place][data[place].index(",") :])
    (tmp_path / "a.yml").write_text("\n".join(data))
    assert len({first, second, create_metric(str(tmp_path / "a.yml")).identity}) == 3


BAD = {
    "kind: mean\nmembers: [{metric: nano}, {metric: niqe}]": "kind",
    "members: [{metric: nano}, {metric: niqe, wieght: 2}]": "wieght.*did you mean weight|unknown key",
    "members: [{metric: nano}]": "1 member",
    "members: [{metric: nano, statistics: {identity: x, mean: 0, std: 1, quantiles: [0, 1]}}, {metric: niqe}]": "niqe has no statistics",
    "members: [{metric: nano, statistics: {identity: x, mean: 0, std: 0, quantiles: [0, 1]}}, {metric: niqe}]": "std",
    "members: [{metric: nano, weight: -1}, {metric: niqe}]": "weights must be positive",
    "- 1": "expected",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files_are_said(text, tmp_path):
    (tmp_path / "e.yml").write_text(text)
    with pytest.raises(UserError, match=f"e.yml.*({BAD[text]})"):
        create_metric(str(tmp_path / "e.yml"))


def test_statistics_of_other_weights_are_refused(tmp_path):
    statistics = "statistics: {identity: nano (old), mean: 0, std: 1, quantiles: [0, 1]}"
    (tmp_path / "e.yml").write_text(f"members: [{{metric: nano, {statistics}}}, {{metric: niqe, {statistics}}}]")
    with pytest.raises(UserError, match="statistics are of nano \\(old\\)"):
        create_ensemble(str(tmp_path / "e.yml"))


def test_what_cannot_be_normalised_is_said(tmp_path, photos):
    with pytest.raises(UserError, match="needs a reference"):
        normalise("ssimc + nano", [photos], tmp_path / "e.yml")
    with pytest.raises(UserError, match="at least 10"):
        normalise("niqe + nano", [photos / "0.png"], tmp_path / "e.yml")
    with pytest.raises(UserError, match="nowhere: there is no such file or folder"):
        normalise("niqe + nano", [photos, tmp_path / "nowhere"], tmp_path / "e.yml")
    with pytest.raises(UserError, match="must end in .yml"):
        normalise("niqe + nano", [photos], tmp_path / "e.json")
    for k in range(10):
        save(tmp_path / "same" / f"{k}.png", picture(96))
    with pytest.raises(UserError, match="same score"):
        normalise("niqe + nano", [tmp_path / "same"], tmp_path / "e.yml")
    assert not (tmp_path / "e.yml").exists()


# ---------------------------------------------------------------- everywhere


def test_the_command_line_takes_ensembles(photos, sr_iqa):
    code, out, _ = sr_iqa("iqa", "score", photos / "0.png", "--metric", "min(nano, niqe)")
    assert code == 0 and "min(nano, niqe)" in out
    assert "missing: musiq" in sr_iqa("iqa", "list", "0.5*musiq + 0.5*nano")[1]
    code, _, error = sr_iqa("iqa", "list", "0.5*musik + 0.5*nano")
    assert code == 1 and "did you mean musiq" in error


def test_a_run_may_choose_be_rewarded_and_watched_by_ensembles(tmp_path):
    net = build_network("nano", "catalogue")
    with torch.no_grad():
        net.head.bias += 0.1
    file = tmp_path / "mine.safetensors"
    save_metric(file, net, {"architecture": "nano", "mode": "NR", "range": [0, 100], "smallest": 16})
    agree, least, both = f"agree(nano, {file})", f"min(nano, {file})", f"0.5*nano + 0.5*{file}"
    changes = {
        "datasets": {"train": {"sampling": {"strategy": "amo", "metric": agree}}},
        "train": {"reward_opt": [{"metric": least, "weight": 0.1}], "total_iter": 3},
    }
    options = tiny(tmp_path, "run", changes, validation(tmp_path, metrics=["psnr", both, str(file)], val_freq=3))
    assert check(options) is not None
    folder = train(options, quiet=True)
    logged = (folder / "metrics.jsonl").read_text()
    assert all(f'{json.dumps(name)[1:-1]}"' in logged for name in (least, both, str(file)))
    with pytest.raises(UserError, match="reward_opt.*did you mean nano"):
        check(tiny(tmp_path, "bad", {"train": {"reward_opt": [{"metric": "min(nan, nano)", "weight": 0.1}]}}))
    with pytest.raises(UserError, match="differentiable no-reference"):
        check(tiny(tmp_path, "bad", {"train": {"reward_opt": [{"metric": "nano + ssimc", "weight": 0.1}]}}))

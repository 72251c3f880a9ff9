"""The multi-GT protocol, held against a plain restatement of HGGT's scoring script, and its corner cases."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from sr_iqa import evaluation
from sr_iqa.config.models import DataOptions
from sr_iqa.errors import UserError
from sr_iqa.evaluation import describe_sets, evaluate, evaluate_folder, gold_standard, low_quality
from sr_iqa.images import read_image, write_png
from sr_iqa.iqa.grid import grid
from tests.helpers import make_sets, picture, save

P, S, N = "Positive", "Similar", "Negative"
LABELS = ([P, P, S, N], [S, P, P, P], [S, S, N, N])  # the last set has no positive


def data_of(root, **extra):
    return DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels", **extra)


def names_of(root):
    return sorted(path.stem for path in (root / "images" / "original").iterdir())


def blurred_outputs(root, folder, suffix=""):
    """SR outputs made by blurring the originals: close to the GTs, equal to none."""
    for name in names_of(root):
        image = read_image(root / "images" / "original" / f"{name}.png")
        write_png(folder / f"{name}{suffix}.png", cv2.GaussianBlur(image, (0, 0), 1.2))
    return folder


@pytest.fixture
def sets(tmp_path):
    return make_sets(tmp_path / "sets", n=3, size=64, labels=LABELS)


class Nearest(nn.Module):
    """x2 by repeating pixels, with a parameter so that it has a device."""

    def __init__(self, scale=2):
        super().__init__()
        self.scale = scale
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * nn.functional.interpolate(x, scale_factor=self.scale, mode="nearest")


class Spy:
    """A metric that records what it is given: the mean of x, or minus the mean difference to ref."""

    identity, lower_better, threadable, device = "spy 1", False, True, torch.device("cpu")

    def __init__(self, mode):
        self.name, self.mode, self.seen = f"spy_{mode}", mode, []

    def __call__(self, x, ref=None):
        self.seen.append((tuple(x.shape if ref is None else ref.shape), x.clone()))
        return x.mean((1, 2, 3)) if ref is None else (x - ref).mean((1, 2, 3))


# ---------------------------------------------------------------- against HGGT's own way of scoring


def hggt_scores(outputs, root, border=4):
    """HGGT's calculate_multigt_labeled_psnr_ssim.py restated with plain loops: set -> (PSNR, SSIM), sets with positives only."""
    from skimage.metrics import structural_similarity

    found = {}
    for name in names_of(root):
        sr = cv2.imread(str(outputs / f"{name}.png")).astype(np.float64)[border:-border, border:-border]
        psnr, ssim = [], []
        for k in range(1, 5):
            words = [json.loads((root / "labels" / a / f"{name}.json").read_text())[f"Picture_{k + 1}"]["Label"] for a in "ABC"]
            word, votes = Counter(words).most_common(1)[0]
            if word != P or votes < 2:
                continue
            gt = cv2.imread(str(root / "images" / f"{k:02d}" / f"{name}_{k:02d}.png")).astype(np.float64)[border:-border, border:-border]
            psnr.append(20 * np.log10(255 / np.sqrt(np.mean((gt - sr) ** 2))))
            look = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
            ssim.append(np.mean([structural_similarity(gt[..., c], sr[..., c], **look) for c in range(3)]))
        if psnr:
            found[name] = (sum(psnr) / len(psnr), sum(ssim) / len(ssim))
    return found


def test_hggt_numbers(sets, tmp_path):
    outputs = blurred_outputs(sets, tmp_path / "out")
    result = evaluate_folder(outputs, data_of(sets), ["psnr", "ssimc"], scale=4)
    expected = hggt_scores(outputs, sets)
    assert len(expected) == 2
    for i, name in enumerate(result.names[:2]):
        assert result.values["psnr"][i] == pytest.approx(expected[name][0], abs=1e-3)
        assert result.values["ssimc"][i] == pytest.approx(expected[name][1], abs=1e-5)


def test_one_image_per_core_or_one_after_the_other(sets, tmp_path, monkeypatch):
    outputs = blurred_outputs(sets, tmp_path / "out")
    metrics = ["psnr", "ssimc", "nano"]
    together = evaluate_folder(outputs, data_of(sets), metrics, scale=4)
    gold = gold_standard(data_of(sets), metrics, scale=4)
    monkeypatch.setattr(evaluation, "apart", lambda judges: False)
    alone = evaluate_folder(outputs, data_of(sets), metrics, scale=4)
    for column, values in alone.values.items():
        np.testing.assert_allclose(together.values[column], values, rtol=1e-5)
    assert gold["nano"]["per_image"] == pytest.approx(gold_standard(data_of(sets), metrics, scale=4)["nano"]["per_image"], rel=1e-5)


def test_other_references_by_hand(sets, tmp_path):
    outputs = blurred_outputs(sets, tmp_path / "out")
    name = names_of(sets)[0]
    sr = cv2.imread(str(outputs / f"{name}.png")).astype(np.float64)[4:-4, 4:-4]
    paths = [sets / "images" / "original" / f"{name}.png", *sorted((sets / "images").glob(f"0*/{name}_*.png"))]
    psnr = [20 * np.log10(255 / np.sqrt(np.mean((cv2.imread(str(p)).astype(np.float64)[4:-4, 4:-4] - sr) ** 2))) for p in paths]
    for against, expected in (("all", np.mean(psnr)), ("best", max(psnr)), ("original", psnr[0])):
        result = evaluate_folder(outputs, data_of(sets), ["psnr"], scale=4, against=against)
        assert result.values["psnr"][0] == pytest.approx(expected, abs=1e-3)
        assert result.values["psnr_original"][0] == pytest.approx(psnr[0], abs=1e-3)
        assert result.columns["psnr"].against == against and result.without_positives == 0


def test_annotators_who_disagree_make_no_positive(tmp_path):
    root = make_sets(tmp_path / "sets", n=1, k=2, labels=[[P, P]])
    (name,) = names_of(root)
    for annotator, word in (("B", S), ("C", N)):
        path = root / "labels" / annotator / f"{name}.json"
        label = json.loads(path.read_text())
        label["Picture_2"]["Label"] = word
        path.write_text(json.dumps(label))
    result = evaluate_folder(blurred_outputs(root, tmp_path / "out"), data_of(root), ["psnr"], scale=4)
    assert result.references == (("02",),)


# ---------------------------------------------------------------- columns


def test_columns_say_against_what(sets, tmp_path):
    fr, nr = Spy("FR"), Spy("NR")
    outputs = blurred_outputs(sets, tmp_path / "out")
    result = evaluate_folder(outputs, data_of(sets), [fr, nr], scale=4, crop_border=4)
    assert {name: column.against for name, column in result.columns.items()} == {
        "spy_FR": "positives",
        "spy_FR_original": "original",
        "spy_NR": "none",
        "grid": "none",
    }
    assert (
        result.columns["spy_FR"].convention == "8-bit RGB, 4 px border cut"
        and result.columns["spy_NR"].convention == "8-bit RGB, whole image"
    )
    assert [shape for shape, _ in fr.seen] == [(3, 3, 56, 56), (4, 3, 56, 56), (1, 3, 56, 56)]
    assert [shape for shape, _ in nr.seen] == [(1, 3, 64, 64)] * 3


def test_sets_without_positives_are_scored_against_the_original_and_counted(sets, tmp_path):
    result = evaluate_folder(blurred_outputs(sets, tmp_path / "out"), data_of(sets), ["psnr"], scale=4)
    assert result.references == (("01", "02"), ("02", "03", "04"), ("original",))
    assert result.values["psnr"][2] == result.values["psnr_original"][2]
    assert result.values["psnr"][0] != result.values["psnr_original"][0]
    assert result.without_positives == 1 and "1 of 3 sets have no positive GT" in result.table()


def test_sets_without_enhanced_gts(tmp_path):
    for k in range(2):
        save(tmp_path / "gt" / f"x{k}.png", picture(48, k))
        save(tmp_path / "out" / f"x{k}.png", picture(48, k + 5))
    data = DataOptions(type="single_gt", dataroot_gt=tmp_path / "gt")
    result = evaluate_folder(tmp_path / "out", data, ["psnr"], scale=4)
    assert result.without_positives == 2 and np.array_equal(result.values["psnr"], result.values["psnr_original"])


def test_everything_is_traceable(sets, tmp_path):
    result = evaluate_folder(blurred_outputs(sets, tmp_path / "out"), data_of(sets, name="held-out"), ["psnr"], scale=4)
    result.write_json(tmp_path / "e.json")
    result.write_csv(tmp_path / "e.csv")
    loaded = json.loads((tmp_path / "e.json").read_text())
    psnr = loaded["metrics"]["psnr"]
    assert (
        psnr["identity"].startswith("psnr (pyiqa ")
        and psnr["against"] == "positives"
        and psnr["convention"] == "8-bit RGB, 4 px border cut"
    )
    assert psnr["mean"] == pytest.approx(np.mean(list(psnr["per_image"].values()))) and list(psnr["per_image"]) == names_of(sets)
    assert loaded["references"][names_of(sets)[2]] == ["original"] and loaded["source"]["data"] == "held-out"
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert rows[0]["references"] == "01 02" and float(rows[1]["psnr"]) == pytest.approx(psnr["per_image"][rows[1]["image"]], abs=1e-3)


def test_a_nan_stays_visible(sets, tmp_path):
    class Broken(Spy):
        def __call__(self, x, ref=None):
            self.seen.append(None)
            return torch.tensor([float("nan") if len(self.seen) == 2 else 1.0])

    result = evaluate_folder(blurred_outputs(sets, tmp_path / "out"), data_of(sets), [Broken("NR")], scale=4)
    assert np.isnan(result.mean("spy_NR"))
    result.write_json(tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text(), parse_constant=pytest.fail)["metrics"]["spy_NR"]["mean"] is None


# ---------------------------------------------------------------- outputs


def test_missing_and_ambiguous_outputs_name_the_set(sets, tmp_path):
    outputs = blurred_outputs(sets, tmp_path / "out")
    name = names_of(sets)[1]
    (outputs / f"{name}.png").unlink()
    with pytest.raises(UserError, match=f"no output for set {name}"):
        evaluate_folder(outputs, data_of(sets), ["psnr"], scale=4)
    for method in ("a", "b"):
        write_png(outputs / f"{name}_{method}.png", picture(64))
    with pytest.raises(UserError, match=f"several outputs for set {name}: {name}_a.png, {name}_b.png"):
        evaluate_folder(outputs, data_of(sets), ["psnr"], scale=4)


def test_outputs_may_carry_a_method_as_hggt_names_them(sets, tmp_path):
    plain = evaluate_folder(blurred_outputs(sets, tmp_path / "a"), data_of(sets), ["psnr"], scale=4)
    named = evaluate_folder(blurred_outputs(sets, tmp_path / "b", "_SwinIR"), data_of(sets), ["psnr"], scale=4)
    assert np.array_equal(plain.values["psnr"], named.values["psnr"])


def test_a_wrong_size_names_the_set(sets, tmp_path):
    outputs = blurred_outputs(sets, tmp_path / "out")
    name = names_of(sets)[0]
    write_png(outputs / f"{name}.png", picture(32))
    with pytest.raises(UserError, match=f"set {name}: the output is 32x32 .* 64x64"):
        evaluate_folder(outputs, data_of(sets), ["psnr"], scale=4)
    write_png(outputs / f"{name}.png", picture(64)[3:-3, 3:-3])  # a border cut off would be compared out of place
    with pytest.raises(UserError, match=f"set {name}: the output is 58x58 .* must be 64x64"):
        evaluate_folder(outputs, data_of(sets), ["psnr"], scale=4)


def test_a_border_that_leaves_nothing_is_an_error(sets, tmp_path):
    with pytest.raises(UserError, match="nothing is left of 64x64"):
        evaluate_folder(blurred_outputs(sets, tmp_path / "out"), data_of(sets), ["psnr"], scale=4, crop_border=32)


# ---------------------------------------------------------------- networks


def test_a_network_is_scored_as_its_saved_pngs_are(sets, tmp_path):
    data = data_of(sets, degradation={"preset": "bicubic"})
    net = Nearest().train()
    direct = evaluate(net, data, ["psnr", "ssimc"], scale=2, save_dir=tmp_path / "sr")
    again = evaluate_folder(tmp_path / "sr", data, ["psnr", "ssimc"], scale=2)
    for column in direct.columns:
        assert np.array_equal(direct.values[column], again.values[column]), column
    assert net.training and net.gain.grad is None


def test_metrics_see_8_bit(sets):
    spy = Spy("NR")
    evaluate(Nearest(), data_of(sets, degradation={"preset": "bicubic"}), [spy], scale=2)
    levels = spy.seen[0][1] * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


def test_a_synthesised_lq_depends_on_the_name_only(tmp_path):
    both = data_of(make_sets(tmp_path / "both", n=2, size=64), degradation={"preset": "hggt"})
    root = make_sets(tmp_path / "one", n=2, size=64)
    for path in [*root.rglob("*.png"), *root.rglob("*.json")]:
        if not path.name.startswith(names_of(tmp_path / "both")[1]):
            path.unlink()
    one = data_of(root, degradation={"preset": "hggt"})
    second = low_quality(evaluation.load_sets(both)[0], 1, both, 4)
    assert np.array_equal(second, low_quality(evaluation.load_sets(one)[0], 0, one, 4)) and second.shape == (16, 16, 3)


def test_a_given_lq_is_used(sets, tmp_path):
    for name in names_of(sets):
        save(tmp_path / "lq" / f"{name}.png", picture(32, 9))
    data = data_of(sets, dataroot_lq=tmp_path / "lq")
    spy = Spy("NR")
    result = evaluate(Nearest(), data, [spy], scale=2, max_images=2)
    expected = torch.from_numpy(picture(32, 9)).float().div(255).permute(2, 0, 1)[None]
    assert torch.allclose(spy.seen[0][1][..., ::2, ::2], expected, atol=1e-6)
    assert len(result.names) == 2 and result.source["lq"].startswith("given")


def test_no_lq_and_no_recipe_is_an_error(sets):
    with pytest.raises(UserError, match="has no LQ; give dataroot_lq, or degradation"):
        evaluate(Nearest(), data_of(sets), ["psnr"], scale=2)


def test_sizes_that_the_scale_does_not_divide_lose_their_last_rows(tmp_path):
    root = make_sets(tmp_path, n=1, size=66)
    result = evaluate(Nearest(4), data_of(root, degradation={"preset": "bicubic"}), ["psnr"], scale=4, save_dir=tmp_path / "sr")
    assert read_image(tmp_path / "sr" / f"{result.names[0]}.png").shape == (64, 64, 3) and result.mean("psnr") > 5


# ---------------------------------------------------------------- processes


def test_shares_of_two_processes_make_the_whole(sets, tmp_path, monkeypatch):
    outputs, data = blurred_outputs(sets, tmp_path / "out"), data_of(sets)
    whole = evaluate_folder(outputs, data, ["psnr"], scale=4)
    sent = []

    class Left(Exception):
        pass

    def leave(items):
        sent.extend(items)
        raise Left

    monkeypatch.setattr(evaluation, "share", lambda n: range(1, n, 2))
    monkeypatch.setattr(evaluation, "gather_objects", leave)
    with pytest.raises(Left):
        evaluate_folder(outputs, data, ["psnr"], scale=4)
    assert len(sent) == 1
    monkeypatch.setattr(evaluation, "share", lambda n: range(0, n, 2))
    monkeypatch.setattr(evaluation, "gather_objects", lambda items: [*items, *sent])
    merged = evaluate_folder(outputs, data, ["psnr"], scale=4)
    assert merged.names == whole.names and np.array_equal(merged.values["psnr"], whole.values["psnr"])


WORKER = """
import sys
from pathlib import Path
from sr_iqa.config.models import DataOptions
from sr_iqa.distributed import rank, world_size
from sr_iqa.evaluation import evaluate_folder
assert world_size() == 2
root, outputs, out = map(Path, sys.argv[1:])
data = DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels")
evaluate_folder(outputs, data, ["psnr"], scale=4).write_json(out / f"{rank()}.json")
"""


@pytest.mark.slow
def test_two_real_processes(sets, tmp_path):
    outputs = blurred_outputs(sets, tmp_path / "out")
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(script), str(sets), str(outputs), str(tmp_path)], check=True, env=environment, timeout=300)
    evaluate_folder(outputs, data_of(sets), ["psnr"], scale=4).write_json(tmp_path / "one.json")
    assert (tmp_path / "0.json").read_text() == (tmp_path / "1.json").read_text() == (tmp_path / "one.json").read_text()


# ---------------------------------------------------------------- Gold Standard, labels


def test_gold_standard_is_the_mean_of_each_sets_best(sets):
    nr = Spy("NR")
    found = gold_standard(data_of(sets), [nr, Spy("FR")], scale=4)
    assert set(found) == {"spy_NR", "grid"}
    best = {}
    for name in names_of(sets):
        files = {"original": f"original/{name}.png", **{f"{k:02d}": f"{k:02d}/{name}_{k:02d}.png" for k in range(1, 5)}}
        best[name] = max((read_image(sets / "images" / file).mean() / 255, gt) for gt, file in files.items())
    gold = found["spy_NR"]
    assert gold["mean"] == pytest.approx(np.mean([value for value, _ in best.values()]), abs=1e-5)
    assert gold["best"] == {name: gt for name, (_, gt) in best.items()}
    assert set(gold["scores"][names_of(sets)[0]]) == {"original", "01", "02", "03", "04"}


def test_gold_standard_takes_the_lowest_where_lower_is_better(sets):
    nr = Spy("NR")
    nr.lower_better = True
    gold = gold_standard(data_of(sets), [nr], scale=4)["spy_NR"]
    for name, scores in gold["scores"].items():
        assert gold["per_image"][name] == min(scores.values())


def test_describe_sets(sets):
    first = describe_sets(data_of(sets))[names_of(sets)[0]]
    assert first == {"source": "0000", "labels": {"01": P, "02": P, "03": S, "04": N}}


# ---------------------------------------------------------------- the grid measure


def photo():
    """A clean piece of a photo, (1, 3, 128, 128)."""
    from skimage import data

    piece = cv2.GaussianBlur(data.chelsea()[100:228, 100:228], (0, 0), 0.8)  # the blur removes the grid of its JPEG
    return torch.from_numpy(piece).permute(2, 0, 1)[None].float() / 255


def tiled(pattern, amplitude):
    """`pattern` (p, p) repeated over 128 x 128, in levels of 255."""
    return torch.as_tensor(np.tile(pattern, (128 // len(pattern),) * 2), dtype=torch.float32)[None, None] * amplitude / 255


def test_grid_tells_a_mosaic_from_a_clean_photo():
    pattern = np.random.default_rng(0).normal(size=(4, 4))
    clean = grid(photo(), 4)
    assert clean < 0.1
    values = [grid((photo() + tiled(pattern, a)).clamp(0, 1), 4) for a in (2, 4, 8)]
    assert values[0] > 3 * clean and values[0] < values[1] < values[2]


def test_grid_sees_a_checkerboard_whose_strength_is_the_same_everywhere():
    checkerboard = np.indices((2, 2)).sum(0) % 2 * 2 - 1
    assert grid(photo() + tiled(checkerboard, 2), 4) > 3 * grid(photo(), 4)


def test_grid_sees_detail_that_differs_by_phase():
    noise = torch.randn(1, 1, 128, 128) * 4 / 255
    uneven = noise * (1 + tiled(np.array([[0.8, -0.8], [-0.8, 0.8]]), 255))
    assert grid(photo() + uneven, 4) > 2.5 * grid(photo() + noise, 4)


def test_noise_without_a_grid_is_no_grid():
    assert grid(photo() + torch.randn(1, 3, 128, 128) * 5 / 255, 4) < 0.1


def test_grid_ignores_shift_and_contrast_and_flat_images():
    image = photo() + tiled(np.random.default_rng(0).normal(size=(4, 4)), 4)
    assert grid(image[..., 4:, 4:], 4) == pytest.approx(float(grid(image[..., 3:-1, 3:-1], 4)), rel=0.05)
    assert grid(0.5 * image + 0.2, 4) == pytest.approx(float(grid(image, 4)), rel=1e-4)
    assert grid(torch.full((2, 3, 32, 32), 0.3), 4).tolist() == [0, 0]


def test_grid_refuses_what_it_cannot_measure():
    with pytest.raises(UserError, match="too small"):
        grid(torch.zeros(1, 3, 8, 8), 4)
    with pytest.raises(UserError, match="at least 2"):
        grid(torch.zeros(1, 3, 32, 32), 1)

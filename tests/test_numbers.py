"""Numbers and sizes at the edge: NaN, infinity, constant images, one pixel, sides that divide by nothing, and other kinds of images."""

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sr_iqa.archs import build_network
from sr_iqa.checkpoints import CheckpointError, load_into, load_network, load_weights, save_weights
from sr_iqa.config.models import DataOptions, Options
from sr_iqa.data.packing import pack
from sr_iqa.data.sets import load_sets, verify
from sr_iqa.errors import UserError
from sr_iqa.evaluation import evaluate, gold_standard
from sr_iqa.images import ImageError, read_image, read_image_lenient, to_uint8, write_png
from sr_iqa.inference import infer_folder, upscale
from sr_iqa.iqa.crop_scores import score_all_crops
from sr_iqa.iqa.metrics import create_metric, metric_info
from sr_iqa.iqa.scores import read_scores, score_sets
from sr_iqa.training.trainer import train
from tests.helpers import picture
from tests.tiny_runs import GAN, RRDB, SWINIR, lines, losses, merge, run, tiny

NAN, INF = float("nan"), float("inf")


def single(folder, **more):
    return DataOptions.model_validate({"type": "single_gt", "dataroot_gt": folder, "degradation": {"preset": "bicubic"}, **more})


def trained(root, name, data, *changes):
    """A tiny run on other training data; its losses. `data` are all of its options but the usual ones."""
    usual = {"gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "degradation": {"preset": "bicubic"}}
    options = tiny(root, name).model_dump(mode="json")
    options["datasets"] = {"train": {**usual, **data}}
    for change in changes:
        options = merge(options, change)
    return losses(train(Options.model_validate(options), quiet=True))


def all_finite(found):
    return all(np.isfinite(value) for line in found.values() for key, value in line.items() if key not in ("chosen", "standings"))


# ---------------------------------------------------------------- NaN and infinity


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_weights_that_are_not_finite_are_named(tmp_path, value, suffix, dtype):
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in build_network(RRDB).state_dict().items()}
    for name in ("conv_first.weight", "conv_last.bias"):
        state[name].view(-1)[1] = value
    path = tmp_path / f"a{suffix}"
    torch.save({"params": state}, path) if suffix == ".pth" else save_weights(path, state, {})
    for reading in (load_weights, load_network, lambda path: load_into(build_network(RRDB), path, strict=False)):
        with pytest.raises(CheckpointError, match=rf"a\{suffix}: 2 of \d+ tensors hold NaN or infinity: conv_first.weight, conv_last.bias"):
            reading(path)


def test_large_weights_and_infinite_masks_are_finite_enough(tmp_path):
    state = {"a": torch.full((3,), 3e38), "b": torch.full((9,), 6e4).half(), "attn_mask": torch.tensor([0, -INF]), "n": torch.tensor(2**62)}
    save_weights(tmp_path / "a.safetensors", state, {})
    assert load_weights(tmp_path / "a.safetensors").keys() == state.keys()


def test_training_does_not_begin_with_spoilt_weights(tmp_path):
    state = build_network(SWINIR).state_dict()
    state["norm.weight"][0] = NAN
    torch.save({"params": state}, tmp_path / "spoilt.pth")
    with pytest.raises(UserError, match=r"spoilt\.pth: 1 of \d+ tensors hold NaN or infinity: norm.weight"):
        run(tmp_path, "a", {"path": {"pretrain_network_g": str(tmp_path / "spoilt.pth")}})
    assert not (tmp_path / "runs" / "a" / "models").exists()


class Constant(torch.nn.Module):
    """Answers every image with one value, at twice the size."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full((len(x), 3, 2 * x.shape[2], 2 * x.shape[3]), self.value)


def test_a_network_that_gives_nan_is_not_judged_by_black_images(tmp_path):
    write_png(tmp_path / "gt" / "a.png", picture(48))
    with pytest.raises(UserError, match="came out as NaN"):
        evaluate(Constant(NAN), single(tmp_path / "gt"), ["psnr"], 2, save_dir=tmp_path / "out")
    with pytest.raises(UserError, match="came out as NaN"):
        infer_folder(Constant(NAN), tmp_path / "gt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert to_uint8(torch.tensor([INF, -INF, 0.5]).view(3, 1, 1)).ravel().tolist() == [255, 0, 128]


class Broken(torch.nn.Module):
    """A metric that has no value for dark images."""

    def forward(self, x):
        brightness = x.mean((1, 2, 3))
        return torch.where(brightness > 0.3, brightness, NAN)


@pytest.fixture
def broken(monkeypatch):
    metric = create_metric("nano")
    metric._net = Broken()
    return metric


def test_scores_that_are_no_numbers_name_the_image(tmp_path, broken):
    for name, level in (("bright", 200), ("dark", 10)):
        write_png(tmp_path / "gt" / f"{name}.png", np.full((32, 32, 3), level, np.uint8))
    reader, sets = load_sets(single(tmp_path / "gt"))
    with pytest.raises(UserError, match=r"nano gives nan for .*dark\.png; look at the image"):
        score_sets(reader, broken, tmp_path / "scores.parquet")
    with pytest.raises(UserError, match="is not there"):
        read_scores(tmp_path / "scores.parquet", sets, "nano")


def test_a_value_that_is_nan_makes_the_mean_nan_and_the_json_stays_strict(tmp_path, broken):
    for name, level in (("bright", 200), ("dark", 10)):
        write_png(tmp_path / "gt" / f"{name}.png", np.full((32, 32, 3), level, np.uint8))
    evaluation = evaluate(torch.nn.Upsample(scale_factor=2), single(tmp_path / "gt"), [broken], 2)
    assert np.isnan(evaluation.mean("nano")) and np.isfinite(evaluation.values["nano"][0]) and " nan " in evaluation.table()
    evaluation.write_json(tmp_path / "values.json")
    values = json.loads((tmp_path / "values.json").read_text(), parse_constant=pytest.fail)
    assert values["metrics"]["nano"]["mean"] is None


# ---------------------------------------------------------------- constant images


def constant_sets(root, side=48):
    for i, level in enumerate((0, 128, 255)):
        for file in ("original", "01", "02"):
            write_png(root / file / f"c{i}{'' if file == 'original' else f'_{file}'}.png", np.full((side, side, 3), level, np.uint8))
    return {"type": "multi_gt", "dataroot_gt": str(root)}


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"datasets": {"train": {"sampling": {"strategy": "amo", "metric": "nano"}}}},
        {"train": {"reward_opt": {"metric": "nano", "weight": 0.01}}},
        GAN,
        {"datasets": {"train": {"degradation": {"preset": "realesrgan"}}}},
    ],
    ids=["plain", "amo", "reward", "gan", "realesrgan"],
)
def test_training_on_constant_images_stays_finite(tmp_path, case):
    found = trained(tmp_path, "a", constant_sets(tmp_path / "constant"), case)
    assert len(found) == 6 and all_finite(found)


def test_constant_images_are_judged_without_nan(tmp_path):
    data = DataOptions.model_validate({**constant_sets(tmp_path / "constant", side=96), "degradation": {"preset": "bicubic"}})
    metrics = ["psnr", "psnry", "ssim", "ssimc", "nano"]
    evaluation = evaluate(torch.nn.Upsample(scale_factor=2), data, metrics, 2)
    assert {name for name, values in evaluation.values.items() if not np.isfinite(values).all()} == set()
    assert evaluation.mean("ssim") == pytest.approx(1) and evaluation.mean("psnr") > 60
    assert np.isfinite(gold_standard(data, ["nano"], 2)["nano"]["mean"])


# ---------------------------------------------------------------- sizes


def sizes(folder, *found):
    for i, (height, width) in enumerate(found):
        write_png(folder / f"{i}.png", picture(128)[:height, :width])
    return folder


def test_images_smaller_than_the_crop_are_refused_from_folders_and_stores(tmp_path):
    sizes(tmp_path / "gt", (37, 53), (128, 31))
    with pytest.raises(UserError, match=r"(?s)0\.png: is 53x37, smaller than the crop.*1\.png: is 31x128, smaller"):
        trained(tmp_path, "a", {"type": "single_gt", "dataroot_gt": str(tmp_path / "gt"), "gt_size": 64})
    pack(single(tmp_path / "gt"), tmp_path / "x.lmdb")
    store = {"type": "single_gt", "dataroot_gt": str(tmp_path / "x.lmdb"), "gt_size": 64}
    with pytest.raises(UserError, match=r"0\.png: is 53x37, smaller than the crop"):
        trained(tmp_path, "b", store)
    amo = {"type": "multi_gt", "sampling": {"strategy": "amo", "metric": "nano", "grid": 2}}
    options = tiny(tmp_path, "c").model_dump(mode="json")
    options["datasets"] = {"train": {**store, **amo, "batch_size_per_gpu": 2}}
    assert "choices of 0 crops" in score_all_crops(Options.model_validate(options))
    with pytest.raises(UserError, match="smaller than the crop"):
        train(Options.model_validate(options), quiet=True)


@pytest.mark.parametrize("preset", ["bicubic", "hggt", "realesrgan"])
def test_sides_that_are_no_multiples_are_trained_and_validated_on(tmp_path, preset):
    folder = str(sizes(tmp_path / "gt", (37, 53), (33, 35), (32, 99)))
    data = {"type": "single_gt", "dataroot_gt": folder, "degradation": {"preset": preset}}
    validation = {"datasets": {"val": data}, "val": {"metrics": ["psnr", "nano"], "val_freq": 6}}
    found = trained(tmp_path, "a", data, validation)
    assert len(found) == 6 and all_finite(found)
    validated = [line["val"] for line in lines(tmp_path / "runs" / "a") if "val" in line]
    assert len(validated) == 2 and all(np.isfinite(list(values.values())).all() for values in validated)


def test_pairs_with_sides_that_are_no_multiples_are_trained_and_validated_on(tmp_path):
    write_png(tmp_path / "gt" / "a.png", picture(64)[:63, :61])
    write_png(tmp_path / "lq" / "a.png", picture(32)[:31, :30])
    data = {"type": "paired", "dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq"), "degradation": None}
    assert all_finite(trained(tmp_path, "a", data, {"datasets": {"val": data}, "val": {"metrics": ["psnr"]}}))


@pytest.mark.parametrize("network", [SWINIR, {**SWINIR, "depths": [2]}, RRDB], ids=["SwinIR", "shifted", "RRDBNet"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5), (9, 17), (16, 1)], ids=str)
@pytest.mark.parametrize("tile", [0, 4])
def test_networks_take_inputs_down_to_one_pixel(network, size, tile):
    out = upscale(build_network(network), torch.rand(1, 3, *size), tile)
    assert out.shape == (1, 3, 2 * size[0], 2 * size[1]) and out.isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_gts_that_leave_no_lq_are_refused(tmp_path, size):
    data = single(sizes(tmp_path / "gt", size))
    assert "too small for a scale of 2" in str(verify(data, 2)[0]) and verify(data) == []
    pack(data, tmp_path / "x.lmdb")
    for source in (data, data.model_copy(update={"dataroot_gt": tmp_path / "x.lmdb"})):
        with pytest.raises(UserError, match="too small for a scale of 2"):
            evaluate(build_network(SWINIR), source, ["psnr"], 2)


@pytest.mark.parametrize("size, border, words", [((9, 9), 4, "nothing is left of 8x8"), ((17, 23), 4, "ssim needs images of at least 11")])
def test_images_too_small_to_judge_are_refused(tmp_path, size, border, words):
    with pytest.raises(UserError, match=words):
        evaluate(build_network(SWINIR), single(sizes(tmp_path / "gt", size)), ["psnr", "ssim"], 2, crop_border=border)


def test_metrics_say_which_sizes_they_take():
    for name in ("ssim", "ssimc"):
        metric, smallest = create_metric(name), metric_info(name).smallest
        image = torch.rand(1, 3, smallest, smallest)
        assert metric(image, image).isfinite().all()
        with pytest.raises(UserError, match=f"{name} needs images of at least {smallest}"):
            metric(image[..., 1:], image[..., 1:])


# ---------------------------------------------------------------- kinds of images


def kinds(folder):
    """File name -> what training says of it; None for what it takes."""
    folder.mkdir(parents=True)
    rgb = picture(32)
    gray = Image.fromarray(rgb[..., 0])
    gray.save(folder / "gray.png")
    gray.save(folder / "gray.jpg")
    gray.convert("1").save(folder / "bits.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(folder / "alpha.png")
    Image.fromarray(rgb[..., :2], "LA").save(folder / "gray_alpha.png")
    Image.fromarray(rgb).save(folder / "transparent.png", transparency=(1, 2, 3))
    Image.fromarray(rgb).quantize(16).save(folder / "palette.png")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rgb).save(folder / "colour.jpg")
    cv2.imwrite(str(folder / "deep.png"), rgb.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "deep_gray.png"), rgb[..., 0].astype(np.uint16) * 257)
    refused = {"gray.png": "gray", "gray.jpg": "gray", "bits.png": "gray", "alpha.png": "alpha", "gray_alpha.png": "alpha"}
    refused |= {"transparent.png": "alpha", "cmyk.jpg": "CMYK", "deep.png": "16-bit", "deep_gray.png": "16-bit"}
    return {**refused, "palette.png": None, "colour.jpg": None}


def test_kinds_of_images_that_training_refuses_and_inference_takes(tmp_path):
    expected = kinds(tmp_path / "kinds")
    for name, words in expected.items():
        path = tmp_path / "kinds" / name
        lenient = read_image_lenient(path)
        assert lenient.shape == (32, 32, 3) and lenient.dtype == np.uint8
        if words is None:
            assert read_image(path).shape == (32, 32, 3)
            continue
        with pytest.raises(ImageError, match=rf"{name}: .*{words}.*; convert it to 8-bit RGB"):
            read_image(path)
    assert np.array_equal(
        read_image(tmp_path / "kinds" / "palette.png"), np.asarray(Image.open(tmp_path / "kinds" / "palette.png").convert("RGB"))
    )


@pytest.mark.parametrize("name, words", [("cmyk.jpg", "CMYK"), ("deep.png", "16-bit"), ("bits.png", "gray")])
def test_verify_and_training_say_the_same_of_other_kinds(tmp_path, name, words):
    kinds(tmp_path / "kinds")
    (tmp_path / "gt").mkdir()
    (tmp_path / "kinds" / name).rename(tmp_path / "gt" / name)
    (problem,) = verify(single(tmp_path / "gt"))
    with pytest.raises(UserError) as refusal:
        trained(tmp_path, "a", {"type": "single_gt", "dataroot_gt": str(tmp_path / "gt")})
    assert words in problem.message and str(problem) in str(refusal.value)


def test_infer_takes_every_kind(tmp_path):
    count = len({name.partition(".")[0] for name in kinds(tmp_path / "kinds")})
    (tmp_path / "kinds" / "gray.jpg").unlink()  # it would become gray.png a second time
    assert infer_folder(build_network(RRDB).eval(), tmp_path / "kinds", tmp_path / "out") == count
    assert all(read_image_lenient(path).shape == (64, 64, 3) for path in (tmp_path / "out").glob("*.png"))

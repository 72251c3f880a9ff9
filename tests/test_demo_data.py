"""The demo's data: a valid HGGT tree from real photos, split by photo, with enhancers and annotators that disagree."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from sr_iqa.data import annotators, demo, enhance
from sr_iqa.data.annotators import ANNOTATORS, Measures, measure
from sr_iqa.data.demo import make_demo_sets
from sr_iqa.errors import UserError
from sr_iqa.images import read_image, write_png

WORDS = {"Positive", "Similar", "Negative"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_demo_sets(tmp_path_factory.mktemp("demo") / "data", seed=0)


def originals(root: Path) -> list[Path]:
    return sorted((root / "images" / "original").glob("*.png"))


def labels(root: Path, name: str) -> dict[str, list[str]]:
    """EGT folder -> the words of A, B, C."""
    files = [json.loads((root / "labels" / annotator / f"{name}.json").read_text()) for annotator in "ABC"]
    pictures = [[file[f"Picture_{i}"] for file in files] for i in range(2, 6)]
    return {group[0]["File"]: [picture["Label"] for picture in group] for group in pictures}


def majority(words: list[str]) -> str:
    word, votes = Counter(words).most_common(1)[0]
    return word if votes > 1 else "Similar"


def photo_from_blocks(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (75, 100, 3), np.uint8), (400, 300), interpolation=cv2.INTER_CUBIC)


def test_the_tree_is_hggts(made):
    for root, expected in ((made.train, made.train_sets), (made.heldout, made.heldout_sets)):
        paths = originals(root)
        assert len(paths) == expected >= 12
        for path in paths:
            photo, x, y = path.stem.rsplit("-", 2)
            assert photo in made.train_photos + made.heldout_photos and x.isdigit() and y.isdigit()
            for i, folder in enumerate(("01", "02", "03", "04"), 2):
                assert read_image(root / "images" / folder / f"{path.stem}_{folder}.png").shape == (256, 256, 3)
                picture = json.loads((root / "labels" / "A" / f"{path.stem}.json").read_text())[f"Picture_{i}"]
                assert picture["Name"] == f"{path.stem}_{folder}.png" and picture["File"] == folder
            first = json.loads((root / "labels" / "B" / f"{path.stem}.json").read_text())["Picture_1"]
            assert first == {"Name": path.name, "File": "original", "Label": None}
        assert all(len(list((root / "images" / folder).iterdir())) == expected for folder in ("01", "02", "03", "04"))


def test_no_photo_is_on_both_sides(made):
    sides = [{path.stem.rsplit("-", 2)[0] for path in originals(root)} for root in (made.train, made.heldout)]
    assert sides == [set(made.train_photos), set(made.heldout_photos)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == len(demo.SHIPPED_PHOTOS)


def test_equal_seeds_make_equal_files_and_other_seeds_hold_out_other_photos(tmp_path):
    for i in range(3):
        write_png(tmp_path / "photos" / f"{i}.png", photo_from_blocks(i))
    first, again = (make_demo_sets(tmp_path / name, tmp_path / "photos", seed=0).root for name in ("first", "again"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 100 and files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    assert len({demo._split(sorted(demo.SHIPPED_PHOTOS), seed)[0] for seed in range(8)}) > 3


def test_patches_are_textured(made):
    for path in originals(made.train) + originals(made.heldout):
        gray = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY).astype(np.float32)
        assert gray.std() >= demo.MIN_GRAY_STD and cv2.Laplacian(gray, cv2.CV_32F).var() >= demo.MIN_LAPLACIAN_VARIANCE


def test_annotators_are_marked_as_rules_and_disagree(made):
    for annotator, taste in ANNOTATORS.items():
        files = list((made.train / "labels" / annotator).iterdir())
        assert len(files) == made.train_sets and taste.rule.startswith("rule:")
        assert all(json.loads(file.read_text())["Annotator"] == taste.rule for file in files)
    words = [word for path in originals(made.train) for word in labels(made.train, path.stem).values()]
    assert set().union(*words) == WORDS
    split = Counter(len(set(group)) for group in words)
    assert split[1] and split[2] and split[3]  # agreement, majorities and ties all occur


def test_sets_without_a_positive_occur_and_no_enhancer_is_always_positive(made):
    effective = [{f: majority(w) for f, w in labels(made.train, path.stem).items()} for path in originals(made.train)]
    positives = Counter(list(words.values()).count("Positive") for words in effective)
    assert positives[0] >= 2 and sum(count for k, count in positives.items() if k >= 2) >= 10
    for folder in ("01", "02", "03", "04"):
        assert 0 < sum(words[folder] == "Positive" for words in effective) < len(effective)


def test_the_best_enhancer_differs_by_region(made):
    """By sharpness gained less overshoot and noise, on quarters of the patches: several enhancers win, within one set too."""
    wins, sets_with_several = Counter(), 0
    for path in originals(made.train):
        original = enhance.luma(read_image(path).astype(np.float32) / 255)
        others = [read_image(path.parents[1] / f / f"{path.stem}_{f}.png") for f in ("01", "02", "03", "04")]
        others = [enhance.luma(image.astype(np.float32) / 255) for image in others]
        best = set()
        for box in (np.s_[y : y + 128, x : x + 128] for y in (0, 128) for x in (0, 128)):
            found = [measure(original[box], image[box]) for image in others]
            best.add(int(np.argmax([m.gain - 0.15 * m.halo - 0.2 * m.noise for m in found])))
            wins[int(np.argmax([m.gain - 0.15 * m.halo - 0.2 * m.noise for m in found]))] += 1
        sets_with_several += len(best) > 1
    assert len(wins) >= 3 and max(wins.values()) <= 0.7 * sum(wins.values()), wins
    assert sets_with_several >= 0.3 * made.train_sets


def test_one_enhancer_visibly_overdoes_it_in_places(made):
    halos = []
    for path in originals(made.train) + originals(made.heldout):
        original, strong = (read_image(p).astype(np.float32) / 255 for p in (path, path.parents[1] / "02" / f"{path.stem}_02.png"))
        halos.append(measure(enhance.luma(original), enhance.luma(strong)).halo)
    assert np.quantile(halos, 0.75) > 6 and np.quantile(halos, 0.1) < 4


def test_measures_see_sharpening_halos_noise_and_tone():
    rng = np.random.default_rng(0)
    image = enhance.luma(photo_from_blocks(3).astype(np.float32) / 255)
    sharp = np.clip(image + 1.5 * (image - enhance.blur(image, 2)), 0, 1).astype(np.float32)
    noisy = np.clip(image + rng.normal(0, 0.03, image.shape), 0, 1).astype(np.float32)
    assert measure(image, image) == Measures(0, 0, 0, 0)
    assert measure(image, sharp).gain > 0.5 and measure(image, sharp).halo > 1
    assert measure(image, noisy).noise > 1
    assert measure(image, 0.9 * image).shift > 5 and measure(image, enhance.blur(image, 2)).gain < -0.5


def test_labels_know_no_metric():
    source = Path(annotators.__file__).read_text() + Path(enhance.__file__).read_text() + Path(demo.__file__).read_text()
    assert "iqa." not in source.replace("sr_iqa.", "") and "nano" not in source


def test_the_users_photos_are_used(tmp_path):
    for i in range(3):
        write_png(tmp_path / "photos" / f"holiday-{i}.png", photo_from_blocks(i))
    write_png(tmp_path / "photos" / "blank.png", np.full((300, 400, 3), 128, np.uint8))
    data = make_demo_sets(tmp_path / "out", tmp_path / "photos", seed=1)
    assert sorted(data.train_photos + data.heldout_photos) == ["holiday-0", "holiday-1", "holiday-2"]
    assert data.train_sets == len(originals(data.train)) == 24 and data.heldout_sets == 12
    assert make_demo_sets(tmp_path / "out", tmp_path / "photos", seed=1) == data
    with pytest.raises(UserError, match="not made from these photos with seed 2"):
        make_demo_sets(tmp_path / "out", tmp_path / "photos", seed=2)


def test_photos_may_be_held_out_by_the_user(tmp_path):
    for i in range(18):
        write_png(tmp_path / "train" / f"t{i}.png", photo_from_blocks(i % 3))
    write_png(tmp_path / "val" / "v.png", photo_from_blocks(0))
    data = make_demo_sets(tmp_path / "out", tmp_path / "train", heldout=tmp_path / "val", patches_per_photo=2)
    assert len(data.train_photos) == 18 and data.train_sets == len(originals(data.train)) == 36
    assert data.heldout_photos == ("v",) and data.heldout_sets == len(originals(data.heldout)) == 2
    with pytest.raises(UserError, match="not made from these photos"):
        make_demo_sets(tmp_path / "out", tmp_path / "train", heldout=tmp_path / "val", patches_per_photo=3)
    write_png(tmp_path / "val" / "t4.png", photo_from_blocks(1))
    with pytest.raises(UserError, match="t4 is among the training photos too"):
        make_demo_sets(tmp_path / "other", tmp_path / "train", heldout=tmp_path / "val")
    write_png(tmp_path / "flat" / "blank.png", np.full((300, 400, 3), 128, np.uint8))
    with pytest.raises(UserError, match="found 18 and 0"):
        make_demo_sets(tmp_path / "other", tmp_path / "train", heldout=tmp_path / "flat")


def test_too_few_photos_and_shared_names_are_refused(tmp_path):
    write_png(tmp_path / "photos" / "one.png", photo_from_blocks(0))
    with pytest.raises(UserError, match="at least two photos"):
        make_demo_sets(tmp_path / "out", tmp_path / "photos")
    write_png(tmp_path / "photos" / "one.jpg", photo_from_blocks(1))
    with pytest.raises(UserError, match="share the name one"):
        make_demo_sets(tmp_path / "out", tmp_path / "photos")
    assert not (tmp_path / "out").exists()


def test_photos_are_brought_to_one_scale(tmp_path):
    write_png(tmp_path / "large.png", np.zeros((1000, 1600, 3), np.uint8))
    write_png(tmp_path / "small.png", np.zeros((120, 160, 3), np.uint8))
    assert demo.load_photo(tmp_path / "large.png").shape == (500, 800, 3)
    assert demo.load_photo(tmp_path / "small.png").shape == (240, 320, 3)
    assert demo.enlarge_photos(tmp_path, tmp_path / "x2") == 2
    assert read_image(tmp_path / "x2" / "small.png").shape == (240, 320, 3)

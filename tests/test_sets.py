import json
import shutil

import cv2
import numpy as np
import pytest

from sr_iqa.config.models import DataOptions, TrainDataOptions
from sr_iqa.data.gtset import effective_label
from sr_iqa.data.sets import find_sets, load_sets, statistics, verify
from sr_iqa.errors import UserError

from .helpers import label_file, make_sets, picture, save


def options(root, **more):
    return DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels", **more)


@pytest.mark.parametrize(
    "words, effective",
    [
        ("PPP", "Positive"),
        ("PPS", "Positive"),
        ("NPN", "Negative"),
        ("PSN", "Similar"),
        ("NPS", "Similar"),
        ("P", "Positive"),
        ("PN", "Similar"),
        ("PP", "Positive"),
        ("PPNN", "Similar"),
        ("PPSN", "Positive"),
        ("PPNNS", "Similar"),
        ("NNNPP", "Negative"),
        ("", "Similar"),
    ],
)
def test_effective_label_is_the_majority_and_similar_on_ties(words, effective):
    names = {"P": "Positive", "S": "Similar", "N": "Negative"}
    assert effective_label(tuple(names[w] for w in words)) == effective


def test_hggt_layout_is_found_sorted_with_labels(tmp_path):
    root = make_sets(tmp_path, n=12, k=4)
    sets = find_sets(options(root))
    names = [s.name for s in sets]
    assert names == sorted(names) and len(names) == 12
    first = sets[0]
    assert [p.name for p in first.paths] == [f"{first.name}.png", *(f"{first.name}_{j:02d}.png" for j in range(1, 5))]
    assert first.labels == (("Positive",) * 3, ("Similar",) * 3, ("Negative",) * 3, ("Negative",) * 3)
    assert first.positive.tolist() == [False, True, False, False, False]
    assert first.negative.tolist() == [False, False, False, True, True]
    assert first.source == "0000" and first.lq is None


@pytest.mark.parametrize("k, annotators", [(0, ("A",)), (1, ("A",)), (2, ("A", "B")), (6, ("A", "B", "C", "D", "E"))])
def test_any_number_of_egts_and_annotators(tmp_path, k, annotators):
    sets = find_sets(options(make_sets(tmp_path, n=2, k=k, annotators=annotators)))
    assert [len(s.paths) for s in sets] == [k + 1] * 2
    assert all(len(words) == len(annotators) for s in sets for words in s.labels) and len(sets[0].labels) == k


def test_agreement_is_the_share_behind_the_effective_label(tmp_path):
    root = make_sets(tmp_path, n=1, k=2, annotators=("A", "B", "C"))
    name = find_sets(options(root))[0].name
    (root / "labels" / "B" / f"{name}.json").write_text(json.dumps(label_file(name, ["Negative", "Similar"])))
    gt_set = find_sets(options(root))[0]
    assert gt_set.effective == ("Positive", "Similar")
    assert gt_set.agreement(1) == pytest.approx(2 / 3) and gt_set.agreement(2) == 1


def test_without_labels_nothing_is_positive(tmp_path):
    root = make_sets(tmp_path, n=1)
    gt_set = find_sets(DataOptions(type="multi_gt", dataroot_gt=root / "images"))[0]
    assert gt_set.labels == () and not gt_set.positive.any() and len(gt_set.positive) == 5


def test_single_and_paired_folders(tmp_path):
    for i in range(3):
        save(tmp_path / "gt" / f"{i}.png", picture(33, i))
        save(tmp_path / "lq" / f"{i}.png", picture(16, i))
    single = find_sets(DataOptions(type="single_gt", dataroot_gt=tmp_path / "gt"))
    assert [len(s.paths) for s in single] == [1, 1, 1] and single[0].lq is None
    paired = DataOptions(type="paired", dataroot_gt=tmp_path / "gt", dataroot_lq=tmp_path / "lq")
    assert [s.lq.name for s in find_sets(paired)] == ["0.png", "1.png", "2.png"]
    assert verify(paired) == []  # 33 // 2 == 16
    with pytest.raises(UserError, match="dataroot_lq"):
        find_sets(DataOptions(type="paired", dataroot_gt=tmp_path / "gt"))


def break_everything(root):
    """Damages one set per kind of fault; returns {part of the path: part of the message}."""
    images, labels = root / "images", root / "labels"
    name = lambda i: f"{i:04d}-{16 * i}-8"  # noqa: E731
    truncated = images / "original" / f"{name(0)}.png"
    truncated.write_bytes(truncated.read_bytes()[:500])
    (images / "01" / f"{name(1)}_01.png").write_bytes(b"not an image at all")
    save(images / "02" / f"{name(2)}_02.png", picture(48))
    (images / "03" / f"{name(3)}_03.png").unlink()
    (labels / "B" / f"{name(4)}.json").unlink()
    (labels / "C" / f"{name(5)}.json").write_text('{"Picture_1": ')
    (labels / "A" / f"{name(6)}.json").write_text(json.dumps(label_file(name(6), ["Positive", "positive", "Similar", "Negative"])))
    gray = images / "04" / f"{name(7)}_04.png"
    cv2.imwrite(str(gray), cv2.imread(str(gray), 0))
    alpha = images / "original" / f"{name(8)}.png"
    cv2.imwrite(str(alpha), np.dstack([cv2.imread(str(alpha)), np.full((64, 64), 255, np.uint8)]))
    deep = images / "01" / f"{name(9)}_01.png"
    cv2.imwrite(str(deep), cv2.imread(str(deep)).astype(np.uint16) * 257)
    shutil.copy(images / "original" / f"{name(10)}.png", images / "original" / f"{name(10)}.bmp")
    save(images / "02" / "stranger_02.png", picture(64))
    (labels / "A" / f"{name(11)}.json").write_text(json.dumps(label_file(name(11), ["Positive"])))
    middle = bytearray((images / "03" / f"{name(12)}_03.png").read_bytes())
    middle[len(middle) // 2] ^= 255
    (images / "03" / f"{name(12)}_03.png").write_bytes(bytes(middle))
    return {
        f"original/{name(0)}.png": "truncated",
        f"01/{name(1)}_01.png": "not an image",
        f"02/{name(2)}_02.png": "is 48x48, but its original is 64x64",
        f"03/{name(3)}_03.png": "missing EGT",
        f"B/{name(4)}.json": "missing label file",
        f"C/{name(5)}.json": "bad JSON",
        f"A/{name(6)}.json": "wrong label 'positive' for EGT 02",
        f"04/{name(7)}_04.png": "gray",
        f"original/{name(8)}.png": "alpha",
        f"01/{name(9)}_01.png": "16-bit",
        f"original/{name(10)}": "duplicate name",
        "02/stranger_02.png": "without an original",
        f"A/{name(11)}.json": "no label for EGT 02",
        f"03/{name(12)}_03.png": "unreadable",
    }


def test_every_fault_is_found_at_once_and_training_fails_in_the_same_words(tmp_path, caplog):
    root = make_sets(tmp_path, n=15)
    faults = break_everything(root)
    problems = verify(options(root))
    assert len(problems) == len(faults)
    for path, message in faults.items():
        found = [p for p in problems if path in str(p.path)]
        assert len(found) == 1 and message in found[0].message, path
    with pytest.raises(UserError) as refusal:
        load_sets(options(root))
    for problem in problems:
        assert str(problem) in str(refusal.value)
    assert "on_bad_set: skip" in str(refusal.value)
    reader, sets = load_sets(options(root, on_bad_set="skip"))
    assert [s.name[:4] for s in sets] == ["0013", "0014"]
    assert reader.image(0, 4).shape == (64, 64, 3)
    assert "14 bad set(s) left out" in caplog.text and ", 2 used" in caplog.text


def test_long_problem_lists_are_cut(tmp_path):
    root = make_sets(tmp_path, n=25, k=1, size=16)
    shutil.rmtree(root / "labels" / "B")
    (root / "labels" / "B").mkdir()
    with pytest.raises(UserError, match=r"25 bad set\(s\)[^$]*and 5 more"):
        find_sets(options(root))
    with pytest.raises(UserError, match="no usable set left"):
        find_sets(options(root, on_bad_set="skip"))


def test_lq_faults(tmp_path):
    root = make_sets(tmp_path, n=6, k=1)
    names = [s.name for s in find_sets(options(root))]
    for i, name in enumerate(names[:5]):
        save(root / "lq" / f"{name}.png", picture(15 if i == 1 else 32 if i == 2 else 16, i))
    (root / "lq" / f"{names[3]}.png").write_bytes(b"")
    problems = {p.path.stem: p.message for p in verify(options(root, dataroot_lq=root / "lq"))}
    assert set(problems) == {names[1], names[2], names[3], names[5]}
    assert "LQ is 15x15" in problems[names[1]] and "at scale 4" in problems[names[1]] and "needs 16x16" in problems[names[2]]
    assert "unreadable" in problems[names[3]] and problems[names[5]] == "missing LQ"


def test_lqs_of_another_scale_and_gts_smaller_than_the_crop_are_found(tmp_path):
    root = make_sets(tmp_path, n=3, k=1)
    for s in find_sets(options(root)):
        save(root / "lq" / f"{s.name}.png", picture(16))
    given = options(root, dataroot_lq=root / "lq")
    assert verify(given, scale=4) == []
    assert [p.message for p in verify(given, scale=2)] == ["LQ is 16x16, but at scale 2 a GT of 64x64 needs 32x32"] * 3
    cropped = TrainDataOptions.model_validate({**options(root).model_dump(), "gt_size": 72, "batch_size_per_gpu": 1})
    assert all("is 64x64, smaller than the crop (datasets.train.gt_size: 72)" in p.message for p in verify(cropped, scale=4))
    assert len(verify(cropped, scale=4)) == 3


@pytest.mark.parametrize(
    "case, words", [("nothing", "no such folder"), ("no_original", "original"), ("empty", "no images"), ("no_annotators", "annotator")]
)
def test_wrong_folders_are_explained(tmp_path, case, words):
    root = make_sets(tmp_path, n=1)
    if case == "nothing":
        shutil.rmtree(root / "images")
    elif case == "no_original":
        (root / "images" / "original").rename(root / "images" / "source")
    elif case == "empty":
        next((root / "images" / "original").iterdir()).unlink()
    else:
        shutil.rmtree(root / "labels")
        (root / "labels").mkdir()
    with pytest.raises(UserError, match=words):
        verify(options(root))


def test_statistics_count(tmp_path):
    root = make_sets(tmp_path, n=3, k=2, labels=[["Positive", "Negative"], ["Similar", "Similar"], ["Positive", "Positive"]])
    numbers = statistics(options(root))
    assert numbers["sets"] == "3" and numbers["GTs per set"] == "3" and numbers["sizes"] == "64x64 (3)"
    assert numbers["effective labels"] == "Positive 3, Similar 2, Negative 1" and numbers["sets without a positive"] == "1"

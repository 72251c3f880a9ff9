"""Every published layout, built small: what is read from it, and what is said of its faults."""

import json
import math
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from sr_iqa.cli import app
from sr_iqa.errors import UsageError, UserError
from sr_iqa.preferences.manifest import read_manifest
from sr_iqa.preferences.readers import ImportOptions, import_preferences
from sr_iqa.preferences.table import table_rule
from tests.helpers import label_file, make_sets


def touch(root, *names):
    """Image files that nobody decodes."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")


def imported(kind, root, on_bad="stop", output="m.csv", **options):
    said = []
    result = import_preferences(kind, root, root.parent / output, ImportOptions(**options), on_bad, said.append)
    manifest = read_manifest(root.parent / output)
    assert manifest.pairs == result.manifest.pairs and manifest.mos == result.manifest.mos
    return manifest, said, list(result.lines)


def by_names(manifest):
    return {(pair.img_a.name, pair.img_b.name): pair for pair in manifest.pairs}


def test_hggt_effective_labels_and_votes(tmp_path):
    root = make_sets(tmp_path / "hggt", n=2, k=4, size=32)
    words = {
        "A": ["Positive"] * 4,
        "B": ["Positive", "Similar", "Negative", "Negative"],
        "C": ["Similar", "Negative", "Negative", "Positive"],
    }
    for annotator, labels in words.items():
        (root / "labels" / annotator / "0000-0-8.json").write_text(json.dumps(label_file("0000-0-8", labels)))
    manifest, _, lines = imported("hggt", root)
    pairs = by_names(manifest)
    got = [pairs[f"0000-0-8_{k:02d}.png", "0000-0-8.png"] for k in range(1, 5)]
    assert [pair.p_a for pair in got] == [1, 0.5, 0, 1]  # all three differ: Similar
    assert {(pair.votes, pair.content) for pair in got} == {(3, "0000")} and [pair.group for pair in got] == ["01", "02", "03", "04"]
    assert all(pair.ref == pair.img_b for pair in got)
    assert lines[0] == "8 pairs of 10 images, 2 contents"
    mean, _, _ = imported("hggt", root, votes="mean")
    got = [by_names(mean)[f"0000-0-8_{k:02d}.png", "0000-0-8.png"].p_a for k in range(1, 5)]
    assert got == pytest.approx([2.5 / 3, 1.5 / 3, 1 / 3, 2 / 3])


def test_hggt_in_its_subfolder_with_faults(tmp_path):
    root = make_sets(tmp_path / "hggt", n=3, k=2, size=32)
    for kind in ("images", "labels"):
        (root / kind).rename(root / "tmp")
        (root / kind).mkdir()
        (root / "tmp").rename(root / kind / "Test-100")
    (root / "labels" / "Test-100" / "B" / "0001-16-8.json").write_text(json.dumps(label_file("0001-16-8", ["Positive", "Great"])))
    (root / "images" / "Test-100" / "02" / "0002-32-8_02.png").unlink()
    with pytest.raises(UserError, match="2 problem"):
        imported("hggt", root)
    manifest, said, lines = imported("hggt", root, on_bad="skip")
    assert {pair.content for pair in manifest.pairs} == {"0000"} and lines[-1].startswith("problems: 2")
    assert any("wrong label 'Great'" in line and "0001-16-8.json" in line for line in said)
    assert any("missing EGT" in line and "0002-32-8_02" in line for line in said)


def diffiqa(root, labels):
    """`labels`: stem -> for each of 01, 02, ... the words of A, B, C."""
    for stem, versions in labels.items():
        touch(root, f"images/Original/{stem}.png")
        for k, words in enumerate(versions, 1):
            touch(root, f"images/{k:02d}/{stem}_{k:02d}.png")
            for annotator, word in zip("ABC", words, strict=True):
                path = root / "labels" / annotator / f"{k:02d}" / f"{stem}_{k:02d}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = {"Name": f"{stem}_{k:02d}.png", "File": f"{k:02d}", "ImageSize": [], "Label": word}
                original = {"Name": f"{stem}.png", "File": "Original", "ImageSize": [], "Label": None}
                path.write_text(json.dumps({"Picture_AI": picture, "picture_Original": original, "Time_cost": {}}))
    return root


P, S, N = "Positive", "Similar", "Negative"


def test_diffiqa_drops_what_all_judge_differently(tmp_path):
    root = diffiqa(tmp_path / "DiffIQA", {"000006x0y770": [(P, P, N), (S, S, S), (P, S, N), (N, N, S), (S, P, S)]})
    manifest, _, lines = imported("diffiqa", root)
    found = {pair.img_a.stem[-2:]: (pair.p_a, pair.group, pair.votes, pair.content) for pair in manifest.pairs}
    assert found == {
        "01": (1, "PYY", 3, "000006"),
        "02": (0.5, "SYY", 3, "000006"),
        "04": (0, "NYY", 3, "000006"),
        "05": (0.5, "SYY", 3, "000006"),
    }
    assert "left out: 1 (all annotators differ)" in lines
    derived, _, _ = imported("diffiqa", root, derived=True)
    pairs = {(a[13:15], b[13:15]): (p.p_a, p.group) for (a, b), p in by_names(derived).items() if p.votes is None}
    assert pairs == {
        **{("01", "02"): (1, "PSY"), ("01", "04"): (1, "PNY"), ("01", "05"): (1, "PSY")},
        **{("02", "04"): (1, "SNY"), ("02", "05"): (0.5, "SSY"), ("04", "05"): (0, "SNY")},
    }


def test_diffiqa_four_annotators_who_share_the_first_place_find_it_similar(tmp_path):
    root = diffiqa(tmp_path / "DiffIQA", {"1x0y0": [(P, P, N)]})
    shutil.copytree(root / "labels" / "C", root / "labels" / "D")
    manifest, _, _ = imported("diffiqa", root)
    assert [(pair.p_a, pair.group, pair.votes) for pair in manifest.pairs] == [(0.5, "SYY", 4)]


def test_diffiqa_missing_and_wrong_label_files_are_named(tmp_path):
    root = diffiqa(tmp_path / "DiffIQA", {"1x0y0": [(P, P, P), (S, S, S)], "2x0y0": [(N, N, N), (N, N, N)]})
    (root / "labels/B/01/1x0y0_01.json").unlink()
    (root / "labels/C/02/2x0y0_02.json").write_text("{")
    (root / "images/02/1x0y0_02.png").unlink()
    manifest, said, _ = imported("diffiqa", root, on_bad="skip")
    assert [pair.img_a.name for pair in manifest.pairs] == ["2x0y0_01.png"]
    for words in ("B/01/1x0y0_01.json: missing label file", "C/02/2x0y0_02.json: bad JSON", "02/1x0y0_02.png: missing image (1 pairs)"):
        assert any(words in line for line in said), words


def test_diffiqa_triplet_lists(tmp_path):
    root = diffiqa(tmp_path / "DiffIQA", {"000006x0y32": [(P, P, P)] * 3})
    lists = tmp_path / "TripletEachType"
    lists.mkdir()
    (lists / "PNY.txt").write_text("000006x0y32_01.png,000006x0y32_03.png,000006x0y32.png,0\n")
    (lists / "SYY.txt").write_text("000006x0y32_02.png,000006x0y32.png,000006x0y32.png,0.5\n\n")
    (tmp_path / "Triplet.txt").write_text("000006x0y32_02.png,000006x0y32_03.png,000006x0y32.png,1,0.5,0\n")
    manifest, _, _ = imported("diffiqa", root, lists=(lists, tmp_path / "Triplet.txt"))
    found = [(str(p.img_a.relative_to(root)), p.img_b.parent.name, p.p_a, p.group, p.ref.parent.name) for p in manifest.pairs]
    assert found == [
        ("images/01/000006x0y32_01.png", "03", 0, "PNY", "Original"),
        ("images/02/000006x0y32_02.png", "Original", 0.5, "SYY", "Original"),
        ("images/02/000006x0y32_02.png", "03", 1, "", "Original"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a_01.png,a_02.png,a.png,0.7", "s12 is 0.7"),
        ("a_01.png,a_02.png,a.png,better", "s12 is 'better', not a number"),
        ("a_01.png,a_02.png,a.png", "3 values"),
        ("a_01.png,../../etc/a_02.png,a.png,1", "'..' leads elsewhere"),
        ("a_01.png,sub/a_02.png,a.png,1", "is a path"),
        ("a_01.png,a_01.png,a.png,1", "same image"),
    ],
)
def test_bad_triplet_lines_are_named(tmp_path, line, message):
    root = diffiqa(tmp_path / "DiffIQA", {"a": [(P, P, P)] * 2})
    (tmp_path / "T.txt").write_text(f"a_01.png,a_02.png,a.png,1\n{line}\n")
    manifest, said, _ = imported("diffiqa", root, on_bad="skip", lists=(tmp_path / "T.txt",))
    assert len(manifest.pairs) == 1 and len(said) == 1 and "T.txt: line 2: " in said[0] and message in said[0]


def sriqa(root, folder_of, mark=","):
    scores = {"SwinIRx4": 40.5, "RealESRNetx4": 30, "SUPIRx4": 80, "Original": 80}
    for scene in ("x1", "x10"):
        for token in scores:
            touch(root, f"images/{folder_of(token)}/{scene}_{token}.png")
        for folder, tokens in {"MOS": list(scores), "MOS_Reg": ["SwinIRx4", "RealESRNetx4"], "MOS_Gen": ["SUPIRx4", "Original"]}.items():
            (root / folder).mkdir(exist_ok=True)
            lines = [f"{scene}_{token}.png{mark}{scores[token] + (folder != 'MOS')}" for token in tokens]
            (root / folder / f"{scene}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("folder_of", [lambda token: token, lambda token: token.removesuffix("x4")])
@pytest.mark.parametrize("mark", [",", " "])
def test_sriqa_bench(tmp_path, folder_of, mark):
    manifest, _, lines = imported("sriqa", sriqa(tmp_path / "SRIQA-Bench", folder_of, mark))
    pairs = {(p.group, p.img_a.stem, p.img_b.stem): p for p in manifest.pairs}
    assert len(pairs) == 2 * (math.comb(4, 2) + 1 + 1)
    assert pairs["Reg", "x1_SwinIRx4", "x1_RealESRNetx4"].p_a == 1 and pairs["All", "x10_SwinIRx4", "x10_SUPIRx4"].p_a == 0
    assert pairs["Gen", "x1_SUPIRx4", "x1_Original"].p_a == 0.5
    assert {p.ref.name for p in manifest.pairs} == {"x1_Original.png", "x10_Original.png"} and {p.content for p in manifest.pairs} == {
        "x1",
        "x10",
    }
    assert {path.stem: value for path, value in manifest.mos.items()}["x1_SwinIRx4"] == 40.5  # of MOS, not of MOS_Reg
    assert "groups: All 12, Gen 2, Reg 2" in lines


def test_sriqa_names_in_any_case(tmp_path):
    root = sriqa(tmp_path / "SRIQA-Bench", str.lower)
    for path in (root / "images" / "supirx4").iterdir():
        path.rename(path.with_suffix(".PNG"))
    manifest, _, _ = imported("sriqa", root)
    assert len(manifest.pairs) == 16 and {path.suffix for path in manifest.images} == {".png", ".PNG"}


def test_sriqa_faults(tmp_path):
    root = sriqa(tmp_path / "SRIQA-Bench", str)
    (root / "MOS" / "x1.txt").write_text(
        "x1_SwinIRx4.png,40\nx1_Newx4.png,1\nx1_SUPIRx4.png,high\n../x1_SUPIRx4.png,1\nx1_Original.png 9 9\nx1_SwinIRx4.png,40\n"
    )
    with pytest.raises(UserError, match="5 problem"):
        imported("sriqa", root)
    _, said, _ = imported("sriqa", root, on_bad="skip")
    for n, words in enumerate(
        ("no image named 'x1_Newx4.png'", "'high', not a number", "no image named '../", "3 values", "is there twice"), 2
    ):
        assert f"x1.txt: line {n}: " in said[n - 2] and words in said[n - 2]


def test_kadid(tmp_path):
    root = tmp_path / "kadid10k"
    scores = {"I01_01_01": 4.57, "I01_01_02": 4.33, "I01_02_01": 4.57, "I02_01_01": 1.2, "I02_01_02": 3}
    touch(root, *(f"images/{name}.png" for name in (*scores, "I01", "I02")))
    rows = "".join(f"{name}.png,{name[:3]}.png,{score},0.5\n" for name, score in scores.items())
    (root / "dmos.csv").write_text("dist_img,ref_img,dmos,var\n" + rows)
    manifest, _, _ = imported("kadid", root, output="m.parquet")
    pairs = {(p.img_a.stem, p.img_b.stem): (p.p_a, p.ref.stem, p.content) for p in manifest.pairs}
    assert pairs == {
        ("I01_01_01", "I01_01_02"): (1, "I01", "i01"),
        ("I01_01_01", "I01_02_01"): (0.5, "I01", "i01"),
        ("I01_01_02", "I01_02_01"): (0, "I01", "i01"),
        ("I02_01_01", "I02_01_02"): (0, "I02", "i02"),
    }
    assert {path.stem: value for path, value in manifest.mos.items()} == scores
    with_refs, _, _ = imported("kadid", root, references=True)
    added = {(p.img_a.stem, p.img_b.stem): (p.p_a, p.ref.stem, p.content) for p in with_refs.pairs}
    assert added == pairs | {(name, name[:3]): (0, name[:3], name[:3].lower()) for name in scores}
    assert {path.stem: value for path, value in with_refs.mos.items()} == scores
    apart, _, lines = imported("kadid", root, least_gap=0.1, per_content=1)
    assert len(apart.pairs) == 2 and all(p.p_a != 0.5 for p in apart.pairs) and "left out: 1 (scores too close)" in lines
    (root / "dmos.csv").write_text("dist_img,ref_img,score\n")
    with pytest.raises(UserError, match="no column dmos"):
        imported("kadid", root)
    (root / "dmos.csv").write_text("dist_img,ref_img,dmos,var\n" + rows)
    with pytest.raises(UserError, match=r"no pairs were found in it; left out: 4 \(scores too close\)"):
        imported("kadid", root, least_gap=9)


def test_pipal(tmp_path):
    root = tmp_path / "PIPAL"
    touch(
        root,
        "Train_Ref/A0001.bmp",
        "Train_Ref/A0002.bmp",
        "Distortion_1/A0001_00_00.bmp",
        "Distortion_1/A0001_00_01.bmp",
        "Distortion_2/A0002_00_00.bmp",
    )
    (root / "Train_Label").mkdir()
    (root / "Train_Label" / "A0001.txt").write_text("A0001_00_00.bmp,1520.0648\nA0001_00_01.bmp,1437.0798\n")
    (root / "Train_Label" / "A0002.txt").write_text("A0002_00_00.bmp,1400.0\nA0002_00_01.bmp,1500.0\nA0002_00_00.bmp\n")
    manifest, said, _ = imported("pipal", root, on_bad="skip")
    (pair,) = manifest.pairs
    assert (pair.img_a.name, pair.p_a, pair.ref.name, manifest.mos[pair.img_b]) == ("A0001_00_00.bmp", 1, "A0001.bmp", 1437.0798)
    assert "line 2: no image named 'A0002_00_01.bmp'" in said[0] and "line 3: the score is '', not a number" in said[1]


def test_tid2013_in_any_case(tmp_path):
    root = tmp_path / "tid2013"
    touch(
        root,
        "distorted_images/i01_01_1.bmp",
        "distorted_images/I01_01_2.BMP",
        "distorted_images/i25_24_5.bmp",
        "distorted_images/i25_01_1.bmp",
    )
    touch(root, "reference_images/I01.BMP", "reference_images/i25.bmp")
    (root / "mos_with_names.txt").write_text("5.51429 I01_01_1.bmp\r\n5.56757 i01_01_2.bmp\r\n2.5 i25_24_5.bmp\r\n1.5 I25_01_1.bmp\r\n")
    manifest, _, _ = imported("tid2013", root)
    pairs = [(p.img_a.name, p.img_b.name, p.p_a, p.ref.name, p.content) for p in manifest.pairs]
    assert pairs == [("i01_01_1.bmp", "I01_01_2.BMP", 0, "I01.BMP", "i01"), ("i25_24_5.bmp", "i25_01_1.bmp", 1, "i25.bmp", "i25")]


def koniq(root, n=45):
    values = np.random.default_rng(0).uniform(1, 5, n).round(6)
    touch(root, *(f"512x384/{i}.jpg" for i in range(n)))
    head = '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n'
    rows = "".join(f'"{i}.jpg",0,0,25,73,7,105,{value},0.5,{20 * value}\n' for i, value in enumerate(values))
    (root / "koniq10k_scores_and_distributions.csv").write_text(head + rows)
    return values


def test_koniq_pairs_lie_within_blocks(tmp_path):
    root = tmp_path / "koniq"
    values = koniq(root)
    manifest, _, _ = imported("koniq", root, block=10, per_content=12, seed=3)
    blocks = {}
    for pair in manifest.pairs:
        a, b = values[int(pair.img_a.stem)], values[int(pair.img_b.stem)]
        assert pair.p_a == (a > b) and abs(a - b) >= 0.5 and pair.ref is None
        for image in (pair.img_a, pair.img_b):
            assert blocks.setdefault(image, pair.content) == pair.content
    assert len(manifest.pairs) == 48 and len(set(blocks.values())) == 4
    again, other = (
        imported("koniq", root, block=10, per_content=12, seed=3)[0],
        imported("koniq", root, block=10, per_content=12, seed=4)[0],
    )
    assert again == manifest and other != manifest
    zscores, _, _ = imported("koniq", root, mos_column="MOS_zscore", block=10)
    assert max(zscores.mos.values()) == pytest.approx(20 * values.max())
    lists = root / "koniq10k_scores_and_distributions.csv"
    lists.write_text(lists.read_text() + lists.read_text().splitlines()[3] + "\n")
    _, said, _ = imported("koniq", root, on_bad="skip", block=10)
    assert len(said) == 1 and "line 47: 2.jpg is there twice" in said[0]
    with pytest.raises(UserError, match="no column mos"):
        imported("koniq", root, mos_column="mos")
    with pytest.raises(UsageError, match="--block"):
        imported("koniq", root, block=1)


def test_any_table(tmp_path):
    root = tmp_path / "sbs"
    touch(root, "x.png", "y.png", "z.png")
    table = root / "sbs.tsv"
    table.write_text(
        "left\tright\tchoice\tlr\nx.png\ty.png\tleft\tz.png\ny.png\tx.png\t0.25\tz.png\nx.png\ty.png\tboth\tz.png\n../x.png\ty.png\t1\tz.png\n"
    )
    rule = table_rule("img_a=left, img_b=right,p_a=choice,ref=lr", "left=1,right=0", "\\t")
    said = []
    result = import_preferences("csv", table, tmp_path / "m.csv", ImportOptions(table=rule), "skip", said.append)
    assert [(p.img_a.name, p.p_a, p.ref.name) for p in result.manifest.pairs] == [("x.png", 1, "z.png"), ("y.png", 0.25, "z.png")]
    assert "line 4: p_a is 'both', not a number; what words mean is said by --words" in said[0] and "line 5: '../x.png'" in said[1]


def test_a_table_that_spreadsheets_write(tmp_path):
    """A byte-order mark, CRLF, spaces around values; names with umlauts and commas; its images in another folder, as the manifest says."""
    touch(tmp_path / "photos", "ö ü, 1.JPG", "y.png")
    (tmp_path / "t.csv").write_bytes(
        '\ufeffimg_a, img_b ,p_a\r\n"ö ü, 1.JPG", y.png,1\r\ny.png,"ö ü, 1.JPG",0\r\n\r\ny.png,ö ü, 1.JPG,0\r\n'.encode()
    )
    said = []
    options = ImportOptions(table=table_rule(images=tmp_path / "photos"))
    result = import_preferences("csv", tmp_path / "t.csv", tmp_path / "elsewhere" / "m.csv", options, "skip", said.append)
    assert [pair.img_a.name for pair in result.manifest.pairs] == ["ö ü, 1.JPG", "y.png"]
    assert said == [f"{tmp_path / 't.csv'}: line 5: 4 values for 3 columns"]
    assert "repeated: 1 pairs are of two images that another pair compares too; each counts" in result.lines
    assert (tmp_path / "elsewhere" / "m.csv").read_text().startswith(f"# root: {tmp_path / 'photos'}\n")


def test_where_no_manifest_can_be_written_nothing_is_read(tmp_path):
    with pytest.raises(UserError, match="a manifest is a file .csv or .parquet"):
        import_preferences("csv", tmp_path / "gone.csv", tmp_path / "m.txt")


def test_the_table_is_not_overwritten(tmp_path):
    touch(tmp_path, "x.png", "y.png")
    (tmp_path / "t.csv").write_text("img_a,img_b,p_a,rater\nx.png,y.png,1,me\n")
    with pytest.raises(UsageError, match="is the table that is read"):
        import_preferences("csv", tmp_path / "t.csv", tmp_path / "." / "t.csv")
    assert "rater" in (tmp_path / "t.csv").read_text()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sriqa", {"votes": "mean"}, "--votes: sriqa has no use for it; it is for hggt, diffiqa"),
        ("hggt", {"per_content": 3}, "--per-content: hggt has no use"),
        ("kadid", {"block": 3}, "--block: kadid has no use"),
        ("koniq", {"references": True}, "--references: koniq has no use"),
        ("pipal", {"table": table_rule(separator=";")}, "--columns, --words, --separator, --images: pipal has no use"),
    ],
)
def test_options_that_a_kind_has_no_use_for(tmp_path, kind, options, message):
    with pytest.raises(UsageError, match=message):
        import_preferences(kind, tmp_path, tmp_path / "m.csv", ImportOptions(**options))


def test_a_table_of_votes(tmp_path):
    touch(tmp_path / "images", "x.png", "y.png")
    table = tmp_path / "votes.csv"
    table.write_text("a,b,n_a,n_b\nx.png,y.png,3,1\ny.png,x.png,0,0\n")
    rule = table_rule("img_a=a,img_b=b,votes_a=n_a,votes_b=n_b", images=tmp_path / "images")
    said = []
    result = import_preferences("csv", table, tmp_path / "m.csv", ImportOptions(table=rule), "skip", said.append)
    assert [(p.p_a, p.votes) for p in result.manifest.pairs] == [(0.75, 4)] and "votes 0 and 0 say nothing" in said[0]


@pytest.mark.parametrize(
    ("columns", "words", "message"),
    [
        ("img_a", "", "'img_a' has no value"),
        ("best=x", "", "no field 'best'"),
        ("", "left=first", "--words left"),
        ("img_a=links", "", "no column links"),
    ],
)
def test_wrong_table_options(tmp_path, columns, words, message):
    (tmp_path / "t.csv").write_text("img_a,img_b,p_a\n")
    with pytest.raises(UserError, match=message):
        import_preferences("csv", tmp_path / "t.csv", tmp_path / "m.csv", ImportOptions(table=table_rule(columns, words)))


@pytest.mark.parametrize("kind", ["hggt", "diffiqa", "sriqa", "kadid", "pipal", "tid2013", "koniq", "csv"])
def test_an_empty_or_missing_folder_is_said(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(UserError, match=str(root)):
            import_preferences(kind, root, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_the_command(tmp_path):
    root = make_sets(tmp_path / "hggt", n=2, k=2, size=32)
    (root / "images" / "02" / "0001-16-8_02.png").unlink()
    command = ["iqa", "import", "hggt", str(root), "-o", str(tmp_path / "m.csv")]
    stopped = CliRunner().invoke(app, command)
    assert isinstance(stopped.exception, UserError) and not (tmp_path / "m.csv").exists() and "missing EGT" in stopped.stderr
    done = CliRunner().invoke(app, [*command, "--on-bad", "skip"])
    assert done.exit_code == 0 and "2 pairs of 3 images" in done.stdout and len(read_manifest(tmp_path / "m.csv").pairs) == 2
    wrong = CliRunner().invoke(app, ["iqa", "import", "hgtt", str(root), "-o", "m.csv"])
    assert isinstance(wrong.exception, UsageError) and "choose one of hggt" in str(wrong.exception)

"""Manifests: round trips, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from sr_iqa.errors import UserError
from sr_iqa.preferences.manifest import Manifest, Pair, read_manifest, write_manifest


@pytest.fixture
def images(tmp_path):
    names = ["a, b.png", 'c"d.png', "e ä.png", "sub/f.png"]
    (tmp_path / "sub").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"image")
    return [tmp_path / name for name in names]


def manifest_of(images):
    a, b, c, d = images
    pairs = (Pair(a, b, 0.75, d, "Reg", 4, "scene, one"), Pair(b, c, 0.1), Pair(c, a, 1.0, content="two"))
    return Manifest(pairs, a.parent, {a: 3.25, b: -1.0})


@pytest.mark.parametrize("name", ["m.csv", "m.parquet", "elsewhere/m.csv", "elsewhere/m.parquet"])
def test_round_trip(images, tmp_path, name):
    manifest = manifest_of(images)
    write_manifest(tmp_path / name, manifest)
    back = read_manifest(tmp_path / name)
    assert (back.pairs, back.mos, back.root.resolve()) == (manifest.pairs, manifest.mos, tmp_path)
    assert back.fingerprint == manifest.fingerprint


def test_paths_are_relative_where_possible(images, tmp_path):
    write_manifest(tmp_path / "m.csv", manifest_of(images))
    text = (tmp_path / "m.csv").read_text()
    assert str(tmp_path) not in text and "# root" not in text and "sub/f.png" in text
    write_manifest(tmp_path / "elsewhere" / "m.csv", manifest_of(images))
    assert (tmp_path / "elsewhere" / "m.csv").read_text().startswith(f"# root: {tmp_path}\n")


def test_a_moved_folder_is_the_same_manifest(images, tmp_path):
    write_manifest(tmp_path / "m.csv", manifest_of(images))
    before = read_manifest(tmp_path / "m.csv").fingerprint
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    assert read_manifest(moved / "m.csv").fingerprint == before


def test_fingerprint_sees_every_value(images):
    manifest = manifest_of(images)
    first = manifest.pairs[0]
    others = [
        Pair(first.img_b, first.img_a, first.p_a, first.ref, first.group, first.votes, first.content),
        Pair(first.img_a, first.img_b, 0.7, first.ref, first.group, first.votes, first.content),
        Pair(first.img_a, first.img_b, 0.75, None, first.group, first.votes, first.content),
        Pair(first.img_a, first.img_b, 0.75, first.ref, "Gen", first.votes, first.content),
        Pair(first.img_a, first.img_b, 0.75, first.ref, "Reg", 5, first.content),
        Pair(first.img_a, first.img_b, 0.75, first.ref, "Reg", 4, "other"),
    ]
    prints = {Manifest((pair, *manifest.pairs[1:]), manifest.root, manifest.mos).fingerprint for pair in others}
    assert len(prints | {manifest.fingerprint}) == len(others) + 1


def test_images_are_distinct_and_scenes_have_names(images):
    manifest = manifest_of(images)
    assert manifest.images == tuple(images[:3])
    assert [pair.scene for pair in manifest.pairs] == ["scene, one", str(images[1]), "two"]


HEAD = "img_a,img_b,p_a,votes,mos_a,mos_b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("img_a,img_b\nx,y\n", "no column p_a"),
        ("img_a,img_b,p_a,winner\nx,y,1,x\n", "unknown or repeated column 'winner'"),
        ("img_a,img_b,p_a,p_a\nx,y,1,1\n", "repeated column 'p_a'"),
        (HEAD, "no pairs"),
        (HEAD + "sub/f.png,e ä.png,1,,,\n" + "sub/f.png,e ä.png,1.5,,,\n", "line 3: p_a is 1.5"),
        (HEAD + "sub/f.png,e ä.png,nan,,,\n", "line 2: p_a is 'nan'"),
        (HEAD + "sub/f.png,e ä.png,one,,,\n", "line 2: p_a is 'one', not a number"),
        (HEAD + "sub/f.png,e ä.png,1,0,,\n", "line 2: votes is 0"),
        (HEAD + "sub/f.png,e ä.png,1,,inf,\n", "line 2: an opinion score is 'inf'"),
        (HEAD + "sub/f.png,e ä.png,1,,1,2\n" + "sub/f.png,e ä.png,1,,3,2\n", "opinion scores 1.0 and 3.0"),
        (HEAD + "sub/f.png,sub/f.png,1,,,\n", "line 2: img_a and img_b are the same image"),
        (HEAD + "sub/../sub/f.png,e ä.png,1,,,\n", "'..' leads elsewhere"),
        (HEAD + ",e ä.png,1,,,\n", "line 2: an image has no name"),
        (HEAD + "sub/f.png,gone.png,1,,,\n", "line 2: no such image"),
        (HEAD + "sub/f.png,e ä.png,1\n", "line 2: 3 values for 6 columns"),
        ("# root: sub\n" + HEAD + "f.png,f2.png,1,,,\n", "line 3: no such image"),
        (HEAD + '"sub/f.png,e ä.png,1,,,\n', "no CSV"),
        ('img_a,img_b,"p_a\n', "line 1: no CSV"),
    ],
)
def test_what_is_wrong_is_named(images, tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_manifest(tmp_path / "m.csv")
    assert message in str(error.value) and "m.csv" in str(error.value)


def test_damaged_and_strange_files(tmp_path, images):
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no parquet")
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in (("m.parquet", "damaged"), ("m.csv", "UTF-8"), ("gone.csv", "no such file"), ("m.txt", ".csv or .parquet")):
        with pytest.raises(UserError, match=message):
            read_manifest(tmp_path / name)
    parquet.write_table(pa.table({"img_a": [1], "img_b": ["e ä.png"], "p_a": [1.0]}), tmp_path / "m.parquet")
    with pytest.raises(UserError, match="row 1: img_a is 1, not text"):
        read_manifest(tmp_path / "m.parquet")
    parquet.write_table(
        pa.table({"img_a": ["sub/f.png"], "img_b": ["e ä.png"], "p_a": pa.array([None], pa.float64())}), tmp_path / "m.parquet"
    )
    with pytest.raises(UserError, match="row 1: p_a is 'None', not a number"):
        read_manifest(tmp_path / "m.parquet")


def test_a_file_that_windows_programs_write(images, tmp_path):
    rows = 'img_a,img_b,p_a,content\r\n"a, b.png",e ä.png,0.5,x\r\n\r\nsub/f.png,e ä.png,1,"two\r\nlines"\r\n'
    (tmp_path / "m.csv").write_bytes(f"\ufeff# root: {tmp_path}\r\n{rows}".encode())
    manifest = read_manifest(tmp_path / "m.csv")
    assert [pair.img_a for pair in manifest.pairs] == [images[0], images[3]] and manifest.pairs[0].content == "x"


def test_images_need_not_be_there_if_nobody_asks(tmp_path):
    (tmp_path / "m.csv").write_text("img_a,img_b,p_a\nx.png,y.png,1\n")
    assert read_manifest(tmp_path / "m.csv", check_images=False).images == (tmp_path / "x.png", tmp_path / "y.png")


def test_a_failed_write_leaves_the_old_file(images, tmp_path):
    write_manifest(tmp_path / "m.csv", manifest_of(images))
    before = (tmp_path / "m.csv").read_text()
    bad = Manifest((Pair(Path("x\udcff.png"), images[0], 1.0),), tmp_path)
    with pytest.raises(UserError, match="not UTF-8"):
        write_manifest(tmp_path / "m.csv", bad)
    with pytest.raises(UserError, match="not UTF-8"):
        write_manifest(tmp_path / "m.parquet", bad)
    assert (tmp_path / "m.csv").read_text() == before and not list(tmp_path.glob(".tmp-*"))

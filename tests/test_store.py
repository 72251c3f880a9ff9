import multiprocessing
import os
import pickle

import lmdb
import numpy as np
import pytest

from sr_iqa.config.models import DataOptions
from sr_iqa.data.sets import find_sets, load_sets, verify
from sr_iqa.data.store import StoreReader, open_reader, pack
from sr_iqa.errors import UserError

from .helpers import make_sets, picture, save


def options(root, **more):
    return DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels", **more)


@pytest.fixture
def packed(tmp_path):
    """(folder options, store options) of the same four sets, with LQs."""
    root = make_sets(tmp_path, n=4, k=2)
    for gt_set in find_sets(options(root)):
        save(root / "lq" / f"{gt_set.name}.png", picture(16))
    folder = options(root, dataroot_lq=root / "lq")
    store = DataOptions(type="multi_gt", dataroot_gt=tmp_path / "x.lmdb")
    assert pack(folder, store.dataroot_gt) == 4
    return folder, store


def test_store_equals_folders(packed):
    folder, sets = load_sets(packed[0])
    store, packed_sets = load_sets(packed[1])
    assert list(packed_sets) == list(sets)
    for i in range(4):
        for member in (0, 1, 2, "lq"):
            assert store.size(i, member) == folder.size(i, member)
            assert np.array_equal(store.image(i, member), folder.image(i, member))
    crop = store.crop(3, 1, 5, 7, 20, 30)
    assert np.array_equal(crop, folder.crop(3, 1, 5, 7, 20, 30)) and crop.shape == (20, 30, 3)
    crop[:] = 0  # a copy: the store cannot be written through it
    assert verify(packed[1]) == []


def test_progress_counts_sets(tmp_path):
    calls = []
    pack(options(make_sets(tmp_path, n=3, k=0)), tmp_path / "x.lmdb", lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_packing_refuses_or_skips_bad_sets(tmp_path):
    root = make_sets(tmp_path, n=3)
    bad = sorted((root / "images" / "02").iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(UserError, match=bad.name):
        pack(options(root), tmp_path / "x.lmdb")
    assert not list(tmp_path.glob("*x.lmdb*"))
    assert pack(options(root, on_bad_set="skip"), tmp_path / "x.lmdb") == 2
    assert [s.name[:4] for s in StoreReader(tmp_path / "x.lmdb").sets] == ["0000", "0002"]


@pytest.mark.parametrize("kind", ["file", "folder", "lmdb of others"])
def test_packing_replaces_nothing_but_stores(tmp_path, kind):
    root, path = make_sets(tmp_path, n=2, k=0), tmp_path / "x.lmdb"
    if kind == "file":
        path.write_text("thesis")
    elif kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("thesis")
    else:
        with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
            transaction.put(b"0001", b"png")
    before = sorted((p.name, p.stat().st_size) for p in ([path] if path.is_file() else path.iterdir()))
    with pytest.raises(UserError, match=r"x\.lmdb exists and is no store"):
        pack(options(root), path)
    assert before == sorted((p.name, p.stat().st_size) for p in ([path] if path.is_file() else path.iterdir()))


def test_replacing_a_store_shows_the_new_pixels(packed, tmp_path):
    before = open_reader(packed[1]).image(0)
    other = make_sets(tmp_path / "other", n=4, k=2, seed=99)
    pack(options(other), packed[1].dataroot_gt)
    after = open_reader(packed[1]).image(0)
    assert not np.array_equal(before, after)
    with pytest.raises(UserError, match="no LQ"):
        open_reader(packed[1]).image(0, "lq")


def read_sum(reader):
    return os.getpid(), int(reader.crop(1, 2, 0, 0, 64, 64).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_store_is_read_in_other_processes(packed, method):
    reader = StoreReader(packed[1].dataroot_gt)
    here = read_sum(reader)  # the parent's handle is open before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map(read_sum, [reader] * 4)
    assert {total for _, total in results} == {here[1]} and all(pid != here[0] for pid, _ in results)


def test_two_readers_and_pickles_share_one_handle(packed):
    first = StoreReader(packed[1].dataroot_gt)
    second = pickle.loads(pickle.dumps(first))
    assert np.array_equal(first.image(2), second.image(2)) and np.array_equal(first.image(2), StoreReader(first.path).image(2))


def test_damaged_stores_are_refused(packed, tmp_path):
    store = packed[1].dataroot_gt
    data = (store / "data.mdb").read_bytes()
    cut = tmp_path / "cut.lmdb"
    cut.mkdir()
    (cut / "data.mdb").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="truncated"):
        StoreReader(cut)
    empty = tmp_path / "empty.lmdb"
    empty.mkdir()
    with pytest.raises(UserError, match="no such store"):
        StoreReader(empty)
    (empty / "data.mdb").write_bytes(b"junk" * 5000)
    with pytest.raises(UserError, match="not a readable store"):
        StoreReader(empty)
    changed = tmp_path / "changed.lmdb"
    changed.mkdir()
    pixels = open_reader(packed[1]).image(2, 1)[20].tobytes()
    assert data.count(pixels) == 1
    (changed / "data.mdb").write_bytes(data.replace(pixels, bytes(len(pixels))))
    problems = verify(DataOptions(type="multi_gt", dataroot_gt=changed))
    assert len(problems) == 1 and "image 1 of set 0002" in str(problems[0])


def test_wrong_names_are_refused(packed, tmp_path):
    with pytest.raises(UserError, match="ends in .lmdb"):
        pack(packed[0], tmp_path / "store")
    with pytest.raises(UserError, match="a store already"):
        pack(packed[1], tmp_path / "y.lmdb")

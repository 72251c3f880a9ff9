import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b

import lmdb
import numpy as np
import pytest

from sr_iqa.config.models import DataOptions
from sr_iqa.data.codecs import CODECS
from sr_iqa.data.packing import pack
from sr_iqa.data.sets import find_sets, fingerprint, load_sets, verify
from sr_iqa.data.store import StoreReader, forget, open_reader
from sr_iqa.errors import UserError

from .helpers import make_sets, picture, save


def options(root, **more):
    return DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels", **more)


@pytest.fixture(params=CODECS)
def packed(tmp_path, request):
    """(folder options, store options) of the same four sets, with LQs, by every codec."""
    root = make_sets(tmp_path, n=4, k=2)
    for gt_set in find_sets(options(root)):
        save(root / "lq" / f"{gt_set.name}.png", picture(16))
    folder = options(root, dataroot_lq=root / "lq")
    store = DataOptions(type="multi_gt", dataroot_gt=tmp_path / "x.lmdb")
    assert pack(folder, store.dataroot_gt, codec=request.param) == 4
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


@pytest.mark.parametrize("packed, method", [("raw", "fork"), ("deflate", "fork"), ("raw", "spawn")], indirect=["packed"])
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


def other_bytes(store, key, changed):
    """Puts other bytes under a key of a store."""
    forget(store)
    with closing(lmdb.open(str(store), map_size=1 << 30, lock=False)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, changed(transaction.get(key)))


def flipped(stored):
    return stored[:-20] + bytes([stored[-20] ^ 1]) + stored[-19:]


def test_a_flipped_byte_is_found(packed):
    store = packed[1].dataroot_gt
    other_bytes(store, b"2/1", flipped)
    problems = verify(packed[1])
    assert len(problems) == 1 and "image 1 of set 0002" in str(problems[0])


@pytest.mark.parametrize("codec, changed", [("deflate", flipped), ("deflate", lambda _: b""), ("raw", lambda stored: stored[:-1])])
def test_damage_that_can_be_seen_is_named_when_a_crop_is_read(tmp_path, codec, changed):
    store = tmp_path / "x.lmdb"
    pack(options(make_sets(tmp_path, n=3, k=1)), store, codec=codec)
    other_bytes(store, b"2/1", changed)
    reader = StoreReader(store)
    assert reader.crop(1, 1, 0, 0, 64, 64).shape == (64, 64, 3)
    with pytest.raises(UserError, match=r"x\.lmdb: image 1 of set 0002-32-8 is damaged .* pack it again"):
        reader.crop(2, 1, 0, 0, 64, 64)


def write_version_1(path, images):
    """A store as version 1 wrote it, of sets of two GTs; its records."""
    records = []
    with closing(lmdb.open(str(path), map_size=1 << 24)) as environment, environment.begin(write=True) as transaction:
        for i, members in enumerate(images):
            for member, image in enumerate(members):
                transaction.put(f"{i}/{member}".encode(), image.tobytes())
            pixels = {str(m): [*image.shape[:2], blake2b(image.tobytes(), digest_size=8).hexdigest()] for m, image in enumerate(members)}
            paths = [f"/a/original/{i}.png", f"/a/01/{i}_01.png"]
            records.append({"name": str(i), "paths": paths, "labels": [["Positive"]], "lq": None, "pixels": pixels})
        transaction.put(b"meta", json.dumps({"version": 1, "sets": records}).encode())
    return records


def test_stores_of_version_1_are_read(tmp_path):
    images = [[picture(90, 2 * i)[:, : 90 - i], picture(90, 2 * i + 1)[:, : 90 - i]] for i in range(12)]
    records = write_version_1(tmp_path / "x.lmdb", images)
    data = DataOptions(type="multi_gt", dataroot_gt=tmp_path / "x.lmdb")
    reader = StoreReader(data.dataroot_gt)
    assert [gt_set.name for gt_set in reader.sets] == [str(i) for i in range(12)] and reader.sets[3].positive.tolist() == [False, True]
    for i in range(12):
        assert np.array_equal(reader.image(i, 1), images[i][1])
        assert np.array_equal(reader.crop(i, 0, 5, 7, 30, 40), images[i][0][5:35, 7:47])
    assert verify(data) == []
    assert fingerprint(data) == blake2b(json.dumps(records, sort_keys=True).encode(), digest_size=8).hexdigest()


def test_codecs_hold_the_same_data(tmp_path):
    root = make_sets(tmp_path, n=2, k=1)
    prints = set()
    for codec in CODECS:
        pack(options(root), tmp_path / f"{codec}.lmdb", codec=codec)
        prints.add(fingerprint(DataOptions(type="multi_gt", dataroot_gt=tmp_path / f"{codec}.lmdb")))
    assert len(prints) == 1


@pytest.mark.parametrize(
    "meta, words",
    [
        ({"version": 3, "codec": "raw"}, "version 3, codec raw, which this program does not read"),
        ({"version": 2, "codec": "jxl", "block": [1, 1], "sets": []}, "version 2, codec jxl, which"),
        ({}, "without a version"),
        ({"version": 2, "codec": "raw"}, "table of contents is damaged"),
        ({"version": 2, "codec": "raw", "block": [1, 1], "sets": [7]}, "table of contents is damaged"),
    ],
)
def test_stores_of_other_versions_are_refused(tmp_path, meta, words):
    pack(options(make_sets(tmp_path, n=2, k=0)), tmp_path / "x.lmdb")
    other_bytes(tmp_path / "x.lmdb", b"meta", lambda _: json.dumps(meta).encode())
    with pytest.raises(UserError, match=words):
        StoreReader(tmp_path / "x.lmdb")


@pytest.mark.parametrize("codec", CODECS)
def test_images_of_any_size_are_kept(tmp_path, codec):
    sizes = [(1, 1), (1, 700), (300, 2), (129, 513), (200, 64)]
    images = [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i, size in enumerate(sizes)]
    for i, image in enumerate(images):
        save(tmp_path / "gt" / f"{i}.png", image)
    pack(DataOptions(type="single_gt", dataroot_gt=tmp_path / "gt"), tmp_path / "x.lmdb", codec=codec)
    reader = StoreReader(tmp_path / "x.lmdb")
    for i, image in enumerate(images):
        assert reader.size(i) == sizes[i] and np.array_equal(reader.image(i), image)
        h, w = sizes[i]
        assert np.array_equal(reader.crop(i, 0, h // 2, w // 3, h, w), image[h // 2 :, w // 3 :])  # cut at the border, as slices are
        assert reader.crop(i, 0, h, w, 5, 5).size == 0
    assert list(reader.problems()) == []


def test_reading_writes_nothing(packed):
    store = packed[1].dataroot_gt
    before = [(entry.name, entry.stat().st_mtime_ns) for entry in store.iterdir()]
    store.chmod(0o555)
    assert verify(packed[1]) == [] and [(entry.name, entry.stat().st_mtime_ns) for entry in store.iterdir()] == before
    store.chmod(0o755)


def test_threads_share_the_handle(packed):
    reader = StoreReader(packed[1].dataroot_gt)
    boxes = [(n % 4, n % 3, n % 30, n % 17, 31, 29) for n in range(400)]
    alone = [reader.crop(*box) for box in boxes]
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(a, b) for a, b in zip(alone, pool.map(lambda box: reader.crop(*box), boxes), strict=True))


def test_wrong_names_are_refused(packed, tmp_path):
    with pytest.raises(UserError, match="ends in .lmdb"):
        pack(packed[0], tmp_path / "store")
    with pytest.raises(UserError, match="a store already"):
        pack(packed[1], tmp_path / "y.lmdb")

"""Packing: killed and gone on with, two at once, threads, and what stands in its way."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import lmdb
import numpy as np
import pytest
from typer.testing import CliRunner

from sr_iqa.cli import app
from sr_iqa.config import options_to_yaml
from sr_iqa.config.models import DataOptions
from sr_iqa.data import checks, packing
from sr_iqa.data.packing import pack
from sr_iqa.data.store import StoreReader, forget
from sr_iqa.errors import UsageError, UserError

from .helpers import make_sets, picture, save
from .tiny_runs import tiny


def options(root, **more):
    return DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels", **more)


def unlabelled(root, **more):
    return DataOptions(type="multi_gt", dataroot_gt=root / "images", **more)


def pack_until(root, path, sets, then):
    """Packs; calls `then` when so many sets are done and committed."""
    packing.BATCH_BYTES = 1
    pack(unlabelled(root), path, lambda done, total: done == sets and then(), workers=2)


def kill_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_pack(root, path, sets):
    process = multiprocessing.get_context("fork").Process(target=pack_until, args=(root, path, sets, kill_this_process))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not path.exists() and (path.parent / f"{path.name}.partial" / "data.mdb").is_file()


def content(path):
    """Every key of a store with its value."""
    forget(path)
    with closing(lmdb.open(str(path), readonly=True, lock=False)) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


@pytest.fixture
def decoded(monkeypatch):
    """The names of the image files that are decoded, in no order."""
    names, read = [], checks.read_image
    monkeypatch.setattr(checks, "read_image", lambda path: names.append(path.name) or read(path))
    return names


@pytest.fixture
def root(tmp_path):
    return make_sets(tmp_path / "sets", n=7, k=1)


def test_a_killed_pack_goes_on_and_ends_as_if_undisturbed(root, tmp_path, decoded, caplog):
    code = "import sys; from tests.test_packing import *; pack_until(Path(sys.argv[1]), Path(sys.argv[2]), 5, kill_this_process)"
    killed = subprocess.run([sys.executable, "-c", code, root, tmp_path / "x.lmdb"], cwd=Path(__file__).parent.parent)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "x.lmdb").exists()
    assert pack(unlabelled(root), tmp_path / "x.lmdb") == 7
    assert {name[:4] for name in decoded} == {"0005", "0006"} and "5 of 7 sets are there already" in caplog.text
    assert [entry.name for entry in (tmp_path / "x.lmdb").iterdir()] == ["data.mdb"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["sets", "x.lmdb"]
    pack(unlabelled(root), tmp_path / "y.lmdb")
    assert content(tmp_path / "x.lmdb") == content(tmp_path / "y.lmdb")
    assert list(StoreReader(tmp_path / "x.lmdb").problems()) == []


def change_pixels(root):
    path = next((root / "images" / "01").iterdir())
    save(path, picture(64, 99))
    os.utime(path, ns=(1, 1))


def add_set(root):
    save(root / "images" / "original" / "0009-0-0.png", picture(64, 9))
    save(root / "images" / "01" / "0009-0-0_01.png", picture(64, 9))


@pytest.mark.parametrize(
    "change, more, other",
    [
        (change_pixels, {}, "files"),
        (add_set, {}, "files"),
        (lambda root: None, {"codec": "deflate"}, "codec"),
        (lambda root: None, {"smallest": 8}, "smallest"),
        (lambda root: root.rename(root.with_name("moved")), {}, "source, files"),
    ],
)
def test_another_plan_is_started_anew(root, tmp_path, caplog, decoded, change, more, other):
    killed_pack(root, tmp_path / "x.lmdb", 3)
    change(root)
    root = root if root.exists() else root.with_name("moved")
    count = pack(unlabelled(root), tmp_path / "x.lmdb", **more)
    assert f"begun with other {other}: it is started anew" in caplog.text and len(decoded) == 2 * count
    assert list(StoreReader(tmp_path / "x.lmdb").problems()) == []
    pack(unlabelled(root), tmp_path / "y.lmdb", **more)
    assert content(tmp_path / "x.lmdb") == content(tmp_path / "y.lmdb")


@pytest.mark.parametrize("damage", ["cut", "junk", "empty"])
def test_a_damaged_partial_store_is_started_anew(root, tmp_path, decoded, damage):
    killed_pack(root, tmp_path / "x.lmdb", 3)
    data = tmp_path / "x.lmdb.partial" / "data.mdb"
    data.write_bytes({"cut": data.read_bytes()[:30000], "junk": b"junk" * 5000, "empty": b""}[damage])
    assert pack(unlabelled(root), tmp_path / "x.lmdb") == 7 and len(decoded) == 14
    assert list(StoreReader(tmp_path / "x.lmdb").problems()) == []


def test_a_pack_stopped_just_before_the_end_only_needs_its_name(root, tmp_path, decoded, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "replace_folder", stop)
        pack(unlabelled(root), tmp_path / "x.lmdb")
    decoded.clear()
    assert pack(unlabelled(root), tmp_path / "x.lmdb") == 7 and not decoded


def test_the_earlier_store_stays_until_the_new_one_is_complete(root, tmp_path):
    pack(unlabelled(root), tmp_path / "x.lmdb")
    before = content(tmp_path / "x.lmdb")
    process = multiprocessing.get_context("fork").Process(target=pack_until, args=(root, tmp_path / "x.lmdb", 3, kill_this_process))
    process.start()
    process.join()
    assert (tmp_path / "x.lmdb.partial").is_dir()
    assert content(tmp_path / "x.lmdb") == before and list(StoreReader(tmp_path / "x.lmdb").problems()) == []


def test_a_second_pack_of_the_same_store_is_refused(root, tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    first = context.Process(target=pack_until, args=(root, tmp_path / "x.lmdb", 2, lambda: (started.set(), time.sleep(60))))
    first.start()
    try:
        assert started.wait(60)
        with pytest.raises(UserError, match=r"x\.lmdb is being packed by another process"):
            pack(unlabelled(root), tmp_path / "x.lmdb")
        assert pack(unlabelled(root), tmp_path / "y.lmdb") == 7  # another store is no hindrance
    finally:
        first.kill()
        first.join()
    assert pack(unlabelled(root), tmp_path / "x.lmdb") == 7


@pytest.mark.parametrize("codec", ["raw", "deflate"])
def test_nothing_depends_on_the_number_of_threads(root, tmp_path, codec):
    for workers in (1, 5):
        pack(options(root), tmp_path / f"{workers}.lmdb", codec=codec, workers=workers)
    assert (tmp_path / "1.lmdb" / "data.mdb").read_bytes() == (tmp_path / "5.lmdb" / "data.mdb").read_bytes()


def test_bad_sets_leave_no_trace_whether_or_not_it_was_killed(root, tmp_path):
    for number, folder in ((2, "original"), (5, "01")):
        path = sorted((root / "images" / folder).iterdir())[number]
        path.write_bytes(path.read_bytes()[:200])
    killed_pack(root, tmp_path / "x.lmdb", 4)
    for name in ("x.lmdb", "y.lmdb"):
        assert pack(unlabelled(root, on_bad_set="skip"), tmp_path / name) == 5
    reader = StoreReader(tmp_path / "x.lmdb")
    assert [gt_set.name[:4] for gt_set in reader.sets] == ["0000", "0001", "0003", "0004", "0006"]
    assert content(tmp_path / "x.lmdb") == content(tmp_path / "y.lmdb") and list(reader.problems()) == []
    assert np.array_equal(reader.image(3), picture(64, 4))
    with pytest.raises(UserError, match=r"2 bad set\(s\)"):
        pack(unlabelled(root), tmp_path / "z.lmdb")
    assert not list(tmp_path.glob("z.lmdb*"))


def test_what_lies_in_the_way_is_left_alone(root, tmp_path):
    (tmp_path / "x.lmdb.partial").write_text("thesis")
    with pytest.raises(UserError, match="in the way"):
        pack(unlabelled(root), tmp_path / "x.lmdb")
    (tmp_path / "y.lmdb.partial").mkdir()
    (tmp_path / "y.lmdb.partial" / "thesis.txt").write_text("thesis")
    with pytest.raises(UserError, match=r"holds thesis\.txt"):
        pack(unlabelled(root), tmp_path / "y.lmdb")
    assert (tmp_path / "y.lmdb.partial" / "thesis.txt").is_file() and (tmp_path / "x.lmdb.partial").is_file()


def test_a_full_disk_keeps_what_is_done(root, tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(packing, "BATCH_BYTES", 1)
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"could not be written .* goes on from"):
        patch.setattr(packing, "_bytes_needed", lambda sets: 24 * 4096)
        pack(unlabelled(root), tmp_path / "x.lmdb")
    decoded.clear()
    assert pack(unlabelled(root), tmp_path / "x.lmdb") == 7 and 0 < len(decoded) < 14


def test_an_unknown_codec_is_refused_before_anything_is_read(root, tmp_path):
    shutil.rmtree(root)
    with pytest.raises(UsageError, match="choose one of raw, deflate"):
        pack(unlabelled(root), tmp_path / "x.lmdb", codec="zip")


def test_the_command_takes_a_codec(tmp_path):
    (tmp_path / "x.yml").write_text(options_to_yaml(tiny(tmp_path, "x")))
    store = tmp_path / "x.lmdb"
    arguments = ["data", "pack", "-opt", str(tmp_path / "x.yml"), "-o", str(store)]
    result = CliRunner().invoke(app, [*arguments, "--codec", "deflate", "--workers", "1"])
    assert result.exit_code == 0 and "4 sets packed" in result.output
    assert json.loads(content(store)[b"meta"])["codec"] == "deflate" and list(StoreReader(store).problems()) == []
    refusal = CliRunner().invoke(app, [*arguments, "--codec", "zip"]).exception
    assert isinstance(refusal, UsageError) and "choose one of raw, deflate" in str(refusal)

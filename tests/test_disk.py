"""Disks that are full, read-only or limited, under real processes: what was there stays usable, the error is clear, it goes on later."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import yaml

from sr_iqa.config import options_to_yaml
from tests.helpers import make_sets
from tests.tiny_runs import differences, lines, run, state, tiny, validation

TRAIN = {"train": {"total_iter": 6, "ema_decay": 0.9}, "logger": {"save_checkpoint_freq": 2, "print_freq": 1}}


def sr_iqa(*arguments, limit=None):
    """A command in a process of its own, which may write no file longer than `limit` bytes."""

    def limited():
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sr_iqa", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, preexec_fn=limited, timeout=240, check=False)


def failed_clearly(done, *words):
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in done.stderr[done.stderr.index("error: ") :], done.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One data set for all tests here."""
    return tmp_path_factory.mktemp("disk")


class Disk:
    """A small file system in memory."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)], check=True, capture_output=True)

    def change(self, option):
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.path)], check=True)

    def fill(self, leave):
        """Takes all space but `leave` bytes."""
        free = shutil.disk_usage(self.path).free
        (self.path / "ballast").write_bytes(b"\0" * max(0, free - leave))

    def empty(self):
        (self.path / "ballast").unlink()


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    try:
        made = Disk(tmp_path / "disk")
    except (subprocess.CalledProcessError, OSError):
        pytest.skip("mounting is not allowed here")
    yield made
    subprocess.run(["umount", "-l", str(made.path)], check=False)


def options_file(root, name, place, *changes):
    path = root / f"{name}.yml"
    path.write_text(options_to_yaml(tiny(root, name, TRAIN, {"path": {"experiments_root": str(place)}}, *changes)))
    return path


def test_training_on_a_full_disk_keeps_what_it_has_and_goes_on(root, disk):
    path = options_file(root, "full", disk.path)
    short = options_file(root, "full_short", disk.path, {"name": "full", "train": {"total_iter": 2}})
    assert sr_iqa("train", "-opt", short).returncode == 0
    folder = disk.path / "full"
    before = state(folder, 2)
    for leave in (0, 40_000):  # not even a log line; a log line, but no checkpoint
        disk.fill(leave)
        failed_clearly(sr_iqa("train", "-opt", path), "No space left on device", str(disk.path))
        disk.empty()
        assert differences(before, state(folder, 2)) == []
        assert not (folder / "training_states" / "6.pt").exists()
    assert sr_iqa("train", "-opt", path).returncode == 0
    whole = run(root, "full", TRAIN)
    assert [place for place in differences(state(whole, 6), state(folder, 6)) if "experiments_root" not in place] == []
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5, 6]
    assert not list(folder.rglob(".tmp-*"))


def test_training_into_a_read_only_folder(root, disk):
    path = options_file(root, "readonly", disk.path)
    disk.change("ro")
    failed_clearly(sr_iqa("train", "-opt", path), "Read-only file system", str(disk.path))
    assert not list(disk.path.iterdir())
    disk.change("rw")
    assert sr_iqa("train", "-opt", path).returncode == 0


def test_a_limit_on_file_sizes(root, tmp_path):
    path = options_file(root, "limited", tmp_path)
    failed_clearly(sr_iqa("train", "-opt", path, limit=10_000), "File too large", str(tmp_path))
    assert sr_iqa("train", "-opt", path).returncode == 0
    assert json.loads((tmp_path / "limited" / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("fault", ["full", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("limit", "read-only"))])
def test_packing_and_scoring(root, disk, fault):
    path = options_file(root, "pack", disk.path)
    commands = (
        ("data", "pack", "-opt", path, "-o", disk.path / "sets.lmdb"),
        ("data", "score", "-opt", path, "--metric", "nano", "-o", disk.path / "scores.parquet"),
    )
    for command in commands:
        limit = {"full": None, "limit": 2_000, "read-only": None}[fault]
        if fault == "full":
            disk.fill(0)
        if fault == "read-only":
            disk.change("ro")
        words = {"full": "No space left on device", "limit": "", "read-only": "Read-only file system"}[fault]
        failed_clearly(sr_iqa(*command, limit=limit), words, str(disk.path))
        assert not command[-1].exists()
        if fault == "full":
            disk.empty()
        if fault == "read-only":
            disk.change("rw")
        done = sr_iqa(*command)
        assert done.returncode == 0, done.stderr
        assert command[-1].exists()


@pytest.mark.slow
def test_pictures_of_an_evaluation(root, disk, tmp_path):
    sets = make_sets(tmp_path / "sets", n=2, size=64)
    val = {"type": "multi_gt", "dataroot_gt": str(sets / "images"), "dataroot_labels": str(sets / "labels")}
    val["degradation"] = {"preset": "bicubic"}
    path = options_file(root, "pictures", disk.path, {"datasets": {"val": val}, "val": {"metrics": ["psnr"]}, "train": {"total_iter": 2}})
    assert sr_iqa("train", "-opt", path).returncode == 0
    disk.fill(0)
    failed_clearly(sr_iqa("test", "-opt", path, "--save", disk.path / "sr"), "No space left on device", str(disk.path))
    failed_clearly(sr_iqa("test", "-opt", path, "--json", disk.path / "values.json"), "No space left on device", str(disk.path))
    disk.empty()
    assert sr_iqa("test", "-opt", path, "--save", disk.path / "sr", "--json", disk.path / "values.json").returncode == 0
    assert len(list((disk.path / "sr").iterdir())) == 2


@pytest.mark.slow
def test_the_report_of_a_study(root, disk):
    base = tiny(root, "study", {"train": {"total_iter": 2}}, validation(root))
    (root / "base.yml").write_text(options_to_yaml(base))
    content = {
        "name": "study",
        "base": "base.yml",
        "experiments_root": str(disk.path),
        "optimised_metric": "nano",
        "metrics": ["psnr", "nano"],
    }
    (root / "study.yml").write_text(yaml.safe_dump({**content, "variants": {"original": {}}}))
    command = ("compare", "-opt", root / "study.yml")
    assert sr_iqa(*command).returncode == 0
    folder = disk.path / "study"
    before = (folder / "results.json").read_text()
    disk.fill(0)
    failed_clearly(sr_iqa(*command), "No space left on device", str(disk.path))
    assert (folder / "results.json").read_text() == before
    disk.empty()
    assert sr_iqa(*command).returncode == 0
    assert (folder / "report" / "index.html").exists()

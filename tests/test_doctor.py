"""`sr-iqa doctor`: what it finds, what it calls a problem, and that a broken check is a finding and no crash."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from sr_iqa import cli, doctor
from sr_iqa.config.models import DataOptions
from sr_iqa.data.packing import pack
from sr_iqa.data.store import StoreReader, forget
from sr_iqa.errors import UserError
from tests.helpers import make_sets


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `sr-iqa doctor ARGUMENTS` with the given checks, by default none of the standing ones: (exit code, lines)."""

    def call(*arguments, checks=None):
        monkeypatch.setattr(doctor, "CHECKS", checks or {})
        monkeypatch.setattr(doctor, "SPEED_BLOCKS", 1)
        monkeypatch.setattr(sys, "argv", ["sr-iqa", "doctor", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, capsys.readouterr().out.splitlines()

    return call


@pytest.fixture
def store(tmp_path):
    """A packed store of three sets of five images."""
    root = make_sets(tmp_path / "sets")
    pack(DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels"), tmp_path / "x.lmdb")
    return tmp_path / "x.lmdb"


def states(check):
    """name -> state of a check's findings."""
    return {finding.name: finding.state for finding in doctor.carried_out("check", check)}


def texts(check):
    return " ".join(finding.text for finding in doctor.carried_out("check", check))


def raises(error):
    def check():
        raise error
        yield

    return check


# ---------------------------------------------------------------- the command


def test_lines_marks_json_and_exit_code(run, tmp_path):
    fine = {"one": lambda: [doctor.Finding("one", "ok", "works"), doctor.Finding("two", "note", "is not here")]}
    code, lines = run("--folder", tmp_path, "--json", tmp_path / "all.json", checks=fine)
    assert code == 0 and lines[:2] == ["ok       one: works", "note     two: is not here"] and lines[-1] == "no problems"
    findings = json.loads((tmp_path / "all.json").read_text())["findings"]
    assert findings[0] == {"name": "one", "state": "ok", "text": "works"} and [f["name"] for f in findings] == ["one", "two", "folder"]


def test_a_check_that_raises_is_a_problem_and_the_others_go_on(run, tmp_path):
    checks = {"broken": raises(OSError(5, "Input/output error")), "ours": raises(UserError("first\nsecond")), "rest": doctor.system}
    code, lines = run("--folder", tmp_path, checks=checks)
    assert code == 1 and lines[0] == "PROBLEM  broken: OSError: [Errno 5] Input/output error"
    assert lines[1:3] == ["PROBLEM  ours: first", "         second"]
    assert lines[3].startswith("ok       sr_iqa: ") and lines[-1] == "2 problems"


# ---------------------------------------------------------------- what is installed


def test_packages_are_held_against_what_is_asked_for(monkeypatch):
    wanted = ["torch>=99", "no-such-package>=2", "peft>=0.17", "basicsr==1.4.2; python_version < '3'", "pytest; extra == 'test'", "numpy"]
    monkeypatch.setattr(doctor, "requires", lambda _: wanted)
    monkeypatch.setattr(doctor, "package_version", {"torch": "2.14.1+cu130", "numpy": "2.4.6"}.get)
    assert states(doctor.packages) == {"torch": "PROBLEM", "no-such-package": "PROBLEM", "peft": "note", "packages": "ok"}
    assert "pip install 'torch>=99'" in texts(doctor.packages) and "numpy 2.4.6" in texts(doctor.packages)


def test_what_is_installed_here_is_what_is_asked_for():
    assert states(doctor.packages)["packages"] == "ok" and "PROBLEM" not in states(doctor.packages).values()


def test_two_opencv_wheels_are_noted(monkeypatch):
    monkeypatch.setattr(doctor, "package_version", {"opencv-python": "5.0", "opencv-python-headless": "5.0", "tensorboard": "2.0"}.get)
    assert states(doctor.twins) == {"opencv-python-headless": "note"}
    assert "pip uninstall -y opencv-python-headless opencv-python && pip install opencv-python-headless" in texts(doctor.twins)
    monkeypatch.setattr(doctor, "package_version", {"opencv-python": "5.0"}.get)
    assert states(doctor.twins) == {}


def test_opencv_and_torchvision_are_really_used(monkeypatch):
    assert states(doctor.opencv) == {"opencv": "ok"} and states(doctor.torchvision) == {"torchvision": "ok"}
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "sr_iqa.images")
    assert states(doctor.opencv) == {"check": "PROBLEM"} and "pip install" in texts(doctor.opencv)
    monkeypatch.setattr("torchvision.ops.nms", lambda *_: 1 / 0)
    assert states(doctor.torchvision) == {"torchvision": "PROBLEM"} and "install the two together" in texts(doctor.torchvision)


def test_absent_parts_are_noted_and_broken_ones_are_problems(monkeypatch):
    def no():
        raise ImportError("no module")

    parts = {"nothing-of-this-name": ("flying", no), "numpy": ("arrays", no), "torch": ("networks", lambda: print("hello"))}
    monkeypatch.setattr(doctor, "PARTS", parts)
    assert states(doctor.parts) == {"nothing-of-this-name": "note", "numpy": "PROBLEM", "torch": "ok"}
    assert "not installed; it gives flying" in texts(doctor.parts)


# ---------------------------------------------------------------- what the machine can do


def test_a_gpu_that_torch_cannot_use_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "none")
    assert states(doctor.devices)["cuda"] == "note"
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert states(doctor.devices)["cuda"] == "note" and "hidden by CUDA_VISIBLE_DEVICES" in texts(doctor.devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert states(doctor.devices)["cuda"] == "PROBLEM"


def test_precisions_are_tried_out(monkeypatch):
    assert states(doctor.precisions) == {"precision on cpu": "ok"}
    cpu = torch.device("cpu")
    assert doctor._rounding("no", cpu) < 1e-5 < 1e-3 < doctor._rounding("bf16", cpu) < doctor.WORST_ROUNDING
    monkeypatch.setattr(doctor, "_rounding", lambda name, device: float("nan") if name == "bf16" else 0.0)
    findings = list(doctor.precisions())
    assert [(f.state, "bf16:" in f.text) for f in findings] == [("PROBLEM", True), ("ok", False)]


def test_networks_and_nano_are_tried_out(monkeypatch):
    assert states(doctor.computing) == {"computing on cpu": "ok"}
    monkeypatch.setattr("sr_iqa.iqa.metrics.create_metric", lambda *_: lambda image: torch.tensor(float("nan")))
    assert states(doctor.computing) == {"computing on cpu": "PROBLEM"}
    monkeypatch.setattr("torch.Tensor.isfinite", lambda tensor: torch.zeros_like(tensor, dtype=torch.bool))
    assert "gradient" in texts(doctor.computing)


def test_weights_of_the_papers_metrics_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = states(doctor.weights)
    assert found == {"weights": "ok", "the paper's metrics": "note"} and "here: none; missing: musiq" in texts(doctor.weights)
    (tmp_path / "pyiqa").mkdir()
    (tmp_path / "pyiqa" / "musiq_koniq_ckpt-e95806b9.pth").touch()
    assert "1 in a cache" in texts(doctor.weights) and "here: musiq; missing: nima" in texts(doctor.weights)


# ---------------------------------------------------------------- where things lie


def test_the_disk_is_measured_and_left_as_it_was(tmp_path, monkeypatch):
    (finding,) = doctor.run_folder(tmp_path / "runs" / "to come")
    assert finding.state in ("ok", "note") and "GB free, writes" in finding.text
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(doctor, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert states(lambda: doctor.run_folder(tmp_path)) == {"folder": "PROBLEM"}


def test_a_store_is_compared_with_what_was_packed(run, store, tmp_path):
    code, lines = run("--store", store, "--folder", tmp_path)
    assert code == 0 and f"ok       store: {store}: 3 sets, 15 images as they were packed" in lines
    pixels = StoreReader(store).image(1, 2).tobytes()
    forget(store)
    data = (store / "data.mdb").read_bytes()
    changed = np.frombuffer(data, np.uint8).copy()
    changed[data.index(pixels[:64])] ^= 1
    (store / "data.mdb").write_bytes(changed.tobytes())
    code, lines = run("--store", store, "--folder", tmp_path)
    assert code == 1 and "1 of 15 images are damaged (first: image 2 of set 0001-16-8 has changed since packing)" in lines[-2]
    code, lines = run("--store", tmp_path / "absent.lmdb", "--folder", tmp_path)
    assert code == 1 and "PROBLEM  store: " in lines[-2] and "no such store" in lines[-2]


def test_an_option_file_brings_its_stores_and_its_folder(run, store, tmp_path):
    options = {
        "name": "tiny",
        "scale": 4,
        "datasets": {"val": {"type": "multi_gt", "dataroot_gt": str(store), "degradation": {"preset": "bicubic"}}},
        "network_g": {"type": "SwinIR", "upscale": 4},
        "path": {"experiments_root": str(tmp_path / "runs")},
        "val": {"metrics": ["psnr", "musiq"]},
    }
    opt = tmp_path / "tiny.yml"
    opt.write_text(yaml.safe_dump(options))
    code, lines = run("-opt", opt)
    assert code == 0, lines
    assert f"ok       options: {opt}: can be used" in lines and any(str(tmp_path / "runs") in line for line in lines)
    assert any("15 images as they were packed" in line for line in lines) and not (tmp_path / "runs").exists()
    opt.write_text("nmae: tiny\n")
    code, lines = run("-opt", opt, "--folder", tmp_path)
    assert code == 1 and lines[0].startswith("PROBLEM  options: ") and any("GB free" in line for line in lines)

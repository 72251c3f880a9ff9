"""The commands as users run them: exit codes, messages, files."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from sr_iqa import cli
from tests.helpers import make_sets, picture, save


@pytest.fixture
def sr_iqa(monkeypatch, capsys):
    """Runs `sr-iqa ARGUMENTS` in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sr-iqa", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def option_file(tmp_path):
    """A tiny runnable option file over three sets of 64 px."""
    root = make_sets(tmp_path / "sets")
    data = {
        "type": "multi_gt",
        "dataroot_gt": str(root / "images"),
        "dataroot_labels": str(root / "labels"),
        "degradation": {"preset": "bicubic"},
    }
    options = {
        "name": "tiny",
        "scale": 4,
        "datasets": {
            "train": {
                **data,
                "gt_size": 32,
                "batch_size_per_gpu": 2,
                "num_worker_per_gpu": 0,
                "sampling": {"strategy": "amo", "metric": "nano"},
            },
            "val": data,
        },
        "network_g": {
            "type": "SwinIR",
            "upscale": 4,
            "embed_dim": 8,
            "depths": [1],
            "num_heads": [2],
            "window_size": 4,
            "upsampler": "pixelshuffledirect",
        },
        "path": {"experiments_root": str(tmp_path / "experiments")},
        "train": {"total_iter": 2, "optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"}},
        "val": {"metrics": ["psnr", "nano"]},
        "logger": {"print_freq": 1, "use_tb_logger": False},
    }
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(options))
    return path


def test_help_imports_nothing_heavy():
    code = "import sys, sr_iqa.cli; print([m for m in ('torch', 'pyiqa', 'basicsr', 'peft', 'cv2', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_train_test_and_infer(sr_iqa, option_file, tmp_path):
    code, out, err = sr_iqa("train", "-opt", option_file)
    assert code == 0, err
    run = tmp_path / "experiments" / "tiny"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in steps} == {0, 1, 2}
    code, out, err = sr_iqa("test", "-opt", option_file, "--json", tmp_path / "values.json", "--save", tmp_path / "sr")
    assert code == 0, err
    assert "psnr_original" in out
    values = json.loads((tmp_path / "values.json").read_text())
    assert len(values["metrics"]["nano"]["per_image"]) == 3 and len(list((tmp_path / "sr").glob("*.png"))) == 3
    again = sr_iqa("test", "-opt", option_file, "--outputs", tmp_path / "sr", "--json", tmp_path / "again.json")
    assert again[0] == 0
    assert json.loads((tmp_path / "again.json").read_text())["metrics"] == values["metrics"]
    save(tmp_path / "photo.png", picture(20))
    code, out, err = sr_iqa("infer", "-m", run, "-i", tmp_path / "photo.png", "-o", tmp_path / "big", "--tile", 16)
    assert code == 0, err
    from sr_iqa.images import read_image

    assert read_image(tmp_path / "big" / "photo.png").shape == (80, 80, 3)


def test_data_commands(sr_iqa, option_file, tmp_path):
    assert sr_iqa("data", "verify", "-opt", option_file)[0] == 0
    store, scores = tmp_path / "train.lmdb", tmp_path / "scores.parquet"
    assert sr_iqa("data", "pack", "-opt", option_file, "-o", store)[0] == 0
    packed = ("--set", f"datasets.train.dataroot_gt={store}", "--set", "datasets.train.dataroot_labels=null")
    assert sr_iqa("data", "score", "-opt", option_file, "-o", scores, *packed)[0] == 0
    assert scores.exists()
    code, out, _ = sr_iqa("data", "stats", "-opt", option_file, *packed)
    assert code == 0 and "sets: 3" in out
    code, out, err = sr_iqa("data", "show", "-opt", option_file, "--n", 5, "-o", tmp_path / "sample.png")
    assert code == 0, err
    from sr_iqa.images import read_image

    assert np.ptp(read_image(tmp_path / "sample.png")) > 50


def test_verify_names_the_bad_file_and_training_fails_in_the_same_words(sr_iqa, option_file, tmp_path):
    bad = next((tmp_path / "sets" / "images" / "02").glob("*.png"))
    bad.write_bytes(bad.read_bytes()[:200])
    code, out, err = sr_iqa("data", "verify", "-opt", option_file)
    assert code == 1 and bad.name in out and "Traceback" not in err
    line = next(line for line in out.splitlines() if bad.name in line)
    code, _, err = sr_iqa("train", "-opt", option_file)
    assert code == 1 and line.strip() in err
    code, _, err = sr_iqa("train", "-opt", option_file, "--set", "datasets.train.on_bad_set=skip", "--set", "datasets.val.on_bad_set=skip")
    assert code == 0 and err.count("1 bad set(s) left out (on_bad_set: skip)") == 2


def test_errors_are_short_and_exit_codes_documented(sr_iqa, option_file, tmp_path):
    code, _, err = sr_iqa("train", "-opt", option_file, "--set", "train.totl_iter=3")
    assert code == 2 and "total_iter" in err and "Traceback" not in err
    code, _, err = sr_iqa("train", "-opt", tmp_path / "absent.yml")
    assert code == 2 and "absent.yml" in err and "Traceback" not in err
    code, out, err = sr_iqa("config", "check", option_file)
    assert code == 0 and "ok" in out
    code, out, _ = sr_iqa("train", "-opt", option_file, "--dry-run", "--set", "train.total_iter=1e3")
    assert code == 0 and yaml.safe_load(out)["train"]["total_iter"] == 1000
    assert not (tmp_path / "experiments").exists()


def test_a_weight_file_runs_in_the_option_files_network(sr_iqa, option_file, tmp_path):
    """A .pth does not say what it is for, and some arguments leave no trace in it."""
    from sr_iqa.archs import build_network

    odd = ["--set", "network_g.img_range=255", "--set", "path.pretrain_network_g=" + str(tmp_path / "net.pth")]
    network = {**yaml.safe_load(option_file.read_text())["network_g"], "img_range": 255}
    torch.save({"params": build_network(network).state_dict()}, tmp_path / "net.pth")
    assert sr_iqa("train", "-opt", option_file, *odd, "--set", "train.optim_g.lr=1e-12")[0] == 0
    tables = [sr_iqa("test", "-opt", option_file, *odd, *model) for model in ([], ["-m", tmp_path / "net.pth"])]
    assert tables[0][0] == tables[1][0] == 0 and tables[0][1] == tables[1][1]


def test_the_dial_turns_a_runs_adapter(sr_iqa, option_file, tmp_path):
    lora = ["--set", "lora={rank: 2}", "--set", "train.optim_g.lr=0.1", "--set", "name=lora"]
    assert sr_iqa("train", "-opt", option_file, *lora)[0] == 0
    folder, inputs = tmp_path / "experiments" / "lora", tmp_path / "sets" / "images" / "original"
    for scale in ("0", "0.5", "1"):
        assert sr_iqa("infer", "-m", folder, "--scale", scale, "-i", inputs, "-o", tmp_path / scale)[0] == 0
    outputs = {(tmp_path / scale / "0000-0-8.png").read_bytes() for scale in ("0", "0.5", "1")}
    assert len(outputs) == 3
    assert sr_iqa("infer", "-m", folder, "--scale", "much", "-i", inputs, "-o", tmp_path / "7")[0] == 2
    code, _, err = sr_iqa("infer", "-m", folder, "--adapter", folder / "models" / "adapter_2", "-i", inputs, "-o", tmp_path / "x")
    assert code == 2 and "brings its own" in err
    code, out, _ = sr_iqa("adapter", "info", folder / "models" / "adapter_2")
    assert code == 0 and "rank: 2" in out
    (folder / "models" / "adapter_2" / "adapter_config.json").write_text("{")
    code, _, err = sr_iqa("adapter", "info", folder / "models" / "adapter_2")
    assert code == 1 and "damaged adapter" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("infer", "-m", "net.pth", "-i", "photo.png", "-o", "photo.png"), 1, "give a folder"),
        (("infer", "-m", "net.pth", "-i", "photo.png", "-o", "out", "--device", "foo"), 2, "--device foo cannot be used here"),
        (("infer", "-m", "net.pth", "-i", "photo.png", "-o", "out", "--device", "cuda:9"), 2, "--device cuda:9 cannot be used here"),
        (("infer", "-m", "junk.pth", "-i", "photo.png", "-o", "out"), 1, "junk.pth: damaged, truncated or not a PyTorch file"),
        (("data", "show", "-opt", "tiny.yml", "--n", "0", "-o", "sets"), 1, "sets"),
        (("train", "-opt", "tiny.yml", "--set", "path.experiments_root=photo.png"), 1, "photo.png"),
    ],
)
def test_no_user_error_ends_in_a_traceback(sr_iqa, option_file, tmp_path, monkeypatch, arguments, code, words):
    from sr_iqa.archs import build_network

    monkeypatch.chdir(tmp_path)
    save(tmp_path / "photo.png", picture(16))
    (tmp_path / "junk.pth").write_bytes(b"junk\n")
    network = yaml.safe_load(option_file.read_text())["network_g"]
    torch.save({"params": build_network(network).state_dict()}, tmp_path / "net.pth")
    result = sr_iqa(*arguments)
    assert result[0] == code and words in result[2] and "Traceback" not in result[2]


def test_a_full_disk_is_one_line(sr_iqa, option_file, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")  # as the system says it of an open file: without a name

    monkeypatch.setattr("sr_iqa.training.trainer.train", full)
    code, _, err = sr_iqa("train", "-opt", option_file)
    assert code == 1 and "error: [Errno 28] No space left on device" in err and "Traceback" not in err


def test_config_schema_is_json(sr_iqa):
    code, out, _ = sr_iqa("config", "schema")
    assert code == 0 and "sampling" in json.dumps(json.loads(out))


def test_iqa_list_and_score(sr_iqa, tmp_path):
    save(tmp_path / "a.png", picture(64))
    code, out, _ = sr_iqa("iqa", "list", "nano")
    assert code == 0 and "nano" in out
    code, out, err = sr_iqa("iqa", "score", tmp_path / "a.png", "--metric", "nano")
    assert code == 0, err
    assert 0 <= float(out.splitlines()[1].split("\t")[1]) <= 100
    code, _, err = sr_iqa("iqa", "score", tmp_path / "a.png", "--metric", "musiqq")
    assert code in (1, 2) and "musiq" in err

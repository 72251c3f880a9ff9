"""Two real processes under `accelerate launch` train as one does. The plain CPU form silently starts one, so the tests count them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from sr_iqa.config import options_to_yaml
from tests.test_training import assert_same_curve
from tests.tiny_runs import GAN, RRDB, differences, losses, run, state, tiny, validation

LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0", "--num_processes"]
TRAIN = ["-m", "sr_iqa", "train", "-opt"]
RATE = {"train": {"optim_g": {"lr": 1e-4}, "ema_decay": 0.5}}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One data set for all runs here."""
    return tmp_path_factory.mktemp("processes")


def launch(root, name, *changes, processes=2, use_cpu=True, wait=True, command=TRAIN, more=()):
    """Starts a run in several processes through the command line; returns the finished process, or the running one."""
    path = root / f"{name}.yml"
    path.write_text(options_to_yaml(tiny(root, name, *changes)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true" if use_cpu else "false"}
    launcher = [*LAUNCHER, str(processes)] if processes > 1 else [sys.executable]
    command = [*launcher, *command, str(path), *map(str, more)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if wait:
        process.output = process.communicate(timeout=240)[0]
    return process


def started(folder):
    """The number of processes that a run says it had."""
    return json.loads((folder / "versions.json").read_text())[-1]["processes"]


def test_two_processes_train_as_one(root):
    """GAN, EMA and validation: 2 processes x batch 2 against 1 x 4; the accumulated form is compared in test_training."""
    changes = (GAN, {"network_g": RRDB}, RATE, validation(root), {"logger": {"use_tb_logger": True}})
    process = launch(root, "two", *changes)
    assert process.returncode == 0, process.output
    folder = root / "runs" / "two"
    assert started(folder) == 2
    one = run(root, "one", *changes, {"datasets": {"train": {"batch_size_per_gpu": 4}}})
    assert_same_curve(one, folder)
    assert losses(folder).keys() == losses(one).keys()
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert state(folder, 6)["n"] == state(one, 6)["n"] == 24
    for line, other in zip(_validations(one), _validations(folder), strict=True):
        assert line == pytest.approx(other, rel=1e-4)


def _validations(folder):
    return [line["val"] for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "val" in line]


@pytest.mark.slow
def test_processes_that_do_not_know_each_other_stop(root):
    if torch.cuda.is_available():
        pytest.skip("with a GPU they do")
    process = launch(root, "strangers", use_cpu=False)
    assert process.returncode != 0
    assert "ACCELERATE_USE_CPU=true accelerate launch" in process.output
    assert not (root / "runs" / "strangers").exists()


@pytest.mark.slow
def test_three_processes_resume_to_the_bit(root):
    """Three, because DistributedDataParallel's order of sums shows only there."""
    changes = (GAN, {"network_g": RRDB, "train": {"accum_iter": 2, "ema_decay": 0.9}})
    for name, totals in (("whole", [6]), ("parts", [3, 6])):
        for total in totals:
            process = launch(root, name, *changes, {"train": {"total_iter": total}}, processes=3)
            assert process.returncode == 0, process.output
    whole, parts = (root / "runs" / name for name in ("whole", "parts"))
    assert started(whole) == started(parts) == 3
    assert [d for d in differences(state(whole, 6), state(parts, 6)) if d != ".options.name"] == []


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_and_stops_both(root):
    process = launch(root, "signalled", {"train": {"total_iter": 100000}}, wait=False)
    folder = root / "runs" / "signalled"
    deadline = time.monotonic() + 120
    while not losses_so_far(folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "stopped", output
    assert started(folder) == 2
    assert state(folder, status["step"])["step"] == status["step"]


def family(pid):
    """A process and all its descendants, whatever their sessions: SLURM signals everything in a step."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(words[1])
    found = [pid] if pid in parents else []
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT], ids=["SLURM's warning", "Ctrl-C"])
def test_a_signal_to_all_at_once(root, number):
    """As SLURM and terminals send it: the launcher has it too, and passes it on or, as docs/scaling.md has it, does not hear it."""
    name = f"all_{number}"
    path = root / f"{name}.yml"
    path.write_text(options_to_yaml(tiny(root, name, {"train": {"total_iter": 100000}})))
    command = shlex.join([*LAUNCHER, "2", *TRAIN, str(path)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with (root / f"{name}.log").open("w") as log:
        script = f"trap '' USR1; {command}"
        process = subprocess.Popen(["bash", "-c", script], env=environment, stdout=log, stderr=log, start_new_session=True)
    folder = root / "runs" / name
    deadline = time.monotonic() + 120
    while not losses_so_far(folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    for pid in family(process.pid):
        os.kill(pid, number)
    try:
        process.wait(timeout=90)
    finally:
        for pid in family(process.pid):
            os.kill(pid, signal.SIGKILL)
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "stopped", (root / f"{name}.log").read_text()
    assert state(folder, status["step"])["step"] == status["step"]


@pytest.mark.slow
def test_adapter_reward_and_amo_in_two_processes(root):
    sampling = {"datasets": {"train": {"sampling": {"strategy": "amo", "metric": "nano"}}}}
    changes = (RATE, sampling, {"lora": {"rank": 2}, "train": {"reward_opt": {"metric": "nano", "weight": 0.02}}})
    process = launch(root, "lora_two", *changes)
    assert process.returncode == 0, process.output
    folder = root / "runs" / "lora_two"
    assert started(folder) == 2
    one = run(root, "lora_one", *changes, {"datasets": {"train": {"batch_size_per_gpu": 4}}})
    assert_same_curve(one, folder)
    assert [line["chosen"] for line in losses(one).values()] == [line["chosen"] for line in losses(folder).values()]


@pytest.mark.slow
def test_scoring_and_evaluation_in_three_processes(root):
    """Four sets, which three processes cannot share evenly."""
    changes = ({"train": {"total_iter": 2}}, validation(root))
    run(root, "shared", *changes)
    tables, values = [], []
    for processes in (1, 3):
        table, numbers = root / f"scores{processes}.parquet", root / f"values{processes}.json"
        for command, more in (("data score", ("--metric", "nano", "-o", table)), ("test", ("--json", numbers))):
            process = launch(root, "shared", *changes, processes=processes, command=["-m", "sr_iqa", *command.split(), "-opt"], more=more)
            assert process.returncode == 0, process.output
        tables.append([(row["set"], row["member"], round(row["score"], 3)) for row in parquet.read_table(table).to_pylist()])
        values.append(json.loads(numbers.read_text())["metrics"])
    assert len(tables[0]) == 16 and tables[0] == tables[1]
    for column, one in values[0].items():
        assert one["per_image"] == pytest.approx(values[1][column]["per_image"], rel=1e-5), column


def losses_so_far(folder):
    path = folder / "metrics.jsonl"
    return path.exists() and len(path.read_text().splitlines()) > 10

"""Two machines, made of network namespaces on one: each has its own network, a cable between them, and a launcher of its own.

Needs root and iproute2; skipped where they are not.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from sr_iqa.config import options_to_yaml
from tests.test_training import assert_same_curve
from tests.tiny_runs import GAN, differences, lines, run, state, tiny

pytestmark = pytest.mark.slow
RATE = {"train": {"optim_g": {"lr": 1e-4}, "ema_decay": 0.5}}
LONG = {"train": {"total_iter": 400}, "logger": {"save_checkpoint_freq": 10, "print_freq": 5, "keep_checkpoints": 100}}


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def hosts():
    """Two names of network namespaces, 10.77.0.1 and 10.77.0.2, interfaces eth_<name>."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"s{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError:
        pytest.skip("network namespaces are not allowed here")
    ip("link", "add", f"e{names[0]}", "type", "veth", "peer", "name", f"e{names[1]}")
    for k, name in enumerate(names, 1):
        ip("link", "set", f"e{name}", "netns", name)
        ip("-n", name, "addr", "add", f"10.77.0.{k}/24", "dev", f"e{name}")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", f"e{name}", "up")
    yield names
    for name in names:
        kill(name)
        ip("netns", "del", name)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One data set for all runs here; the file system is shared by both machines."""
    return tmp_path_factory.mktemp("machines")


def kill(host):
    """Every process of a machine, at once."""
    for pid in subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)


def launch(hosts, root, name, *changes, patience=60):
    """The same command on both machines; returns the two processes."""
    path = root / f"{name}.yml"
    path.write_text(options_to_yaml(tiny(root, name, *changes)))
    shared = ["--num_machines", "2", "--num_processes", "2", "--main_process_ip", "10.77.0.1", "--main_process_port", "29511"]
    processes = []
    for k, host in enumerate(hosts):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": f"e{host}"}
        environment["SR_IQA_TIMEOUT_S"] = str(patience)
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", *shared, "--machine_rank", str(k)]
        command = ["ip", "netns", "exec", host, *launcher, "-m", "sr_iqa", "train", "-opt", str(path)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return processes


def finish(processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs


def wait_for_step(folder, step):
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or not lines(folder) or lines(folder)[-1]["step"] < step:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_two_machines_train_as_one_process(hosts, root):
    changes = (GAN, RATE)
    finish(launch(hosts, root, "two", *changes))
    folder = root / "runs" / "two"
    assert json.loads((folder / "versions.json").read_text())[-1]["processes"] == 2
    assert_same_curve(run(root, "one", *changes, {"datasets": {"train": {"batch_size_per_gpu": 4}}}), folder)


def test_a_killed_machine_ends_the_other_with_a_message_and_both_resume_exactly(hosts, root):
    finish(launch(hosts, root, "calm", LONG))
    processes = launch(hosts, root, "rough", LONG)
    folder = root / "runs" / "rough"
    wait_for_step(folder, 50)
    kill(hosts[1])
    killed = time.monotonic()
    output = processes[0].communicate(timeout=60)[0]
    assert time.monotonic() - killed < 30
    assert processes[0].returncode == 1 and "error: process 0 of 2 lost contact with another one" in output
    assert "lost contact" in json.loads((folder / "status.json").read_text())["message"]
    processes[1].wait()
    finish(launch(hosts, root, "rough", LONG))
    assert "resumed from" in (folder / "train.log").read_text()
    found = differences(state(root / "runs" / "calm", 400), state(folder, 400))
    assert [place for place in found if place != ".options.name"] == []
    steps = [line["step"] for line in lines(folder)]
    assert steps == sorted(set(steps))


def test_a_machine_that_is_cut_off_is_given_up_after_the_stated_time(hosts, root):
    processes = launch(hosts, root, "cut", LONG, {"train": {"total_iter": 100000}}, patience=10)
    folder = root / "runs" / "cut"
    wait_for_step(folder, 20)
    ip("-n", hosts[1], "link", "set", f"e{hosts[1]}", "down")
    cut = time.monotonic()
    try:
        outputs = [process.communicate(timeout=90)[0] for process in processes]
    finally:
        ip("-n", hosts[1], "link", "set", f"e{hosts[1]}", "up")
    assert time.monotonic() - cut < 10 + 35  # the launchers take their time
    assert all(process.returncode == 1 for process in processes)
    assert all("lost contact with another one" in output for output in outputs)

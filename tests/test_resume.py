"""A run that was stopped, killed or broken goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from sr_iqa.distributed import check_launch
from sr_iqa.errors import UsageError, UserError
from sr_iqa.training import trainer
from sr_iqa.training.folder import final_weights
from sr_iqa.training.state import check_unchanged, plain
from tests.tiny_runs import GAN, RRDB, differences, lines, losses, network, run, state, tiny, validation

REWARD = {"metric": "nano", "weight": 0.02, "warmup_iter": 4}
VARIANTS = {
    "plain": ({"network_g": {"depths": [2], "drop_path_rate": 0.5}, "train": {"grad_clip": 0.1, "warmup_iter": 4}},),
    "gan_ema": (GAN, {"network_g": RRDB, "train": {"accum_iter": 2, "ema_decay": 0.9, "net_d_iters": 2}}),
    "lora_reward": ({"lora": {"rank": 2, "dropout": 0.3}, "train": {"ema_decay": 0.9, "reward_opt": REWARD}},),
    "amo": ({"datasets": {"train": {"sampling": {"strategy": "amo", "metric": "nano"}}}},),
    "bf16": (GAN, {"precision": "bf16", "datasets": {"train": {"sampling": {"strategy": "uniform_positive"}}}}),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One data set for all runs here."""
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def stop_after(monkeypatch, steps, action):
    """Does `action` at the end of train_step number `steps`."""
    original = trainer.train_step

    def step(run, *arguments):
        original(run, *arguments)
        if run.step == steps:
            action()

    monkeypatch.setattr(trainer, "train_step", step)


@pytest.mark.parametrize("variant", VARIANTS)
def test_six_steps_equal_three_and_three_to_the_bit(root, variant):
    whole = run(root, f"{variant}_6", *VARIANTS[variant])
    run(root, f"{variant}_33", *VARIANTS[variant], {"train": {"total_iter": 3}})
    parts = run(root, f"{variant}_33", *VARIANTS[variant])
    one, two = state(whole, 6), state(parts, 6)
    assert [d for d in differences(one, two) if d != ".options.name"] == []
    assert one["n"] == 12 * (2 if variant == "gan_ema" else 1)
    assert losses(whole) == losses(parts)
    assert differences(state(whole, 3)["net_g"], one["net_g"]), "nothing has been learnt"
    assert "resumed from" in (parts / "train.log").read_text()


def test_kill_9_and_rerun(root, tmp_path):
    """A process of its own, killed at once after step 4; its second run ends like an undisturbed one."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from sr_iqa.training import trainer\n"
        "from tests.tiny_runs import run\n"
        "from tests.test_resume import VARIANTS, stop_after\n"
        "import pytest\n"
        "stop_after(pytest.MonkeyPatch(), 4, lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
        "run(Path(sys.argv[1]), 'killed', *VARIANTS['plain'], {'logger': {'print_freq': 2}})\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = root / "runs" / "killed"
    assert json.loads((folder / "status.json").read_text())["state"] == "running"
    lines_of_two = {"logger": {"print_freq": 2}}
    run(root, "killed", *VARIANTS["plain"], lines_of_two)
    whole = run(root, "undisturbed", *VARIANTS["plain"], lines_of_two)
    assert [d for d in differences(state(whole, 6), state(folder, 6)) if d != ".options.name"] == []
    assert losses(whole) == losses(folder)  # the line of steps 3 and 4 was half done when the checkpoint was written
    assert list(losses(folder)) == [2, 4, 6]
    assert len(lines(folder)) == 3, "a step was logged twice"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_finishes_the_step_saves_and_exits(root, monkeypatch, number, code):
    name = f"signal_{code}"
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stopped:
            run(root, name)
    assert stopped.value.code == code
    folder = root / "runs" / name
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert state(folder, 2)["step"] == 2
    whole, parts = run(root, "signal_whole"), run(root, name)
    assert differences(network(whole, 6), network(parts, 6)) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_ends_at_once(root):
    """In a process of its own, whose steps last longer than the test may."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from sr_iqa.training import trainer\n"
        "from tests.test_resume import stop_after\n"
        "from tests.tiny_runs import run\n"
        "import pytest\n"
        "stop_after(pytest.MonkeyPatch(), 4, lambda: (print('asleep', flush=True), time.sleep(600)))\n"
        "run(Path(sys.argv[1]), 'twice')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()
    folder = root / "runs" / "twice"
    assert state(folder, 3)["step"] == 3
    assert differences(state(run(root, "twice"), 6), state(run(root, "twice_whole"), 6)) == [".options.name"]


def test_a_signal_ends_a_validation_which_is_made_up_for_later(root, monkeypatch):
    changes = validation(root, val_freq=2)
    original = trainer.evaluate

    def evaluate(net, *arguments):
        if not (root / "runs" / "interrupted" / "visualization" / "0.png").exists():
            return original(net, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return original(net, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", evaluate)
        with pytest.raises(SystemExit):
            run(root, "interrupted", changes)
    folder = root / "runs" / "interrupted"
    assert state(folder, 2)["step"] == 2
    assert [line["step"] for line in lines(folder) if "val" in line] == [0]
    run(root, "interrupted", changes)
    assert [line["step"] for line in lines(folder) if "val" in line] == [0, 2, 4, 6]


def test_a_damaged_checkpoint_is_passed_over(root):
    folder = run(root, "damaged")
    whole = state(folder, 6)
    path = folder / "training_states" / "6.pt"
    path.write_bytes(path.read_bytes()[:2000])
    (folder / "training_states" / ".tmp-12345678-9.pt").write_bytes(b"half")
    (folder / "training_states" / "9.pt").write_bytes(b"junk\n")
    run(root, "damaged")
    assert "6.pt cannot be used" in (folder / "train.log").read_text()
    assert "9.pt cannot be used" in (folder / "train.log").read_text()
    assert "at step 3" in (folder / "train.log").read_text()
    assert differences(whole, state(folder, 6)) == []
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5, 6]
    assert not list(folder.glob("*/.tmp-*"))


def test_a_lack_of_memory_is_no_damage(root, monkeypatch):
    """An older checkpoint must not be taken because the newest one could not be held."""
    run(root, "large", {"train": {"total_iter": 3}})

    def load(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        run(root, "large")


def test_a_finished_run_returns_at_once(root):
    folder = run(root, "finished")
    before = (folder / "metrics.jsonl").read_text()
    assert run(root, "finished") == folder
    assert (folder / "metrics.jsonl").read_text() == before
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


def test_changed_options_are_named(root):
    run(root, "changed", {"train": {"total_iter": 3}})
    with pytest.raises(UserError, match=r"train\.optim_g\.lr: 0\.001 -> 0\.5") as refused:
        run(root, "changed", {"train": {"optim_g": {"lr": 0.5}}})
    assert "total_iter" not in str(refused.value)
    allowed = {"val": {"crop_border": 2}, "logger": {"print_freq": 2}, "datasets": {"train": {"num_worker_per_gpu": 1}}}
    assert state(run(root, "changed", allowed), 6)["step"] == 6


def test_an_option_that_the_run_did_not_know_counts_as_its_default(tmp_path):
    now = tiny(tmp_path, "new")
    then = plain(now)
    del then["compile"], then["datasets"]["train"]["sampling"]["grid"]
    check_unchanged(then, plain(now), tmp_path)
    with pytest.raises(UserError, match="compile: False -> True"):
        check_unchanged(then, plain(tiny(tmp_path, "new", {"compile": True})), tmp_path)
    with pytest.raises(UserError, match="forgotten: 1 -> not set"):
        check_unchanged({**then, "forgotten": 1}, plain(now), tmp_path)


def test_the_global_batch_may_be_divided_anew_but_not_change(root):
    run(root, "divided", {"train": {"total_iter": 3}})
    with pytest.raises(UserError, match="global batch of 2 samples, now it is 4"):
        run(root, "divided", {"train": {"accum_iter": 2}})
    halves = {"datasets": {"train": {"batch_size_per_gpu": 1}}, "train": {"accum_iter": 2}}
    folder = run(root, "divided", halves)
    assert state(folder, 6)["n"] == 12


def test_fresh_keeps_the_old_run_under_another_name(root):
    folder = run(root, "again", {"train": {"total_iter": 3}})
    run(root, "again", {"train": {"total_iter": 1, "optim_g": {"lr": 0.5}}}, fresh=True)
    (archived,) = folder.parent.glob("again_archived_*")
    assert (archived / "training_states" / "3.pt").exists()
    assert [path.name for path in (folder / "training_states").iterdir()] == ["1.pt"]


@pytest.mark.parametrize("change", [{"train": {"optim_g": {"lr": -1}}}, {"network_g": {"num_heads": [3]}}])
def test_fresh_archives_nothing_before_the_new_run_can_start(root, change):
    folder = run(root, "stays", {"train": {"total_iter": 1}})
    with pytest.raises(UserError):
        run(root, "stays", change, fresh=True)
    assert (folder / "training_states" / "1.pt").exists() and not list(folder.parent.glob("stays_archived_*"))


def test_a_run_is_trained_by_one_process_at_a_time(root, tmp_path):
    hold = (
        "import sys, time; from pathlib import Path; from sr_iqa.training.folder import RunFolder, only_run_in\n"
        f"with only_run_in(RunFolder(Path({str(root / 'runs' / 'shared')!r}))): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is being trained by process {other.pid} on "):
            run(root, "shared")
        assert not (root / "runs" / "shared").exists()
        other.kill()
        other.wait()
    assert state(run(root, "shared"), 6)["step"] == 6


def test_old_states_are_removed_and_weights_kept(root):
    folder = run(root, "kept", {"logger": {"save_checkpoint_freq": 1, "keep_checkpoints": 2}})
    assert sorted(path.name for path in (folder / "training_states").iterdir()) == ["5.pt", "6.pt"]
    assert len(list((folder / "models").glob("net_g_*"))) == 6
    assert final_weights(folder).name == "net_g_6.safetensors"


def test_a_failed_write_leaves_the_last_checkpoint(root, monkeypatch):
    original = torch.save

    def full(content, path):
        if content["step"] == 6:
            raise OSError("No space left on device")
        original(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match=r"6\.pt: could not be written: No space left"):
            run(root, "full")
    folder = root / "runs" / "full"
    assert [path.name for path in (folder / "training_states").iterdir()] == ["3.pt"]
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed" and "No space left" in status["message"]
    assert state(run(root, "full"), 6)["step"] == 6


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="started 2 processes, but Accelerate sees 1"):
        check_launch()

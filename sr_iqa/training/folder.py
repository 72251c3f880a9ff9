"""A run's folder: what lies where, and where it came from."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..atomic import TEMPORARY_PREFIX, atomic_write
from ..config import options_to_yaml
from ..config.metric_models import MetricOptions
from ..config.models import Options
from ..distributed import world_size
from ..errors import UserError
from ..names import package_version

PACKAGES = (
    *("sr-iqa", "torch", "torchvision", "accelerate", "peft", "pyiqa", "basicsr", "spandrel"),
    *("safetensors", "numpy", "opencv-python-headless", "lmdb", "pydantic", "einops"),
)


@dataclass(frozen=True)
class RunFolder:
    """`<experiments_root>/<name>/` and the names inside it (docs/training.md)."""

    root: Path

    @property
    def options(self) -> Path:
        return self.root / "options.yml"

    @property
    def versions(self) -> Path:
        return self.root / "versions.json"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def states(self) -> Path:
        return self.root / "training_states"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def log(self) -> Path:
        return self.root / "train.log"

    @property
    def pictures(self) -> Path:
        return self.root / "visualization"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tb"

    def network(self, label: str, step: int) -> Path:
        """The weight file of a network: label net_g, net_g_ema or net_d."""
        return self.models / f"{label}_{step}.safetensors"

    def adapter(self, step: int) -> Path:
        return self.models / f"adapter_{step}"


def run_folder(options: Options | MetricOptions) -> RunFolder:
    return RunFolder(options.path.experiments_root / options.name)


@contextmanager
def only_run_in(folder: RunFolder) -> Iterator[None]:
    """Holds the run's lock file, which the system releases when the process ends, however it ends.

    The file lies beside the folder, so that --fresh can move the folder while it is held.

    Raises:
        UserError: another process trains this run; says which.
    """
    folder.root.parent.mkdir(parents=True, exist_ok=True)
    with (folder.root.parent / f".{folder.root.name}.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which loader workers would go on holding after a kill
        except OSError as error:
            file.seek(0)
            raise UserError(
                f"{folder.root} is being trained by {file.read().strip() or 'another process'}; stop it, or choose another `name`"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def archive(folder: RunFolder) -> Path | None:
    """Renames an existing run to <name>_archived_<time>, with everything in it; returns the new place."""
    if not folder.root.exists():
        return None
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S_%f")
    return folder.root.rename(folder.root.with_name(f"{folder.root.name}_archived_{stamp}"))


def prepare(folder: RunFolder, options: Options | MetricOptions, step: int) -> None:
    """Makes the folder, removes what killed writers left behind, and records the options and this start."""
    folder.models.mkdir(parents=True, exist_ok=True)
    folder.states.mkdir(exist_ok=True)
    for leftover in (*folder.root.glob(f"{TEMPORARY_PREFIX}*"), *folder.root.glob(f"*/{TEMPORARY_PREFIX}*")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    with atomic_write(folder.options) as path:
        path.write_text(options_to_yaml(options))
    starts = json.loads(folder.versions.read_text()) if folder.versions.exists() and step else []
    with atomic_write(folder.versions) as path:
        path.write_text(json.dumps([*starts, provenance(step)], indent=1))


def provenance(step: int) -> dict[str, Any]:
    """Where a run's figures come from: command, git commit, package versions; one record per start."""
    return {
        "step": step,
        "processes": world_size(),
        "time": datetime.now().isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_commit": git_commit(),
        "python": sys.version.split()[0],
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def git_commit() -> str | None:
    """The commit of the source tree this package is imported from, `+changes` added where it was edited; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def final_weights(folder: Path | str) -> Path:
    """The newest weights of a run to use: an adapter folder for LoRA runs, else a .safetensors file (the EMA's where there is one).

    Raises:
        UserError: nothing has been saved there.
    """
    models = RunFolder(Path(folder)).models
    found = []
    for path in models.iterdir() if models.is_dir() else ():
        match = re.fullmatch(r"(adapter|net_g_ema|net_g)_(\d+)(\.safetensors)?", path.name)
        if match:
            found.append((int(match[2]), ("net_g", "net_g_ema", "adapter").index(match[1]), path))
    if not found:
        raise UserError(f"{models}: no network weights there. Has the run reached its first checkpoint (logger.save_checkpoint_freq)?")
    return max(found)[2]

"""`sr-iqa doctor`: what this machine and this installation can do, and what stands in the way; the first thing a bug report needs.

Nothing is downloaded, and nothing is left behind. A check is a function that yields findings; one that raises has found a problem. They
import what they look at themselves, so that a broken package is reported and the next check goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import requires
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Any, Literal

from . import __version__
from .atomic import atomic_write
from .errors import UserError
from .names import package_version

if TYPE_CHECKING:
    import torch
    from torch import Tensor

State = Literal["ok", "note", "PROBLEM"]

GB, MB = 1e9, 1e6
NVIDIA_DRIVER = Path("/dev/nvidiactl")
NEWER_GPU = (8, 0)
"""Compute capability (Ampere) from which on NVIDIA's cards have TF32 and bfloat16."""
WORST_ROUNDING = 0.02
"""Relative error of a product that bfloat16, the coarsest of the formats, stays well below (0.3 %)."""
TINY_SWINIR = {"type": "SwinIR", "upscale": 4, "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 4, "drop_path_rate": 0.0}
SAME_SCORE = 0.1
"""Points of 100 by which nano may differ between a GPU and the CPU."""
PAPERS_SEVEN = ("musiq", "nima", "paq2piq", "liqe", "arniqa-tid", "qalign", "topiq_nr")
SPEED_BLOCKS, SPEED_BLOCK = 16, 4 * 2**20
SPEED_SECONDS = 2.0
"""The disk's speed is measured on 64 MiB, or on what is written in this time."""
LITTLE_SPACE, LITTLE_SHM, SLOW_DISK = 10 * GB, 1 * GB, 50 * MB
FEWER_WITHOUT = ("basicsr", "pyiqa", "peft", "spandrel", "tensorboard")
"""Dependencies without which most of the program works: absent ones are no problem."""
TWINS = (
    ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    ("tensorboard", "tb-nightly"),
)
"""Packages that write the same folder: the one installed last wins, and removing one breaks the other."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    state: State
    text: str

    def __str__(self) -> str:
        return f"{self.state:9}{self.name}: {self.text}".replace("\n", "\n" + 9 * " ")


Check = Callable[[], Iterable[Finding]]


def examine(folder: Path | None = None, opt: Path | None = None, stores: Sequence[Path] = ()) -> Iterator[Finding]:
    """All findings, each as soon as it is known.

    Args:
        folder: where runs will be written; by default what the option file says, or the current directory.
        opt: an option file to check, with its stores.
        stores: packed stores of which every image is read and compared with what was packed.
    """
    for name, check in CHECKS.items():
        yield from carried_out(name, check)
    if opt:
        yield from carried_out("options", partial(option_file, opt, look_at_folder=folder is None))
    if folder or not opt:
        yield from carried_out("folder", partial(run_folder, folder or Path.cwd()))
    for path in stores:
        yield from carried_out("store", partial(store, path))


def carried_out(name: str, check: Check) -> Iterator[Finding]:
    """The findings of one check; what it raises is one of them."""
    try:
        yield from check()
    except UserError as error:
        yield Finding(name, "PROBLEM", str(error))
    except Exception as error:  # what a broken package raises cannot be foreseen
        yield Finding(name, "PROBLEM", f"{type(error).__name__}: {error}")


def write_findings(findings: Iterable[Finding], path: Path) -> None:
    """Saves a report as JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- what is installed


def system() -> Iterator[Finding]:
    """Versions of the program, Python and the system."""
    yield Finding("sr_iqa", "ok", f"{__version__} in {Path(__file__).parent}")
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable}) on {platform.platform()}")


def packages() -> Iterator[Finding]:
    """Versions of the dependencies, against those that sr_iqa asks for."""
    from packaging.requirements import Requirement

    fitting = []
    for wanted in map(Requirement, requires("sr_iqa") or ()):
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = package_version(wanted.name)
        if found is None:
            state = "note" if wanted.name in FEWER_WITHOUT else "PROBLEM"
            yield Finding(wanted.name, state, f"not installed; get it with: pip install '{wanted}'")
        elif not wanted.specifier.contains(found, prereleases=True):
            yield Finding(wanted.name, "PROBLEM", f"{found} is installed, {wanted.specifier} is needed: pip install '{wanted}'")
        else:
            fitting.append(f"{wanted.name} {found}")
    yield Finding("packages", "ok", ", ".join(fitting))


def twins() -> Iterator[Finding]:
    """Packages that overwrite each other's files."""
    for group in TWINS:
        here = [name for name in group if package_version(name)]
        if len(here) > 1:
            mend = f"pip uninstall -y {' '.join(here)} && pip install {group[0]}"
            yield Finding(group[0], "note", f"{' and '.join(here)} write the same files; if that makes trouble: {mend}")


def opencv() -> Iterator[Finding]:
    """Whether OpenCV loads, and which of its builds that is."""
    from .images import cv2  # from there, because it says what to do where cv2 cannot be loaded

    headless = any(line.split() == ["GUI:", "NONE"] for line in cv2.getBuildInformation().splitlines())
    yield Finding("opencv", "ok", f"{cv2.__version__}, {'headless build' if headless else 'build with windows, which needs libGL'}")


def torchvision() -> Iterator[Finding]:
    """Whether torchvision belongs to this torch: its compiled operators load only into the release that they were built for."""
    import torch

    pair = f"{package_version('torchvision')} with torch {torch.__version__}"
    try:
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception as error:  # as in `carried_out`
        mend = "install the two together: pip install --force-reinstall torch torchvision"
        yield Finding("torchvision", "PROBLEM", f"{pair} does not work ({type(error).__name__}: {error}); {mend}")
    else:
        yield Finding("torchvision", "ok", pair)


def parts() -> Iterator[Finding]:
    """Which optional parts work; each is really imported, in the way in which the program does it."""
    for name, (gives, load) in PARTS.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
                load()
        except Exception as error:  # as in `carried_out`
            absent = package_version(name) is None
            text = "not installed" if absent else f"does not work ({type(error).__name__}: {error})"
            yield Finding(name, "note" if absent else "PROBLEM", f"{text}; it gives {gives}")
        else:
            yield Finding(name, "ok", gives)


def _load_basicsr() -> None:
    from .archs.basicsr_bridge import import_basicsr

    import_basicsr()


def _load_pyiqa() -> None:
    from .iqa.metrics import create_metric

    create_metric("psnr")


PARTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "basicsr": ("networks of BasicSR by name, and the metric niqe", _load_basicsr),
    "pyiqa": ("most metrics", _load_pyiqa),
    "openai-clip": ("clipiqa, liqe and others (pyiqa asks for it)", partial(importlib.import_module, "clip")),
    "spandrel": ("weight files of networks that are not ours", partial(importlib.import_module, "spandrel")),
    "peft": ("LoRA adapters", partial(importlib.import_module, "peft")),
    "tensorboard": ("logger.use_tb_logger", partial(importlib.import_module, "torch.utils.tensorboard")),
}
"""Package -> what it gives, and how it is loaded. pyiqa comes before openai-clip, whose import it mends."""


# ---------------------------------------------------------------- what the machine can do


def devices() -> Iterator[Finding]:
    """Cores, memory and GPUs."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("cpu", "ok", f"{os.cpu_count()} cores, of which torch uses {torch.get_num_threads()}; {memory / GB:.0f} GB of memory")
    shared = Path("/dev/shm")
    if shared.is_dir() and (free := disk_usage(shared).free) < LITTLE_SHM:
        yield Finding("shared memory", "note", f"{free / MB:.0f} MB: loader workers may need more (docker run --shm-size 8g)")
    for number in range(torch.cuda.device_count()):
        card, (free, _) = torch.cuda.get_device_properties(number), torch.cuda.mem_get_info(number)
        text = f"{card.name}, {card.total_memory / GB:.0f} GB ({free / GB:.0f} free), compute capability {card.major}.{card.minor}"
        yield Finding(f"cuda:{number}", "ok", text)
    if not torch.cuda.is_available():
        yield _no_gpu()


def _no_gpu() -> Finding:
    """Why torch sees none: there is none, it is hidden, or torch cannot use it."""
    import torch

    if not NVIDIA_DRIVER.exists():
        return Finding("cuda", "note", "no NVIDIA GPU here; everything runs on the CPU")
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return Finding("cuda", "note", f"hidden by CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}")
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for the CPU only"
    return Finding("cuda", "PROBLEM", f"there is an NVIDIA driver, but {built} and cannot use it; get the build that fits: pytorch.org")


def precisions() -> Iterator[Finding]:
    """In which precisions every device multiplies, tried out."""
    for device in _devices():
        yield from carried_out(f"precision on {device}", partial(_precisions_of, device))


def _precisions_of(device: torch.device) -> Iterator[Finding]:
    import torch

    if device.type == "cpu":
        candidates, rest = ("no", "bf16"), "; fp16 and tf32 need a GPU"
    elif torch.cuda.get_device_capability(device) >= NEWER_GPU:
        candidates, rest = ("no", "tf32", "bf16", "fp16"), ""
    else:
        candidates, rest = ("no", "fp16"), "; bf16 and tf32 need compute capability 8.0"
    errors = {precision: _rounding(precision, device) for precision in candidates}
    right = [precision for precision, error in errors.items() if error < WORST_ROUNDING]
    for precision in errors.keys() - set(right):
        yield Finding(f"precision on {device}", "PROBLEM", f"{precision}: a product is off by {errors[precision]:.1%}; do not use it here")
    yield Finding(f"precision on {device}", "ok", f"{', '.join(right) or 'none'} tried and right{rest}")


def _rounding(precision: str, device: torch.device) -> float:
    """Relative error of a matrix product on the device."""
    import torch

    from .modes import tf32

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    a, b = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    with tf32(precision == "tf32"), torch.autocast(device.type, dtype, enabled=dtype is not None):
        product = (a.to(device) @ b.to(device)).double().cpu()
    exact = a.double() @ b.double()
    return float((product - exact).norm() / exact.norm())


def computing() -> Iterator[Finding]:
    """A training pass of a small SwinIR and a score of nano on every device."""
    for device in _devices():
        yield from carried_out(f"computing on {device}", partial(_computing_on, device))


def _computing_on(device: torch.device) -> Iterator[Finding]:
    import torch

    from .archs import build_network
    from .iqa.metrics import create_metric

    start, name = time.perf_counter(), f"computing on {device}"
    image = _picture()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_network({**TINY_SWINIR, "upsampler": "pixelshuffledirect"}).to(device)
    net(image.to(device)).square().mean().backward()
    gradients = torch.stack([p.grad.abs().sum().cpu() for p in net.parameters() if p.grad is not None])
    if not (gradients.isfinite().all() and gradients.sum() > 0):
        yield Finding(name, "PROBLEM", "the gradient of a small SwinIR is zero or not finite: training cannot work here")
        return
    score, reference = (float(create_metric("nano", where)(image.to(where))) for where in (device, "cpu"))
    if not abs(score - reference) < SAME_SCORE:  # NaN is not less either
        yield Finding(name, "PROBLEM", f"nano gives {score:.2f} here and {reference:.2f} on the CPU: its scores cannot be trusted")
        return
    seconds = time.perf_counter() - start
    yield Finding(name, "ok", f"SwinIR forward and backward, nano {score:.1f} of a test image, {seconds:.1f} s")


def _picture() -> Tensor:
    """Waves of several lengths, (1, 3, 32, 32) in [0, 1]."""
    import torch

    wave = torch.linspace(0, 12, 32).square().div(4).sin()
    return torch.stack([wave[:, None] * wave, wave[:, None].expand(32, 32), wave.expand(32, 32)])[None] / 2 + 0.5


def _devices() -> list[torch.device]:
    import torch

    return [torch.device("cpu"), *(torch.device("cuda", number) for number in range(torch.cuda.device_count()))]


def weights() -> Iterator[Finding]:
    """How many metrics have their weights, and which of the paper's."""
    from .iqa.metrics import list_metrics

    states = {info.name: info.weights.partition(":")[0] for info in list_metrics() if not info.refused}
    count = Counter(states.values())
    ready = f"{count['none']} need no weights, {count['shipped']} have them with a package, {count['present']} in a cache"
    yield Finding("weights", "ok", f"of {len(states)} metrics {ready}, {count['missing']} lack them")
    here = [name for name in PAPERS_SEVEN if states[name] != "missing"]
    lacking = [name for name in PAPERS_SEVEN if states[name] == "missing"]
    text = f"here: {', '.join(here) or 'none'}; missing: {', '.join(lacking) or 'none'}"
    yield Finding("the paper's metrics", "note" if lacking else "ok", text + (" (`sr-iqa iqa fetch NAME`)" if lacking else ""))


# ---------------------------------------------------------------- where things lie


def run_folder(folder: Path) -> Iterator[Finding]:
    """Free space and speed of the disk on which runs will be written."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = disk_usage(place).free
    if free < SPEED_BLOCKS * SPEED_BLOCK:
        yield Finding("folder", "PROBLEM", f"{folder}: the disk is full ({free / MB:.0f} MB free)")
        return
    written, read = disk_speed(place)
    state = "note" if free < LITTLE_SPACE or min(written, read) < SLOW_DISK else "ok"
    text = f"{free / GB:.0f} GB free, writes {written / MB:.0f} MB/s, reads {read / MB:.0f} MB/s"
    yield Finding("folder", state, f"{folder}: {text}")


def disk_speed(folder: Path) -> tuple[float, float]:
    """Bytes per second written and read back through a file that is gone afterwards."""
    block = os.urandom(SPEED_BLOCK)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        for _ in range(SPEED_BLOCKS):
            file.write(block)
            os.fsync(file.fileno())
            if time.perf_counter() - start > SPEED_SECONDS:
                break
        written, size = time.perf_counter() - start, file.tell()
        if hasattr(os, "posix_fadvise"):  # else it would be read back from memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(SPEED_BLOCK):
            pass
        return size / written, size / (time.perf_counter() - start)


def option_file(opt: Path, look_at_folder: bool) -> Iterator[Finding]:
    """An option file against this machine: its notes, its stores and the disk of its runs."""
    from .check import check
    from .checkpoints import with_network
    from .config import load
    from .data.store import is_store

    loaded = load(opt)
    loaded = replace(loaded, options=with_network(loaded.options))
    for note in (*loaded.notes, *check(loaded)):
        yield Finding("options", "note", note)
    yield Finding("options", "ok", f"{opt}: can be used")
    if look_at_folder:
        yield from carried_out("folder", partial(run_folder, loaded.options.path.experiments_root))
    datasets = loaded.options.datasets
    for path in dict.fromkeys(data.dataroot_gt for data in (datasets.train, datasets.val) if data and is_store(data.dataroot_gt)):
        yield from carried_out("store", partial(store, path))


def store(path: Path) -> Iterator[Finding]:
    """Whether all images of a packed store are those that were packed."""
    from .data.store import AGAIN, StoreReader

    reader = StoreReader(path)
    problems = list(reader.problems())
    images = sum(len(entry.paths) + (entry.lq is not None) for entry in reader.sets)
    if problems:
        first = problems[0].message.removesuffix(f"; {AGAIN}")
        yield Finding("store", "PROBLEM", f"{path}: {len(problems)} of {images} images are damaged (first: {first}); {AGAIN}")
    else:
        yield Finding("store", "ok", f"{path}: {len(reader.sets)} sets, {images} images as they were packed")


CHECKS: dict[str, Check] = {
    "system": system,
    "packages": packages,
    "twins": twins,
    "opencv": opencv,
    "torchvision": torchvision,
    "devices": devices,
    "precision": precisions,
    "computing": computing,
    "parts": parts,
    "weights": weights,
}

"""Weight files of metrics: where they come from, where they lie, whether they are here. Nothing is fetched unless `fetch` is called."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from sr_iqa.errors import UserError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
PYIQA_WEIGHTS = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main"


class MissingWeights(UserError):
    """Weight files of a metric are not on this machine."""


@dataclass(frozen=True)
class WeightFile:
    """One file, or one repository of Hugging Face."""

    url: str
    folder: str
    """Its cache: pyiqa, checkpoints, clip, openai, huggingface; assets and basicsr for files that come with a package (without BasicSR, as
    on Python 3.13, its file is to be fetched like any other)."""

    @property
    def name(self) -> str:
        """The file's name; for a repository owner/name."""
        return self.url.removeprefix("https://huggingface.co/") if self.folder == "huggingface" else self.url.rpartition("/")[2]

    @property
    def shipped(self) -> bool:
        return self.folder == "assets" or (self.folder == "basicsr" and _package("basicsr").exists())

    @property
    def path(self) -> Path:
        """Where the libraries look for it."""
        match self.folder:
            case "assets":
                return ASSETS / self.name
            case "basicsr" if self.shipped:
                return _package("basicsr") / "metrics" / self.name
            case "openai":
                return Path.home() / ".cache" / "clip" / self.name
            case "huggingface":
                return _huggingface_cache() / f"models--{self.name.replace('/', '--')}"
            case _:
                return Path(torch.hub.get_dir()) / self.folder / self.name

    @property
    def here(self) -> bool:
        return self.path.exists()

    def fingerprint(self) -> str:
        """The first 16 hex digits of the file's SHA-256; for a repository its commit."""
        if self.folder == "huggingface":
            return (self.path / "refs" / "main").read_text().strip()[:16]
        return file_fingerprint(self.path)

    def fetch(self) -> Path:
        """Download it to its place, if it is not there. Raises UserError without network or with a wrong checksum."""
        if self.here:
            return self.path
        if self.shipped:
            raise MissingWeights(f"{self.path} cannot be fetched: it comes with a package that is not installed, or not completely")
        try:
            self._download()
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"cannot fetch {self.url}: {error}\nFetch it on a machine with network and put it at {self.path}") from error
        return self.path

    def _download(self) -> None:
        if self.folder == "huggingface":
            from huggingface_hub import snapshot_download

            snapshot_download(self.name)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        checksum = self.url.split("/")[-2] if self.folder in ("clip", "openai") else None
        mirror = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        url = self.url.replace("https://huggingface.co", mirror, 1)
        torch.hub.download_url_to_file(url, str(self.path), hash_prefix=checksum, progress=False)


def require(metric: str, files: Iterable[WeightFile]) -> None:
    """Raises MissingWeights where a file is not here; the message says where each comes from and where it goes."""
    missing = [file for file in files if not file.here]
    if missing and all(file.shipped for file in missing):
        places = ", ".join(str(file.path) for file in missing)
        raise MissingWeights(f"{metric} needs {places}, which comes with a package that is not installed, or not completely")
    if missing:
        lines = "".join(f"\n  {file.name}: get {file.url}\n    and put it at {file.path}" for file in missing)
        raise MissingWeights(f"weights of {metric} are missing; run `sr-iqa iqa fetch {metric}`, or without network:{lines}")


def fingerprint(files: Iterable[WeightFile]) -> str:
    """One fingerprint of all files: the single file's own, or a hash of theirs; 'none' without files."""
    parts = [file.fingerprint() for file in files]
    if len(parts) < 2:
        return parts[0] if parts else "none"
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256."""
    status = path.stat()
    return _hash(path, status.st_mtime_ns, status.st_size)


@lru_cache
def _hash(path: Path, _time: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _package(name: str) -> Path:
    """A package's folder, without importing it; a name that does not exist where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return Path(f"<{name} is not installed>")
    return Path(spec.submodule_search_locations[0])


def _huggingface_cache() -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))

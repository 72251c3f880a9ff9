"""Readers of GT sets: from folders, and from a packed LMDB store that gives crops without decoding whole images.

A store is a folder NAME.lmdb with raw uint8 pixels: key `<set index>/<member>` (and `<set index>/lq`) -> h*w*3 bytes RGB,
key `meta` -> JSON with names, sizes, labels, source files and hashes. LMDB maps it into memory, so that a crop touches only its own pages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import lmdb
import numpy as np

from ..atomic import atomic_folder
from ..config.models import DataOptions
from ..errors import UserError
from ..images import image_size, read_image
from .checks import Images, check_images, refuse_or_skip
from .gtset import LQ, GTSet, Member, Problem
from .layouts import scan

VERSION = 1


class Reader(Protocol):
    """Pixels of sets by index; every array is uint8 RGB (h, w, 3)."""

    sets: Sequence[GTSet]

    def size(self, i: int, member: Member = 0) -> tuple[int, int]:
        """(height, width)."""
        ...

    def image(self, i: int, member: Member = 0) -> np.ndarray: ...

    def crop(self, i: int, member: Member, y: int, x: int, h: int, w: int) -> np.ndarray: ...


class FolderReader:
    """Decodes the whole image for every crop; pack a store where that is too slow."""

    def __init__(self, sets: Sequence[GTSet]) -> None:
        self.sets = sets

    def _path(self, i: int, member: Member) -> Path:
        path = self.sets[i].lq if member == LQ else self.sets[i].paths[int(member)]
        if path is None:
            raise UserError(f"set {self.sets[i].name} has no LQ image: give dataroot_lq")
        return path

    def size(self, i: int, member: Member = 0) -> tuple[int, int]:
        return image_size(self._path(i, member))

    def image(self, i: int, member: Member = 0) -> np.ndarray:
        return read_image(self._path(i, member))

    def crop(self, i: int, member: Member, y: int, x: int, h: int, w: int) -> np.ndarray:
        return self.image(i, member)[y : y + h, x : x + w]


_environments: dict[str, lmdb.Environment] = {}


def _environment(path: Path) -> lmdb.Environment:
    """This process's only handle of the store: LMDB forbids a second one."""
    key = str(path.resolve())
    if key in _environments:
        return _environments[key]
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise UserError(f"{path}: not a readable store ({error}); delete it and pack it again with `sr-iqa data pack`") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if (path / "data.mdb").stat().st_size < needed:  # reading past the end of a cut file would kill the process
        environment.close()
        raise UserError(f"{path}: the store is truncated; delete it and pack it again with `sr-iqa data pack`")
    _environments[key] = environment
    return environment


def _forget_all() -> None:
    while _environments:
        _environments.popitem()[1].close()


os.register_at_fork(after_in_child=_forget_all)  # a child must not read through its parent's handles; this closes the child's copies only


class StoreReader:
    """Reads a store made by `pack`; cheap to pickle, and safe after a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "data.mdb").is_file():
            raise UserError(f"{path}: no such store; make it with `sr-iqa data pack`")
        with _environment(path).begin() as transaction:
            meta = json.loads(transaction.get(b"meta") or b"{}")
        if meta.get("version") != VERSION:
            raise UserError(f"{path}: not a store of this program's version; pack it again with `sr-iqa data pack`")
        self.records: list[dict[str, Any]] = meta["sets"]
        self.sets: Sequence[GTSet] = [_set_of(record) for record in self.records]

    def size(self, i: int, member: Member = 0) -> tuple[int, int]:
        if str(member) not in self.records[i]["pixels"]:
            raise UserError(f"set {self.sets[i].name} of {self.path} has no LQ image: pack it with dataroot_lq")
        h, w, _ = self.records[i]["pixels"][str(member)]
        return h, w

    def image(self, i: int, member: Member = 0) -> np.ndarray:
        return self.crop(i, member, 0, 0, *self.size(i, member))

    def crop(self, i: int, member: Member, y: int, x: int, h: int, w: int) -> np.ndarray:
        full = self.size(i, member)
        with _environment(self.path).begin(buffers=True) as transaction:
            stored = transaction.get(_key(i, member))
            if stored is None:
                raise UserError(f"{self.path}: image {member} of set {self.sets[i].name} is missing; pack the store again")
            pixels = np.frombuffer(stored, np.uint8).reshape(*full, 3)
            return pixels[y : y + h, x : x + w].copy()

    def problems(self) -> Iterator[Problem]:
        """Images whose pixels are not those that were packed."""
        for i, record in enumerate(self.records):
            for member, (_, _, digest) in record["pixels"].items():
                if _hash(self.image(i, member)) != digest:
                    yield Problem(self.path, f"image {member} of set {record['name']} has changed since packing", record["name"])


def _set_of(record: dict[str, Any]) -> GTSet:
    labels = tuple(tuple(words) for words in record["labels"])
    return GTSet(record["name"], tuple(map(Path, record["paths"])), labels, Path(record["lq"]) if record["lq"] else None)


def _key(i: int, member: Member) -> bytes:
    return f"{i}/{member}".encode()


def _hash(image: np.ndarray) -> str:
    return blake2b(image.tobytes(), digest_size=8).hexdigest()


def is_store(path: Path) -> bool:
    return path.suffix == ".lmdb"


def open_reader(data: DataOptions, sets: Sequence[GTSet] | None = None) -> Reader:
    """The store, or a reader of these sets of the folders (all complete ones by default)."""
    if is_store(data.dataroot_gt):
        return StoreReader(data.dataroot_gt)
    return FolderReader(scan(data)[0] if sets is None else sets)


def pack(
    data: DataOptions,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
    scale: int | None = None,
    smallest: int = 1,
) -> int:
    """Writes the sets of `data`, every image decoded and checked, to the store `path`; returns their number.

    `progress` is called with (sets done, sets in all); `scale` and `smallest` as in check_images. The store appears complete or not at
    all, in place of an earlier store if there is one. Raises UserError naming the bad sets, or leaves them out where `data.on_bad_set`
    is skip; and where `path` is something else than a store of ours, which is not replaced.
    """
    if not is_store(path):
        raise UserError(f"{path}: a store's name ends in .lmdb")
    if is_store(data.dataroot_gt):
        raise UserError(f"{data.dataroot_gt} is a store already")
    _refuse_foreign(path)
    sets, problems = scan(data)
    records: list[dict[str, Any]] = []
    try:
        with atomic_folder(path) as folder, closing(lmdb.open(str(folder), map_size=_bytes_needed(sets), sync=False)) as environment:

            def keep(gt_set: GTSet, images: Images) -> None:
                records.append(_write(environment, len(records), gt_set, images))

            problems += check_images(sets, scale, smallest, keep, progress)
            refuse_or_skip(data, problems, len(records))
            with environment.begin(write=True) as transaction:
                transaction.put(b"meta", json.dumps({"version": VERSION, "sets": records}).encode())
            environment.sync(True)
    except lmdb.Error as error:
        raise UserError(f"{path}: could not be written ({error})") from error
    _forget(path)
    return len(records)


def _refuse_foreign(path: Path) -> None:
    """Nothing but a store of this program's, of any version, may be replaced: BasicSR's LMDB folders end in .lmdb too."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        with _environment(path).begin() as transaction:
            ours = transaction.get(b"meta") is not None
    except UserError:
        ours = False
    if not ours:
        raise UserError(f"{path} exists and is no store of this program's: choose another name, or remove it yourself")


def _write(environment: lmdb.Environment, i: int, gt_set: GTSet, images: Images) -> dict[str, Any]:
    """Puts a set's pixels under index i; returns its entry in the store's table."""
    with environment.begin(write=True) as transaction:
        for member, image in images.items():
            transaction.put(_key(i, member), image.tobytes())
    return {
        "name": gt_set.name,
        "paths": [str(path) for path in gt_set.paths],
        "labels": gt_set.labels,
        "lq": str(gt_set.lq) if gt_set.lq else None,
        "pixels": {str(member): (*image.shape[:2], _hash(image)) for member, image in images.items()},
    }


def _bytes_needed(sets: Sequence[GTSet]) -> int:
    """An upper bound of the store's size, from the headers; files without a readable header will not be stored."""
    total = 1 << 24
    for gt_set in sets:
        try:
            h, w = image_size(gt_set.paths[0])
        except UserError:
            continue
        total += (len(gt_set.paths) + 1) * (h * w * 3 + 8192) + 4096
    return total + total // 8


def _forget(path: Path) -> None:
    """Closes this process's handle of a store that has been replaced."""
    environment = _environments.pop(str(path.resolve()), None)
    if environment is not None:
        environment.close()

"""Readers of GT sets: from folders, and from a packed LMDB store (packing.py writes it) that gives crops without decoding whole images.

A store is a folder NAME.lmdb. LMDB maps its one file into memory, so that a crop touches only the blocks (blocks.py) that it lies in.

    key                       value
    meta                      JSON: version, codec (codecs.py), block (height, width), sets: the numbers of the sets in order
    <set>                     JSON: name, paths, labels, lq, pixels: {member: [height, width, hash of the decoded pixels]}
    <set>/<member>            the first block of the image, encoded
    <set>/<member>/<block>    its further blocks
    plan                      JSON: what the store was made from; packing.py resumes by it

Version 1, which is still read, had one raw block per image and the sets' records in meta.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lmdb
import numpy as np

from ..config.models import DataOptions
from ..errors import UserError
from ..images import image_size, read_image
from ..threads import in_threads
from .blocks import Size, parts
from .codecs import CODECS, Codec
from .gtset import LQ, GTSet, Member, Problem
from .layouts import scan

VERSION = 2
AGAIN = "delete it and pack it again with `sr-iqa data pack`"


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


class _Handle(NamedTuple):
    environment: lmdb.Environment
    transaction: lmdb.Transaction
    """Open as long as the handle: beginning one for every crop would take as long as the crop."""


_handles: dict[str, _Handle] = {}


def _open(path: Path) -> lmdb.Transaction:
    """This process's only handle of the store: LMDB forbids a second one.

    The system may read ahead: without that LMDB fetches a cold crop page by page, in 10 to 20 times the time (of the usual 128 KiB ahead).
    """
    key = str(path.resolve())
    if key not in _handles:
        try:
            environment = lmdb.open(str(path), readonly=True, lock=False, readahead=True)
        except lmdb.Error as error:
            raise UserError(f"{path}: not a readable store ({error}); {AGAIN}") from error
        if is_cut(environment, path):
            environment.close()
            raise UserError(f"{path}: the store is truncated; {AGAIN}")
        _handles[key] = _Handle(environment, environment.begin(buffers=True))
    return _handles[key].transaction


def is_cut(environment: lmdb.Environment, path: Path) -> bool:
    """Whether the file is shorter than LMDB believes: reading past its end would kill the process."""
    return (path / "data.mdb").stat().st_size < (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]


def forget(path: Path) -> None:
    """Closes this process's handle of a store that has been replaced."""
    handle = _handles.pop(str(path.resolve()), None)
    if handle is not None:
        handle.environment.close()


def _forget_all() -> None:
    while _handles:
        _handles.popitem()[1].environment.close()


os.register_at_fork(after_in_child=_forget_all)  # a child must not read through its parent's handles; this closes the child's copies only


class StoreReader:
    """Reads a store made by `pack`; cheap to pickle, and safe after a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "data.mdb").is_file():
            raise UserError(f"{path}: no such store; make it with `sr-iqa data pack`")
        meta = _meta(path)
        self._key = str(path.resolve())
        self._codec_name: str = meta["codec"]
        self._block: Size = tuple(meta["block"])
        self._numbers: list[int] = meta["sets"]
        self.records: list[dict[str, Any]] = meta["records"]
        self.sets: Sequence[GTSet] = [_set_of(record) for record in self.records]

    def size(self, i: int, member: Member = 0) -> tuple[int, int]:
        pixels = self.records[i]["pixels"].get(str(member))
        if pixels is None:
            raise UserError(f"set {self.sets[i].name} of {self.path} has no LQ image: pack it with dataroot_lq")
        return pixels[0], pixels[1]

    def image(self, i: int, member: Member = 0) -> np.ndarray:
        return self.crop(i, member, 0, 0, *self.size(i, member))

    def crop(self, i: int, member: Member, y: int, x: int, h: int, w: int) -> np.ndarray:
        """As image(i, member)[y : y + h, x : x + w]. Raises UserError for missing blocks and those that are visibly damaged."""
        full = self.size(i, member)
        h, w = max(min(h, full[0] - y), 0), max(min(w, full[1] - x), 0)
        crop = np.empty((h, w, 3), np.uint8)
        handle = _handles.get(self._key)
        transaction = handle.transaction if handle else _open(self.path)
        for part in parts(full, self._block, y, x, h, w):
            stored = transaction.get(block_key(self._numbers[i], member, part.number))
            if stored is None:
                raise UserError(f"{self.path}: image {member} of set {self.sets[i].name} is missing; {AGAIN}")
            try:
                crop[part.place] = self._codec.decode(stored, part.size, *part.inside)
            except ValueError as error:
                raise UserError(f"{self.path}: image {member} of set {self.sets[i].name} is damaged ({error}); {AGAIN}") from error
        return crop

    @property
    def _codec(self) -> Codec:
        return CODECS[self._codec_name]

    def problems(self) -> Iterator[Problem]:
        """Images whose pixels are not those that were packed."""
        _open(self.path)  # here: threads must not race to open it
        for found in in_threads(self._problems_of, range(len(self.records))):
            yield from found

    def _problems_of(self, i: int) -> list[Problem]:
        record, found = self.records[i], []
        for member, (_, _, digest) in record["pixels"].items():
            try:
                changed = pixel_hash(self.image(i, member)) != digest
            except UserError as error:
                found.append(Problem(self.path, str(error).removeprefix(f"{self.path}: "), record["name"]))
            else:
                if changed:
                    found.append(Problem(self.path, f"image {member} of set {record['name']} has changed since packing", record["name"]))
        return found


def _meta(path: Path) -> dict[str, Any]:
    """The store's `meta`, with its sets' records, in the form of version 2."""
    transaction = _open(path)
    try:
        meta = _json(transaction, b"meta") if transaction.get(b"meta") else {}
        if meta.get("version") == 1:
            records = meta["sets"]
            return {"codec": "raw", "block": (sys.maxsize, sys.maxsize), "sets": list(range(len(records))), "records": records}
        if meta.get("version") == VERSION and meta["codec"] in CODECS:
            return {**meta, "records": [_json(transaction, record_key(number)) for number in meta["sets"]]}
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: the store's table of contents is damaged; {AGAIN}") from error
    found = f"of version {meta['version']}, codec {meta.get('codec')}" if "version" in meta else "without a version"
    raise UserError(f"{path}: a store {found}, which this program does not read; pack it again with `sr-iqa data pack`")


def _json(transaction: lmdb.Transaction, key: bytes) -> dict[str, Any]:
    """Raises ValueError where there is none."""
    return json.loads(bytes(transaction.get(key, b"")))


def _set_of(record: dict[str, Any]) -> GTSet:
    labels = tuple(tuple(words) for words in record["labels"])
    return GTSet(record["name"], tuple(map(Path, record["paths"])), labels, Path(record["lq"]) if record["lq"] else None)


def record_key(number: int) -> bytes:
    return str(number).encode()


def block_key(number: int, member: Member, block: int) -> bytes:
    return f"{number}/{member}/{block}".encode() if block else f"{number}/{member}".encode()


def pixel_hash(image: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(image).data, digest_size=8).hexdigest()


def is_store(path: Path) -> bool:
    return path.suffix == ".lmdb"


def is_ours(path: Path) -> bool:
    """Whether `path` is a store of this program's, of any version: BasicSR's LMDB folders end in .lmdb too."""
    try:
        return _open(path).get(b"meta") is not None
    except UserError:
        return False


def open_reader(data: DataOptions, sets: Sequence[GTSet] | None = None) -> Reader:
    """The store, or a reader of these sets of the folders (all complete ones by default)."""
    if is_store(data.dataroot_gt):
        return StoreReader(data.dataroot_gt)
    return FolderReader(scan(data)[0] if sets is None else sets)

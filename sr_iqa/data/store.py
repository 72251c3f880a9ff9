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
from typing import Annotated, Any, NamedTuple, Protocol, Self

import lmdb
import numpy as np
from pydantic import BaseModel, Field, PositiveInt, TypeAdapter, model_validator

from ..config.models import DataOptions
from ..errors import UserError
from ..images import MAX_PIXELS, image_size, read_image
from ..threads import in_threads
from .blocks import Size, parts
from .codecs import CODECS, Codec
from .gtset import LABELS, LQ, GTSet, Member, Problem, is_name
from .layouts import scan
from .tree import check_tree

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
            check_tree(path / "data.mdb")
            environment = lmdb.open(str(path), readonly=True, lock=False, readahead=True)
        except (lmdb.Error, OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable store ({error}); {AGAIN}") from error
        _handles[key] = _Handle(environment, environment.begin(buffers=True))
    return _handles[key].transaction


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
        contents = _contents(path)
        self._key = str(path.resolve())
        self._codec_name = contents.codec
        self._block = contents.block
        self._numbers = contents.numbers
        self._pixels = [record.pixels for record in contents.records]
        self.sets: Sequence[GTSet] = [record.gt_set() for record in contents.records]

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the store says of its sets, as JSON."""
        return [
            {
                "name": entry.name,
                "paths": [str(path) for path in entry.paths],
                "labels": entry.labels,
                "lq": str(entry.lq) if entry.lq else None,
                "pixels": pixels,
            }
            for entry, pixels in zip(self.sets, self._pixels, strict=True)
        ]

    def size(self, i: int, member: Member = 0) -> tuple[int, int]:
        pixels = self._pixels[i].get(str(member))
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
        for part in parts(full, self._block, y, x, h, w):
            try:
                stored = self._stored(block_key(self._numbers[i], member, part.number))
                if stored is None:
                    raise UserError(f"{self.path}: image {member} of set {self.sets[i].name} is missing; {AGAIN}")
                crop[part.place] = self._codec.decode(stored, part.size, *part.inside)
            except (ValueError, lmdb.Error) as error:
                raise UserError(f"{self.path}: image {member} of set {self.sets[i].name} is damaged ({error}); {AGAIN}") from error
        return crop

    def _stored(self, key: bytes) -> bytes | memoryview | None:
        """A view of a value in the file; None where there is none."""
        handle = _handles.get(self._key)
        transaction = handle.transaction if handle else _open(self.path)
        try:
            return transaction.get(key)
        except lmdb.Error:  # a failed read spoils the transaction for what is intact too
            environment = _handles[self._key].environment
            _handles[self._key] = _Handle(environment, environment.begin(buffers=True))
            return _handles[self._key].transaction.get(key)

    @property
    def _codec(self) -> Codec:
        return CODECS[self._codec_name]

    def problems(self) -> Iterator[Problem]:
        """Images whose pixels are not those that were packed."""
        _open(self.path)  # here: threads must not race to open it
        for found in in_threads(self._problems_of, range(len(self.sets))):
            yield from found

    def _problems_of(self, i: int) -> list[Problem]:
        name, found = self.sets[i].name, []
        for member, (_, _, digest) in self._pixels[i].items():
            try:
                changed = pixel_hash(self.image(i, member)) != digest
            except UserError as error:
                found.append(Problem(self.path, str(error).removeprefix(f"{self.path}: "), name))
            else:
                if changed:
                    found.append(Problem(self.path, f"image {member} of set {name} has changed since packing", name))
        return found


class _Record(BaseModel):
    """A set's record. What is not as packing writes it is refused: names become files' names, sizes become memory."""

    name: str
    paths: list[str] = Field(min_length=1)
    labels: list[Annotated[list[str], Field(min_length=1)]]
    lq: str | None
    pixels: dict[str, tuple[PositiveInt, PositiveInt, str]]

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        gts = [self.pixels.get(str(member), ()) for member in range(len(self.paths))]
        if not is_name(self.name):
            raise ValueError(f"{self.name!r} is no name of a set")
        if len(self.labels) not in (0, len(self.paths) - 1) or not all(word in LABELS for words in self.labels for word in words):
            raise ValueError("labels and images do not agree")
        if len({gt[:2] for gt in gts}) > 1 or not gts[0] or (LQ in self.pixels) != bool(self.lq):
            raise ValueError("images and their sizes do not agree")
        if any(height * width > MAX_PIXELS for height, width, _ in self.pixels.values()):
            raise ValueError("an image is too large")
        return self

    def gt_set(self) -> GTSet:
        labels = tuple(tuple(words) for words in self.labels)
        return GTSet(self.name, tuple(map(Path, self.paths)), labels, Path(self.lq) if self.lq else None)


class _Contents(NamedTuple):
    """What a store says of itself and of its sets."""

    codec: str
    block: Size
    numbers: list[int]
    records: list[_Record]


def _contents(path: Path) -> _Contents:
    transaction = _open(path)
    try:
        meta = json.loads(bytes(transaction.get(b"meta", b"{}")))
        version = meta.get("version")
        if version == 1:
            records = [_Record.model_validate(record) for record in meta["sets"]]
            return _Contents("raw", (sys.maxsize, sys.maxsize), list(range(len(records))), records)
        if version == VERSION and meta["codec"] in CODECS:
            block, numbers = _SIZE.validate_python(meta["block"]), _NUMBERS.validate_python(meta["sets"])
            if len(set(numbers)) < len(numbers):
                raise ValueError("a set stands in it twice")
            records = [_Record.model_validate_json(bytes(transaction.get(record_key(number), b""))) for number in numbers]
            return _Contents(meta["codec"], block, numbers, records)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, lmdb.Error) as error:
        raise UserError(f"{path}: the store's table of contents is damaged; {AGAIN}") from error
    found = f"of version {meta['version']}, codec {meta.get('codec')}" if "version" in meta else "without a version"
    raise UserError(f"{path}: a store {found}, which this program does not read; pack it again with `sr-iqa data pack`")


_SIZE, _NUMBERS = TypeAdapter(tuple[PositiveInt, PositiveInt]), TypeAdapter(list[int])


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

"""Writes packed stores (store.py says what is in one): decoded, checked, encoded and hashed in threads, written in order.

A pack that is killed goes on where it stopped when the same command is given again (partial.py). What "the same" means is its plan: the
format, the codec, the limits on sizes, and the names, labels, paths, sizes and times of all files.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import lmdb

from ..atomic import replace_folder
from ..config.models import DataOptions
from ..errors import UserError
from ..images import image_size
from .blocks import BLOCK, split
from .checks import Images, examine, refuse_or_skip, usual_factor
from .codecs import Codec, find_codec
from .gtset import GTSet, Member, Problem
from .layouts import scan
from .partial import Plan, only_packing, open_partial
from .store import VERSION, block_key, forget, is_ours, is_store, pixel_hash, record_key

logger = logging.getLogger(__name__)

BATCH_BYTES = 16 << 20
"""Of decoded pixels, whose sets are committed and synced together: a kill or a power cut loses the work on some 20 images of 512x512."""


def pack(
    data: DataOptions,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
    scale: int | None = None,
    smallest: int = 1,
    codec: str = "raw",
    workers: int | None = None,
) -> int:
    """Writes the sets of `data`, every image decoded and checked, to the store `path`; returns their number.

    `progress` is called with (sets done, sets in all); `scale` and `smallest` as in check_images; `codec` is one of CODECS. Each of
    `workers` threads (one per core by default) keeps about four sets in memory. The store appears complete or not at all, in place of an
    earlier store if there is one. After a kill the same call goes on, and the store is the same as if nothing had happened.

    Raises UserError naming the bad sets, or leaves them out where `data.on_bad_set` is skip; where another process packs the same store;
    and where `path` is something else than a store of ours, which is not replaced.
    """
    find_codec(codec)
    if not is_store(path):
        raise UserError(f"{path}: a store's name ends in .lmdb")
    if is_store(data.dataroot_gt):
        raise UserError(f"{data.dataroot_gt} is a store already")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())) and not is_ours(path):
        raise UserError(f"{path} exists and is no store of this program's: choose another name, or remove it yourself")
    sets, problems = scan(data)
    plan = _plan(data, sets, scale or usual_factor(sets), smallest, codec)
    with only_packing(path) as unfinished:
        try:
            with closing(open_partial(unfinished, plan, _bytes_needed(sets))) as environment:
                problems += _write_missing(environment, sets, plan, progress, workers)
                numbers = [number for number in range(len(sets)) if _is_there(environment, number)]
                refuse_or_skip(data, problems, len(numbers))
                _write_meta(environment, plan, numbers)
        except lmdb.Error as error:
            raise UserError(f"{path}: could not be written ({error}); the same command goes on from {unfinished}") from error
        except UserError:  # of bad sets: mending them makes another plan
            shutil.rmtree(unfinished)
            raise
        replace_folder(unfinished, path)
    forget(path)
    return len(numbers)


def _plan(data: DataOptions, sets: Sequence[GTSet], factor: int, smallest: int, codec: str) -> Plan:
    """What the store is made of, as JSON; files count by name, size and time, without being read."""
    files = blake2b(digest_size=16)
    for gt_set in sets:
        files.update(json.dumps([gt_set.name, gt_set.labels, [_identity(path) for path in _files(gt_set)]]).encode())
    return {
        "version": VERSION,
        "codec": codec,
        "block": list(BLOCK),
        "source": str(data.dataroot_gt.resolve()),
        "scale": factor,
        "smallest": smallest,
        "files": files.hexdigest(),
    }


def _files(gt_set: GTSet) -> list[Path]:
    return [*gt_set.paths, *([gt_set.lq] if gt_set.lq else [])]


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:  # it will be a problem of its set
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns


class _Packed(NamedTuple):
    """A set, ready to be put into the store."""

    record: bytes
    blocks: dict[Member, list[bytes]]
    pixel_bytes: int
    """Before encoding."""


def _pack_set(codec: Codec, gt_set: GTSet, images: Images) -> _Packed:
    record = {
        "name": gt_set.name,
        "paths": [str(path) for path in gt_set.paths],
        "labels": gt_set.labels,
        "lq": str(gt_set.lq) if gt_set.lq else None,
        "pixels": {str(member): (*image.shape[:2], pixel_hash(image)) for member, image in images.items()},
    }
    blocks = {member: [codec.encode(block) for block in split(image, BLOCK)] for member, image in images.items()}
    return _Packed(json.dumps(record).encode(), blocks, sum(image.nbytes for image in images.values()))


def _write_missing(
    environment: lmdb.Environment,
    sets: Sequence[GTSet],
    plan: Plan,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
) -> list[Problem]:
    """Puts the sets that are not there yet into the store; returns the problems of those that cannot be used.

    A set's number is its place among `sets`, whatever became of the others, so that nothing depends on when it is written.
    """
    missing = [number for number in range(len(sets)) if not _is_there(environment, number)]
    done = len(sets) - len(missing)
    if done:
        logger.warning("going on with %s: %d of %d sets are there already", environment.path(), done, len(sets))
    found: list[Problem] = []
    batch: dict[int, _Packed] = {}
    work = partial(_pack_set, find_codec(plan["codec"]))
    examined = examine([sets[number] for number in missing], plan["scale"], plan["smallest"], work, workers)
    for number, (_, problems, packed) in zip(missing, examined, strict=True):
        found += problems
        if packed is not None:
            batch[number] = packed
        if sum(packed.pixel_bytes for packed in batch.values()) >= BATCH_BYTES:
            _commit(environment, batch)
        done += 1
        if progress is not None:
            progress(done, len(sets))
    _commit(environment, batch)
    return found


def _commit(environment: lmdb.Environment, batch: dict[int, _Packed]) -> None:
    """Puts the batch into the store, all of it or nothing, synced; empties it."""
    with environment.begin(write=True) as transaction:
        for number, packed in batch.items():
            for member, blocks in packed.blocks.items():
                for i, block in enumerate(blocks):
                    transaction.put(block_key(number, member, i), block)
            transaction.put(record_key(number), packed.record)
    batch.clear()


def _is_there(environment: lmdb.Environment, number: int) -> bool:
    with environment.begin() as transaction:
        return transaction.get(record_key(number)) is not None


def _write_meta(environment: lmdb.Environment, plan: Plan, numbers: Sequence[int]) -> None:
    """The last entry, which makes it a store."""
    meta = {key: plan[key] for key in ("version", "codec", "block")}
    with environment.begin(write=True) as transaction:
        transaction.put(b"meta", json.dumps({**meta, "sets": numbers}).encode())
    environment.sync(True)


def _bytes_needed(sets: Sequence[GTSet]) -> int:
    """An upper bound of the store's size, from the headers; files without a readable header will not be stored."""
    total = 1 << 24
    for gt_set in sets:
        try:
            h, w = image_size(gt_set.paths[0])
        except UserError:
            continue
        blocks = -(-h // BLOCK[0]) * -(-w // BLOCK[1])
        total += len(_files(gt_set)) * (h * w * 3 + 8192 * blocks) + 8192
    return total + total // 8

"""A store that is not finished: NAME.lmdb.partial, held by one process at a time, and the plan by which it can be gone on with."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import lmdb

from ..errors import UserError
from .tree import is_cut

logger = logging.getLogger(__name__)

Plan = dict[str, Any]
"""What a store is made of, as JSON; kept in it under `plan`."""


@contextmanager
def only_packing(path: Path) -> Iterator[Path]:
    """NAME.lmdb.partial, held by this process alone: the lock is on the folder itself, and goes with the process however it ends."""
    partial = path.with_name(path.name + ".partial")
    descriptor = _lock(partial, path)
    try:
        if foreign := {entry.name for entry in partial.iterdir()} - {"data.mdb"}:
            raise UserError(f"{partial} holds {min(foreign)}, which no packing has put there: choose another name, or remove it yourself")
        yield partial
    finally:
        os.close(descriptor)


def _lock(partial: Path, path: Path) -> int:
    """The descriptor of the folder, made where it is not there."""
    while True:
        try:
            partial.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UserError(f"{partial} is in the way: it is no folder; remove it") from error
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(f"{path} is being packed by another process: wait for it, or stop it") from error
        if partial.exists() and os.path.samestat(partial.stat(), os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)  # it had got its final name, or was removed, before it was locked


def open_partial(partial: Path, plan: Plan, map_size: int) -> lmdb.Environment:
    """The partial store, to write to: the one that is there where it follows the same plan, else a new one."""
    data = partial / "data.mdb"
    if data.exists() and (earlier := _read_plan(partial)) != plan:
        changed = ", ".join(key for key in plan if earlier.get(key) != plan[key])
        logger.warning("%s %s: it is started anew", partial, f"was begun with other {changed}" if earlier else "holds nothing yet")
        data.unlink()
    environment = lmdb.open(str(partial), map_size=map_size, lock=False, metasync=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"plan", json.dumps(plan).encode())
    return environment


def _read_plan(partial: Path) -> Plan:
    """The plan of a partial store; empty where there is none that can be read."""
    try:
        if is_cut(partial):
            return {}
        with closing(lmdb.open(str(partial), readonly=True, lock=False)) as environment, environment.begin() as transaction:
            return json.loads(transaction.get(b"plan", b"{}"))
    except (lmdb.Error, ValueError):
        return {}

"""State dicts under the names of our networks, whatever wrapped, compiled or older code wrote them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

WRAPPERS = ("module.", "_orig_mod.", "netG.", "net_g.", "generator.")
"""What DistributedDataParallel, torch.compile and trainers put before every name."""

TRUNK = {
    "RRDB_trunk.": "body.",
    "trunk_conv.": "conv_body.",
    "upconv1.": "conv_up1.",
    "upconv2.": "conv_up2.",
    "HRconv.": "conv_hr.",
}
"""ESRGAN's second code and BSRGAN -> BasicSR; blocks are RDB1 there and rdb1 here."""
SEQUENCE = {
    "model.0.": "conv_first.",
    "model.1.sub.": "body.",
    "model.3.": "conv_up1.",
    "model.6.": "conv_up2.",
    "model.8.": "conv_hr.",
    "model.10.": "conv_last.",
}
"""ESRGAN's first code, one long sequence -> BasicSR."""


def canonical(state: Mapping[str, T]) -> dict[str, T]:
    """The state dict without wrappers' prefixes, and with BasicSR's names where it is an older x4 RRDBNet's (also of BSRGAN).

    Older networks of other scales stay as they are: their layers are not those of our RRDBNet, and Spandrel knows them.
    """
    names = {name: name for name in state}
    while names and (prefix := next((w for w in WRAPPERS if all(name.startswith(w) for name in names.values())), None)):
        names = {old: name.removeprefix(prefix) for old, name in names.items()}
    found = {name: state[old] for old, name in names.items()}
    if {"RRDB_trunk.0.RDB1.conv1.weight", "upconv2.weight"} <= found.keys():
        return {_renamed(name, TRUNK).replace(".RDB", ".rdb"): value for name, value in found.items()}
    if {"model.1.sub.0.RDB1.conv1.0.weight", "model.6.weight", "model.10.weight"} <= found.keys():
        return {_of_sequence(name): value for name, value in found.items()}
    return found


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _of_sequence(name: str) -> str:
    if closing := re.fullmatch(r"model\.1\.sub\.\d+\.(weight|bias)", name):
        return f"conv_body.{closing[1]}"
    dense = re.sub(r"\.RDB(\d)\.conv(\d)\.0\.", r".rdb\1.conv\2.", name)
    return _renamed(dense, SEQUENCE)

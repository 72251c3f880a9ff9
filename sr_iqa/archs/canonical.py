"""The ways in which the names of a state dict may be meant, whatever wrapped, compiled or older code wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")

WRAPPERS = ("module.", "_orig_mod.", "netG.", "net_g.", "generator.", "net.", "model.")
"""What DistributedDataParallel, torch.compile, Lightning and trainers put before names."""
COUNTERS = ("n_averaged",)
"""Entries beside the weights: of torch's AveragedModel."""

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
RRDB_X4 = re.compile(r"(conv_(first|body|up1|up2|hr|last)|body\.\d+\.rdb[123]\.conv[1-5])\.(weight|bias)")


def readings(state: Mapping[str, T]) -> Iterator[dict[str, T]]:
    """The state dict as it is, then without what wrappers put before its names, each also under BasicSR's names where it is an older
    x4 RRDBNet's (ESRGAN, BSRGAN). Older networks of other scales have other layers; Spandrel knows them.
    """
    for plain in _unwrapped(dict(state)):
        yield plain
        renamed = _of_basicsr(plain)
        if renamed != list(plain):
            yield dict(zip(renamed, plain.values(), strict=True))


def _unwrapped(state: dict[str, T]) -> Iterator[dict[str, T]]:
    yield state
    state = {name: value for name, value in state.items() if name not in COUNTERS}
    for wrapper in WRAPPERS:
        inside = {name.removeprefix(wrapper): value for name, value in state.items() if name.startswith(wrapper)}
        if inside and not (wrapper == "model." and "0.weight" in inside):  # which is ESRGAN's own name
            yield from _unwrapped(inside)


def _of_basicsr(names: Mapping[str, object]) -> list[str]:
    """BasicSR's names for those of an older x4 RRDBNet, in the same order; of anything else the names as they are."""
    if "RRDB_trunk.0.RDB1.conv1.weight" in names:
        renamed = [_renamed(name, TRUNK).replace(".RDB", ".rdb") for name in names]
    elif "model.1.sub.0.RDB1.conv1.0.weight" in names:
        renamed = [_of_sequence(name) for name in names]
    else:
        return list(names)
    whole = "conv_up2.weight" in renamed and all(RRDB_X4.fullmatch(name) for name in renamed)
    return renamed if whole else list(names)


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

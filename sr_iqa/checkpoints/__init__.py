"""Weights in and out, and the networks that they are for. Nothing in a file is ever executed."""

from .files import (
    CheckpointError,
    check_finite,
    file_hash,
    load_weights,
    read_metadata,
    save_weights,
    weight_keys,
    weights_hash,
)
from .limits import no_larger_than
from .networks import load_into, load_network, network_section, with_network

__all__ = [
    "CheckpointError",
    "check_finite",
    "file_hash",
    "load_into",
    "load_network",
    "load_weights",
    "network_section",
    "no_larger_than",
    "read_metadata",
    "save_weights",
    "weight_keys",
    "weights_hash",
    "with_network",
]

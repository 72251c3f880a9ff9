"""Metrics that were trained here: one safetensors file whose header says what it is (docs/metrics.md).

The header's entry `metric` is JSON: `architecture` (what `build_network` takes), `mode`, `range`, `lower_better`, and what MetricInfo knows
besides; other entries of it are kept and mean nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sr_iqa import __version__
from sr_iqa.atomic import atomic_write
from sr_iqa.errors import DAMAGED_FILE, UserError

from .afine import PREFIX as AFINE
from .afine import afine_info, build_afine
from .catalog import CATALOG, MetricInfo
from .metrics import BUILDERS, OWN, Metric, build_catalogued
from .timm_networks import TIMM, create_timm, side_multiple
from .weights import file_fingerprint

SUFFIX = ".safetensors"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIXED = ("niqe", "brisque", "ssimc")
"""Metrics of BUILDERS without weights that could be trained."""


class Header(BaseModel):
    """The entry `metric` of the file's header."""

    model_config = ConfigDict(frozen=True, extra="allow")
    architecture: str
    mode: str
    range: tuple[float, float]
    lower_better: bool = False
    differentiable: bool = True
    one_image: bool = False
    smallest: int = 1
    multiple: int = 1


class BackboneHead(nn.Module):
    """A timm backbone's pooled features and a linear head: (N, 3, H, W) RGB in [0, 1] -> (N,), higher is better, of no fixed range.

    Vision transformers take any size, too (timm_networks.py).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = create_timm(backbone)
        self.head = nn.Linear(self.backbone.num_features, 1)
        settings = self.backbone.pretrained_cfg
        self.register_buffer("mean", torch.tensor(settings.get("mean", IMAGENET_MEAN)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(settings.get("std", IMAGENET_STD)).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone((x - self.mean) / self.std))[:, 0]


def build_network(architecture: str, start: str | Path = "random") -> nn.Module:
    """The network behind a name, on the CPU, in eval mode, not frozen.

    Args:
        architecture: nano, a MUSIQ, lpips or lpips-vgg (this package's own networks), another learned metric of the catalogue (pyiqa's), or
            `timm:<backbone>`: a `BackboneHead`, or `afine:<mode>:<backbone>` (afine.py).
        start: its weights: random (always the same ones), catalogue (the metric's own), or a file: a metric's of `save_metric`, or one
            that `create_metric` takes as other weights.

    Returns:
        (N, 3, H, W) in [0, 1], and the references for a full-reference network -> (N,) or (N, 1).

    Raises:
        UserError: no such network, or weights that are absent or do not fit.
    """
    architecture_info(architecture)
    if architecture.startswith(AFINE):
        return build_afine(architecture, start)
    timm, trained = architecture.startswith(TIMM), _is_metric(start)
    other = None if trained or start in ("random", "catalogue") else Path(start)
    if timm and (other or start == "catalogue"):
        raise UserError(f"{architecture} starts from random weights or from a metric's file, not from {start}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random_weights = trained or start == "random"
        net = BackboneHead(architecture.removeprefix(TIMM)) if timm else _catalogued(architecture, other, random_weights)
    if trained:
        _fill(net, Path(start), architecture)
    return net.eval().requires_grad_(True)


def architecture_info(architecture: str) -> MetricInfo:
    """What is known of a network of `build_network` before it has been trained.

    Raises UserError for a network that is not there, or has nothing to train.
    """
    if architecture.startswith(AFINE):
        return afine_info(architecture)
    if architecture.startswith(TIMM):
        multiple = side_multiple(architecture.removeprefix(TIMM))
        return MetricInfo(architecture, "NR", False, (-inf, inf), smallest=multiple, multiple=multiple)
    info = CATALOG.get(architecture)
    if info is None or architecture in FIXED or not (info.files or architecture in BUILDERS):
        raise UserError(
            f"{architecture} is no network that can be trained: give a learned metric's name (`sr-iqa iqa list`), {TIMM}NAME "
            f"or {AFINE}MODE:BACKBONE"
        )
    return info


def save_metric(path: Path, net: nn.Module, info: Mapping[str, Any]) -> None:
    """Writes a trained metric, complete or not at all.

    Args:
        path: the file, which must end in .safetensors.
        net: a network of `build_network(info["architecture"])`, or one with the same state dict.
        info: the header: architecture, mode (NR, FR), range (worst and best, roughly), lower_better and the like (`Header`), plus whatever
            is worth knowing (training data, step), as plain JSON values.

    Raises:
        UserError: another suffix, or an entry of info that is missing or wrong.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: a metric's file must end in {SUFFIX}")
    header = _header(info, path)
    state = {name: value.detach().cpu().clone().contiguous() for name, value in net.state_dict().items()}
    with atomic_write(path) as temporary:
        content = header.model_dump() | {"sr_iqa": __version__}
        save_file(state, temporary, metadata={"metric": json.dumps(content)})  # one entry: the library writes several in any order


def trained_info(path: Path) -> MetricInfo:
    """What the file says of its metric, without reading its weights; the metric's name is the path as given. Raises UserError."""
    header = read_header(path)
    facts = {name: getattr(header, name) for name in ("differentiable", "one_image", "smallest", "multiple")}
    return MetricInfo(str(path), header.mode, header.lower_better, header.range, **facts)


def load_metric(path: Path, device: str | torch.device = "cpu") -> Metric:
    """The metric in a file of `save_metric`, frozen.

    Raises UserError for a file that is absent, damaged, no metric, or does not fit the network that it names.
    """
    path, info, header = Path(path), trained_info(path), read_header(path)
    net = build_network(header.architecture, path)
    own = header.architecture in OWN or header.architecture.startswith((TIMM, AFINE))
    return Metric(info, net, f"{path} ({header.architecture}, sr_iqa {__version__}, weights {file_fingerprint(path)})", device, own=own)


def read_header(path: Path) -> Header:
    """The header of a metric's file. Raises UserError for a file that is absent, damaged, or no metric."""
    if not Path(path).is_file():
        raise UserError(f"metric file {path} is not there")
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("metric")
        if text is None:
            raise UserError(f"{path} is no metric: its header has no entry `metric`")
        return _header(json.loads(text), path)
    except (SafetensorError, *DAMAGED_FILE, RecursionError) as error:
        raise UserError(f"{path} is no metric, or a damaged file: {error}") from error


def _catalogued(name: str, weights: Path | None, random_weights: bool) -> nn.Module:
    try:
        return build_catalogued(name, weights, random_weights)
    except (SafetensorError, *DAMAGED_FILE) as error:
        if weights is None:
            raise
        raise UserError(f"{weights} does not hold the weights of {name}: {error}") from error


def _is_metric(start: str | Path) -> bool:
    """Whether it is a file of `save_metric`, and not weights alone."""
    if Path(start).suffix != SUFFIX:
        return False
    try:
        with safe_open(str(start), framework="pt") as file:
            return "metric" in (file.metadata() or {})
    except (SafetensorError, *DAMAGED_FILE):
        return False


def _fill(net: nn.Module, path: Path, architecture: str) -> None:
    found = read_header(path).architecture
    if found != architecture:
        raise UserError(f"{path} holds {found}, not {architecture}")
    try:
        net.load_state_dict(load_file(path))
    except (SafetensorError, *DAMAGED_FILE) as error:
        raise UserError(f"{path} does not hold the weights of {architecture}: {error}") from error


def _header(info: Any, path: Path) -> Header:
    try:
        header = Header.model_validate(info)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: metric.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if header.mode not in ("NR", "FR"):
        raise UserError(f"{path}: metric.mode is {header.mode!r}; expected NR or FR")
    return header

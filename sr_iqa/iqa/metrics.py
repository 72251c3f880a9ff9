"""The one door to metrics: pyiqa's and ours, by name, with direction, range and weights settled once (iqa/catalog.py).

    Q = create_metric("musiq", device="cuda")     # or "0.5*musiq + 0.5*nima", "ensemble.yml", "metric.safetensors"
    values = Q(x)            # (N,) native values of x (N, 3, H, W) in [0, 1]
    scores = Q.signed(x)     # higher is better, whatever the metric

pyiqa is imported when the first of its metrics is created. To add a metric: docs/metrics.md.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from sr_iqa import __version__
from sr_iqa.errors import DAMAGED_FILE, UserError
from sr_iqa.modes import tf32

from .catalog import CATALOG, MetricInfo
from .ensemble_text import is_composed, is_trained
from .weights import file_fingerprint, fingerprint, require


@contextmanager
def _float32(device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, enabled=False), tf32(False) if device.type == "cuda" else nullcontext():
        yield


class Metric:
    """A frozen image quality metric.

    Not an nn.Module: it never enters a state dict, DDP, EMA or an optimizer, and a parent's .train() cannot reach it.
    """

    def __init__(
        self, info: MetricInfo, net: nn.Module, identity: str, device: str | torch.device = "cpu", own: bool | None = None
    ) -> None:
        """`own`: the network is code of this package or as plain; by default found out by the name."""
        self.info = info
        self.identity = identity
        """Name, package and version, fingerprint of the weights."""
        self._own = info.name in OWN if own is None else own
        self.device = torch.device(device)
        self._net = net.to(self.device).eval().requires_grad_(False)

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def mode(self) -> str:
        """NR or FR."""
        return self.info.mode

    @property
    def lower_better(self) -> bool:
        return self.info.lower_better

    @property
    def value_range(self) -> tuple[float, float]:
        return self.info.value_range

    @property
    def differentiable(self) -> bool:
        return self.info.differentiable

    @property
    def threadable(self) -> bool:
        """Threads may call it at the same time: its network keeps nothing between or during calls."""
        return self._own or self.name in STATELESS

    def parameters(self) -> list[nn.Parameter]:
        """All parameters of the network, every one frozen."""
        return list(self._net.parameters())

    def to(self, device: str | torch.device) -> Metric:
        """Move to a device, in place."""
        self.device = torch.device(device)
        self._net.to(self.device)
        return self

    def __call__(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        """Native values.

        Args:
            x: images (N, 3, H, W), RGB in [0, 1], on the metric's device; computed in float32 even under autocast or where TF32 is allowed.
            ref: the references of a full-reference metric, shaped like x, or many for one x (1, 3, H, W); ignored by a no-reference metric.

        Returns:
            (N,) float32, one value per image or reference. Gradients flow to x if the metric is differentiable and gradients are enabled.

        Raises:
            UserError: the images are too small for the metric, or have sides that it cannot take.
            ValueError: wrong shapes, or no ref.
        """
        images = self._checked(x, ref)
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()), _float32(x.device):
            if self.info.one_image:
                return torch.cat([self._values([t[i : i + 1].clone() for t in images]) for i in range(len(x))])
            return self._values(images)

    def signed(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        """(N,) values of which higher is better: lower-is-better metrics are negated."""
        values = self(x, ref)
        return -values if self.lower_better else values

    def opinions(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        """What `verdict` needs of each image: (N, K); for all but ensembles that abstain the signed value, (N, 1)."""
        return (self.signed(x) if ref is None else self.signed(x, ref))[:, None]

    def verdict(self, opinions: Tensor) -> Tensor:
        """Signed scores (..., M) of candidates among which one is to be chosen, from their opinions (..., M, K).

        They are comparable with one another only: an ensemble that abstains gives all candidates the same.
        """
        return opinions[..., 0]

    def _values(self, images: Sequence[Tensor]) -> Tensor:
        output = self._net(*images)
        values = (output[0] if isinstance(output, (tuple, list)) else output).reshape(-1).float()
        if len(values) != len(images[-1]):
            raise RuntimeError(f"{self.name} gave {len(values)} values for {len(images[-1])} images")
        return values

    def _checked(self, x: Tensor, ref: Tensor | None) -> list[Tensor]:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"{self.name} takes images (N, 3, H, W), got {tuple(x.shape)}")
        height, width = x.shape[2:]
        if min(height, width) < self.info.smallest:
            raise UserError(f"{self.name} needs images of at least {self.info.smallest} pixels a side, got {height}x{width}")
        if height % self.info.multiple or width % self.info.multiple:
            raise UserError(f"{self.name} needs sides that are multiples of {self.info.multiple} pixels, got {height}x{width}")
        if self.mode == "NR":
            return [x.float()]
        if ref is None or ref.shape[1:] != x.shape[1:] or len(x) not in (1, len(ref)):
            raise ValueError(
                f"{self.name} needs references shaped like the images {tuple(x.shape)}, got {ref if ref is None else tuple(ref.shape)}"
            )
        return [x.float() if self._own else x.float().expand_as(ref), ref.float()]  # our networks look at the one image once


def create_metric(name: str, device: str | torch.device = "cpu", weights: Path | None = None, random_weights: bool = False) -> Metric:
    """Build a metric by name; nothing is downloaded.

    Args:
        name: a name of `list_metrics()`, an ensemble ("0.5*musiq + 0.5*nima", or its YAML file; ensemble.py), or a trained metric's file
            (.safetensors; trained.py).
        device: where to compute.
        weights: a file with other weights of the same network (a state dict, or one under `params`; for niqe an .npz).
        random_weights: fill the network's layout at random, for tests and timings without weight files.

    Raises:
        UserError: unknown name, with the nearest ones; missing or damaged weight files, with their source and place.
    """
    if is_composed(name) or is_trained(name):
        return _create_other(name, device, weights, random_weights)
    info = metric_info(name)
    net = build_catalogued(name, weights, random_weights)
    package = f"sr_iqa {__version__}" if name in OWN else f"pyiqa {version('pyiqa')}"
    content = "random" if random_weights else file_fingerprint(weights) if weights else fingerprint(info.files)
    return Metric(info, net, f"{name} ({package}, weights {content})", device)


def _create_other(name: str, device: str | torch.device, weights: Path | None, random_weights: bool) -> Metric:
    if weights is not None:
        raise UserError(f"{name} takes no other weights: it says itself which it has")
    if is_trained(name):
        from .trained import load_metric

        return load_metric(Path(name), device)
    from .ensemble import create_ensemble

    return create_ensemble(name, device, random_weights)


def build_catalogued(name: str, weights: Path | None = None, random_weights: bool = False) -> nn.Module:
    """The network of a metric of the catalogue, on the CPU, frozen. Arguments and errors as for `create_metric`."""
    info = metric_info(name)
    if info.refused:
        raise UserError(f"{name} cannot be used here: {info.refused}")
    if not random_weights and weights is None:
        require(name, info.files)
    return BUILDERS.get(name, _build_pyiqa)(info, weights, random_weights)


def list_metrics() -> list[MetricInfo]:
    """All metrics, by name."""
    return sorted(CATALOG.values(), key=lambda info: info.name)


def find_metrics(text: str = "") -> list[MetricInfo]:
    """The metrics whose names contain `text`, by name; where it is an ensemble or a trained metric's file, that one alone."""
    if is_composed(text) or is_trained(text):
        return [metric_info(text)]
    return [info for info in list_metrics() if text in info.name]


def metric_info(name: str) -> MetricInfo:
    """What is known of a metric. Raises UserError for an unknown name, with the nearest ones, and for files that are no metric."""
    if is_trained(name):
        from .trained import trained_info

        return trained_info(Path(name))
    if is_composed(name):
        from .ensemble import ensemble_info

        return ensemble_info(name)
    if name not in CATALOG:
        near = difflib.get_close_matches(name.lower(), CATALOG, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"there is no metric '{name}'{hint} (`sr-iqa iqa list` shows all)")
    return CATALOG[name]


def fetch_weights(name: str) -> list[Path]:
    """Download what a metric needs; the only function here that uses the network. Returns the files. Raises UserError without network."""
    return [file.fetch() for file in metric_info(name).files]


def _build_pyiqa(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .pyiqa_bridge import build_pyiqa

    options = importlib.import_module("pyiqa.default_model_configs").DEFAULT_CONFIGS[info.name]["metric_opts"]
    random_weights = random_weights or weights is not None
    try:
        net = build_pyiqa(options, random_weights)
    except UserError as error:
        raise UserError(f"{info.name}: {error}") from error
    except Exception as error:  # whatever a foreign constructor trips over
        source = "random weights" if random_weights else f"its files ({', '.join(str(file.path) for file in info.files)})"
        raise UserError(f"{info.name} cannot be built from {source}: {type(error).__name__}: {error}") from error
    if weights is not None:
        _load(net, weights)
    return net


def _load(net: nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict(state.get("params", state))
    except DAMAGED_FILE as error:
        raise UserError(f"{path} does not hold the weights of {type(net).__name__}: {error}") from error


def _build_nano(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .nano import Nano, load_nano

    return Nano() if random_weights else load_nano(weights, info.name)


def _build_niqe(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .pyiqa_bridge import build_niqe

    return build_niqe(weights or info.files[0].path)


def _build_brisque(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .pyiqa_bridge import build_brisque

    return build_brisque(None if random_weights else weights or info.files[0].path)


def _build_ssimc(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .ssim import SSIM

    return SSIM()


def _build_musiq(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .musiq import load_musiq, random_musiq

    classes = 10 if info.name == "musiq-ava" else 1  # AVA's weights give a distribution over ten scores
    return random_musiq(classes) if random_weights else load_musiq(weights or info.files[0].path, classes)


def _build_lpips(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .lpips import load_lpips, random_lpips

    trunk = LPIPS_TRUNKS[info.name]
    return random_lpips(trunk) if random_weights else load_lpips(trunk, [weights] if weights else [file.path for file in info.files])


def _build_afine(info: MetricInfo, weights: Path | None, random_weights: bool) -> nn.Module:
    from .afine import load_afine, random_afine

    mode = AFINES[info.name]
    return random_afine(mode) if random_weights else load_afine(weights or info.files[0].path, mode)


AFINES: dict[str, Literal["nr", "fr", "all", "all_scale"]] = {
    "afine_nr": "nr",
    "afine_fr": "fr",
    "afine_all": "all",
    "afine_all_scale": "all_scale",
}
NANOS = ("nano", "nano_robust")
LPIPS_TRUNKS: dict[str, Literal["alex", "vgg"]] = {"lpips": "alex", "lpips-vgg": "vgg"}
MUSIQS = ("musiq", "musiq-ava", "musiq-paq2piq", "musiq-spaq")
Builder = Callable[[MetricInfo, Path | None, bool], nn.Module]
BUILDERS: dict[str, Builder] = {
    **dict.fromkeys(NANOS, _build_nano),
    "niqe": _build_niqe,
    "brisque": _build_brisque,
    "ssimc": _build_ssimc,
    **dict.fromkeys(LPIPS_TRUNKS, _build_lpips),
    **dict.fromkeys(MUSIQS, _build_musiq),
    **dict.fromkeys(AFINES, _build_afine),
}
"""Metrics that are not built by pyiqa's own constructor."""
OWN = (*NANOS, "ssimc", *LPIPS_TRUNKS, *MUSIQS, *AFINES)
"""Metrics computed by code of this package."""
STATELESS = ("psnr", "psnry", "niqe")
"""Metrics of pyiqa's that are plain functions of their images."""

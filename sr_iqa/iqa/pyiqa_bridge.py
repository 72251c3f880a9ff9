"""The wall around pyiqa: builds its networks without network access, without unpickling code, without lasting global changes.

While a network is being built, pyiqa fetches weight files from a dozen places (its own hub folder, torchvision, timm, openai-clip) and
unpickles them. Here the functions that do so are replaced for the length of the build: files on this machine are read with
`weights_only=True`, nothing is fetched, and a backbone whose file is absent stays unfilled, because most metrics overwrite it with
their own weights right afterwards. A parameter that nothing fills is an error at the end. Not safe to run in two threads at once.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sr_iqa.errors import DAMAGED_FILE, UserError

CLIP_SIZES: dict[str, tuple[Any, ...]] = {
    "RN50.pt": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
    "ViT-B-32.pt": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "ViT-L-14.pt": (768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
}
"""CLIP's constructor arguments, which openai-clip derives from the weight file: needed only for random weights."""
CLIP_LOADERS = (
    ("pyiqa.archs.clip_model", "pyiqa.archs.clip_model:CLIP"),
    ("pyiqa.archs.afineclip_model", "pyiqa.archs.afineclip_model:AFINECLIP"),
    ("clip.clip", "clip.model:CLIP"),
)
"""Modules with a CLIP loader of their own, and the network each builds."""
DOWNLOADERS = ("torch.hub", "pyiqa.utils.download_util", "timm.models._hub", "facexlib.utils.misc")
"""Modules that fetch with a `download_url_to_file` of their own."""
BRISQUE_VECTORS = 774
"""Support vectors of the original: needed only for random weights."""
ARNIQA_FEATURES = 4096
"""Inputs of ARNIQA's regressor, a linear layer that exists only as a TorchScript file: needed only for random weights."""

Replacement = tuple[Any, str, Any]


def build_pyiqa(options: dict[str, Any], random_weights: bool = False) -> nn.Module:
    """Build the pyiqa network of `options` (an entry's `metric_opts`) on the CPU, in eval mode, with frozen parameters.

    With `random_weights` every weight file counts as absent and the layout is filled at random, always the same way.
    Raises UserError where a weight file is absent or cannot be read as plain tensors.
    """
    with _importable_clip():
        networks = importlib.import_module("pyiqa.archs")
        for module in ("clip_model", "afineclip_model", "clip_imports", "liqe_arch"):
            importlib.import_module(f"pyiqa.archs.{module}")
        networks._lazy_import_arch(options["type"])  # a module first imported during the build would keep the replacements for good
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        loads = _RandomLoads(Path(folder)) if random_weights else _Loads()
        with _replaced(loads.replacements()), contextlib.redirect_stdout(io.StringIO()):
            net: nn.Module = networks.build_network(dict(options))
    if not random_weights:
        loads.check_filled(net)
    return net.eval().requires_grad_(False)


def build_niqe(parameters: Path) -> nn.Module:
    """pyiqa's NIQE on the original parameters as BasicSR ships them (.npz), which pyiqa would download as a .mat file.

    Raises UserError for a file that holds something else.
    """
    import numpy as np
    import scipy.io
    from pyiqa.archs.niqe_arch import NIQE

    matlab = io.BytesIO()
    try:
        arrays = np.load(parameters)
        scipy.io.savemat(matlab, {"mu_prisparam": arrays["mu_pris_param"], "cov_prisparam": arrays["cov_pris_param"]})
    except (zipfile.BadZipFile, *DAMAGED_FILE) as error:
        raise UserError(f"{parameters} does not hold NIQE's parameters: {error}") from error
    return _NanWhereSingular(NIQE(pretrained_model_path=matlab))  # pyright: ignore[reportArgumentType]


class _NanWhereSingular(nn.Module):
    """A network whose fit to an image fails where that has no texture: such an image gets NaN, the others of its batch their values."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.net(x)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            if len(x) == 1:
                return x.new_full((1,), torch.nan)
            return torch.cat([self(image[None]).reshape(1) for image in x])


def build_brisque(vectors: Path | None) -> nn.Module:
    """pyiqa's BRISQUE on a file of (coefficients (V,), support vectors (V, 36)), or on random ones, always the same.

    Raises UserError for a file that is damaged or holds anything else.
    """
    from pyiqa.archs.brisque_arch import BRISQUE

    if vectors is None:
        generator = torch.Generator().manual_seed(0)
        coefficients, support = (torch.randn(*shape, generator=generator) for shape in ((BRISQUE_VECTORS,), (BRISQUE_VECTORS, 36)))
    else:
        try:
            coefficients, support = torch.load(vectors, map_location="cpu", weights_only=True)
            if support.shape[1:] != (36,) or len(coefficients) != len(support):
                raise ValueError(f"tensors of shapes {tuple(coefficients.shape)} and {tuple(support.shape)}")
        except DAMAGED_FILE as error:
            raise UserError(f"{vectors} does not hold BRISQUE's support vectors: {error}") from error
    content = io.BytesIO()
    torch.save((coefficients, support), content)
    content.seek(0)
    return BRISQUE(pretrained_model_path=content)  # pyright: ignore[reportArgumentType]


class _Absent(dict[str, Any]):
    """Stands for the content of an absent weight file: every key is there, and holds the same nothing."""

    def __missing__(self, key: str) -> _Absent:
        return self

    def __delitem__(self, key: str) -> None:
        pass

    def __bool__(self) -> bool:
        return True


class _Loads:
    """What stands in for pyiqa's loading functions; keeps account of the parameters that an absent file left unfilled."""

    def __init__(self) -> None:
        self.absent: dict[str, str] = {}  # path of the absent file -> where it would come from
        self.unfilled: dict[int, Tensor] = {}
        self._torch_load = torch.load
        self._fill = nn.Module.load_state_dict
        self._load_backbone = importlib.import_module("timm.models._builder").load_pretrained

    def replacements(self) -> list[Replacement]:
        """What to set where while a network is being built."""
        modules = sys.modules
        fetching = [modules[name] for name in DOWNLOADERS if name in modules]
        return [
            (torch, "load", self.read),
            (nn.Module, "load_state_dict", lambda module, *args, **kwargs: self.fill(module, *args, **kwargs)),
            *((module, "download_url_to_file", self.download) for module in fetching),
            (modules["pyiqa.utils.download_util"], "DEFAULT_CACHE_DIR", str(cache_folder("pyiqa"))),
            (modules["pyiqa.archs.liqe_arch"], "DEFAULT_CACHE_DIR", str(cache_folder("pyiqa"))),
            (importlib.import_module("timm.models._builder"), "load_pretrained", self.load_backbone),
            (importlib.import_module("urllib.request"), "urlopen", self.refuse),
            (importlib.import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", True),
        ]

    def download(self, url: str, dst: str, *_: Any, **__: Any) -> None:
        """In place of every fetch to a file: notes that the file is absent."""
        self.absent[str(dst)] = url

    def refuse(self, url: str, *_: Any, **__: Any) -> None:
        """In place of urlopen, which openai-clip calls for a file that is absent or has the wrong checksum."""
        raise UserError(f"weight file {Path(url).name} is absent or damaged (its checksum is wrong); get it anew from {url}")

    def read(self, file: Any, *_: Any, **__: Any) -> Any:
        """In place of torch.load."""
        path = file if isinstance(file, (str, Path)) else file.name
        if str(path) in self.absent:
            return _Absent()
        try:
            return self._torch_load(file, map_location="cpu", weights_only=True)
        except DAMAGED_FILE as error:
            raise UserError(f"weight file {path} is damaged, or holds more than plain tensors, and is not loaded: {error}") from error

    def fill(self, module: nn.Module, state: Any, strict: bool = True, *args: Any, **kwargs: Any) -> Any:
        """In place of Module.load_state_dict."""
        tensors = module.state_dict(keep_vars=True)
        if len(state) == 0:  # an absent file; pyiqa may have copied it into a plain dict
            self.unfilled |= {id(t): t for t in tensors.values()}
            return None
        if not tensors.keys() & state.keys():  # without `strict`, torch would say nothing
            raise UserError(f"the weight file holds none of the parameters of {type(module).__name__}: it is not the right file")
        result = self._fill(module, state, strict, *args, **kwargs)
        for name in tensors.keys() - set(result.missing_keys):
            self.unfilled.pop(id(tensors[name]), None)
        return result

    def load_backbone(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        """In place of timm's load_pretrained: from Hugging Face's cache, or not at all."""
        try:
            self._load_backbone(model, *args, **kwargs)
        except (UserError, *DAMAGED_FILE):  # absent or unusable; an error only if nothing fills these parameters later
            self.fill(model, _Absent())

    def check_filled(self, net: nn.Module) -> None:
        """Refuse a network of which some parameters would be random."""
        left = [name for name, tensor in net.state_dict(keep_vars=True).items() if id(tensor) in self.unfilled]
        if left:
            files = ", ".join(f"{path} (from {url})" for path, url in self.absent.items()) or "a timm backbone"
            raise UserError(f"{len(left)} parameters, {left[0]} first, would stay random: a weight file is absent: {files}")


class _RandomLoads(_Loads):
    """Counts every weight file as absent: files are empty ones in a temporary folder, loading does nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.clip_file = ""

    def replacements(self) -> list[Replacement]:
        return [
            *super().replacements(),
            (torch.jit, "load", self.read_script),
            (torch.hub, "_hub_dir", str(self.folder)),
            (sys.modules["pyiqa.utils.download_util"], "DEFAULT_CACHE_DIR", str(self.folder)),
            (sys.modules["pyiqa.archs.liqe_arch"], "DEFAULT_CACHE_DIR", str(self.folder)),
            *((sys.modules[loader], "_download", self.download_clip) for loader, _ in CLIP_LOADERS),
            *((sys.modules[loader], "build_model", self.build_clip(network)) for loader, network in CLIP_LOADERS),
        ]

    def download_clip(self, url: str, _root: str) -> str:
        self.clip_file = Path(url).name
        empty = self.folder / self.clip_file
        empty.touch()
        return str(empty)

    def build_clip(self, name: str) -> Callable[[Any], nn.Module]:
        module, _, attribute = name.partition(":")
        network = sys.modules[module].__dict__[attribute]
        return lambda _state: network(*CLIP_SIZES[self.clip_file]).eval()

    def read(self, file: Any, *_: Any, **__: Any) -> Any:
        return _Absent()

    def load_backbone(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        pass

    def read_script(self, file: Any, *_: Any, **__: Any) -> nn.Module:
        """In place of torch.jit.load: ARNIQA passes a path; CLIP an open file, for which there is a second way, torch.load."""
        if isinstance(file, str):
            return nn.Linear(ARNIQA_FEATURES, 1)
        raise RuntimeError("not a TorchScript file")

    def fill(self, module: nn.Module, state: Any, strict: bool = True, *args: Any, **kwargs: Any) -> Any:
        return None


def cache_folder(name: str) -> Path:
    """`$TORCH_HOME/hub/<name>`, by default `~/.cache/torch/hub/<name>`."""
    return Path(torch.hub.get_dir()) / name


@contextlib.contextmanager
def _replaced(replacements: list[Replacement]) -> Iterator[None]:
    """Set attributes for the length of the block."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    try:
        for owner, name, value in replacements:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextlib.contextmanager
def _importable_clip() -> Iterator[None]:
    """openai-clip imports `packaging` out of pkg_resources, which setuptools 81 and newer no longer has."""
    if importlib.util.find_spec("pkg_resources") is not None:
        yield
        return
    stand_in = types.ModuleType("pkg_resources")
    stand_in.__dict__["packaging"] = importlib.import_module("packaging")
    importlib.import_module("packaging.version")
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        del sys.modules["pkg_resources"]

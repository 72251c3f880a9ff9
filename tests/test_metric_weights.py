"""Where metrics take their weights from, and that nothing is fetched or executed on the way."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from sr_iqa.errors import UserError
from sr_iqa.iqa import pyiqa_bridge, weights
from sr_iqa.iqa.catalog import CATALOG
from sr_iqa.iqa.metrics import create_metric, fetch_weights, metric_info
from sr_iqa.iqa.pyiqa_bridge import build_pyiqa

HEAVY = ("qalign", "qrealign", "compare2score", "fgresq", "maclip", "liqe_mix", "ahiq", "maniqa")


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach another machine fails the test, even where the error would be caught."""
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("network is off in tests")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not attempts


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches; returns pyiqa's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "hub" / "pyiqa"


def run_python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, timeout=120)


@pytest.mark.parametrize("name", ["musiq", "nima", "topiq_nr", "liqe", "clipiqa+", "arniqa", "lpips", "qalign", "fgresq", "ahiq", "nrqm"])
def test_missing_weights_name_file_source_and_place(name, caches, no_network):
    with pytest.raises(weights.MissingWeights) as error:
        create_metric(name)
    for file in metric_info(name).files:
        assert file.name in str(error.value) and file.url in str(error.value) and str(file.path) in str(error.value)
    assert f"sr-iqa iqa fetch {name}" in str(error.value)


LARGE = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("topiq_nr", "hyperiqa", "dbcnn", "maniqa", "paq2piq", "tres", "unique", "dists")
]


@pytest.mark.parametrize("name", ["cnniqa", "paq2piq", *LARGE])
def test_weights_in_the_caches_are_used_without_backbone_or_network(name, caches, no_network):
    """Backbones are absent, but the metrics' own files hold all parameters; dists needs its VGG."""
    random = create_metric(name, random_weights=True)
    for file in metric_info(name).files:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        if file.folder == "checkpoints":
            state = torchvision.models.vgg16().state_dict()
        else:
            state = {key: value + (0.01 if value.is_floating_point() else 0) for key, value in random._net.state_dict().items()}
        torch.save(state if name in ("dists", "maniqa", "paq2piq", "tres", "unique") else {"params": state}, file.path)
    metric = create_metric(name)
    assert all(torch.allclose(a, b + 0.01) for a, b in zip(metric.parameters(), random.parameters(), strict=True))
    assert "weights random" in random.identity and "random" not in metric.identity and "pyiqa 0." in metric.identity


def test_a_backbone_that_nothing_fills_is_an_error(caches, no_network):
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    options = DEFAULT_CONFIGS["lpips"]["metric_opts"]
    net = build_pyiqa(options, random_weights=True)
    caches.mkdir(parents=True)
    heads = {k: v for k, v in net.state_dict().items() if k.startswith("lin")}
    torch.save(heads, caches / "LPIPS_v0.1_alex-df73285e.pth")
    with pytest.raises(UserError, match=r"would stay random.*alexnet"):
        build_pyiqa(options)


@pytest.mark.parametrize("name", ["stlpips", "msswd", "cnniqa"])
def test_a_wrong_file_is_not_taken_for_weights(name, caches):
    """stlpips and msswd load without `strict`, where torch would be silent."""
    caches.mkdir(parents=True)
    torch.save({"something": {"else": torch.zeros(1)}}, caches / metric_info(name).files[-1].name)
    with pytest.raises(UserError, match=f"^{name}"):
        create_metric(name)


def test_a_backbone_in_hugging_faces_cache_is_used(tmp_path, monkeypatch, no_network):
    import timm
    from huggingface_hub import constants
    from safetensors.torch import save_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    stored = timm.create_model("resnet10t").state_dict()
    snapshot = tmp_path / "models--timm--resnet10t.c3_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--timm--resnet10t.c3_in1k" / "refs").mkdir()
    (tmp_path / "models--timm--resnet10t.c3_in1k" / "refs" / "main").write_text("0" * 40)
    save_file(stored, snapshot / "model.safetensors")
    loads = pyiqa_bridge._Loads()
    with pyiqa_bridge._replaced(loads.replacements()):
        net = timm.create_model("resnet10t", pretrained=True)
        timm.create_model("resnet14t", pretrained=True)  # not in the cache: stays unfilled
    loads.check_filled(net)
    assert all(torch.equal(value, stored[key]) for key, value in net.state_dict().items()) and loads.unfilled


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_file_with_code_is_not_executed(caches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caches.mkdir(parents=True)
    torch.save({"params": Bomb()}, caches / "musiq_koniq_ckpt-e95806b9.pth")
    with pytest.raises(UserError, match="more than plain tensors"):
        create_metric("musiq")
    with pytest.raises(UserError, match="does not hold the weights"):
        create_metric("musiq", weights=caches / "musiq_koniq_ckpt-e95806b9.pth")
    assert not Path("exploded").exists()


@pytest.mark.filterwarnings("ignore:.*SHA256 checksum")
def test_damaged_clip_file_is_not_fetched_again(caches, no_network):
    place = metric_info("clipiqa").files[0].path
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half a file")
    with pytest.raises(UserError, match="absent or damaged"):
        create_metric("clipiqa")
    assert place.read_bytes() == b"half a file"


def test_own_weights_for_a_metric(tmp_path):
    random = create_metric("cnniqa", random_weights=True)
    state = {k: v + 0.01 if v.is_floating_point() else v for k, v in random._net.state_dict().items()}
    torch.save({"params": state}, tmp_path / "mine.pth")
    mine = create_metric("cnniqa", weights=tmp_path / "mine.pth")
    assert all(torch.allclose(a, b + 0.01) for a, b in zip(mine.parameters(), random.parameters(), strict=True))
    assert weights.file_fingerprint(tmp_path / "mine.pth") in mine.identity


def test_fetch_downloads_to_the_place(caches, monkeypatch):
    def download(url, dst, hash_prefix=None, progress=True):
        Path(dst).write_text(f"{url} {hash_prefix}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    clip, own = fetch_weights("liqe")
    assert clip.read_text().endswith(clip_url_checksum()) and own == caches / "liqe_koniq.pt"
    assert own.read_text().startswith("https://mirror.example/chaofengc/")
    assert metric_info("liqe").weights == "present"


def clip_url_checksum():
    return metric_info("liqe").files[0].url.split("/")[-2]


def test_fetch_without_network_says_what_to_do(caches, monkeypatch):
    def download(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UserError, match=r"cannot fetch .*\n.*put it at"):
        fetch_weights("musiq")


def test_openai_clip_imports_without_pkg_resources():
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'pkg_resources' else find(n, *a)\n"
        "from sr_iqa.iqa.pyiqa_bridge import _importable_clip\n"
        "with _importable_clip(): import clip\n"
        "assert 'pkg_resources' not in sys.modules and clip.tokenize('a').shape == (1, 77)"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n, info in CATALOG.items() if info.files and not info.refused and not n.startswith((*HEAVY, "nano"))]
)
def test_catalogue_lists_every_file_that_is_asked_for(name, monkeypatch):
    """Backbones may be missing from the catalogue only where the metric's own file fills them."""
    asked = []
    download, clip = pyiqa_bridge._Loads.download, pyiqa_bridge._RandomLoads.download_clip
    monkeypatch.setattr(
        pyiqa_bridge._RandomLoads, "download", lambda self, url, dst, *a, **k: (asked.append(url), download(self, url, dst))[1]
    )
    monkeypatch.setattr(pyiqa_bridge._RandomLoads, "download_clip", lambda self, url, root: (asked.append(url), clip(self, url, root))[1])
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    listed = {file.url for file in metric_info(name).files}
    try:
        build_pyiqa(DEFAULT_CONFIGS[name]["metric_opts"], random_weights=True)
    except (OSError, ValueError, TypeError):  # parameter files that cannot be made up
        assert set(asked) <= listed or name == "niqe"
        return
    backbones = {url for url in asked if "download.pytorch.org" in url or "DBCNN_scnn" in url}
    assert set(asked) - backbones <= listed <= set(asked)

"""Every kind of weight file in, trained, tuned with an adapter, and out again: the table of docs/checkpoints.md, row by row."""

from pathlib import Path

import pytest
import torch
from spandrel import ModelLoader

from sr_iqa.adapters import load_adapter, merge
from sr_iqa.check import check
from sr_iqa.checkpoints import load_network, network_section, with_network
from sr_iqa.config.models import AUTO
from sr_iqa.errors import UserError
from tests.foreign_weights import KINDS
from tests.helpers import make_sets
from tests.tiny_runs import run, tiny

DOCS = Path(__file__).parent.parent / "docs" / "checkpoints.md"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    make_sets(root / "data", n=2, k=1, size=64)
    return root


def trained(root, path, kind, label, *changes):
    """One training step from the file, which alone says what the network is."""
    start = {"network_g": {"type": AUTO}, "path": {"pretrain_network_g": str(path)}, "scale": kind.scale}
    once = {"train": {"total_iter": 1}, "datasets": {"train": {"gt_size": 64, "batch_size_per_gpu": 2}}}
    return run(root, f"{list(KINDS).index(label)}{len(changes)}", start, once, *changes)


def image(kind):
    return torch.rand(1, kind.channels, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("label", KINDS)
def test_in_and_out(label, root, tmp_path):
    kind = KINDS[label]
    path = kind.write(tmp_path)
    assert network_section(path)["type"] == kind.network
    net = load_network(path)
    with torch.no_grad():
        out = net(image(kind))
    assert out.shape == (1, kind.channels, 16 * kind.scale, 16 * kind.scale) and out.isfinite().all()
    if not kind.trains:
        start = {"network_g": {"type": AUTO}, "path": {"pretrain_network_g": str(path)}, "scale": kind.scale}
        with pytest.raises(UserError, match="expected 3, images are RGB, got 1"):
            check(with_network(tiny(root, "gray", start)))
        return
    folder = trained(root, path, kind, label)
    written = folder / "models" / "net_g_1.safetensors"
    with torch.no_grad():
        after = load_network(written)(image(kind)).clamp(0, 1)
    assert (after - out.clamp(0, 1)).abs().max() > 0
    if kind.spandrel:
        assert (ModelLoader().load_from_file(written).eval()(image(kind)) - after).abs().max() <= 1e-5


@pytest.mark.parametrize("label", [label for label, kind in KINDS.items() if kind.trains])
def test_lora(label, root, tmp_path):
    kind = KINDS[label]
    path = kind.write(tmp_path)
    if not kind.lora:
        with pytest.raises(UserError, match="an adapter would have no effect"):
            trained(root, path, kind, label, {"lora": {"rank": 2}})
        return
    folder = trained(root, path, kind, label, {"lora": {"rank": 2}, "train": {"optim_g": {"lr": 0.1}}})
    net = load_network(path)
    with torch.no_grad():
        before = net(image(kind))
        adapted = load_adapter(net, folder / "models" / "adapter_1").eval()(image(kind))
        plain = load_network(path)
        plain.load_state_dict(merge(net))
        assert (adapted - before).abs().max() > 0
        assert (plain(image(kind)) - adapted).abs().max() <= 1e-5 * adapted.abs().max().clamp_min(1)


def test_the_table_of_the_docs_is_this_one():
    rows = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] in KINDS:
            rows[cells[0]] = cells[1:]
    marks = {True: "yes", False: "no"}
    for label, kind in KINDS.items():
        promised = [True, kind.trains, kind.trains and kind.lora, kind.trains and kind.spandrel]
        assert rows[label] == [f"`{kind.network}`", *(marks[promise] for promise in promised)], label

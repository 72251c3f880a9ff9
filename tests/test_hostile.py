"""Files made to do harm: nothing is executed, nothing is written outside the output folder, no small file takes 1 GiB or 10 s."""

import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
import zlib
from contextlib import closing
from html.parser import HTMLParser

import lmdb
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import save

from benchmarks.fuzz import RRDB, SWINIR, Child, Target, changed_bytes
from sr_iqa.adapters import describe_adapter, inject, load_adapter, save_adapter
from sr_iqa.archs import build_network
from sr_iqa.checkpoints import CheckpointError, load_into, load_network, load_weights, save_weights
from sr_iqa.config import OptionsError, load
from sr_iqa.config.models import DataOptions, LoraOptions
from sr_iqa.data.choices import Choices
from sr_iqa.data.codecs import CODECS
from sr_iqa.data.packing import pack
from sr_iqa.data.sets import find_sets, verify
from sr_iqa.data.store import StoreReader, forget
from sr_iqa.errors import UserError
from sr_iqa.evaluation import evaluate
from sr_iqa.images import ImageError, image_size, read_image, read_image_lenient, write_png
from sr_iqa.inference import infer_folder
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.scores import read_scores
from sr_iqa.losses.features import vgg_features, vgg_file
from sr_iqa.study.pictures import SetImages
from sr_iqa.study.report import write_report
from sr_iqa.study.tuning import compare_tuning
from sr_iqa.training.state import newest_state
from tests.helpers import label_file, make_sets, picture
from tests.helpers import save as save_image
from tests.test_report import pictures, study

pytestmark = pytest.mark.filterwarnings("ignore:Image size", "ignore:Detected pickle protocol")


def outcome(read):
    """accepted, refused, or else: read() in a process of its own, with the limits of benchmarks/fuzz.py on time and memory."""
    with Child(Target("hostile", 1, changed_bytes, lambda folder: [], lambda folder, data: read())) as child:
        return child.outcome(b"")


def tree(root):
    """Everything under a folder: name -> bytes, or where a link leads."""
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


# ---------------------------------------------------------------- small files that ask for much


def png(width, height, depth=8, kind=2, pixels=b"\0" * 5000):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(100_000, 100_000), (30_000, 30_000), (2**31 - 1, 1), (14_000, 14_000), (10_000, 8001)])
def test_images_of_a_huge_declared_size_are_refused(tmp_path, size):
    path = tmp_path / "images" / "a.png"
    path.parent.mkdir()
    path.write_bytes(png(*size))
    for read in (read_image, read_image_lenient, image_size):
        assert outcome(lambda read=read: read(path)) == "refused"
        with pytest.raises(ImageError, match=r"a\.png: more than 80 million pixels; cut it"):
            read(path)
    (problem,) = verify(DataOptions(type="single_gt", dataroot_gt=path.parent))
    assert "80 million" in str(problem)


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_images_without_pixels_are_refused(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png(*size))
    for read in (read_image, read_image_lenient, image_size):
        with pytest.raises(ImageError, match="not an image"):
            read(tmp_path / "a.png")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    root = make_sets(tmp_path, n=2, k=1, annotators=("A",))
    for path in (min((root / "images" / "01").iterdir()), max((root / "labels" / "A").iterdir())):
        path.unlink()
        os.mkfifo(path)
    data = DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels")
    assert outcome(lambda: verify(data)) == "accepted"
    assert {problem.message.partition(":")[0] for problem in verify(data)} == {"is no file", "no label file"}


MIB = 1 << 20
YAML_BOMBS = {
    "deep": "a: " + "[" * 100_000,
    "deep blocks": "- " * 100_000,
    "laughs": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 64)),
    "merged laughs": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 64)),
    "many values": f"a: [{'x,' * (MIB // 2 - 10)}]",
    "many keys": "".join(f"k{i}:\n" for i in range(90_000)),
    "many tags": f"a: [{'!t x,' * (MIB // 6)}]",
    "many merges": "a: &a {x: 1}\nb: {" + "<<: *a," * (MIB // 8) + "}",
    "long word": "name: " + "x" * (MIB - 10),
    "long number": "scale: " + "9" * (MIB - 10),
    "long key": f"? {'k' * (MIB - 100)}\n: 1",
}


@pytest.mark.parametrize("bomb", YAML_BOMBS)
def test_option_files_that_grow_are_stopped(tmp_path, bomb):
    (tmp_path / "a.yml").write_text(YAML_BOMBS[bomb])
    assert outcome(lambda: load(tmp_path / "a.yml")) == "refused"
    with pytest.raises(OptionsError) as refusal:
        load(tmp_path / "a.yml")
    assert max(map(len, refusal.value.problems)) < 3000


def test_halves_of_characters_are_no_text(tmp_path):
    for text, word in ((r'"\ud800"', "half a character"), (r'"a\0b"', "cannot hold"), (r'{"\udfff": 1}', "half a character")):
        (tmp_path / "a.yml").write_text(f"name: {text}\n")
        with pytest.raises(OptionsError, match=word):
            load(tmp_path / "a.yml")


DEEP_JSON = {
    "deep lists": "[" * 100_000,
    "deep blocks": '{"a":' * 100_000,
    "deep and closed": "[" * 5000 + "]" * 5000,
    "long": f'["{"x" * 2 * MIB}"]',
}


@pytest.mark.parametrize("bomb", [*DEEP_JSON, "number"])
def test_hostile_json_in_labels_stores_weights_and_adapters(tmp_path, bomb):
    text = DEEP_JSON.get(bomb, "9" * 100_000)
    root = make_sets(tmp_path, n=1, k=1, annotators=("A",))
    next((root / "labels" / "A").iterdir()).write_text(text)
    data = DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels")
    assert outcome(lambda: find_sets(data)) == "refused"
    pack(DataOptions(type="multi_gt", dataroot_gt=root / "images"), tmp_path / "x.lmdb")
    for key in (b"0", b"meta"):
        put(tmp_path / "x.lmdb", key, text.encode())
        assert outcome(lambda: StoreReader(tmp_path / "x.lmdb")) == "refused"
    (tmp_path / "a.safetensors").write_bytes(save({"w": torch.ones(1)}, {"network_g": text}))
    assert outcome(lambda: load_network(tmp_path / "a.safetensors")) == "refused"
    folder = adapter(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(text)
    assert outcome(lambda: describe_adapter(folder)) == "refused"


def test_a_wrong_label_is_quoted_in_part(tmp_path):
    root = make_sets(tmp_path, n=1, k=1, annotators=("A",))
    path = next((root / "labels" / "A").iterdir())
    path.write_text(json.dumps(label_file("x", ["Positive" * 10_000])))
    data = DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels")
    with pytest.raises(UserError) as refusal:
        find_sets(data)
    assert "wrong label 'PositivePos" in str(refusal.value) and len(str(refusal.value)) < 2000


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 99_000_000])
def test_weight_files_with_a_huge_header_are_refused(tmp_path, length):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b'{"w":' * 1000)
    assert outcome(lambda: load_network(tmp_path / "a.safetensors")) == "refused"


@pytest.mark.parametrize(
    "network",
    [
        {**RRDB, "num_feat": 40_000},
        {**RRDB, "num_block": 10**9},
        {**RRDB, "num_grow_ch": 10**30},
        {**RRDB, "scale": 2**40},
        {**SWINIR, "img_size": 100_000},
        {**SWINIR, "window_size": 5000, "img_size": 5000},
        {**SWINIR, "embed_dim": 60_000},
        {**SWINIR, "depths": [10**9]},
        {**SWINIR, "mlp_ratio": 1e9},
        {**SWINIR, "ape": True, "img_size": [60_000, 60_000]},
        {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 50_000},
        {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 20_000},
    ],
    ids=lambda network: f"{network['type']}-{list(network)[-1]}",
)
def test_weight_files_that_ask_for_a_huge_network_are_refused(tmp_path, network):
    (tmp_path / "a.safetensors").write_bytes(save(build_network(RRDB).state_dict(), {"network_g": json.dumps(network)}))
    assert outcome(lambda: load_network(tmp_path / "a.safetensors")) == "refused"


def test_tensors_that_are_larger_than_their_memory_are_refused(tmp_path):
    for name, tensor in {"expanded": torch.ones(1).expand(10**10), "meta": torch.ones(10**5, 10**5, device="meta")}.items():
        torch.save({"params": {"w": tensor}}, tmp_path / f"{name}.pth")
        assert outcome(lambda name=name: load_weights(tmp_path / f"{name}.pth")) == "refused"


def test_an_adapter_that_asks_for_a_huge_rank_is_refused(tmp_path):
    folder = adapter(tmp_path / "adapter")
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**said, "r": 10**8}))
    assert outcome(lambda: load_adapter(base(), folder)) == "refused"


def put(store, key, value):
    """Puts other bytes under a key of a store."""
    forget(store)
    with closing(lmdb.open(str(store), map_size=1 << 30, lock=False)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, value)


def a_store(tmp_path, codec="raw"):
    pack(DataOptions(type="multi_gt", dataroot_gt=make_sets(tmp_path, n=2, k=1) / "images"), tmp_path / "x.lmdb", codec=codec)
    return tmp_path / "x.lmdb"


@pytest.mark.parametrize(
    "field, value",
    [(32, 2**62), (40, 0), (40, 2**31), (40, 12_345), (80, 2**60), (92, 4), (128, 1), (128, 2**40), (136, 2**50), (144, 2**64 - 1)],
    ids=lambda value: str(value),
)
def test_stores_whose_first_pages_lie_are_refused_or_read(tmp_path, field, value):
    store = a_store(tmp_path)
    data = bytearray((store / "data.mdb").read_bytes())
    for page in (0, 4096):
        size = {40: 4, 92: 2}.get(field, 8)
        data[page + field : page + field + size] = value.to_bytes(size, "little")
    (store / "data.mdb").write_bytes(data)
    assert outcome(lambda: list(StoreReader(store).problems())) in ("accepted", "refused")


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": {"0": [2**40, 2**40, ""], "1": [2**40, 2**40, ""]}},
        {"pixels": {"0": [20_000, 20_000, ""], "1": [20_000, 20_000, ""]}},
        {"pixels": {"0": [64, 64, ""], "1": [64, 63, ""]}},
        {"pixels": {"0": [-64, 64, ""], "1": [-64, 64, ""]}},
        {"labels": [["Positive"]] * 3},
        {"labels": [[]]},
        {"labels": [["<b>"]]},
        {"lq": "lq.png"},
        {"paths": []},
        {"name": "../../../up"},
        {"name": "/etc/passwd"},
        {"name": ".."},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "a\0b"},
        {"name": "\udcff"},
    ],
    ids=str,
)
def test_sets_in_a_store_that_make_no_sense_are_refused(tmp_path, change):
    store = a_store(tmp_path)
    record = {"name": "a", "paths": ["a.png", "a_01.png"], "labels": [], "lq": None}
    put(store, b"0", json.dumps({**record, "pixels": {"0": [64, 64, ""], "1": [64, 64, ""]}, **change}).encode())
    with pytest.raises(UserError, match="table of contents is damaged"):
        StoreReader(store)


def test_a_block_that_inflates_without_end_is_refused():
    bomb = zlib.compress(b"\0" * (64 * MIB))
    tracemalloc.start()
    with pytest.raises(ValueError, match="instead of 192"):
        CODECS["deflate"].decode(len(bomb).to_bytes(4, "little") + bomb, (8, 8), slice(0, 8), slice(0, 8))
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()


def test_a_score_table_of_more_rows_than_bytes_is_refused(tmp_path):
    rows = 2_000_000
    words = {name: pa.array(["a"] * rows) for name in ("set", "metric", "identity")}
    numbers = {"member": np.zeros(rows, np.int64), "score": np.zeros(rows), "native": np.zeros(rows)}
    parquet.write_table(pa.table(words | numbers), tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").stat().st_size < 100_000
    with pytest.raises(UserError, match="2000000 rows"):
        read_scores(tmp_path / "scores.parquet", [], "a")


def test_a_score_table_with_endless_names_is_refused(tmp_path):
    rows = 2000
    words = {name: pa.array(["a" * MIB]).dictionary_encode().take(pa.array([0] * rows)) for name in ("set", "metric", "identity")}
    numbers = {"member": np.arange(rows), "score": np.random.default_rng(0).random(rows), "native": np.zeros(rows)}
    parquet.write_table(pa.table(words | numbers), tmp_path / "scores.parquet")
    assert outcome(lambda: read_scores(tmp_path / "scores.parquet", [], "a")) == "refused"


# ---------------------------------------------------------------- code in files


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def evil_files(tmp_path):
    """Weight files that run code in readers that let them."""
    evil, content = Evil(tmp_path / "mark"), io.BytesIO()
    torch.save({"params": {"w": evil}}, tmp_path / "zip.pth")
    torch.save({"params": {"w": evil}}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"params": {"w": evil}}))
    np.savez(content, mu_pris_param=np.array([evil], object), cov_pris_param=np.zeros(1))
    (tmp_path / "arrays.npz").write_bytes(content.getvalue())
    return sorted(path for path in tmp_path.iterdir() if path.suffix in (".pth", ".npz"))


def test_pickled_code_is_never_run(tmp_path, monkeypatch):
    files = evil_files(tmp_path)
    with pytest.raises(FileExistsError):  # it would run, and then find its mark
        (tmp_path / "mark").mkdir()
        pickle.loads((tmp_path / "pickle.pth").read_bytes())
    (tmp_path / "mark").rmdir()
    for path in files:
        for reading in (load_weights, load_network, lambda path: load_into(build_network(RRDB), path)):
            with pytest.raises(CheckpointError):
                reading(path)
        for metric in ("musiq", "lpips", "dbcnn", "niqe"):
            with pytest.raises(UserError):
                create_metric(metric, weights=path)
    states = tmp_path / "states"
    states.mkdir()
    for step, path in enumerate(files, 1):
        (states / f"{step}.pt").write_bytes(path.read_bytes())
    state, notes = newest_state(states)
    assert state is None and len(notes) == len(files)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    vgg_file("vgg11").path.parent.mkdir(parents=True)
    vgg_file("vgg11").path.write_bytes((tmp_path / "zip.pth").read_bytes())
    with pytest.raises(UserError):
        vgg_features("vgg11", {"conv1_1": 1.0})
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "network",
    [
        {"type": "os.mkdir", "path": "MARK"},
        {"type": "subprocess.run", "args": ["mkdir", "MARK"]},
        {"type": "evil_module.Net"},
        {"type": ".evil_module"},
        {"type": "VGGFeatureExtractor", "layer_name_list": ["conv1_1"]},
        {"type": ["os.mkdir"]},
        {"kind": "RRDBNet"},
        ["os.mkdir"],
    ],
    ids=str,
)
def test_a_weight_file_cannot_name_code(tmp_path, monkeypatch, network):
    (tmp_path / "evil_module.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\nNet = dict\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    said = json.dumps(network).replace("MARK", str(tmp_path / "mark"))
    save_weights(tmp_path / "a.safetensors", build_network(RRDB).state_dict(), {"network_g": said})
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_network(tmp_path / "a.safetensors")
    assert not (tmp_path / "mark").exists() and "evil_module" not in sys.modules


def base():
    torch.manual_seed(0)
    return build_network(SWINIR)


def adapter(folder):
    save_adapter(inject(base(), LoraOptions(rank=2), "SwinIR"), folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "evil_module"},
        {"target_modules": r"(.*a){40}$"},
        {"rank_pattern": {"(a+)+$": 3}},
        {"layers_pattern": "(a+)+$", "layers_to_transform": [0]},
        {"auto_mapping": {"parent_library": "evil_module", "base_model_class": "Net"}},
        {"init_lora_weights": "pissa"},
        {"use_dora": True},
        {"lora_alpha": float("nan")},
        {"r": 0},
        {"r": "2"},
        {"target_modules": ["nothing_there"]},
        {"target_modules": []},
        {"peft_type": "IA3"},
    ],
    ids=str,
)
def test_an_adapter_cannot_name_code_or_patterns(tmp_path, monkeypatch, change):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('run')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    folder = adapter(tmp_path / "adapter")
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**said, **change}))
    harmless = set(change) & {"megatron_config", "layers_pattern", "auto_mapping"}  # not looked at
    assert outcome(lambda: load_adapter(base(), folder)) == ("accepted" if harmless else "refused")
    assert "evil_module" not in sys.modules


def test_an_adapter_with_nan_is_refused(tmp_path):
    folder = adapter(tmp_path / "adapter")
    net = load_adapter(base(), folder)
    next(p for n, p in net.named_parameters() if "lora_A" in n).data[0, 0] = float("nan")
    save_adapter(net, folder)
    with pytest.raises(UserError, match=r"1 of 16 tensors hold NaN or infinity: .*lora_A"):
        load_adapter(base(), folder)


# ---------------------------------------------------------------- names and links


def test_archives_with_paths_in_them_write_nothing(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "a.pth", "w") as archive:
        for name in ("../../up", "/abs", "../data.pkl", "archive/data.pkl", "archive/../../version"):
            archive.writestr(name, b"x")
    before = tree(tmp_path)
    with pytest.raises(CheckpointError):
        load_weights(inside / "a.pth")
    assert tree(tmp_path) == before


def test_names_in_label_files_lead_nowhere(tmp_path):
    root = make_sets(tmp_path, n=1, k=2, annotators=("A",))
    path = next((root / "labels" / "A").iterdir())
    pictures = {
        "../../a": {"Name": "../../../etc/passwd", "File": "01", "Label": "Positive"},
        "b": {"Name": "/etc/passwd", "File": "02", "Label": "Negative"},
        "c": {"Name": "x", "File": "../original", "Label": "Positive"},
    }
    path.write_text(json.dumps(pictures))
    before = tree(tmp_path)
    (gt_set,) = find_sets(DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels"))
    assert gt_set.effective == ("Positive", "Negative") and all((root / "images") in p.parents for p in gt_set.paths)
    assert tree(tmp_path) == before


class Double(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.interpolate(x, scale_factor=2)


def bicubic(root):
    return DataOptions.model_validate({"type": "multi_gt", "dataroot_gt": root, "degradation": {"preset": "bicubic"}})


def linked(tmp_path, link):
    """A file outside the output folder, and a link to it where an output will go."""
    outside = tmp_path / "outside" / "thesis.png"
    outside.parent.mkdir()
    outside.write_bytes(b"thesis")
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    return outside


def test_images_may_be_links_out_of_the_data(tmp_path):
    root = make_sets(tmp_path / "a", n=2, k=1)
    for path in [*(root / "images").rglob("*.png")]:
        moved = tmp_path / "elsewhere" / path.name
        moved.parent.mkdir(exist_ok=True)
        path.rename(moved)
        path.symlink_to(moved)
    data = DataOptions(type="multi_gt", dataroot_gt=root / "images", dataroot_labels=root / "labels")
    assert verify(data) == [] and len(find_sets(data)) == 2


def test_nothing_is_written_through_links(tmp_path):
    root = make_sets(tmp_path / "data", n=1, k=1, size=32)
    name = find_sets(DataOptions(type="multi_gt", dataroot_gt=root / "images"))[0].name
    out = tmp_path / "out"
    outside = linked(tmp_path, out / f"{name}.png")
    evaluate(Double(), bicubic(root / "images"), ["psnr"], 2, save_dir=out)
    assert not (out / f"{name}.png").is_symlink()
    for again in ("infer", "show"):
        (out / f"{name}.png").unlink()
        (out / f"{name}.png").symlink_to(outside)
        if again == "infer":
            with pytest.raises(UserError, match="is there already"):
                infer_folder(Double(), root / "images" / "original", out)
            continue
        write_png(out / f"{name}.png", picture(8))
        assert not (out / f"{name}.png").is_symlink()
    for file in ("results.json", "results.md", "report/index.html"):
        (out / "study" / file).parent.mkdir(parents=True, exist_ok=True)
        (out / "study" / file).symlink_to(outside)
    write_report(study(), pictures(), out / "study")
    assert outside.read_bytes() == b"thesis" and [path.name for path in outside.parent.iterdir()] == ["thesis.png"]


def test_remembered_choices_are_not_written_through_a_link(tmp_path):
    make = lambda: Choices(tmp_path / "choices", {}, [(4, 4)], 2, 1)  # noqa: E731
    path = make().path
    outside = tmp_path / "thesis"
    outside.write_bytes(b"\x09" * 9)
    path.unlink()
    path.symlink_to(outside)
    choices = make()
    choices.note(torch.tensor([0]), torch.tensor([1]))
    choices.flush()
    assert outside.read_bytes() == b"\x09" * 9 and make().member(0) == 1


def test_a_link_to_a_store_is_replaced_and_what_it_leads_to_is_left(tmp_path):
    store = a_store(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.lmdb").symlink_to(store)
    before = tree(store)
    other = make_sets(tmp_path / "c", n=1, k=1)
    pack(DataOptions(type="multi_gt", dataroot_gt=other / "images"), tmp_path / "b" / "x.lmdb")
    assert tree(store) == before and len(StoreReader(tmp_path / "b" / "x.lmdb").sets) == 1


def test_store_names_cannot_lead_outputs_astray(tmp_path):
    store = a_store(tmp_path / "a")
    record = json.loads(bytes(StoreReader(store).records and json.dumps(StoreReader(store).records[0]).encode()))
    put(store, b"0", json.dumps({**record, "name": "../../astray"}).encode())
    with pytest.raises(UserError, match="damaged"):
        evaluate(Double(), bicubic(store), ["psnr"], 2, save_dir=tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("astray*"))


ODD_NAMES = ("-rf", "--help", "a b", "a;b", "$(x)", "%s{}", "'\"", "<b>&", "é😀", "x" * 235, "con", "a.b.c", "~", "*", "\\")


def test_odd_names_go_all_the_way(tmp_path):
    for i, name in enumerate(ODD_NAMES):
        write_png(tmp_path / "gt" / f"{name}.png", picture(32, i))
    data = DataOptions.model_validate({"type": "single_gt", "dataroot_gt": tmp_path / "gt", "degradation": {"preset": "bicubic"}})
    assert verify(data) == [] and {gt_set.name for gt_set in find_sets(data)} == set(ODD_NAMES)
    pack(data, tmp_path / "x.lmdb")
    assert {gt_set.name for gt_set in StoreReader(tmp_path / "x.lmdb").sets} == set(ODD_NAMES)
    evaluation = evaluate(Double(), data, ["psnr"], 2, save_dir=tmp_path / "out")
    evaluation.write_json(tmp_path / "values.json")
    evaluation.write_csv(tmp_path / "values.csv")
    assert infer_folder(Double(), tmp_path / "gt", tmp_path / "sr") == len(ODD_NAMES)
    for folder in ("out", "sr"):
        assert {path.stem for path in (tmp_path / folder).glob("*.png")} == set(ODD_NAMES)


def test_images_with_names_of_255_bytes_are_read(tmp_path):
    write_png(tmp_path / "gt" / "a.png", picture(32))
    (tmp_path / "gt" / "a.png").rename(tmp_path / "gt" / f"{'x' * 251}.png")
    data = DataOptions(type="single_gt", dataroot_gt=tmp_path / "gt")
    assert verify(data) == [] and pack(data, tmp_path / "x.lmdb") == 1
    assert StoreReader(tmp_path / "x.lmdb").sets[0].name == "x" * 251


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[2Jb", "a\u202eb", os.fsdecode(b"a\xff\xfeb")], ids=ascii)
def test_names_that_are_no_line_of_text_are_named_and_refused(tmp_path, name):
    root = make_sets(tmp_path, n=1, k=1)
    source = next((root / "images" / "original").iterdir())
    (root / "images" / "original" / f"{name}.png").write_bytes(source.read_bytes())
    (root / "images" / "01" / f"{name}_01.png").write_bytes(source.read_bytes())
    data = DataOptions(type="multi_gt", dataroot_gt=root / "images")
    found = [str(problem) for problem in verify(data)]
    assert len(found) == 2 and all("rename it" in line and "\n" not in line and line.encode().isascii() for line in found)
    with pytest.raises(UserError) as refusal:
        find_sets(data)
    assert "\x1b" not in str(refusal.value) and str(refusal.value).encode()
    assert len(find_sets(data.model_copy(update={"on_bad_set": "skip"}))) == 1
    source_only = tmp_path / "in"
    save_image(source_only / "a.png", picture(8))
    (source_only / "a.png").rename(source_only / f"{name}.png")
    assert infer_folder(Double(), source_only, tmp_path / "out") == 1 and (tmp_path / "out" / f"{name}.png").is_file()


class Skeleton(HTMLParser):
    """The tags of a page with their attributes' names, without what a reader sees; in drawings, whose ticks vary, only their kinds."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.kinds, self.drawing = [], set(), False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        kind = tag, tuple(sorted(name for name, _ in attrs))
        self.kinds.add(kind)
        self.drawing = self.drawing or tag == "svg"
        self.tags += [] if self.drawing else [kind]

    def handle_endtag(self, tag):
        self.drawing = self.drawing and tag != "svg"


EVIL_NAMES = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onclick='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</style><style>*{display:none}",
    "<!--",
    "]]><svg onload=alert(1)>",
    "javascript:alert(1)",
)


def renamed(value, names):
    """Results or pictures with other names of variants and sets."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("shift", [0, 2, 5])
def test_names_are_text_in_the_report(tmp_path, shift):
    results = study(checks=[{"text": "amo", "holds": False}], reference={"paper": {"nano": 99.0}})
    results["variants"]["lora"] |= {"starts_from": "amo", "options": {"train": {"reward_opt": [{"metric": "nano"}], "note": "paper"}}}
    places = ("amo", "lora", "full", "a-0-0", "paper", "held-out", "sr-iqa demo")
    names = {name: f"{EVIL_NAMES[(k + shift) % len(EVIL_NAMES)]} {name}" for k, name in enumerate(places)}
    variants = {**names, "original": f"{EVIL_NAMES[shift - 1]} original"}  # a GT is called so too
    plain_shown = {"a-0-0": pictures()["a-0-0"]}
    outputs = {variants[name]: output for name, output in plain_shown["a-0-0"].outputs.items()}
    shown = {names["a-0-0"]: SetImages(plain_shown["a-0-0"].gts, outputs, plain_shown["a-0-0"].lq)}
    plain = write_report(results, plain_shown, tmp_path / "plain", title="paper").report.read_text()
    hostile = renamed(results, names)
    hostile["variants"] = {variants.get(name, name): variant for name, variant in hostile["variants"].items()}
    hostile["reward_comparison"] = compare_tuning(hostile, names["lora"], names["full"])
    html = write_report(hostile, shown, tmp_path / "evil", title=names["paper"]).report.read_text()
    found, expected = Skeleton(html), Skeleton(plain)
    assert found.tags == expected.tags and found.kinds == expected.kinds
    assert html.count("<script") == plain.count("<script") and "alert(1)>" not in html and "<svg onload" not in html


def test_one_damaged_page_of_pixels_damages_one_image(tmp_path):
    store = a_store(tmp_path)
    data = bytearray((store / "data.mdb").read_bytes())
    overflow = [page for page in range(0, len(data), 4096) if data[page + 10] & 4]
    data[overflow[1] + 10] = 2  # it now says that it belongs to the tree: reading it fails, and spoils LMDB's transaction
    (store / "data.mdb").write_bytes(data)
    assert len(list(StoreReader(store).problems())) == 1


def test_an_empty_option_file_is_refused_in_words(tmp_path):
    (tmp_path / "a.yml").write_text("{}\n")
    with pytest.raises(OptionsError, match="name: missing"):
        load(tmp_path / "a.yml")


def test_compressed_weights_are_refused(tmp_path):
    """PyTorch reads them, and a few kilobytes could become gigabytes."""
    torch.save({"params": {"w": torch.zeros(10**6)}}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as plain, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
    assert load_weights(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="compressed"):
        load_weights(tmp_path / "b.pth")


BOMBS = [
    {"type": "spandrel.DAT", "depth": [3_000_000], "num_heads": [2]},
    {"type": "spandrel.DAT", "split_size": [512, 512], "depth": [2], "num_heads": [2]},
    {"type": "spandrel.HAT", "window_size": 10**9},
    {"type": "SpyNet", "load_path": "/etc/hostname"},
    {"type": "DFDNet", "dict_path": "//elsewhere/x.pth"},
]


@pytest.mark.parametrize("section", BOMBS, ids=lambda section: section["type"])
def test_headers_that_ask_for_much_or_for_other_files_are_refused(tmp_path, section):
    save_weights(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {"network_g": json.dumps(section)})
    assert outcome(lambda: load_network(tmp_path / "a.safetensors")) == "refused"


def test_a_table_of_huge_windows_is_refused(tmp_path):
    table = torch.zeros(511**2, 1)
    torch.save({"layers.0.residual_group.blocks.0.attn.relative_position_bias_table": table}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="windows that are too large"):
        load_network(tmp_path / "a.pth")

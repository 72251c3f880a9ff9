"""Damaged and hostile files: whatever a file holds, it is read, or refused with a message (UserError).

python -m benchmarks.fuzz [--cases 20000] [--only NAME ...] [--keep FOLDER] [--coverage-guided]

Every input is a valid file whose bytes or structure have been changed. A child process reads one after the other, as the program would.
A defect is any other exception than a UserError, a child that dies, 10 s, or 1 GiB. `--keep` saves an input for each kind of defect.
`--coverage-guided` adds runs in which atheris (pip install atheris) chooses what to change in option and label files.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import lmdb
import numpy as np
import pyarrow as pa
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import save
from torch import nn

from sr_iqa.adapters import inject, load_adapter, save_adapter
from sr_iqa.archs import build_network
from sr_iqa.check import check
from sr_iqa.checkpoints import load_into, load_network, load_weights
from sr_iqa.config import load, options_to_yaml
from sr_iqa.config.models import DataOptions, LoraOptions, TrainDataOptions
from sr_iqa.config.vocabulary import all_keys
from sr_iqa.data import packing
from sr_iqa.data.choices import Choices
from sr_iqa.data.packing import pack
from sr_iqa.data.sets import find_sets, fingerprint, statistics
from sr_iqa.data.store import StoreReader, forget
from sr_iqa.data.stream import TrainStream
from sr_iqa.errors import UserError
from sr_iqa.images import image_size, read_image, read_image_lenient, write_png
from sr_iqa.inference import upscale
from sr_iqa.iqa.scores import COLUMNS, read_scores, score_sets
from sr_iqa.sampling import build_strategy
from sr_iqa.study.study_file import load_study

from .report import Row, publish

HANG_S, MEMORY_GIB, RESERVED_GIB = 10, 1, 8
"""Limits of one input: seconds, growth of the memory in use; and what a child may reserve, for the machine's sake."""
ROOT = Path(__file__).parent.parent


# ---------------------------------------------------------------- changes

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 4096, 10**9, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 10**30, -(10**400), 1.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "x", ".", "..", "../../x"),
    *(
        "/",
        "-rf",
        "a\0b",
        "a\nb",
        "\ud800",
        "\u202e",
        "é😀",
        "<script>",
        "=1+1",
        "%s{}",
        "1e5",
        "no",
        "x" * 300,
        "9" * 50,
        "#deep",
        "#long",
    ),
    *([], {}, [[]], [1, 2], [None], {"type": "L1Loss"}, {"type": 3}, {"": 1}, {"a": {"b": {"c": 1}}}),
)
"""What values are replaced by. #deep and #long become something very deep and something very long in the text."""
DEEP = ("[" * 100_000, '{"a":' * 100_000, "[" * 30 + "]" * 30, "[" * 900 + "]" * 900)
LINES = ("{0}: &a {{{0}: *a}}", "<<: *a", "{0}: &a [*a]", "\t{0}: 1", "? [a]\n: 1", "---", "...", "%YAML 9.9", "!!python/name:os.system x")
WORDS = (
    "!!int x",
    "!!float 1e4",
    "!!python/object/apply:os.system [true]",
    "*nobody",
    "&b 1",
    "|",
    ">-",
    "'",
    '"\\ud800"',
    '"\\0"',
    "[",
    "{",
)


def changed_bytes(data: bytes, random: Random) -> bytes:
    """A few bytes flipped, overwritten, cut out, doubled, put in; or the file is cut short."""
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        end = at + random.choice((1, 2, 4, 8, 64, 1024))
        match random.randrange(8):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:end] + data[at:]
            case 3:
                data = data[:at] + random.randbytes(end - at) + data[at:]
            case 4:
                size, order = random.choice((2, 4, 8)), random.choice(("little", "big"))
                data = data[:at] + (random.choice(NUMBERS) % 256**size).to_bytes(size, order) + data[at + size :]
            case _:
                data = data[:at] + bytes(byte ^ 1 << random.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]
    return data


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of everything in nested lists and dictionaries."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in [(tree, key), *places(value)]]


def change_tree(tree: Any, random: Random, names: Sequence[str]) -> None:
    """One or two values replaced, removed, renamed, put elsewhere or wrapped, in place."""
    for _ in range(random.randint(1, 2)):
        if not (found := places(tree)):
            return
        (container, key), (source, its) = random.choice(found), random.choice(found)
        match random.randrange(6):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[random.choice(names)] = container.pop(key)
            case 2:
                container[key] = json.loads(json.dumps(source[its]))
            case 3:
                container[key] = random.choice(([container[key]], {random.choice(names): container[key]}))
            case _:
                container[key] = json.loads(json.dumps(random.choice(VALUES)))


def with_extremes(text: str, random: Random) -> bytes:
    deep = random.choice(DEEP)
    return text.replace('"#deep"', deep).replace("'#deep'", deep).replace("#long", "9" * 10_000).encode(errors="surrogatepass")


def changed_json(data: bytes, random: Random) -> bytes:
    """Its tree, its text or its bytes are changed."""
    if random.random() < 0.3:
        return changed_bytes(data, random)
    tree = json.loads(data)
    change_tree(tree, random, ("File", "Label", "Name", "Picture_1", "", "type", "r"))
    text = json.dumps(tree, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.2:  # a key twice
        text = text.replace("{", '{"File": "01", ', random.randint(1, 3))
    return with_extremes(text, random)


NAMES = tuple(dict.fromkeys(str(key[-1]) for key in all_keys()))


def changed_yaml(data: bytes, random: Random) -> bytes:
    """Its tree, its lines or its bytes are changed."""
    way = random.random()
    if way < 0.2:
        return changed_bytes(data, random)
    if way < 0.6:
        tree = yaml.safe_load(data)
        change_tree(tree, random, NAMES)
        return with_extremes(yaml.safe_dump(tree, allow_unicode=random.random() < 0.5, sort_keys=False), random)
    lines = data.decode().splitlines()
    for _ in range(random.randint(1, 3)):
        at, line = random.randrange(len(lines)), random.choice(lines)
        name, indent = random.choice(NAMES), line[: len(line) - len(line.lstrip())]
        word = random.choice((*WORDS, json.dumps(random.choice(VALUES))))
        match random.randrange(5):
            case 0:
                lines[at] = f"{lines[at].partition(':')[0]}: {word}"
            case 1:
                lines.insert(at, line)
            case 2:
                lines.insert(at, f"{indent}{name}: {word}")
            case 3:
                lines.insert(at, indent + random.choice(LINES).format(name))
            case _:
                lines[at] = "  " * random.randrange(4) + lines[at].lstrip()
    return with_extremes("\n".join(lines), random)


def changed_pages(data: bytes, random: Random) -> bytes:
    """Bytes anywhere, or those of a page of LMDB's tree."""
    if random.random() < 0.4:
        return changed_bytes(data, random)
    changed = bytearray(data)
    page = random.choice([at for at in range(0, len(data), 4096) if data[at + 10] & 0b1011])  # branch, leaf and first pages
    for _ in range(random.randint(1, 4)):
        at = page + random.randrange(random.choice((32, 64, 200, 4088)))
        if random.random() < 0.5:
            changed[at] ^= 1 << random.randrange(8)
        else:
            size = random.choice((2, 4, 8))
            changed[at : at + size] = (random.choice(NUMBERS) % 256**size).to_bytes(size, "little")
    return bytes(changed)


def changed_store(data: bytes, random: Random) -> bytes:
    """Its pages, or the JSON of the table of contents or of a set."""
    if random.random() < 0.7:
        return changed_pages(data, random)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data.mdb").write_bytes(data)
        with closing(lmdb.open(folder, map_size=1 << 24, lock=False)) as environment, environment.begin(write=True) as transaction:
            key = random.choice((b"meta", b"0", b"1"))
            transaction.put(key, changed_json(transaction.get(key, b"{}"), random))
        return (Path(folder) / "data.mdb").read_bytes()


def changed_table(data: bytes, random: Random) -> bytes:
    """Bytes of a Parquet file, or a column."""
    if random.random() < 0.6:
        return changed_bytes(data, random)
    columns = parquet.read_table(io.BytesIO(data)).to_pydict()
    name = random.choice(COLUMNS)
    odd = (None, 0, -1, 2**62, "x", 1.5, True, [1], {"a": 1}, b"\xff", float("nan"), float("inf"))
    match random.randrange(3):
        case 0:
            del columns[name]
        case 1:
            columns[name] = [random.choice((None, value)) for value in columns[name]]
        case _:
            columns[name] = [random.choice(odd)] * len(columns[name])
    return table_bytes(pa.table(columns))


def changed_weights(data: bytes, random: Random) -> bytes:
    """Bytes of a .safetensors file, or its header: what it says of its network, or of its tensors."""
    if random.random() < 0.4:
        return changed_bytes(data, random)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header and random.random() < 0.7:
        section = json.loads(header["__metadata__"]["network_g"])
        change_tree(section, random, ("type", "embed_dim", "img_size", "upscale", "x"))
        header["__metadata__"]["network_g"] = with_extremes(json.dumps(section), random).decode()
    else:
        change_tree(header, random, ("__metadata__", "dtype", "shape", "data_offsets", "network_g", "conv_first.weight"))
    text = with_extremes(json.dumps(header), random)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def changed_pickle(data: bytes, random: Random) -> bytes:
    """Bytes of a .pth file, or its objects: no tensors, tensors with odd memory or without any, odd names."""
    if random.random() < 0.6:
        return changed_bytes(data, random)
    content = torch.load(io.BytesIO(data), weights_only=True)
    weights = content["params"]
    name = random.choice([name for name in weights if weights[name].is_floating_point()])
    tensor = weights[name]
    odd = (
        tensor * float("nan"),
        tensor.to(torch.int8),
        tensor.half(),
        tensor[:0],
        tensor.to("meta"),
        tensor.to_sparse(),
        nn.Parameter(tensor),
    )
    more = (torch.ones(1).expand(10**10), torch.ones(()), tensor.new_zeros(2**11, 2**11), {name: tensor}, None, "x", 3)
    match random.randrange(4):
        case 0:
            weights[random.choice((7, None, "", ("a", 1), "module.module.", "x\ud800", 1.5))] = weights.pop(name)
        case 1:
            content = random.choice(([weights], tensor, {"params": [1]}, {"params_ema": {}}, {}, {"params": weights, "params_ema": 3}, "x"))
        case _:
            weights[name] = random.choice(odd + more)
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def changed_image(data: bytes, random: Random) -> bytes:
    """Bytes of an image, or the size, depth and kind that a PNG declares."""
    if not data.startswith(b"\x89PNG") or random.random() < 0.6:
        return changed_bytes(data, random)
    *sizes, depth, kind = struct.unpack(">IIBB", data[16:26])
    sizes = [random.choice((side, side, 0, 1, side + 1, 30_000, 100_000, 2**31 - 1)) for side in sizes]
    kinds = random.choice((depth, 1, 2, 4, 16, 3)), random.choice((kind, 0, 3, 4, 6, 7))
    header = b"IHDR" + struct.pack(">IIBB", *sizes, *kinds) + data[26:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


# ---------------------------------------------------------------- what reads them


@dataclass(frozen=True)
class Target:
    """A kind of file."""

    what: str
    share: float
    """Of the cases asked for."""
    change: Callable[[bytes, Random], bytes]
    make: Callable[[Path], list[bytes]]
    """Puts what else is needed into a folder; returns valid files."""
    read: Callable[[Path, bytes], None]
    """Reads a file in that folder as the program would; raises UserError where it refuses it."""


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


FOREIGN = """\
name: foreign
model_type: RealESRGANModel
scale: 2
num_gpu: auto
gt_size: 32
resize_prob2: [0.3, 0.4, 0.3]
tile_process: true
tile_size: 64
datasets:
  train:
    {type: PosNegGTPosDataset, dataroot_all_gt: a, dataroot_all_json: b, io_backend: {type: disk}, batch_size_per_gpu: 2, use_shuffle: true,
     kernel_list: [iso, aniso], kernel_prob: [0.5, 0.5], blur_kernel_size_min: 1, blur_kernel_size_max: 3}
  val: {type: PairedImageDataset, dataroot_gt: c, dataroot_lq: d}
  val_2: {type: PairedImageDataset, dataroot_gt: c, dataroot_lq: d}
network_g: {type: RRDBNet, num_in_ch: 3, num_out_ch: 3, scale: 2, num_feat: 8, num_block: 1}
train:
  total_iter: !!float 1e3
  optim_g: &adam {type: Adam, lr: !!float 1e-4, betas: [0.9, 0.99]}
  scheduler: {type: MultiStepRestartLR, milestones: [10], gamma: 0.5}
  pixel_opt_o: {type: L1Loss, loss_weight: 1.0, reduction: mean}
val:
  val_freq: !!float 5e2
  metrics: {psnr: {type: calculate_psnr, crop_border: 4, test_y_channel: false}, ssim: {type: calculate_ssim, crop_border: 4}}
logger: {print_freq: 10, wandb: {project: ~}}
dist_params: {backend: nccl}
"""


def make_options(folder: Path) -> list[bytes]:
    return [FOREIGN.encode(), *(path.read_bytes() for path in sorted((ROOT / "options" / "train").rglob("*.yml")))]


def read_options(folder: Path, data: bytes) -> None:
    (folder / "a.yml").write_bytes(data)
    text = options_to_yaml(load(folder / "a.yml").options)
    (folder / "again.yml").write_text(text, encoding="utf-8")
    assert options_to_yaml(load(folder / "again.yml").options) == text


def check_options(folder: Path, data: bytes) -> None:
    (folder / "a.yml").write_bytes(data)
    check(load(folder / "a.yml"))


def write_set(folder: Path, name: str, height: int, width: int, egts: int) -> list[dict[str, Any]]:
    """One set in HGGT's layout under images/; returns what a label file says of its pictures."""
    files = ["original", *(f"{k:02d}" for k in range(1, egts + 1))]
    for k, file in enumerate(files):
        write_png(folder / "images" / file / f"{name}{f'_{file}' if k else ''}.png", picture(height, width, k))
    return [{"Name": f"{name}.png", "File": file, "Label": "Positive" if k else None} for k, file in enumerate(files)]


def make_labels(folder: Path) -> list[bytes]:
    pictures = {f"Picture_{k}": entry for k, entry in enumerate(write_set(folder, "a", 4, 4, 2), 1)}
    (folder / "labels" / "A").mkdir(parents=True)
    return [json.dumps({**pictures, "Time_cost": {"Start": "", "Total": 0}}, indent=indent).encode() for indent in (None, 4)]


def read_labels(folder: Path, data: bytes) -> None:
    (folder / "labels" / "A" / "a.json").write_bytes(data)
    options = DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels")
    assert find_sets(options)[0].effective


def two_sets(folder: Path) -> DataOptions:
    """Sets of images of less and of more than one page of LMDB's, with labels."""
    for name, *size in (("0", 8, 9), ("1", 70, 30)):
        pictures = {str(k): entry for k, entry in enumerate(write_set(folder, name, *size, egts=1))}
        (folder / "labels" / "A").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / "A" / f"{name}.json").write_text(json.dumps(pictures))
    return DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels")


def make_stores(folder: Path) -> list[bytes]:
    """Stores by every codec, and of version 1."""
    options = two_sets(folder)
    for codec in ("raw", "deflate"):
        pack(options, folder / f"{codec}.lmdb", codec=codec, workers=1)
    found = [(folder / f"{codec}.lmdb" / "data.mdb").read_bytes() for codec in ("raw", "deflate")]
    return [*found, version_1(StoreReader(folder / "raw.lmdb"), folder / "1.lmdb")]


def version_1(reader: StoreReader, path: Path) -> bytes:
    """The same store as version 1 wrote it."""
    path.mkdir()
    with closing(lmdb.open(str(path), map_size=1 << 24, lock=False)) as environment, environment.begin(write=True) as transaction:
        for i, member in np.ndindex(len(reader.sets), 2):
            transaction.put(f"{i}/{member}".encode(), reader.image(i, member).tobytes())
        transaction.put(b"meta", json.dumps({"version": 1, "sets": reader.records}).encode())
    return (path / "data.mdb").read_bytes()


def read_store(folder: Path, data: bytes) -> None:
    path = folder / "x.lmdb"
    forget(path)
    path.mkdir(exist_ok=True)
    (path / "data.mdb").write_bytes(data)
    options = DataOptions(type="multi_gt", dataroot_gt=path)
    statistics(options)
    fingerprint(options)
    reader = StoreReader(path)
    for i, gt_set in enumerate(reader.sets):
        for member in range(len(gt_set.paths)):
            gt_set.standing(member)
            assert reader.crop(i, member, 1, 2, 60, 20).shape[:2] == reader.image(i, member)[1:61, 2:22].shape[:2]
        assert len(gt_set.positive) == len(gt_set.paths) and "/" not in gt_set.name
    for problem in reader.problems():
        raise UserError(str(problem))


def make_unfinished(folder: Path) -> list[bytes]:
    """What a packing leaves behind that is killed after its first set, which it has written."""

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with suppress(InterruptedError), mock.patch.object(packing, "BATCH_BYTES", 1):
        pack(two_sets(folder), folder / "x.lmdb", stop, workers=1)
    return [(folder / "x.lmdb.partial" / "data.mdb").read_bytes()]


def read_unfinished(folder: Path, data: bytes) -> None:
    """Goes on with the packing."""
    forget(folder / "x.lmdb")
    shutil.rmtree(folder / "x.lmdb", ignore_errors=True)
    (folder / "x.lmdb.partial").mkdir(exist_ok=True)
    (folder / "x.lmdb.partial" / "data.mdb").write_bytes(data)
    options = DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels")
    assert pack(options, folder / "x.lmdb", workers=1) == 2
    for problem in StoreReader(folder / "x.lmdb").problems():
        raise UserError(str(problem))


def table_bytes(table: pa.Table) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def make_tables(folder: Path) -> list[bytes]:
    make_labels(folder)
    rows = [dict(zip(COLUMNS, ("a", member, 0.5 + member, 0.5 + member, "nano", "nano 1"), strict=True)) for member in range(3)]
    return [table_bytes(pa.Table.from_pylist(rows)), table_bytes(pa.Table.from_pylist(rows[:2]))]


class Judge(SimpleNamespace):
    """A metric that gives every image the same value."""

    def opinions(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), 1)

    def verdict(self, opinions: torch.Tensor) -> torch.Tensor:
        return opinions[:, 0]


def read_table(folder: Path, data: bytes) -> None:
    path = folder / "scores.parquet"
    path.write_bytes(data)
    sets = find_sets(DataOptions(type="multi_gt", dataroot_gt=folder / "images"))
    reader: Any = SimpleNamespace(sets=sets, image=lambda i, member: picture(4, 4))
    judge: Any = Judge(name="nano", mode="NR", lower_better=False, identity="nano 1", device=torch.device("cpu"), threadable=False)
    score_sets(reader, judge, path)
    assert np.isfinite(read_scores(path, sets, "nano")).all()


def choices_in(folder: Path) -> Choices:
    return Choices(folder, {"data": 1}, [(4, 4)], 2, 1)


def make_choices(folder: Path) -> list[bytes]:
    make_labels(folder)
    return [bytes([0, 1, 2, 255, 3, 254, 0, 1, 2])]


def read_choices(folder: Path, data: bytes) -> None:
    choices_in(folder).path.write_bytes(data)
    sampling = {"strategy": "amo", "metric": "nano", "grid": 2}
    crops = {"type": "multi_gt", "dataroot_gt": folder / "images", "gt_size": 2, "batch_size_per_gpu": 1, "sampling": sampling}
    options = TrainDataOptions.model_validate(crops)
    reader: Any = SimpleNamespace(sets=find_sets(options), size=lambda i, member=0: (4, 4))
    choices = choices_in(folder)
    stream = TrainStream(reader, options, 1, 0, build_strategy(options.sampling), choices=choices)
    assert all(stream.plan(n).member < 3 for n in range(4)) and 0 <= choices.known <= 1
    choices.note(torch.tensor([0]), torch.tensor([1]))
    choices.flush()
    assert choices.member(0) == 1


SWINIR = {
    **{"type": "SwinIR", "upscale": 2, "img_size": 8, "window_size": 4, "depths": [2], "embed_dim": 4, "num_heads": [2]},
    "upsampler": "pixelshuffledirect",
}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 4, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}


def make_pickles(folder: Path) -> list[bytes]:
    found = []
    for network in (SWINIR, RRDB):
        out = io.BytesIO()
        torch.save({"params": build_network(network).state_dict()}, out)
        found.append(out.getvalue())
    return found


def make_safetensors(folder: Path) -> list[bytes]:
    states = [(network, build_network(network).state_dict()) for network in (SWINIR, RRDB)]
    return [save(state, {"network_g": json.dumps(network)}) for network, state in states] + [save(states[0][1])]


def weights_reader(suffix: str) -> Callable[[Path, bytes], None]:
    def read(folder: Path, data: bytes) -> None:
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        load_weights(path)
        with suppress(UserError):
            load_into(build_network(SWINIR), path, strict=False)
        upscale(load_network(path), torch.rand(1, 3, 8, 8))

    return read


def make_adapters(folder: Path) -> list[bytes]:
    torch.manual_seed(0)
    net = build_network(SWINIR)
    torch.save(net.state_dict(), folder / "base.pth")
    save_adapter(inject(net, LoraOptions(rank=2), "SwinIR"), folder / "adapter")
    return [(folder / "adapter" / "adapter_config.json").read_bytes()]


def read_adapter(folder: Path, data: bytes) -> None:
    (folder / "adapter" / "adapter_config.json").write_bytes(data)
    net = build_network(SWINIR)
    load_into(net, folder / "base.pth")
    upscale(load_adapter(net, folder / "adapter"), torch.rand(1, 3, 8, 8))


def make_images(folder: Path) -> list[bytes]:
    image = picture(33, 21)
    found = [cv2.imencode(kind, image)[1].tobytes() for kind in (".png", ".jpg", ".bmp", ".webp", ".tiff")]
    odd = (image[..., 0], np.dstack([image, image[..., 0]]), image.astype(np.uint16) * 257)
    return found + [cv2.imencode(".png", pixels)[1].tobytes() for pixels in odd]


def read_images(folder: Path, data: bytes) -> None:
    path = folder / "a.png"
    path.write_bytes(data)
    for read in (image_size, read_image_lenient):
        with suppress(UserError):
            read(path)
    assert read_image(path).shape[:2] == image_size(path)


BASE = {
    "name": "base",
    "scale": 2,
    "datasets": {"train": {"type": "single_gt", "dataroot_gt": "images", "gt_size": 32, "batch_size_per_gpu": 1}},
    "network_g": SWINIR,
    "train": {"total_iter": 4, "optim_g": {"type": "Adam", "lr": 1e-3}, "pixel_opt": {"type": "L1Loss"}},
}
STUDY = """\
name: s
base: base.yml
shared: {train.total_iter: 8}
variants:
  one: {}
  two:
    train.optim_g.lr: 1e-5
    starts_from: one
  three: {lora.rank: 2, starts_from: two}
seeds: [0, 1]
metrics: [psnr, nano]
optimised_metric: nano
baseline: one
expected_order: [one, two]
lora_against_full: [three, two]
reference: {paper: {psnr: 24.5}}
experiments_root: runs
"""


def make_studies(folder: Path) -> list[bytes]:
    (folder / "base.yml").write_text(yaml.safe_dump(BASE))
    return [STUDY.encode()]


def read_study(folder: Path, data: bytes) -> None:
    (folder / "study.yml").write_bytes(data)
    study = load_study(folder / "study.yml")
    for seed, name in study.runs:
        study.options(name, seed)


TARGETS = {
    "options": Target("option files", 1, changed_yaml, make_options, read_options),
    "checks": Target("option files, checked", 0.25, changed_yaml, make_options, check_options),
    "labels": Target("label files", 1, changed_json, make_labels, read_labels),
    "stores": Target("packed stores", 1, changed_store, make_stores, read_store),
    "unfinished": Target("unfinished stores", 0.5, changed_pages, make_unfinished, read_unfinished),
    "scores": Target("score tables", 0.25, changed_table, make_tables, read_table),
    "choices": Target("remembered choices", 0.1, changed_bytes, make_choices, read_choices),
    "pth": Target("weights, .pth", 0.25, changed_pickle, make_pickles, weights_reader(".pth")),
    "safetensors": Target("weights, .safetensors", 0.25, changed_weights, make_safetensors, weights_reader(".safetensors")),
    "adapters": Target("adapters' configurations", 0.1, changed_json, make_adapters, read_adapter),
    "images": Target("images", 0.5, changed_image, make_images, read_images),
    "studies": Target("study files", 0.25, changed_yaml, make_studies, read_study),
}


# ---------------------------------------------------------------- trying them


def outcome_of(target: Target, folder: Path, data: bytes) -> str:
    """accepted, refused, or what was raised and where."""
    try:
        target.read(folder, data)
    except UserError as error:
        return "refused" if str(error).encode() else "refused without a word"
    except BaseException as error:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "sr_iqa" in frame.filename]
        return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else f"{type(error).__name__}"
    return "accepted"


def memory_gib(name: str) -> float:
    """VmRSS, what this process has, or VmHWM, the most it had since the last reset."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1]) / 2**20


def serve(target: Target, folder: Path, pipe: Any) -> None:
    """The child: reads what comes through the pipe, and answers with the outcome."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)  # libraries print what is wrong with files
    resource.setrlimit(resource.RLIMIT_AS, (RESERVED_GIB << 30, RESERVED_GIB << 30))
    torch.set_num_threads(1)
    while True:
        data = pipe.recv_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        before = memory_gib("VmRSS")
        outcome = outcome_of(target, folder, data)
        grown = memory_gib("VmHWM") - before
        pipe.send(outcome if grown < MEMORY_GIB else f"takes {grown:.0f} GiB, then: {outcome}")


class Child:
    """A process that reads inputs of a target and is started anew when it has died; a context."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.seeds = target.make(self._folder)
        self._process: Any = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def outcome(self, data: bytes) -> str:
        """As outcome_of; or how the child died."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send_bytes(data)
            if self._pipe.poll(HANG_S):
                return self._pipe.recv()
            self._stop()
            return f"hangs for {HANG_S} s"
        except (EOFError, ConnectionError):
            self._process.join()
            code, self._process = self._process.exitcode, None
            return f"the process dies ({code})"

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(self._target, self._folder, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def changed(target: Target, data: bytes, random: Random) -> bytes:
    try:
        return target.change(data, random)
    except Exception:  # what has been changed before, or now, need not have the file's structure any more
        return changed_bytes(data, random)


def keep_input(keep: Path | None, target: Target, outcome: str, data: bytes) -> None:
    print(f"  {target.what}: {outcome}", flush=True)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{target.what}, {outcome}".replace("/", " ").replace(" ", "_")).write_bytes(data)


def trial(target: Target, cases: int, keep: Path | None = None) -> Counter[str]:
    """Outcome -> how many of `cases` inputs, which are the same ones in every run."""
    found: Counter[str] = Counter()
    with Child(target) as child:
        for n in range(cases):
            random = Random(f"{target.what} {n}")
            data = changed(target, random.choice(child.seeds), random)
            outcome = child.outcome(data)
            found[outcome] += 1
            if outcome not in ("accepted", "refused") and found[outcome] == 1:
                keep_input(keep, target, outcome, data)
    return found


# ---------------------------------------------------------------- with coverage

BOOT = """
import sys, atheris
with atheris.instrument_imports(include=["sr_iqa", "yaml", "json"]):
    from benchmarks import fuzz
fuzz.guided(*sys.argv[1:])
"""


def guided_trial(name: str, cases: int, keep: Path | None) -> Counter[str]:
    """As trial, with changes that lead to parts of the program that no earlier input has reached."""
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.json"
        command = [sys.executable, "-c", BOOT, name, str(cases), folder, str(keep or "")]
        code = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        found = Counter(json.loads(counts.read_text())) if counts.exists() else Counter()
    if code:
        found[f"libFuzzer ends with {code}"] += 1
    return found


def guided(name: str, cases: str, folder: str, keep: str) -> None:
    """The process of a guided trial: writes the outcomes to folder/counts.json."""
    import atheris

    target, place, found = TARGETS[name], Path(folder), Counter[str]()
    (place / "seeds").mkdir()
    for n, seed in enumerate(target.make(place)):
        (place / "seeds" / str(n)).write_bytes(seed)

    def one(data: bytes) -> None:
        outcome = outcome_of(target, place, data)
        found[outcome] += 1
        if outcome not in ("accepted", "refused") and found[outcome] == 1:
            keep_input(Path(keep) if keep else None, target, outcome, data)
        if found.total() % 100 == 0 or found.total() >= int(cases) - 100:
            (place / "counts.json").write_text(json.dumps(found))

    def change(data: bytes, most: int, seed: int) -> bytes:
        return atheris.Mutate(data, most) if seed % 2 else changed(target, data, Random(seed))[:most]

    flags = [f"-runs={cases}", f"-timeout={HANG_S}", "-rss_limit_mb=4096", "-max_len=20000", "-seed=1", f"-artifact_prefix={folder}/"]
    flags += ["-mutate_depth=1", "-reduce_inputs=0"]  # inputs cut down to what still reaches the same lines would be refused at once
    atheris.Setup([name, str(place / "seeds"), *flags], one, custom_mutator=change)
    atheris.Fuzz()


# ---------------------------------------------------------------- rows


def row(what: str, found: Counter[str]) -> Row:
    cases, accepted, refused = found.total(), found.pop("accepted", 0), found.pop("refused", 0)
    figure = f"{cases} cases: {accepted} accepted, {refused} refused, {found.total()} defects"
    return Row(what, "", figure, "0 defects", not found, "; ".join(f"{count} x {outcome}" for outcome, count in found.most_common(3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="of option files, labels and stores; a share of it of the others")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--keep", type=Path, help="folder for inputs that cause defects")
    parser.add_argument("--coverage-guided", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        target = TARGETS[name]
        rows.append(row(target.what, trial(target, round(arguments.cases * target.share), arguments.keep)))
        if arguments.coverage_guided and name in ("options", "labels"):
            rows.append(row(f"{target.what}, by coverage", guided_trial(name, arguments.cases, arguments.keep)))
    publish("fuzz", rows, keep=set(arguments.only) != set(TARGETS), about="Damaged and hostile files: read, or refused with a message.")


if __name__ == "__main__":
    main()

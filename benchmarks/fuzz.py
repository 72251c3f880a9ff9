"""Damaged and hostile files: whatever a file holds, it is read, or refused with a message (UserError).

python -m benchmarks.fuzz [--cases 20000] [--only NAME ...] [--keep FOLDER] [--coverage-guided]

Every input is a valid file whose bytes or structure have been changed. A child process reads it, many inputs one after the other; where the
child dies, takes 10 s or 1 GiB, or where anything else than a UserError is raised, that is a defect. `--keep` saves what causes defects.
`--coverage-guided` lets atheris (to be installed by hand) choose the changes for option files and labels.
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

HANG_S, MEMORY_GIB, MOST_GIB = 10, 1, 8
"""Limits of one input: seconds, growth of the memory in use; and what a child may reserve at most, for the machine's sake."""
ROOT = Path(__file__).parent.parent
Change = Callable[[bytes, Random], bytes]


# ---------------------------------------------------------------- changes

LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 4096, 10**9)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 10**30, -(10**400), 1.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "x", ".", "..", "../../x"),
    *(".a", "a..b", "a.", "/", "-rf", "a\0b", "a\nb", "\ud800", "\u202e", "é😀", "<script>", "=1+1", "%s{}", "1e5", "no", "x" * 300, "9" * 50),
    *([], {}, [[]], [1, 2], [None], {"type": "L1Loss"}, {"type": 3}, {"": 1}, {"a": {"b": {"c": 1}}}, "@deep", "@long"),
)
"""Values of other types and sizes. @deep and @long become, in the text, something very deep and something very long."""
ODD_LINES = ("{0}: &a {{{0}: *a}}", "<<: *a", "{0}: &a [*a]", "\t{0}: 1", "? [a]\n: 1", "---", "...", "%YAML 9.9", "!!python/name:os.system x")
ODD_WORDS = ("!!int x", "!!float 1e4", "!!python/object/apply:os.system [true]", "*nobody", "&b 1", "|", ">-", "'", '"\\ud800"', '"\\0"', "[", "{")


def changed_bytes(data: bytes, random: Random) -> bytes:
    """A few bytes flipped, overwritten, cut out, doubled, put in; or the file is cut short."""
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(data) + 1)
        there = at + random.choice((1, 2, 4, 8, 64, 1024))
        match random.randrange(7):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[there:]
            case 2:
                data = data[:there] + data[at:]
            case 3:
                data = data[:at] + random.randbytes(there - at) + data[at:]
            case 4:
                form = random.choice(("<H", "<I", "<Q", ">H", ">I", ">Q"))
                number = random.choice(LENGTHS) & (256 ** struct.calcsize(form) - 1)
                data = data[:at] + struct.pack(form, number) + data[at + struct.calcsize(form) :]
            case _:
                data = data[:at] + bytes(b ^ 1 << random.randrange(8) for b in data[at : at + 1]) + data[at + 1 :]
    return data


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of everything in nested lists and dictionaries."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in [(tree, key), *places(value)]]


def change_tree(tree: Any, random: Random, names: Sequence[str]) -> None:
    """One to three values replaced, removed, renamed, moved elsewhere or wrapped, in place."""
    for _ in range(random.randint(1, 3)):
        if not (found := places(tree)):
            return
        (container, key), (other, its) = random.choice(found), random.choice(found)
        match random.randrange(6):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[random.choice(names)] = container.pop(key)
            case 2:
                container[key] = json.loads(json.dumps(other[its]))
            case 3:
                container[key] = random.choice(([container[key]], {random.choice(names): container[key]}))
            case _:
                container[key] = json.loads(json.dumps(random.choice(ODD_VALUES)))


def with_extremes(text: str, random: Random) -> bytes:
    deep = random.choice(("[" * 100_000, '{"a":' * 100_000, "[" * 30 + "]" * 30, "[" * 900 + "]" * 900))
    return text.replace('"@deep"', deep).replace("'@deep'", deep).replace("@long", "9" * 10_000).encode(errors="surrogatepass")


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


OPTION_NAMES = tuple(dict.fromkeys(str(key[-1]) for key in all_keys()))


def changed_yaml(data: bytes, random: Random) -> bytes:
    """Its tree, its lines or its bytes are changed."""
    way = random.random()
    if way < 0.2:
        return changed_bytes(data, random)
    if way < 0.6:
        tree = yaml.safe_load(data)
        change_tree(tree, random, OPTION_NAMES)
        with suppress(yaml.YAMLError, UnicodeError):
            return with_extremes(yaml.safe_dump(tree, allow_unicode=random.random() < 0.5, sort_keys=False), random)
    lines = data.decode().splitlines() or [""]
    for _ in range(random.randint(1, 4)):
        at, line = random.randrange(len(lines)), random.choice(lines)
        name, indent = random.choice(OPTION_NAMES), line[: len(line) - len(line.lstrip())]
        word = random.choice((*ODD_WORDS, json.dumps(random.choice(ODD_VALUES))))
        match random.randrange(5):
            case 0:
                lines[at] = f"{lines[at].partition(':')[0]}: {word}"
            case 1:
                lines.insert(at, line)
            case 2:
                lines.insert(at, f"{indent}{name}: {word}")
            case 3:
                lines.insert(at, indent + random.choice(ODD_LINES).format(name))
            case _:
                lines[at] = "  " * random.randrange(4) + lines[at].lstrip()
    return with_extremes("\n".join(lines), random)


def changed_store(data: bytes, random: Random) -> bytes:
    """Bytes anywhere, bytes of the pages that hold LMDB's tree, or the JSON of the table of contents or of a set."""
    way = random.random()
    if way < 0.3:
        return changed_bytes(data, random)
    if way < 0.7:
        pages = [at for at in range(0, len(data), 4096) if data[at + 10] & 0b1011]  # branch, leaf and meta pages
        page = random.choice(pages)
        changed = bytearray(data)
        for _ in range(random.randint(1, 4)):
            at = page + random.randrange(random.choice((32, 64, 200, 4096)))
            if random.random() < 0.5:
                changed[at] ^= 1 << random.randrange(8)
            else:
                number = struct.pack("<Q", random.choice(LENGTHS))[: random.choice((2, 4, 8))]
                changed[at : at + len(number)] = number
        return bytes(changed[: len(data)])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data.mdb").write_bytes(data)
        with closing(lmdb.open(folder, map_size=1 << 24, lock=False)) as environment, environment.begin(write=True) as transaction:
            key = random.choice((b"meta", b"0", b"1"))
            transaction.put(key, changed_json(transaction.get(key, b"{}"), random))
        return (Path(folder) / "data.mdb").read_bytes()


def changed_table(data: bytes, random: Random) -> bytes:
    """Bytes of a Parquet file, or its columns."""
    if random.random() < 0.6:
        return changed_bytes(data, random)
    columns = parquet.read_table(io.BytesIO(data)).to_pydict()
    name = random.choice(COLUMNS)
    match random.randrange(4):
        case 0:
            del columns[name]
        case 1:
            columns[name] = [random.choice((None, columns[name][0])) for _ in columns[name]]
        case 2:
            columns[name] = [random.choice((0, 2**62, -1))] * len(columns[name])
        case _:
            columns[name] = [random.choice(("x", 1.5, True, [1], {"a": 1}, b"\xff", float("nan")))] * len(columns[name])
    out = io.BytesIO()
    parquet.write_table(pa.table(columns), out)
    return out.getvalue()


def changed_weights(data: bytes, random: Random) -> bytes:
    """Bytes of a .safetensors file, or its header."""
    if random.random() < 0.4:
        return changed_bytes(data, random)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = ("__metadata__", "dtype", "shape", "data_offsets", "network_g", "conv_first.weight")
    if "__metadata__" in header and random.random() < 0.6:
        section = json.loads(header["__metadata__"]["network_g"])
        change_tree(section, random, ("type", "embed_dim", "img_size", "upscale", "x"))
        header["__metadata__"]["network_g"] = with_extremes(json.dumps(section), random).decode()
    else:
        change_tree(header, random, names)
    text = with_extremes(json.dumps(header), random)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def changed_pickle(data: bytes, random: Random) -> bytes:
    """Bytes of a .pth file, or its objects: no tensors, tensors without or with odd memory, odd names."""
    if random.random() < 0.6:
        return changed_bytes(data, random)
    content = torch.load(io.BytesIO(data), weights_only=True)
    weights = content.get("params", content)
    name = random.choice(list(weights))
    tensor = weights[name]
    odd = (tensor.double() * float("nan"), tensor.to(torch.int8), tensor.half(), tensor[:0], tensor.to("meta"), tensor.to_sparse(), 3)
    more = (torch.ones(1).expand(10**10), torch.ones(()), tensor.new_zeros(2**12, 2**12), {name: tensor}, None, "x", nn.Parameter(tensor))
    match random.randrange(4):
        case 0:
            weights[random.choice((7, None, "", ("a", 1), "module.module.", "x\ud800", 1.5))] = weights.pop(name)
        case 1:
            content = random.choice(([weights], weights[name], {"params": [1]}, {"params_ema": {}}, {}, {"params": weights, "params_ema": 3}))
        case _:
            weights[name] = random.choice(odd + more)
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def changed_image(data: bytes, random: Random) -> bytes:
    """Bytes of an image, or the size, depth and kind that a PNG declares."""
    if not data.startswith(b"\x89PNG") or random.random() < 0.6:
        return changed_bytes(data, random)
    width, height, *kind = struct.unpack(">IIBBBBB", data[16:29])
    width, height = (random.choice((side, 0, 1, side + 1, 30_000, 100_000, 2**31 - 1)) for side in (width, height))
    kind[0], kind[1] = random.choice((kind[0], 1, 2, 4, 16, 3)), random.choice((kind[1], 0, 3, 4, 6, 7))
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, *kind)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


# ---------------------------------------------------------------- what reads them


@dataclass(frozen=True)
class Target:
    """A kind of file."""

    what: str
    share: float
    """Of the cases asked for."""
    change: Change
    make: Callable[[Path], list[bytes]]
    """Puts what else is needed into a folder; returns valid files."""
    read: Callable[[Path, bytes], None]
    """Reads a file in that folder as the program would; raises UserError where it refuses it."""


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def make_options(folder: Path) -> list[bytes]:
    (folder / "images").mkdir()
    return [path.read_bytes() for path in sorted((ROOT / "options").rglob("*.yml")) if path.stat().st_size < 20_000]


def read_options(folder: Path, data: bytes) -> None:
    (folder / "a.yml").write_bytes(data)
    loaded = load(folder / "a.yml")
    check(loaded)
    text = options_to_yaml(loaded.options)
    (folder / "again.yml").write_text(text, encoding="utf-8")
    assert options_to_yaml(load(folder / "again.yml").options) == text


def make_labels(folder: Path) -> list[bytes]:
    for place in ("original/a", "01/a_01", "02/a_02"):
        write_png(folder / "images" / f"{place}.png", picture(4, 4))
    (folder / "labels" / "A").mkdir(parents=True)
    pictures = {f"Picture_{k}": {"Name": f"a_{k}.png", "File": file, "Label": word} for k, (file, word) in enumerate(FILES.items())}
    return [json.dumps({**pictures, "Time_cost": {"Start": "", "Total": 0}}, indent=indent).encode() for indent in (None, 4)]


FILES = {"original": None, "01": "Positive", "02": "Negative"}


def read_labels(folder: Path, data: bytes) -> None:
    (folder / "labels" / "A" / "a.json").write_bytes(data)
    options = DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels")
    assert find_sets(options)[0].labels


def make_stores(folder: Path) -> list[bytes]:
    for i, side in enumerate((8, 150)):
        for place in ("original/{}", "01/{}_01", "lq/{}"):
            write_png(folder / place.format(f"s{i}").replace("lq", "../lq").replace("..", "..").strip("/"), picture(side, side + i))
    return []


def make_store_files(folder: Path) -> list[bytes]:
    """Of two sets, one smaller and one larger than a page of LMDB's, by every codec, and of version 1."""
    sets = {"s0": (8, 9), "s1": (70, 30)}
    for name, (height, width) in sets.items():
        write_png(folder / "images" / "original" / f"{name}.png", picture(height, width))
        write_png(folder / "images" / "01" / f"{name}_01.png", picture(height, width, 1))
        path = folder / "labels" / "A" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"Picture_1": {"File": "01", "Label": "Positive"}}))
    options = DataOptions(type="multi_gt", dataroot_gt=folder / "images", dataroot_labels=folder / "labels")
    found = []
    for codec in ("raw", "deflate"):
        pack(options, folder / f"{codec}.lmdb", codec=codec, workers=1)
        found.append((folder / f"{codec}.lmdb" / "data.mdb").read_bytes())
    return [*found, version_1(StoreReader(folder / "raw.lmdb"), folder / "one.lmdb")]


def version_1(reader: StoreReader, path: Path) -> bytes:
    """The same store as version 1 wrote it."""
    path.mkdir()
    with closing(lmdb.open(str(path), map_size=1 << 24, lock=False)) as environment, environment.begin(write=True) as transaction:
        for i in range(len(reader.sets)):
            for member in (0, 1):
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
            reader.crop(i, member, 1, 2, 60, 20)
            reader.image(i, member)
        assert len(gt_set.positive) == len(gt_set.paths) and "/" not in gt_set.name
    for problem in reader.problems():
        raise UserError(str(problem))


class Judge(SimpleNamespace):
    """A metric that gives every image the same value."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x))


JUDGE = Judge(name="nano", mode="NR", lower_better=False, identity="nano 1", device=torch.device("cpu"), threadable=False)


def make_tables(folder: Path) -> list[bytes]:
    make_labels(folder)
    rows = [dict(zip(COLUMNS, ("a", member, 0.5 + member, 0.5 + member, "nano", "nano 1"), strict=True)) for member in range(3)]
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return [out.getvalue()]


def read_table(folder: Path, data: bytes) -> None:
    (folder / "scores.parquet").write_bytes(data)
    sets = find_sets(DataOptions(type="multi_gt", dataroot_gt=folder / "images"))
    assert np.isfinite(read_scores(folder / "scores.parquet", sets, "nano")).all()
    reader = SimpleNamespace(sets=sets, image=lambda i, member: picture(4, 4))
    score_sets(reader, JUDGE, folder / "scores.parquet")  # type: ignore[arg-type]


CROPS: dict[str, Any] = {"type": "multi_gt", "gt_size": 2, "batch_size_per_gpu": 1}


def choices_in(folder: Path) -> Choices:
    return Choices(folder, {"data": 1}, [(4, 4)], 2, 1)


def make_choices(folder: Path) -> list[bytes]:
    make_labels(folder)
    return [bytes([0, 1, 2, 255, 3, 254, 0, 1, 2])]


def read_choices(folder: Path, data: bytes) -> None:
    path = choices_in(folder).path
    path.write_bytes(data)
    options = TrainDataOptions.model_validate(
        {**CROPS, "dataroot_gt": folder / "images", "sampling": {"strategy": "amo", "metric": "nano", "grid": 2}}
    )
    sets = find_sets(options)
    reader = SimpleNamespace(sets=sets, size=lambda i, member=0: (4, 4))
    choices = choices_in(folder)
    stream = TrainStream(reader, options, 1, 0, build_strategy(options.sampling), choices=choices)  # type: ignore[arg-type]
    assert all(stream.plan(n).member < 3 for n in range(4)) and 0 <= choices.known <= 1
    choices.note(torch.tensor([0]), torch.tensor([1]))
    choices.flush()
    assert choices.member(0) == 1


SWINIR = {"type": "SwinIR", "upscale": 2, "img_size": 8, "window_size": 4, "depths": [1], "embed_dim": 4, "num_heads": [2]}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 4, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}
NETWORKS = ({**SWINIR, "upsampler": "pixelshuffledirect"}, RRDB)


def make_pickles(folder: Path) -> list[bytes]:
    found = []
    for network in NETWORKS:
        out = io.BytesIO()
        torch.save({"params": build_network(network).state_dict()}, out)
        found.append(out.getvalue())
    return found


def make_safetensors(folder: Path) -> list[bytes]:
    states = [(network, build_network(network).state_dict()) for network in NETWORKS]
    return [save(state, {"network_g": json.dumps(network)}) for network, state in states] + [save(states[0][1])]


def read_weights(suffix: str) -> Callable[[Path, bytes], None]:
    def read(folder: Path, data: bytes) -> None:
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        load_weights(path)
        with suppress(UserError):
            load_into(build_network(NETWORKS[0]), path, strict=False)
        upscale(load_network(path), torch.rand(1, 3, 8, 8))

    return read


def make_adapters(folder: Path) -> list[bytes]:
    torch.manual_seed(0)
    net = build_network(NETWORKS[0])
    torch.save(net.state_dict(), folder / "base.pth")
    save_adapter(inject(net, LoraOptions(rank=2), "SwinIR"), folder / "adapter")
    return [(folder / "adapter" / "adapter_config.json").read_bytes()]


def read_adapter(folder: Path, data: bytes) -> None:
    (folder / "adapter" / "adapter_config.json").write_bytes(data)
    net = build_network(NETWORKS[0])
    load_into(net, folder / "base.pth")
    upscale(load_adapter(net, folder / "adapter"), torch.rand(1, 3, 8, 8))


def make_images(folder: Path) -> list[bytes]:
    image = picture(33, 21)
    kinds = (".png", ".jpg", ".bmp", ".webp", ".tiff")
    odd = (image[..., 0], np.dstack([image, image[..., 0]]), image.astype(np.uint16) * 257)
    return [cv2.imencode(kind, image)[1].tobytes() for kind in kinds] + [cv2.imencode(".png", pixels)[1].tobytes() for pixels in odd]


def read_images(folder: Path, data: bytes) -> None:
    path = folder / "a.png"
    path.write_bytes(data)
    for read in (image_size, read_image_lenient):
        with suppress(UserError):
            read(path)
    assert read_image(path).shape[:2] == image_size(path)


def make_studies(folder: Path) -> list[bytes]:
    (folder / "images").mkdir()
    base = yaml.safe_load((ROOT / "tests" / "data" / "none").read_text()) if (ROOT / "tests" / "data" / "none").exists() else BASE
    (folder / "base.yml").write_text(yaml.safe_dump(base))
    return [STUDY.encode()]


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


def read_study(folder: Path, data: bytes) -> None:
    (folder / "study.yml").write_bytes(data)
    study = load_study(folder / "study.yml")
    for seed, name in study.runs:
        study.options(name, seed)


TARGETS = {
    "options": Target("option files", 1, changed_yaml, make_options, read_options),
    "labels": Target("label files", 1, changed_json, make_labels, read_labels),
    "stores": Target("packed stores", 1, changed_store, make_store_files, read_store),
    "scores": Target("score tables", 0.2, changed_table, make_tables, read_table),
    "choices": Target("remembered choices", 0.2, changed_bytes, make_choices, read_choices),
    "pth": Target("weights, .pth", 0.2, changed_pickle, make_pickles, read_weights(".pth")),
    "safetensors": Target("weights, .safetensors", 0.2, changed_weights, make_safetensors, read_weights(".safetensors")),
    "adapters": Target("adapters' configuration", 0.1, changed_json, make_adapters, read_adapter),
    "images": Target("images", 0.5, changed_image, make_images, read_images),
    "studies": Target("study files", 0.2, changed_yaml, make_studies, read_study),
}


# ---------------------------------------------------------------- trying them


def outcome_of(target: Target, folder: Path, data: bytes) -> str:
    """accepted, refused, or what was raised and where."""
    try:
        target.read(folder, data)
    except UserError:
        return "refused"
    except BaseException as error:
        places = [frame for frame in traceback.extract_tb(error.__traceback__) if "sr_iqa" in frame.filename]
        at = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "?"
        return f"{type(error).__name__} at {at}: {str(error).partition(chr(10))[0][:120]}"
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
    resource.setrlimit(resource.RLIMIT_AS, (MOST_GIB << 30, MOST_GIB << 30))
    torch.set_num_threads(1)
    while True:
        data = pipe.recv_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        before = memory_gib("VmRSS")
        outcome = outcome_of(target, folder, data)
        grown = memory_gib("VmHWM") - before
        pipe.send(outcome if grown < MEMORY_GIB else f"takes {grown:.1f} GiB, then: {outcome}")


class Child:
    """A process that reads inputs, started anew when it has died; a context."""

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
        self._pipe.send_bytes(data)
        try:
            if self._pipe.poll(HANG_S):
                return self._pipe.recv()
            self._stop()
            return f"hangs for {HANG_S} s"
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._process = None
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


def trial(target: Target, cases: int, keep: Path | None) -> Counter[str]:
    """Outcome -> how many of `cases` inputs, which are always the same ones."""
    found: Counter[str] = Counter()
    with Child(target) as child:
        for n in range(cases):
            random = Random(f"{target.what} {n}")
            data = target.change(random.choice(child.seeds), random)
            outcome = child.outcome(data)
            found[outcome] += 1
            if outcome not in ("accepted", "refused") and found[outcome] == 1:
                print(f"  {target.what} {n}: {outcome}", flush=True)
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{target.what.replace(' ', '_')}_{n}").write_bytes(data)
    return found


def row(target: Target, found: Counter[str]) -> Row:
    cases, accepted, refused = sum(found.values()), found.pop("accepted", 0), found.pop("refused", 0)
    defects = sum(found.values())
    figure = f"{cases} cases: {accepted} accepted, {refused} refused, {defects} defects"
    return Row(target.what, "", figure, "0 defects", not defects, "; ".join(f"{n} x {what}" for what, n in found.most_common(3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="of option files, labels and stores; a share of it of the others")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--keep", type=Path, help="folder for the inputs that cause defects")
    arguments = parser.parse_args()
    rows = [row(target, trial(target, round(arguments.cases * target.share), arguments.keep)) for target in map(TARGETS.get, arguments.only)]
    publish("fuzz", rows, "Damaged and hostile files: read, or refused with a message.")


if __name__ == "__main__":
    main()

"""The packed store: crops against memcpy of the same crops, the compressed codec's size and speed, a cold cache, and packing.

python -m benchmarks.store [--images FOLDER]
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np

from sr_iqa.data.packing import pack
from sr_iqa.data.store import FolderReader, StoreReader, forget

from . import sets
from .report import Row, publish, ratio
from .timing import on_one_core, race, repeated

SETS, TIMES, CROP, CORES = 16, 32, 256, 2
Box = tuple[int, int, int]
"""Set, top, left."""


def boxes() -> list[Box]:
    """Crops all over the sets."""
    rng = np.random.default_rng(0)
    places = zip(rng.integers(SETS, size=509), rng.integers(sets.SIDE - CROP + 1, size=(509, 2)), strict=True)
    return [(int(i), int(y), int(x)) for i, (y, x) in places]


def crops(members: int, crop: Callable[[int, int, int, int], object]) -> Callable[[], None]:
    """Crops of the first GTs of a set, another set and place at every call; `crop` takes (set, member, top, left)."""
    places = cycle(boxes())

    def work() -> None:
        i, y, x = next(places)
        for member in range(members):
            crop(i, member, y, x)

    return work


def reading(stores: dict[str, StoreReader], rounds: int) -> list[Row]:
    """Crops from a hot page cache: of one GT and of all five, against memcpy of the same crops and decoding of PNG files."""
    images = [[stores["raw"].image(i, member) for member in range(5)] for i in range(SETS)]
    files = FolderReader(stores["raw"].sets)
    from_memory = lambda i, m, y, x: images[i][m][y : y + CROP, x : x + CROP].copy()  # noqa: E731
    work = {"png": repeated(crops(5, lambda i, m, y, x: files.crop(i, m, y, x, CROP, CROP)), 2)}
    for members in (1, 5):
        work[f"memcpy {members}"] = repeated(crops(members, from_memory), TIMES)
        for name, store in stores.items():
            crop = lambda i, m, y, x, store=store: store.crop(i, m, y, x, CROP, CROP)  # noqa: E731
            work[f"{name} {members}"] = repeated(crops(members, crop), TIMES)
    found = {name: timing.seconds / (2 if name == "png" else TIMES) for name, timing in race(work, rounds).items()}
    rows = []
    for members, what in ((1, "one crop"), (5, "five crops")):
        ours, limit = found[f"raw {members}"], found[f"memcpy {members}"]
        note = f"{1e6 * limit:.0f} us -> {1e6 * ours:.0f} us"
        rows.append(Row(f"raw, {what}", "memcpy of the same", f"{ours / limit:.2f}x the limit", "<= 4x", ours <= 4 * limit, note))
    five = found["deflate 5"]
    rows.append(
        Row("deflate, five crops", "", f"{1e3 * five:.1f} ms", "<= 12 ms", five <= 12e-3, f"one crop {1e3 * found['deflate 1']:.2f} ms")
    )
    return rows + [ratio(f"{name}, five crops", "five PNG files decoded", found["png"], found[f"{name} 5"]) for name in stores]


def cold(store: StoreReader) -> Row:
    """Crops of images that are not in the page cache. Wall time: the processor waits."""
    data, seconds, pages = store.path / "data.mdb", [], []
    for i, y, x in boxes()[:15]:
        forget(store.path)  # pages that are mapped stay in the cache
        with data.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        store.crop((i + SETS // 2) % SETS, 0, 0, 0, 1, 1)  # opens it and reads the tree, far away from the crop
        before, started = _bytes_read(), time.perf_counter()
        store.crop(i, 4, y, x, CROP, CROP)
        seconds.append(time.perf_counter() - started)
        pages.append((_bytes_read() - before) / 4096)
    note = f"{statistics.mean(pages):.0f} pages read; an image has 192. Depends on the disk and its read-ahead"
    return Row("raw, one crop, cold cache", "", f"{1e3 * statistics.median(seconds):.2f} ms", note=note)


def _bytes_read() -> int:
    """From disks, by this process."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["read_bytes"])


def packing(folder: Path, store: Path, rounds: int) -> list[Row]:
    """PNG files per second by the clock, and per second of CPU time of all cores, which other jobs do not lower."""
    found = race({codec: lambda codec=codec: pack(sets.roots(folder), store, codec=codec) for codec in ("raw", "deflate")}, rounds, 1)
    rows = []
    for codec, timing in found.items():
        rate, free = 5 * SETS / statistics.median(timing.wall), CORES * 5 * SETS / statistics.median(timing.cpu)
        target = {"target": ">= 150 PNG/s", "holds": rate >= 150} if codec == "raw" else {}
        note = f"by the clock; {free:.0f} PNG/s from CPU time"
        rows.append(Row(f"packing, {codec}", f"{CORES} cores", f"{rate:.0f} PNG/s", **target, note=note))
    return rows


def size(store: StoreReader, codec: str) -> Row:
    """Of the file, against the PNG files that it was made from."""
    png = sum(path.stat().st_size for gt_set in store.sets for path in gt_set.paths)
    share = (store.path / "data.mdb").stat().st_size / png
    target = {"target": "<= 1.2x", "holds": share <= 1.2} if codec == "deflate" else {}
    return Row(
        f"{codec}, size of the file", "the PNG files", f"{share:.2f}x", **target, note=f"PNG: {png / 5 / SETS / 1024:.0f} KiB per image"
    )


def main() -> None:
    arguments = sets.command_line(__doc__).parse_args()
    on_one_core()
    with tempfile.TemporaryDirectory() as temporary:
        folder = sets.make_sets(Path(temporary) / "sets", SETS, arguments.images)
        stores = {}
        for codec in ("raw", "deflate"):
            pack(sets.roots(folder), Path(temporary) / f"{codec}.lmdb", codec=codec)
            stores[codec] = StoreReader(Path(temporary) / f"{codec}.lmdb")
        rows = reading(stores, arguments.rounds)
        rows += [size(store, codec) for codec, store in stores.items()]
        rows += [cold(stores["raw"]), *packing(folder, Path(temporary) / "again.lmdb", max(3, arguments.rounds // 3))]
    publish("store", rows, f"Packed stores of {SETS} sets of five 512x512 GTs; crops of {CROP} px.")


if __name__ == "__main__":
    main()

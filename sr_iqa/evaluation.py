"""The protocol: one model (or a folder of its outputs), one collection of GT sets, one table of traceable values (docs/evaluation.md)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sr_iqa import __version__
from sr_iqa.adapters import lora_layers
from sr_iqa.config.models import DataOptions
from sr_iqa.data.degradations import degrade_image
from sr_iqa.data.gtset import LQ, GTSet
from sr_iqa.data.sets import load_sets
from sr_iqa.data.store import Reader
from sr_iqa.data.stream import rng
from sr_iqa.distributed import gather_objects, share
from sr_iqa.errors import UserError
from sr_iqa.images import list_images, read_image, to_tensor, to_uint8, write_png
from sr_iqa.inference import upscale
from sr_iqa.inference.base import Base
from sr_iqa.iqa.grid import grid
from sr_iqa.iqa.judging import apart, judged
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.iqa.noise import noise, noise_of_enlarged
from sr_iqa.scorecard import Against, Column, Evaluation, References, member_name

LUMA_METRICS = ("psnry", "ssim", "ms_ssim", "cw_ssim", "gmsd", "nlpd", "niqe", "niqe_matlab", "brisque", "brisque_matlab", "piqe", "grid")
"""Metrics that look at luma only (pyiqa's configurations with test_y_channel); the others are given RGB."""
LQ_SEED = 0
"""Seed of synthesised LQs. It is no option: every model ever evaluated on a set gets the same LQ."""
Device = str | torch.device
Load = Callable[[Reader, int], np.ndarray]
"""(reader, set index) -> an LQ or an SR image, uint8 (h, w, 3) RGB."""
Upscale = Callable[[np.ndarray, str], np.ndarray]
"""(LQ, set name) -> SR image."""


def evaluate(
    net: nn.Module,
    data: DataOptions,
    metrics: Sequence[str | Metric],
    scale: int,
    crop_border: int = 4,
    tile: int = 0,
    save_dir: Path | None = None,
    max_images: int | None = None,
    reader: Reader | None = None,
    against: References = "positives",
    base: Base | None = None,
) -> Evaluation:
    """Runs `net` (on its own device) over the sets of `data` and scores its outputs.

    The LQ is the given one, or synthesised from the original with a seed that depends on nothing but the set's name. Outputs are rounded
    to 8 bit, as a saved PNG is, before any metric sees them; with save_dir they are written there as <set>.png.
    Under a launch every process takes its share of the images and all return the same result. Whoever evaluates again and again gives
    the `reader` that load_sets(data) returned, so that the images of a folder are checked only once. `against` says what full-reference
    values of a set are made of (scorecard.Column); against the original there is always a column of its own. The column noise_base is there
    for a network with an adapter, and for one that comes with the `base` that it started from; who evaluates again and again keeps that.
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))

    def load(reader: Reader, i: int) -> np.ndarray:
        return low_quality(reader, i, data, scale)

    def run(lq: np.ndarray, name: str) -> np.ndarray:
        image = to_uint8(upscale(net, to_tensor(lq)[None].to(device), tile=tile)[0])
        if save_dir is not None:
            write_png(save_dir / f"{name}.png", image)
        return image

    base = base or (Base() if lora_layers(net) else None)

    def before(lq: np.ndarray, name: str) -> np.ndarray:
        assert base is not None
        return base.output(net, to_tensor(lq)[None].to(device), name, tile)

    source = {"data": data.name or str(data.dataroot_gt), "lq": _lq_source(data)}
    reader = reader or load_sets(data, scale)[0]
    makers = (run, before if base else None)
    return _evaluate(load, makers, load, reader, metrics, scale, crop_border, max_images, device, source, against)


def evaluate_folder(
    outputs: Path,
    data: DataOptions,
    metrics: Sequence[str | Metric],
    scale: int,
    crop_border: int = 4,
    max_images: int | None = None,
    device: str | torch.device = "cpu",
    against: References = "positives",
) -> Evaluation:
    """Scores SR images made elsewhere: for each set `<set>.png`, or `<set>_<anything>.png` as HGGT names them.

    The noise column needs LQs: it is there if `data` has or synthesises them.

    Raises UserError naming the sets that have no output or more than one.
    """
    files = list_images(outputs)

    def load(reader: Reader, i: int) -> np.ndarray:
        return read_image(_output_file(reader.sets[i].name, files, outputs))

    def lq(reader: Reader, i: int) -> np.ndarray:
        return low_quality(reader, i, data, scale)

    source = {"data": data.name or str(data.dataroot_gt), "outputs": str(outputs)}
    reader = load_sets(data, scale)[0]
    has_lq = data.degradation is not None or all(entry.lq is not None for entry in reader.sets)
    given = lq if has_lq else None
    return _evaluate(load, (None, None), given, reader, metrics, scale, crop_border, max_images, torch.device(device), source, against)


def gold_standard(
    data: DataOptions,
    metrics: Sequence[str | Metric],
    scale: int,
    max_images: int | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, dict[str, Any]]:
    """What the GTs themselves reach: for each no-reference metric the mean over sets of the best GT's value (the paper's first row).

    Returns metric -> {mean, per_image, best: {image: GT}, scores: {image: {GT: value}}, lower_better, identity}, native values;
    full-reference metrics are left out.
    """
    reader, sets = load_sets(data, scale)
    sets = sets[:max_images]
    judges = [judge for judge in _judges(metrics, scale, device) if judge.mode == "NR"]

    def read(i: int) -> list[np.ndarray]:
        return [reader.image(i, member) for member in range(len(sets[i].paths))]

    own, score = share(len(sets)), lambda _, gts: _score_gts(judges, gts, device)
    rows = dict(gather_objects(list(zip(own, judged(read, score, own, apart(judges)), strict=True))))
    result = {}
    for judge in judges:
        scores = {entry.name: rows[i][judge.name] for i, entry in enumerate(sets)}
        pick = min if judge.lower_better else max
        best = {image: pick(values, key=values.__getitem__) for image, values in scores.items()}
        per_image = {image: scores[image][gt] for image, gt in best.items()}
        mean = float(np.mean(list(per_image.values())))
        trace = {"lower_better": judge.lower_better, "identity": judge.identity}
        result[judge.name] = {"mean": mean, "per_image": per_image, "best": best, "scores": scores, **trace}
    return result


def low_quality(reader: Reader, i: int, data: DataOptions, scale: int) -> np.ndarray:
    """The LQ of set i, uint8 (h, w, 3): the given one, or the original (cut to a multiple of the scale) degraded with the fixed seed.

    Raises UserError where there is neither an LQ nor a recipe for one.
    """
    name = reader.sets[i].name
    if reader.sets[i].lq is not None:
        return reader.image(i, LQ)
    if data.degradation is None:
        raise UserError(f"{data.dataroot_gt}: set {name} has no LQ; give dataroot_lq, or degradation to synthesise it")
    return degrade_image(reader.image(i, 0), data.degradation, scale, rng(LQ_SEED, "degradation", zlib.crc32(name.encode())))


def describe_sets(data: DataOptions, max_images: int | None = None) -> dict[str, dict[str, Any]]:
    """Per set: its source photo and the effective label of each enhanced GT, for results.json and the report."""
    _, sets = load_sets(data)
    return {
        entry.name: {"source": entry.source, "labels": {member_name(k): word for k, word in enumerate(entry.effective, 1)}}
        for entry in sets[:max_images]
    }


# ---------------------------------------------------------------- one image


class _Grid:
    """The grid measure with the face of a metric; its period is the scale (2 at x1, where there is no pixel shuffle)."""

    name, mode, lower_better, threadable = "grid", "NR", True, True

    def __init__(self, scale: int, device: Device) -> None:
        self.device = torch.device(device)
        self.period = max(scale, 2)
        self.identity = f"grid (sr_iqa {__version__}, period {self.period})"

    def __call__(self, x: Tensor, ref: Tensor | None = None) -> Tensor:
        return grid(x, self.period)


NOISE, NOISE_BASE = "noise", "noise_base"


def _noise_column(base: str) -> Column:
    return Column("noise", True, "none", f"noise (sr_iqa {__version__}, against the {base})", f"8-bit luma against the {base}, whole image")


NOISE_COLUMNS = {NOISE: _noise_column("enlarged LQ"), NOISE_BASE: _noise_column("base network's output")}


def _noise(image: np.ndarray, lq: np.ndarray, scale: int, name: str) -> float:
    """The noise measure of an output against its enlarged LQ, both uint8 (h, w, 3)."""
    if image.shape[:2] != (scale * lq.shape[0], scale * lq.shape[1]):
        raise UserError(f"set {name}: the LQ is {lq.shape[1]}x{lq.shape[0]}; at scale {scale} that is no LQ of an output of its size")
    return float(noise_of_enlarged(to_tensor(image)[None], to_tensor(lq)[None], scale))


def _judges(metrics: Sequence[str | Metric], scale: int, device: Device) -> list[Metric | _Grid]:
    """The metrics, created where only their name is given, and always the grid measure."""
    chosen = [create_metric(m, device=device) if isinstance(m, str) else m for m in metrics if m != "grid"]
    return [*chosen, _Grid(scale, device)]


def _columns(judges: Sequence[Metric | _Grid], crop_border: int, against: References) -> dict[str, Column]:
    columns = {}
    for judge in judges:
        colour = "luma" if judge.name in LUMA_METRICS else "RGB"
        kinds: dict[str, Against] = {"": "none"} if judge.mode == "NR" else {"": against, "_original": "original"}
        border = "whole image" if judge.mode == "NR" else f"{crop_border} px border cut"
        for suffix, kind in kinds.items():
            columns[judge.name + suffix] = Column(judge.name, judge.lower_better, kind, judge.identity, f"8-bit {colour}, {border}")
    return columns


def _evaluate(
    load: Load,
    makers: tuple[Upscale | None, Upscale | None],
    lq: Load | None,
    reader: Reader,
    metrics: Sequence[str | Metric],
    scale: int,
    crop_border: int,
    max_images: int | None,
    device: Device,
    source: dict[str, str],
    against: References,
) -> Evaluation:
    """Of what `load` gives: SR images, or LQs that the first of the `makers` makes SR images of.

    For the noise measure: `lq` gives LQs, the second maker the base's SR images of them.
    """
    run, before = makers
    sets = reader.sets[:max_images]
    judges = _judges(metrics, scale, device)

    def read(i: int) -> tuple[np.ndarray, np.ndarray | None, dict[int, np.ndarray]]:
        loaded = load(reader, i)
        small = loaded if run is not None or lq is None else lq(reader, i)
        gts = {member: reader.image(i, member) for member in {0, *_references(sets[i], against)}}
        return loaded, None if lq is None else small, gts

    def score(i: int, images: tuple[np.ndarray, np.ndarray | None, dict[int, np.ndarray]]) -> dict[str, float]:
        loaded, small, gts = images
        image = loaded if run is None else run(loaded, sets[i].name)
        row = _score_output(image, gts, sets[i], judges, scale, crop_border, device, against)
        if small is not None:
            row[NOISE] = _noise(image, small, scale, sets[i].name)
        if small is not None and before is not None:
            row[NOISE_BASE] = float(noise(to_tensor(image)[None], to_tensor(before(small, sets[i].name))[None]))
        return row

    own = share(len(sets))
    one_per_core = run is None and apart(judges)  # a network may be of a kind that threads cannot share
    rows = dict(gather_objects(list(zip(own, judged(read, score, own, one_per_core), strict=True))))
    measured = [name for name, known in ((NOISE, lq), (NOISE_BASE, before)) if known is not None]
    columns = _columns(judges, crop_border, against) | {name: NOISE_COLUMNS[name] for name in measured}
    values = {column: np.array([rows[i][column] for i in range(len(sets))], np.float64) for column in columns}
    references = tuple(tuple(member_name(k) for k in _references(entry, against)) for entry in sets)
    return Evaluation(tuple(entry.name for entry in sets), columns, values, references, source)


def _references(entry: GTSet, against: References) -> list[int]:
    """The members behind a set's full-reference values; for `positives` the original where there is none (K = 0 included)."""
    if against in ("best", "all"):
        return list(range(len(entry.paths)))
    if against == "original":
        return [0]
    return [int(k) for k in np.flatnonzero(entry.positive)] or [0]


def _score_output(
    image: np.ndarray,
    gts: Mapping[int, np.ndarray],
    entry: GTSet,
    judges: Sequence[Metric | _Grid],
    scale: int,
    crop_border: int,
    device: Device,
    against: References,
) -> dict[str, float]:
    """Every column's value for the output `image` of a set; `gts`: member -> image, all uint8."""
    references = _references(entry, against)
    members = [0, *(k for k in references if k != 0)]
    sr = to_tensor(image)[None].to(device)
    refs = to_tensor(np.stack([_cut_to(gts[k], image.shape, scale, entry.name) for k in members])).to(device)
    inside = _inside(image.shape, crop_border, entry.name)
    row = {}
    for judge in judges:
        if judge.mode == "NR":
            row[judge.name] = float(judge(sr))
            continue
        scores = judge(sr[inside], refs[inside]).double().cpu()
        chosen = scores[[members.index(k) for k in references]]
        best = chosen.min() if judge.lower_better else chosen.max()
        row[judge.name] = float(best if against == "best" else chosen.mean())
        row[f"{judge.name}_original"] = float(scores[0])
    return row


def _score_gts(judges: Sequence[Metric | _Grid], gts: Sequence[np.ndarray], device: Device) -> dict[str, dict[str, float]]:
    """Metric -> GT -> value of a set's GTs, whole images."""
    rows: dict[str, dict[str, float]] = {judge.name: {} for judge in judges}
    for member, gt in enumerate(gts):
        image = to_tensor(gt)[None].to(device)
        for judge in judges:
            rows[judge.name][member_name(member)] = float(judge(image))
    return rows


def _cut_to(gt: np.ndarray, shape: tuple[int, ...], scale: int, name: str) -> np.ndarray:
    """The GT without the last rows and columns that an LQ `scale` times smaller does not cover; UserError for any other size."""
    height, width = (side // scale * scale for side in gt.shape[:2])
    if shape[:2] != (height, width):
        sizes = f"{shape[1]}x{shape[0]} (width x height), its GTs are {gt.shape[1]}x{gt.shape[0]}"
        raise UserError(f"set {name}: the output is {sizes}; at scale {scale} outputs must be {width}x{height}")
    return gt[:height, :width]


def _inside(shape: tuple[int, ...], border: int, name: str) -> tuple[Any, ...]:
    """The index that cuts `border` pixels from each side of (..., H, W)."""
    height, width = shape[:2]
    if min(height, width) <= 2 * border:
        raise UserError(f"set {name}: nothing is left of {height}x{width} pixels after val.crop_border {border}")
    return (..., slice(border, height - border), slice(border, width - border))


def _output_file(name: str, files: Sequence[Path], folder: Path) -> Path:
    matches = [path for path in files if path.stem == name] or [path for path in files if path.stem.startswith(f"{name}_")]
    if not matches:
        raise UserError(f"{folder}: no output for set {name} (expected {name}.png, or {name}_<method>.png)")
    if len(matches) > 1:
        raise UserError(f"{folder}: several outputs for set {name}: {', '.join(path.name for path in matches)}")
    return matches[0]


def _lq_source(data: DataOptions) -> str:
    if data.degradation is None:
        return f"given ({data.dataroot_lq})"
    given = "given where there is one, else " if data.dataroot_lq else ""
    return f"{given}synthesised from the original ({data.degradation.preset}, seed {LQ_SEED} per set name)"

"""`sr-iqa infer`: files, folders and patterns in; results, a record and exit codes out."""

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sr_iqa import load_upscaler
from sr_iqa.adapters import inject, save_adapter, trainable_parameters
from sr_iqa.archs import build_network
from sr_iqa.checkpoints import save_weights
from sr_iqa.config.models import LoraOptions
from sr_iqa.errors import UsageError, UserError
from sr_iqa.images import read_image, write_png
from sr_iqa.inference.bands import upscale_bands
from sr_iqa.inference.budget import Dial, parse_dial
from sr_iqa.inference.folder import upscale_folder
from sr_iqa.inference.inputs import Naming, find_jobs
from sr_iqa.inference.pictures import Picture, join_bands, read_picture, write_bands, write_picture
from sr_iqa.inference.plan import parse_tile, plan_folder
from sr_iqa.inference.upscaler import Upscaler
from tests.helpers import picture

DEMO_BASE = Path(load_upscaler.__code__.co_filename).parent / "assets" / "base_x4.safetensors"
RRDB = {"type": "RRDBNet", "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}


class Enlarge(nn.Module):
    """Repeats pixels, and counts its passes and what they had."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return F.interpolate(x, scale_factor=2, mode="nearest")


class SmallMemory(Enlarge):
    """Has memory for tiles of `most` pixels only."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        if x.shape[2] * x.shape[3] > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def doubled(pixels):
    return pixels.repeat(2, 0).repeat(2, 1)


def images(folder, *names, size=12):
    for seed, name in enumerate(names):
        write_png(folder / name, picture(size, seed))


def infer(net, inputs, out, say=lambda text: None, tile=0, batch=1, **options):
    """(outcome, the network's shapes) of the whole way."""
    upscaler = Upscaler(net, tile=tile, overlap=4, batch=batch)
    assert upscaler.magnification == 2
    net.shapes.clear()
    naming = Naming(out, options.pop("format", "png"), options.pop("suffix", ""))
    return upscale_folder(upscaler, plan_folder(inputs, naming, **options), say, quiet=True)


# ---------------------------------------------------------------- names


def test_files_folders_and_patterns_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(Path("in"), "a.png", "b.png", "deep/c.png", "deep/.hidden/d.png", ".e.png")
    Path("in/notes.txt").write_text("no image")

    def found(*inputs, recursive=False):
        return [str(job.outputs[""]) for job in find_jobs(inputs, Naming(Path("out")), recursive=recursive).jobs]

    assert found("in") == ["out/a.png", "out/b.png"]
    assert found("in", recursive=True) == ["out/a.png", "out/b.png", "out/deep/c.png"]
    assert found("in/b.png", "in", "in/a*") == ["out/b.png", "out/a.png"]
    assert found("in/*") == ["out/a.png", "out/b.png"]
    assert found("in/**/*.png") == ["out/a.png", "out/b.png", "out/c.png"]
    assert found("in/**/*.png", recursive=True) == ["out/a.png", "out/b.png", "out/deep/c.png"]
    images(Path("in"), "x[1].png")
    assert found("in/x[1].png") == ["out/x[1].png"]
    for nothing, words in (("in/*.jpg", "no images"), ("absent", "no such file or folder"), ("in/deep/.hidden/../../nowhere", "no such")):
        with pytest.raises(UserError, match=words):
            found(nothing)


def test_results_within_the_input_folder_are_no_inputs(tmp_path):
    images(tmp_path, "a.png", "out/b.png")
    jobs = find_jobs([tmp_path], Naming(tmp_path / "out"), recursive=True).jobs
    assert [job.source.name for job in jobs] == ["a.png"]


def test_conflicts_are_refused_before_any_work(tmp_path):
    images(tmp_path, "in/a.png", "other/a.png")
    (tmp_path / "in" / "a.jpg").write_bytes((tmp_path / "in" / "a.png").read_bytes())
    for inputs, naming, words in (
        ([tmp_path / "in"], Naming(tmp_path / "out"), "several images would be written to"),
        ([tmp_path / "other", tmp_path / "in" / "a.png"], Naming(tmp_path / "out"), "several images"),
        ([tmp_path / "other"], Naming(tmp_path / "other"), "overwrite"),
        ([tmp_path / "other"], Naming(tmp_path / "other", "jpg"), "overwrite"),
        ([tmp_path / "in" / "a.png"], Naming(tmp_path / "in" / "a.png"), "give a folder"),
    ):
        with pytest.raises(UserError, match=words):
            find_jobs(inputs, naming)
    assert find_jobs([tmp_path / "other"], Naming(tmp_path / "other", suffix="_x2")).jobs[0].outputs[""].name == "a_x2.png"
    write_png(tmp_path / "other" / "a_x2.png", picture(8))  # an input that would be a result
    with pytest.raises(UserError, match="overwrite"):
        find_jobs([tmp_path / "other"], Naming(tmp_path / "other", suffix="_x2"))
    for naming, words in ((Naming(tmp_path, "gif"), "choose one of png"), (Naming(tmp_path, suffix="/../x"), "may not name a folder")):
        with pytest.raises(UsageError, match=words):
            find_jobs([tmp_path / "other"], naming)


# ---------------------------------------------------------------- bands


def made(height, width, channels=3, bits=8, alpha=False):
    levels = np.random.default_rng(0).integers(0, 2**bits, (height, width, channels)).astype(f"u{bits // 8}")
    return Picture(levels, levels[::-1, :, 0].copy() if alpha else None)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(5, 7), (33, 20), (64, 31)])
def test_bands_of_an_identity_are_exact(size, bits, channels):
    before = made(*size, channels, bits)
    for tile in (0, 8, 30):
        upscaler = Upscaler(Enlarge(), tile=tile, overlap=3, batch=4)
        after = join_bands((2 * size[0], 2 * size[1]), (band[0] for band in upscale_bands(upscaler, [before])))
        assert after.pixels.dtype == before.pixels.dtype
        assert np.abs(after.pixels.astype(int) - doubled(before.pixels)).max() <= (channels == 1 and bits == 16)  # luma's rounding


SWINIR = {
    "type": "SwinIR",
    "upscale": 2,
    "img_size": 16,
    "window_size": 8,
    "depths": [2],
    "embed_dim": 8,
    "num_heads": [2],
    "upsampler": "pixelshuffledirect",
}


@pytest.mark.parametrize("size", [(61, 45), (50, 50), (41, 39), (7, 3)])
@pytest.mark.parametrize("tile", [0, 61, 256])
def test_whole_pictures_are_not_cut(size, tile):
    torch.manual_seed(0)
    upscaler = Upscaler(build_network(SWINIR), tile=0)
    before = Picture(picture(61)[: size[0], : size[1]])
    whole = upscaler.picture(before).pixels
    upscaler.tile = tile
    (band,) = upscale_bands(upscaler, [before])
    assert np.array_equal(band[0].pixels, whole)


@pytest.mark.parametrize("options", [RRDB, SWINIR], ids=lambda o: o["type"])
def test_bands_are_what_the_upscaler_gives_at_once(options):
    torch.manual_seed(0)
    upscaler = Upscaler(build_network(options), tile=0, overlap=24)
    before = Picture(picture(61)[:, :45], picture(61, 1)[:, :45, 0])
    whole = upscaler.picture(before)
    upscaler.tile = 18
    parts = [band[0] for band in upscale_bands(upscaler, [before])]
    assert len(parts) >= 3
    tiled = join_bands((122, 90), iter(parts))
    assert np.abs(tiled.pixels.astype(int) - whole.pixels).max() <= 1
    assert np.abs(tiled.alpha.astype(int) - whole.alpha).max() <= 1


def test_a_gray_network_takes_colour_as_the_upscaler_does():
    net = build_network({**RRDB, "scale": 4, "num_in_ch": 1, "num_out_ch": 1})
    upscaler = Upscaler(net, tile=0, overlap=24)
    for before in (Picture(picture(40)), Picture(picture(40)[..., :1])):
        whole = upscaler.picture(before).pixels
        upscaler.tile = 16
        tiled = join_bands((160, 160), (band[0] for band in upscale_bands(upscaler, [before]))).pixels
        upscaler.tile = 0
        assert tiled.shape == whole.shape and np.abs(tiled.astype(int) - whole).max() <= 1


def test_alpha_stays_opaque_and_has_no_seams():
    alpha = np.full((40, 16), 255, np.uint8)
    alpha[:10] = 0
    upscaler = Upscaler(Enlarge(), tile=8, overlap=0)
    before = Picture(made(40, 16).pixels, alpha)
    tiled = join_bands((80, 32), (band[0] for band in upscale_bands(upscaler, [before]))).alpha
    upscaler.tile = 0
    whole = join_bands((80, 32), (band[0] for band in upscale_bands(upscaler, [before]))).alpha
    assert np.array_equal(tiled, whole) and (tiled[26:] == 255).all() and (tiled[:14] == 0).all()


def test_tiles_are_halved_where_memory_is_short_and_only_if_asked():
    told = []
    net = SmallMemory(80 * 80)
    upscaler = Upscaler(net, tile=256, overlap=4)
    before = made(300, 200)
    after = join_bands((600, 400), (band[0] for band in upscale_bands(upscaler, [before], told.append)))
    assert np.array_equal(after.pixels, doubled(before.pixels))
    assert upscaler.tile == 64 and len(told) == 2 and "going on with 64" in told[-1]
    list(upscale_bands(upscaler, [before], told.append))
    assert len(told) == 2  # what was learnt is kept
    with pytest.raises(UserError, match="too much for the GPU's memory; use a .smaller. (--)?tile"):
        list(upscale_bands(Upscaler(SmallMemory(50), tile=32), [before]))
    with pytest.raises(UserError, match="too much"):
        list(upscale_bands(Upscaler(SmallMemory(300), tile=32), [before], told.append))
    assert parse_tile("auto", "cuda:1") == (1024, True) and parse_tile(" 96", "cpu") == (96, False)
    for text in ("-1", "many", "1.5"):
        with pytest.raises(UsageError, match="--tile"):
            parse_tile(text, "cpu")


class SmallBatches(Enlarge):
    """Has memory for `most` images or tiles together."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error = most, error

    def forward(self, x):
        if len(x) > self.most:
            raise self.error
        return super().forward(x)


SHORTAGES = (
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    MemoryError(),
)


@pytest.mark.parametrize("error", SHORTAGES, ids=["gpu", "cpu", "numpy"])
def test_batches_are_halved_before_tiles(tmp_path, error):
    images(tmp_path / "in", *(f"{k}.png" for k in range(7)))
    told = []
    net = SmallBatches(2, error)
    assert infer(net, [tmp_path / "in"], tmp_path / "out", told.append, tile=256, batch=8, auto=True).done == 7
    assert told == [f"the memory does not suffice for batches of {k}; going on with {k // 2}" for k in (7, 3)]
    with pytest.raises(UserError, match=r"7 of 7 images could not(.|\n)*use a smaller --tile, --overlap or --batch"):
        infer(net, [tmp_path / "in"], tmp_path / "other", tile=256, batch=8)


@pytest.mark.parametrize("error", SHORTAGES, ids=["gpu", "cpu", "numpy"])
def test_a_memory_that_does_not_suffice_for_one_image_is_its_failure(tmp_path, error):
    images(tmp_path / "in", "a.png", "c.png")
    images(tmp_path / "in", "b.png", size=40)

    class Short(Enlarge):
        def forward(self, x):
            if x.shape[2] > 20:
                raise error
            return super().forward(x)

    with pytest.raises(UserError, match=r"^1 of 3 images could not be upscaled:\n.*b.png: 40x40 pixels are too much .* smaller --tile"):
        infer(Short(), [tmp_path / "in"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png"]


def test_the_tile_is_halved_with_a_budget_too(tmp_path):
    net = inject(build_network(RRDB), LoraOptions(rank=1), "RRDBNet")
    forward = net.forward

    def short(x):
        if x.shape[2] > 80:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(x)

    net.forward = short
    images(tmp_path / "in", "a.png", size=100)
    told = []
    plan = plan_folder([tmp_path / "in"], Naming(tmp_path / "out"), parse_dial("auto", "psnr:5"), auto=True)
    assert upscale_folder(Upscaler(net, tile=256, overlap=4), plan, told.append, quiet=True).done == 1
    assert "tiles of 100 pixels; going on with 64" in told[0]


# ---------------------------------------------------------------- folders


def test_pictures_keep_their_kind_and_place(tmp_path):
    before = {
        "rgb.png": made(9, 7),
        "gray.png": made(9, 7, 1),
        "deep/rgb.png": made(9, 7, 3, 16),
        "deep/clear.png": made(9, 7, 3, 8, alpha=True),
    }
    for name, one in before.items():
        write_picture(tmp_path / "in" / name, one)
    assert infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", tile=4, recursive=True).done == 4
    for name, one in before.items():
        after = read_picture(tmp_path / "out" / name)
        assert np.array_equal(after.pixels, doubled(one.pixels)) and (after.alpha is None) == (one.alpha is None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["deep", "gray.png", "infer.jsonl", "rgb.png"]


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "tif"])
def test_formats(tmp_path, format):
    smooth = np.add.outer(np.arange(24), np.arange(24)).astype(np.uint8)[..., None].repeat(3, 2)
    write_png(tmp_path / "in" / "a.png", smooth)
    infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", format=format, suffix="_x2", quality=100)
    after = read_picture(tmp_path / "out" / f"a_x2.{format}").pixels
    assert np.abs(after.astype(int) - doubled(smooth)).max() <= (0 if format in ("png", "tif") else 3)


def test_images_of_one_size_go_together(tmp_path):
    images(tmp_path / "in", "a.png", "b.png", "c.png", "d.png", "e.png")
    images(tmp_path / "in", "f.png", "g.png", size=20)
    net = Enlarge()
    infer(net, [tmp_path / "in"], tmp_path / "out", batch=3, tile=16)
    assert net.shapes == [(3, 3, 12, 12), (2, 3, 12, 12), *[(2, 3, 20, 20)] * 4]  # of a picture with tiles, those of one band
    for seed, name in enumerate("abcde"):
        assert np.array_equal(read_image(tmp_path / "out" / f"{name}.png"), doubled(picture(12, seed)))


def test_what_cannot_be_done_is_named_and_the_others_are_done(tmp_path):
    images(tmp_path / "in", "a.png", "c.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    write_picture(tmp_path / "in" / "clear.png", made(8, 8, alpha=True))
    with pytest.raises(UserError) as refusal:
        infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", format="jpg", batch=4)
    said = str(refusal.value)
    assert said.startswith("2 of 4 images could not be upscaled:") and "b.png: unreadable" in said and "clear.jpg" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "c.jpg", "infer.jsonl"]


def test_a_rerun_does_what_is_missing_or_has_changed(tmp_path):
    images(tmp_path / "in", "a.png", "b.png", "c.png")
    net, said = Enlarge(), []
    run = lambda **options: infer(net, [tmp_path / "in"], tmp_path / "out", said.append, **options)  # noqa: E731
    assert run().done == 3
    (tmp_path / "out" / "b.png").unlink()
    assert run().done == 1 and len(net.shapes) == 1 and "2 of 3 images are done already" in said[-1]
    assert run().done == 0 and not net.shapes
    time.sleep(0.01)
    write_png(tmp_path / "in" / "c.png", picture(12, 9))
    assert run().done == 1 and np.array_equal(read_image(tmp_path / "out" / "c.png"), doubled(picture(12, 9)))
    assert run(fresh=True).done == 3
    assert run(batch=2).done == 0  # batches make no difference that one sees
    with pytest.raises(UserError, match=r"a.png: was made otherwise \(tile 0 -> 8\)"):
        run(tile=8)


def test_results_of_other_settings_are_not_taken_for_these(tmp_path):
    images(tmp_path / "in", "a.png", "b.png")
    nets = [build_network(RRDB) for _ in range(2)]

    def run(k, **options):
        upscaler = Upscaler(nets[k], precision=options.pop("precision", "no"))
        return upscale_folder(upscaler, plan_folder([tmp_path / "in"], Naming(tmp_path / "out", "webp"), **options), quiet=True).done

    assert run(0) == 2
    before = (tmp_path / "out" / "a.webp").read_bytes()
    for k, options, words in (
        (1, {}, "weights [0-9a-f]+ -> [0-9a-f]+"),
        (0, {"precision": "bf16"}, "no -> bf16"),
        (0, {"quality": 7}, "95 -> 7"),
    ):
        with pytest.raises(UserError, match=rf"made otherwise \(.*{words}.*--fresh"):
            run(k, **options)
    assert (tmp_path / "out" / "a.webp").read_bytes() == before
    assert run(1, fresh=True) == 2 and (tmp_path / "out" / "a.webp").read_bytes() != before
    assert run(1) == 0


def test_a_fresh_start_that_is_cut_short_does_not_keep_old_results(tmp_path):
    images(tmp_path / "in", "a.png", "b.png")
    infer(Enlarge(), [tmp_path / "in"], tmp_path / "out")
    time.sleep(0.01)

    class Stops(Enlarge):
        def forward(self, x):
            if len(self.shapes) == 1:
                raise KeyboardInterrupt
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        infer(Stops(), [tmp_path / "in"], tmp_path / "out", fresh=True)
    assert infer(Enlarge(), [tmp_path / "in"], tmp_path / "out").done == 1


def test_files_of_others_are_not_taken_for_results_nor_replaced(tmp_path):
    images(tmp_path, "in/a.png", "out/a.png")
    before = (tmp_path / "out" / "a.png").read_bytes()
    for fresh in (False, True):
        with pytest.raises(UserError, match="out/a.png: is there already, and infer.jsonl does not list it"):
            infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", fresh=fresh)
    images(tmp_path, "in/b.png")
    infer(Enlarge(), [tmp_path / "in" / "b.png"], tmp_path / "out")
    with pytest.raises(UserError, match="out/a.png: is there already"):  # in a folder of results, too
        infer(Enlarge(), [tmp_path / "in"], tmp_path / "out")
    assert (tmp_path / "out" / "a.png").read_bytes() == before


# ---------------------------------------------------------------- memory


def peak_bytes(work):
    """Most memory of NumPy's arrays (OpenCV's too) and Python's bytes during a call, beyond what there was."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_memory_grows_neither_with_height_nor_with_the_output(tmp_path, suffix, alpha):
    net = Enlarge()
    upscaler = Upscaler(net, tile=32, overlap=4)
    upscaler.magnification  # noqa: B018

    def peak(height):
        before = made(height, 200, alpha=alpha)
        bands = (band[0] for band in upscale_bands(upscaler, [before]))
        return peak_bytes(lambda: write_bands(tmp_path / f"a{suffix}", (2 * height, 400), bands))

    peak(64)
    low, high = peak(500), peak(2000)
    assert high <= 1.2 * low + 2**16  # the output alone grows by 2.4 MB
    assert max(np.prod(shape) for shape in net.shapes) <= 3 * 40 * 40


def test_reading_holds_the_file_and_its_pixels_once(tmp_path):
    before = made(1500, 1000, 3, 16)
    write_picture(tmp_path / "a.png", before)
    read_picture(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    assert peak_bytes(lambda: read_picture(tmp_path / "a.png")) <= size + 1.1 * before.pixels.nbytes


# ---------------------------------------------------------------- the command


@pytest.fixture
def sr_iqa(tmp_path, monkeypatch):
    """Runs the command line in tmp_path: (exit code, stdout, stderr)."""
    import contextlib
    import io

    from sr_iqa.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sr-iqa", *map(str, arguments)])
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
        return code, out.getvalue(), err.getvalue()

    torch.manual_seed(0)
    net = build_network(RRDB)
    save_weights(tmp_path / "net.safetensors", net.state_dict(), {"network_g": json.dumps(RRDB)})
    inject(net, LoraOptions(rank=2), "RRDBNet")
    for parameter in trainable_parameters(net):
        nn.init.normal_(parameter, std=0.1)
    save_adapter(net, tmp_path / "adapter")
    images(tmp_path / "in", "a.png", "b.png", size=24)
    return run


def test_the_command_and_its_exit_codes(sr_iqa, tmp_path):
    basics = ("infer", "-m", "net.safetensors", "-i", "in", "-o", "out")
    code, out, err = sr_iqa(*basics, "--device", "cpu")
    assert code == 0 and "2 images written to out" in out, err
    assert read_image(tmp_path / "out" / "a.png").shape == (48, 48, 3)
    assert sr_iqa(*basics)[1].startswith("0 images written")
    code, _, err = sr_iqa(*basics, "--precision", "bf16")
    assert code == 1 and "precision no -> bf16" in err
    for options, words in (
        (("--tile", "x"), "--tile x"),
        (("--precision", "fp16", "--device", "cpu"), "fp16 needs a CUDA GPU"),
        (("--precision", "fp8"), "no precision 'fp8'"),
        (("--format", "bmp"), "--format bmp"),
        (("--quality", "0"), "quality"),
        (("--scale", "much"), "--scale much"),
        (("--scale", "auto"), "budget"),
        (("--scale", "0.5"), "give one with --adapter"),
        (("--scale", "0.1234567,0.12345671"), "0.123457 is there twice"),
        (("--max-pixels", "nan"), "--max-pixels nan: goes from 1"),
        (("--max-pixels", "inf"), "--max-pixels inf: goes from 1"),
        (("--max-pixels", "0.5"), "--max-pixels 0.5: goes from 1"),
        (("-i", ""), "--input is empty"),
        (("-o", ""), "--output is empty"),
    ):
        code, _, err = sr_iqa(*basics[:-1], "new", *options)
        assert code == 2 and words in err and "Traceback" not in err, (options, code, err)
    assert not (tmp_path / "new").exists()
    (tmp_path / "in" / "bad.png").write_bytes(b"junk")
    code, _, err = sr_iqa(*basics)
    assert code == 1 and "1 of 3 images" in err and "bad.png" in err and "Traceback" not in err
    code, _, err = sr_iqa("infer", "-m", "net.safetensors", "-i", "in/*.gif", "-o", "new")
    assert code == 1 and "no images there" in err


def test_bf16_stays_near_float32(sr_iqa, tmp_path):
    for precision in ("no", "bf16"):
        assert (
            sr_iqa("infer", "-m", "net.safetensors", "-i", "in/a.png", "-o", precision, "--precision", precision, "--device", "cpu")[0] == 0
        )
    exact, rounded = (read_image(tmp_path / precision / "a.png").astype(int) for precision in ("no", "bf16"))
    assert 0 < np.abs(exact - rounded).max() <= 8


def test_several_scales_and_a_budget(sr_iqa, tmp_path):
    basics = ("infer", "-m", "net.safetensors", "--adapter", "adapter", "-i", "in", "--device", "cpu")
    code, _, err = sr_iqa(*basics, "-o", "scales", "--scale", "0,0.5,1", "--compare")
    assert code == 0, err
    names = [f"{stem}_s{scale}.png" for stem in "ab" for scale in ("0", "0.5", "1")]
    assert sorted(path.name for path in (tmp_path / "scales").glob("*.png")) == sorted(names)
    assert len({(tmp_path / "scales" / name).read_bytes() for name in names}) == 6
    page = (tmp_path / "scales" / "compare.html").read_text()
    assert all(name in page for name in names)
    sr_iqa("infer", "-m", "net.safetensors", "-i", "in", "-o", "base", "--device", "cpu")
    assert np.array_equal(read_image(tmp_path / "base" / "a.png"), read_image(tmp_path / "scales" / "a_s0.png"))
    code, _, err = sr_iqa(*basics, "-o", "chosen", "--scale", "auto", "--budget", "psnr:80")
    assert code == 0 and err.count("adapter scale 0.") == 2, err
    chosen, base = (read_image(tmp_path / folder / "a.png").astype(float) for folder in ("chosen", "base"))
    assert 10 * np.log10(255**2 / np.mean((chosen - base) ** 2)) >= 80


def test_adapters_act_together_by_their_weights(sr_iqa, tmp_path):
    basics = ("infer", "-m", "net.safetensors", "-i", "in/a.png", "--device", "cpu")
    one = ("--adapter", "adapter")
    assert sr_iqa(*basics, "-o", "full", *one)[0] == 0
    assert sr_iqa(*basics, "-o", "halves", *one, *one, "--weight", "0.5", "--weight", "0.5")[0] == 0
    full, halves = (read_image(tmp_path / folder / "a.png").astype(int) for folder in ("full", "halves"))
    assert np.abs(full - halves).max() <= 1
    code, _, err = sr_iqa(*basics, "-o", "halves", *one, *one, "--weight", "0.5", "--weight", "0.25")
    assert code == 1 and "adapter weights 0.5,0.5 -> 0.5,0.25" in err
    code, _, err = sr_iqa(*basics, "-o", "x", *one, "--weight", "1", "--weight", "1")
    assert code == 2 and "--weight: 1 adapter, but 2 numbers" in err
    code, _, err = sr_iqa(*basics, "-o", "x", "--weight", "0.5")
    assert code == 2 and "--weight is for adapters, and there is none" in err


def test_as_a_program(sr_iqa, tmp_path):
    """Nothing but the count on stdout, and no bar where there is no terminal."""
    command = [sys.executable, "-m", "sr_iqa", "infer", "-m", "net.safetensors", "-i", "in", "-o", "out", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 images written to out\n", "")


def test_small_images_come_out_as_from_python_to_the_bit(sr_iqa, tmp_path):
    """Sides that are no multiples of the windows, whole by default and by --tile 0."""
    image = picture(50)[:, :41]
    write_png(tmp_path / "small.png", image)
    expected = load_upscaler(DEMO_BASE, device="cpu")(image)
    for tile in ("auto", "0", "56"):
        assert sr_iqa("infer", "-m", DEMO_BASE, "-i", "small.png", "-o", tile, "--tile", tile, "--device", "cpu")[0] == 0
        assert np.array_equal(read_image(tmp_path / tile / "small.png"), expected), tile


def test_a_scale_beyond_the_dial_is_warned_of_once(sr_iqa, tmp_path, caplog):
    basics = ("infer", "-m", "net.safetensors", "--adapter", "adapter", "-i", "in", "-o", "far", "--device", "cpu")
    assert sr_iqa(*basics, "--scale", "0,1.5")[0] == 0
    assert caplog.text.count("1.5 is outside [0, 1]") == 1


def test_several_dials_need_an_adapter():
    with pytest.raises(UsageError, match="no adapter"):
        Upscaler(Enlarge()).adapter_scale = 0.5
    assert Dial().scales == (1.0,)


def test_chosen_scales_are_remembered_and_an_image_too_small_for_the_metric_is_one_failure(tmp_path):
    """A second run does nothing, and its page still tells the scale of every image."""
    net = inject(build_network(RRDB), LoraOptions(rank=1), "RRDBNet")
    for parameter in trainable_parameters(net):
        torch.nn.init.normal_(parameter, std=0.05)
    write_png(tmp_path / "in" / "a.png", picture(48))
    write_png(tmp_path / "in" / "tiny.png", picture(2))
    upscaler = Upscaler(net)
    plan = plan_folder([tmp_path / "in"], Naming(tmp_path / "out"), parse_dial("auto", "ssim:0.99"), compare=True)
    lines = []
    for said in ([], lines):
        with pytest.raises(UserError, match=r"1 of 2 images could not be upscaled:\n.*tiny.png"):
            upscale_folder(upscaler, plan, say=said.append, quiet=True)
    assert lines[0] == "1 of 2 images are done already"
    assert "adapter scale" in (tmp_path / "out" / "compare.html").read_text()

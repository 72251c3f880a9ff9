import multiprocessing
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from sr_iqa.config.models import SamplingOptions, TrainDataOptions
from sr_iqa.data.packing import pack
from sr_iqa.data.sets import load_sets
from sr_iqa.data.sheet import sample_sheet
from sr_iqa.data.stream import ONLINE, PURPOSES, TrainStream, rng, train_loader
from sr_iqa.errors import UserError
from sr_iqa.sampling import build_strategy

from .helpers import make_sets, picture, save

SCALE = 4


def data_options(root, **more):
    defaults = {
        "type": "multi_gt",
        "dataroot_gt": root / "images",
        "dataroot_labels": root / "labels",
        "gt_size": 32,
        "batch_size_per_gpu": 2,
        "degradation": {"preset": "hggt"},
    }
    return TrainDataOptions.model_validate({**defaults, **more})


def make_stream(data, strategy="uniform_all", seed=7, scores=None, **more):
    reader, _ = load_sets(data)
    options = SamplingOptions(strategy=strategy, metric="nano", temperature=1.0 if strategy in ("sma", "smp") else None)
    return TrainStream(reader, data, SCALE, seed, build_strategy(options), scores, **more)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"), n=5, k=2, size=72)


@pytest.fixture(scope="module")
def stream(root):
    return make_stream(data_options(root))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_shapes_types_and_contents(stream):
    sample = stream[3]
    assert sample["lq"].shape == (3, 8, 8) and sample["lq"].dtype == torch.uint8
    assert sample["gts"].shape == (1, 3, 32, 32) and sample["gts"].dtype == torch.uint8
    assert int(sample["n"]) == 3 and 0 <= int(sample["member"]) <= 2 and set(sample) == {"lq", "gts", "standings", "member", "n"}
    plan = stream.plan(3)
    assert stream.set_index(3) == plan.index
    expected = stream.reader.image(plan.index, plan.member)[plan.y : plan.y + 32, plan.x : plan.x + 32]
    expected = expected[:, ::-1] if plan.hflip else expected
    expected = expected[::-1] if plan.vflip else expected
    expected = expected.transpose(1, 0, 2) if plan.transpose else expected
    assert np.array_equal(sample["gts"][0].permute(1, 2, 0).numpy(), expected)


def test_samples_depend_on_seed_and_n_only(root, stream):
    again = make_stream(data_options(root))
    order = [11, 3, 40, 3, 0]
    for n in order:  # whatever came before
        assert same(again[n], stream[n])
    other = make_stream(data_options(root), seed=8)
    assert sum(same(other[n], stream[n]) for n in range(20)) == 0


def test_an_epoch_is_a_permutation_keyed_by_its_number(stream):
    epochs = [[stream.plan(n).index for n in range(e * 5, e * 5 + 5)] for e in range(8)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def batches(stream, count, **arguments):
    return list(islice(train_loader(stream, **arguments), count))


def joined(parts):
    """The samples of some batches as one dict of tensors, ordered by n."""
    merged = {key: torch.cat([part[key] for part in parts]) for key in parts[0] if key != "open"}
    order = merged["n"].argsort()
    return {key: value[order] for key, value in merged.items()}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # three workers on a machine of two cores
@pytest.mark.parametrize("workers", [1, 3])
def test_worker_count_changes_nothing(stream, workers):
    alone = batches(stream, 6, batch_size=2)
    helped = batches(stream, 6, batch_size=2, workers=workers)
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def spawned_samples(stream, numbers, queue):
    queue.put([{key: value.numpy() for key, value in stream[n].items()} for n in numbers])


def test_a_spawned_process_with_a_store_makes_the_same_samples(root, tmp_path):
    data = data_options(root)
    pack(data, tmp_path / "x.lmdb")
    stored = make_stream(data_options(root, dataroot_gt=tmp_path / "x.lmdb"))
    here = [make_stream(data)[n] for n in range(6)]  # read from folders
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=spawned_samples, args=(stored, range(6), queue))
    process.start()
    there = queue.get(timeout=60)
    process.join()
    for a, b in zip(here, there, strict=True):
        assert all(np.array_equal(a[key].numpy(), b[key]) for key in a)


@pytest.mark.parametrize("world, batch, accum", [(2, 4, 1), (4, 2, 1), (1, 4, 2), (2, 2, 2)])
def test_every_layout_of_processes_and_accumulation_sees_the_same_global_batches(stream, world, batch, accum):
    whole = batches(stream, 3, batch_size=8)
    ranks = [batches(stream, 3 * accum, batch_size=batch, rank=r, world=world) for r in range(world)]
    for step in range(3):
        parts = [part for r in range(world) for part in ranks[r][step * accum : (step + 1) * accum]]
        assert same(joined(parts), joined([whole[step]]))


def test_resuming_continues_the_stream(stream):
    whole = batches(stream, 6, batch_size=2, workers=1)
    rest = batches(stream, 3, batch_size=2, start_n=6)
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_amo_gets_all_gts_of_the_same_crop(root, stream):
    online = make_stream(data_options(root), "amo")
    sample, reference = online[4], stream[4]
    assert sample["gts"].shape == (3, 3, 32, 32) and int(sample["member"]) == ONLINE
    assert torch.equal(sample["lq"], reference["lq"])
    assert torch.equal(sample["gts"][int(reference["member"])], reference["gts"][0])


def test_variants_share_crops_flips_and_noise(root):
    data = data_options(root)
    original, positive = make_stream(data, "original"), make_stream(data, "uniform_positive")
    for n in range(10):
        a, b = original[n], positive[n]
        assert torch.equal(a["lq"], b["lq"]) and int(a["member"]) == 0 and int(b["member"]) == 1
        assert not torch.equal(a["gts"], b["gts"])


def test_lq_belongs_to_the_originals_crop(root):
    """Bicubic LQ, enlarged again, is far closer to its own original crop than to other crops' originals."""
    plain = make_stream(data_options(root, degradation={"preset": "bicubic"}), "original")
    samples = [plain[n] for n in range(8)]
    lqs = torch.stack([s["lq"] for s in samples]).float()
    small = torch.nn.functional.interpolate(torch.stack([s["gts"][0] for s in samples]).float(), scale_factor=0.25, mode="area")
    distance = torch.cdist(lqs.flatten(1), small.flatten(1))
    assert (distance.argmin(1) == torch.arange(8)).all()
    assert float(distance.diagonal().max()) < 0.5 * float(distance[~torch.eye(8, dtype=bool)].min())


def test_given_lq_is_cropped_where_the_gt_is(tmp_path):
    root = make_sets(tmp_path, n=3, k=1, size=72)
    rows, columns = np.mgrid[:72, :72]
    for i in range(3):
        name = f"{i:04d}-{16 * i}-8"
        save(root / "images" / "original" / f"{name}.png", np.dstack([rows, columns, rows * 0 + i]).astype(np.uint8))
        save(root / "lq" / f"{name}.png", np.dstack([rows[::4, ::4], columns[::4, ::4], rows[::4, ::4] * 0 + i]).astype(np.uint8))
    given = make_stream(data_options(root, dataroot_lq=root / "lq", degradation=None), "original")
    for n in range(12):
        sample = given[n]
        lq, gt = sample["lq"].int(), sample["gts"][0].int()
        offset = gt.reshape(3, 8, 4, 8, 4).amin((2, 4)) - lq
        assert (offset == 0).all()
    pack(data_options(root, dataroot_lq=root / "lq"), tmp_path / "y.lmdb")
    stored = make_stream(data_options(root, dataroot_gt=tmp_path / "y.lmdb", degradation=None), "original")
    assert all(same(stored[n], given[n]) for n in range(4))
    with pytest.raises(UserError, match="holds LQs"):
        make_stream(data_options(root, dataroot_gt=tmp_path / "y.lmdb"), "original")


def test_plain_folders_work(tmp_path):
    for i in range(3):
        save(tmp_path / "gt" / f"{i}.png", picture(50 + i, i))
    single = make_stream(data_options(tmp_path, type="single_gt", dataroot_gt=tmp_path / "gt", dataroot_labels=None))
    assert [int(single[n]["member"]) for n in range(6)] == [0] * 6
    assert {single.plan(n).y for n in range(40)} == {0, 4, 8, 12, 16, 20}  # multiples of the scale, up to the edge


def test_negatives_for_the_pos_neg_loss(tmp_path):
    root = make_sets(tmp_path, n=2, k=3, size=40, labels=[["Positive", "Negative", "Negative"], ["Positive", "Similar", "Positive"]])
    stream = make_stream(data_options(root), "uniform_positive", needs_negative=True)
    plain = make_stream(data_options(root), "uniform_positive")
    seen = set()
    for n in range(30):
        plan, sample = stream.plan(n), stream[n]
        assert {key: sample[key] for key in ("lq", "gts")}.keys() and torch.equal(sample["gts"], plain[n]["gts"])
        if plan.index == 0:
            seen.add(plan.negative)
            gt_set = stream.reader.sets[plan.index]
            assert sample["agreements"].tolist() == [1.0, *(gt_set.agreement(k) for k in range(1, len(gt_set.paths)))]
            assert float(sample["agreement"]) == 1 and not torch.equal(sample["negative"], sample["original"])
        else:
            assert plan.negative is None and float(sample["agreement"]) == 0 and torch.equal(sample["negative"], sample["original"])
    assert seen == {2, 3}


def test_sets_without_positives_are_dropped_only_where_labels_count(tmp_path):
    words = [["Positive", "Similar"], ["Similar", "Negative"], ["Negative", "Positive"]]
    data = data_options(make_sets(tmp_path, n=3, k=2, size=40, labels=words))
    labelled = make_stream(data, "uniform_positive")
    assert (len(labelled), labelled.dropped, labelled.indices) == (2, 1, [0, 2])
    assert {labelled.plan(n).index for n in range(10)} == {0, 2}
    assert (len(make_stream(data, "uniform_all")), make_stream(data, "uniform_all").dropped) == (3, 0)
    unlabelled = data_options(tmp_path, dataroot_labels=None)
    with pytest.raises(UserError, match="none of 3 sets has a positive"):
        make_stream(unlabelled, "smp", scores=np.zeros((3, 3)))


def test_members_are_drawn_with_the_strategys_probabilities(root):
    scores = np.tile([0.0, np.log(2), np.log(5)], (5, 1))
    stream = make_stream(data_options(root), "sma", scores=scores)
    counts = np.bincount([stream.plan(n).member for n in range(4000)], minlength=3)
    assert chisquare(counts, 4000 * np.array([1, 2, 5]) / 8).pvalue > 1e-3


def test_nan_scores_name_the_image(root):
    scores = np.zeros((5, 3))
    scores[2, 1] = np.nan
    with pytest.raises(UserError, match=r"01/0002-32-8_01\.png: its score is nan"):
        make_stream(data_options(root), "sma", scores=scores)
    with pytest.raises(UserError, match="sr-iqa data score"):
        make_stream(data_options(root), "sma")


def test_wrong_sizes_stop_at_the_start(root, tmp_path):
    with pytest.raises(UserError, match=r"0000-0-8\.png: is 72x72, smaller than the crop"):
        make_stream(data_options(root, gt_size=76))
    with pytest.raises(UserError, match="no multiple of the scale"):
        make_stream(data_options(root, gt_size=30))
    small = make_sets(tmp_path, n=1, k=0, size=64)
    save(small / "lq" / "0000-0-8.png", picture(32))
    with pytest.raises(UserError, match="at scale 4 a GT of 64x64 needs 16x16"):
        make_stream(data_options(small, dataroot_lq=small / "lq", degradation=None))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_goes_bad_later_is_named_without_a_traceback(tmp_path, workers):
    root = make_sets(tmp_path, n=2, k=0, size=40)
    stream = make_stream(data_options(root))
    bad = next((root / "images" / "original").iterdir())
    bad.write_bytes(bad.read_bytes()[:-40])
    with pytest.raises(UserError) as error:
        batches(stream, 2, batch_size=2, workers=workers)
    assert bad.name in str(error.value) and "Traceback" not in str(error.value)


def test_purposes_have_independent_generators():
    draws = {(purpose, n): rng(1, purpose, n).random() for purpose in PURPOSES for n in (0, 1, 2**40)}
    assert len(set(draws.values())) == len(draws)
    assert rng(1, "crop", 5).random() == rng(1, "crop", 5).random()


def test_flips_can_be_switched_off_without_moving_other_draws(root, stream):
    still = make_stream(data_options(root, use_hflip=False, use_rot=False))
    for n in range(10):
        a, b = still.plan(n), stream.plan(n)
        assert not (a.hflip or a.vflip or a.transpose) and (a.y, a.x, a.member, a.degradation) == (b.y, b.x, b.member, b.degradation)
    assert all({getattr(stream.plan(n), name) for n in range(40)} == {True, False} for name in ("hflip", "vflip", "transpose"))


def test_describe_says_what_was_drawn(stream):
    described = stream.describe(12)
    plan = stream.plan(12)
    assert described["epoch"] == 2 and described["set"] == stream.reader.sets[plan.index].name
    assert f"JPEG {plan.degradation.first.jpeg}" in described["first stage"] and plan.degradation.final_mode in described["final"]
    assert described["member"] == plan.member and described["probabilities"] == [0.3333] * 3


@pytest.mark.parametrize("strategy", ["uniform_all", "amo"])
def test_the_sheet_shows_the_sample(root, strategy):
    stream = make_stream(data_options(root), strategy)
    sheet = sample_sheet(stream, 6)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    side = 7 * 32  # enlarged seven times, beside a gap of 8
    tiles = [sheet[:side, k * (side + 8) :][:, :side] for k in range(4)]
    sample = make_stream(data_options(root), "amo")[6]
    assert np.array_equal(tiles[0][::28, ::28], sample["lq"].permute(1, 2, 0).numpy())
    for tile, gt in zip(tiles[1:], sample["gts"], strict=True):
        assert np.array_equal(tile[::7, ::7], gt.permute(1, 2, 0).numpy())
    assert (sheet[side:] < 128).any()  # captions


HOLD_AND_EXIT = """
import os, signal, sys, time
from multiprocessing import active_children
from pathlib import Path
from sr_iqa.data.stream import train_loader
from tests.test_stream import data_options, make_stream

batches = train_loader(make_stream(data_options(Path(sys.argv[1]))), batch_size=2, workers=1)
next(batches)
workers = active_children()
assert len(workers) == 1
if os.fork() == 0:  # a stranger signals the worker, as a batch system signals all processes of a job
    os.kill(workers[0].pid, signal.SIGTERM)
    os.kill(workers[0].pid, signal.SIGINT)
    os._exit(0)
os.wait()
time.sleep(0.3)
for _ in range(5):
    next(batches)
print("alive", flush=True)
"""


def test_workers_outlive_signals_to_the_group_and_leave_with_their_parent(root):
    """The script ends with a live iterator: the interpreter must not wait for workers that ignore its request to leave."""
    done = subprocess.run([sys.executable, "-c", HOLD_AND_EXIT, str(root)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr

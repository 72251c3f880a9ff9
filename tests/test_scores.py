import os

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import nn

from sr_iqa.config.models import DataOptions
from sr_iqa.data.sets import load_sets
from sr_iqa.errors import UserError
from sr_iqa.images import read_image
from sr_iqa.iqa import scores
from sr_iqa.iqa.catalog import MetricInfo
from sr_iqa.iqa.metrics import Metric
from sr_iqa.iqa.scores import read_scores, score_data, score_files, score_sets

from .helpers import make_sets


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))


class Nothing(nn.Module):
    """NaN for the brightest image of a batch."""

    def forward(self, x):
        means = x.mean((1, 2, 3))
        return torch.where(means == means.max(), torch.nan, means)


def metric(name="mean", net=None, lower_better=False, identity="mean 1"):
    return Metric(MetricInfo(name, "NR", lower_better, (0, 1)), net or Mean(), identity)


class Counting:
    """A reader that counts what is read, and can break off."""

    def __init__(self, reader, sets_before_failure=None):
        self.reader, self.sets, self.left, self.read = reader, reader.sets, sets_before_failure, []

    def size(self, i, member=0):
        return self.reader.size(i, member)

    def image(self, i, member=0):
        if self.left is not None and len({j for j, _ in self.read}) == self.left and member == 0:
            raise KeyboardInterrupt
        self.read.append((i, member))
        return self.reader.image(i, member)


@pytest.fixture
def reader(tmp_path):
    make_sets(tmp_path, n=4, k=2, size=32)
    images, labels = tmp_path / "images", tmp_path / "labels"
    return load_sets(DataOptions(type="multi_gt", dataroot_gt=images, dataroot_labels=labels))[0]


@pytest.fixture
def table(tmp_path):
    return tmp_path / "scores" / "mean.parquet"


def means(reader):
    return np.array([[read_image(path).mean() / 255 for path in gt_set.paths] for gt_set in reader.sets])


def test_table_and_array_hold_every_gt(reader, table):
    score_sets(reader, metric(), table)
    rows = parquet.read_table(table).to_pylist()
    assert list(rows[0]) == ["set", "member", "score", "native", "metric", "identity"]
    assert [(r["set"], r["member"]) for r in rows] == [(s.name, m) for s in reader.sets for m in range(3)]
    np.testing.assert_allclose(read_scores(table, reader.sets, "mean"), means(reader), atol=1e-6)
    assert not table.with_name("mean.parquet.parts").exists()


def test_lower_is_better_is_stored_negated_beside_the_native_value(reader, table):
    score_sets(reader, metric(lower_better=True), table)
    row = parquet.read_table(table).to_pylist()[0]
    assert row["native"] > 0 and row["score"] == -row["native"]
    np.testing.assert_allclose(read_scores(table, reader.sets, "mean"), -means(reader), atol=1e-6)


def test_any_order_and_part_of_the_sets_can_be_read(reader, table):
    score_sets(reader, metric(), table)
    np.testing.assert_allclose(read_scores(table, reader.sets[::-2], "mean"), means(reader)[::-2], atol=1e-6)


def test_small_batches_give_the_same(reader, table, tmp_path):
    score_sets(reader, metric(), table)
    score_sets(reader, metric(), tmp_path / "one.parquet", batch_px=1)
    assert parquet.read_table(table).equals(parquet.read_table(tmp_path / "one.parquet"))


# ---------------------------------------------------------------- resuming


def test_an_interrupted_run_goes_on_where_it_was(reader, table):
    broken = Counting(reader, sets_before_failure=2)
    with pytest.raises(KeyboardInterrupt):
        score_sets(broken, metric(), table)
    assert not table.exists()
    rest = Counting(reader)
    score_sets(rest, metric(), table)
    assert {i for i, _ in rest.read} == {2, 3}
    np.testing.assert_allclose(read_scores(table, reader.sets, "mean"), means(reader), atol=1e-6)


def test_one_set_per_core_or_one_after_the_other(reader, tmp_path, monkeypatch):
    data = DataOptions(type="multi_gt", dataroot_gt=reader.sets[0].paths[0].parents[1])
    score_data(data, "nano", tmp_path / "together.parquet")
    monkeypatch.setattr(scores, "apart", lambda judges: False)
    score_data(data, "nano", tmp_path / "alone.parquet")
    found = [read_scores(tmp_path / f"{name}.parquet", reader.sets, "nano") for name in ("together", "alone")]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_parts_are_written_on_the_way(reader, table, monkeypatch):
    monkeypatch.setattr(scores, "SAVE_EVERY_S", -1.0)
    parts = table.with_name("mean.parquet.parts")
    seen = []

    class Watching(Mean):
        def forward(self, x):
            seen.append(len(list(parts.glob("*.parquet"))))
            return super().forward(x)

    score_sets(reader, metric(net=Watching()), table)
    assert seen == [0, 1, 2, 3]


def test_a_finished_table_is_left_and_only_new_sets_are_scored(reader, table):
    score_sets(reader, metric(), table)
    again = Counting(reader)
    score_sets(again, metric(), table)
    assert again.read == []
    rows = [row for row in parquet.read_table(table).to_pylist() if row["set"] != reader.sets[1].name]
    parquet.write_table(pa.Table.from_pylist(rows), table)
    score_sets(again, metric(), table)
    assert {i for i, _ in again.read} == {1}


def test_two_processes_share_the_sets(reader, table, monkeypatch):
    """Both processes' turns, one after the other; the main one comes last and joins."""
    monkeypatch.setattr(scores, "share", lambda n: range(1, n, 2))
    monkeypatch.setattr(scores, "is_main", lambda: False)
    other = Counting(reader)
    score_sets(other, metric(), table)
    assert {i for i, _ in other.read} == {1, 3} and not table.exists()
    monkeypatch.setattr(scores, "share", lambda n: range(0, n))
    monkeypatch.setattr(scores, "is_main", lambda: True)
    main = Counting(reader)
    score_sets(main, metric(), table)
    assert {i for i, _ in main.read} == {0, 2}
    np.testing.assert_allclose(read_scores(table, reader.sets, "mean"), means(reader), atol=1e-6)


def test_other_weights_are_not_mixed_in(reader, table):
    score_sets(reader, metric(identity="mean 1"), table)
    with pytest.raises(UserError, match="mean 1, not of mean 2; delete"):
        score_sets(reader, metric(identity="mean 2"), table)


# ---------------------------------------------------------------- errors


def test_a_score_that_is_no_number_names_the_image(reader, table):
    with pytest.raises(UserError, match=r"mean gives nan for .*images/.*\.png"):
        score_sets(reader, metric(net=Nothing()), table)


def test_nan_in_a_table_names_the_image(reader, table):
    score_sets(reader, metric(), table)
    rows = parquet.read_table(table).to_pylist()
    rows[4]["score"] = float("nan")  # EGT 01 of the second set
    parquet.write_table(pa.Table.from_pylist(rows), table)
    with pytest.raises(UserError, match=str(reader.sets[1].paths[1])):
        read_scores(table, reader.sets, "mean")


def test_scores_of_another_metric_are_refused(reader, table):
    score_sets(reader, metric(), table)
    with pytest.raises(UserError, match="holds scores of mean, but musiq is wanted"):
        read_scores(table, reader.sets, "musiq")


def test_missing_sets_are_listed(reader, table, tmp_path):
    score_sets(reader, metric(), table)
    make_sets(tmp_path / "more", n=10, k=2, size=32)
    more = load_sets(DataOptions(type="multi_gt", dataroot_gt=tmp_path / "more" / "images", dataroot_labels=tmp_path / "more" / "labels"))[
        1
    ]
    with pytest.raises(UserError, match=r"lacks 6 of 10 sets: 0004-64-8, .*0008-128-8, \.\.\."):
        read_scores(table, more, "mean")


@pytest.mark.parametrize("path", [None, "absent.parquet"])
def test_no_table_says_how_to_make_one(path, tmp_path):
    with pytest.raises(UserError, match="sr-iqa data score"):
        read_scores(path and tmp_path / path, [], "mean")


def test_a_damaged_table_is_said(reader, table):
    table.parent.mkdir()
    table.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="damaged"):
        read_scores(table, reader.sets, "mean")


def test_full_reference_metrics_cannot_score(reader, table):
    with pytest.raises(UserError, match="needs a reference"):
        score_sets(reader, Metric(MetricInfo("psnr", "FR", False, (0, 40)), Mean(), "psnr"), table)


# ---------------------------------------------------------------- by name


def test_score_data_and_files_agree(tmp_path):
    make_sets(tmp_path, n=2, k=1, size=96)
    data = DataOptions(type="multi_gt", dataroot_gt=tmp_path / "images", dataroot_labels=tmp_path / "labels")
    assert score_data(data, "niqe", tmp_path / "niqe.parquet") == 4
    sets = load_sets(data)[1]
    stored = read_scores(tmp_path / "niqe.parquet", sets, "niqe")
    originals = tmp_path / "images" / "original"
    found = dict(score_files([originals, sets[0].paths[1]], ["niqe", "entropy"]))
    assert [os.path.basename(p) for p in found] == [os.path.basename(p) for p in (sets[0].paths[0], sets[1].paths[0], sets[0].paths[1])]
    np.testing.assert_allclose([found[s.paths[0]][0] for s in sets], -stored[:, 0], rtol=1e-5)


def test_files_cannot_be_scored_against_nothing(tmp_path):
    with pytest.raises(UserError, match="needs a reference"):
        list(score_files([tmp_path], ["psnr"]))

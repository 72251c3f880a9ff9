"""A metric learns from pairs: the stream, the loop's promises, networks by name, the file that comes out."""

import json
import math
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from sr_iqa.config.document import OptionsError
from sr_iqa.config.metric_models import ManifestOptions, MetricOptions, load_metric_options
from sr_iqa.data.stream import train_loader
from sr_iqa.errors import UserError
from sr_iqa.iqa.catalog import MetricInfo
from sr_iqa.iqa.metrics import create_metric
from sr_iqa.iqa.trained import architecture_info, build_network, read_header
from sr_iqa.losses.preference import CrossEntropyLoss, FidelityLoss, MarginLoss
from sr_iqa.preferences.manifest import Manifest, Pair, write_manifest
from sr_iqa.training import metric_build, metric_trainer
from sr_iqa.training.metric_check import check_metric
from sr_iqa.training.metric_judge import Judge
from sr_iqa.training.metric_pairs import PairStream, Source, load_source, short_names, split
from sr_iqa.training.metric_trainer import train_metric
from tests.helpers import picture, save
from tests.tiny_runs import differences, merge, state

ADAM = {"type": "Adam", "lr": 1e-3}
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0", "--num_processes", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six scenes of which a sharp, a blurred and a more blurred image are compared; the sharp one is the reference."""
    folder = tmp_path_factory.mktemp("pairs")
    make_pairs(folder, scenes=6)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make_pairs(folder, scenes, size=64):
    pairs = []
    for i in range(scenes):
        sharp = picture(size, i)
        paths = [folder / f"{i}_{k}.png" for k in range(3)]
        for path, image in zip(paths, (sharp, cv2.GaussianBlur(sharp, (0, 0), 1), cv2.GaussianBlur(sharp, (0, 0), 3)), strict=True):
            save(path, image)
        for a, b, p_a in ((0, 1, 1.0), (2, 0, 0.0), (1, 2, 0.8)):
            pairs.append(Pair(paths[a], paths[b], p_a, ref=paths[0], group=f"g{i % 2}", content=str(i)))
    write_manifest(folder / "pairs.csv", Manifest(tuple(pairs), folder))
    return pairs


def plain(root, name, *changes):
    """Options of a run as a file would hold them."""
    options = {
        "name": name,
        "manual_seed": 3,
        "network": {"type": "nano", "start": "random"},
        "datasets": {
            "train": {"manifests": {"path": str(root / "pairs.csv")}, "crop_px": 32, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0}
        },
        "path": {"experiments_root": str(root / "runs")},
        "train": {"total_iter": 6, "optim": ADAM},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 3, "use_tb_logger": False},
    }
    for change in changes:
        options = merge(options, change)
    return options


def run(root, name, *changes, **arguments):
    """Trains quietly; returns the run's folder."""
    return train_metric(MetricOptions.model_validate(plain(root, name, *changes)), quiet=True, **arguments).parent


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def only_net(folder, step=6):
    return {key: value for key, value in state(folder, step).items() if key in ("net", "optim", "ema", "n", "step")}


# ---------------------------------------------------------------- losses


def test_fidelity_loss_is_the_papers_and_its_gradient_is_finite_however_wrong_the_metric_is():
    difference = torch.tensor([0.3, -1.2, 2.0, -60.0, 60.0], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([0.7, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    value = FidelityLoss()(difference, g)
    p = [0.5 * math.erfc(-d / 2) for d in difference.tolist()]  # Phi(d / sqrt 2)
    expected = [1 - math.sqrt(a * b) - math.sqrt((1 - a) * (1 - b)) for a, b in zip(p, g.tolist(), strict=True)]
    assert value.item() == pytest.approx(sum(expected) / 5, abs=1e-9)
    value.backward()
    gradient = difference.grad
    assert gradient is not None and torch.isfinite(gradient).all() and (gradient[[1, 2]].abs() > 0.01).all()


@pytest.mark.parametrize("loss", [FidelityLoss(0.7), CrossEntropyLoss(0.7), MarginLoss(0.7, 1.5)])
def test_gradients_are_those_of_the_values(loss):
    difference = torch.tensor([0.3, -1.2, 2.0, -4.0, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: loss(d, torch.tensor([0.7, 1.0, 0.0, 1.0, 0.4], dtype=torch.float64)), [difference])


@pytest.mark.parametrize(
    "network", ["lpips", "afine:fidelity:clip-tiny", "afine:fr:clip-tiny", pytest.param("dists", marks=pytest.mark.slow)]
)
def test_the_reference_itself_is_better_than_another_image(network):
    """Whatever the weights: distances are turned round, once."""
    judge, x = Judge(build_network(network), architecture_info(network)), torch.rand(2, 3, 64, 64)
    assert (judge(x, x) > judge(x.flip(0), x)).all() and judge.info.lower_better


def test_cross_entropy_and_margin():
    difference, g = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.25])
    p = torch.sigmoid(difference / 2)
    assert CrossEntropyLoss(unit=2)(difference, g).item() == pytest.approx((-g * p.log() - (1 - g) * (1 - p).log()).mean().item())
    # the first is right by more than the margin; the second is right by half of it, and people are half sure
    assert MarginLoss(margin=2)(difference, g).item() == pytest.approx((0 + 0.5 * 1) / 2)
    assert MarginLoss()(difference, torch.full((2,), 0.5)).item() == 0


# ---------------------------------------------------------------- the stream


def stream_of(root, weights=(None,), seed=1, **data):
    options = MetricOptions.model_validate(plain(root, "x", {"datasets": {"train": data}})).datasets.train
    pairs = load_source(options.manifests[0], "", False, None).pairs
    shared = [tuple(pairs[i] for i in part) for part in np.array_split(np.arange(len(pairs)), len(weights))]
    sources = [Source("", part, weight or len(part), "") for part, weight in zip(shared, weights, strict=True)]
    return PairStream(sources, options, seed, True)


def test_an_epoch_holds_every_pair_once_and_depends_on_seed_and_n_only(root):
    stream = stream_of(root)
    first, second = ([stream.plan(n) for n in range(18 * e, 18 * (e + 1))] for e in (0, 1))
    assert {plan.pair for plan in first} == {plan.pair for plan in second} == set(stream.sources[0].pairs)
    assert [plan.pair for plan in first] != [plan.pair for plan in second]
    assert [stream_of(root).plan(n) for n in (17, 3)] == [first[17], first[3]]
    assert [plan.pair for plan in first] != [stream_of(root, seed=2).plan(n).pair for n in range(18)]


def test_manifests_are_mixed_by_weight_and_gone_through_evenly(root):
    stream = stream_of(root, weights=(3.0, 1.0, 1e-9))
    plans = [stream.plan(n) for n in range(2 * len(stream))]
    counts = [sum(plan.pair in set(source.pairs) for plan in plans) for source in stream.sources]
    assert counts[0] / counts[1] == pytest.approx(3, rel=0.01) and counts[2] == 2, counts
    uses = [sum(plan.pair == pair for plan in plans) for pair in stream.sources[0].pairs]
    assert max(uses) - min(uses) <= 2, "one pair comes again long before all others have come once"


def test_manifests_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [tmp_path / "KADID10K" / "pairs.csv", tmp_path / "PIPAL" / "pairs.csv"]
    assert [*short_names(paths).values()] == ["KADID10K/pairs", "PIPAL/pairs"]
    assert [*short_names([paths[0], tmp_path / "val.csv", paths[0]]).values()] == ["pairs", "val"]
    assert len({*short_names([tmp_path / "a.csv", tmp_path / "a.parquet"]).values()}) == 2
    for path in paths:
        path.parent.mkdir()
        make_pairs(path.parent, 3)
    given = [{"path": str(path)} for path in paths]
    folder = run(tmp_path, "two", {"datasets": {"train": {"manifests": given}, "val": {"manifests": given}}, "train": {"total_iter": 1}})
    assert {"accuracy", "accuracy_KADID10K/pairs", "accuracy_PIPAL/pairs"} == lines(folder)[0]["val"].keys()
    assert len(read_header(folder / "metric.safetensors").model_extra["pairs"]) == 2


def test_images_of_a_pair_share_crop_and_flip(root):
    stream = stream_of(root)
    for n in range(6):
        sample, pair = stream[n], stream.plan(n).pair
        for image, path in (("a", pair.img_a), ("b", pair.img_b)):
            assert path != pair.ref or torch.equal(sample[image], sample["ref"])
        assert sample["a"].shape == (3, 32, 32) and sample["a"].dtype == torch.uint8
    assert stream_of(root, resize_px=40, crop_px=40)[0]["a"].shape == (3, 40, 40)


def test_loader_processes_change_nothing_and_hand_over_errors_in_words(root):
    stream = stream_of(root)
    here, workers = (list(islice(train_loader(stream, 4, accum=2, workers=count), 3)) for count in (0, 1))
    assert differences(here, workers) == [] and here[0]["a"].shape == (4, 3, 32, 32) and here[0]["p_a"].dtype == torch.float32
    assert torch.equal(here[1]["a"], torch.stack([stream[n]["a"] for n in range(4, 8)]))
    with pytest.raises(UserError, match=r"0_.\.png: is 64x64, smaller than the crop"):
        next(train_loader(stream_of(root, crop_px=96), 18, workers=1))


def test_held_out_scenes_stay_whole_and_do_not_depend_on_where_the_data_lies(tmp_path):
    def pairs(folder):
        named = [Pair(folder / f"{i}_a.png", folder / f"{i}_b.png", 1.0, content=str(i)) for i in range(200) for _ in range(2)]
        free = [Pair(folder / f"f{i % 60}.png", folder / f"f{(7 * i + 1) % 60}.png", 1.0) for i in range(300) if (6 * i + 1) % 60]
        return named, free

    named, free = pairs(tmp_path)
    kept, out = split(tmp_path, named, 0.25)
    assert len(kept) + len(out) == 400 and 60 < len(out) < 140
    assert not {pair.content for pair in kept} & {pair.content for pair in out}
    kept, out = split(tmp_path, free, 0.25)
    images = [{image for pair in part for image in (pair.img_a, pair.img_b)} for part in (kept, out)]
    assert out and not images[0] & images[1]
    elsewhere = split(tmp_path / "b", pairs(tmp_path / "b")[1], 0.25)[1]
    assert [pair.img_a.name for pair in elsewhere] == [pair.img_a.name for pair in out]


def test_a_manifest_that_names_a_root_holds_out_the_same_scenes_wherever_that_lies(tmp_path):
    held_out = []
    for place in ("here", "there"):
        data = tmp_path / place / "data"
        data.mkdir(parents=True)
        pairs = [Pair(data / f"{i}_a.png", data / f"{i}_b.png", 1.0) for i in range(60)]
        for pair in pairs:
            pair.img_a.touch(), pair.img_b.touch()
        path = tmp_path / place / "lists" / "pairs.csv"
        path.parent.mkdir()
        write_manifest(path, Manifest(tuple(pairs), data))
        assert path.read_text().startswith("# root:")
        source = load_source(ManifestOptions(path=path), "", False, None)
        held_out.append([pair.img_a.name for pair in split(source.root, source.pairs, 0.4)[1]])
    assert held_out[0] == held_out[1] != []


# ---------------------------------------------------------------- the loop


def test_a_metric_learns_and_its_file_is_a_metric(root):
    longer = {"train": {"total_iter": 40, "optim": {"lr": 3e-3}}, "datasets": {"train": {"holdout": 0.3}}, "val": {"val_freq": 20}}
    folder = run(root, "learns", longer, {"logger": {"print_freq": 10}})
    found = {line["step"]: line["val"]["accuracy"] for line in lines(folder) if "val" in line}
    assert list(found) == [0, 20, 40] and found[40] == 1.0, found
    losses = [line["l_pair"] for line in lines(folder) if "l_pair" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert not {"chosen", "standings"} & {key for line in lines(folder) for key in line}, "no GT is chosen here"
    metric = create_metric(str(folder / "metric.safetensors"))
    images = [torch.from_numpy(picture(64, 9)).permute(2, 0, 1)[None] / 255]
    images.append(torch.from_numpy(cv2.GaussianBlur(picture(64, 9), (0, 0), 3)).permute(2, 0, 1)[None] / 255)
    assert metric.signed(images[0]) > metric.signed(images[1])
    assert metric.mode == "NR" and not metric.lower_better


@pytest.mark.parametrize(
    "changes", [{}, {"train": {"ema_decay": 0.5, "accum_iter": 2, "grad_clip": 0.1, "optim": {"type": "SGD", "lr": 0.1}}}]
)
def test_six_steps_equal_three_and_three_to_the_bit(root, changes):
    whole = run(root, f"whole{len(changes)}", changes)
    run(root, f"parts{len(changes)}", changes, {"train": {"total_iter": 3}})
    parts = run(root, f"parts{len(changes)}", changes)
    assert differences(only_net(whole), only_net(parts)) == []
    assert [line["l_pair"] for line in lines(whole)] == [line["l_pair"] for line in lines(parts)]
    assert differences(only_net(whole)["net"], only_net(whole, 3)["net"]), "nothing has been learnt"


def test_two_micro_batches_are_one_batch(root):
    sgd = {"train": {"optim": {"type": "SGD", "lr": 0.1}}}
    one = run(root, "one batch", sgd)
    two = run(root, "two micro-batches", sgd, {"train": {"accum_iter": 2}, "datasets": {"train": {"batch_size_per_gpu": 2}}})
    losses = [[line["l_pair"] for line in lines(folder)] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len({*losses[0]}) == 6


def test_kill_9_and_rerun(root):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from sr_iqa.training import metric_trainer\n"
        "from tests.test_metric_trainer import run\n"
        "step = metric_trainer.metric_step\n"
        "def killing(run, *rest):\n"
        "    step(run, *rest)\n"
        "    if run.step == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "metric_trainer.metric_step = killing\n"
        "run(Path(sys.argv[1]), 'killed')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", script, str(root)], check=False, env=environment, cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    folder = run(root, "killed")
    assert differences(only_net(run(root, "undisturbed")), only_net(folder)) == []
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5, 6]


def test_a_signal_saves_and_exits(root, monkeypatch):
    step = metric_trainer.metric_step

    def signalling(run, *rest):
        step(run, *rest)
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(metric_trainer, "metric_step", signalling)
    with pytest.raises(SystemExit) as stopped:
        run(root, "signalled")
    assert stopped.value.code == 143
    assert state(root / "runs" / "signalled", 2)["n"] == 8
    monkeypatch.undo()
    assert differences(only_net(run(root, "signalled")), only_net(run(root, "not signalled"))) == []


@pytest.mark.slow
def test_two_processes_train_as_one(root):
    sgd = {"train": {"optim": {"type": "SGD", "lr": 0.1}, "total_iter": 4}, "datasets": {"train": {"holdout": 0.3}}}
    file = root / "two.yml"
    file.write_text(yaml.safe_dump(plain(root, "two", sgd, {"datasets": {"train": {"batch_size_per_gpu": 2}}})))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*LAUNCHER, "-m", "sr_iqa", "iqa", "train", "-opt", str(file)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    two, one = root / "runs" / "two", run(root, "one", sgd)
    assert json.loads((two / "versions.json").read_text())[-1]["processes"] == 2
    for a, b in zip(lines(two), lines(one), strict=True):
        assert a.get("val", {}) == pytest.approx(b.get("val", {})) and a.get("l_pair", 0) == pytest.approx(b.get("l_pair", 0), rel=1e-4)
    for name, value in state(one, 4)["net"].items():
        assert torch.allclose(value, state(two, 4)["net"][name], rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
def test_three_processes_resume_to_the_bit(root):
    """DistributedDataParallel sums in another order after its first step, from three processes on."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    network = {"network": {"type": "afine:natural:clip-tiny", "start": "random"}, "datasets": {"train": {"batch_size_per_gpu": 1}}}
    for name, total in (("three", 4), ("three parts", 2), ("three parts", 4)):
        file = root / "three.yml"
        file.write_text(yaml.safe_dump(plain(root, name, network, {"train": {"total_iter": total}})))
        command = [*LAUNCHER[:-1], "3", "-m", "sr_iqa", "iqa", "train", "-opt", str(file)]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
        assert finished.returncode == 0, finished.stdout + finished.stderr
    whole, parts = root / "runs" / "three", root / "runs" / "three parts"
    assert json.loads((whole / "versions.json").read_text())[-1]["processes"] == 3
    assert differences(only_net(whole, 4), only_net(parts, 4)) == []


def test_what_is_said_where_memory_runs_out_is_in_a_metrics_words(root, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    for name, word in (("metric_step", "crop_px"), ("validate_pairs", "resize_px")):
        monkeypatch.setattr(metric_trainer, name, out_of_memory)
        with pytest.raises(UserError, match=word) as error:
            run(root, f"no memory for {name}", {"datasets": {"train": {"holdout": 0.3}}}, {"val": {"val_freq": 1}})
        assert "gt_size" not in str(error.value) and "val.tile" not in str(error.value)
        monkeypatch.undo()


def test_other_options_are_named_on_resuming_and_fresh_starts_anew(root):
    folder = run(root, "options", {"train": {"total_iter": 1}})
    with pytest.raises(UserError, match=r"datasets.train.crop_px: 32 -> 40"):
        run(root, "options", {"train": {"total_iter": 2}, "datasets": {"train": {"crop_px": 40}}})
    run(root, "options", {"train": {"total_iter": 1}, "datasets": {"train": {"crop_px": 40}}}, fresh=True)
    assert len(lines(folder)) == 1 and len(list(folder.parent.glob("options_archived_*"))) == 1


def test_mixed_precision_trains_in_it_and_validates_without(root):
    changes = {"network": {"type": "afine:all:clip-tiny", "start": "random"}, "datasets": {"train": {"holdout": 0.3}}, "precision": "bf16"}
    folder = run(root, "bf16", changes, {"train": {"total_iter": 2}})
    plain_folder = run(root, "fp32", changes, {"train": {"total_iter": 2}, "precision": "no"})
    first, second = (lines(f) for f in (folder, plain_folder))
    assert first[0] == second[0], "the validation before the first step"
    losses = [[line["l_pair"] for line in found if "l_pair" in line] for found in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]


def test_other_pairs_are_noticed_on_resuming(tmp_path):
    pairs = make_pairs(tmp_path, 3)
    run(tmp_path, "changed", {"train": {"total_iter": 3}})
    write_manifest(tmp_path / "pairs.csv", Manifest(tuple(pairs[:-1]), tmp_path))
    with pytest.raises(UserError, match="other pairs"):
        run(tmp_path, "changed")


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("network", "data"),
    [
        pytest.param("lpips", {}, marks=pytest.mark.slow),
        ("timm:test_resnet", {}),
        ("timm:test_vit", {"resize_px": 64}),
        ("cnniqa", {}),
        pytest.param("musiq", {}, marks=pytest.mark.slow),
        pytest.param("dists", {}, marks=pytest.mark.slow),
        pytest.param("topiq_nr", {"crop_px": 64}, marks=pytest.mark.slow),
        pytest.param("topiq_fr", {"crop_px": 64}, marks=pytest.mark.slow),
        pytest.param("ckdn", {"crop_px": 64}, marks=pytest.mark.slow),
        pytest.param("maniqa", {"crop_px": 64}, marks=pytest.mark.slow),
        pytest.param("hyperiqa", {"crop_px": 64}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_networks_train_and_come_back_from_their_files(root, network, data):
    name = network.replace(":", "_")
    changes = {
        "network": {"type": network, "start": "random"},
        "train": {"total_iter": 1},
        "datasets": {"train": {"batch_size_per_gpu": 2, **data}},
    }
    options = plain(root, name, changes)
    folder = train_metric(MetricOptions.model_validate(options), quiet=True).parent
    assert math.isfinite(lines(folder)[-1]["l_pair"])
    metric = create_metric(str(folder / "metric.safetensors"))
    stored = state(folder, 1)["net"]
    assert all(torch.equal(stored[key], value) for key, value in metric._net.state_dict().items())
    started = build_network(network).state_dict()
    assert any(not torch.equal(stored[key], value) for key, value in started.items()), "nothing has been learnt"


def test_a_training_crop_is_one_view_of_a_network_that_takes_many():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_crop = 20

        def forward(self, x):
            return x.mean((1, 2, 3)) * self.num_crop

    judge, x = Judge(Views(), MetricInfo("views", "NR", False, (0, 1))), torch.ones(1, 3, 8, 8)
    assert judge(x).item() == 1
    with torch.no_grad():
        assert judge(x).item() == 20


def test_a_run_goes_on_from_another_runs_file(root):
    first = run(root, "first", {"train": {"total_iter": 1}})
    second = run(
        root, "second", {"network": {"start": str(first / "metric.safetensors")}, "train": {"total_iter": 1, "optim": {"lr": 1e-9}}}
    )
    before, after = state(first, 1)["net"], state(second, 1)["net"]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"pair_opt": {"type": "FidelityLos"}}}, "train.pair_opt.type: 'FidelityLos' is not a pair loss"),
        ({"train": {"pair_opt": {"type": "MarginLoss", "margn": 1}}}, "train.pair_opt.margn: MarginLoss: unknown argument"),
        ({"train": {"optim": {"type": "Adam", "rate": 1}}}, "train.optim.rate"),
        ({"network": {"type": "nanno"}}, "network.type"),
        ({"network": {"type": "fid"}}, "network.type"),
        ({"network": {"type": "afine:al:clip"}}, "network.type: afine:al:clip: there is no mode 'al'"),
        ({"network": {"type": "afine:all:clop"}}, "network.type: there is no backbone 'clop'"),
        ({"network": {"type": "timm:test_vitt", "start": "random"}}, "network.type: timm has no"),
        ({"network": {"type": "timm:test_vit"}}, "network.start: timm:test_vit has no weights of its own"),
        (
            {"network": {"type": "afine:all:clip"}, "datasets": {"train": {"crop_px": 16}}},
            "crop_px: afine:all:clip needs sides of at least 32",
        ),
        ({"datasets": {"train": {"crop": 3}}}, "datasets.train.crop: unknown key; did you mean crop_px"),
        ({"datasets": {"train": {"measure_once": True}}}, "measure_once"),
        (
            {"network": {"type": "afine:all:clip", "start": "a.safetensors", "backbone": "b.pth"}},
            "network.backbone: goes with start: random; a.safetensors has a backbone's weights already",
        ),
        ({"network": {"type": "psnr"}}, "network.type: psnr is no network that can be trained"),
        ({"network": {"type": "brisque"}}, "network.type: brisque is no network that can be trained"),
        ({"train": {"pair_opt": {"type": "FidelityLoss", "unit": -1}}}, "train.pair_opt: FidelityLoss: unit is -1"),
        ({"network": {"type": "timm:mixer_s32_224", "start": "random"}}, "network.type: timm:mixer_s32_224 takes images of one size only"),
    ],
)
def test_bad_options_are_named_with_their_line(root, tmp_path, change, message):
    file = tmp_path / "bad.yml"
    file.write_text(yaml.safe_dump(plain(root, "bad", change)))
    with pytest.raises(OptionsError) as error:
        check_metric(load_metric_options(file))
    assert message in str(error.value) and "bad.yml" in str(error.value), error.value


def test_data_that_cannot_be_used_is_named(root, tmp_path, monkeypatch):
    save(tmp_path / "a.png", picture(64, 1))
    save(tmp_path / "b.png", picture(32, 1))
    write_manifest(tmp_path / "pairs.csv", Manifest((Pair(tmp_path / "a.png", tmp_path / "b.png", 1.0),), tmp_path))
    with pytest.raises(UserError, match=r"b.png: is 32x32, but .*a.png, which it is compared with, is 64x64"):
        run(tmp_path, "sizes")
    with pytest.raises(UserError, match="have no `ref`"):
        run(tmp_path, "refs", {"network": {"type": "lpips", "start": "random"}})
    with pytest.raises(UserError, match="smaller than the crop"):
        run(root, "crop", {"datasets": {"train": {"crop_px": 96}}})
    with pytest.raises(UserError, match="no pairs of the groups g9"):
        run(root, "groups", {"datasets": {"train": {"manifests": {"groups": ["g9"]}}}})
    with pytest.raises(UserError, match="no weight's name starts with heads"):
        run(root, "learn", {"network": {"learn": ["heads"]}})
    with pytest.raises(UserError, match=r"network.learn: Q does not depend on fidelity\."):
        run(root, "frozen", {"network": {"type": "afine:natural:clip-tiny", "start": "random", "learn": ["fidelity."]}})
    monkeypatch.setattr(metric_build, "build_network", lambda *_: nn.ReLU())
    with pytest.raises(UserError, match="it has no weights that could learn"):
        run(root, "no weights")


def test_a_network_that_sees_no_reference_does_not_mind_its_size(tmp_path):
    make_pairs(tmp_path, 3)
    for path in tmp_path.glob("?_0.png"):
        save(tmp_path / f"ref{path.name}", picture(80, 1))
    pairs = [Pair(tmp_path / f"{i}_1.png", tmp_path / f"{i}_2.png", 1.0, ref=tmp_path / f"ref{i}_0.png", content=str(i)) for i in range(3)]
    write_manifest(tmp_path / "pairs.csv", Manifest(tuple(pairs), tmp_path))
    run(tmp_path, "nr", {"train": {"total_iter": 1}, "datasets": {"val": {"manifests": {"path": str(tmp_path / "pairs.csv")}}}})
    with pytest.raises(UserError, match="ref0_0.png: is 80x80, but"):
        run(tmp_path, "fr", {"network": {"type": "lpips", "start": "random"}})


@pytest.mark.parametrize("network", ["nano", "lpips", "cnniqa", "timm:test_resnet", "afine:natural:clip-tiny"])
def test_a_start_that_holds_no_weights_is_named(root, tmp_path, network):
    for name, content in (("absent.pth", None), ("text.pth", b"no weights"), ("text.safetensors", b"no weights"), ("short.pth", b"PK")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            run(root, "start", {"network": {"type": network, "start": str(tmp_path / name)}})


def test_a_vision_transformer_judges_images_of_any_size(tmp_path):
    make_pairs(tmp_path, 3, size=70)
    vit = {"network": {"type": "timm:test_vit", "start": "random"}, "datasets": {"train": {"crop_px": 40}}}
    val = {"datasets": {"val": {"manifests": {"path": str(tmp_path / "pairs.csv")}}}}
    folder = run(tmp_path, "vit", vit, val, {"train": {"total_iter": 1}})
    assert "accuracy" in lines(folder)[0]["val"]
    metric = create_metric(str(folder / "metric.safetensors"))
    assert metric(torch.rand(2, 3, 33, 70)).shape == (2,)


# ---------------------------------------------------------------- shipped option files


FILES = sorted((Path(__file__).parents[1] / "options" / "iqa").glob("*.yml"))
CONVOLUTIONS = dict.fromkeys(("timm:vgg16", "timm:resnet50", "timm:resnet50_clip"), "timm:test_resnet")
STAND_INS = {"clip": "clip-tiny", "timm:vit_base_patch32_224": "timm:test_vit", **CONVOLUTIONS}
LARGE = ("musiq", "topiq", "dists", "ahiq", "ckdn", "lpips")


@pytest.mark.parametrize("file", [pytest.param(f, marks=[pytest.mark.slow] if f.stem.startswith(LARGE) else [], id=f.stem) for f in FILES])
def test_shipped_files_pass_the_check_and_run_a_step(root, file):
    schema = file.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / schema).resolve() == file.parents[1] / "metric_schema.json"
    loaded = load_metric_options(file)
    check_metric(loaded)
    if file.stem == "ahiq_ft":
        return  # a ViT-B/8 on 784 patches: minutes a step on a CPU
    given = loaded.options.model_dump(mode="json")
    parts = given["network"]["type"].split(":", 2)
    network = ":".join([*parts[:2], STAND_INS[parts[2]]]) if parts[0] == "afine" else parts[0]
    pairs = [{"path": str(root / "pairs.csv")}]
    given["network"] |= {"type": network, "start": "random", "backbone": None}
    given["datasets"]["train"] |= {"manifests": pairs}
    given["datasets"]["train"] |= {"crop_px": 64, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    given["datasets"]["val"] = given["datasets"]["val"] and {"manifests": pairs}
    given["train"] |= {"total_iter": 1}
    given["val"]["max_pairs"] = 1
    given["path"]["experiments_root"] = str(root / "shipped")
    folder = train_metric(MetricOptions.model_validate(given), quiet=True).parent
    assert math.isfinite([line for line in lines(folder) if "l_pair" in line][-1]["l_pair"])
    assert create_metric(str(folder / "metric.safetensors")).mode in ("NR", "FR")


def test_there_are_shipped_files():
    assert len(FILES) >= 15

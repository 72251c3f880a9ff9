"""Every option file under options/ passes the check, builds, and runs one step on a tiny stand-in of its data, networks and weights."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from sr_iqa.check import check
from sr_iqa.config import load
from sr_iqa.losses import build_loss
from sr_iqa.study.study_file import load_study
from sr_iqa.training.trainer import train
from tests.helpers import make_sets, picture, save

ROOT = Path(__file__).parent.parent / "options"
FILES = sorted(path for path in ROOT.rglob("*.yml") if path.parent.name not in ("compare", "iqa"))
STUDIES = sorted((ROOT / "compare").glob("*.yml"))
NETWORKS = {
    "SwinIR": {"embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4, "img_size": 8, "drop_path_rate": 0.0},
    "RRDBNet": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4},
}


def test_there_are_option_files():
    assert len(FILES) >= 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_the_schema_and_passes_the_check(path):
    first = path.read_text().splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert schema != first and (path.parent / schema).resolve() == ROOT / "schema.json"
    check(load(path))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_variant_of_a_shipped_study_passes_the_check(path):
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve() == ROOT / "study_schema.json"
    study = load_study(path)
    for name in study.variants:
        options = study.options(name, 0)
        assert (options.train.gan_opt is None) == (options.network_d is None)
    assert len(study.variants) >= 6


ROWS = {
    "origs_only": "original",
    "rand": "uniform_all",
    "upos": "uniform_positive",
    "sma": "sma",
    "smp": "smp",
    "amo": "amo",
    "upos_ft_hp": "uniform_positive_reward_hp",
    "upos_ft_ig": "uniform_positive_reward_gan",
    "upos_ft": "uniform_positive_reward",
    "amo_ft": "amo_reward",
    "upos_ft_paq2piq": "uniform_positive_reward_paq2piq",
}


@pytest.mark.parametrize("network", ["swinir", "rrdb"])
def test_every_row_of_the_papers_tables_has_an_option_file_equal_to_the_studys_variant(network):
    study = load_study(ROOT / "compare" / f"paper_{network}.yml")
    assert list(study.variants) == list(ROWS)
    for name, row in ROWS.items():
        file = load(ROOT / "train" / "hggt" / f"{network}_x4_{row}.yml").options
        apart = {"name": True, "path": True, "datasets": {"train": {"scores"}}}
        of_file, of_study = (options.model_dump(mode="json", exclude=apart) for options in (file, study.options(name, 0)))
        assert of_file == of_study, (name, [key for key in of_file if of_file[key] != of_study[key]])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_runs_one_step(path, tmp_path, monkeypatch, torch_home):
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    stand_in = tmp_path / "stand_in.yml"
    stand_in.write_text(yaml.safe_dump(shrink(yaml.safe_load(path.read_text()), tmp_path)))
    loaded = load(stand_in)
    check(loaded)
    folder = train(loaded.options, quiet=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    terms = {key for line in lines for key in line if key.startswith(("l_", "r_"))}
    train_options = loaded.options.train
    wanted = {"l_pix"}
    wanted |= {"l_percep"} if train_options.perceptual_opt else set()
    wanted |= {"l_g_gan", "l_d_real"} if train_options.gan_opt else set()
    wanted |= {"r_nano"} if train_options.reward_opt else set()
    assert wanted <= terms and lines[-1]["step"] == 1


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory):
    """A torch cache that holds VGG weights with random numbers where the real ones would be."""
    from torchvision.models import get_model_weights
    from torchvision.models.vgg import cfgs, make_layers

    home = tmp_path_factory.mktemp("torch_home")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    for name, config in (("vgg11", "A"), ("vgg19", "E")):
        file = get_model_weights(name)["IMAGENET1K_V1"].url.rpartition("/")[2]
        state = make_layers(cfgs[config], batch_norm=False).state_dict()
        torch.save({f"features.{key}": value for key, value in state.items()}, home / "hub" / "checkpoints" / file)
    return home


def test_the_perceptual_losses_that_the_files_name_exist(torch_home, monkeypatch):
    """The stand-ins above have a smaller VGG; the files' own blocks are built here, equal ones once."""
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    blocks = [load(path).options.train.perceptual_opt for path in FILES]
    different = {json.dumps(block.model_dump(), sort_keys=True): block for block in blocks if block}
    image = torch.rand(1, 3, 32, 32)
    assert different and all(build_loss("perceptual", block)(image, 1 - image) > 0 for block in different.values())


def shrink(options, folder):
    """The same file with tiny networks, a handful of 64 px sets, nano for MUSIQ, and no pretrained weights."""
    text = json.dumps(options).replace('"musiq"', '"nano"').replace('"paq2piq"', '"nano"')
    options = json.loads(text)
    for section in ("network_g", "network_d"):
        network = options.get(section)
        if network:
            network.update(NETWORKS.get(network["type"], {"num_feat": 4}))
    if "perceptual_opt" in options["train"]:
        options["train"]["perceptual_opt"].update(vgg_type="vgg11", layer_weights={"conv1_1": 1.0})
    options.setdefault("path", {}).pop("pretrain_network_g", None)
    options["path"]["experiments_root"] = str(folder / "experiments")
    for part in ("train", "val"):
        data = options["datasets"].get(part)
        if data:
            point_at_tiny_data(data, folder / part)
    options["datasets"]["train"].update(gt_size=32, batch_size_per_gpu=2, num_worker_per_gpu=0)
    options["train"]["total_iter"] = 1
    options["val"]["metrics"] = ["psnr"]
    options["logger"]["use_tb_logger"] = False
    return options


def point_at_tiny_data(data, folder):
    if data["type"] == "multi_gt":
        root = make_sets(folder)
        data.update(dataroot_gt=str(root / "images"), dataroot_labels=str(root / "labels"))
        if "dataroot_lq" in data:
            for path in (root / "images" / "original").glob("*.png"):
                save(folder / "lq" / path.name, picture(16))
            data["dataroot_lq"] = str(folder / "lq")
    else:
        for i in range(2):
            save(folder / "gt" / f"{i}.png", picture(64, i))
            save(folder / "lq" / f"{i}.png", picture(16, i))
        data["dataroot_gt"] = str(folder / "gt")
        if "dataroot_lq" in data:
            data["dataroot_lq"] = str(folder / "lq")
    if "scores" in data:
        write_scores(data, folder / "scores.parquet")


def write_scores(data, path):
    from sr_iqa.config.models import DataOptions
    from sr_iqa.iqa.scores import score_data

    roots = {key: data[key] for key in ("type", "dataroot_gt", "dataroot_labels")}
    score_data(DataOptions(**roots), data["sampling"]["metric"], path)
    data["scores"] = str(path)

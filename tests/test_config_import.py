"""`sr-iqa config import`: other projects' training files become files of ours, and every one of their keys is accounted for."""

import re
import sys
import tomllib

import pytest

from sr_iqa import cli
from sr_iqa.check import check
from sr_iqa.config import OptionsError, load
from sr_iqa.config.import_networks import NEOSR, TRAINNER
from sr_iqa.config.import_text import flow
from sr_iqa.config.importing import detect, import_options
from sr_iqa.config.toml_text import read_toml_document
from sr_iqa.config.yaml_text import parse, read_document
from sr_iqa.errors import UserError
from tests.foreign_files import FILES
from tests.helpers import picture, save


@pytest.fixture
def sr_iqa(monkeypatch, capsys):
    """Runs `sr-iqa ARGUMENTS` in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sr-iqa", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write(tmp_path, name, *changes):
    """One of FILES, with replacements; returns its path."""
    text = FILES[name][1]
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    path = tmp_path / name
    path.write_text(text)
    return path


def imported(tmp_path, name, *changes):
    return import_options(write(tmp_path, name, *changes))


def said(result, fate):
    """Dotted key -> what is said, of one fate; several lines of a key are joined."""
    found = {}
    for line in result.lines:
        if line.fate == fate:
            key = ".".join(map(str, line.path))
            found[key] = f"{found[key]}; {line.text}" if key in found else line.text
    return found


def refusal(path):
    with pytest.raises(UserError) as caught:
        import_options(path)
    return str(caught.value)


# ---------------------------------------------------------------- all projects


@pytest.mark.parametrize("name", FILES)
def test_every_file_imports_passes_the_check_and_says_the_same_in_our_words(tmp_path, name):
    result = imported(tmp_path, name)
    assert result.project == FILES[name][0]
    check(result.loaded)
    (tmp_path / "ours.yml").write_text(result.text)
    again = load(tmp_path / "ours.yml")
    assert again.options == result.loaded.options
    assert again.notes == ()


def source_keys(value, path=()):
    """Every key of a file that holds a value, as a path; a list of blocks is looked into."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(part, dict) for part in inner)):
            yield from source_keys(inner, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("name", FILES)
def test_every_key_of_the_file_is_accounted_for(tmp_path, name):
    path = write(tmp_path, name)
    data = tomllib.loads(path.read_text()) if path.suffix == ".toml" else read_document(path).data
    result = import_options(path)
    spoken = {line.path for line in result.lines}
    silent = [key for key in source_keys(data) if not any(key[:n] in spoken for n in range(1, len(key) + 1))]
    assert silent == []
    assert not [line for line in result.lines if "not carried over" in line.text]


@pytest.mark.parametrize("name", FILES)
def test_lines_point_at_their_keys(tmp_path, name):
    path = write(tmp_path, name)
    lines = path.read_text().splitlines()
    for line in import_options(path).lines:
        source, _, number = line.where.rpartition(":")
        key = next(str(part) for part in reversed(line.path) if not isinstance(part, int))
        inside_list = isinstance(line.path[-1], int)
        assert source == str(path)
        assert inside_list or key in lines[int(number) - 1], line


@pytest.mark.parametrize("name", FILES)
def test_what_has_no_counterpart_is_in_the_report_and_in_the_output(tmp_path, name):
    result = imported(tmp_path, name)
    comments = [line for line in result.text.splitlines() if "# NO COUNTERPART" in line]
    assert len(comments) == len(result.lost)
    assert result.report[-1].endswith(f" {len(result.lost)} without counterpart")
    assert sum("NO COUNTERPART" in line for line in result.report) == len(result.lost)


def test_only_what_differs_from_the_defaults_is_written(tmp_path):
    text = imported(tmp_path, "basicsr_swinir.yml").text
    assert "strict_load_g" not in text and "use_hflip" not in text and "print_freq" not in text and "path:" not in text
    assert "  save_checkpoint_freq: 2000  # line 75" in text.splitlines()


# ---------------------------------------------------------------- BasicSR, Real-ESRGAN, HGGT


def test_what_plain_loading_refuses_or_plays_down(tmp_path):
    lost = said(imported(tmp_path, "basicsr_esrgan.yml"), "lost")
    assert set(lost) == {"model_type", "datasets.train.io_backend", "train.ldl_opt"}
    assert "relativistic" in lost["model_type"] and "artifact loss" in lost["train.ldl_opt"]
    lost = said(imported(tmp_path, "realesrgan.yml"), "lost")
    assert set(lost) == {"l1_gt_usm", "percep_gt_usm", "datasets.train.meta_info"}


def test_real_esrgan_numbers(tmp_path):
    result = imported(tmp_path, "realesrgan.yml")
    degradation = result.loaded.options.datasets.train.degradation
    assert (degradation.preset, degradation.second.blur.prob, degradation.second.jpeg_range) == ("realesrgan", 0.7, (40, 95))
    assert degradation.first.blur.kernels == {"iso": 0.6, "aniso": 0.4}
    assert "sinc_prob" not in result.text  # as the preset has it
    mapped = said(result, "mapped")
    assert mapped["resize_range"] == " -> datasets.train.degradation.first.resize.scale_range: [0.2, 1.4]"
    assert mapped["datasets.train.kernel_prob2"] == " -> with kernel_list"


def test_strategies_of_hggt(tmp_path):
    result = imported(tmp_path, "hggt.yml")
    assert result.loaded.options.datasets.train.sampling.strategy == "uniform_positive"
    assert "strategy: uniform_positive" in result.text
    assert result.loaded.options.train.neg_opt.type == "NegativeLoss"
    assert said(result, "mapped")["train.pixel_opt_o.type"] == " -> train.pixel_opt.type: L1Loss"


# ---------------------------------------------------------------- traiNNer-redux


def test_trainner_pairs(tmp_path):
    result = imported(tmp_path, "trainner_hat.yml")
    options = result.loaded.options
    train = options.datasets.train
    assert (train.type, train.gt_size, str(train.dataroot_gt), options.train.accum_iter) == ("paired", 256, "data/hr", 2)
    assert (options.precision, options.val.tile, options.val.metrics) == ("bf16", 200, ("psnr", "topiq_fr"))
    assert (options.network_g.type, len(options.network_g.arguments["depths"])) == ("spandrel.HAT", 12)
    assert options.network_g.arguments["use_checkpoint"] is True
    assert options.train.pixel_opt.type == "CharbonnierLoss"
    assert options.train.grad_clip is None
    lost = said(result, "lost")
    assert set(lost) == {"datasets.train.dataroot_gt", "datasets.train.dataroot_lq", "train.ema_power"}
    assert "put the files (or links) of [data/hr2] into it" in lost["datasets.train.dataroot_gt"]
    assert said(result, "mapped")["datasets.train.lq_size"] == " -> datasets.train.gt_size: 256"


def test_trainner_degradation_and_gan(tmp_path):
    result = imported(tmp_path, "trainner_otf_gan.yml")
    options = result.loaded.options
    degradation = options.datasets.train.degradation
    assert degradation.first.blur.prob == 0.3 and degradation.first.blur.kernel_size_range == (5, 17)
    assert degradation.first.resize.modes == ("bilinear", "bicubic") and degradation.second.resize.modes == ("area",)
    assert degradation.second.noise is None and degradation.second.jpeg_range is None
    assert degradation.first.noise.sigma_range == (0, 5)
    assert degradation.final.sinc_kernel_size_range == (5, 17) and degradation.final.sinc_prob == 0
    assert options.precision == "bf16" and options.datasets.val is None
    assert options.network_d.type == "UNetDiscriminatorSN"
    train = options.train
    assert [(loss.type, loss.arguments["loss_weight"]) for loss in train.metric_opt] == [("ms_ssim", 0.5)]
    assert (train.pixel_opt.type, train.gan_opt.arguments["gan_type"]) == ("L1Loss", "vanilla")
    assert train.perceptual_opt.arguments["perceptual_weight"] == 0.01
    assert train.perceptual_opt.arguments["layer_weights"]["conv5_4"] == 1
    lost = said(result, "lost")
    assert set(lost) == {
        *("use_amp", "thicklines_prob", "resize_mode_list", "jpeg_prob", "network_d", "train.ema_power", "train.losses.3"),
    }
    assert "HSLuv" in lost["train.losses.3"] and "fp16 cannot train a GAN" in lost["use_amp"] and "dunet" in lost["network_d"]
    assert "has weight 0" in said(result, "ignored")["train.losses.5"]


def test_trainner_defaults_of_a_degradation_are_its_own(tmp_path):
    name, drop = "trainner_otf_gan.yml", [("jpeg_range: [75, 95]\n", ""), ("resize_range: [0.4, 1.5]\n", ""), ("jpeg_prob: 0.5\n", "")]
    result = imported(tmp_path, name, *drop)
    first = result.loaded.options.datasets.train.degradation.first
    assert (first.jpeg_range, first.resize.scale_range) == ((75, 95), (0.4, 1.5))  # Real-ESRGAN's: 30 to 95, 0.15 to 1.5
    assert "jpeg_range: [75, 95]  # traiNNer-redux's default" in result.text


@pytest.mark.parametrize(
    ("loss", "key", "words"),
    [
        ("type: huberloss\n      loss_weight: 2", "train.losses.1", "CharbonnierLoss is near"),
        ("type: charbonierloss\n      loss_weight: 2", "train.losses.1", "did you mean charbonnier?"),
        ("type: mseloss\n      loss_weight: 2", "train.losses.1", "train.pixel_opt is one loss only, and is taken by CharbonnierLoss"),
        ("type: perceptualloss\n      criterion: pd+l1\n      loss_weight: 2", "train.losses.1.criterion", "l1 stands in"),
        ("type: dinov2loss\n      loss_weight: 2", "train.losses.1", "unknown loss"),
    ],
)
def test_losses_without_a_counterpart(tmp_path, loss, key, words):
    result = imported(tmp_path, "trainner_hat.yml", ("      loss_weight: 1.0\n", f"      loss_weight: 1.0\n    - {loss}\n"))
    assert words in said(result, "lost")[key]
    assert result.loaded.options.train.pixel_opt.type == "CharbonnierLoss"


def test_networks_without_a_counterpart_stop_the_import(tmp_path):
    found = refusal(write(tmp_path, "trainner_hat.yml", ("type: hat_l", "type: hit_srf")))
    assert "network_g.type: hit_srf has no counterpart here" in found
    assert "did you mean swinir_l?" in refusal(write(tmp_path, "trainner_hat.yml", ("type: hat_l", "type: swinr_l")))
    assert "trains on videos" in refusal(write(tmp_path, "trainner_hat.yml", ("pairedimagedataset", "pairedvideodataset")))


def test_a_discriminator_of_ours_keeps_its_weights_and_another_loses_them(tmp_path):
    weights = ("strict_load_g: true\n", "strict_load_g: true\n  pretrain_network_d: d.pth\n")
    result = imported(tmp_path, "trainner_otf_gan.yml", weights)
    assert result.loaded.options.path.pretrain_network_d is None
    assert "start" in said(result, "lost")["path.pretrain_network_d"]
    result = imported(tmp_path, "trainner_otf_gan.yml", weights, ("type: dunet", "type: unetdiscriminatorsn"))
    assert str(result.loaded.options.path.pretrain_network_d) == "d.pth"


# ---------------------------------------------------------------- neosr


def test_neosr_pairs(tmp_path):
    result = imported(tmp_path, "neosr_swinir.toml")
    options = result.loaded.options
    train = options.datasets.train
    assert (train.type, train.gt_size, train.batch_size_per_gpu, options.train.accum_iter) == ("paired", 256, 8, 4)
    assert str(train.dataroot_gt) == "C:\\datasets\\gt\\"
    assert (options.manual_seed, options.deterministic, options.precision, options.compile) == (1024, True, "tf32", True)
    assert options.network_g.type == "SwinIR" and options.network_g.arguments["embed_dim"] == 180
    assert options.train.optim_g.type == "AdamW" and options.train.scheduler.milestones == (60000, 120000)
    assert options.train.total_iter == 200000 and options.train.ema_decay == 0.999 and options.train.grad_clip is None
    assert [loss.type for loss in options.train.metric_opt] == ["dists"]
    assert (options.val.tile, options.val.metrics) == (200, ("psnr", "dists"))


def test_neosr_degradation_and_gan(tmp_path):
    result = imported(tmp_path, "neosr_otf_gan.toml")
    options = result.loaded.options
    degradation = options.datasets.train.degradation
    assert degradation.first.blur.kernels == {"iso": 0.6, "aniso": 0.4} and degradation.second.blur.prob == 0.4
    assert degradation.first.blur.kernel_size_range == (7, 21)
    assert options.train.grad_clip == 1.0 and "grad_clip: 1.0  # neosr's default" in result.text
    assert options.train.warmup_iter == 1600
    assert options.train.gan_opt.arguments["gan_type"] == "vanilla"
    assert options.train.optim_g.type == "AdamW" and options.train.optim_g.arguments["lr"] == 2e-4
    assert [loss.type for loss in options.train.metric_opt] == ["ssim"]  # crops of 128 are too small for MS-SSIM
    assert set(said(result, "lost")) == {
        *("datasets.train.augmentation", "train.wavelet_guided", "train.optim_g", "train.optim_d.warmup_steps"),
        *("train.mssim_opt", "train.consistency_opt"),
    }


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("table", [TRAINNER, NEOSR])
def test_every_network_of_the_tables_fits_its_constructor(table):
    from sr_iqa.archs import resolve_network
    from sr_iqa.bind import mismatches

    for name, network in table.items():
        constructor = resolve_network(network.type.format(scale=4))
        arguments = {**({network.scale: 4} if network.scale else {}), **network.arguments}
        assert list(mismatches(constructor, arguments)) == [], name


@pytest.mark.parametrize(
    ("table", "name", "millions"),
    [
        (TRAINNER, "esrgan", 16.70),
        (TRAINNER, "swinir_m", 11.90),
        (TRAINNER, "hat_l", 40.8),
        (NEOSR, "rcan", 15.59),
        (NEOSR, "compact", 0.62),
    ],
)
def test_networks_are_as_large_as_their_papers_say(table, name, millions):
    from sr_iqa.archs import build_network

    network = table[name]
    net = build_network({"type": network.type, network.scale: 4, **network.arguments})
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("table", "name"), [(TRAINNER, name) for name in TRAINNER] + [(NEOSR, name) for name in NEOSR])
def test_every_network_of_the_tables_can_be_built_and_run(table, name):
    import torch

    from sr_iqa.archs import build_network

    network = table[name]
    section = {"type": network.type.format(scale=4), **({network.scale: 4} if network.scale else {}), **network.arguments}
    with torch.no_grad():
        assert build_network(section).eval()(torch.rand(1, 3, 20, 24)).shape == (1, 3, 80, 96)


# ---------------------------------------------------------------- the command


def test_the_command_prints_writes_and_does_not_overwrite(sr_iqa, tmp_path):
    source, target = write(tmp_path, "trainner_hat.yml"), tmp_path / "ours.yml"
    code, out, err = sr_iqa("config", "import", source)
    assert code == 0 and out.startswith("# Imported from trainner_hat.yml (traiNNer-redux).")
    assert err.startswith(f"{source}: read as traiNNer-redux\n") and " 3 without counterpart\n" in err
    code, out, err = sr_iqa("config", "import", source, "-o", target)
    assert code == 0 and out == f"written: {target}\n"
    assert sr_iqa("config", "check", target)[0] == 0
    target.write_text("precious")
    code, _, err = sr_iqa("config", "import", source, "-o", target)
    assert code == 1 and "--force overwrites it" in err and target.read_text() == "precious"
    assert sr_iqa("config", "import", source, "-o", target, "--force")[0] == 0
    assert sr_iqa("config", "check", target)[0] == 0


def test_strict_fails_and_writes_nothing(sr_iqa, tmp_path):
    target = tmp_path / "ours.yml"
    code, _, err = sr_iqa("config", "import", write(tmp_path, "trainner_hat.yml"), "-o", target, "--strict")
    assert code == 1 and "3 keys have no counterpart" in err and not target.exists()
    changes = [("    meta_info_file: data/meta.txt\n", "")]
    assert sr_iqa("config", "import", write(tmp_path, "basicsr_swinir.yml", *changes), "-o", target, "--strict")[0] == 0


def test_a_file_of_ours_is_said_to_be_ours(sr_iqa, tmp_path):
    target = tmp_path / "ours.yml"
    assert sr_iqa("config", "import", write(tmp_path, "neosr_swinir.toml"), "-o", target)[0] == 0
    code, _, err = sr_iqa("config", "import", target)
    assert code == 2 and "is in this project's vocabulary already" in err


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (None, "absent.yml", "absent.yml: cannot be read: No such file"),
        (None, "absent.toml", "absent.toml: cannot be read: No such file"),
        ("name: [", "a.yml", "a.yml:1: not valid YAML"),
        ('name = "x"\nname = "y"\n', "a.toml", "a.toml:2: not valid TOML: Cannot overwrite a value"),
        ("a: 1\n", "a.yml", "does not look like a training file of BasicSR, Real-ESRGAN"),
        ("a = 1\n", "a.toml", "does not look like a training file"),
        ("model_type: EDVRModel\nname: x\n", "a.yml", "EDVRModel is no trainer of single-image SR networks"),
        ("a: &a [1]\nb: [" + "*a, " * 9999 + "*a]\n", "a.yml", "more than 10000 values"),
        ("a = " + "[" * 60 + "]" * 60 + "\n", "a.toml", "40 levels"),
        ("a = " + "[" * 9000 + "]" * 9000 + "\n", "a.toml", "not valid TOML"),
        ("a = 1979-05-27\n", "a.toml", "a: a date belongs to no option"),
        ("a = " + "1" * 9000 + "\n", "a.toml", "not valid TOML"),
        ('a = "\\u0000"\n', "a.toml", "text cannot hold the character"),
        ("use_amp: true\ntrain: 3\ndatasets: [1]\n", "a.yml", "train: expected a block of keys, got 3"),
        ("model_type: SRModel\n!!python/object:os.system {}: 1\n", "a.yml", "a key must be a single word"),
        ("model_type: !!python/object/apply:os.system [ls]\n", "a.yml", "is not known here"),
    ],
)
def test_bad_files_end_in_a_message(sr_iqa, tmp_path, text, name, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    code, out, err = sr_iqa("config", "import", tmp_path / name)
    assert code == 2 and words in err and "Traceback" not in err and out == ""


def test_the_project_can_be_told(sr_iqa, tmp_path):
    path = write(tmp_path, "basicsr_swinir.yml", ("model_type: SwinIRModel\n", ""))
    code, _, err = sr_iqa("config", "import", path)
    assert code == 2 and "say whose it is with --from" in err
    code, _, err = sr_iqa("config", "import", path, "--from", "basicsr")
    assert code == 0 and "read as BasicSR" in err
    code, _, err = sr_iqa("config", "import", path, "--from", "kair")
    assert code == 2 and "choose from basicsr, realesrgan" in err


def test_detection():
    assert detect({"model_type": "image", "train": {}}) == "neosr"
    assert detect({"train": {"losses": []}}) == "trainner"
    assert detect({"datasets": {"train": {"lq_size": 3}}}) == "trainner"
    assert detect({"model_type": "RealESRGANModel", "high_order_degradation": False}) == "realesrgan"
    assert detect({"model_type": "LDL_PosGT_Model"}) == "hggt"
    assert detect({"datasets": [1], "train": None}) is None


def test_text_cannot_leave_its_comment_or_its_quotes(tmp_path):
    name = r'"a\nlora: {rank: 3}\u2028b: 1\x7f\x01"'
    result = imported(tmp_path, "basicsr_swinir.yml", ("name: DIV2K", f"name: {name}"), ("    prefetch_mode: ~", f"    odd: {name}"))
    options = result.loaded.options
    assert options.lora is None and options.datasets.train.name == "a\nlora: {rank: 3}\u2028b: 1\x7f\x01"
    (tmp_path / "ours.yml").write_text(result.text)
    assert load(tmp_path / "ours.yml").options == options
    assert "\x01" not in result.text + "".join(result.report)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -5,
        1e-7,
        2.0,
        1e30,
        float("inf"),
        "",
        "~",
        "null",
        "yes",
        "1e-4",
        "012",
        "- a",
        "a: b",
        "a #b",
        "'",
        '"',
        "C:\\x\\",
        "é😀",
    ],
)
def test_values_survive_being_written(value):
    from sr_iqa.config.document import Document

    assert parse(f"a: {flow([value, {'b': value}])}", Document(), "text")["a"] == [value, {"b": value}]


# ---------------------------------------------------------------- TOML


def test_lines_of_toml(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        '\ufeffa = 1\n"b c".d = 2 # x\n[e.f]  # note\ng = """\nh = 3\n"""\ni = [\n  1,\n  2,\n]\n[[k]]\nl = 1\n[[k]]\nl = 2\nm = {n = 1}\n'
    )
    document = read_toml_document(path)
    places = {key: int(place.rpartition(":")[2]) for key, place in document.positions.items() if key}
    assert document.data["k"] == [{"l": 1}, {"l": 2, "m": {"n": 1}}] and document.data["e"]["f"]["g"] == "h = 3\n"
    assert places[("a",)] == 1 and places[("b c", "d")] == 2 and places[("e", "f")] == 3
    assert places[("e", "f", "g")] == 4 and places[("e", "f", "i")] == 7 and ("e", "f", "h") not in places
    assert places[("k", 0, "l")] == 12 and places[("k", 1, "l")] == 14
    assert document.where(("k", 1, "m", "n")).endswith(":15")


# ---------------------------------------------------------------- training

TINY = [
    *("name=tiny", "train.total_iter=2", "logger.print_freq=1", "logger.use_tb_logger=false", "precision=no", "compile=false"),
    *("datasets.train.num_worker_per_gpu=0", "datasets.train.batch_size_per_gpu=1", "train.perceptual_opt=~", "deterministic=false"),
]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("basicsr_swinir.yml", ["network_g.depths=[1]", "network_g.num_heads=[2]", "network_g.embed_dim=8", "datasets.train.gt_size=32"]),
        ("realesrgan.yml", ["network_g.num_block=1", "network_g.num_feat=8", "network_d.num_feat=4", "datasets.train.gt_size=64"]),
        ("trainner_hat.yml", ["network_g.depths=[1]", "network_g.num_heads=[2]", "network_g.embed_dim=32", "datasets.train.gt_size=64"]),
        ("trainner_otf_gan.yml", ["network_d.num_feat=4", "train.metric_opt=[{type: ssim, loss_weight: 1}]", "datasets.train.gt_size=64"]),
        ("neosr_otf_gan.toml", ["network_g.num_conv=2", "network_g.num_feat=8", "network_d.num_feat=4", "datasets.train.gt_size=64"]),
    ],
)
def test_imported_files_train(sr_iqa, tmp_path, monkeypatch, name, settings):
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        save(tmp_path / "data" / "hr" / f"{i}.png", picture(128, seed=i))
        save(tmp_path / "data" / "lr" / f"{i}.png", picture(32, seed=i))
    changes = [("  pretrain_network_g: RealESRNet_x4plus.pth\n", "")] if name == "realesrgan.yml" else []
    assert sr_iqa("config", "import", write(tmp_path, name, *changes), "-o", "ours.yml")[0] == 0
    text = (tmp_path / "ours.yml").read_text()
    overrides = [*TINY, *settings, *(["datasets.val=~"] if re.search(r"^  val:$", text, re.M) else [])]
    code, _, err = sr_iqa("train", "-opt", "ours.yml", *(part for text in overrides for part in ("--set", text)))
    assert code == 0, err
    assert list((tmp_path / "experiments" / "tiny" / "models").glob("net_g*2.safetensors"))


def test_problems_name_the_lines_of_the_foreign_file(tmp_path):
    path = write(tmp_path, "basicsr_swinir.yml", ("gt_size: 192", "gt_size: many"))
    with pytest.raises(OptionsError) as caught:
        import_options(path)
    assert caught.value.problems == (f"{path}:16: datasets.train.gt_size: expected a whole number, got 'many'",)


def test_unknown_keys_are_said_with_the_nearest_known_one(tmp_path):
    result = imported(tmp_path, "trainner_hat.yml", ("    use_rot: true\n", "    use_rott: true\n"))
    assert "did you mean use_rot?" in said(result, "lost")["datasets.train.use_rott"]

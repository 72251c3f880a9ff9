"""Option files: what is read, what is refused, and how the refusal reads."""

import json
from pathlib import Path

import pytest
import yaml

from sr_iqa.config import Options, OptionsError, load, load_options, options_to_yaml
from sr_iqa.config.metric_models import METRIC_FILE, MetricOptions
from sr_iqa.config.models import Component
from sr_iqa.config.schema import schema_text
from sr_iqa.config.vocabulary import all_keys, block_at
from sr_iqa.config.yaml_text import plain_value
from sr_iqa.study.study_file import STUDY_FILE, StudyOptions

ROOT = Path(__file__).resolve().parents[1]

GOOD = """\
name: run
scale: 4
datasets:
  train:
    type: single_gt
    dataroot_gt: images
    gt_size: 128
    batch_size_per_gpu: 2
network_g: {type: SwinIR, upscale: 4}
train:
  total_iter: 1e5
  optim_g:
    type: Adam
    lr: 1e-4
  pixel_opt: {type: L1Loss}
"""


def write(tmp_path, text, name="run.yml"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(tmp_path, text, overrides=()):
    """The problem lines, with the file's folder cut off."""
    with pytest.raises(OptionsError) as caught:
        load(write(tmp_path, text), overrides)
    return [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file(tmp_path):
    options = load_options(write(tmp_path, GOOD))
    assert options.train.total_iter == 100_000
    assert options.train.optim_g.arguments == {"lr": 1e-4}
    assert options.datasets.train.sampling.strategy == "original"
    assert options.network_g.type == "SwinIR"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e5", 1e5),
        ("5e3", 5e3),
        ("-1.5E+2", -150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("7", 7),
        ("012", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("~", None),
        ("", None),
        ("true", True),
        ("False", False),
        (".inf", float("inf")),
        ("on", "on"),
        ("no", "no"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("9" * 400, float("inf")),
        ("1e-4x", "1e-4x"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text, value):
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"), [("!!float 1e-4", 1e-4), ("!!float 2", 2.0), ("!!str 1e-4", "1e-4"), ("'1e-4'", "1e-4"), ("!!int 3", 3)]
)
def test_tags_and_quotes_decide(tmp_path, text, value):
    options = load_options(write(tmp_path, changed("lr: 1e-4", f"lr: {text}")))
    assert options.train.optim_g.arguments["lr"] == value


def test_no_and_off_are_booleans_only_where_booleans_belong(tmp_path):
    options = load_options(write(tmp_path, changed("gt_size", "use_rot: no\n    use_hflip: on\n    gt_size") + "precision: no\n"))
    assert (options.datasets.train.use_rot, options.datasets.train.use_hflip, options.precision) == (False, True, "no")


def test_null_means_the_default(tmp_path):
    options = load_options(write(tmp_path, GOOD + "val:\nlogger: ~\npath: {pretrain_network_g: ~, experiments_root: null}\n"))
    assert options.val.val_freq == 5000
    assert str(options.path.experiments_root) == "experiments"
    assert load_options(write(tmp_path, changed("upscale: 4", "upscale: ~"))).network_g.arguments == {"upscale": None}


def test_unknown_key_three_deep(tmp_path):
    text = changed("gt_size: 128", "gt_size: 128\n    sampling: {strategy: sma, temprature: 3}")
    assert problems(tmp_path, text) == ["run.yml:8: datasets.train.sampling.temprature: unknown key; did you mean temperature?"]


def test_key_that_belongs_elsewhere(tmp_path):
    assert problems(tmp_path, GOOD + "optim_g: {type: Adam}\n") == ["run.yml:16: optim_g: unknown key; it belongs at train.optim_g"]


def test_unknown_key_without_a_near_name_lists_the_known_ones(tmp_path):
    (line,) = problems(tmp_path, changed("gt_size: 128", "gt_size: 128\n    sampling: {zzz: 3}"))
    assert line == "run.yml:8: datasets.train.sampling.zzz: unknown key; known here: choices, grid, metric, strategy, temperature"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("scale: 4\n", "scale: four\n", "run.yml:2: scale: expected a whole number, got 'four'"),
        ("scale: 4\n", "scale: true\n", "run.yml:2: scale: true does not belong here; the key takes no true or false"),
        ("scale: 4\n", "scale: 9\n", "run.yml:2: scale: expected less than or equal to 8, got 9"),
        ("name: run", "name: 7", "run.yml:1: name: expected text, got 7"),
        ("name: run", "name: ../up", "run.yml:1: name: expected a name that can be a folder's, got '../up'"),
        ("gt_size: 128", "gt_size: 128.5", "run.yml:7: datasets.train.gt_size: expected a whole number, got 128.5"),
        ("gt_size: 128", "use_rot: maybe\n    gt_size: 128", "run.yml:7: datasets.train.use_rot: expected true or false, got 'maybe'"),
        ("dataroot_gt: images", "dataroot_gt: [a]", "run.yml:6: datasets.train.dataroot_gt: expected a path, got ['a']"),
        ("pixel_opt: {type: L1Loss}", "pixel_opt: L1Loss", "run.yml:15: train.pixel_opt: expected a block of keys, got 'L1Loss'"),
        ("pixel_opt: {type: L1Loss}", "grad_clip: .nan", "run.yml:15: train.grad_clip: expected a finite number, got nan"),
        (
            "type: single_gt",
            "type: singel_gt",
            "run.yml:5: datasets.train.type: expected 'multi_gt', 'paired' or 'single_gt', got 'singel_gt'; did you mean single_gt?",
        ),
        (
            "pixel_opt: {type: L1Loss}",
            "scheduler: {type: MultiStepLR}",
            "run.yml:15: train.scheduler: MultiStepLR needs milestones, a list of steps",
        ),
        ("  total_iter: 1e5\n", "", "run.yml:10: train.total_iter: missing (Optimizer steps.)"),
        (
            "pixel_opt: {type: L1Loss}",
            "reward_opt: {metric: nano, weight: -1}",
            "run.yml:15: train.reward_opt.weight: expected greater than 0, got -1",
        ),
        (
            "pixel_opt: {type: L1Loss}",
            "reward_opt:\n    - {metric: nano, weight: 1}\n    - {metric: nano, weight: -1}",
            "run.yml:17: train.reward_opt.1.weight: expected greater than 0, got -1",
        ),
    ],
)
def test_wrong_values_name_key_line_and_what_was_expected(tmp_path, old, new, line):
    assert problems(tmp_path, changed(old, new)) == [line]


def test_all_problems_at_once(tmp_path):
    text = changed("scale: 4\n", "scal: 4\n").replace("128", "big").replace("    lr: 1e-4", "    lr: 1e-4\n    lr: 2e-4")
    lines = problems(tmp_path, text, ["val.val_frec=3", "train"])
    assert lines == [
        "run.yml:15: train.optim_g.lr: given twice, first at run.yml:14",
        "--set train: expected key=value with a dotted key, such as train.total_iter=1000",
        "run.yml: scale: missing (How many times larger the output is than the input, per side.)",
        "run.yml:7: datasets.train.gt_size: expected a whole number, got 'big'",
        "--set val.val_frec=3: val.val_frec: unknown key; did you mean val_freq?",
        "run.yml:2: scal: unknown key; did you mean scale?",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "run.yml: expected `key: value` lines, got nothing"),
        ("# nothing\n", "run.yml: expected `key: value` lines, got nothing"),
        ("- a\n- b\n", "run.yml: expected `key: value` lines, got list"),
        ("just words\n", "run.yml: expected `key: value` lines, got str"),
        ("name: a\n\tscale: 4\n", "run.yml:2: not valid YAML: found character '\\t' that cannot start any token; indent with spaces, tabs"),
        ("name: [1\n", "run.yml:2: not valid YAML"),
        ("name: a\n---\nname: b\n", "run.yml:2: not valid YAML: but found another document"),
        ("name: !!python/object/apply:os.system [ls]\n", "run.yml:1: the tag `!!python/object/apply:os.system` is not known here"),
        ("name: !!python/name:os.system x\n", "run.yml:1: `!!python/name:os.system x` cannot be read; the tags known here are !!str"),
        ("name: !!float abc\n", "run.yml:1: `!!float abc` cannot be read"),
        ("name: *nobody\n", "run.yml:1: not valid YAML: found undefined alias"),
        ("? [a, b]\n: 1\n", "run.yml:1: a key must be a single word"),
        ("a: " + "[" * 5000, "run.yml:1: not valid YAML: nested more than 40 levels deep"),
        ("a: &a [*a]\n", "run.yml:1: more than 10000 values or 40 levels"),
        (b"name: \xff\xfe\n", "run.yml: not UTF-8 text"),
        (b"name: \x00\n", "run.yml: not valid YAML"),
        (b"#" * (2 << 20), "run.yml: larger than 1 MiB, not an option file"),
    ],
)
def test_hostile_files_end_in_one_message(tmp_path, text, line):
    found = problems(tmp_path, text)
    assert found[0].startswith(line)


def test_anchors_that_multiply_are_stopped(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 10000 values" in problems(tmp_path, "\n".join(lines))[0]


def test_anchors_and_merge_keys_work(tmp_path):
    text = GOOD.replace("  optim_g:", "  optim_g: &adam").replace("  pixel_opt", "  optim_d: {<<: *adam, lr: 2e-4}\n  pixel_opt")
    train = load_options(write(tmp_path, text)).train
    assert (train.optim_d.type, train.optim_d.arguments["lr"], train.optim_g.arguments["lr"]) == ("Adam", 2e-4, 1e-4)


def test_missing_file():
    with pytest.raises(OptionsError, match="nowhere.yml: cannot be read: No such file"):
        load("nowhere.yml")


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    assert load_options(write(tmp_path, "\ufeff" + GOOD)).name == "run"


def test_overrides(tmp_path):
    overrides = [
        "train.optim_g.lr=1e-5",
        "datasets.train.sampling.strategy=amo",
        "val.metrics=[psnr, lpips]",
        "lora.rank=4",
        "train.pixel_opt=~",
        "train.reward_opt={metric: nano, weight: 0.1}",
        "train.reward_opt.weight=0.2",
        "name=other=name",
    ]
    loaded = load(write(tmp_path, GOOD), overrides)
    options = loaded.options
    assert options.train.optim_g.arguments["lr"] == 1e-5
    assert options.datasets.train.sampling.strategy == "amo"
    assert options.val.metrics == ("psnr", "lpips")
    assert options.lora.rank == 4
    assert options.train.pixel_opt is None
    assert options.train.reward_opt[0].weight == 0.2
    assert options.name == "other=name"
    assert loaded.positions["train", "optim_g", "lr"] == "--set train.optim_g.lr=1e-5"
    assert loaded.positions["train", "optim_g", "type"].endswith("run.yml:13")


def test_list_elements_by_number(tmp_path):
    text = GOOD + "  reward_opt:\n  - {metric: nano, weight: 1}\n  - {metric: nano, weight: 2}\n"
    assert load_options(write(tmp_path, text), ["train.reward_opt.1.weight=7"]).train.reward_opt[1].weight == 7


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trian.total_iter=5", "--set trian.total_iter=5: trian: unknown key; did you mean train?"),
        ("optim_g.lr=5", "--set optim_g.lr=5: optim_g: unknown key; it belongs at train.optim_g"),
        ("train.total_itr=5", "--set train.total_itr=5: train.total_itr: unknown key; did you mean total_iter?"),
        ("train.total_iter.x=5", "--set train.total_iter.x=5: train.total_iter is 100000.0, it has no such part"),
        ("train.total_iter=", "run.yml:10: train.total_iter: missing (Optimizer steps.)"),
        ("val.metrics.0=psnr", "--set val.metrics.0=psnr: val.metrics is not in the file; give the whole list"),
        ("train.optim_g.0=x", "--set train.optim_g.0=x: train.optim_g is a block of keys, it has no such part"),
        ("=5", "--set =5: expected key=value"),
        ("a..b=5", "--set a..b=5: expected key=value"),
        ("name=[", "--set name=[: not valid YAML"),
    ],
)
def test_mistyped_overrides(tmp_path, override, line):
    (found,) = problems(tmp_path, GOOD, [override])
    assert found.startswith(line.replace("run.yml:10", "--set train.total_iter=") if override.endswith("=") else line)


def test_yaml_of_the_options_loads_to_equal_options(tmp_path):
    text = GOOD + "  reward_opt: {metric: nano, weight: 1e-7}\nlora: {target_modules: ['1e5', qkv]}\nmanual_seed: 5\n"
    text = text.replace("name: run", "name: '1e5'").replace(
        "upscale: 4", "upscale: 4, norm: ~, text: 'no', other: 'true', deep: [[1, 2.5], {a: '~'}]"
    )
    options = load_options(write(tmp_path, text), ["datasets.train.degradation={preset: hggt, first: {noise: ~, jpeg_range: [60, 70]}}"])
    again = load_options(write(tmp_path, options_to_yaml(options), "again.yml"))
    assert again == options
    assert options_to_yaml(again) == options_to_yaml(options)
    assert again.network_g.arguments == {
        "upscale": 4,
        "norm": None,
        "text": "no",
        "other": "true",
        "deep": [[1, 2.5], {"a": "~"}],
    }
    assert yaml.safe_load(options_to_yaml(options))["precision"] == "no"


def test_options_never_change():
    options = Options.model_validate({"name": "a", "scale": 2, "network_g": {"type": "SwinIR"}})
    with pytest.raises(ValueError, match="frozen"):
        options.scale = 3
    arguments = options.network_g.arguments
    arguments["x"] = 1
    assert options.network_g == Component(type="SwinIR")


def test_every_key_has_a_description():
    missing = [key for key in all_keys() if "degradation" not in key and not block_at(key[:-1]).model_fields[key[-1]].description]
    assert missing == []


def test_schema_is_json_with_descriptions_and_accepts_single_blocks():
    schema = json.loads(schema_text())
    assert schema["additionalProperties"] is False
    train = schema["$defs"]["TrainOptions"]["properties"]
    assert train["total_iter"]["description"] == "Optimizer steps."
    assert {"$ref": "#/$defs/RewardOptions"} in train["reward_opt"]["anyOf"]


def test_the_committed_schema_is_up_to_date():
    """`python -m sr_iqa.reference` rewrites it."""
    assert (ROOT / "options" / "schema.json").read_text() == schema_text() + "\n"
    assert (ROOT / "options" / "metric_schema.json").read_text() == schema_text(MetricOptions, METRIC_FILE) + "\n"
    assert (ROOT / "options" / "study_schema.json").read_text() == schema_text(StudyOptions, STUDY_FILE) + "\n"

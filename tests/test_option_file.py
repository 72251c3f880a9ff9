"""Option files of every kind through `sr-iqa config check` and `config show`."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sr_iqa.cli import app
from sr_iqa.config import OptionsError
from sr_iqa.config.metric_models import load_metric_options
from sr_iqa.errors import UsageError
from sr_iqa.study.option_file import check_option_file, checked_options

OPTIONS = Path(__file__).parents[1] / "options"
METRIC, STUDY, TRAIN = OPTIONS / "iqa" / "nano_pairs.yml", OPTIONS / "compare" / "mini_hggt.yml", OPTIONS / "demo" / "base_x4.yml"


@pytest.mark.parametrize("path", [METRIC, STUDY, TRAIN], ids=lambda path: path.stem)
def test_every_kind_is_told_by_its_keys(path):
    notes = check_option_file(path)
    assert all("is not there" in note for note in notes) and bool(notes) == (path == TRAIN)


def test_mistakes_are_named_in_the_words_of_the_files_kind(tmp_path):
    with pytest.raises(OptionsError, match="--set network.type=nanno: network.type: nanno is no network"):
        check_option_file(METRIC, ["network.type=nanno"])
    study = yaml.safe_load(STUDY.read_text())
    first = next(iter(study["variants"]))
    study["variants"][first] = {"train.total_itr": 5}
    (tmp_path / "study.yml").write_text(yaml.safe_dump({**study, "base": str(STUDY.parent / study["base"])}, sort_keys=False))
    with pytest.raises(OptionsError, match=f"variant {first}: .*train.total_itr: unknown key; did you mean total_iter"):
        check_option_file(tmp_path / "study.yml")
    with pytest.raises(UsageError, match="is a study file"):
        check_option_file(STUDY, ["name=x"])


def test_a_metrics_options_are_shown_complete_and_can_be_loaded_again(tmp_path):
    shown = CliRunner().invoke(app, ["config", "show", "-opt", str(METRIC), "--set", "train.total_iter=7"])
    assert shown.exit_code == 0, shown.output
    (tmp_path / "again.yml").write_text(shown.stdout)
    assert load_metric_options(tmp_path / "again.yml").options == checked_options(METRIC, ["train.total_iter=7"])[0]


def test_the_command_takes_files_of_all_kinds_at_once(tmp_path):
    (tmp_path / "bad.yml").write_text("name: x\nnetwork: {type: nano}\n")
    result = CliRunner().invoke(app, ["config", "check", str(METRIC), str(STUDY), str(tmp_path / "bad.yml")])
    assert result.exit_code == 2 and f"{METRIC}: ok" in result.output and f"{STUDY}: ok" in result.output
    assert "bad.yml: datasets: missing" in result.output

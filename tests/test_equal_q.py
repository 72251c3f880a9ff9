"""Variants at equal Q: read from the curves, by hand; and in the words, the table and the page."""

import pytest

from sr_iqa.errors import UserError
from sr_iqa.study.equal_q import compare_at_equal_q, describe_equal_q, equal_q_table
from sr_iqa.study.report import write_report
from sr_iqa.study.results import merge_seeds
from tests.test_report import curve, pictures, study, variant

MEANS = {"psnr": 24.0, "psnr_original": 28.0, "nano": 50.0, "niqe": 5.0, "grid": 0.2}


def compared(*names, **curves):
    results = study(**curves)
    results["equal_q"] = compare_at_equal_q(results, names)
    return results


def test_each_is_read_where_it_first_reaches_what_all_reach():
    found = compared("lora", "full")["equal_q"]
    assert found["level"] == 50  # lora's highest
    assert found["rows"]["lora"] == {"step": 80, "nano": 50, "niqe": 5, "grid": 0.2}
    assert found["rows"]["full"] == {"step": 40, "nano": 50, "niqe": 6, "grid": pytest.approx(0.3)}


def test_between_two_validations_linearly_and_the_mean_over_seeds():
    results = study()
    slow = curve((0, 40, 5, 0.1), (80, 60, 9, 0.5))
    results["variants"]["full"] = merge_seeds(
        [variant(0, curve=slow, **MEANS), variant(1, curve=curve((0, 40, 5, 0.1), (80, 50, 7, 0.1)), **MEANS)]
    )
    row = compare_at_equal_q(results, ["lora", "full"])["rows"]["full"]
    assert row["step"] == (40 + 80) / 2 and row["niqe"] == (7 + 7) / 2 and row["grid"] == pytest.approx((0.3 + 0.1) / 2)


def test_no_common_q_is_said_and_no_curve_is_an_error(tmp_path):
    results = compared("lora", "full", lora=curve((0, 40, 5, 0.1), (80, 38, 5, 0.1)))
    assert results["equal_q"]["rows"] == {} and "no nano that all of these" in describe_equal_q(results)
    assert equal_q_table(results) == ([], [])
    assert "At equal nano" in write_report(results, pictures(), tmp_path).report.read_text()
    with pytest.raises(UserError, match="original cannot be shown at equal nano without its curve"):
        compare_at_equal_q(study(), ["lora", "original"])


def test_the_table_is_in_the_results_and_on_the_page(tmp_path):
    results = compared("lora", "full")
    heads, rows = equal_q_table(results)
    assert heads == ["variant", "steps", "niqe ↓", "grid ↓"] and [row[:2] for row in rows] == [["lora", "80"], ["full", "40"]]
    written = write_report(results, pictures(), tmp_path)
    assert "## At equal nano" in written.table.read_text() and "| full | 40 |" in written.table.read_text()
    page = written.report.read_text()
    assert 'id="equal-q"' in page and "first reaches nano 50.00" in page

"""`sr-iqa infer`, again and in spite of failures: what is done, whose files are whose, and what goes wrong with single images."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from sr_iqa.adapters import inject
from sr_iqa.archs import build_network
from sr_iqa.config.models import LoraOptions
from sr_iqa.errors import UserError
from sr_iqa.images import read_image, write_png
from sr_iqa.inference.budget import parse_dial
from sr_iqa.inference.folder import upscale_folder
from sr_iqa.inference.inputs import Naming, find_jobs
from sr_iqa.inference.pictures import write_picture
from sr_iqa.inference.plan import plan_folder
from sr_iqa.inference.progress import ImageProgress
from sr_iqa.inference.record import NAME, Record
from sr_iqa.inference.upscaler import Upscaler
from tests.helpers import picture
from tests.test_infer_folder import RRDB, Enlarge, doubled, images, infer, made

# ---------------------------------------------------------------- what is done


def test_a_source_that_is_replaced_by_an_older_file_is_done_again_and_times_to_come_are_not(tmp_path):
    images(tmp_path / "in", "a.png", "b.png")
    os.utime(tmp_path / "in" / "a.png", (4e9, 4e9))  # in the year 2096
    run = lambda: infer(Enlarge(), [tmp_path / "in"], tmp_path / "out").done  # noqa: E731
    assert run() == 2 and run() == 0
    write_png(tmp_path / "in" / "b.png", picture(12, 5))
    os.utime(tmp_path / "in" / "b.png", (1e9, 1e9))
    assert run() == 1 and np.array_equal(read_image(tmp_path / "out" / "b.png"), doubled(picture(12, 5)))
    assert run() == 0


def test_lines_that_a_kill_cut_short_cost_their_result_only(tmp_path):
    images(tmp_path / "in", "a.png", "b.png")
    run = lambda: infer(Enlarge(), [tmp_path / "in"], tmp_path / "out").done  # noqa: E731
    run()
    lines = tmp_path / "out" / NAME
    lines.write_bytes(lines.read_bytes()[:-9])
    assert run() == 1 and run() == 0  # b.png was begun, so it is ours
    assert [json.loads(line)["result"] for line in lines.read_text().splitlines()[-2:]] == ["b.png", "b.png"]


def test_a_kill_at_any_line_leaves_no_old_result_for_a_new_one(tmp_path):
    """The source has changed, the new result is there or not, and its last line is not."""
    images(tmp_path / "in", "a.png")
    run = lambda: infer(Enlarge(), [tmp_path / "in"], tmp_path / "out").done  # noqa: E731
    run()
    write_png(tmp_path / "in" / "a.png", picture(12, 7))
    Record(tmp_path / "out").begin(tmp_path / "out" / "a.png")
    assert run() == 1 and np.array_equal(read_image(tmp_path / "out" / "a.png"), doubled(picture(12, 7)))


@pytest.mark.parametrize("inputs", ["folder", "pattern"])
def test_results_among_the_inputs_are_no_inputs_of_a_rerun(tmp_path, monkeypatch, inputs):
    monkeypatch.chdir(tmp_path)
    images(Path("s1"), "a.png", "b.png")
    inputs = ["s1"] if inputs == "folder" else ["s1/*.png"]
    run = lambda **options: infer(Enlarge(), inputs, Path("s1"), suffix="_x2", **options).done  # noqa: E731
    assert run(compare=True) == 2 and run() == 0 and run(recursive=True, compare=True) == 0
    images(Path("s1"), "c.png")
    assert run() == 1 and sorted(path.name for path in Path("s1").glob("*_x2*")) == ["a_x2.png", "b_x2.png", "c_x2.png"]


def test_patterns_do_not_find_what_is_below_the_output_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(Path(), "a.png", "deep/b.png", "out/other.png")
    for done in (2, 0):
        assert infer(Enlarge(), ["**/*.png"], Path("out"), recursive=True).done == done
    assert sorted(map(str, Path("out").rglob("*.png"))) == ["out/a.png", "out/deep/b.png", "out/other.png"]


def test_a_link_to_another_input_is_an_input(tmp_path):
    images(tmp_path / "in", "a.png")
    (tmp_path / "in" / "b.png").symlink_to("a.png")
    assert infer(Enlarge(), [tmp_path / "in", tmp_path / "in" / "a.png"], tmp_path / "out").done == 2
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "out" / "b.png").read_bytes()
    with pytest.raises(UserError, match="overwrite"):  # through a link, too
        (tmp_path / "twice").mkdir()
        (tmp_path / "twice" / "a.png").symlink_to(tmp_path / "in" / "a.png")
        find_jobs([tmp_path / "in" / "a.png"], Naming(tmp_path / "twice"))


def test_results_of_other_names_do_not_stand_in_the_way(tmp_path):
    images(tmp_path / "in", "a.png", "b.png")
    net = inject(build_network(RRDB), LoraOptions(rank=1), "RRDBNet")

    def run(dial, suffix="", overlap=16, **options):
        plan = plan_folder([tmp_path / "in"], Naming(tmp_path / "out", suffix=suffix), parse_dial(*dial), **options)
        return upscale_folder(Upscaler(net, overlap=overlap), plan, quiet=True).done

    assert run(["0,0.5,1"]) == 2 and run(["0,0.5"]) == 0 and run(["0,0.25"]) == 2
    assert run(["0.7"], "_mine") == 2 and run(["0.7"], "_yours") == 2
    for dial, options, words in ((["0.8"], {}, "scale 0.7 -> 0.8"), (["0.7"], {"overlap": 32}, "overlap 16 -> 32")):
        with pytest.raises(UserError, match=words):
            run(dial, "_mine", **options)
    assert run(["0.8"], "_mine", fresh=True) == 2 and run(["0.8"], "_mine") == 0 and run(["0.7"], "_yours") == 0


def test_notes_belong_to_one_result_of_a_budget(tmp_path):
    """Not to one of the same name in another folder, nor to one that was made otherwise since."""
    images(tmp_path / "in", "x/a.png", "y/a.png", size=16)
    net = inject(build_network(RRDB), LoraOptions(rank=1), "RRDBNet")

    def page(*dial, **options):
        naming = Naming(tmp_path / "out")
        upscale_folder(
            Upscaler(net), plan_folder([tmp_path / "in"], naming, parse_dial(*dial), recursive=True, compare=True, **options), quiet=True
        )
        return (tmp_path / "out" / "compare.html").read_text()

    page("auto", "psnr:30")
    record = Record(tmp_path / "out")
    record.begin(tmp_path / "out" / "x" / "a.png")
    assert record.note(tmp_path / "out" / "y" / "a.png") and not record.note(tmp_path / "out" / "x" / "a.png")
    assert "adapter scale" in page("auto", "psnr:30")
    assert "adapter scale" not in page("1", fresh=True)


def test_the_list_is_not_written_through_a_link(tmp_path):
    images(tmp_path / "in", "a.png")
    (tmp_path / "thesis").write_bytes(b"thesis")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).symlink_to(tmp_path / "thesis")
    with pytest.raises(UserError, match="infer.jsonl: is a link"):
        infer(Enlarge(), [tmp_path / "in"], tmp_path / "out")
    assert (tmp_path / "thesis").read_bytes() == b"thesis"


# ---------------------------------------------------------------- what goes wrong with one


@pytest.mark.parametrize("batch", [1, 8])
def test_a_picture_that_the_format_cannot_hold_costs_no_other_and_no_pass(tmp_path, batch):
    for k in range(5):
        write_picture(tmp_path / "in" / f"{k}.png", made(12, 12, alpha=k == 2))
    net = Enlarge()
    with pytest.raises(UserError, match=r"^1 of 5 images could not be upscaled:\n.*2.jpg: the picture has transparency"):
        infer(net, [tmp_path / "in"], tmp_path / "out", format="jpg", batch=batch, compare=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
    assert sum(shape[0] for shape in net.shapes) == 4 and (tmp_path / "out" / "compare.html").is_file()


def test_with_a_page_that_cannot_be_written_the_failures_are_still_told(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"1 of 1 images could not be upscaled:\n.*bad.png"):
        infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", compare=True)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_name_that_is_too_long_is_one_failure_and_a_full_disk_the_end(tmp_path, monkeypatch, batch):
    images(tmp_path / "in", "a.png", f"b{'x' * 240}.png", "c.png")
    with pytest.raises(UserError, match=r"^1 of 3 images could not(.|\n)*bxx.*the result cannot be written .File name too long"):
        infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", suffix="_twice_as_large", batch=batch)
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    (tmp_path / "in" / "0.png").write_bytes(b"junk")

    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("sr_iqa.inference.work.write_bands", full)
    with pytest.raises(UserError, match=r"1 of 4 images could not(.|\n)*0.png: unreadable(.|\n)*No space left(.|\n)*when there is room"):
        infer(Enlarge(), [tmp_path / "in"], tmp_path / "other")


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path):
    images(tmp_path / "in", "a.png", "deep/b.png")
    left = [tmp_path / "out" / name for name in (".tmp-0123abcd-a.png", "deep/.tmp-89abcdef-b.png")]
    others = [tmp_path / "out" / name for name in (".tmp-0123abcd-z.png", ".tmp-mine-a.png", "deep/.tmp-0123abcd-a.png")]
    for path in left + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a part")
    infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", recursive=True)
    assert [path.exists() for path in left + others] == [False] * 2 + [True] * 3


def test_failed_images_move_the_bar_too(tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr("sr_iqa.inference.folder.ImageProgress", lambda *given: bars.append(ImageProgress(*given)) or bars[0])
    write_picture(tmp_path / "in" / "clear.png", made(8, 8, alpha=True))
    images(tmp_path / "in", "a.png", f"{'x' * 245}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"junk")
    with pytest.raises(UserError, match="3 of 4"):
        infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", format="jpg", suffix="_longer", batch=2)
    assert bars[0].done == 4


def test_files_that_are_no_images_are_counted(tmp_path):
    images(tmp_path / "in", "a.png")
    for name in ("photo.heic", "notes.txt", ".hidden"):
        (tmp_path / "in" / name).write_bytes(b"")
    said = []
    infer(Enlarge(), [tmp_path / "in"], tmp_path / "in", said.append, suffix="_x2")
    infer(Enlarge(), [tmp_path / "in"], tmp_path / "in", said.append, suffix="_x2")
    assert [line for line in said if "left out" in line] == ["2 files with other suffixes left out"] * 2


# ---------------------------------------------------------------- the page's place


def test_results_are_not_put_where_the_page_has_its_pictures(tmp_path):
    images(tmp_path / "in", "a.png", "compare_files/b.png")
    with pytest.raises(UserError, match="compare_files/b.png: with --compare"):
        plan_folder([tmp_path / "in"], Naming(tmp_path / "out"), recursive=True, compare=True)
    assert infer(Enlarge(), [tmp_path / "in"], tmp_path / "out", recursive=True).done == 2
    before = (tmp_path / "out" / "compare_files" / "b.png").read_bytes()
    with pytest.raises(UserError, match="compare_files: holds something else"):  # made before, without --compare
        infer(Enlarge(), [tmp_path / "in" / "a.png"], tmp_path / "out", compare=True)
    assert (tmp_path / "out" / "compare_files" / "b.png").read_bytes() == before


def test_a_page_of_somebody_else_stays(tmp_path):
    images(tmp_path / "in", "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "compare.html").write_text("<title>mine</title>")
    net = Enlarge()
    with pytest.raises(UserError, match="compare.html: is there already, and no page of this kind"):
        infer(net, [tmp_path / "in"], tmp_path / "out", compare=True)
    assert not net.shapes and (tmp_path / "out" / "compare.html").read_text() == "<title>mine</title>"

"""The dial's page in headless Chromium: the slider, the curve, the pictures, keyboard, no console errors, and axe-core where it is at hand.

Needs what tests/test_report_browser.py needs.
"""

import os
from itertools import pairwise

import cv2
import numpy as np
import pytest

from sr_iqa.images import write_png
from sr_iqa.study.dials import add_tradeoff_statistics
from sr_iqa.study.meetings import compare_dials
from sr_iqa.study.pictures import SetImages
from sr_iqa.study.tradeoff_report import write_tradeoff
from tests.helpers import picture
from tests.test_report import column, study
from tests.test_report_browser import CHROMIUM, browser  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]
SCALES = (0.0, 0.5, 1.0)


def rows(psnr, nano, scales=SCALES):
    return [
        {
            "scale": s,
            "seed": 0,
            "metrics": {"psnr_original": column("psnr_original", p), "nano": column("nano", q), "niqe": column("niqe", 9 - s)},
        }
        for s, p, q in zip(scales, psnr, nano, strict=True)
    ]


def results():
    """An adapter's curve, one between two networks, and a network of a hostile name."""
    found = study()
    lora, full = (found["variants"][name] for name in ("lora", "full"))
    found["variants"] = {"lora": {**lora, "scales": rows((30.0, 29.0, 27.0), (40.0, 44.0, 48.0))}, "<i>full</i>": full}
    found["dni"] = {"between": ["a", "b"], "scales": rows((30.0, 28.0, 24.0), (40.0, 50.0, 60.0))}
    add_tradeoff_statistics(found)
    compare_dials(found)
    return found


def images(folder, found):
    """Sets whose outputs differ at every scale and on both curves."""
    sets = {}
    for k, name in enumerate(found["data"]["sets"]):
        files = {}
        for d, curve in enumerate(("lora", "a → b")):
            files[curve] = [folder / f"{k}{d}{i}.png" for i in range(len(SCALES))]
            for i, path in enumerate(files[curve]):
                write_png(path, picture(64, 100 * k + 10 * d + i))
        sets[name] = SetImages({"original": picture(64, k), "01": picture(64, 50 + k)}, {}, picture(16, k), files)
    return sets


@pytest.fixture
def opened(browser, tmp_path):  # noqa: F811
    """Opens the page of results and pictures; fails the test if anything is written to the console as an error."""
    errors, contexts = [], []

    def open_page(found, pictures, **look):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **look}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(write_tradeoff(found, pictures, tmp_path / "out", "Dial").report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(opened, tmp_path, request):
    """The page of two curves."""
    found = results()
    return opened(found, images(tmp_path, found), **getattr(request, "param", {}))


def state(page):
    """(scale in words, source of the picture, names of the pressed points)."""
    pressed = page.eval_on_selector_all(".pick[aria-pressed=true]", "es => es.map(e => e.getAttribute('aria-label').split(':')[0])")
    values = page.locator("#dial-values").text_content()
    return values.split(".  ")[0].split(". ")[0], page.eval_on_selector(".stage img", "e => e.src"), pressed


def test_the_slider_runs_through_real_outputs_by_keyboard_and_marks_its_point(page):
    seen = [state(page)]
    page.focus("#dial-scale")
    for _ in SCALES[1:]:
        page.keyboard.press("ArrowLeft")
        seen.append(state(page))
    assert [words for words, _, _ in seen] == [f"lora, s = {s}" for s in ("1", "0.5", "0")]
    assert len({source for _, source, _ in seen}) == 3
    assert [pressed for _, _, pressed in seen] == [[f"lora, s = {s}"] for s in ("1", "0.5", "0")]
    assert page.get_attribute("#dial-scale", "aria-valuetext").startswith("s = 0, nano ↑ 39.50, psnr_original ↑ 29.50")
    assert page.eval_on_selector("#dial-scale", "e => e.step") == "1"


def test_a_point_moves_the_slider_and_another_curve_by_mouse_and_keyboard(page):
    page.get_by_role("checkbox", name="all of the range").check()
    page.get_by_role("button", name="a → b, α = 0.5").click()
    assert state(page)[0] == "a → b, α = 0.5" and page.locator("#dial-scale").input_value() == "1"
    page.get_by_role("button", name="lora, s = 0:").focus()
    page.keyboard.press("Enter")
    assert state(page)[0] == "lora, s = 0" and state(page)[2] == ["lora, s = 0"]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("lora, s = 0:"), "the focus stays, drawn anew"
    page.select_option("#dial-curve", label="a → b")
    assert state(page)[0] == "a → b, α = 0"


def places(page):
    return page.eval_on_selector_all(".stage img", "es => es.map(e => e.style.transform)")


def test_the_stage_has_keys_and_both_pictures_share_zoom_and_place(page):
    assert page.locator("#dial-factor").text_content() == "5:1", "64 pixels in a stage of over 320"
    page.locator(".stage").first.focus()
    page.keyboard.press("ArrowLeft")
    for _ in range(4):
        page.keyboard.press("+")
    assert state(page)[0] == "lora, s = 0.5" and page.locator("#dial-factor").text_content() == "8:1"
    seen = [places(page)]
    box = page.locator(".stage").last.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 80, steps=4)
    page.mouse.up()
    seen.append(places(page))
    page.keyboard.press("Shift+ArrowRight")
    seen.append(places(page))
    assert all(a == b for a, b in seen) and len({a for a, _ in seen}) == 3 and state(page)[0] == "lora, s = 0.5"


def test_the_wheel_scrolls_the_page_until_a_picture_is_chosen(page):
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box, before = stage.bounding_box(), page.evaluate("scrollY")
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"scrollY > {before}")
    assert page.locator("#dial-zoom").input_value() == "5"
    stage.focus()
    page.mouse.move(stage.bounding_box()["x"] + 50, stage.bounding_box()["y"] + 50)
    page.mouse.wheel(0, -100)
    page.wait_for_function("document.getElementById('dial-zoom').value === '6'")
    assert stage.evaluate("e => getComputedStyle(e).touchAction") == "none"
    page.locator("#dial-scale").focus()
    assert stage.evaluate("e => getComputedStyle(e).touchAction") == "pan-y"


def test_large_pictures_are_shown_pixel_by_pixel(opened, tmp_path):
    """Vertical lines of one pixel, black and white: not one is lost or doubled at 1:1."""
    found = results()
    lines = np.repeat((np.indices((400, 400))[1] % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    for k in range(3):
        write_png(tmp_path / f"{k}.png", lines)
    files = {"lora": [tmp_path / f"{k}.png" for k in range(3)]}
    page = opened(found, {name: SetImages({"original": lines}, {}, None, files) for name in found["data"]["sets"]})
    assert page.locator("#dial-factor").text_content() == "1:1"
    page.wait_for_timeout(200)
    page.locator(".stage").first.screenshot(path=tmp_path / "stage.png")
    row = cv2.imread(str(tmp_path / "stage.png"))[150, 10:-10, 0].astype(int)
    assert (np.abs(np.diff(row)) > 200).mean() > 0.99
    page.locator("#dial-zoom").fill("0")
    assert page.locator("#dial-factor").text_content().startswith("whole picture (0.")
    assert page.eval_on_selector(".stage img", "e => getComputedStyle(e).imageRendering") == "auto"


def test_a_curve_without_pictures_has_values_and_no_stage(opened, tmp_path):
    found = results()
    pictures = {name: SetImages(entry.gts, {}, entry.lq, {"lora": entry.scaled["lora"]}) for name, entry in images(tmp_path, found).items()}
    page = opened(found, pictures)
    page.select_option("#dial-curve", label="a → b")
    assert state(page)[0] == "a → b, α = 1" and not page.locator(".stage").first.is_visible()
    page.select_option("#dial-curve", label="lora")
    assert page.locator(".stage").first.is_visible()


def test_many_scales_are_written_where_there_is_room(opened):
    found, scales = results(), [k / 20 for k in range(21)]
    del found["dni"]
    found["variants"]["lora"]["scales"] = rows([30 - 3 * s for s in scales], [40 + 8 * s for s in scales], scales)
    add_tradeoff_statistics(found)
    compare_dials(found)
    page = opened(found, {}, viewport={"width": 360, "height": 740})
    spans = page.eval_on_selector_all("#dial-ends span", "es => es.map(e => e.getBoundingClientRect()).map(b => [b.x, b.right])")
    assert 3 < len(spans) < 21 and all(a[1] < b[0] for a, b in pairwise(spans))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_axes_fit_the_chosen_curve_unless_all_is_shown(page):
    """The Gold Standard at 55 and the other curve, up to 60, lie beyond the first one's 40 to 48."""
    svg = page.locator(".dial-plane svg")
    names = [name.split(":")[0] for name in page.eval_on_selector_all(".pick", "es => es.map(e => e.getAttribute('aria-label'))")]
    assert names == ["a → b, α = 0", "lora, s = 0", "lora, s = 0.5", "lora, s = 1"], "the chosen curve lies on top"
    assert "Gold Standard" not in svg.text_content()
    page.get_by_role("checkbox", name="all of the range").check()
    assert page.locator(".pick").count() == 6 and "Gold Standard" in svg.text_content()
    page.get_by_role("checkbox", name="Gold Standard").uncheck()
    assert "Gold Standard" not in svg.text_content()
    assert "1 <i>full</i>" in page.locator("fieldset").text_content(), "numbered as in the table: only what has a number there"
    assert page.locator("#table .dot", has_text="1").count() == 1


def test_pictures_and_references_can_be_chosen(page):
    before = [state(page)[1], page.eval_on_selector(".stage >> nth=1", "e => e.firstChild.src")]
    page.locator(".thumb").nth(1).click()
    after = [state(page)[1], page.eval_on_selector(".stage >> nth=1", "e => e.firstChild.src")]
    assert before[0] != after[0] and before[1] != after[1]
    options = page.eval_on_selector_all("#dial-reference option", "es => es.map(e => e.textContent)")
    assert options[0] == "LQ (bicubic)" and options[1].startswith("GT original") and options[2].startswith("GT 01")
    page.select_option("#dial-reference", options[2])
    assert "GT 01" in page.locator("figcaption").last.text_content()


def test_what_is_far_off_can_be_left_out_and_axes_chosen(page):
    page.get_by_role("checkbox", name="all of the range").check()
    page.get_by_role("checkbox", name="a → b").uncheck()
    assert page.locator(".pick").count() == 3
    page.select_option("#dial-x", "niqe")
    assert page.locator(".dial-plane svg").get_attribute("aria-label").startswith("nano against niqe")
    assert "<i>full</i>" in page.locator("fieldset").text_content() and page.locator("i").count() == 0


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
@pytest.mark.skipif("AXE_JS" not in os.environ, reason="AXE_JS does not name axe-core")
def test_axe_finds_nothing_serious(page):
    page.add_script_tag(path=os.environ["AXE_JS"])
    violations = page.evaluate("axe.run()")["violations"]
    assert not [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]


def test_nothing_is_wider_than_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

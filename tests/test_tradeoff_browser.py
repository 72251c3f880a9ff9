"""The dial's page in headless Chromium: the slider, the curve, the pictures, keyboard, no console errors, and axe-core where it is at hand.

Needs what tests/test_report_browser.py needs.
"""

import os

import pytest

from sr_iqa.images import write_png
from sr_iqa.study.dials import add_tradeoff_statistics, compare_dials
from sr_iqa.study.pictures import SetImages
from sr_iqa.study.tradeoff_report import write_tradeoff
from tests.helpers import picture
from tests.test_report import column, study
from tests.test_report_browser import CHROMIUM, browser  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]
SCALES = (0.0, 0.5, 1.0)


def rows(psnr, nano):
    return [
        {"scale": s, "metrics": {"psnr_original": column("psnr_original", p), "nano": column("nano", q), "niqe": column("niqe", 9 - s)}}
        for s, p, q in zip(SCALES, psnr, nano, strict=True)
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
def page(browser, tmp_path, request):  # noqa: F811
    """The page of two curves, opened; fails the test if anything is written to the console as an error."""
    errors, found = [], results()
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **getattr(request, "param", {}))
    opened = context.new_page()
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(write_tradeoff(found, images(tmp_path, found), tmp_path / "out", "Dial").report.as_uri())
    yield opened
    context.close()
    assert not errors


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
    page.get_by_role("button", name="a → b, α = 0.5").click()
    assert state(page)[0] == "a → b, α = 0.5" and page.locator("#dial-scale").input_value() == "1"
    page.get_by_role("button", name="lora, s = 0:").focus()
    page.keyboard.press("Enter")
    assert state(page)[0] == "lora, s = 0" and state(page)[2] == ["lora, s = 0"]
    page.select_option("#dial-curve", label="a → b")
    assert state(page)[0] == "a → b, α = 0"


def test_the_stage_has_keys_and_both_pictures_share_zoom_and_place(page):
    page.locator(".stage").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    assert state(page)[0] == "lora, s = 0.5"
    box = page.locator(".stage").last.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 80, steps=4)
    page.mouse.up()
    places = page.eval_on_selector_all(".stage img", "es => es.map(e => e.style.transform)")
    assert places[0] == places[1] and "scale(1.5)" in places[0] and "translate(0%, 0%)" not in places[0]


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

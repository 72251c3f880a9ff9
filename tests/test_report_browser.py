"""The report in headless Chromium: sorting, the slider, shared zoom, keyboard, no console errors, and axe-core where it is at hand.

Needs `pip install playwright` and a Chromium on the PATH; AXE_JS names axe-core's axe.min.js. Skipped where they are missing.
"""

import os
import shutil

import numpy as np
import pytest

from sr_iqa.study.report import write_report
from tests.test_report import pictures, study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        yield p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser, tmp_path, request):
    """The report of a small study, opened; fails the test if anything is written to the console as an error."""
    errors = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **getattr(request, "param", {}))
    opened = context.new_page()
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(write_report(study(), pictures(), tmp_path).report.as_uri())
    yield opened
    context.close()
    assert not errors


def names(page):
    return page.eval_on_selector_all("table.sortable tbody th", "cells => cells.map(c => c.textContent.replace(/^\\d+/, ''))")


def look(page):
    """(clip, transform) of the upper picture."""
    return page.eval_on_selector(".stage .over", "e => [e.style.clipPath, e.style.transform]")


def test_the_table_sorts_by_mouse_and_by_keyboard_and_gold_stays_on_top(page):
    assert names(page) == ["Gold Standard", "original", "amo", "lora", "full"]
    head = page.locator("table.sortable button.sort", has_text="psnr_original")
    head.click()
    assert names(page)[0] == "Gold Standard" and names(page)[-1] == "original"
    head.focus()
    page.keyboard.press("Enter")
    assert names(page)[:3] == ["Gold Standard", "original", "amo"]
    assert page.locator('th[aria-sort="descending"]').count() == 1


def test_slider_zoom_and_pan_by_keyboard_and_mouse(page):
    page.locator("[data-compare]").first.click()
    assert page.locator("#left").input_value() == "GT original"
    before = look(page)
    page.keyboard.press("ArrowRight")
    assert look(page)[0] != before[0] and look(page)[1] == before[1]
    page.keyboard.press("+")
    assert "scale(2.5)" in look(page)[1]
    box = page.locator(".stage").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.52 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], middle, steps=4)
    page.mouse.up()
    assert float(page.locator("#wipe").input_value()) == pytest.approx(25, abs=1)
    zoomed = look(page)
    page.mouse.move(box["x"] + 0.8 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], middle, steps=4)
    page.mouse.up()
    assert look(page)[1] != zoomed[1]
    both = page.eval_on_selector_all(".stage img", "images => images.map(i => i.style.transform)")
    assert both[0] == both[1]
    page.keyboard.press("Escape")
    assert not page.eval_on_selector("#compare", "e => e.open")


def test_the_line_is_where_the_pictures_meet(page, tmp_path):
    """Left of the line the left picture's pixels, right of it the right one's."""
    import cv2

    page.locator("[data-compare]").first.click()
    page.select_option("#left", "LQ")
    page.select_option("#right", "LQ")
    page.wait_for_timeout(200)
    page.locator(".stage").screenshot(path=tmp_path / "same.png")
    page.select_option("#right", "full")
    page.wait_for_timeout(200)
    page.locator(".stage").screenshot(path=tmp_path / "half.png")
    difference = np.abs(cv2.imread(str(tmp_path / "same.png")).astype(int) - cv2.imread(str(tmp_path / "half.png"))).sum(2)
    middle = difference.shape[1] // 2
    assert difference[:, : middle - 24].max() == 0 and difference[:, middle + 24 :].mean() > 5


def test_tiles_flip_by_keyboard(page):
    page.locator(".tile").first.click()
    first = page.eval_on_selector("#viewer img", "e => e.src")
    page.keyboard.press("ArrowRight")
    assert page.eval_on_selector("#viewer img", "e => e.src") != first
    page.keyboard.press("ArrowLeft")
    assert page.eval_on_selector("#viewer img", "e => e.src") == first


def circles(page):
    """Variant number -> centre, in the plane of chosen columns."""
    script = "(svg) => [...svg.querySelectorAll('circle')].map((c, i) => [i + 1, c.cx.baseVal.value, c.cy.baseVal.value])"
    return {number: (x, y) for number, x, y in page.eval_on_selector("#any-plane svg", script)}


def test_the_plane_of_chosen_columns_puts_better_right_and_up(page):
    page.select_option("#plane-x", "psnr_original")
    page.select_option("#plane-y", "nano")
    places = circles(page)
    means = {number: entry["metrics"] for number, entry in enumerate(study()["variants"].values(), 1)}
    assert len(places) == 4
    for a in places:
        for b in places:
            for axis, column in ((0, "psnr_original"), (1, "nano")):
                moved = (places[a][axis] - places[b][axis]) * (-1 if axis else 1)
                assert np.sign(round(moved, 6)) == np.sign(means[a][column]["mean"] - means[b][column]["mean"])
    assert "Gold Standard" in page.locator("#any-plane svg").text_content()
    page.get_by_label("1 original").uncheck()
    assert len(circles(page)) == 3 and circles(page)[1] != places[2]
    page.get_by_label("1 original").check()
    assert circles(page) == places
    page.select_option("#plane-x", "niqe")  # lower is better
    assert circles(page)[1][0] < circles(page)[3][0]
    assert page.locator("#any-plane svg").get_attribute("aria-label").startswith("nano against niqe")


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
@pytest.mark.skipif("AXE_JS" not in os.environ, reason="AXE_JS does not name axe-core")
def test_axe_finds_nothing_serious(page):
    page.add_script_tag(path=os.environ["AXE_JS"])
    violations = page.evaluate("axe.run()")["violations"]
    assert not [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]


def test_nothing_is_wider_than_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

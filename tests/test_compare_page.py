"""The page of `infer --compare`: what is in it and beside it, and (slow, as tests/test_report_browser.py) what it does in Chromium."""

import json
import os
import re
import shutil
from urllib.parse import unquote

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from sr_iqa.errors import UserError
from sr_iqa.images import ImageError
from sr_iqa.inference.compare import INPUT, Compared, write_comparison
from sr_iqa.inference.pictures import Picture, read_picture, write_picture
from tests.helpers import picture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]
NASTY = "</script><img src=x onerror=alert(1)>&\"'"


def larger(image, times=4, shift=0):
    return np.clip(image.repeat(times, 0).repeat(times, 1).astype(int) + shift, 0, 255).astype(np.uint8)


def compared(folder, names=("a", "b"), size=32):
    """Inputs and outputs as `infer` leaves them: two scales of each, and a title that only the first image has."""
    images = []
    for seed, name in enumerate(names):
        image = picture(size, seed)
        write_picture(folder / "in" / f"{seed}.png", Picture(image))
        outputs = {}
        for k, title in enumerate(("scale 0", "scale 1", "other")[: 3 if seed == 0 else 2]):
            outputs[title] = folder / "out" / f"{seed} {k}#.png"
            write_picture(outputs[title], Picture(larger(image, shift=40 * k)))
        images.append(Compared(name, folder / "in" / f"{seed}.png", outputs, {"scale 1": f"psnr 3{seed}.0"}))
    return images


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)[1])


def test_inputs_are_enlarged_bicubically_and_outputs_stay_where_they_are(tmp_path):
    images = compared(tmp_path)
    page = write_comparison(tmp_path / "out" / "page.html", iter(images), "A title")
    first, second = data_of(page)
    assert list(first["pictures"]) == [INPUT, "scale 0", "scale 1", "other"] and list(second["pictures"]) == [INPUT, "scale 0", "scale 1"]
    for title, path in images[0].outputs.items():
        assert page.parent / unquote(first["pictures"][title]) == path
    assert sorted(path.name for path in (tmp_path / "out" / "page_files").iterdir()) == ["0000_input.png", "0001_input.png"]
    enlarged = read_picture(page.parent / first["pictures"][INPUT]).pixels
    expected = Image.fromarray(picture(32)).resize((128, 128), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(enlarged, np.asarray(expected))
    assert first["notes"] == {"scale 1": "psnr 30.0"} and "32 × 32 → 128 × 128" in page.read_text()


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    text = write_comparison(tmp_path / "out" / "page.html", compared(tmp_path)).read_text()
    assert not re.search(r"https?://|@import|url\(", text)
    assert not re.search(r"<(link|script|img)[^>]+(src|href)=\"(?!data:)", text)


def test_names_are_escaped(tmp_path):
    image = Picture(picture(8))
    entry = Compared(NASTY, image, {NASTY: Picture(larger(picture(8)))}, {NASTY: NASTY})
    page = write_comparison(tmp_path / "p.html", [entry], NASTY)
    text = page.read_text()
    assert "<img src=x" not in text and text.count("</script>") == 2 and f"<title>{escape(NASTY)}</title>" in text
    assert data_of(page)[0]["notes"] == {NASTY: NASTY}
    write_comparison(tmp_path / "p.html", [Compared("a\udcffb\x1b", image, {"\udcff": image})])  # names of files may be no text


def test_files_from_elsewhere_and_kinds_that_browsers_do_not_show_are_copied(tmp_path):
    deep = Picture(larger(picture(8)).astype(np.uint16) * 257, icc=b"x" * 200)
    write_picture(tmp_path / "out" / "deep.tif", deep)
    write_picture(tmp_path / "elsewhere.png", Picture(larger(picture(8))[..., :1]))
    outputs = {"tiff": tmp_path / "out" / "deep.tif", "gray": tmp_path / "elsewhere.png", "memory": deep}
    alpha = np.arange(64, dtype=np.uint8).reshape(8, 8)
    page = write_comparison(tmp_path / "out" / "p.html", [Compared("a", Picture(picture(8), alpha), outputs)])
    shown = {title: read_picture(page.parent / url) for title, url in data_of(page)[0]["pictures"].items()}
    assert all(found.pixels.dtype == np.uint8 for found in shown.values()) and shown["gray"].pixels.shape == (32, 32, 1)
    for title in ("tiff", "memory"):
        np.testing.assert_array_equal(shown[title].pixels, larger(picture(8)))
        assert shown[title].icc == deep.icc
    assert shown[INPUT].alpha is not None and shown[INPUT].alpha.shape == (32, 32)


def test_large_outputs_are_shown_reduced_and_huge_ones_named(tmp_path, monkeypatch):
    images = compared(tmp_path)
    monkeypatch.setattr("sr_iqa.inference.compare.LARGEST", 64 * 64)
    page = write_comparison(tmp_path / "out" / "p.html", images)
    sizes = {read_picture(page.parent / unquote(url)).size for url in data_of(page)[0]["pictures"].values()}
    assert sizes == {(64, 64)} and "32 × 32 → 128 × 128" in page.read_text() and "shown at 64 × 64" in page.read_text()
    monkeypatch.setattr("sr_iqa.inference.compare.MAX_PIXELS", 1000)
    page = write_comparison(tmp_path / "out" / "p.html", images)
    assert data_of(page)[0]["pictures"] == {} and "too many for a page" in page.read_text()


def test_what_cannot_be_compared_is_refused_and_an_earlier_page_stays(tmp_path):
    page = write_comparison(tmp_path / "p.html", compared(tmp_path))
    before = page.read_bytes()
    (tmp_path / "bad.png").write_bytes(b"no image")
    image = Picture(picture(8))
    for entries, kind, words in (
        ([], UserError, "no images"),
        ([Compared("a", image, {})], UserError, "no output"),
        ([Compared("a", image, {"x": tmp_path / "bad.png"})], ImageError, "bad.png"),
        ([Compared("a", tmp_path / "none.png", {"x": image})], ImageError, "none.png"),
    ):
        with pytest.raises(kind, match=words):
            write_comparison(page, entries)
    with pytest.raises(UserError, match=r"\.html"):
        write_comparison(tmp_path / "p.png", [Compared("a", image, {"x": image})])
    assert page.read_bytes() == before and (tmp_path / "p_files" / "0001_input.png").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_nothing_but_an_earlier_page_is_replaced(tmp_path):
    images = compared(tmp_path)
    (tmp_path / "p.html").write_text("<title>somebody's</title>")
    with pytest.raises(UserError, match="p.html: is there already"):
        write_comparison(tmp_path / "p.html", images)
    (tmp_path / "q_files").mkdir()
    (tmp_path / "q_files" / "holiday.png").write_bytes(b"dear")
    with pytest.raises(UserError, match="q_files: holds something else"):
        write_comparison(tmp_path / "q.html", images)
    assert (tmp_path / "p.html").read_text() == "<title>somebody's</title>" and (
        tmp_path / "q_files" / "holiday.png"
    ).read_bytes() == b"dear"


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        yield p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser, tmp_path, request):
    """A comparison of two images, opened as a file; fails the test if anything is written to the console as an error."""
    errors = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, **getattr(request, "param", {}))
    opened = context.new_page()
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(write_comparison(tmp_path / "out" / "page.html", compared(tmp_path, (NASTY, "b"))).as_uri())
    opened.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth)")
    yield opened
    context.close()
    assert not errors


def looks(page):
    """(clip, transform, file) of the upper picture of every stage."""
    read = "images => images.map(e => [e.style.clipPath, e.style.transform, decodeURIComponent(e.src).split('/').pop()])"
    return page.eval_on_selector_all(".stage .over", read)


def drag(page, stage, start, end):
    box = page.locator(".stage").nth(stage).bounding_box()
    page.mouse.move(box["x"] + start * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()


class TestInABrowser:
    pytestmark = in_a_browser

    def test_the_line_moves_by_mouse_range_and_keys_for_one_image(self, page):
        before = looks(page)
        drag(page, 0, 0.5, 0.25)
        wipes = page.locator(".wipe input")
        assert float(wipes.nth(0).input_value()) == pytest.approx(25, abs=1) and wipes.nth(1).input_value() == "50"
        page.keyboard.press("ArrowRight")
        assert float(wipes.nth(0).input_value()) == pytest.approx(27, abs=1)
        page.keyboard.press("f")
        assert wipes.nth(0).input_value() == "100"
        page.keyboard.press("f")
        assert wipes.nth(0).input_value() == "0" and looks(page)[1] == before[1]

    def test_zoom_is_shared_and_the_place_is_not(self, page):
        page.locator(".stage").first.focus()
        page.keyboard.press("1")
        assert page.locator("#zoom").input_value() == "1"
        for _ in range(3):
            page.keyboard.press("+")
        transforms = [look[1] for look in looks(page)]
        assert page.locator("#zoom").input_value() == "8" and transforms[0] == transforms[1] and "scale(1)" not in transforms[0]
        drag(page, 0, 0.8, 0.6)
        page.keyboard.press("Shift+ArrowDown")
        moved = [look[1] for look in looks(page)]
        assert moved[0] != transforms[0] and moved[1] == transforms[1]
        both = page.eval_on_selector_all(".stage:first-of-type img", "images => images.map(i => i.style.transform)")
        assert both[0] == both[1]
        page.keyboard.press("0")
        assert all("scale(1)" in look[1] for look in looks(page))

    def test_at_100_percent_a_pixel_is_a_pixel(self, page):
        page.select_option("#zoom", "1")
        assert page.eval_on_selector(".stage .over", "e => e.getBoundingClientRect().width") == pytest.approx(128, abs=0.5)

    def test_outputs_are_chosen_for_all_images(self, page):
        page.select_option("#right", "scale 0")
        assert [look[2] for look in looks(page)] == ["0 0#.png", "1 0#.png"]
        page.select_option("#right", "scale 1")
        assert page.locator(".note").all_text_contents() == ["psnr 30.0", "psnr 31.0"]
        page.locator(".stage").first.focus()
        page.keyboard.press("o")
        assert page.locator("#right").input_value() == "other"
        assert page.locator(".stage .at-right").all_text_contents() == ["other", "scale 0"]  # the second image has no `other`
        page.keyboard.press("o")
        assert page.locator("#right").input_value() == "scale 0"  # the input is left out

    def test_the_line_is_where_the_pictures_meet(self, page, tmp_path):
        """Left of the line the left picture's pixels, right of it the right one's."""
        page.add_style_tag(content=".tag { display: none }")
        shots = {}
        for name in ("scale 0", "scale 1"):
            page.select_option("#left", "scale 0")
            page.select_option("#right", name)
            page.wait_for_timeout(300)
            page.locator(".stage").first.screenshot(path=tmp_path / "shot.png")
            shots[name] = read_picture(tmp_path / "shot.png").pixels.astype(int)
        difference = np.abs(shots["scale 0"] - shots["scale 1"]).sum(2)
        middle = difference.shape[1] // 2
        assert difference[:, : middle - 24].max() == 0 and difference[:, middle + 24 :].mean() > 20

    @pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
    @pytest.mark.skipif("AXE_JS" not in os.environ, reason="AXE_JS does not name axe-core")
    def test_axe_finds_nothing_serious(self, page):
        page.add_script_tag(path=os.environ["AXE_JS"])
        violations = page.evaluate("axe.run()")["violations"]
        assert not [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]

    def test_nothing_is_wider_than_a_phone(self, page):
        page.set_viewport_size({"width": 360, "height": 740})
        page.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360

"""The lesson in a browser: drawing, dragging, each slider, by pointer and by keyboard; nothing is asked for."""

import math
import re
from pathlib import Path

import pytest

DRAWN = "html[data-drawn=all]"  # as the pages say it, see conftest.py

pytestmark = pytest.mark.slow
FILE = Path(__file__).parents[2] / "docs" / "lesson.html"
# What each slider changes, beside the number next to it.
SLIDERS = {
    "layer": "row",
    "head": "row",
    "love": "retrieved",
    "speed": "retrieved",
    "temperature": "retrieved",
    "side": "wall-told",
    "patch": "wall-told",
    "window-layer": "windows-told",
    "power": "features-told",
    "features-layer": "features-told",
    "amount": "mixing-told",
    "label-weight": "matching-told",
    "l1-weight": "matching-told",
    "giou-weight": "matching-told",
    "step": "left-relevance-told",
}
PICTURE = "id => document.getElementById(id).toDataURL?.() ?? document.getElementById(id).textContent"


@pytest.fixture
def page(opened):
    return opened(FILE)


def seen(page, part):
    """Goes to a part, and waits until it is drawn."""
    page.locator(f"#{part}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#{part}[data-drawn=yes]")
    page.wait_for_selector(DRAWN)


def told(page, name):
    page.wait_for_selector(DRAWN)
    return page.text_content(f"#{name}")


def pictures(page, *names):
    page.wait_for_selector(DRAWN)
    return [page.evaluate(PICTURE, name) for name in names]


def drawn(page, *strokes):
    """Draws by the mouse; places are fractions of the square."""
    area = page.locator("#pad").bounding_box()
    for stroke in strokes:
        places = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()


def answer(page):
    return re.search(r"answers (\d)", told(page, "told"))[1]


def test_a_digit_that_is_drawn_changes_answer_row_and_relevance(page):
    assert answer(page) == "3"
    before = pictures(page, "seen", "row", "relevance")
    page.get_by_role("button", name="Clear").click()
    assert told(page, "told").startswith("Nothing is drawn")
    drawn(page, [(0.56, 0.1), (0.56, 0.9)])
    assert answer(page) == "1"
    assert page.text_content("#relevance-told") == "Relevance for “1”"
    first = pictures(page, "seen", "row", "relevance")
    assert all(one != other for one, other in zip(before, first, strict=True))
    page.get_by_role("button", name="Clear").click()
    drawn(page, [(0.5 + 0.25 * math.cos(t / 4), 0.5 + 0.4 * math.sin(t / 4)) for t in range(27)])
    assert answer(page) == "0"
    chances = [float(text.rstrip("%")) for text in page.locator("#answer b").all_text_contents()]
    assert sum(chances) == pytest.approx(100, abs=0.6)
    page.get_by_role("button", name="Rubber").click()
    drawn(page, [(side, 0.1 * row) for row in range(11) for side in ((1, 0.02) if row % 2 else (0.02, 1))])
    assert told(page, "told").startswith("Nothing is drawn")


def test_a_digit_is_drawn_by_the_keyboard(page):
    page.locator("h1").click()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "pad":
            break
    page.keyboard.press("Delete")
    assert told(page, "told").startswith("Nothing is drawn")
    for key in ["ArrowUp"] * 6 + ["ArrowRight", " "] + ["ArrowDown"] * 12 + [" ", "ArrowLeft", "ArrowLeft"]:
        page.keyboard.press(key)
    assert answer(page) == "1"
    page.keyboard.press("Backspace")
    assert told(page, "told").startswith("Nothing is drawn")


@pytest.mark.parametrize("mixer", ["local", "performer"])
def test_another_model_answers_too(page, mixer):
    page.get_by_role("button", name="A 7 of the data set").click()
    assert answer(page) == "7"
    before = pictures(page, "row", "relevance")
    page.get_by_role("button", name=mixer).click()
    assert answer(page) == "7"
    assert all(one != other for one, other in zip(before, pictures(page, "row", "relevance"), strict=True))
    assert page.get_by_role("button", name=mixer).get_attribute("aria-pressed") == "true"


def test_each_slider_moves_by_keys_and_changes_what_it_is_for(page):
    assert list(SLIDERS) == page.evaluate("[...document.querySelectorAll('input')].map(one => one.id)")
    for slider, changes in SLIDERS.items():
        seen(page, page.evaluate("id => document.getElementById(id).closest('section').id", slider))
        before, number = pictures(page, changes), told(page, f"{slider}-told")
        page.focus(f"#{slider}")
        page.keyboard.press("End")
        if told(page, f"{slider}-told") == number:
            page.keyboard.press("Home")
        assert told(page, f"{slider}-told") != number, slider
        assert pictures(page, changes) != before, slider
        assert page.get_attribute(f"#{slider}", "aria-valuetext") == told(page, f"{slider}-told")


def test_the_query_is_dragged_and_moved_by_keys(page):
    seen(page, "retrieval")
    area = page.locator("#plane").bounding_box()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
    page.mouse.down()
    page.mouse.move(area["x"] + 0.25 * area["width"], area["y"] + 0.2 * area["height"], steps=3)
    page.mouse.up()
    page.focus("#plane")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert (told(page, "love-told"), told(page, "speed-told")) == ("-0.65", "0.75")
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)", row.inner_html()) for row in page.locator("#films tr").all()]
    scores = [(-0.65 * float(love) + 0.75 * float(speed)) / 10**-0.6 for _, love, speed, _, _ in rows]
    total = sum(map(math.exp, scores))
    for (_, _, _, _, weight), score in zip(rows, scores, strict=True):
        assert float(weight.rstrip("%")) == pytest.approx(100 * math.exp(score) / total, rel=0.06)
    minutes = sum(math.exp(score) / total * float(row[3]) for row, score in zip(rows, scores, strict=True))
    assert told(page, "retrieved").startswith(f"The query takes {minutes:.0f} minutes")


def test_a_box_is_dragged_and_the_matching_changes(page):
    seen(page, "matching")
    assert told(page, "matching-told").startswith("cat to A, dog to B, cup to C")
    costs = page.locator("#cost-rows").inner_text()
    scene, box = page.locator("#scene").bounding_box(), page.locator("#box-D rect").first.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 20 + 0.35 * scene["width"], box["y"] + 20, steps=4)
    page.mouse.up()
    assert told(page, "matching-told").startswith("cat to A, dog to B, cup to D")
    assert page.locator("#cost-rows").inner_text() != costs
    assert "matched with no object" in page.get_attribute("#box-C", "aria-label")
    assert page.locator("#cost-rows .chosen").count() == 3


def test_a_box_is_moved_and_stretched_by_keys(page):
    seen(page, "matching")
    page.focus("#label-weight")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "box-D"
    for _ in range(18):
        page.keyboard.press("ArrowRight")
    assert told(page, "matching-told").startswith("cat to A, dog to B, cup to D")
    wide = float(page.locator("#box-D rect").first.get_attribute("width"))
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector(DRAWN)
    assert float(page.locator("#box-D rect").first.get_attribute("width")) == pytest.approx(wide + 0.02 * 320)
    corner = page.locator("#box-D .corner").bounding_box()
    page.mouse.move(corner["x"] + 5, corner["y"] + 5)
    page.mouse.down()
    page.mouse.move(corner["x"] + 25, corner["y"] + 15)
    page.mouse.up()
    page.wait_for_selector(DRAWN)
    assert float(page.locator("#box-D rect").first.get_attribute("width")) > wide + 0.02 * 320 + 5


def test_a_pixel_is_chosen_by_pointer_and_by_keys(page):
    seen(page, "windows")
    area = page.locator("#window").bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.5 / 8, area["y"] + area["height"] * 0.5 / 8)
    assert "row 1, column 1, layer 1" in told(page, "windows-told")
    assert "it takes from 4 pixels" in told(page, "windows-told")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    page.focus("#window")
    page.keyboard.press("ArrowRight")
    assert "it takes from 9 pixels" in told(page, "windows-told") or "from 6 pixels" in told(page, "windows-told")
    seen(page, "mixing")
    assert "local " in told(page, "mixing-told")


def test_other_features_have_another_error(page):
    seen(page, "features")
    before = told(page, "features-told")
    page.get_by_role("button", name="Draw other features").click()
    assert told(page, "features-told") != before
    assert page.locator("#features-lines circle").count() == 8


def test_the_probability_falls_and_the_verdict_is_said(page):
    seen(page, "truth")
    said = re.findall(r"\((beats both|no better than the centre|no better than random)\)", told(page, "truth-told"))
    assert len(said) == 2
    assert page.locator("#truth-lines polyline").count() == 4
    points = page.locator("#truth-lines polyline").first.get_attribute("points").split()
    assert len(points) == 17
    page.focus("#step")
    page.keyboard.press("End")
    assert told(page, "step-told") == "64 of 64 pixels"
    # Nothing is left but the mean, whatever the order was.
    left = {told(page, f"left-{way}-told").rpartition(": ")[2] for way in ("relevance", "row", "centre", "random")}
    assert len(left) == 1


def test_axe_has_no_serious_finding_and_nothing_is_wider_than_the_window(page, serious):
    for part in ("retrieval", "wall", "windows", "features", "mixing", "matching", "truth"):
        seen(page, part)
    assert serious(page) == []


def test_everything_is_reached_by_tab_and_has_a_name(page):
    wanted = page.evaluate("document.querySelectorAll('main button, main input, main [tabindex], main a').length")
    page.locator("h1").click()
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) >= wanted


def test_a_damaged_file_says_so(opened, tmp_path):
    html = FILE.read_text(encoding="utf-8")
    path = tmp_path / "lesson.html"
    path.write_text(html[: html.index('id="local"') + 500], encoding="utf-8")
    page = opened(path, until="#damaged:visible")
    assert page.locator("main").is_hidden()
    page = opened(FILE, until="#old:visible", before="delete window.DecompressionStream")
    assert page.locator("main").is_hidden()


def test_a_finger_draws_drags_and_scrolls(opened):
    page = opened(FILE, width=390, has_touch=True, is_mobile=True)
    touch = page.context.new_cdp_session(page)

    def swipe(box, start, end):
        """From one place of a box to another, both in pixels."""
        for step in range(13):
            place = [box[name] + start[i] + (end[i] - start[i]) * step / 12 for i, name in enumerate("xy")]
            kind = "touchMove" if step else "touchStart"
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": place[0], "y": place[1]}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    page.get_by_role("button", name="Clear").click()
    assert told(page, "told").startswith("Nothing is drawn")
    page.locator("#pad").scroll_into_view_if_needed()
    top = page.evaluate("scrollY")
    swipe(page.locator("#pad").bounding_box(), (190, 30), (190, 300))
    assert answer(page) == "1"
    assert page.evaluate("scrollY") == top
    seen(page, "matching")
    page.locator("#scene").scroll_into_view_if_needed()
    swipe(page.locator("#box-D rect").first.bounding_box(), (20, 20), (150, 20))
    assert told(page, "matching-told").startswith("cat to A, dog to B, cup to D")
    top = page.evaluate("scrollY")
    swipe(page.locator("#scene").bounding_box(), (10, 200), (10, 60))
    while page.evaluate("scrollY") <= top + 50:  # pytest ends it where a finger does not scroll
        page.wait_for_timeout(50)

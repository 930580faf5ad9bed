"""The page in a browser: pointer, buttons, keys, address, saving, two runs; nothing is asked for or complained of."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests_of_explain import told, vit

from regard.explain import rows
from regard.explain.page import CarriedRun, carried_image, write_page

pytestmark = pytest.mark.slow
IMAGES = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(3))
SEEN = torch.randint(0, 255, (3, 12, 20), dtype=torch.uint8)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(1)
    first, second = vit(), vit()
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters()):
            parameter += 0.3 * torch.randn_like(parameter)
    return first, second


@pytest.fixture(scope="module")
def file(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "out.html"
    runs = [
        CarriedRun(
            f"run {number}",
            [
                carried_image(model, image, SEEN, name=f"{place}.png", class_names=tuple("abcde"), judged=image)
                for place, image in enumerate(IMAGES)
            ],
        )
        for number, model in enumerate(models)
    ]
    write_page(runs, path)
    return path


def expected(model, image, token, layer=2, head=None):
    """Which patch the row names, as the page writes it."""
    row = rows(model, image[None], queries=[token], layers=layer, heads=head)[0].mean[0, 0]
    best = int(row[1:].argmax())
    return f"takes {100 * row[1 + best]:.0f}% from ({best // 5}, {best % 5})"


def test_the_pointer_chooses_a_patch(opened, file, models):
    page = opened(file)
    assert told(page).startswith("class token takes")
    area = page.locator("#heat").bounding_box()
    page.mouse.click(area["x"] + area["width"] * 3.5 / 5, area["y"] + area["height"] * 1.5 / 3)
    assert told(page).startswith(f"patch (1, 3) {expected(models[0], IMAGES[0], 1 + 5 + 3)}")
    page.wait_for_url(lambda url: "token=9" in url)


def test_the_keyboard_alone(opened, file, models):
    page = opened(file)
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp", "[", "=", "="):
        page.keyboard.press(key)
        told(page)
    assert told(page).startswith(f"patch (1, 1) {expected(models[0], IMAGES[0], 7, 1, 1)}")
    assert page.text_content("#layer") == "blocks.1"
    assert page.text_content("#head") == "head 1"
    page.keyboard.press("]")
    page.keyboard.press("-")
    assert told(page).startswith(f"patch (1, 1) {expected(models[0], IMAGES[0], 7, 2, 0)}")
    page.keyboard.press("m")
    told(page)
    assert page.text_content("#methods [aria-pressed=true]") == "rollout"
    page.wait_for_url(lambda url: "method=rollout" in url)
    page.keyboard.press("?")
    page.locator("dialog").wait_for(state="visible")
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="hidden")
    page.keyboard.press("c")
    told(page)
    assert page.locator("#heat3").is_visible()
    # Each button is reached by Tab, and pressed by Enter.
    page.locator("#images button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "image=1" in url)


def test_buttons_choose_method_layer_and_head(opened, file, models):
    page = opened(file)
    page.get_by_role("button", name="blocks.0, head 2").click()
    assert told(page).startswith(f"class token {expected(models[0], IMAGES[0], 0, 0, 2)}")
    page.get_by_role("button", name="relevance").click()
    assert "relevance, of" in told(page)
    assert page.locator("#verdict").is_visible()
    assert page.locator("#curves polyline").count() == 3


def test_the_address_restores_the_view(opened, file, models):
    page = opened(file, "#run=1&image=1&layer=blocks.1&head=2&token=8&method=row&compare=1")
    assert told(page).startswith(f"patch (1, 2) {expected(models[1], IMAGES[1], 8, 1, 2)}")
    page.wait_for_url(lambda url: "compare=1" in url)
    url, before = page.url, told(page)
    again = opened(file, "#" + url.partition("#")[2])
    assert told(again) == before
    again.wait_for_url(url)
    lost = opened(file, "#run=9&image=9&layer=none&head=99&token=999&method=no")
    assert told(lost).startswith("patch (2, 4)")


def test_two_runs_and_their_difference(opened, file, models):
    page = opened(file, "#token=9&head=1&layer=blocks.2&compare=1")
    assert expected(models[0], IMAGES[0], 9, 2, 1) in told(page)
    assert expected(models[1], IMAGES[0], 9, 2, 1) in page.text_content("#whose2")
    each = [rows(model, IMAGES[:1], queries=[9], layers=2, heads=1)[0].weights.flatten()[1:] for model in models]
    most = (each[0] - each[1]).abs().max().item()
    shown = page.text_content("#whose3").rpartition("at most ")[2].removesuffix("%")
    assert float(shown) / 100 == pytest.approx(most, abs=0.006)


def test_saving_a_png(opened, file):
    page = opened(file, "#token=9")
    with page.expect_download() as caught:
        page.keyboard.press("s")
    assert caught.value.suggested_filename == "0-row.png"
    with Image.open(caught.value.path()) as saved:
        pixels = np.asarray(saved.convert("RGB"))
    assert pixels.shape == (432, 720, 3)
    assert pixels.std() > 10


@pytest.mark.parametrize("hash", ["#compare=1", "#method=relevance"])
def test_axe_has_no_serious_finding_and_nothing_is_wider_than_the_window(opened, file, serious, hash):
    page = opened(file, hash)
    assert serious(page) == []


NEWER = (
    "This browser is too old for the page: Chrome and Edge since 86, Firefox since 113 and Safari since 16.4 open it."
)
CUT = "This file is damaged or was cut off: fetch it again, or write it again with regard explain --page."


def seen(page):
    """All that can be read below the heading."""
    assert page.locator("main").is_hidden()
    return page.locator("body").inner_text().removeprefix("run 0 and run 1").strip()


def test_a_browser_that_cannot_open_it_says_which_can(opened, file):
    for name in ("window.DecompressionStream", "Element.prototype.replaceChildren"):
        assert seen(opened(file, until="#old:visible", before=f"delete {name}")) == NEWER
    page = opened(file, until="noscript p", java_script_enabled=False)
    assert seen(page).startswith("This page draws with JavaScript, which is switched off; switched on, Chrome and Edge")


def test_a_damaged_file_says_so(opened, file, tmp_path):
    html = file.read_text(encoding="utf-8")
    pieces = html.index('id="p0.0.0"')
    script = html.index('<script type="module">')
    damaged = {
        "cut off in its numbers": html[: pieces + 200],
        "cut off in its script": html[: script + 2000],
        "another letter in its numbers": html[: pieces + 100]
        + ("B" if html[pieces + 100] == "A" else "A")
        + html[pieces + 101 :],
        "no letter of base64 in what it holds": html.replace('id="about">', 'id="about">%', 1),
    }
    for place, text in damaged.items():
        path = tmp_path / f"{place}.html"
        path.write_text(text, encoding="utf-8")
        assert seen(opened(path, until="#damaged:visible")) == CUT, place

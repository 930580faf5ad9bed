"""The page of a detector that was trained: boxes, the slider through its decoder, and nothing asked for."""

import base64
import json
import re
import zlib

import pytest
import torch
from PIL import Image
from tests_of_explain import told

import regard
from regard.explain.box_refinement import FEW, THRESHOLD
from regard.explain.object_queries import box_maps
from regard.recipes import load_recipe
from regard.tasks.image_predictor import pixels_of
from regard.training import train

pytestmark = pytest.mark.slow
SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.num_queries=7", "model.num_denoising=6", "data.first=4"),
    *("data.shortest=64", "data.longest=96", "data.validate_on=train", "train.device=cpu", "train.precision=fp32"),
    *("train.max_steps=3", "train.batch_size=2"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page's file, and what Python says of the same detector and image."""
    folder = tmp_path_factory.mktemp("detector")
    Image.effect_noise((90, 60), 80).convert("RGB").save(folder / "a.png")
    train(load_recipe("detr-small", SMALL), folder / "run")
    detector = regard.load(folder / "run", device="cpu")
    assert regard.explain_page(detector, [folder / "a.png"], folder / "out.html") == []
    preprocessing = detector.preprocessing
    pixels = pixels_of(folder / "a.png", preprocessing.channels, "image", preprocessing.decoding)
    found = box_maps(detector.model, detector.prepare(pixels), most=10, threshold=THRESHOLD, few=FEW)
    return folder / "out.html", found, detector.class_names


def boxes_of(file):
    """Width, height and boxes of the image as the page has them."""
    text = re.search(r'id="about">([^<]+)<', file.read_text(encoding="utf-8"))[1]
    image = json.loads(zlib.decompress(base64.b64decode(text)))["runs"][0]["images"][0]
    return image["width"], image["height"], torch.tensor([box["layers"][-1] for box in image["boxes"]])


def said(made, box, layer="cross.2"):
    """What the page writes of a box's query."""
    _, found, names = made
    row = found.maps[layer].half().float().mean(0)[box]
    place = divmod(int(row.argmax()), row.shape[1])
    who = f"{names[found.labels[box]]} {found.scores[box]:.2f}"
    most = 100 * row.max().item()
    share = f"{most:.0f}" if most >= 9.95 else f"{float(f'{most:.2g}'):g}"
    return f"the query of {who} takes {share}% from ({place[0]}, {place[1]})"


def test_boxes_are_clicked(opened, made):
    file = made[0]
    page = opened(file)
    assert told(page) == said(made, 0)
    width, height, boxes = boxes_of(file)
    smallest = int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmin())
    page.locator("#answer button").nth((smallest + 1) % len(boxes)).click()
    assert told(page) == said(made, (smallest + 1) % len(boxes))
    low, high = boxes[smallest, :2].clamp(min=0), boxes[smallest, 2:].minimum(torch.tensor([width, height]))
    x, y = ((low + high) / 2 / torch.tensor([width, height])).tolist()
    area = page.locator("#heat").bounding_box()
    page.mouse.click(area["x"] + area["width"] * x, area["y"] + area["height"] * y)
    assert told(page) == said(made, smallest)
    assert page.locator("#answer [aria-pressed=true]").count() == 1


def test_boxes_and_layers_by_keyboard_alone(opened, made):
    page = opened(made[0])
    while page.evaluate("document.activeElement.parentElement?.id") != "answer":
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert told(page) == said(made, 1)
    page.keyboard.press("ArrowRight")
    assert told(page) == said(made, 2)
    page.keyboard.press("[")
    assert told(page) == said(made, 2, "cross.1")
    page.get_by_label("Layer", exact=True).get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    assert told(page) == said(made, 2, "cross.0")  # the arrow moves the slider, and not the box
    page.keyboard.press("End")
    assert told(page) == said(made, 2)


def test_the_slider_changes_the_map_and_the_address_restores_it(opened, made):
    page = opened(made[0])
    pixels = "document.getElementById('heat').toDataURL()"
    last = page.evaluate(pixels)
    slider = page.get_by_role("slider", name="Layer")
    assert (slider.input_value(), slider.get_attribute("aria-valuetext")) == ("2", "cross.2")
    slider.fill("0")
    assert told(page) == said(made, 0, "cross.0")
    assert slider.get_attribute("aria-valuetext") == "cross.0"
    first = page.evaluate(pixels)
    assert first != last
    page.wait_for_url(lambda url: "layer=cross.0" in url)
    again = opened(made[0], "#" + page.url.partition("#")[2])
    assert told(again) == said(made, 0, "cross.0")
    assert again.evaluate(pixels) == first
    assert again.get_by_role("slider", name="Layer").input_value() == "0"


def test_axe_has_no_serious_finding(opened, made, serious):
    assert serious(opened(made[0])) == []

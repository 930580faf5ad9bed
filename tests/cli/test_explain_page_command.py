"""`regard explain --page`: the file, what it says, and what is refused."""

import base64
import json
import re
import zlib

import pytest


def about(file):
    text = re.search(r'id="about">([^<]+)<', file.read_text(encoding="utf-8"))[1]
    return json.loads(zlib.decompress(base64.b64decode(text)))


def test_a_page_of_several_images_and_two_runs(regard, run, images, tmp_path):
    page = tmp_path / "out.html"
    told = regard("explain", run, *images[:2], "--page", page, "--against", run, "--method", "occlusion")
    assert (told.status, told.out, told.err) == (0, f"{page}\n", "")
    runs = about(page)["runs"]
    assert [one["name"] for one in runs] == [run.name, f"{run.name} again"]
    assert [one["name"] for one in runs[0]["images"]] == [image.name for image in images[:2]]
    first = runs[0]["images"][0]
    methods = ["rows", "rollout", "relevance", "gradient", "gradient-x-input", "occlusion"]
    assert [found["method"] for found in first["maps"]] == methods
    assert all(re.search(r"deletion .*: (beats both|no better than)", found["verdict"]) for found in first["maps"])
    assert len(first["shared"]["random"]) == len(first["maps"][0]["fractions"])


def test_what_is_refused(regard, run, images, tmp_path):
    page = tmp_path / "out.html"
    regard("explain", run, images[0], "--page", tmp_path / "out.png").fails("out.png", "out.html")
    regard("explain", run, images[0], "--page", page, "--head", 1).fails("--page", "--head")
    regard("explain", run, images[0], "--page", page, "--layer", 99).fails("layer 99 is not there")
    regard("explain", run, images[0], "--page", page, "--target", "none").fails("none")
    regard("explain", run, images[0], "--page", page, "--method", "window").fails("window")
    regard("explain", run, images[0], "--against", run).fails("--page")
    regard("explain", run, "--text", "abc", "--page", page).fails("--page", "text")
    (tmp_path / "file").write_text("")
    regard("explain", run, images[0], "--page", tmp_path / "file" / "x.html", "--faithfulness", "off").fails(
        "cannot be written"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_another_grid_is_not_compared(regard, run, images, tmp_path, tiny):
    other = tmp_path / "other"
    assert regard("train", "vit-digits", "--out", other, *tiny("model.patch_size=4")).status == 0
    told = regard("explain", run, images[0], "--page", tmp_path / "x.html", "--against", other)
    told.fails("2 × 2 patches", "not 4 × 4")

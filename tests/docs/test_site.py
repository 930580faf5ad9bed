"""The site builds strictly, asks no other host, and its reference has every public name, command, recipe and key.

In a browser it is readable on a telephone and on a screen, light and dark, and has nothing to complain of.
"""

import html
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from regard.mixers import MIXERS
from regard.models import PRESETS
from regard.recipes import RECIPES, shipped_recipes

ROOT = Path(__file__).parents[2]
LACKING = [name for name in ("mkdocs", "material", "mkdocstrings") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(LACKING), reason=f"{', '.join(LACKING)} not installed: pip install 'regard[docs]'"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from nothing, in a process of its own."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


@pytest.fixture(scope="module")
def rooms() -> Iterator[Any]:
    """docs/gen/rooms.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "gen"))
        yield importlib.import_module("rooms")
    del sys.modules["rooms"]


def build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(folder),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def words_of(page: Path) -> str:
    """What a reader sees of a page."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_public_name_is_in_the_reference(site: Path, rooms: Any) -> None:
    """Under the name by which it is imported, and with its own heading."""
    for room in rooms.ROOMS:
        ids = set(re.findall(r'id="([^"]+)"', (site / "reference" / f"{room}.html").read_text(encoding="utf-8")))
        names = list(getattr(importlib.import_module(room), "__all__", ())) or rooms.public_names(room)
        assert {f"{room}.{name}" for name in names} <= ids
        assert names or room == "regard.draw"


def test_every_drawing_function_is_in_the_reference(site: Path, rooms: Any) -> None:
    text = (site / "reference" / "regard.draw.html").read_text(encoding="utf-8")
    for name in ("boxes.draw_boxes", "png.png_bytes", "plots.curves_figure", "svg.inline_svg"):
        assert f'id="regard.draw.{name}"' in text
    for module in rooms.files_of_draw():
        assert f'id="{module}"' in text


def test_a_name_that_no_file_defines_stops_the_build(rooms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("regard.losses"), "nowhere", object(), raising=False)
    with pytest.raises(LookupError, match=r"regard\.losses\.nowhere"):
        rooms.home("regard.losses", "nowhere")


def test_every_command_recipe_mixer_and_model_is_in_the_reference(site: Path) -> None:
    commands = words_of(site / "reference" / "commands.html")
    for words in ("regard train", "regard data check", "--detector-minutes"):
        assert words in commands
    recipes = words_of(site / "reference" / "recipes.html")
    for name in shipped_recipes():
        assert name in recipes
    for kind in RECIPES.values():
        for section, field in kind.model_fields.items():
            for key in getattr(field.annotation, "model_fields", ()):
                assert f"{section}.{key}" in recipes
    mixers, models = (words_of(site / "reference" / f"{name}.html") for name in ("mixers", "models"))
    assert all(name in mixers for name in MIXERS)
    assert all(name in models for name in PRESETS)


def test_no_page_asks_another_host(site: Path) -> None:
    """Links lead out; scripts, styles, fonts and pictures do not."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="?(https?:[^"\s>]+)', text)
        asked += re.findall(r'<link[^>]*rel="?(?:stylesheet|preconnect|icon)"?[^>]*href="?(https?:[^"\s>]+)', text)
        assert asked == [], page.name


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    """With the site's own settings, and pages of which one links to nothing."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("validation:")[2].partition("\nnav:")[0]
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text(f"site_name: small\nvalidation:{settings}\n", encoding="utf-8")
    for text, status in (("[here](index.md#here)\n\n# Here\n", 0), ("[a](no.md)\n", 1), ("[a](#nowhere)\n", 1)):
        (tmp_path / "docs" / "index.md").write_text(text, encoding="utf-8")
        assert build(tmp_path / "mkdocs.yml", tmp_path / "built").returncode == status, text


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Of the site on this machine: from files, axe may not read the styles."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=program, args=["--no-sandbox"])


PAGES = [
    *("index", "start", "fine-tune", "mixers", "troubleshooting", "concepts/performer", "coming-from/timm"),
    *("reference/regard", "reference/commands"),
]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_a_browser(chromium: Any, address: str, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    said: list[str] = []
    for width, (scheme, theme) in product((390, 1280), {"light": "default", "dark": "slate"}.items()):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(0)  # a busy machine is no failure
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:")) or said.append(asked.url))
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
        assert page.get_attribute("body", "data-md-color-scheme") == theme
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = axe.run(page).response
        assert len(found["passes"]) > 20
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], one["nodes"][0]["html"]) for one in serious] == [], (width, scheme)
        page.close()
    assert said == []


def test_the_search_finds(site: Path) -> None:
    """Its index has what the pages say."""
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for words in ("Hungarian", "regard.choose_recipe", "train.patience"):
        assert words in index

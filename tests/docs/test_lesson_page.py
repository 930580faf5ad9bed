"""The lesson's file: what the command makes of the committed models and scripts, small, and without another host."""

import base64
import importlib
import re
import sys
import zlib
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "docs" / "gen" / "lesson"
FILE = ROOT / "docs" / "lesson.html"


@pytest.fixture(scope="module")
def writer():
    """docs/gen/lesson_page.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "gen"))
        yield importlib.import_module("lesson_page")
    for name in ("lesson_page", "lesson_models"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def html():
    return FILE.read_text(encoding="utf-8")


def unpacked(html):
    """With the pieces as they are before they are deflated, which another zlib does in another way."""
    pattern = r'(<script type="text/plain" id="\w+">)([^<]+)'
    return re.sub(pattern, lambda found: found[1] + zlib.decompress(base64.b64decode(found[2])).hex(), html)


def test_the_committed_page_is_what_the_command_makes(writer, html):
    assert len(unpacked(html)) > 1.5 * len(html)
    assert unpacked(writer.lesson_html()) == unpacked(html), "run `make lesson`"


def test_it_is_small_and_asks_no_other_host(html):
    assert len(html.encode()) < 700_000
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", html)
    assert not re.findall(r"<(?:img|iframe|link)[^>]*(?:src|href)=\"(?!data:)", html)


def test_it_runs_its_own_scripts_alone(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    for pattern in (r'<script type="module">(.*)</script>', r"<script>(.*?)</script>", r"<style>(.*?)</style>"):
        text = re.search(pattern, html, re.DOTALL)[1]
        assert base64.b64encode(sha256(text.encode()).digest()).decode() in policy


def test_each_script_stands_in_the_page(writer):
    script = writer.bundled(ROOM / "lesson.js")
    assert all(f"const of_{file.stem} = " in script for file in ROOM.glob("*.js"))
    assert not re.search(r"^(import|export)\s", script, re.MULTILINE)


def test_each_part_has_its_equation_and_what_to_notice(html):
    sections = re.findall(r"<section (.*?)</section>", html, re.DOTALL)
    assert [re.search(r">\((\w)\) ", section)[1] for section in sections] == list("abcdefgh")
    for section in sections:
        assert section.count('class="equation"') == section.count('class="notice"') == 1
        assert 'aria-live="polite"' in section


def test_what_it_links_to_is_on_the_site(html):
    for target in re.findall(r'<a href="([^"#]+)"', html):
        page = {"index.html": "README.md"}.get(target, f"docs/{target.replace('.html', '.md')}")
        assert (ROOT / page).is_file(), target
    names = re.findall(r'<a href="#([^"]+)"', html)
    assert len(names) == 8
    assert all(f'id="{name}"' in html for name in names)


def test_its_models_read_digits_that_they_were_not_trained_on(writer):
    models = importlib.import_module("lesson_models")
    measured = models.accuracies()
    assert set(measured) == {"attention", "local", "performer"}
    for mixer, small in models.load_models().items():
        if mixer in measured:
            assert models.accuracy(small) == pytest.approx(measured[mixer], abs=0.005)
            assert measured[mixer] > 0.95


@pytest.mark.slow
def test_the_models_are_trained_and_kept_by_one_command(writer, monkeypatch, tmp_path):
    models = importlib.import_module("lesson_models")
    before = models.load_models()
    monkeypatch.setattr(models, "FILE", tmp_path / "models.safetensors")
    monkeypatch.setattr(models, "SETTINGS", models.SETTINGS | {"epochs": 1, "max_steps": 2})
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # it would hold for the tests after this one
    monkeypatch.setattr(sys, "argv", ["lesson_models.py", "--runs", str(tmp_path / "runs")])
    models.main()
    assert set(models.accuracies()) == {"attention", "local", "performer"}
    for mixer, small in models.load_models().items():
        assert small.about() == before[mixer].about()
        assert any(not weight.equal(before[mixer].weights[name]) for name, weight in small.weights.items())
        assert all(weight.dtype.itemsize == 2 for weight in small.weights.values())


@pytest.mark.slow
def test_the_demo_links_to_it(tmp_path):
    from regard.api.demo import _lesson
    from regard.compare import Opening, write_opening

    assert _lesson() == FILE.as_uri()
    for lesson, count in ((_lesson(), 1), ("", 0)):
        write_opening(tmp_path / "page.html", Opening("A demo", [], lesson=lesson))
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert page.count(f'<a href="{FILE.as_uri()}">the lesson</a>') == count

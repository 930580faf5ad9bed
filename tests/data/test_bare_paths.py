"""A path without a kind is taken for what it holds."""

import json
from pathlib import Path

import pytest
from PIL import Image

from regard.data import address_of
from regard.errors import RegardError


def image(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(file)
    return file


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def coco(file: Path) -> Path:
    return text(file, json.dumps({"images": [], "annotations": [], "categories": []}))


XML = "<annotation><filename>a.jpg</filename></annotation>"


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("folder", ["cat/a.jpg", "dog/b.jpg"]),
        ("folder", ["train/cat/a.jpg", "val/cat/b.jpg"]),
        ("folder", ["cat/deep/er/a.jpg", "notes.txt", "info.json"]),
        ("coco", ["annotations/instances_train2017.json", "train2017/a.jpg"]),
        ("coco", ["train/_annotations.coco.json", "train/a.jpg"]),
        ("coco", ["result.json", "images/a.jpg"]),
        ("yolo", ["data.yaml", "images/train/a.jpg", "labels/train/a.txt"]),
        ("yolo", ["classes.txt", "images/a.jpg", "labels/a.txt"]),
        ("voc", ["Annotations/a.xml", "JPEGImages/a.jpg"]),
        ("voc", ["VOC2007/Annotations/a.xml", "VOC2007/JPEGImages/a.jpg"]),
        ("voc", ["a.xml", "a.jpg"]),
        ("text", ["one.txt", "deep/two.md"]),
    ],
)
def test_folders(tmp_path, kind, files):
    for name in files:
        file = tmp_path / "set" / name
        if file.suffix == ".jpg":
            image(file)
        elif file.suffix == ".json":
            coco(file) if kind == "coco" else text(file, '{"made": "by hand"}')
        else:
            text(file, {".xml": XML, ".yaml": "train: images/train\nnames: [a]\n"}.get(file.suffix, "0 .5 .5 .1 .1\n"))
    assert address_of(str(tmp_path / "set")) == f"{kind}:{tmp_path / 'set'}"


def test_files(tmp_path):
    for name, kind in (("a.json", "coco"), ("a.tsv", "pairs"), ("a.txt", "text"), ("a.csv", "csv")):
        file = text(tmp_path / name, "")
        assert address_of(str(file)) == f"{kind}:{file}"
    assert address_of(str(text(tmp_path / "data.yaml", "names: []"))) == f"yolo:{tmp_path}"
    with pytest.raises(RegardError, match="is no data; a file can be"):
        address_of(str(text(tmp_path / "a.zip", "")))


def test_a_table_in_a_folder_of_images(tmp_path):
    image(tmp_path / "a.jpg")
    table = text(tmp_path / "labels.csv", "file,label\na.jpg,cat\n")
    assert address_of(str(tmp_path)) == f"csv:{table}"


def test_two_readings_are_both_named(tmp_path):
    coco(tmp_path / "annotations.json")
    text(tmp_path / "data.yaml", "names: [a]\n")
    with pytest.raises(RegardError) as error:
        address_of(str(tmp_path))
    assert f"write one of coco:{tmp_path}, yolo:{tmp_path}" in str(error.value)


def test_sets_inside_a_folder_are_not_the_folders(tmp_path):
    image(tmp_path / "first" / "JPEGImages" / "a.jpg")
    text(tmp_path / "first" / "Annotations" / "a.xml", XML)
    image(tmp_path / "second" / "cat" / "b.jpg")
    assert address_of(str(tmp_path)) == f"folder:{tmp_path}"
    assert address_of(str(tmp_path / "first")) == f"voc:{tmp_path / 'first'}"


def test_where_nothing_is_labelled_it_says_how_to_begin(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "photos" / name)
    with pytest.raises(RegardError, match=r"holds 2 images and no labels; sort them into one folder a class, or draw"):
        address_of(str(tmp_path / "photos"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegardError, match="is empty, which is nothing to train on"):
        address_of(str(tmp_path / "empty"))


def test_addresses_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # the address, not the folder
    for address in ("digits", f"folder:{tmp_path}", "nothing/here", "fodler:x", ""):
        assert address_of(address) == address

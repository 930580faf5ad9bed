"""Mended annotations: nothing has to be said of them, and they give the same boxes."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from regard.data import check_detection, fix_data, open_detection
from regard.errors import RegardError

HEIGHT, WIDTH = 30, 40


@pytest.fixture
def odd(tmp_path) -> Path:
    """A set in Roboflow's layout with something odd of every kind, and with keys that nobody here knows."""
    root = tmp_path / "odd"
    for part, count in (("train", 6), ("valid", 2), ("test", 1)):
        images, annotations = [], []
        for number in range(1, count + 1):
            name = f"{part}-{number}.png"
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT), (number, ord(part[0]), 7)).save(root / part / name)
            images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT, "licence": number})
            annotations += [
                {"id": 10 * number + k, "image_id": number, "category_id": k, "bbox": [3.5, 4, 10, 9], "note": [k]}
                for k in (1, 2)
            ]
        values = {
            "info": {"year": 2026},
            "licenses": [{"id": 1}],
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": 0, "name": "pets", "supercategory": "none"},
                {"id": 1, "name": "cat", "supercategory": "pets"},
                {"id": 2, "name": "dog", "supercategory": "pets", "colour": "red"},
            ],
        }
        if part == "train":
            images[0] |= {"file_name": "C:\\x\\train\\TRAIN-1.PNG", "width": "40", "height": 0}
            images[1]["id"] = "2"
            images.append({"id": 99, "file_name": "../../x.png", "width": 3, "height": 3})
            annotations[0] |= {"area": None, "iscrowd": "1"}
            annotations[1] |= {"bbox": None, "segmentation": [[1, 2, 9, 2, 9, 20]]}
            annotations[2] |= {"bbox": [30, 20, 50, 50], "area": 17}
            annotations[3] |= {"bbox": [1, 2, float("nan"), 4]}
            annotations[4] |= {"bbox": [3, 3, -4, 2]}
            annotations[5] |= {"bbox": [3, 3, 4, 0]}
            annotations[6] |= {"bbox": [300, 3, 4, 4]}
            annotations[7] |= {"category_id": 77}
            annotations[8] |= {"id": 12}
            annotations.append({"image_id": 6, "category_id": "1", "bbox": ["1", "2", "3", "4"]})
        (root / part / "_annotations.coco.json").write_text(json.dumps(values), encoding="utf-8")
    return root


def told(address: str) -> list[str]:
    issues, _, _ = check_detection(address)
    expected = ("images are without objects", "of a test part", "boxes are crowds")
    return [issue.what for issue in issues if not any(text in issue.what for text in expected)]


def same(first, second) -> None:
    assert len(first) == len(second)
    for one, other in zip(first.objects, second.objects, strict=True):
        torch.testing.assert_close(one.boxes_xyxy, other.boxes_xyxy, rtol=0, atol=1e-4)
        assert one.labels.tolist() == other.labels.tolist()
        assert one.areas.tolist() == other.areas.tolist()
        assert one.crowd.tolist() == other.crowd.tolist()


def test_mended_annotations_need_no_word_and_give_the_same_boxes(odd, tmp_path):
    with pytest.raises(RegardError, match=r"regard data fix coco:"):
        open_detection(f"coco:{odd}")
    before = open_detection(f"coco:{odd}", on_bad_annotation="skip")
    repairs, address = fix_data(f"coco:{odd}", tmp_path / "mended")
    assert address == f"coco:{tmp_path / 'mended'}"
    after = open_detection(address)
    assert (
        (after.class_names, after.category_ids) == (before.class_names, before.category_ids) == (("cat", "dog"), (1, 2))
    )
    assert (after.repairs.healed, after.repairs.left_out, after.repairs.unused) == ({}, {}, {})
    assert after.has_val
    for first, second in ((before.train, after.train), (before.val, after.val)):
        same(first, second)
        assert list(first.image_ids) == list(second.image_ids)
        for index in range(len(first)):
            assert torch.equal(first.read(index), second.read(index))
    assert told(address) == []
    kinds = {*repairs.healed, *repairs.left_out, *repairs.unused}
    assert {"boxes are turned inside out", "boxes lie wholly outside of their image"} <= kinds
    assert {
        "boxes reach out of their image, and are cut at its edge",
        "annotation ids repeat, and are numbered anew",
    } <= kinds
    assert {"boxes have no width or height, and are left out", "annotations name no category of the file"} <= kinds


def test_what_is_kept_keeps_all_that_is_stated_of_it(odd, tmp_path):
    fix_data(f"coco:{odd}", tmp_path / "mended")
    whole = json.loads((tmp_path / "mended/annotations/instances_train.json").read_text(encoding="utf-8"))
    assert whole["info"] == {"year": 2026}
    assert whole["licenses"] == [{"id": 1}]
    assert whole["categories"] == [
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets", "colour": "red"},
    ]
    assert whole["images"][0] == {"id": 1, "file_name": "train-1.png", "width": 40, "height": 30, "licence": 1}
    assert whole["images"][1]["id"] == 2
    first, second, third = whole["annotations"][:3]
    assert first == {
        "id": 11,
        "image_id": 1,
        "category_id": 1,
        "bbox": [3.5, 4, 10, 9],
        "note": [1],
        "area": 90.0,
        "iscrowd": 1,
    }
    assert second["bbox"] == [1, 2, 8, 18]
    assert second["segmentation"] == [[1, 2, 9, 2, 9, 20]]
    assert (third["bbox"], third["area"]) == ([30, 20, 10, 10], 17)
    assert len({entry["id"] for entry in whole["annotations"]}) == len(whole["annotations"])
    link = tmp_path / "mended/train/train-1.png"
    assert link.is_symlink()
    assert link.resolve() == (odd / "train/train-1.png").resolve()
    assert (tmp_path / "mended/annotations/instances_test.json").exists()


def test_a_sound_set_stays_as_it_is(odd, tmp_path):
    for part in ("train", "test"):
        os.rename(odd / part, tmp_path / f"{part}-away")  # noqa: PTH104
    (odd / "valid").rename(odd / "train")
    before = (odd / "train/_annotations.coco.json").read_text(encoding="utf-8")
    repairs, _ = fix_data(f"coco:{odd}", tmp_path / "mended")
    assert list(repairs.healed) == ["categories are no classes: others belong to them, and no object"]
    assert repairs.left_out == {}
    after = json.loads((tmp_path / "mended/annotations/instances_train.json").read_text(encoding="utf-8"))
    expected = json.loads(before)
    expected["categories"].pop(0)
    assert after == expected


def test_a_file_for_all_images(odd, tmp_path):
    _, address = fix_data(f"coco:{odd / 'valid' / '_annotations.coco.json'}", tmp_path / "mended")
    assert len(open_detection(address, val_fraction=None).train) == 2


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_other_formats(tmp_path, kind):
    root = tmp_path / "set"
    for number in range(4):
        file = root / ("images/train" if kind == "yolo" else "JPEGImages") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (number, 3, 7)).save(file)
        if kind == "yolo":
            labels = root / "labels/train" / f"{number}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("0 0.5 0.5 0.2 0.2\n" + ("0 nan 0.5 0.2 0.2\n" if number == 2 else ""))
        else:
            xmin = "nan" if number == 2 else "3"
            box = f"<bndbox><xmin>{xmin}</xmin><ymin>4</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>"
            good = "<bndbox><xmin>5</xmin><ymin>4</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>"
            (root / "Annotations").mkdir(exist_ok=True)
            (root / "Annotations" / f"{number}.xml").write_text(
                f"<annotation><filename>{number}.png</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
                f"</size><object><name>x</name>{box}</object><object><name>x</name>{good}</object></annotation>"
            )
    if kind == "yolo":
        (root / "data.yaml").write_text("train: images/train\nnames: [x]\n")
    with pytest.raises(RegardError, match="on_bad_annotation=skip"):
        open_detection(f"{kind}:{root}")
    before = open_detection(f"{kind}:{root}", on_bad_annotation="skip", val_fraction=None)
    repairs, address = fix_data(f"{kind}:{root}", tmp_path / "mended")
    assert sum(len(places) for places in repairs.left_out.values()) == 1
    same(before.train, open_detection(address, val_fraction=None).train)


def test_a_folder_is_never_overwritten_and_whole_or_not_there(odd, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "x").touch()
    with pytest.raises(RegardError, match="exists already"):
        fix_data(f"coco:{odd}", taken)
    with pytest.raises(RegardError, match="lies in"):
        fix_data(f"coco:{odd}", odd / "mended")
    (odd / "valid/_annotations.coco.json").write_text("{", encoding="utf-8")
    with pytest.raises(RegardError, match="is not JSON"):
        fix_data(f"coco:{odd}", tmp_path / "new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["odd", "taken"]
    (taken / "x").unlink()
    (odd / "valid/_annotations.coco.json").unlink()
    fix_data(f"coco:{odd}", taken)  # an empty folder will do
    assert (taken / "annotations").is_dir()


def test_where_a_system_has_no_links_the_images_stay(odd, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    repairs, _ = fix_data(f"coco:{odd}", tmp_path / "mended")
    assert "folders of images stay where they are: --set data.train_images=FOLDER" in repairs.passed_over


@pytest.mark.parametrize("address", ["folder:x", "digits", "digit-scenes", "pydoc"])
def test_data_without_annotation_files(address, tmp_path):
    with pytest.raises(
        RegardError, match=r"has no annotation files to mend; these have: coco:PATH, yolo:PATH, voc:PATH"
    ):
        fix_data(address, tmp_path / "new")

"""COCO's format: what becomes of ids, boxes and folders, and what is said of a file that isn't it."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regard.data import Annotations, BadImage, open_detection
from regard.data.boxes import coco_lists
from regard.data.boxes.coco import can_mirror
from regard.errors import RegardError

HEIGHT, WIDTH = 23, 37


def image(number: int, name: str | None = None, height: int = HEIGHT, width: int = WIDTH) -> dict:
    return {"id": number, "file_name": name or f"{number}.png", "height": height, "width": width}


def box(number: int, of: int, bbox=(3, 5, 7, 11), category: int = 7, **more) -> dict:
    return {"id": number, "image_id": of, "category_id": category, "bbox": list(bbox)} | more


CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}]


def whole(images=None, annotations=None, categories=None) -> dict:
    return {
        "images": [image(1), image(2)] if images is None else images,
        "annotations": [box(1, 1), box(2, 2)] if annotations is None else annotations,
        "categories": CATEGORIES if categories is None else categories,
    }


def save_images(folder: Path, values: dict) -> None:
    """Each image is a colour of its own."""
    for number, entry in enumerate(values["images"]):
        file = folder / entry["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (entry["width"], entry["height"]), (number, len(folder.name), 100)).save(file)


def write(path: Path, part: str, values: dict, *, folder: str | None = None, year: str = "") -> Path:
    file = path / "annotations" / f"instances_{part}{year}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values), encoding="utf-8")
    save_images(path / (folder or f"{part}{year}"), values)
    return file


@pytest.mark.parametrize("year", ["", "2017"])
def test_the_two_layouts(tmp_path, year):
    write(tmp_path, "train", whole(), year=year)
    write(tmp_path, "val", whole(images=[image(5, "deep/down/a.png")], annotations=[box(1, 5)]), year=year)
    data = open_detection(f"coco:{tmp_path}")
    assert data.address == f"coco:{tmp_path}"
    assert data.has_val
    assert (len(data.train), len(data.val)) == (2, 1)
    assert data.train.image_ids == [1, 2]
    assert data.train.sizes == [(HEIGHT, WIDTH)] * 2
    assert data.train.read(1).shape == (3, HEIGHT, WIDTH)
    assert data.train.read(1)[:, 3, 5].tolist() == [1, len(f"train{year}"), 100]
    assert data.val.name(0) == str(tmp_path / f"val{year}" / "deep/down/a.png")
    assert open_detection(f"coco:{tmp_path}", channels=1).val.read(0).shape == (1, HEIGHT, WIDTH)


def test_files_that_lie_elsewhere(tmp_path):
    write(tmp_path / "a", "train", whole(), folder="pictures")
    write(tmp_path / "b", "val", whole(annotations=[box(1, 2)]), folder="others")
    found = open_detection(
        f"coco:{tmp_path}",
        annotations=Annotations(
            train_annotations=tmp_path / "a/annotations/instances_train.json",
            train_images=tmp_path / "a/pictures",
            val_annotations=tmp_path / "b/annotations/instances_val.json",
            val_images=tmp_path / "b/others",
        ),
    )
    assert found.train.read(0)[1, 0, 0] == len("pictures")
    assert found.val.read(0)[1, 0, 0] == len("others")
    assert [len(objects) for objects in found.val.objects] == [0, 1]
    with pytest.raises(RegardError, match=r"data\.train_annotations and the like are for coco:PATH"):
        open_detection("digit-scenes", annotations=Annotations(val_images=tmp_path))


@pytest.mark.parametrize("folder", ["images/train", "images", "."])
def test_images_may_lie_in_other_folders(tmp_path, folder):
    write(tmp_path, "train", whole(), folder=folder)
    assert open_detection(f"coco:{tmp_path}").train.read(0).shape == (3, HEIGHT, WIDTH)


def test_the_layout_that_roboflow_exports(tmp_path):
    for part in ("train", "valid"):
        save_images(tmp_path / part, whole())
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(whole()))
    data = open_detection(f"coco:{tmp_path}")
    assert data.has_val
    assert data.val.read(1)[1, 0, 0] == len("valid")


def test_without_val_a_part_is_split_off_by_seed(tmp_path):
    write(tmp_path, "train", whole(images=[image(number) for number in range(1, 12)]))
    data = open_detection(f"coco:{tmp_path}", val_fraction=0.25, split_seed=3)
    assert not data.has_val
    assert len(data.val) == 3
    assert sorted([*data.train.image_ids, *data.val.image_ids]) == list(range(1, 12))
    again = open_detection(f"coco:{tmp_path}", val_fraction=0.25, split_seed=3)
    assert again.val.image_ids == data.val.image_ids
    other = open_detection(f"coco:{tmp_path}", val_fraction=0.25, split_seed=4)
    assert other.val.image_ids != data.val.image_ids
    where = data.train.image_ids.index(next(number for number in data.train.image_ids if number < 3))
    assert len(data.train.objects[where]) == 1


def test_labels_count_categories_in_the_order_of_their_ids(tmp_path):
    annotations = [box(1, 2, category=90), box(2, 2, category=7), box(3, 1, category=90)]
    write(tmp_path, "train", whole(annotations=annotations))
    write(tmp_path, "val", whole(categories=[{"id": 30, "name": "cow"}, CATEGORIES[1]]))
    data = open_detection(f"coco:{tmp_path}")
    assert data.category_ids == (7, 30, 90)
    assert data.class_names == ("cat", "cow", "dog")
    assert [objects.labels.tolist() for objects in data.train.objects] == [[2], [2, 0]]


def test_boxes_areas_and_crowds(tmp_path):
    annotations = [
        box(1, 1, (1.5, 2.25, 10, 8), area=13.5, iscrowd=1),
        box(2, 1, (-4, -2.5, 10, 8)),  # reaches out above and left
        box(3, 1, (30, 20, 10, 8)),  # and below and right
        box(4, 1, (40, 3, 5, 5)),  # outside
        box(5, 1, (3, 3, 0, 5)),  # empty
        box(6, 1, (9, 9, -3, 5)),  # inside out
        box(7, 55, (3, 3, 5, 5)),  # of no image
        box(8, 1, (3, 3, 5, 5), category=8),  # of no category
    ]
    write(tmp_path, "train", whole(annotations=annotations))
    write(tmp_path, "val", whole())
    objects = open_detection(f"coco:{tmp_path}", on_bad_annotation="skip").train.objects
    found = objects[0]
    expected = torch.tensor([[1.5, 2.25, 11.5, 10.25], [0, 0, 6, 5.5], [30, 20, WIDTH, HEIGHT]])
    torch.testing.assert_close(found.boxes_xyxy, expected, rtol=0, atol=1e-5)
    assert found.areas.tolist() == [13.5, 80, 80]
    assert found.crowd.tolist() == [True, False, False]
    assert (len(objects), len(objects[1]), len(objects[-1])) == (2, 0, 0)
    with pytest.raises(IndexError):
        objects[2]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            *(st.floats(-60, 60, allow_nan=False, width=32) for _ in range(4)),
            st.sampled_from((7, 90, 11)),
        ),
        max_size=20,
    )
)
def test_every_box_that_is_left_lies_in_its_image(tmp_path_factory, rows):
    """As a loop over the annotations would give them, one by one."""
    path = tmp_path_factory.mktemp("coco")
    images = [image(number, height=11 + number, width=17 + 2 * number) for number in (3, 1, 2)]
    annotations = [box(i, row[0], row[1:5], row[5]) for i, row in enumerate(rows)]
    write(path, "train", whole(images, annotations))
    write(path, "val", whole())
    train = open_detection(f"coco:{path}", on_bad_annotation="skip").train
    for index, entry in enumerate(images):
        expected = []
        for of, left, top, width, height, category in rows:
            right, bottom = min(left + width, entry["width"]), min(top + height, entry["height"])
            corners = [np.float32(value) for value in (max(left, 0), max(top, 0), right, bottom)]
            if of == entry["id"] and category != 11 and corners[2] > corners[0] and corners[3] > corners[1]:
                expected.append([*corners, float(category == 90)])
        found = train.objects[index]
        rows_found = torch.cat([found.boxes_xyxy, found.labels[:, None].float()], dim=1)
        torch.testing.assert_close(rows_found, torch.tensor(np.array(expected)).float().view(-1, 5), rtol=0, atol=1e-4)


def test_ids_of_64_bits_and_numbers_written_with_a_point(tmp_path):
    near = [2**62 + 1, 2**62 + 2]
    annotations = [box(1, near[1], category=7.0), box(2.0, near[0], iscrowd=True), box(3, near[0], area=5)]
    write(tmp_path, "train", whole([image(near[0], "a.png"), image(near[1], "b.png")], annotations))
    write(tmp_path, "val", whole())
    train = open_detection(f"coco:{tmp_path}").train
    assert train.image_ids == near
    assert [len(objects) for objects in train.objects] == [2, 1]
    assert train.objects[0].crowd.tolist() == [True, False]


def test_a_source_can_be_sent_to_another_process(tmp_path):
    write(tmp_path, "train", whole())
    write(tmp_path, "val", whole())
    train = open_detection(f"coco:{tmp_path}").train
    again = pickle.loads(pickle.dumps(train))
    assert torch.equal(again.objects[1].boxes_xyxy, train.objects[1].boxes_xyxy)
    assert torch.equal(again.read(1), train.read(1))


def test_bad_images_stop_where_they_are_read_or_are_left_out(tmp_path):
    names = [image(number) for number in range(1, 6)]
    write(tmp_path, "train", whole(names))
    write(tmp_path, "val", whole())
    folder = tmp_path / "train"
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes(b"no image")
    Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "4.png")
    train = open_detection(f"coco:{tmp_path}").train
    assert len(train) == 5
    for index, said in (
        (0, "No such file"),
        (1, "not an image"),
        (3, "23 × 37 pixels, and stated as 37 × 23, perhaps"),
    ):
        with pytest.raises(BadImage, match=said) as caught:
            train.read(index)
        assert str(folder / f"{index + 1}.png") in str(caught.value)
    data = open_detection(f"coco:{tmp_path}", on_bad_image="skip")
    assert data.train.image_ids == [3, 5]
    assert len(data.train.skipped) == 3
    assert "1.png" in data.train.skipped[0]
    assert data.val.skipped == ()
    assert data.train.read(0)[0, 0, 0] == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("{", "is not JSON: .*line 1"),
        ("", "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "holds a list; .* images, annotations and categories"),
        ({"images": [], "annotations": []}, "lacks the key 'categories'"),
        ({"images": {}, "annotations": [], "categories": []}, "images is {}; it must be a list"),
        ({"images": [], "annotations": {}, "categories": []}, "annotations is {}; it must be a list"),
        (whole(categories=[]), "no categories"),
    ],
)
def test_what_is_no_cocos_file(tmp_path, values, said):
    file = tmp_path / "annotations" / "instances_train.json"
    file.parent.mkdir()
    text = json.dumps(values) if isinstance(values, dict) else values
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RegardError, match=said) as caught:
        open_detection(f"coco:{tmp_path}")
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_name_that_only_looks_like_climbing_out(tmp_path):
    write(tmp_path, "train", whole([image(1, "a..b.png"), image(2, "12:30/e.f.png")]))
    write(tmp_path, "val", whole())
    assert open_detection(f"coco:{tmp_path}").train.read(0).shape == (3, HEIGHT, WIDTH)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    file = write(tmp_path, "train", whole())
    monkeypatch.setattr(coco_lists, "LARGEST_FILE", file.stat().st_size - 1)
    with pytest.raises(RegardError, match="GiB are read: leave out the segmentations"):
        open_detection(f"coco:{tmp_path}")


@pytest.mark.parametrize(
    ("path", "said"),
    [("none", "no such folder or file"), ("file", "is not JSON"), ("empty", "has no annotations/instances_train.json")],
)
def test_what_is_no_cocos_folder(tmp_path, path, said):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegardError, match=said):
        open_detection(f"coco:{tmp_path / path}")


def test_annotations_that_are_not_there(tmp_path):
    write(tmp_path, "train", whole())
    gone = tmp_path / "none.json"
    with pytest.raises(RegardError, match=f"{gone}: cannot be read: No such file"):
        open_detection(f"coco:{tmp_path}", annotations=Annotations(val_annotations=gone))


def test_both_files_need_the_same_names(tmp_path):
    write(tmp_path, "train", whole())
    file = write(tmp_path, "val", whole(categories=[{"id": 7, "name": "cow"}]))
    with pytest.raises(RegardError, match="category 7 is 'cow', and 'cat' in") as caught:
        open_detection(f"coco:{tmp_path}")
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("names", "can"),
    [
        (("cat", "dog"), True),
        (("0", "1", "7"), False),
        (("A", "B"), False),
        (("left hand", "right hand"), False),
        (("turn-left",), False),
        (("cleft", "x"), True),
    ],
)
def test_what_can_be_mirrored(names, can):
    assert can_mirror(names) == can

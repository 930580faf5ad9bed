"""COCO's format as labelling tools export it: healed, or left out and counted, never without a word."""

import json
import math
import os
from pathlib import Path

import pytest
from PIL import Image

from regard.data import Annotations, check_detection, open_detection
from regard.data.boxes.coco_values import box_of_segments
from regard.data.images.paths import FilesBelow
from regard.errors import RegardError

HEIGHT, WIDTH = 30, 40
ABSENT = "absent"


def image(number: int, **more) -> dict:
    entry = {"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH} | more
    return {key: value for key, value in entry.items() if value is not ABSENT}


def box(number: int, of: int, **more) -> dict:
    entry = {"id": number, "image_id": of, "category_id": 7, "bbox": [3, 5, 7, 11], "area": 77, "iscrowd": 0} | more
    return {key: value for key, value in entry.items() if value is not ABSENT}


def whole(images=None, annotations=None, categories=None) -> dict:
    return {
        "images": [image(1), image(2)] if images is None else images,
        "annotations": [box(1, 1), box(2, 2)] if annotations is None else annotations,
        "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}] if categories is None else categories,
    }


def picture(file: Path, part: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (len(file.name), 90, len(part))).save(file)


def write(file: Path, values: dict | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(values if isinstance(values, bytes) else json.dumps(values).encode())
    return file


@pytest.fixture
def root(tmp_path) -> Path:
    """train/1.png and 2.png, val/1.png and 2.png, and annotations of val."""
    path = tmp_path / "set"
    for part in ("train", "val"):
        for number in (1, 2):
            picture(path / part / f"{number}.png", part=part)
    write(path / "annotations/instances_val.json", whole())
    return path


def opened(root: Path, values: dict, **options):
    write(root / "annotations/instances_train.json", values)
    return open_detection(f"coco:{root}", **options)


def kinds(found: dict[str, list[str]]) -> dict[str, int]:
    return {kind: len(places) for kind, places in found.items()}


CROWDS = "annotations have an iscrowd that is text or null"
NO_AREA = "areas are no numbers from 0 on: those of the boxes are taken"
SEGMENT = "boxes are not usable: those around the segmentation are taken"


@pytest.mark.parametrize(
    ("changed", "kind", "found"),
    [
        ({"iscrowd": None}, CROWDS, {}),
        ({"iscrowd": "0"}, CROWDS, {}),
        ({"iscrowd": "1"}, CROWDS, {"crowd": True}),
        ({"iscrowd": 1.0}, None, {"crowd": True}),
        ({"iscrowd": ABSENT}, None, {}),
        ({"area": None}, NO_AREA, {}),
        ({"area": "big"}, NO_AREA, {}),
        ({"area": -3}, NO_AREA, {}),
        ({"area": math.nan}, NO_AREA, {}),
        ({"area": 10**400}, NO_AREA, {}),
        ({"area": "13.5"}, "areas are written as text", {"area": 13.5}),
        ({"area": ABSENT}, None, {}),
        ({"id": ABSENT}, "annotations have no id, and are numbered", {}),
        ({"id": None}, "annotations have no id, and are numbered", {}),
        ({"id": "5f3a"}, "annotations have a text for id, and are numbered", {}),
        ({"id": "12"}, "annotations have a number for id that is written as text", {}),
        ({"image_id": "1"}, "annotations have a number for image_id that is written as text", {}),
        ({"category_id": "90"}, "annotations have a number for category_id that is written as text", {"label": 1}),
        ({"category_id": 90.0}, None, {"label": 1}),
        ({"bbox": ["3", "5.0", "7", 11]}, "boxes are written as text", {}),
        ({"bbox": "[3, 5, 7, 11]"}, "boxes are written as text", {}),
        ({"bbox": None, "segmentation": [[3, 5, 10, 5, 10, 16, 3, 16]]}, SEGMENT, {}),
        ({"bbox": ABSENT, "segmentation": [[3, 5, 10, 5], [4, 6, 10, 16]]}, SEGMENT, {}),
        ({"bbox": [], "segmentation": [3, 5, 10, 5, 10, 16]}, SEGMENT, {}),
        ({"bbox": [0, 0, 0, 0], "segmentation": [[3, 5, 10, 16, 3, 16]]}, SEGMENT, {}),
        ({"bbox": [3, 5, math.nan, 11], "segmentation": [[3, 5, 10, 16, 3, 16]]}, SEGMENT, {}),
    ],
)
def test_what_has_one_meaning_is_taken_and_said(root, changed, kind, found):
    entry = {key: value for key, value in (box(1, 1) | changed).items() if value is not ABSENT}
    data = opened(root, whole(annotations=[entry, box(2, 2)]))
    assert kinds(data.repairs.healed) == ({} if kind is None else {kind: 1})
    assert data.repairs.left_out == {}
    objects = data.train.objects[0]
    assert objects.boxes_xyxy.tolist() == [[3, 5, 10, 16]]
    assert objects.areas.tolist() == [found.get("area", 77)]
    assert objects.labels.tolist() == [found.get("label", 0)]
    assert objects.crowd.tolist() == [found.get("crowd", False)]
    if kind is not None:
        assert data.repairs.healed[kind][0].startswith("annotations/instances_train.json annotations[0]")
        warnings = [issue.what for issue in check_detection(data, pixels=False)[0]]
        assert f"1 {kind}" in warnings


NO_BOX = "boxes are not four finite numbers"


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"bbox": None}, NO_BOX),
        ({"bbox": ABSENT}, NO_BOX),
        ({"bbox": []}, NO_BOX),
        ({"bbox": [1, 2, 3]}, NO_BOX),
        ({"bbox": [1, 2, 3, "x"]}, NO_BOX),
        ({"bbox": [1, 2, 3, True]}, NO_BOX),
        ({"bbox": [1, 2, 3, math.nan]}, NO_BOX),
        ({"bbox": [1, 2, math.inf, 4]}, NO_BOX),
        ({"bbox": [1, 2, 3, 10**400]}, NO_BOX),
        ({"bbox": {"x": 1}}, NO_BOX),
        ({"bbox": None, "segmentation": [[1, 2, 3]]}, NO_BOX),
        ({"bbox": None, "segmentation": {"counts": "\x7f", "size": [3, 4]}}, NO_BOX),
        ({"bbox": [20, 10, -3, 5]}, "boxes are turned inside out"),
        ({"bbox": [WIDTH + 1, 10, 3, 5]}, "boxes lie wholly outside of their image"),
        ({"image_id": None}, "annotations have no image_id that can be read"),
        ({"image_id": True}, "annotations have no image_id that can be read"),
        ({"image_id": 2**63}, "annotations have no image_id that can be read"),
        ({"image_id": "a.png"}, "annotations have the image_id of no entry"),
        ({"image_id": 55}, "annotations name no image of the file"),
        ({"category_id": 1.5}, "annotations have no category_id that can be read"),
        ({"category_id": ABSENT}, "annotations have no category_id that can be read"),
        ({"category_id": 8}, "annotations name no category of the file"),
        ({"iscrowd": 2}, "annotations have an iscrowd that is neither 0 nor 1"),
        ({"iscrowd": "maybe"}, "annotations have an iscrowd that is neither 0 nor 1"),
    ],
)
def test_what_has_no_meaning_stops_or_is_left_out(root, changed, kind):
    entries = [
        {key: value for key, value in (box(number, 1) | changed).items() if value is not ABSENT} for number in range(5)
    ]
    values = whole(annotations=[box(8, 1), *entries, box(9, 2)])
    with pytest.raises(RegardError, match=f"coco:{root}: 5 {kind}: ") as caught:
        opened(root, values)
    said = str(caught.value)
    assert "annotations[1]" in said
    assert "annotations[3]" in said
    assert "and 2 more; --set data.on_bad_annotation=skip leaves them out" in said
    assert "\n" not in said
    data = opened(root, values, on_bad_annotation="skip")
    assert [objects.boxes_xyxy.tolist() for objects in data.train.objects] == [[[3, 5, 10, 16]]] * 2
    for setting, severity in (("stop", "error"), ("skip", "warning")):
        issues, _, _ = check_detection(f"coco:{root}", on_bad_annotation=setting, pixels=False)
        (issue,) = (issue for issue in issues if issue.what.startswith("5 "))
        assert issue.severity == severity
        assert ("--set data.on_bad_annotation=skip" in issue.what) == (setting == "stop")


def test_all_kinds_are_told_at_once(root):
    entries = [box(1, 1, bbox=None), box(2, 1, iscrowd=7), 3, box(4, 1, image_id=99), box(5, 2)]
    with pytest.raises(RegardError) as caught:
        opened(root, whole(annotations=entries))
    said = str(caught.value)
    assert "1 boxes are not four finite numbers: annotations/instances_train.json annotations[0].bbox = None;" in said
    assert "1 annotations have an iscrowd that is neither 0 nor 1: " in said
    assert "1 annotations are no objects: annotations/instances_train.json annotations[2] = 3" in said
    assert "1 annotations name no image of the file: annotations/instances_train.json annotations[3]" in said


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"width": ABSENT, "height": ABSENT}, "images have no usable width and height: those of the files are taken"),
        ({"width": 0, "height": 0}, "images have no usable width and height: those of the files are taken"),
        ({"width": None}, "images have no usable width and height: those of the files are taken"),
        ({"height": 29.5}, "images have no usable width and height: those of the files are taken"),
        ({"height": "30"}, "images have a height that is written as text"),
        ({"height": 30.0}, None),
        ({"id": "1"}, "images have a number for id that is written as text"),
        ({"file_name": "train/1.png"}, "image paths are written in another way"),
        ({"file_name": "/home/me/data/train/1.png"}, "image paths are written in another way"),
        ({"file_name": r"C:\me\train\1.png"}, "image paths are written in another way"),
        ({"file_name": r"..\train\1.png"}, "image paths are written in another way"),
        ({"file_name": "./1.png"}, None),
        ({"file_name": "1.PNG"}, "image paths are written in another way"),
        ({"file_name": "%31.png"}, "image paths are written in another way"),
        ({"file_name": "https://host/x/1.png?size=3"}, "image paths are written in another way"),
        ({"file_name": "/data/local-files/?d=train/1.png"}, "image paths are written in another way"),
        ({"file_name": "1.jpg"}, "image files have another ending than stated"),
    ],
)
def test_images_as_tools_name_them(root, changed, kind):
    data = opened(root, whole(images=[image(1, **changed), image(2)]))
    assert kinds(data.repairs.healed) == ({} if kind is None else {kind: 1})
    assert data.train.sizes == [(HEIGHT, WIDTH)] * 2
    assert data.train.read(0).shape == (3, HEIGHT, WIDTH)
    assert data.train.image_ids == [1, 2]
    assert [len(objects) for objects in data.train.objects] == [1, 1]


def test_names_in_another_unicode_form(root):
    picture(root / "train" / "café.png")
    data = opened(root, whole(images=[image(1, file_name="CAFÉ.png"), image(2)]))
    assert data.train.name(0) == str(root / "train" / "café.png")


def test_of_several_files_that_a_name_may_mean_none_is_taken(root):
    for name in ("a.jpeg", "a.webp"):
        picture(root / "train" / name)
    data = opened(root, whole(images=[image(1, file_name="a.jpg"), image(2)]))
    issues, _, _ = check_detection(data)
    (missing,) = (issue.what for issue in issues if "missing" in issue.what)
    assert missing.startswith(f"1 of 2 images are missing: {root / 'train' / 'a.jpg'}")
    assert "2 such files are there: a.jpeg, a.webp" in missing


def test_a_hint_names_what_is_there(root):
    data = opened(root, whole(images=[image(1, file_name="frame_0001.png"), image(2)]))
    picture(root / "train" / "frame-0001.png")
    issues, _, _ = check_detection(data)
    (missing,) = (issue.what for issue in issues if "missing" in issue.what)
    hint = f"{root / 'train'} holds 3 others: 1.png, 2.png, frame-0001.png, perhaps frame-0001.png is meant"
    assert missing.endswith(f"; {hint}; --set data.on_bad_image=skip takes the others")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", r"C:\b.png", "a/../../b.png", r"\\host\b.png"])
def test_no_name_leads_out_of_the_folder(root, name):
    picture(root / "secret.png")
    values = whole(images=[image(1, file_name=name), image(2)])
    with pytest.raises(RegardError, match=r"1 file names lead out of .*train, where no such file is: .*images\[0\]"):
        opened(root, values)
    data = opened(root, values, on_bad_annotation="skip")
    assert data.train.image_ids == [2]
    assert len(data.train.objects[0]) == 1


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        ([image(1, file_name=5), image(2)], "images have no file name"),
        ([image(1, file_name=ABSENT), image(2)], "images have no file name"),
        ([image(1, id=None), image(2)], "images have no id that can be read"),
        ([image(1, width=0, file_name="gone.png"), image(2)], "images have no usable width and height, and cannot be"),
        ([None, image(2)], "images are no objects"),
        ([image(1), image(1, file_name="2.png"), image(2)], "images share their id with other files"),
    ],
)
def test_images_that_cannot_be_used(root, images, kind):
    values = whole(images=images, annotations=[box(1, 2)])
    with pytest.raises(RegardError, match=f"{len(images) - 1} {kind}"):
        opened(root, values)
    data = opened(root, values, on_bad_annotation="skip")
    assert data.train.image_ids == [2]


def test_an_image_that_is_listed_twice_counts_once(root):
    data = opened(root, whole(images=[image(1), image(2), image(1)]))
    assert data.train.image_ids == [1, 2]
    assert kinds(data.repairs.healed) == {"images are listed twice": 1}


def test_ids_that_are_texts(root):
    values = whole(
        images=[image(1, id="a-1"), image(2, id="b-2")],
        annotations=[
            box(1, "b-2", category_id="dog"),
            box(2, "a-1", category_id="cat"),
            box(3, "b-2", category_id="cat"),
        ],
        categories=[{"id": "cat", "name": "cat"}, {"id": "dog", "name": "dog"}],
    )
    write(root / "annotations/instances_train.json", values)
    (root / "annotations/instances_val.json").unlink()
    data = open_detection(f"coco:{root}", val_fraction=None)
    assert data.class_names == ("cat", "dog")
    assert data.train.image_ids == [1, 2]
    assert [objects.labels.tolist() for objects in data.train.objects] == [[0], [1, 0]]


@pytest.mark.parametrize("root_name", ["animals", "cat"])
def test_the_root_that_roboflow_writes_is_no_class(root, root_name):
    categories = [
        {"id": 0, "name": root_name, "supercategory": "none"},
        {"id": 7, "name": "cat", "supercategory": root_name},
        {"id": 90, "name": "dog", "supercategory": root_name},
    ]
    for part in ("train", "val"):
        write(root / f"annotations/instances_{part}.json", whole(categories=categories))
    data = open_detection(f"coco:{root}")
    assert data.class_names == ("cat", "dog")
    assert data.category_ids == (7, 90)
    (kind,) = data.repairs.healed
    assert data.repairs.healed[kind] == [f"{root_name} (0)"]
    annotations = [box(1, 1), box(2, 2, category_id=0)]  # with an object it is a class
    write(root / "annotations/instances_val.json", whole(annotations=annotations, categories=categories))
    assert open_detection(f"coco:{root}").category_ids == (0, 7, 90)


def test_a_class_that_is_declared_and_never_used_stays(root):
    categories = [{"id": 7, "name": "cat"}, {"id": 8, "name": "cow", "supercategory": "cow"}]
    data = opened(root, whole(categories=categories))
    assert data.class_names == ("cat", "cow", "dog")


def test_categories_of_one_name_are_one_class(root):
    categories = [{"id": 7, "name": "cat"}, {"id": 9, "name": "cat"}, {"id": 90, "name": "dog"}]
    data = opened(root, whole(categories=categories, annotations=[box(1, 1), box(2, 2, category_id=9)]))
    assert data.class_names == ("cat", "dog")
    assert [objects.labels.tolist() for objects in data.train.objects] == [[0], [0]]
    assert data.repairs.healed == {"categories have the name of another, and are one class with it": ["9 is 7"]}
    for category, parent in zip(categories, ("car", "bike", "x"), strict=True):
        category["supercategory"] = parent  # a wheel of a car and one of a bike
    opened(root, whole(categories=categories, annotations=[box(1, 1), box(2, 2, category_id=9)]))
    write(root / "annotations/instances_val.json", whole(categories=categories))
    issues, _, _ = check_detection(f"coco:{root}")
    assert [issue.what for issue in issues if issue.severity == "error"] == ["1 names are of several classes: cat"]


def test_names_of_categories(root):
    categories = [{"id": 7}, {"id": 8, "name": 5}, {"id": 9, "name": " "}, {"id": 90, "name": "dog"}]
    write(root / "annotations/instances_val.json", whole(categories=categories[3:], annotations=[]))
    data = opened(root, whole(categories=categories))
    assert data.class_names == ("7", "5", "9", "dog")
    assert kinds(data.repairs.healed) == {
        "categories have no name, and are called by their id": 2,
        "categories have a number for a name": 1,
    }


def test_a_category_of_two_names_is_left_out(root):
    categories = [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}, {"id": 90, "name": "cow"}]
    values = whole(categories=categories, annotations=[box(1, 1), box(2, 2, category_id=90)])
    with pytest.raises(RegardError, match="2 categories share their id with other names"):
        opened(root, values)
    assert [len(one) for one in opened(root, values, on_bad_annotation="skip").train.objects] == [1, 0]


def test_parts_whose_ids_differ_are_joined_by_name(root):
    other = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    write(root / "annotations/instances_val.json", whole(categories=other, annotations=[box(1, 1, category_id=1)]))
    data = opened(root, whole(categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}], annotations=[]))
    assert data.class_names == ("cat", "dog")
    assert data.val.objects[0].labels.tolist() == [1]
    assert len(data.repairs.healed) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark(root, encoding):
    write(root / "annotations/instances_train.json", json.dumps(whole()).encode(encoding))
    assert len(open_detection(f"coco:{root}").train) == 2


def test_a_file_without_annotations_can_be_opened(root):
    values = whole()
    del values["annotations"]
    write(root / "annotations/instances_val.json", values)
    data = opened(root, whole())
    assert [len(objects) for objects in data.val.objects] == [0, 0]
    issues, _, _ = check_detection(data)
    assert "there is no box to evaluate on" in issues[0].what


LAYOUTS = [
    ("_annotations.coco.json", "."),
    ("annotations.json", "images"),
    ("result.json", "images"),
    ("labels.json", "data"),
    ("annotations/instances_default.json", "images"),
    ("annotations/instances_default.json", "images/default"),
    ("annotations/anything.json", "Images"),
    ("odd.json", "."),
]


@pytest.mark.parametrize(("file", "images"), LAYOUTS)
def test_one_file_for_all_images(tmp_path, file, images):
    values = whole(images=[image(number) for number in range(1, 9)])
    write(tmp_path / file, values)
    for number in range(1, 9):
        picture(tmp_path / images / f"{number}.png")
    for address in (f"coco:{tmp_path}", f"coco:{tmp_path / file}"):
        data = open_detection(address)
        assert not data.has_val
        assert (len(data.train), len(data.val)) == (6, 2)
        assert data.train.read(0).shape == (3, HEIGHT, WIDTH)
        assert data.address == address


def test_a_file_whose_images_lie_elsewhere(tmp_path):
    file = write(tmp_path / "a" / "x.json", whole())
    for number in (1, 2):
        picture(tmp_path / "b" / f"{number}.png")
    data = open_detection(f"coco:{file}", annotations=Annotations(train_images=tmp_path / "b"))
    assert data.train.read(0).shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "val2017"])
@pytest.mark.parametrize("form", ["annotations/instances_{}.json", "{}/_annotations.coco.json", "annotations/{}.json"])
def test_the_datas_own_split_is_never_drawn_anew(tmp_path, val, form):
    for part in ("train", val):
        write(tmp_path / form.format(part), whole())
        for number in (1, 2):
            picture(tmp_path / part / f"{number}.png")
    data = open_detection(f"coco:{tmp_path}")
    assert data.has_val
    assert (len(data.train), len(data.val)) == (2, 2)
    assert Path(data.val.name(0)).parent.name == val


def parts(root: Path, *names: str, values: dict | None = None) -> None:
    for part in names:
        write(root / part / "_annotations.coco.json", values or whole())
        for number in (1, 2):
            picture(root / part / f"{number}.png", part=part)


NOT_USED = "annotation files are of a test part, which is neither trained on nor held out"


def test_a_test_part_is_never_trained_on(tmp_path):
    parts(tmp_path, "train", "test")
    data = open_detection(f"coco:{tmp_path}")
    assert data.has_val
    assert (Path(data.train.name(0)).parent.name, Path(data.val.name(0)).parent.name) == ("train", "test")
    assert data.repairs.passed_over == {}
    parts(tmp_path, "valid")
    data = open_detection(f"coco:{tmp_path}")
    assert Path(data.val.name(0)).parent.name == "valid"
    assert kinds(data.repairs.passed_over) == {NOT_USED: 1}


def test_a_test_part_without_boxes_is_not_held_out(tmp_path):
    parts(tmp_path, "train")
    parts(tmp_path, "test", values={**whole(), "annotations": None})
    data = open_detection(f"coco:{tmp_path}")
    assert not data.has_val
    assert {Path(source.name(0)).parent.name for source in (data.train, data.val)} == {"train"}
    assert kinds(data.repairs.passed_over) == {NOT_USED: 1}


@pytest.mark.parametrize("tail", ["", "test", "test/_annotations.coco.json"])
def test_a_test_part_can_be_named_for_evaluation(tmp_path, tail):
    parts(tmp_path, "test")
    data = open_detection(f"coco:{tmp_path / tail}", val_fraction=None)
    measured = data.val if data.has_val else data.train
    assert measured.read(1).shape == (3, HEIGHT, WIDTH)
    assert (len(data.train), len(data.val)) == ((0, 2) if data.has_val else (2, 0))


def test_annotation_files_of_no_known_part_are_said(root):
    write(root / "annotations/holdout.json", whole())
    data = opened(root, whole())
    assert data.repairs.passed_over == {"annotation files are not read": [str(root / "annotations/holdout.json")]}


def test_what_there_is_to_train_on_is_named(root):
    with pytest.raises(RegardError, match=r"there are annotations/instances_val\.json; name the file with --set"):
        open_detection(f"coco:{root}")


def test_images_that_no_entry_names_are_said(root):
    picture(root / "train" / "unlabelled.jpg")
    data = opened(root, whole())
    issues, _, _ = check_detection(data)
    (issue,) = (issue for issue in issues if "in no annotation file" in issue.what)
    assert (issue.severity, issue.where) == ("warning", str(root / "train/unlabelled.jpg"))


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([[1, 2, 5, 2, 5, 9]], [1, 2, 4, 7]),
        ([["1", "2", "5", "2", "5", "9"]], [1, 2, 4, 7]),
        ([[1, 2, 5, 2], [0, 1, 9, 1]], [0, 1, 9, 1]),
        ([[1, 2, 1, 9]], None),
        ([[1, 2, None, 9]], None),
        ([[]], None),
        ({"counts": [7, 2, 3], "size": [4, 3]}, [1, 0, 2, 4]),  # rows 3, and 0 of the next column
        ({"counts": [5, 2, 5], "size": [4, 3]}, [1, 1, 1, 2]),
        ({"counts": [0, 12], "size": [4, 3]}, [0, 0, 3, 4]),
        ({"counts": [12], "size": [4, 3]}, None),
        ({"counts": [5, 20], "size": [4, 3]}, None),
        ({"counts": [5, 2, 5], "size": [4, 0]}, None),
        ({"counts": None, "size": [4, 3]}, None),
        (7, None),
    ],
)
def test_the_box_around_a_segmentation(segmentation, expected):
    assert box_of_segments(segmentation) == expected


def test_compressed_runs_are_those_of_pycocotools():
    import numpy as np
    from pycocotools import mask as masks

    draw = np.random.default_rng(0)
    for _ in range(40):
        height, width = draw.integers(3, 60, 2)
        mask = np.zeros((height, width), dtype=np.uint8, order="F")
        for _ in range(3):
            top, left = draw.integers(0, height), draw.integers(0, width)
            mask[top : top + draw.integers(1, 20), left : left + draw.integers(1, 20)] = 1
        mask &= (draw.random(mask.shape) < 0.7).astype(np.uint8)
        if not mask.any():
            continue
        encoded = masks.encode(np.asfortranarray(mask))
        rows, columns = np.nonzero(mask)
        box_ = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        found = box_of_segments({"counts": encoded["counts"].decode(), "size": [int(height), int(width)]})
        assert found is not None
        # A run that ends at a column's foot and one at the next column's head are one: pycocotools has that box too.
        assert found == masks.toBbox(encoded).tolist()
        assert found[0] == box_[0]
        assert found[2] == box_[2]


def test_where_a_path_is_looked_for(tmp_path):
    for name in ("a.png", "deep/b.png"):
        picture(tmp_path / name)
    below = FilesBelow(tmp_path, [tmp_path / "a.png", tmp_path / "deep/b.png"])
    assert below.find_tail("x/a.png")[0] == tmp_path / "a.png"
    assert below.find_tail("x/deep/b.png")[0] == tmp_path / "deep/b.png"
    assert below.find_tail("b.png")[0] is None  # another folder's file may be another image


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_pipe_is_not_waited_for(root):
    pipe = root / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(RegardError, match="no regular file"):
        open_detection(f"coco:{pipe}")
    with pytest.raises(RegardError, match="no regular file"):
        open_detection(f"coco:{root}", annotations=Annotations(train_annotations=pipe))

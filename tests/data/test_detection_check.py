"""The check of data with boxes finds each thing that would spoil a training, and says nothing about sound data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regard.data import (
    Decoding,
    Issue,
    SelectedDetectionSource,
    Suspect,
    check_data,
    check_detection,
    check_opened_detection,
    open_detection,
)
from regard.data.boxes.sources import FileDetectionSource
from regard.data.checks.box_geometry import CENTRED, CORNERS, SIZED, suspect_format
from regard.errors import RegardError

HEIGHT, WIDTH = 41, 53
IMAGES = {"train": 11, "val": 3}


@pytest.fixture
def sound(tmp_path: Path) -> dict[str, dict]:
    """A set without a fault, as the values of its two files; ids count over both parts. `check` writes them."""
    draw = np.random.default_rng(0)
    parts, number = {}, 0
    for part, count in IMAGES.items():
        (tmp_path / part).mkdir()
        images, annotations = [], []
        for _ in range(count):
            number += 1
            name = f"{number}.png"
            pixels = draw.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / name)
            images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
            for category in (1, 2):
                left, top = (round(draw.uniform(0, side / 2), 2) for side in (WIDTH, HEIGHT))
                bbox = [left, top, *(round(draw.uniform(5, side / 2), 2) for side in (WIDTH, HEIGHT))]
                annotations.append(
                    {"id": 2 * number + category, "image_id": number, "category_id": category} | {"bbox": bbox}
                )
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        parts[part] = {"images": images, "annotations": annotations, "categories": categories}
    return parts


def save(path: Path, values: dict[str, dict]) -> None:
    (path / "annotations").mkdir(exist_ok=True)
    for part, whole in values.items():
        (path / "annotations" / f"instances_{part}.json").write_text(json.dumps(whole))


def check(path: Path, values: dict[str, dict], **options) -> tuple[list[Issue], list[Suspect]]:
    save(path, values)
    issues, _, suspects = check_detection(f"coco:{path}", **options)
    return issues, suspects


def only(path: Path, values: dict[str, dict], severity: str, part: str | None, **options) -> str:
    """What the only issue says."""
    issues, _ = check(path, values, **options)
    assert [issue.severity for issue in issues] == [severity], issues
    assert issues[0].where == (f"coco:{path}" if part is None else str(path / f"annotations/instances_{part}.json"))
    assert "\n" not in issues[0].what
    return issues[0].what


@pytest.mark.parametrize("pixels", [True, False])
def test_sound_data_have_no_findings(tmp_path, sound, pixels):
    save(tmp_path, sound)
    issues, summary, suspects = check_detection(f"coco:{tmp_path}", num_queries=2, pixels=pixels)
    assert (issues, suspects) == ([], [])
    assert str(summary) == (
        "11 images with 22 boxes to train on, 3 with 6 held out, 2 classes, at most 2 boxes in an image"
    )
    assert summary.class_counts == {"cat": 11, "dog": 11}
    data = open_detection(f"coco:{tmp_path}")
    assert (
        check_detection(data, pixels=pixels)
        == check_opened_detection(data, pixels=pixels)
        == (issues, summary, suspects)
    )
    assert check_data(f"coco:{tmp_path}") == (issues, summary)


def test_digit_scenes_are_sound():
    issues, summary, _ = check_detection("digit-scenes", num_queries=25, pixels=False)
    assert [issue for issue in issues if issue.severity == "error"] == []
    assert summary.num_train > 100


def test_what_cannot_be_opened_is_one_error(tmp_path):
    issues, summary, suspects = check_detection(f"coco:{tmp_path / 'none'}")
    assert [issue.severity for issue in issues] == ["error"]
    assert "no such folder" in issues[0].what
    assert (summary.num_train, suspects) == (0, [])
    assert check_data("cocoo:x")[0][0].severity == "error"


@pytest.mark.parametrize(
    ("bbox", "severity", "said"),
    [
        ([20, 10, -3, 5], "error", "turned inside out"),
        ([20, 10, 3, -5], "error", "turned inside out"),
        ([WIDTH + 1, 10, 3, 5], "error", "wholly outside of their image"),
        ([20, -9, 3, 5], "error", "wholly outside"),
        ([20, 10, 0, 5], "warning", "empty"),
        ([20, 10, WIDTH, 5], "warning", "reaching out of their image"),
        ([20, -3, 10, 15], "warning", "reaching out"),
    ],
)
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_box_that_cannot_be_right(tmp_path, sound, part, bbox, severity, said):
    entry = sound[part]["annotations"][3]
    entry["bbox"] = bbox
    what = only(tmp_path, sound, severity, part)
    assert what.startswith(f"1 of {2 * IMAGES[part]} boxes are {said}")
    assert what.endswith(f"{entry['image_id']}.png")
    _, (suspect,) = check(tmp_path, sound)
    assert suspect.name == str(tmp_path / part / f"{entry['image_id']}.png")
    left, top, width, height = bbox
    assert suspect.boxes_xyxy.tolist() == [[left, top, left + width, top + height]]
    assert said.startswith(suspect.why) or suspect.why.startswith(said)


def test_a_box_that_reaches_out_by_a_rounding_is_sound(tmp_path, sound):
    sound["train"]["annotations"][0]["bbox"] = [-0.9, 10, WIDTH + 1.8, 5]
    assert check(tmp_path, sound) == ([], [])


def test_many_of_a_kind_are_one_finding_with_examples(tmp_path, sound):
    for entry in sound["train"]["annotations"][:16:2]:
        entry["bbox"] = [20, 10, -3, 5]
    what = only(tmp_path, sound, "error", "train")
    assert what.startswith("8 of 22 boxes")
    assert what.endswith("3.png and 5 more")
    _, suspects = check(tmp_path, sound)
    assert 1 < len(suspects) < 8
    assert all(len(suspect.boxes_xyxy) == 1 for suspect in suspects)


def boxes_of(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of objects of any size anywhere in images of several sizes, and (width, height) of those."""
    extent = draw.choice([[640.0, 480.0], [480.0, 640.0], [333.0, 500.0]], count)
    size = extent * draw.uniform(0.02, 0.6, (count, 2))
    start = (extent - size) * draw.uniform(0, 1, (count, 2))
    return np.concatenate([start, start + size], axis=1), extent


def written(corners: np.ndarray, how: str) -> np.ndarray:
    start, end = corners[:, :2], corners[:, 2:]
    first = {CORNERS: start, SIZED: start, CENTRED: (start + end) / 2}[how]
    return np.concatenate([first, end if how == CORNERS else end - start], axis=1)


@given(st.integers(0, 2**32 - 1), st.integers(40, 300))
def test_boxes_in_another_format_are_suspected_and_no_others(seed, count):
    corners, extent = boxes_of(np.random.default_rng(seed), count)
    for read_as in (SIZED, CORNERS):
        for how in (CORNERS, SIZED, CENTRED):
            found = suspect_format(written(corners, how), extent, read_as)
            if how == read_as:
                assert found == ""
            elif (how, read_as) != (CENTRED, SIZED):  # many boxes fit as both: it may go unnoticed
                assert f"would as {how}" in found
    shares = written(corners / np.tile(extent, 2), SIZED)
    assert "fractions of the image" in suspect_format(shares, extent, SIZED)


def test_few_boxes_are_not_suspected_of_another_format():
    corners, extent = boxes_of(np.random.default_rng(0), 9)
    assert suspect_format(corners, extent, SIZED) == ""
    assert suspect_format(corners[:0], extent[:0], SIZED) == ""


def test_large_objects_in_the_middle_are_not_suspected():
    """As (left, top, right, bottom) each of these would be sound too."""
    extent = np.full((50, 2), 100.0)
    edge = np.random.default_rng(0).uniform(2, 20, (50, 2))
    boxes = np.concatenate([edge, extent - 2 * edge], axis=1)
    assert suspect_format(boxes, extent, SIZED) == ""


def test_a_file_with_corners_is_an_error_with_pictures(tmp_path, sound):
    for part in sound.values():
        for entry in part["annotations"]:
            left, top, width, height = entry["bbox"]
            entry["bbox"] = [left + 8, top + 8, min(left + 8 + width, WIDTH), min(top + 8 + height, HEIGHT)]
    issues, suspects = check(tmp_path, sound)
    assert issues[0].severity == "error"
    assert "would as (left, top, right, bottom)" in issues[0].what
    assert suspects[0].why == "perhaps another format"


def test_a_file_with_shares_is_an_error(tmp_path, sound):
    for part in sound.values():
        for entry in part["annotations"]:
            entry["bbox"] = [value / 60 for value in entry["bbox"]]
    issues, _ = check(tmp_path, sound)
    assert [issue.severity for issue in issues] == ["error", "error"]
    assert all("fractions of the image" in issue.what for issue in issues)


def test_corners_of_other_formats_are_checked_too(tmp_path, sound):
    """YOLO's and VOC's: here with (left, top, width, height) where corners belong."""
    save(tmp_path, sound)
    data = open_detection(f"coco:{tmp_path}")

    def found(source, misread):
        stated = [replace(objects, boxes_xyxy=misread(objects.boxes_xyxy)) for objects in source.objects]
        files = [Path(source.name(index)) for index in range(len(source))]
        return FileDetectionSource(files, source.sizes, stated, channels=3)

    for misread, said in ((lambda boxes: boxes, []), (sized, ["as (left, top, width", "turned inside out"])):
        other = replace(data, address="voc:x", train=found(data.train, misread), val=found(data.val, lambda x: x))
        issues = [issue for issue in check_opened_detection(other)[0] if issue.severity == "error"]
        assert [issue.where for issue in issues] == ["voc:x, train"] * len(said)
        assert all(text in issue.what for text, issue in zip(said, issues, strict=True))


def sized(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


def test_ids_that_repeat(tmp_path, sound):
    train = sound["train"]
    train["annotations"][5]["id"] = train["annotations"][1]["id"]
    assert only(tmp_path, sound, "warning", "train") == "1 annotation ids repeat: 4"
    train["annotations"][5]["id"] = 99
    train["categories"].append({"id": 2, "name": "dog"})
    (twice,), _ = check(tmp_path, sound)
    assert (twice.severity, twice.what) == ("warning", "1 categories are listed twice")
    assert twice.where == "annotations/instances_train.json categories[2].id"
    train["categories"].pop()
    train["images"][4]["id"] = 1
    issues, _ = check(tmp_path, sound)
    assert [issue.severity for issue in issues] == ["error", "error", "warning"]
    assert issues[0].what.startswith("2 images share their id with other files; --set data.on_bad_annotation=skip")
    assert issues[0].where == (
        "annotations/instances_train.json images[0].id = 1, annotations/instances_train.json images[4].id = 1"
    )
    assert issues[1].what.endswith("are left out: image_id 5")
    assert issues[2].what == "2 image files are in no annotation file that is read"


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_ids_that_lead_nowhere(tmp_path, sound, key):
    for entry in sound["val"]["annotations"][::2]:
        entry[key] = 987654
    issues, _ = check(tmp_path, sound)
    assert issues[0].severity == "error"
    assert issues[0].what.startswith("3 of 6 annotations")
    assert issues[0].what.endswith(f"left out: {key} 987654")


def test_one_file_for_several_images(tmp_path, sound):
    sound["train"]["images"][4]["file_name"] = "1.png"
    (tmp_path / "train/5.png").unlink()
    assert "1 file names are of several images" in only(tmp_path, sound, "warning", "train")


def damage(path: Path) -> None:
    """The first image is missing, the second is none, the third is cut off, the fourth has another size."""
    (path / "train/1.png").unlink()
    (path / "train/2.png").write_text("no image")
    whole = (path / "train/3.png").read_bytes()
    (path / "train/3.png").write_bytes(whole[:-2000])
    Image.new("RGB", (HEIGHT, WIDTH)).save(path / "train/4.png")


@pytest.mark.parametrize("pixels", [True, False])
def test_images_that_are_not_as_stated(tmp_path, sound, pixels):
    damage(tmp_path)
    issues, suspects = check(tmp_path, sound, pixels=pixels)
    assert {issue.severity for issue in issues} == {"error"}
    missing, unreadable, other = (issue.what for issue in issues)
    assert missing.startswith(f"1 of 11 images are missing: {tmp_path / 'train/1.png'}")
    assert unreadable.startswith(f"{1 + pixels} of 11 images cannot be read: {tmp_path / 'train/2.png'}: not an image")
    assert ("3.png" in unreadable) == pixels
    assert "4.png is 41 × 53 pixels, and stated as 53 × 41, perhaps as it lies in the file before" in other
    assert [suspect.name for suspect in suspects] == [str(tmp_path / "train/4.png")]


def test_bad_images_that_are_left_out_are_a_warning(tmp_path, sound):
    damage(tmp_path)
    what = only(tmp_path, sound, "warning", "train", on_bad_image="skip", pixels=False)
    assert what.startswith("3 images are left out: ")
    assert "1.png: No such file" in what


def test_images_that_lie_elsewhere(tmp_path, sound):
    (tmp_path / "train").rename(tmp_path / "pictures")
    issues, _ = check(tmp_path, sound)
    assert issues[0].what.startswith("11 of 11 images are missing: ")
    assert "data.train_images" in issues[0].what


def test_parts_that_share_images(tmp_path, sound):
    (tmp_path / "val/13.png").write_bytes((tmp_path / "train/5.png").read_bytes())
    for pixels in (True, False):
        what = only(tmp_path, sound, "warning", None, pixels=pixels)
        pair = f"{tmp_path / 'val/13.png'} is {tmp_path / 'train/5.png'}"
        assert what == f"1 of 3 held-out images are trained on too: {pair}; data.strict=true makes this an error"
        (issue,), _, _ = check_opened_detection(open_detection(f"coco:{tmp_path}"), pixels=pixels, strict=True)
        assert issue.severity == "error"
        assert issue.what == f"1 of 3 held-out images are trained on too: {pair}; data.strict=false lets it pass"


def test_one_shared_image_among_many_is_a_warning(tmp_path, sound):
    sound["val"]["images"] = [sound["val"]["images"][0] | {"id": number} for number in range(1, 102)]
    names = [f"{number}.png" for number in range(100, 201)]
    for number, name in enumerate(names):
        Image.new("RGB", (WIDTH, HEIGHT), (number, 7, 7)).save(tmp_path / "val" / name)
        sound["val"]["images"][number]["file_name"] = name
    sound["val"]["annotations"] = [entry | {"image_id": 3} for entry in sound["val"]["annotations"]]
    (tmp_path / "val/150.png").write_bytes((tmp_path / "train/5.png").read_bytes())
    issues, _ = check(tmp_path, sound)
    assert {issue.severity for issue in issues} == {"warning"}
    assert any("1 of 101 held-out images" in issue.what for issue in issues)


def test_copies_are_found_where_the_part_was_split_off(tmp_path, sound):
    for number in range(1, 11):
        (tmp_path / f"train/{number}.png").write_bytes((tmp_path / "train/11.png").read_bytes())
    issues, _ = check(tmp_path, {"train": sound["train"]})
    assert [(issue.severity, issue.where) for issue in issues] == [("error", f"coco:{tmp_path}")]


def test_evaluating_on_what_is_trained_on_is_meant(tmp_path, sound):
    save(tmp_path, sound)
    data = open_detection(f"coco:{tmp_path}")
    few = SelectedDetectionSource(data.train, range(5))
    issues, summary, _ = check_opened_detection(replace(data, train=few, val=few))
    assert issues == []
    assert (summary.num_train, summary.num_val, summary.boxes_val) == (5, 5, 10)


def test_of_selected_images_only_those_are_looked_at(tmp_path, sound):
    save(tmp_path, sound)
    (tmp_path / "train/9.png").unlink()
    data = open_detection(f"coco:{tmp_path}")
    for count, wanted in ((8, 0), (9, 1)):
        few = replace(data, train=SelectedDetectionSource(data.train, range(count)))
        assert len(check_opened_detection(few)[0]) == wanted


def test_classes_without_examples(tmp_path, sound):
    for whole in sound.values():
        whole["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 5, "name": "cow"}]
    sound["train"]["annotations"][0]["category_id"] = 5
    assert only(tmp_path, sound, "warning", "val") == "1 of 3 classes are without examples: cow"


def test_a_class_of_crowds_alone_has_no_example(tmp_path, sound):
    for entry in sound["train"]["annotations"][1::2]:
        entry["iscrowd"] = 1
    issues, _ = check(tmp_path, sound)
    assert {issue.severity for issue in issues} == {"warning"}
    absent, crowds = (issue.what for issue in issues)
    assert absent == "1 of 2 classes are without examples: dog"
    assert crowds.startswith("11 boxes are crowds")


def test_a_single_class(tmp_path, sound):
    for whole in sound.values():
        whole["categories"].pop()
        whole["annotations"] = whole["annotations"][::2]
    assert "a single class, cat" in only(tmp_path, sound, "warning", None)


def test_classes_of_one_name(tmp_path, sound):
    for whole in sound.values():
        whole["categories"][1]["name"] = "cat"
        for entry in whole["categories"]:
            entry["supercategory"] = f"of {entry['id']}"
    assert only(tmp_path, sound, "error", None) == "1 names are of several classes: cat"


@pytest.mark.parametrize(("part", "use"), [("train", "train on"), ("val", "evaluate on: no figure is defined")])
def test_a_part_without_boxes(tmp_path, sound, part, use):
    sound[part]["annotations"] = []
    assert only(tmp_path, sound, "error", part) == f"there is no box to {use} in {IMAGES[part]} images"


def test_a_part_with_crowds_alone(tmp_path, sound):
    for entry in sound["val"]["annotations"]:
        entry["iscrowd"] = 1
    assert only(tmp_path, sound, "error", "val").endswith("in 3 images (6 crowds do not count)")


def test_a_part_without_images(tmp_path, sound):
    sound["val"] |= {"images": [], "annotations": []}
    assert "in 0 images" in only(tmp_path, sound, "error", "val")


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_image_without_objects(tmp_path, sound, part):
    sound[part]["annotations"] = sound[part]["annotations"][2:]
    first = tmp_path / part / sound[part]["images"][0]["file_name"]
    assert only(tmp_path, sound, "warning", part) == f"1 of {IMAGES[part]} images are without objects: {first}"


def test_more_objects_than_queries(tmp_path, sound):
    extra = [sound["train"]["annotations"][6] | {"id": 100 + number} for number in range(19)]
    sound["train"]["annotations"] += extra
    what = only(tmp_path, sound, "warning", "train", num_queries=20)
    assert what.startswith("1 of 11 images have more objects than the 20 queries, up to 21")
    assert "4.png" in what
    assert "model.num_queries=40 would do" in what
    assert check(tmp_path, sound, num_queries=21)[0] == []
    assert check(tmp_path, sound)[0] == []


@pytest.mark.parametrize("corners", [[[20, 10, -5, 60]], [[-900, -900, 900, 900], [3, 4, 5, 6]], []])
def test_a_suspect_is_drawn_whatever_its_boxes_are(tmp_path, sound, corners):
    save(tmp_path, sound)
    source = open_detection(f"coco:{tmp_path}", channels=1).train
    suspect = Suspect(source, 2, torch.tensor(corners).float().view(-1, 4), "odd")
    pixels = np.asarray(suspect.draw()).astype(int)
    assert pixels.shape[0] > HEIGHT
    assert pixels.shape[1] > WIDTH
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    assert red.any() == bool(corners)
    (tmp_path / "train/3.png").unlink()
    assert suspect.draw().size == pixels.shape[1::-1]


@pytest.mark.parametrize(("part", "said"), [("train", "none of the images to train on"), ("val", "no held-out image")])
def test_with_every_image_left_out_there_is_one_line(tmp_path, sound, part, said):
    save(tmp_path, sound)
    for file in (tmp_path / part).iterdir():
        file.write_text("no image")
    with pytest.raises(RegardError, match=rf"^coco:{tmp_path}: {said} can be read: .*png: not an image"):
        open_detection(f"coco:{tmp_path}", on_bad_image="skip")


def test_the_depth_of_a_set_is_measured_and_told(tmp_path, sound):
    for number, name in enumerate(sorted((tmp_path / "train").iterdir())):
        values = np.linspace(0, 4000 - number, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
        Image.fromarray(values).save(name)
    what = only(tmp_path, sound, "warning", None)
    assert what == "images have more than 8 bits: the value 4095 becomes white"
    data = open_detection(f"coco:{tmp_path}")
    assert data.decoding.integer_white == 4095
    assert len(data.train.read(0).unique()) == 250  # of 0 to 4000 in 0 to 4095
    kept = open_detection(f"coco:{tmp_path}", decoding=Decoding())
    assert len(kept.train.read(0).unique()) < 20


def test_images_above_the_limit_count_as_unreadable(tmp_path, sound):
    save(tmp_path, sound)
    data = open_detection(f"coco:{tmp_path}", max_megapixels=0.002)
    (train, val), _, _ = check_opened_detection(data, pixels=False)
    assert train.what.startswith("11 of 11 images cannot be read: ")
    assert "53 × 41 pixels; up to 0.002 megapixels are read" in val.what

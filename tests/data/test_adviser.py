"""What the check of data says beyond faults: near-doubles between the parts, placeholders, sizes, balance; and
`data.leave_out`, the way on."""

import json
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from regard.api.check import examine, write_list
from regard.data import DetectionPreprocessing, Seen, check_alike, check_opened_images, open_detection, open_images
from regard.errors import RegardError
from regard.recipes import load_recipe
from regard.tasks import quick_facts


def picture(seed: int, height: int = 60, width: int = 80) -> Image.Image:
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (9, 11, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes, six images each to train on and two held out, all different."""
    seed = 0
    for part, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                save(tmp_path / "classes" / part / name / f"{number}.png", picture(seed := seed + 1))
    return tmp_path / "classes"


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """COCO: eight images to train on, with one or two boxes of 12 × 12 pixels, and three held out."""
    seed, root = 100, tmp_path / "boxes"
    (root / "annotations").mkdir(parents=True)
    for part, count in (("train", 8), ("val", 3)):
        images, annotations = [], []
        for number in range(count):
            save(root / part / f"{number}.png", picture(seed := seed + 1))
            images.append({"id": number, "file_name": f"{number}.png", "height": 60, "width": 80})
            for k in range(1 + number % 2):
                box = {"image_id": number, "category_id": 1 + k, "bbox": [10 + 20 * k, 20, 12, 12]}
                annotations.append({"id": len(annotations), **box})
        values = {"images": images, "annotations": annotations}
        values["categories"] = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(values))
    return root


def test_sound_data_get_no_advice(classes, boxes):
    found = examine(f"folder:{classes}")
    assert (found.alike.issues, found.alike.leave_out, found.advice) == ((), {}, [])
    found = examine(f"coco:{boxes}")
    assert (found.issues, found.alike.leave_out) == ([], {})


def test_near_doubles_between_the_parts_are_left_out_by_their_list(classes, tmp_path):
    save(classes / "val/cat/mirrored.png", ImageOps.mirror(Image.open(classes / "train/dog/3.png")))
    save(
        classes / "val/dog/brighter.jpg", ImageEnhance.Brightness(Image.open(classes / "train/dog/4.png")).enhance(1.4)
    )
    save(classes / "train/cat/smaller.png", Image.open(classes / "train/cat/2.png").resize((40, 30)))
    address = f"folder:{classes}"
    found = examine(address)
    between, within = found.alike.issues
    assert (between.severity, between.count) == ("warning", 2)
    assert between.what.startswith("2 of 6 held-out images are nearly the same as images that are trained on")
    assert f"{classes}/val/cat/mirrored.png is {classes}/train/dog/3.png" in between.what
    assert between.names == (f"{classes}/val/cat/mirrored.png", f"{classes}/val/dog/brighter.jpg")
    assert between.ways_on == (f"regard data check {address} --leave-out FILE", "--set data.leave_out=FILE")
    assert within.what.startswith("1 images in train are nearly the same as another there, and count more than once: ")
    assert f"{classes}/train/cat/smaller.png is {classes}/train/cat/2.png; " in within.what
    assert found.short(between.what).count(str(classes)) == 1  # in the command

    listed = tmp_path / "out.txt"
    assert write_list(found, listed) == 2
    lines = listed.read_text().splitlines()
    assert "val/cat/mirrored.png" in lines
    assert "# train/cat/smaller.png" in lines
    again = examine(address, settings=[f"data.leave_out={listed}"])
    assert (again.summary.num_val, again.summary.num_train) == (4, 13)
    assert [issue.what.split(" images")[0] for issue in again.alike.issues] == ["1"]
    images = open_images(address, channels=3, leave_out=listed)
    assert [Path(images.val.name(index)).name for index in range(4)] == ["0.png", "1.png", "0.png", "1.png"]
    assert images.remarks == ()


def test_a_placeholder_is_the_same_pixels_in_several_classes(classes):
    nothing = picture(999)
    for place in ("train/cat/a.png", "train/dog/a.bmp", "val/dog/a.png"):
        save(classes / place, nothing)
    save(classes / "train/cat/twice.png", Image.open(classes / "train/cat/0.png"))  # of one class: a double
    found = examine(f"folder:{classes}")
    (issue,) = found.alike.issues
    assert issue.what.startswith("3 images are placeholders, or have a wrong label")
    assert issue.count == 3
    assert set(found.alike.leave_out) == {
        str(classes / name) for name in ("train/cat/a.png", "train/dog/a.bmp", "val/dog/a.png")
    }
    assert found.to_dict()["placeholders"]["count"] == 3


def test_boxes_have_near_doubles_too_and_files_of_the_same_bytes_are_said_once(boxes, tmp_path):
    save(boxes / "val/1.png", Image.open(boxes / "train/5.png").resize((80, 60), box=(0, 0, 79, 60)))
    (boxes / "val/2.png").write_bytes((boxes / "train/6.png").read_bytes())
    address = f"coco:{boxes}"
    found = examine(address)
    whole = [issue.what for issue in found.issues]
    assert sum("nearly the same" in what for what in whole) == 1
    assert sum("are trained on too" in what for what in whole) == 1
    assert found.alike.leave_out.keys() == {str(boxes / "val/1.png"), str(boxes / "val/2.png")}
    write_list(found, tmp_path / "out.txt")
    data = open_detection(address, leave_out=tmp_path / "out.txt")
    assert [Path(data.val.name(index)).name for index in range(len(data.val))] == ["0.png"]
    assert len(data.train) == 8


def test_a_list_that_cannot_be_meant_is_an_error(classes, boxes, tmp_path):
    listed, address = tmp_path / "out.txt", f"folder:{classes}"
    for lines, wanted in (
        ("a.png\nb.png", "out.txt: no line names an image of the data: a.png, b.png; there are "),
        ("\n".join(f"val/{name}/{k}.png" for name in ("cat", "dog") for k in (0, 1)), "leaves no image to evaluate on"),
        ("\n".join(f"train/cat/{k}.png" for k in range(6)), "leaves nothing to train on of: cat"),
    ):
        listed.write_text(lines)
        with pytest.raises(RegardError, match=re.escape(wanted)):
            open_images(address, channels=3, leave_out=listed)
    with pytest.raises(RegardError, match=r"gone\.txt"):
        open_images(address, channels=3, leave_out=tmp_path / "gone.txt")
    listed.write_text("# nothing\n\ntrain/cat/0.png\nelsewhere.png\n")
    images = open_images(address, channels=3, leave_out=listed)
    assert (len(images.train), images.remarks) == (
        11,
        (f"1 lines of {listed} name no image of the data: elsewhere.png",),
    )
    listed.write_text(f"{boxes}/train/0.png\n")
    assert len(open_detection(f"coco:{boxes}", leave_out=listed).train) == 7


def test_facts_of_classes_say_which_balance_helps(classes):
    data = open_images(f"folder:{classes}", channels=3)
    recipe = load_recipe("small-images", address=data.address)
    facts = quick_facts(data, recipe)
    assert (facts.num_train, facts.num_val, facts.class_counts) == (12, 4, {"cat": 6, "dog": 6})
    assert (facts.imbalance, facts.image_sizes, facts.seen_size) == (1.0, ((60, 80),) * 3, (32, 32))
    assert facts.lines == (
        "12 images to train on, 4 held out (the data's own part), of 60 × 80 pixels; 2 classes, 6 images each",
    )
    with pytest.raises(FrozenInstanceError):
        facts.num_train = 3

    def advice(cats: int, dogs: int, of=recipe) -> str:
        labels = (0,) * cats + (1,) * dogs
        source = data.train.only([0] * (cats + dogs))
        source.labels = labels
        (issue,) = quick_facts(replace(data, train=source), of).advice
        assert issue.names == ("cat", "dog")
        return issue.what

    assert "3.0 times the images of the smallest, cat (4)" in advice(4, 12)
    assert "--set train.class_weights=balanced" in advice(4, 12)
    assert advice(4, 40).startswith("the largest class, dog (40), has 10.0 times")
    assert "train.loss=focal" in advice(4, 40)  # 91% of all
    assert "data.sampling" not in advice(4, 40)
    assert "--set train.class_weights=balanced" in advice(3, 26)
    solved = load_recipe("finetune-photos", address=data.address)
    assert "--set train.class_weights=balanced counts" in advice(4, 40, solved)


def test_sampling_is_advised_where_no_class_is_a_background(classes):
    for k in range(12):
        save(classes / f"train/eel/{k}.png", picture(500 + k))
    save(classes / "val/eel/0.png", picture(600))
    data = open_images(f"folder:{classes}", channels=3)
    source = data.train.only([0] * 41)
    source.labels = (0,) * 20 + (1,) * 2 + (2,) * 19
    facts = quick_facts(replace(data, train=source), load_recipe("small-images", address=data.address))
    assert facts.imbalance == 10
    assert "--set data.sampling=balanced" in facts.advice[0].what


def test_facts_of_boxes_say_how_large_objects_are_and_which_size_would_do(boxes):
    data = open_detection(f"coco:{boxes}")
    facts = quick_facts(data, load_recipe("detr-photos", address=data.address))
    assert (facts.num_boxes, facts.most_objects, facts.suggested_queries) == (12, 2, 10)
    assert facts.class_counts == {"ant": 8, "bee": 4}
    # 60 × 80 becomes 252 × 336: 4.2 times the size
    assert facts.object_sides == pytest.approx((50.4,) * 3)
    assert (facts.suggested_size, facts.advice) == (None, ())
    small = quick_facts(
        data, load_recipe("detr-photos", ["data.shortest=140", "data.longest=140"], address=data.address)
    )
    height, width = DetectionPreprocessing(140, 140, 1, (0.0,), (1.0,), divisor=14).prepared_size(60, 80)
    side = 12 * (height * width / (60 * 80)) ** 0.5
    assert small.object_sides == pytest.approx((side,) * 3)
    (issue,) = small.advice
    assert f"--set data.shortest={small.suggested_size[0]}" in issue.what
    assert issue.count == 12

    def half_at(pixels: int) -> float:
        settings = [f"data.{key}={pixels}" for key in ("shortest", "longest")]
        return quick_facts(data, load_recipe("detr-photos", settings, address=data.address)).object_sides[1]

    does = small.suggested_size[0]  # 28 pixels are two tokens; a patch less would not do
    assert half_at(does - 14) < 28 <= half_at(does)


def test_unlabelled_images_are_counted_and_have_a_way_on(boxes):
    file = boxes / "annotations/instances_train.json"
    values = json.loads(file.read_text())
    values["annotations"] = [one for one in values["annotations"] if one["image_id"] not in (0, 2)]
    file.write_text(json.dumps(values))
    found = examine(f"coco:{boxes}")
    (issue,) = [issue for issue in found.issues if "without objects" in issue.what]
    assert (issue.count, issue.ways_on) == (2, ("--set data.leave_out=FILE",))
    assert found.to_dict()["unlabelled"] == {
        "count": 2,
        "names": [str(boxes / "train/0.png"), str(boxes / "train/2.png")],
    }
    values["annotations"] = []
    file.write_text(json.dumps(values))
    (error,) = [issue for issue in examine(f"coco:{boxes}").issues if issue.severity == "error"]
    assert error.what == "there is no box to train on in 8 images"
    assert "label some fifty images" in error.way_on


def test_each_image_is_seen_once(classes):
    images = open_images(f"folder:{classes}", channels=3)
    counts: list[int] = []
    seen = Seen(counts.append)
    check_opened_images(images, see=seen.see)
    assert counts == list(range(1, 17))
    assert seen.places == [*(("train", k) for k in range(12)), *(("val", k) for k in range(4))]
    assert check_alike(images, seen).issues == ()

"""YOLO's and Pascal VOC's folders as tools write them: healed, or left out and counted, never without a word."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from regard.data import check_detection, open_detection
from regard.data.boxes.voc import fix_voc, open_voc
from regard.data.boxes.yolo import fix_yolo, open_yolo
from regard.errors import RegardError


def image(file: Path, width: int = 40, height: int = 30) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(file)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.fixture
def yolo(tmp_path) -> Path:
    """Two images to train on and one held out; a.txt has two boxes."""
    root = tmp_path / "set"
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    for name, text in {
        "train/a": "1 0.5 0.5 0.5 0.2\n0 0.1 0.1 0.2 0.2\n",
        "train/b": "",
        "val/c": "0 0.5 0.5 1 1\n",
    }.items():
        image(root / "images" / f"{name}.png")
        write(root / "labels" / f"{name}.txt", text)
    return root


def names_of(source) -> list[str]:
    return [Path(source.name(index)).name for index in range(len(source))]


BAD_LINES = {
    "0 0.5 nan 0.2 0.2": "numbers that are not finite",
    "0 0.5 inf 0.2 0.2": "numbers that are not finite",
    "0 0.5 x 0.2 0.2": "something else than numbers",
    "x 0.5 0.5 0.2 0.2": "do not begin with the number of a class",
    "0.5 0.5 0.5 0.2 0.2": "do not begin with the number of a class",
    "2 0.5 0.5 0.2 0.2": "a class outside of 0 to 1",
    "-1 0.5 0.5 0.2 0.2": "a class outside of 0 to 1",
    "99999999999999999999999 0.5 0.5 0.2 0.2": "do not begin with the number of a class",
    "0 0.5": "wrong count of numbers",
    "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4": "wrong count of numbers",
    "0 120 80 30 20": "no fractions of their image",
    "0 0.5 0.5 -0.2 0.2": "negative width or height",
    "0 1.5 0.5 0.2 0.2": "outside of their image",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_label_stops_and_can_be_skipped(yolo, line):
    file = yolo / "labels" / "train" / "a.txt"
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(RegardError) as caught:
        open_detection(f"yolo:{yolo}")
    message = str(caught.value)
    assert (
        f"1 labels have {BAD_LINES[line]}" in message
        or f"1 labels {BAD_LINES[line]}" in message
        or BAD_LINES[line] in message
    )
    assert "a.txt, line 3" in message
    assert "data.on_bad_annotation=skip" in message
    data = open_detection(f"yolo:{yolo}", on_bad_annotation="skip")
    assert [len(places) for places in data.repairs.left_out.values()] == [1]
    assert_close(data.train.objects[0].boxes_xyxy, torch.tensor([[10.0, 12.0, 30.0, 18.0], [0.0, 0.0, 8.0, 6.0]]))


def test_all_kinds_are_counted_at_once(yolo):
    write(yolo / "labels" / "train" / "a.txt", "\n".join([*BAD_LINES, "0 0.5"]))
    with pytest.raises(RegardError) as caught:
        open_detection(f"yolo:{yolo}")
    assert "2 labels have a wrong count" not in str(caught.value)
    assert "3 labels have a wrong count of numbers" in str(caught.value)
    assert "2 labels have numbers that are not finite" in str(caught.value)


HEALED_LINES = {
    "1.0 0.5 0.5 0.5 0.2": None,
    "1 0.5 0.5 0.5 0.2 0.93": "a sixth number, a score",
    "1 0.5 0.5 0.5 0.2\n1 0.5 0.5 0.5 0.2": "stand twice",
    "1 0.5 0.5 0.5 0.2\n0 0.5 0.5 0 0.2": "no width or height",
    "1 0.25 0.4 0.75 0.4 0.75 0.6 0.25 0.6": None,  # an oriented box
    "1 0.25 0.5 0.5 0.4 0.75 0.5 0.5 0.6": None,
}


@pytest.mark.parametrize("line", HEALED_LINES)
def test_a_label_of_one_meaning_is_taken(yolo, line):
    write(yolo / "labels" / "train" / "a.txt", line)
    data = open_detection(f"yolo:{yolo}")
    assert_close(data.train.objects[0].boxes_xyxy, torch.tensor([[10.0, 12.0, 30.0, 18.0]]))
    assert data.train.objects[0].labels.tolist() == [1]
    kinds = list(data.repairs.healed)
    assert (kinds == []) if HEALED_LINES[line] is None else (len(kinds) == 1 and HEALED_LINES[line] in kinds[0])


def test_a_box_beyond_the_edge_is_cut_and_its_area_with_it(yolo):
    write(yolo / "labels" / "train" / "a.txt", "0 0 0.5 0.5 1\n")
    objects = open_detection(f"yolo:{yolo}").train.objects[0]
    assert_close(objects.boxes_xyxy, torch.tensor([[0.0, 0.0, 10.0, 30.0]]))
    assert_close(objects.areas, torch.tensor([300.0]))


def test_key_points_are_no_polygon(yolo):
    config = yolo / "data.yaml"
    write(config, config.read_text(encoding="utf-8") + "kpt_shape: [2, 2]\n")
    write(yolo / "labels" / "train" / "a.txt", "1 0.5 0.5 0.5 0.2 0 0 0.9 0.9\n")
    assert_close(open_detection(f"yolo:{yolo}").train.objects[0].boxes_xyxy, torch.tensor([[10.0, 12.0, 30.0, 18.0]]))


def test_names_are_what_was_written(yolo):
    write(yolo / "data.yaml", "train: images/train\nval: images/val\nnames: [yes, no, 007]\n")
    assert open_detection(f"yolo:{yolo}").class_names == ("yes", "no", "007")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("[]", "no class"),
        ("['', a]", "an empty name"),
        ("[a, a]", "more than once"),
        ("{0: a, 2: b}", "must number the classes 0, 1, 2"),
        ("{x: a}", "must number the classes"),
        ("3", "must be a list"),
        ("[[a], [b]]", "must be a list"),
        ("{" + "9" * 900 + ": a}", "must number the classes"),
    ],
)
def test_bad_names(yolo, names, told):
    write(yolo / "data.yaml", f"train: images/train\nval: images/val\nnames: {names}\n")
    with pytest.raises(RegardError, match=told) as caught:
        open_detection(f"yolo:{yolo}")
    assert len(str(caught.value)) < 500


def test_a_label_file_that_is_no_text_takes_its_image_out(yolo):
    (yolo / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(RegardError, match="1 label files of images cannot be read"):
        open_detection(f"yolo:{yolo}")
    assert names_of(open_detection(f"yolo:{yolo}", on_bad_annotation="skip").train) == ["b.png"]


def test_an_image_that_cannot_be_read_can_be_skipped(yolo):
    (yolo / "images" / "train" / "a.png").write_bytes(b"no image")
    with pytest.raises(RegardError, match=r"a\.png: not an image"):
        open_detection(f"yolo:{yolo}")
    data = open_detection(f"yolo:{yolo}", on_bad_image="skip")
    assert names_of(data.train) == ["b.png"]
    assert "a.png" in data.train.skipped[0]


def test_the_check_tells_bad_images_and_bad_labels_at_once(yolo):
    (yolo / "images" / "train" / "b.png").write_bytes(b"no image")
    write(yolo / "labels" / "train" / "a.txt", "1 0.5 0.5 0.5 0.2\n0 0.5 nan 0.2 0.2\n")
    for setting, severity in (("stop", "error"), ("skip", "warning")):
        issues, _, _ = check_detection(f"yolo:{yolo}", on_bad_image=setting, on_bad_annotation=setting)
        found = [issue.what for issue in issues if issue.severity == severity]
        assert any(what.startswith(("1 images cannot be used", "1 images are left out")) for what in found), found
        assert any("1 labels have numbers that are not finite" in what for what in found), found


def lay_out_as_list(root: Path) -> None:
    write(root / "train.txt", "./images/train/a.png\nC:\\data\\images\\train\\b.png\n\n")
    write(root / "val.txt", "/home/someone/set/images/val/C.PNG\n")
    write(root / "data.yaml", "path: /home/someone/set\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n")


def lay_out_as_folders(root: Path) -> None:
    for name in ("a", "b"):
        for kind in ("images", "labels"):
            file = next((root / kind / "train").glob(f"{name}.*"))
            (root / kind / "train" / name).mkdir()
            file.rename(root / kind / "train" / name / file.name)
    write(root / "data.yaml", "train: [images/train/a, images/train/b]\nval: images/val\nnames: [cat, dog]\n")


def lay_out_in_sub_folders(root: Path) -> None:
    lay_out_as_folders(root)
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")


def lay_out_beside(root: Path) -> None:
    for part in ("train", "val"):
        for file in (root / "labels" / part).iterdir():
            file.rename(root / "images" / part / file.name)
    shutil.rmtree(root / "labels")


def lay_out_as_roboflow(root: Path) -> None:
    for part, name in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            (root / name).mkdir(exist_ok=True)
            shutil.move(root / kind / part, root / name / kind)
    shutil.rmtree(root / "images")
    write(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n",
    )


LAYOUTS = [lay_out_as_list, lay_out_as_folders, lay_out_in_sub_folders, lay_out_beside, lay_out_as_roboflow]


@pytest.mark.parametrize("lay_out", LAYOUTS)
def test_layouts_of_tools(yolo, lay_out):
    lay_out(yolo)
    data = open_detection(f"yolo:{yolo}")
    assert (sorted(names_of(data.train)), names_of(data.val)) == (["a.png", "b.png"], ["c.png"])
    assert data.has_val
    assert [len(objects) for objects in data.train.objects] == [2, 0]
    assert_close(data.val.objects[0].boxes_xyxy, torch.tensor([[0.0, 0.0, 40.0, 30.0]]))


def test_classes_txt_is_enough(yolo):
    (yolo / "data.yaml").unlink()
    write(yolo / "classes.txt", "cat\ndog\n")
    data = open_detection(f"yolo:{yolo}")
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.val), data.has_val) == (2, 1, True)
    for file in [*yolo.rglob("*/train/*"), *yolo.rglob("*/val/*")]:
        file.rename(file.parent.parent / file.name)
    for folder in [*yolo.glob("*/train"), *yolo.glob("*/val")]:
        folder.rmdir()
    data = open_detection(f"yolo:{yolo}", val_fraction=0.3)
    assert (len(data.train), len(data.val), data.has_val) == (2, 1, False)
    assert sum(map(len, (*data.train.objects, *data.val.objects))) == 3


def test_an_image_in_both_parts_is_held_out(yolo):
    write(yolo / "data.yaml", "train: images\nval: images/val\nnames: [cat, dog]\n")
    data = open_detection(f"yolo:{yolo}")
    assert (names_of(data.train), names_of(data.val)) == (["a.png", "b.png"], ["c.png"])
    assert data.repairs.healed


def test_a_test_part_is_never_trained_on(yolo):
    write(yolo / "data.yaml", "train: images/train\ntest: images/val\nnames: [cat, dog]\n")
    data = open_detection(f"yolo:{yolo}")
    assert (names_of(data.train), names_of(data.val), data.has_val) == (["a.png", "b.png"], ["c.png"], True)


def test_files_that_are_not_read_are_counted(yolo):
    image(yolo / "images" / "more" / "d.png")
    write(yolo / "labels" / "train" / "nobody.txt", "0 0.5 0.5 0.1 0.1\n")
    passed_over = open_detection(f"yolo:{yolo}").repairs.passed_over
    places = sorted(Path(place).name for kind in passed_over.values() for place in kind)
    assert places == ["d.png", "nobody.txt"]


@pytest.mark.parametrize("stated", ["../outside", "images/../../outside", "/outside"])
def test_no_part_leaves_the_folder(yolo, stated):
    image(yolo.parent / "outside" / "evil.png")
    stated = str(yolo.parent / "outside") if stated == "/outside" else stated
    write(yolo / "data.yaml", f"train: {stated}\nval: images/val\nnames: [cat, dog]\n")
    with pytest.raises(RegardError, match="holds no such folder"):
        open_detection(f"yolo:{yolo}")


def test_no_list_leaves_the_folder(yolo):
    image(yolo.parent / "outside" / "evil.png")
    lay_out_as_list(yolo)
    write(yolo / "train.txt", f"../outside/evil.png\n{yolo.parent}/outside/evil.png\n./images/train/a.png\n")
    with pytest.raises(RegardError, match="2 listed images are not there"):
        open_detection(f"yolo:{yolo}")
    assert names_of(open_detection(f"yolo:{yolo}", on_bad_annotation="skip").train) == ["a.png"]


@pytest.mark.parametrize("lay_out", [None, *LAYOUTS])
def test_mended_yolo(yolo, tmp_path, lay_out):
    if lay_out:
        lay_out(yolo)
    label_file = next(yolo.rglob("a.txt"))
    write(label_file, "1 0.5 0.5 0.5 0.2 0.9\n0 0.1 0.1 0.2 0.2\n" + "\n".join(BAD_LINES))
    before = open_yolo(yolo, channels=3, on_bad_annotation="skip")
    repairs = fix_yolo(yolo, tmp_path / "mended")
    assert repairs.left_out == before.repairs.left_out
    assert repairs.left_out
    after = open_yolo(tmp_path / "mended", channels=3)
    assert not after.repairs.left_out
    assert not after.repairs.healed
    assert after.class_names == before.class_names
    for old, new in ((before.train, after.train), (before.val, after.val)):
        assert sorted(names_of(old)) == sorted(names_of(new))
        stated = {name: objects.boxes_xyxy for name, objects in zip(names_of(old), old.objects, strict=True)}
        for name, objects in zip(names_of(new), new.objects, strict=True):
            assert torch.equal(objects.boxes_xyxy, stated[name])


def boxed(*objects: tuple[str, tuple[object, ...]], size: tuple[int, int] | None = (40, 30), filename: str = "") -> str:
    parts = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{filename}</filename>{stated}{parts}</annotation>"


GOOD = ("cat", (1, 1, 20, 10))


@pytest.fixture
def voc(tmp_path) -> Path:
    """Three images with one cat each; a and b are trained on."""
    root = tmp_path / "set"
    for name in "abc":
        image(root / "JPEGImages" / f"{name}.jpg")
        write(root / "Annotations" / f"{name}.xml", boxed(GOOD))
    write(root / "ImageSets" / "Main" / "train.txt", "a\nb\n")
    write(root / "ImageSets" / "Main" / "val.txt", "c\n")
    return root


BAD_OBJECTS = {
    "nan": (("cat", ("nan", 1, 20, 10)), "not four finite numbers"),
    "inf": (("cat", (1, 1, "inf", 10)), "not four finite numbers"),
    "text": (("cat", (1, "x", 20, 10)), "not four finite numbers"),
    "empty": (("cat", (1, "", 20, 10)), "not four finite numbers"),
    "nameless": ((" ", (1, 1, 20, 10)), "objects have no name"),
    "outside": (("cat", (100, 1, 120, 10)), "outside of their image"),
}


@pytest.mark.parametrize("kind", BAD_OBJECTS)
def test_a_bad_object_stops_and_can_be_skipped(voc, kind):
    bad, told = BAD_OBJECTS[kind]
    write(voc / "Annotations" / "a.xml", boxed(GOOD, bad))
    with pytest.raises(RegardError, match=told) as caught:
        open_detection(f"voc:{voc}")
    assert "a.xml: object 1" in str(caught.value)
    assert "data.on_bad_annotation=skip" in str(caught.value)
    data = open_detection(f"voc:{voc}", on_bad_annotation="skip")
    assert_close(data.train.objects[0].boxes_xyxy, torch.tensor([[0.0, 0.0, 20.0, 10.0]]))
    assert sum(map(len, data.repairs.left_out.values())) == 1


BAD_FILES = {
    "empty": b"",
    "other": b"<html/>",
    "deep": b"<annotation>" + b"<a>" * 50_000,
    "entities": b'<!DOCTYPE a [<!ENTITY x "y">]><annotation/>',
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_takes_its_image_out(voc, kind):
    (voc / "Annotations" / "a.xml").write_bytes(BAD_FILES[kind])
    with pytest.raises(RegardError, match=r"a\.xml"):
        open_detection(f"voc:{voc}")
    assert names_of(open_detection(f"voc:{voc}", on_bad_annotation="skip").train) == ["b.jpg"]


def test_corners_in_another_order_and_boxes_without_extent_are_healed(voc):
    write(voc / "Annotations" / "a.xml", boxed(("cat", (20, 10, 1, 1)), ("cat", (5, 5, 4, 9))))
    data = open_detection(f"voc:{voc}")
    assert_close(data.train.objects[0].boxes_xyxy, torch.tensor([[0.0, 0.0, 20.0, 10.0], [3.0, 4.0, 5.0, 9.0]]))
    assert [len(places) for places in data.repairs.healed.values()] == [2]


def test_areas_are_those_of_the_boxes_as_they_are_cut(voc):
    write(voc / "Annotations" / "a.xml", boxed(("cat", (31, 21, 100, 1000))))
    objects = open_detection(f"voc:{voc}").train.objects[0]
    assert_close(objects.boxes_xyxy, torch.tensor([[30.0, 20.0, 40.0, 30.0]]))
    assert_close(objects.areas, torch.tensor([100.0]))


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_size_that_is_not_stated_is_that_of_the_image(voc, size):
    write(voc / "Annotations" / "a.xml", boxed(GOOD, size=size))
    data = open_detection(f"voc:{voc}")
    assert data.train.sizes[0] == (30, 40)
    assert "state no size" in next(iter(data.repairs.healed))


@pytest.mark.parametrize("filename", ["x.JPG", "a.JPG", "C:\\me\\A.jpg", "images/a.png", ""])
def test_the_image_is_found_whatever_the_tool_wrote(voc, filename):
    write(voc / "Annotations" / "a.xml", boxed(GOOD, filename=filename))
    assert names_of(open_detection(f"voc:{voc}").train) == ["a.jpg", "b.jpg"]


def test_hidden_files_of_macos_are_no_annotations(voc):
    (voc / "Annotations" / "._a.xml").write_bytes(b"\x00\x05\x16\x07")
    (voc / "__MACOSX").mkdir()
    write(voc / "__MACOSX" / "d.xml", "no XML")
    shutil.rmtree(voc / "ImageSets")
    assert len(open_detection(f"voc:{voc}", val_fraction=0.3).train) == 2


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("annotations", "images"), ("annots", "images"), ("Annotations", "Images"), ("xmls", "imgs")],
)
def test_other_names_of_folders(voc, annotations, images):
    (voc / "Annotations").rename(voc / "x")
    (voc / "x").rename(voc / annotations)
    (voc / "JPEGImages").rename(voc / images)
    data = open_detection(f"voc:{voc}")
    assert (names_of(data.train), names_of(data.val)) == (["a.jpg", "b.jpg"], ["c.jpg"])
    assert data.train.read(0).shape == (3, 30, 40)


def test_xml_beside_the_images(voc):
    """As labelImg writes it, and in folders as Roboflow exports it."""
    shutil.rmtree(voc / "ImageSets")
    for file in (*(voc / "Annotations").iterdir(), *(voc / "JPEGImages").iterdir()):
        file.rename(voc / file.name)
    (voc / "Annotations").rmdir()
    (voc / "JPEGImages").rmdir()
    data = open_detection(f"voc:{voc}", val_fraction=0.3)
    assert (len(data.train), len(data.val), data.has_val) == (2, 1, False)
    for part, names in {"train": "ab", "valid": "c"}.items():
        (voc / part).mkdir()
        for name in names:
            for ending in (".xml", ".jpg"):
                (voc / f"{name}{ending}").rename(voc / part / f"{name}{ending}")
    data = open_detection(f"voc:{voc}")
    assert (names_of(data.train), names_of(data.val), data.has_val) == (["a.jpg", "b.jpg"], ["c.jpg"], True)


def test_the_lists_of_the_data_are_their_split(voc):
    main = voc / "ImageSets" / "Main"
    (main / "train.txt").rename(main / "trainval.txt")
    (main / "val.txt").rename(main / "test.txt")
    data = open_detection(f"voc:{voc}")
    assert (names_of(data.train), names_of(data.val), data.has_val) == (["a.jpg", "b.jpg"], ["c.jpg"], True)
    (main / "trainval.txt").unlink()
    with pytest.raises(RegardError, match="has a part test, but neither train nor trainval"):
        open_detection(f"voc:{voc}")


def test_train_and_trainval_hold_out_the_rest(voc):
    main = voc / "ImageSets" / "Main"
    (main / "val.txt").unlink()
    write(main / "trainval.txt", "a\nb\nc\n")
    data = open_detection(f"voc:{voc}")
    assert (names_of(data.train), names_of(data.val)) == (["a.jpg", "b.jpg"], ["c.jpg"])


def test_no_list_names_a_file_outside(voc):
    write(voc.parent / "outside" / "evil.xml", boxed(("evil", (1, 1, 5, 5))))
    image(voc.parent / "outside" / "evil.jpg")
    for stated in ("../../outside/evil", str(voc.parent / "outside" / "evil"), "..\\outside\\evil"):
        write(voc / "ImageSets" / "Main" / "train.txt", f"a\n{stated}\n")
        with pytest.raises(RegardError, match="1 listed images have no annotation file"):
            open_detection(f"voc:{voc}")
        data = open_detection(f"voc:{voc}", on_bad_annotation="skip")
        assert (names_of(data.train), data.class_names) == (["a.jpg"], ("cat",))
    write(voc / "Annotations" / "a.xml", boxed(GOOD, filename="../../outside/evil.jpg"))
    write(voc / "ImageSets" / "Main" / "train.txt", "a\n")
    assert names_of(open_detection(f"voc:{voc}").train) == ["a.jpg"]


def test_a_list_that_is_no_text_is_one_line(voc):
    (voc / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfea\x00")
    with pytest.raises(RegardError, match=r"train\.txt: is not UTF-8"):
        open_detection(f"voc:{voc}")


def test_names_with_spaces_are_listed(voc):
    for folder, ending in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        (voc / folder / f"a{ending}").rename(voc / folder / f"my image{ending}")
    write(voc / "ImageSets" / "Main" / "train.txt", "my image\nb  1\n")
    assert names_of(open_detection(f"voc:{voc}").train) == ["my image.jpg", "b.jpg"]


def test_mended_voc(voc, tmp_path):
    write(
        voc / "Annotations" / "a.xml",
        boxed(
            GOOD, *(bad for bad, _ in BAD_OBJECTS.values()), ("cat", (20.5, 10, 1, 1)), size=(0, 0), filename="A.JPG"
        ),
    )
    (voc / "Annotations" / "b.xml").write_bytes(b"")
    write(voc / "Annotations" / "d.xml", boxed(GOOD))
    image(voc / "JPEGImages" / "d.jpg")
    write(voc / "ImageSets" / "Main" / "train.txt", "a\nb\nd\n")
    before = open_voc(voc, channels=3, on_bad_annotation="skip")
    repairs = fix_voc(voc, tmp_path / "mended")
    assert repairs.left_out == before.repairs.left_out
    after = open_voc(tmp_path / "mended", channels=3)
    assert not after.repairs.left_out
    assert not after.repairs.healed
    assert after.class_names == before.class_names
    for old, new in ((before.train, after.train), (before.val, after.val)):
        assert names_of(old) == names_of(new)
        assert list(old.sizes) == list(new.sizes)
        for one, other in zip(old.objects, new.objects, strict=True):
            assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)
            assert torch.equal(one.labels, other.labels)
    assert (tmp_path / "mended" / "JPEGImages" / "a.jpg").is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_pipes_are_not_waited_for(voc, yolo):
    (voc / "Annotations" / "a.xml").unlink()
    os.mkfifo(voc / "Annotations" / "a.xml")
    with pytest.raises(RegardError, match="is no regular file"):
        open_detection(f"voc:{voc}")


def test_a_set_that_is_only_evaluated_on_needs_no_part_to_train_on(voc, yolo):
    main = voc / "ImageSets" / "Main"
    (main / "train.txt").unlink()
    write(yolo / "data.yaml", "val: images/val\nnames: [cat, dog]\n")
    shutil.rmtree(yolo / "images" / "train")
    for address in (f"voc:{voc}", f"yolo:{yolo}"):
        with pytest.raises(RegardError, match="train"):
            open_detection(address)
        data = open_detection(address, val_fraction=None)
        assert (len(data.train), len(data.val), data.has_val) == (0, 1, True)


def test_an_image_that_both_parts_of_yolo_name_is_read_and_counted_once(tmp_path):
    """The line that stops counts a file once, and names the switch that goes on."""
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [a]\n")
    (tmp_path / "images" / "bad.png").write_bytes(b"%!PS")
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "good.png")
    with pytest.raises(RegardError) as caught:
        open_detection(f"yolo:{tmp_path}")
    assert "more that" not in str(caught.value)
    assert str(caught.value).endswith("; --set data.on_bad_image=skip leaves it out")

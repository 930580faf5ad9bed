"""Images without labels: `open_images(address, unlabelled=True)`, and what the check and the errors say of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regard.api.check import examine
from regard.api.check_page import write_page
from regard.data import BadImage, CsvOptions, address_of, check_data, check_images, collate, fingerprint, open_images
from regard.data.boxes import digit_scenes
from regard.data.images.batches import EvaluationImages
from regard.errors import RegardError


def fill(folder: Path, number: int, seed: int = 0) -> list[Path]:
    """`number` different images of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    files = [folder / f"{seed}-{index}.png" for index in range(number)]
    for index, file in enumerate(files):
        Image.fromarray(draw.integers(0, 256, (8 + index % 3, 9, 3), dtype=np.uint8)).save(file)
    return files


def opened(address: str, **arguments):
    return open_images(address, channels=3, **{"unlabelled": True, **arguments})


def names(*sources) -> list[str]:
    return sorted(source.name(index) for source in sources for index in range(len(source)))


def require_unlabelled(images) -> None:
    assert images.unlabelled
    assert images.class_names == ()
    for source in (images.train, images.val):
        assert source.labels == ((),) * len(source)
        assert source.num_classes == 0


def test_a_flat_folder_is_split_by_seed(tmp_path):
    files = fill(tmp_path, 20)
    images = opened(f"folder:{tmp_path}", val_fraction=0.2)
    require_unlabelled(images)
    assert (len(images.train), len(images.val), images.has_val) == (16, 4, False)
    assert names(images.train, images.val) == sorted(map(str, files))
    assert names(images.val) == names(opened(f"folder:{tmp_path}", val_fraction=0.2).val)
    assert names(images.val) != names(opened(f"folder:{tmp_path}", val_fraction=0.2, split_seed=1).val)
    with Image.open(images.train.name(3)) as file:
        assert images.train.read(3).equal(torch.from_numpy(np.array(file)).permute(2, 0, 1))
        assert images.train.sizes[3] == (file.height, file.width)
    assert len({images.train.digest(index) for index in range(16)}) == 16


def test_what_walks_labels_takes_images_without_any(tmp_path):
    fill(tmp_path, 6)
    source = opened(f"folder:{tmp_path}").train
    part = source.only([0, 2])
    assert (part.labels, part.num_classes) == (((), ()), 0)
    samples = EvaluationImages(source, lambda image: image[:, :8, :8].float(), "stop")
    batch = collate([samples[0], samples[1]], source.num_classes)
    assert batch.labels.shape == (2, 0)
    assert len(batch) == 2


def test_a_fingerprint_knows_the_images(tmp_path):
    fill(tmp_path / "a", 6)
    before = fingerprint(opened(f"folder:{tmp_path / 'a'}"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint(opened(f"folder:{tmp_path / 'b'}")) == before
    fill(tmp_path / "b", 1, seed=1)
    assert fingerprint(opened(f"folder:{tmp_path / 'b'}")) != before


def test_files_of_the_same_bytes_stay_on_one_side(tmp_path):
    files = fill(tmp_path, 10)
    twins = [tmp_path / f"twin-{file.name}" for file in files]
    for file, twin in zip(files, twins, strict=True):
        twin.write_bytes(file.read_bytes())
    for seed in range(5):
        images = opened(f"folder:{tmp_path}", split_seed=seed)
        for part in (set(names(images.train)), set(names(images.val))):
            assert all((str(file) in part) == (str(twin) in part) for file, twin in zip(files, twins, strict=True))


def test_parts_without_classes_are_a_split_of_its_own(tmp_path):
    fill(tmp_path / "train", 5)
    fill(tmp_path / "val", 2, seed=1)
    images = opened(f"folder:{tmp_path}")
    require_unlabelled(images)
    assert (len(images.train), len(images.val), images.has_val) == (5, 2, True)
    fill(tmp_path / "valid", 2, seed=2)
    with pytest.raises(RegardError, match="has val and valid; keep one"):
        opened(f"folder:{tmp_path}")


def test_train_alone_is_no_class(tmp_path):
    fill(tmp_path / "train", 8)
    require_unlabelled(opened(f"folder:{tmp_path}"))


def test_images_beside_folders_take_their_labels(tmp_path):
    fill(tmp_path, 3)
    fill(tmp_path / "cat", 4, seed=1)
    fill(tmp_path / "dog" / "old", 5, seed=2)
    images = opened(f"folder:{tmp_path}")
    require_unlabelled(images)
    assert len(images.train) + len(images.val) == 12
    (remark,) = images.remarks
    assert remark.startswith("3 images lie beside 2 folders of images (cat, dog), so that none has a label; move them")


def test_folders_are_classes_as_they_are_without_the_keyword(tmp_path):
    fill(tmp_path / "cat", 6)
    fill(tmp_path / "dog", 6, seed=1)
    plain, images = opened(f"folder:{tmp_path}", unlabelled=False), opened(f"folder:{tmp_path}")
    assert images.class_names == plain.class_names == ("cat", "dog")
    assert fingerprint(images) == fingerprint(plain)
    assert fingerprint(opened("digits")) == fingerprint(opened("digits", unlabelled=False))


@pytest.mark.parametrize("months", [("05",), ("05", "06/trip")])
def test_folders_of_a_camera_are_classes_whatever_is_in_them(tmp_path, months):
    for month in months:
        fill(tmp_path / "2023" / month, 5, seed=len(month))
    fill(tmp_path / "2024" / "01", 1, seed=9)
    (tmp_path / "2025").mkdir()
    (tmp_path / "2025" / "list.txt").write_text("none", encoding="utf-8")
    images = opened(f"folder:{tmp_path}")
    assert images.class_names == ("2023", "2024")
    assert {*images.train.labels, *images.val.labels} == {0, 1}
    for source in (images.train, images.val):
        for index, label in enumerate(source.labels):
            assert f"/{images.class_names[label]}/" in source.name(index)
    with pytest.raises(RegardError, match="a class without images that can be read: 2025"):
        opened(f"folder:{tmp_path}", unlabelled=False)


def test_one_class_is_enough(tmp_path):
    fill(tmp_path / "cat", 8)
    images = opened(f"folder:{tmp_path}")
    assert (images.class_names, len(images.train), len(images.val)) == (("cat",), 6, 2)


def test_unreadable_and_large_images(tmp_path):
    fill(tmp_path, 8)
    (tmp_path / "bad.png").write_bytes(b"<html>")
    with pytest.raises(BadImage, match=r"bad\.png: .*--set data\.on_bad_image=skip leaves it out"):
        opened(f"folder:{tmp_path}")
    images = opened(f"folder:{tmp_path}", on_bad_image="skip")
    assert len(images.train) + len(images.val) == 8
    assert [Path(line.partition(": ")[0]).name for line in images.train.skipped] == ["bad.png"]
    assert images.val.skipped == ()
    with pytest.raises(RegardError, match="no images that can be read"):
        opened(f"folder:{tmp_path}", on_bad_image="skip", max_megapixels=1e-6)


def test_images_are_left_out(tmp_path):
    files = fill(tmp_path / "set", 8)
    (tmp_path / "list.txt").write_text("0-3.png\n", encoding="utf-8")
    images = opened(f"folder:{tmp_path / 'set'}", leave_out=tmp_path / "list.txt")
    require_unlabelled(images)
    assert names(images.train, images.val) == sorted(str(file) for file in files if file.name != "0-3.png")


def test_a_set_that_is_only_measured_is_held_out_whole(tmp_path):
    fill(tmp_path / "one", 1)
    images = opened(f"folder:{tmp_path / 'one'}", for_evaluation=True)
    require_unlabelled(images)
    assert (len(images.train), len(images.val), images.has_val) == (0, 1, True)
    fill(tmp_path / "more" / "train", 3)
    fill(tmp_path / "more" / "test", 2, seed=1)
    assert len(opened(f"folder:{tmp_path / 'more'}", for_evaluation=True).val) == 2


def test_too_few_images_and_none(tmp_path):
    fill(tmp_path / "one", 1)
    with pytest.raises(RegardError, match="1 images; two are needed"):
        opened(f"folder:{tmp_path / 'one'}")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(RegardError, match=r"none: no images; known endings: .*1 file was passed over: 1 \.txt"):
        opened(f"folder:{tmp_path / 'none'}")


# Tables.


def table(folder: Path, *lines: str) -> str:
    file = folder / "files.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"csv:{file}"


def test_a_table_of_files_alone(tmp_path):
    files = [file.name for file in fill(tmp_path, 10)]
    address = table(tmp_path, "file", *files)
    images = opened(address, val_fraction=0.3)
    require_unlabelled(images)
    assert (len(images.train), len(images.val), images.remarks) == (7, 3, ())
    with pytest.raises(RegardError, match=r"no column 'label', and no other that holds labels; .*`regard pretrain`"):
        opened(address, unlabelled=False)
    address = table(tmp_path, "file,split", *(f"{name},{'val' if i < 4 else 'train'}" for i, name in enumerate(files)))
    images = opened(address)
    require_unlabelled(images)
    assert (len(images.train), len(images.val), images.has_val) == (6, 4, True)


def test_a_table_whose_labels_are_in_another_column(tmp_path):
    files = [file.name for file in fill(tmp_path, 10)]
    address = table(tmp_path, "file,kind", *(f"{name},{'ab'[i % 2]}" for i, name in enumerate(files)))
    images = opened(address)
    require_unlabelled(images)
    assert images.remarks == (
        "files.csv has no column 'label', and is read without labels; --set data.label_column=NAME takes one of 'kind'",
    )
    images = opened(address, csv=CsvOptions(label_column="kind"))
    assert images.class_names == ("a", "b")
    images = opened(address, csv=CsvOptions(label_column=""))
    require_unlabelled(images)
    assert images.remarks == ()
    with pytest.raises(RegardError, match="has no column 'kinds'; did you mean 'kind'"):
        opened(address, csv=CsvOptions(label_column="kinds"))


def test_a_table_of_one_class_or_of_single_images(tmp_path):
    files = [file.name for file in fill(tmp_path, 8)]
    images = opened(table(tmp_path, "file,label", *(f"{name},cat" for name in files)))
    assert (images.class_names, images.train.num_classes) == (("cat",), None)
    images = opened(table(tmp_path, "file,label", *(f"{name},{name}" for name in files)))
    assert (len(images.class_names), len(images.train), len(images.val)) == (8, 6, 2)


# Images with boxes.


def coco(folder: Path, number: int) -> str:
    """Images of which every second has a box; the last annotation has no meaning."""
    files = fill(folder / "train", number)
    (folder / "annotations").mkdir()
    listed = []
    for index, file in enumerate(files):
        with Image.open(file) as image:
            listed.append({"id": index, "file_name": file.name, "width": image.width, "height": image.height})
    boxes = [
        {"id": index + 1, "image_id": index, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
        for index in range(0, number, 2)
    ]
    boxes.append({"id": 99, "image_id": 0, "category_id": 1, "bbox": ["x"], "area": 16, "iscrowd": 0})
    whole = {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(whole), encoding="utf-8")
    return f"coco:{folder}"


def test_images_with_boxes_are_read_without_these(tmp_path):
    address = coco(tmp_path, 8)
    images = opened(address)
    require_unlabelled(images)
    assert (len(images.train), len(images.val), images.has_val) == (6, 2, False)
    assert images.repairs.left_out  # a box that means nothing
    assert images.train.read(0).shape[0] == 3
    assert len(opened(address, for_evaluation=True).val) == 8
    (tmp_path / "train" / "0-3.png").unlink()
    with pytest.raises(BadImage, match=r"0-3\.png: .*--set data\.on_bad_image=skip"):
        opened(address)
    images = opened(address, on_bad_image="skip")
    assert len(images.train) + len(images.val) == 7
    assert sum(map(len, (images.train.skipped, images.val.skipped))) == 1
    with pytest.raises(RegardError, match="gives images with boxes; images can come from"):
        opened(address, unlabelled=False)


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_other_images_with_boxes(tmp_path, kind):
    if kind == "yolo":
        files = fill(tmp_path / "images", 8)
        (tmp_path / "labels").mkdir()
        for file in files:
            (tmp_path / "labels" / f"{file.stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
        (tmp_path / "data.yaml").write_text("train: images\nnames: [cell]\n", encoding="utf-8")
    else:
        files = fill(tmp_path / "JPEGImages", 8)
        (tmp_path / "Annotations").mkdir()
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
        for file in files:
            xml = f"<annotation><filename>{file.name}</filename><object><name>cell</name>{box}</object></annotation>"
            (tmp_path / "Annotations" / f"{file.stem}.xml").write_text(xml, encoding="utf-8")
    images = opened(f"{kind}:{tmp_path}")
    require_unlabelled(images)
    assert names(images.train, images.val) == sorted(map(str, files))


def test_scenes_that_are_drawn(monkeypatch):
    for part, count in (("train", 4), ("val", 2)):
        monkeypatch.setitem(digit_scenes.COUNTS, part, count)
    monkeypatch.setattr("regard.data.open._digit_scenes", digit_scenes.open_digit_scenes)
    images = opened("digit-scenes")
    require_unlabelled(images)
    assert (len(images.train), len(images.val), images.has_val) == (4, 2, True)
    assert images.train.read(0).shape == (3, 128, 128)
    assert images.train.name(2) != images.train.name(3)
    assert images.train.digest(0) != images.train.digest(1)


# What is said.


def test_a_bare_path_is_an_address_where_labels_are_not_needed(tmp_path):
    fill(tmp_path / "photos", 3)
    with pytest.raises(RegardError, match=r"no labels; .*as they are they can be pre-trained on: `regard pretrain`"):
        address_of(str(tmp_path / "photos"))
    assert address_of(str(tmp_path / "photos"), unlabelled=True) == f"folder:{tmp_path / 'photos'}"
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegardError, match="is empty"):
        address_of(str(tmp_path / "empty"), unlabelled=True)


def test_the_check_says_what_images_without_labels_are_for(tmp_path):
    files = fill(tmp_path / "set", 12)
    (tmp_path / "set" / "bad.png").write_bytes(b"<html>")
    (tmp_path / "set" / "twin.png").write_bytes(files[0].read_bytes())
    found = examine(str(tmp_path / "set"))
    assert str(found.summary).endswith("held out, no labels")
    said = [(issue.severity, issue.sentence) for issue in found.issues]
    assert sum("no image has a label: `regard pretrain` learns from such images" in text for _, text in said) == 1
    assert [text for severity, text in said if severity == "error"] == [
        "not an image, or of a format that is not read; --set data.on_bad_image=skip leaves such images out"
    ]
    assert any("same pixels" in text for _, text in said)
    write_page(found, tmp_path / "page.html")
    assert "regard pretrain" in (tmp_path / "page.html").read_text(encoding="utf-8")
    issues, summary = check_data(f"folder:{tmp_path / 'set'}")
    assert summary == found.summary
    assert [issue.severity for issue in issues].count("error") == 1


def test_where_a_recipe_needs_labels_the_check_still_fails(tmp_path):
    fill(tmp_path, 12)
    issues, summary = check_images(f"folder:{tmp_path}")
    assert [issue.severity for issue in issues] == ["error"]
    assert issues[0].what.endswith("images without classes can be pre-trained on: `regard pretrain`")
    assert summary.num_train == 0
    with pytest.raises(RegardError, match="two classes are needed"):
        examine(f"folder:{tmp_path}", recipe="small-images")

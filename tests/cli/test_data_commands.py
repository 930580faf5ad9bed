"""`regard data check` and `data fix` take what `regard train` takes, and what they advise they have."""

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def odd(tmp_path) -> Path:
    """One box of many that cannot be used, in a file without a usual name."""
    root = tmp_path / "odd"
    (root / "pictures").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 9):
        Image.new("RGB", (40, 30), (number, 3, 7)).save(root / "pictures" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
        annotations += [
            {"id": 2 * number + k, "image_id": number, "category_id": k, "bbox": [3, 4, 9, 8]} for k in (0, 1)
        ]
    annotations[5]["bbox"] = None
    annotations[7]["area"] = None
    for name in ("mine", "yours"):
        values = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
        }
        (root / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return root


def test_check_takes_the_settings_that_its_errors_advise(regard, odd):
    said = regard("data", "check", f"coco:{odd}").fails(
        "there are mine.json, yours.json", "--set data.train_annotations=FILE"
    )
    assert "coco:FILE.json" in said
    files = ("--set", f"data.train_annotations={odd / 'mine.json'}", "--set", f"data.train_images={odd / 'pictures'}")
    told = regard("data", "check", f"coco:{odd}", *files)
    assert told.status == 1
    said = " ".join(told.out.split())
    assert "1 boxes are not four finite numbers" in said
    assert "data.on_bad_annotation=skip" in said
    assert "1 errors" in said
    told = regard("data", "check", f"coco:{odd}", *files, "--set", "data.on_bad_annotation=skip")
    assert told.status == 0
    assert "6 images with 12 boxes to train on" in told.out or "held out" in told.out
    told = regard("data", "check", f"coco:{odd / 'mine.json'}", *files[2:], "--set", "data.val_fraction=0.5")
    assert "4 images with" in told.out


def test_check_advises_on_the_queries_of_a_recipe(regard, odd):
    files = ("--set", f"data.train_images={odd / 'pictures'}", "--set", "data.on_bad_annotation=skip")
    address = f"coco:{odd / 'mine.json'}"
    for options in (["--set", "model.num_queries=1"], ["--queries", 1]):
        assert "more objects than the 1 queries" in " ".join(
            regard("data", "check", address, *files, *options).out.split()
        )
    recipe = ("--recipe", "detr-small", "--set", "model.num_queries=1")
    assert "more objects than the 1 queries" in " ".join(regard("data", "check", address, *files, *recipe).out.split())
    assert "queries" not in regard("data", "check", address, *files).out
    regard("data", "check", address, "--set", "model.num_queries=x").fails("must be a whole number above 0")
    regard("data", "check", address, "--set", "data.on_bad_anotation=skip").fails("data.on_bad_annotation")
    regard("data", "check", address, "--recipe", "detr-smal").fails("did you mean 'detr-small'?")


def test_check_of_other_data_takes_settings(regard):
    told = regard("data", "check", "digits", "--set", "data.val_fraction=0.5")
    assert "898 images to train on, 899 held out" in told.out


def test_fix_writes_a_folder_and_says_what_it_changed(regard, odd, tmp_path):
    address = f"coco:{odd / 'mine.json'}"
    images = ("--set", f"data.train_images={odd / 'pictures'}")
    told = regard("data", "fix", address, *images, "-o", tmp_path / "new")
    assert (told.status, told.err) == (0, "")
    said = " ".join(told.out.split())
    assert "left out: 1 boxes are not four finite numbers" in said
    assert "mended: 1 areas are no numbers from 0 on: those of the boxes are taken" in said
    assert f"train on it with --data coco:{tmp_path / 'new'}" in told.out
    assert regard("data", "check", f"coco:{tmp_path / 'new'}").status == 0
    again = regard("data", "fix", f"coco:{tmp_path / 'new'}", "-o", tmp_path / "newer")
    assert again.out.startswith("nothing to mend")
    regard("data", "fix", address, *images, "-o", tmp_path / "new").fails("exists already")
    regard("data", "fix", "digits", "-o", tmp_path / "x").fails("digits: has no annotation files to mend")
    assert not (tmp_path / "x").exists()

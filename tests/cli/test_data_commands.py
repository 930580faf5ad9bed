"""`regard data check` and `data fix` take what `regard train` takes, and what they advise they have."""

import json
from pathlib import Path

import numpy as np
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


@pytest.fixture
def cells(tmp_path) -> Path:
    """COCO with small objects, one of them held out nearly as it is trained on."""
    root, draw = tmp_path / "cells", np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    pictures = [
        Image.fromarray(draw.integers(0, 256, (9, 11, 3)).astype(np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
        for _ in range(6)
    ]
    for part, chosen in (("train", pictures[:4]), ("val", [*pictures[4:], pictures[2].rotate(180)])):
        (root / part).mkdir()
        images, annotations = [], []
        for number, picture in enumerate(chosen):
            picture.save(root / part / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": 120, "width": 160})
            box = {"image_id": number, "category_id": 1, "bbox": [20, 30, 9, 9]}
            annotations += [] if (part, number) == ("train", 3) else [{"id": number, **box}]
        values = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "<b>cell</b>"}]}
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(values))
    return root


def test_check_prints_one_screen_with_the_way_on(regard, cells):
    told = regard("data", "check", f"coco:{cells}")
    assert (told.status, told.err) == (0, "")
    said = " ".join(told.out.replace("│", " ").split())
    assert "images 4 to train on, 3 held out (the data's own split)" in said
    assert "sizes 120 × 160 pixels" in said
    assert "objects 3 to train on, at most 1 in an image: a model that can find 10 is enough" in said
    assert "1 images have none: train/3.png" in said
    assert "as detr-small sees them 120 × 160 9 9 9 267 and 356 would do" in said
    assert "1 of 3 held-out images are nearly the same as images that are trained on" in said
    assert "--set data.leave_out=FILE" in said
    assert told.out.splitlines()[-1].endswith("0 errors, 3 warnings")


def test_check_as_json_holds_all_groups(regard, cells):
    told = regard("data", "check", f"coco:{cells}", "--json")
    found = json.loads(told.out)
    assert (told.status, found["errors"], found["warnings"]) == (0, 0, 3)
    assert found["counts"]["num_train"] == 4
    assert found["class_counts"] == {"<b>cell</b>": 3}
    assert found["near_doubles"]["between_parts"] == 1
    assert found["near_doubles"]["pairs"] == [[str(cells / "val/2.png"), str(cells / "train/2.png")]]
    assert found["unlabelled"] == {"count": 1, "names": [str(cells / "train/3.png")]}
    assert found["object_sizes"]["detr-small"]["suggested"] == {"shortest": 267, "longest": 356}
    assert {"severity", "what", "where", "count", "names", "ways_on"} <= found["issues"][0].keys()
    assert {issue["severity"] for issue in found["advice"]} == {"advice"}
    bare = json.loads(regard("data", "check", "pydoc", "--json").out)
    assert (bare["errors"], "near_doubles" in bare) == (0, False)


def test_check_writes_a_page_and_a_list(regard, cells, tmp_path):
    page, listed = tmp_path / "page.html", tmp_path / "out.txt"
    told = regard("data", "check", f"coco:{cells}", "-o", page, "--leave-out", listed)
    assert told.status == 0
    assert f"page: {page}" in told.out
    html = page.read_text(encoding="utf-8")
    assert html.count('src="data:image/jpeg') >= 2 + 3 + 4  # a pair, examples of the class, annotated images
    assert "Nearly the same" in html
    assert "&lt;b&gt;cell" in html
    assert "<b>cell" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert listed.read_text().splitlines()[-1] == "val/2.png"
    told = regard("data", "check", f"coco:{cells}", "--set", f"data.leave_out={listed}")
    assert "2 with 2 held out" in told.out
    assert "nearly the same" not in told.out
    regard("data", "check", f"coco:{cells}", "-o", tmp_path / "none" / "page.html").fails("is not a folder")
    regard("data", "check", f"coco:{cells}", "--set", f"data.leave_out={page}").fails("no line names an image")
    regard("data", "check", "pydoc", "--leave-out", listed).fails("no images to leave out")


def test_a_training_says_what_its_data_are_like_and_leaves_out_what_is_listed(regard, cells, tmp_path):
    listed, run = tmp_path / "out.txt", tmp_path / "run"
    listed.write_text("val/2.png\n")
    tiny = ("train.max_steps=1", "train.batch_size=2", "train.device=cpu", f"data.leave_out={listed}")
    settings = [word for one in tiny for word in ("--set", one)]
    told = regard("train", "detr-small", "--data", f"coco:{cells}", "--out", run, *settings)
    assert told.status == 0, told.err
    assert (
        "4 images to train on, 2 held out (the data's own part), of 120 × 160 pixels; 3 objects of 1 class" in told.err
    )
    assert "--set data.shortest=267 --set data.longest=356 --set data.enlarge=true would do" in told.err
    assert json.loads((run / "metadata.json").read_text())["data"]["val"]["samples"] == 2
    assert json.loads(regard("evaluate", run, "--json").out)["images"] == 2

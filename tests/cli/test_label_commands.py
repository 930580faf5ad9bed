"""Predict, correct, train, evaluate: a circle by commands; and the errors of `predict --as`."""

import csv
import json

import pytest
from PIL import Image, ImageDraw

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.depth=1", "model.num_queries=7"),
    *("data.shortest=64", "data.longest=64", "train.max_steps=2", "train.batch_size=4", "train.device=cpu"),
)
CORNERS = (10, 20, 40, 50)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Twelve pictures with a square each, annotated; and their folder."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(1, 13):
        picture = Image.new("RGB", (64, 64), (number * 20, 60, 90))
        ImageDraw.Draw(picture).rectangle((CORNERS[0] + number, *CORNERS[1:3], CORNERS[3]), fill="white")
        picture.save(folder / "images" / f"{number:02d}.png")
        images.append({"id": number, "file_name": f"{number:02d}.png", "width": 64, "height": 64})
        box = [10 + number, 20, 30 - number, 30]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 3, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        )
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "square"}]}
    (folder / "annotations.json").write_text(json.dumps(whole))
    return folder


def train(regard, address, out):
    settings = [word for setting in SMALL for word in ("--set", setting)]
    told = regard("train", "detr-digit-scenes", "--data", address, "--out", out, *settings)
    assert told.status == 0, told.err
    return out


@pytest.mark.slow
def test_predictions_are_corrected_and_trained_on(regard, first, tmp_path):
    run = train(regard, f"coco:{first}", tmp_path / "first")
    asked = ("--threshold", 0.0, "--max-detections", 2, "--sort", "uncertain")
    for form in ("coco", "yolo", "voc"):
        out = tmp_path / form
        told = regard("predict", run, first / "images", "-o", out, "--as", form, *asked)
        assert (told.status, told.err) == (0, "")
        assert told.out == (
            f"24 objects in 12 images: correct them in {out}, then train on them with --data {form}:{out}\n"
        )
        correct(form, out)
        run = train(regard, f"{form}:{out}", tmp_path / f"trained-{form}")
        told = regard("evaluate", run, "--data", f"{form}:{out}", "--json")
        figures = json.loads(told.out)
        assert [(row["name"], row["objects"]) for row in figures["per_class"]] == [("square", figures["images"])]


def correct(form, out):
    """Leaves one box an image, where the square is."""
    if form == "coco":
        file = out / "annotations" / "instances_default.json"
        values = json.loads(file.read_text())
        kept = {entry["image_id"]: entry for entry in values["annotations"]}
        for entry in kept.values():
            entry["bbox"] = [15.0, 20.0, 25.0, 30.0]
        file.write_text(json.dumps(values | {"annotations": list(kept.values())}))
    elif form == "yolo":
        for file in (out / "labels").glob("*.txt"):
            file.write_text("0 0.43 0.55 0.39 0.47\n")
    else:
        for file in (out / "Annotations").glob("*.xml"):
            text = file.read_text()
            begin, end = text.index("<object>"), text.index("</object>") + 9
            file.write_text(text[:end] + text[text.rindex("</object>") + 9 :])
            assert begin < end


def test_a_classifier_writes_a_table(regard, run, images, tmp_path):
    out = tmp_path / "out"
    told = regard("predict", run, *images, "-o", out, "--as", "csv", "--json")
    assert (told.status, told.err) == (0, "")
    assert json.loads(told.out) == {"address": f"csv:{out / 'labels.csv'}", "images": 3, "objects": 3} | {
        "left_out": 0,
        "bad": [],
    }
    assert (out / "labels.csv").read_text().startswith("file,label,score\n")
    regard("predict", run, *images, "-o", out, "--as", "csv").fails(f"{out}: exists already; choose another folder")
    regard("predict", run, *images, "--as", "csv").fails("--as csv: name the folder to write into with -o OUT")
    regard("predict", run, *images, "-o", tmp_path / "b", "--as", "yolo").fails("csv holds", "yolo is for runs that")
    regard("predict", run, *images, "-o", tmp_path / "b", "--as", "cocoa").fails("unknown format", "mean 'coco'")
    regard("predict", run, *images, "-o", tmp_path / "b", "--as", "csv", "--sort", "a").fails("unknown order of images")
    regard("predict", run, *images, "--copy").fails("--copy is for --as")
    regard("predict", run, *images, "--sort", "size").fails("--sort", "unknown order of images 'size'", "uncertain")


def test_a_corrected_table_is_trained_on(regard, run, digits_folder, tmp_path):
    """Predict, correct, train, evaluate, with classes: every label becomes what the folder says, two for the threes."""
    out = tmp_path / "out"
    images = sorted(digits_folder.rglob("*.png"))[::15]
    told = regard("predict", run, *images, "-o", out, "--as", "csv", "--sort", "uncertain")
    assert (told.status, told.err) == (0, "")
    address = f"csv:{out / 'labels.csv'}"
    assert (
        told.out
        == f"classes of {len(images)} images: correct them in {out}, then train on them with --data {address}\n"
    )
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    right = {image.read_bytes(): image.parent.name for image in images}
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for row in rows:
            digit = right[(out / row["file"]).read_bytes()]
            writer.writerow([row["file"], f"{digit};odd" if digit == "3" else digit])
    settings = ("--set", "train.max_steps=2", "--set", "train.device=cpu", "--set", "data.val_fraction=0.4")
    told = regard("train", "vit-digits", "--data", address, "--out", tmp_path / "new", *settings)
    assert told.status == 0, told.err
    figures = json.loads(regard("evaluate", tmp_path / "new", "--data", address, "--json").out)
    assert figures["images"] == 49  # two fifths of each label
    assert {row["name"] for row in figures["per_class"]} == {*map(str, range(10)), "odd"}
    assert "map" in figures


def test_the_least_certain_image_is_named_first(regard, run, images):
    sure, unsure = (
        json.loads(regard("predict", run, *images, "--json", *more).out) for more in ((), ("--sort", "uncertain"))
    )
    assert sorted(sure, key=lambda row: row["probability"]) == unsure

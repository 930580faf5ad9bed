"""What the commands do with boxes: data made and checked, a detector trained, measured and used."""

import base64
import contextlib
import io
import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from safetensors.torch import load_file, save_file

from regard.errors import NOT_FINITE

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.depth=1", "model.num_queries=7"),
    *("data.shortest=64", "data.longest=64", "train.max_steps=3", "train.batch_size=4", "train.device=cpu"),
)
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small", "ar_medium")


def small(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, process_once) -> Path:
    """A few scenes in COCO's format, by the command that makes them and then cut to a few."""
    folder = tmp_path_factory.mktemp("made") / "scenes"
    told = process_once("data", "make", "digit-scenes", folder)
    assert (told.returncode, told.stderr) == (0, "")
    assert f"--data coco:{folder}" in told.stdout
    for part in ("train", "val"):
        file = folder / "annotations" / f"instances_{part}.json"
        values = json.loads(file.read_text(encoding="utf-8"))
        values["images"] = values["images"][:9]
        kept = {image["id"] for image in values["images"]}
        values["annotations"] = [entry for entry in values["annotations"] if entry["image_id"] in kept]
        file.write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory, process_once, scenes) -> Path:
    """A run of three steps, by the real command."""
    run = tmp_path_factory.mktemp("trained") / "run"
    told = process_once("train", "detr-digit-scenes", "--data", f"coco:{scenes}", "--out", run, *small())
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("ap ")
    assert "images/s" in told.stdout
    assert (run / "report.html").stat().st_size > 20_000
    return run


def test_the_summary_has_cocos_names(detector):
    summary = json.loads((detector / "summary.json").read_text(encoding="utf-8"))
    assert {*FIGURES, "ar_large", "loss"} <= summary.keys()
    assert summary["flops"] > 1e6


def test_made_data_have_nothing_wrong(regard, scenes):
    told = regard("data", "check", f"coco:{scenes}")
    assert told.status == 0, told.out
    assert "0 errors" in told.out


def test_a_check_finds_and_draws_what_is_wrong(regard, scenes, tmp_path):
    file = scenes / "annotations" / "instances_train.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["annotations"][0]["bbox"] = [100.0, 100.0, -20.0, 10.0]
    values["annotations"][1]["image_id"] = 987654
    broken = tmp_path / "broken"
    (broken / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (broken / part).symlink_to(scenes / part)
    (broken / "annotations" / "instances_train.json").write_text(json.dumps(values), encoding="utf-8")
    val = scenes / "annotations" / "instances_val.json"
    (broken / "annotations" / "instances_val.json").write_text(val.read_text(encoding="utf-8"), encoding="utf-8")
    told = regard("data", "check", f"coco:{broken}", "-o", tmp_path / "suspects", "--queries", 2)
    assert told.status == 1
    assert "987654" in told.out
    assert "queries" in told.out
    pictures = sorted((tmp_path / "suspects").glob("*.png"))
    assert pictures
    assert size_of(pictures[0])[0] >= 100
    stopped = regard(*("train", "detr-digit-scenes", "--data", f"coco:{broken}", "--out", tmp_path / "run"), *small())
    assert stopped.status == 1
    assert stopped.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_evaluate_tells_writes_and_draws(regard, detector, tmp_path):
    told = regard("evaluate", detector, "-o", tmp_path)
    assert told.status == 0, told.err
    assert "ap50" in told.out
    whole = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert {*FIGURES, "per_class", "confusion"} <= whole.keys()
    assert [row["name"] for row in whole["per_class"]] == [str(digit) for digit in range(10)]
    assert len(whole["confusion"]) == 11
    for name in ("confusion.png", "precision-recall.png"):
        assert (tmp_path / name).stat().st_size > 5_000
    assert json.loads(regard("evaluate", detector, "--json").out)["ap"] == whole["ap"]


def test_the_matrix_and_the_figures_of_each_class_are_at_a_chosen_threshold(regard, detector, run):
    low, auto = (json.loads(regard("evaluate", detector, "--json", *more).out) for more in (("--threshold", 0), ()))
    assert {row["threshold"] for row in low["per_class"]} == {0}
    assert {row["threshold"] for row in auto["per_class"]} == {0.5}
    assert low["confusion_classes"] == [*map(str, range(10)), "background"]
    counted = [sum(map(sum, figures["confusion"])) for figures in (low, auto)]
    assert counted[0] > counted[1]
    for row, matrix in zip(low["per_class"], low["confusion"], strict=False):
        assert sum(matrix) == row["objects"]
        assert {"precision", "recall", "f1", "best_threshold", "best_f1"} <= row.keys()
    assert low["precision_recall"] == auto["precision_recall"]
    assert low["precision_recall"]["recall"] == [step / 100 for step in range(101)]
    assert all(len(curve) == 101 for curve in low["precision_recall"]["precision"].values())
    regard("evaluate", detector, "--threshold", 2).fails("threshold is 2.0; it must be a number between 0 and 1")
    regard("evaluate", run, "--threshold", 0.3).fails("--threshold is for runs that find objects")


def test_evaluate_on_other_data(regard, detector, tmp_path):
    assert json.loads(regard("evaluate", detector, "--data", "digit-scenes", "--json").out)["images"] > 9


def test_exports_can_be_evaluated_on(regard, detector, scenes, tmp_path):
    """Roboflow's test part, a file by itself, and files that settings name; odd entries are left out with a word."""
    values = json.loads((scenes / "annotations" / "instances_val.json").read_text(encoding="utf-8"))
    values["categories"].insert(0, {"id": 10_000, "name": "numbers", "supercategory": "none"})
    values["categories"].append({"id": 10_001, "name": "never used"})
    for entry in values["categories"][1:]:
        entry["supercategory"] = "numbers"
    part = tmp_path / "export" / "test"
    part.mkdir(parents=True)
    for image in values["images"]:
        (part / image["file_name"]).symlink_to(scenes / "val" / image["file_name"])
    file = part / "_annotations.coco.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    expected = json.loads(regard("evaluate", detector, "--json").out)["ap"]
    by_settings = (
        "--data",
        f"coco:{scenes}",
        "--set",
        f"data.val_annotations={file}",
        "--set",
        f"data.val_images={part}",
    )
    for options in (
        ("--data", f"coco:{file}"),
        ("--data", f"coco:{part}"),
        ("--data", f"coco:{part.parent}"),
        by_settings,
    ):
        told = regard("evaluate", detector, *options, "--json")
        assert told.status == 0, told.err
        assert json.loads(told.out)["ap"] == expected
        assert "warning: coco:" in told.err
    values["annotations"][0]["bbox"] = ["x"]
    values["annotations"][1]["bbox"] = [1, 2, -3, 4]
    file.write_text(json.dumps(values), encoding="utf-8")
    regard("evaluate", detector, "--data", f"coco:{file}").fails(
        "1 boxes are not four finite numbers", "--set data.on_bad"
    )
    told = regard("evaluate", detector, "--data", f"coco:{file}", "--set", "data.on_bad_annotation=skip")
    assert told.status == 0
    assert "1 boxes are not four finite numbers" in told.err
    assert "1 boxes are turned inside out" in told.err
    values["annotations"][1]["bbox"] = [1, 2, 3, 4]
    values["annotations"][0] |= {"bbox": [1, 2, 3, 4], "category_id": 10_001}
    file.write_text(json.dumps(values), encoding="utf-8")
    regard("evaluate", detector, "--data", f"coco:{file}").fails("classes that the model does not know: never used;")


@pytest.mark.slow
def test_one_bad_box_can_be_left_out_of_a_training(regard, scenes, tmp_path):
    folder = tmp_path / "data"
    (folder / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (folder / part).symlink_to(scenes / part)
        values = json.loads((scenes / "annotations" / f"instances_{part}.json").read_text(encoding="utf-8"))
        values["annotations"][0]["bbox"] = [1, 2, -3, 4]
        values["annotations"][1]["bbox"] = None
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(values), encoding="utf-8")
    command = ("train", "detr-digit-scenes", "--data", f"coco:{folder}", "--out", tmp_path / "run")
    regard(*command, *small()).fails("2 boxes are turned inside out", "2 boxes are not four", "on_bad_annotation=skip")
    assert not (tmp_path / "run").exists()
    told = regard(*command, *small("data.on_bad_annotation=skip"))
    assert told.status == 0, told.err
    assert "2 boxes are not four finite numbers; they are left out" in told.err


def test_predict_draws_and_writes_coco_results(regard, detector, scenes, tmp_path):
    images = sorted((scenes / "val").glob("*.png"))[:2]
    told = regard("predict", detector, *images, "--threshold", 0, "-o", tmp_path)
    assert told.status == 0, told.err
    results = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert {entry["file_name"] for entry in results} == {str(image) for image in images}
    assert {entry["image_id"] for entry in results} == {"count:1", "count:2"}  # not to be taken for ids
    assert "their image_id counts the files; --data ADDRESS or --annotations FILE.json gives the data's own" in told.out
    assert all(len(entry["bbox"]) == 4 and 0 <= entry["score"] <= 1 for entry in results)
    assert len(results) == 2 * 7  # all queries answer
    for image in images:
        assert size_of(tmp_path / f"{image.stem}-boxes.png")[0] >= size_of(image)[0]


def numbered_otherwise(scenes: Path, folder: Path) -> Path:
    """The held-out scenes and their annotations with other ids of images and classes: 1 to N, the last one first."""
    (folder / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (folder / part).symlink_to(scenes / part)
        values = json.loads((scenes / "annotations" / f"instances_{part}.json").read_text(encoding="utf-8"))
        number = {image["id"]: len(values["images"]) - place for place, image in enumerate(values["images"])}
        for image in values["images"]:
            image["id"] = number[image["id"]]
        for entry in values["annotations"]:
            entry["image_id"], entry["category_id"] = number[entry["image_id"]], entry["category_id"] + 50
        for category in values["categories"]:
            category["id"] += 50
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_results_are_under_the_datas_ids(regard, detector, scenes, tmp_path):
    data = numbered_otherwise(scenes, tmp_path / "data")
    file = data / "annotations" / "instances_val.json"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
    names = {image["file_name"]: image["id"] for image in truth.imgs.values()}
    categories = {name["name"]: name["id"] for name in truth.cats.values()}
    told = regard("evaluate", detector, "--data", f"coco:{data}", "-o", tmp_path / "measured")
    assert told.status == 0, told.err
    images = [data / "val" / image["file_name"] for image in truth.imgs.values()]
    for number, option in enumerate((["--data", f"coco:{data}"], ["--annotations", file])):
        out = tmp_path / str(number)
        told = regard("predict", detector, *images, *option, "--threshold", 0, "-o", out)
        assert told.status == 0, told.err
        results = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
        rows = (out / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
        assert len(results) == len(rows) == 9 * 7
        assert all(entry["image_id"] == names[Path(entry["file_name"]).name] for entry in results)
        assert [entry["category_id"] for entry in results] == [categories[row.split(",")[1]] for row in rows]
        measured = json.loads((tmp_path / "measured" / "detections.json").read_text(encoding="utf-8"))
        assert len(measured) == len(results)
        for wanted in measured:
            assert any(
                (one["image_id"], one["category_id"]) == (wanted["image_id"], wanted["category_id"])
                and one["bbox"] == pytest.approx(wanted["bbox"], abs=0.1)
                for one in results
            )
        with contextlib.redirect_stdout(io.StringIO()):
            truth.loadRes(results)
            truth.loadRes(measured)
    counted = json.loads(regard("predict", detector, *images[:2], "--threshold", 0, "--json").out)
    with pytest.raises(AssertionError, match="do not correspond"):
        truth.loadRes(counted)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data", "digit-scenes", "--annotations", "a.json"], ["choose one of --data and --annotations"]),
        (["--annotations", "none.json"], ["none.json: cannot be read"]),
        (["--data", "digits"], ["images with boxes"]),
        (["--data", "digit-scenes"], ["is no image of digit-scenes, which has digit-scenes/train[0]"]),
    ],
)
def test_data_that_give_no_ids(regard, detector, scenes, arguments, parts):
    regard("predict", detector, sorted((scenes / "val").glob("*.png"))[0], *arguments).fails(*parts)


def test_the_number_of_detections_is_an_option(regard, detector, scenes):
    images = sorted((scenes / "val").glob("*.png"))[:4]
    found = json.loads(regard("predict", detector, *images, "--threshold", 0, "--max-detections", 3, "--json").out)
    assert len(found) == 4 * 3
    whole = json.loads(regard("evaluate", detector, "--max-detections", 5, "--json").out)
    assert whole["max_detections"] == 5
    assert "max_detections" not in json.loads(regard("evaluate", detector, "--json").out)


@pytest.fixture(scope="module")
def calibrated(detector, tmp_path_factory) -> Path:
    """The run, as if suppression at a small overlap and a score for each class had been chosen at its end."""
    run = shutil.copytree(detector, tmp_path_factory.mktemp("calibrated") / "run")
    metadata = json.loads((run / "metadata.json").read_text(encoding="utf-8"))
    names = metadata["class_names"]
    thresholds = {name: 0.02 * number for number, name in enumerate(names)}
    metadata["calibration"] = {"nms": 0.01, "thresholds": thresholds, "threshold": 0.02, "pooled": [], "images": 9}
    metadata["calibration"] |= {"objects": 90, "source": "measured"}
    del metadata["checksum"]
    (run / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return run


def test_a_run_does_what_it_has_chosen_unless_asked_otherwise(regard, calibrated, detector, scenes):
    images = sorted((scenes / "val").glob("*.png"))[:4]

    def predicted(run: Path, *options: object) -> list[dict]:
        told = regard("predict", run, *images, *options, "--json")
        assert told.status == 0, told.err
        return json.loads(told.out)

    every = predicted(calibrated, "--threshold", 0, "--nms", "off")
    assert len(every) == 4 * 7  # all queries
    assert every == predicted(detector, "--threshold", 0) == predicted(detector, "--threshold", 0, "--nms", "auto")
    kept = predicted(calibrated, "--threshold", 0)
    assert kept == predicted(detector, "--threshold", 0, "--nms", 0.01)
    assert 4 <= len(kept) < len(every)  # all boxes of a detector that has learned nothing lie in one place
    names = {entry["id"]: entry["name"] for entry in _categories(scenes)}
    enough = [one for one in kept if one["score"] >= 0.02 * sorted(names.values()).index(names[one["category_id"]])]
    assert predicted(calibrated) == predicted(calibrated, "--threshold", "auto") == enough
    assert predicted(detector) == []  # of a score of 0.5
    assert (
        "objects of the scores of their classes (0.00 to 0.18) in 4 images"
        in regard("predict", calibrated, *images).out
    )
    assert "0 objects of score 0.5 or more in 4 images" in regard("predict", detector, *images).out


def _categories(scenes: Path) -> list[dict]:
    return json.loads((scenes / "annotations" / "instances_val.json").read_text(encoding="utf-8"))["categories"]


def test_an_evaluation_says_what_was_suppressed(regard, calibrated, detector):
    own, off, other = (
        json.loads(regard("evaluate", calibrated, *options, "--json").out)
        for options in ((), ("--nms", "off"), ("--nms", "0.999"))
    )
    assert (own["nms"], off["nms"], other["nms"]) == (0.01, "off", 0.999)
    plain = json.loads(regard("evaluate", detector, "--json").out)
    assert plain["nms"] == "off"
    for figure in ("ap", "ap50"):
        assert own[f"{figure}_raw"] == off[figure] == off[f"{figure}_raw"] == plain[figure]
    assert own["twins"] == 0
    # The confusion matrix counts what the run reports.
    assert sum(map(sum, own["confusion"])) > sum(map(sum, plain["confusion"]))


@pytest.mark.parametrize("wrong", ["0", "1", "1.5", "-0.1", "on", "nan", ""])
def test_an_overlap_or_a_score_that_is_none(regard, detector, scenes, wrong):
    image = sorted((scenes / "val").glob("*.png"))[0]
    if wrong:
        regard("predict", detector, image, "--nms", wrong).fails("nms is", "auto, off, or an IoU above 0 and below 1")
        regard("evaluate", detector, "--nms", wrong).fails("nms is", "auto, off, or an IoU above 0 and below 1")
    if wrong not in ("0", "1"):
        regard("predict", detector, image, "--threshold", wrong).fails("threshold is", "between 0 and 1")


def test_weights_that_are_not_finite_are_no_empty_images(regard, detector, scenes, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(detector, run)
    weights = load_file(run / "model.safetensors")
    name = next(name for name in weights if "encoder" in name and weights[name].ndim == 2)
    weights[name].fill_(3e38)  # weights that are not finite themselves are refused as they are read
    save_file(weights, run / "model.safetensors")
    what = f"{run}: {NOT_FINITE}"
    regard("evaluate", run).fails(what, "val", "there are no figures to tell")
    image = sorted((scenes / "val").glob("*.png"))[0]
    regard("predict", run, image).fails(f"{run}: {image}: {NOT_FINITE}")


def test_predict_goes_on_past_a_bad_image(regard, detector, scenes, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    good = sorted((scenes / "val").glob("*.png"))[0]
    told = regard("predict", detector, bad, good, "--threshold", 0, "--json")
    assert told.status == 1
    assert "bad.png" in told.err
    assert {entry["file_name"] for entry in json.loads(told.out)} == {str(good)}


def test_what_a_detector_is_not_for(regard, detector, scenes):
    image = sorted((scenes / "val").glob("*.png"))[0]
    regard("explain", detector, image, "--method", "rollout").fails("rollout: is of classifiers")
    regard("generate", detector, "--prompt", "x").fails("no run of a language model")
    regard("predict", detector).fails("name an image file")
    regard("evaluate", detector, "--data", "digits").fails("images with boxes")


def test_classes_that_differ_from_the_checkpoints(regard, detector, tmp_path):
    weights = ("--set", f"model.weights={detector / 'model.safetensors'}")
    data = tmp_path / "one"
    (data / "train").mkdir(parents=True)
    (data / "val").mkdir()
    (data / "annotations").mkdir()
    for number, part in enumerate(("train", "val")):
        names = []
        for index in range(3):
            name = f"{part}{index}.png"
            Image.new("RGB", (80, 60), (40 * number + 9 * index, 90, 30)).save(data / part / name)
            names.append({"id": index + 1, "file_name": name, "width": 80, "height": 60})
        boxes = [
            {"id": i, "image_id": i, "category_id": 5, "bbox": [10, 10, 20, 30], "area": 600, "iscrowd": 0}
            for i in (1, 2)  # and nothing in the third
        ]
        values = {"images": names, "annotations": boxes, "categories": [{"id": 5, "name": "box"}]}
        (data / "annotations" / f"instances_{part}.json").write_text(json.dumps(values), encoding="utf-8")
    told = regard(
        *("train", "detr-digit-scenes", "--data", f"coco:{data}", "--out", tmp_path / "a"), *small(), *weights
    )
    assert told.status == 1
    assert "10" in told.err
    assert "--set model.reset_head=true" in told.err
    told = regard(
        *("train", "detr-digit-scenes", "--data", f"coco:{data}", "--out", tmp_path / "b"),
        *small("model.reset_head=true"),
        *weights,
    )
    assert told.status == 0, told.err
    assert "a single class, box" in told.err
    assert "1 of 3 images are without objects" in told.err
    found = json.loads(regard("predict", tmp_path / "b", data / "val", "--threshold", 0, "--json").out)
    assert {entry["category_id"] for entry in found} == {5}


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("augment.mixup=0.1", ["augment.mixup", "detection", "flip"]),
        ("model.reset_head=true", ["model.reset_head", "model.weights"]),
        ("data.shortest=900", ["data.shortest", "900", "data.longest"]),
        ("data.validate_on=test", ["data.validate_on", "'val' or 'train'"]),
        ("model.backbone=resnet5", ["resnet5"]),
        ("model.mixer=fourier", ["fourier"]),
        ("model.weights=none.safetensors", ["none.safetensors"]),
    ],
)
def test_a_bad_setting_is_one_line(regard, tmp_path, setting, parts):
    told = regard(
        *("train", "detr-digit-scenes", "--out", tmp_path / "run"),
        *("--set", "train.max_steps=1", "--set", "data.first=4", "--set", setting),
    )
    told.fails(*parts)
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("setting", ["model.pretrained_backbone=true", "data.first=3", "train.backbone_lr=0.1"])
def test_what_is_for_detection_only(regard, tmp_path, setting):
    told = regard("train", "vit-digits", "--out", tmp_path / "run", "--set", setting)
    told.fails(setting.partition("=")[0], "for detection")


def test_a_detectors_box_and_its_query(regard, detector, scenes, tmp_path):
    image = sorted((scenes / "val").glob("*.png"))[0]
    told = regard("explain", detector, image, "-o", tmp_path)
    assert (told.status, told.err) == (0, "")
    assert (tmp_path / f"{image.stem}-mixing.png").read_bytes()[:4] == b"\x89PNG"
    told = regard("explain", detector, image, "--box", 1, "--layer", "cross.0", "--json")
    (found,) = json.loads(told.out)
    assert found["layer"] == "cross.0"
    assert len(found["box_xyxy"]) == 4
    assert abs(sum(map(sum, found["map"])) - 1) < 0.2
    regard("explain", detector, image, "--box", 9999).fails("box 9999 is not there: the detector has")
    regard("explain", detector, image, "--layer", "encoder").fails("layer encoder")


def test_a_detectors_page_holds_its_boxes(regard, detector, scenes, run, tmp_path):
    image, page = sorted((scenes / "val").glob("*.png"))[0], tmp_path / "out.html"
    told = regard("explain", detector, image, "--page", page)
    assert (told.status, told.out, told.err) == (0, f"{page}\n", "")
    text = re.search(r'id="about">([^<]+)<', page.read_text(encoding="utf-8"))[1]
    (found,) = json.loads(zlib.decompress(base64.b64decode(text)))["runs"][0]["images"]
    (box, *_) = json.loads(regard("explain", detector, image, "--json").out)
    assert found["boxes"][0]["layers"][-1] == pytest.approx(box["box_xyxy"], abs=0.06)
    assert [layer["queries"] for layer in found["layers"]] == [len(found["boxes"])] * len(found["layers"])
    assert found["layers"][-1]["name"] == box["layer"]
    packed = re.search(rf'id="{re.escape(found["layers"][-1]["piece"])}">([^<]+)<', page.read_text(encoding="utf-8"))[1]
    heads, queries = found["layers"][-1]["heads"], found["layers"][-1]["queries"]
    carried = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<f2").reshape(heads, queries, -1)
    np.testing.assert_allclose(carried[:, 0].astype(float).mean(0), np.ravel(box["map"]), atol=2e-3)
    regard("explain", detector, image, "--page", page, "--target", 1).fails("target")
    regard("explain", run, image, "--page", page, "--against", detector).fails("detection", "classification")

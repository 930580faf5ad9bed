"""COCO's results under the data's own ids: which file is which image, and that pycocotools measures what we told."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from regard.data import DetectionPreprocessing, open_detection
from regard.errors import RegardError
from regard.models import DETROutput
from regard.tasks import DataIds, Detector

pytestmark = pytest.mark.filterwarnings("ignore:matching")  # each query names two objects

NAMES = ("ant", "bee", "cat")
# What the data call them, in another order and without a cat.
CATEGORIES = [{"id": 7, "name": "bee"}, {"id": 3, "name": "ant"}]


class Looks(nn.Module):
    """Finds the grey levels of an image's first row: each 9 of its pixels are a box, its class and its score."""

    scores = "sigmoid"

    def __init__(self) -> None:
        super().__init__()
        self.here = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, mask: Tensor) -> DETROutput:
        rows = images[:, 0, 0, :36].view(len(images), 4, 9)
        return DETROutput((rows[:, :, 4:7] * 12 - 6)[None], rows[None, :, :, :4] * 0.5 + 0.25)


def detector() -> Detector:
    return Detector(Looks(), NAMES, (1, 2, 3), DetectionPreprocessing(64, 64, 1, (0.0,), (1.0,)))


@pytest.fixture
def coco(tmp_path):
    """A folder with six images of noise; their ids are 1 to 6, the last one first. Objects lie near what is found."""
    torch.manual_seed(3)
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    lists = {"images": [], "annotations": [], "categories": CATEGORIES}
    for part in ("train", "val"):
        folder = tmp_path / "coco" / part / "deep"
        folder.mkdir(parents=True)
        lists["images"], lists["annotations"] = [], []
        for number in range(6):
            file = folder / f"{number}.png"
            Image.fromarray(torch.randint(0, 256, (64, 64), dtype=torch.uint8).numpy()).save(file)
            lists["images"].append({"id": 6 - number, "file_name": f"deep/{number}.png", "width": 64, "height": 64})
            found = detector().predict(file, threshold=0.0)
            for box, name in zip(found.boxes_xyxy.tolist(), found.names, strict=True):
                if name != "cat":
                    left, top, right, bottom = (min(value + float(torch.rand(())) * 6, 64.0) for value in box)
                    left, top = min(left, 60.0), min(top, 60.0)
                    category = next(one["id"] for one in CATEGORIES if one["name"] == name)
                    lists["annotations"].append(
                        {"id": len(lists["annotations"]) + 1, "image_id": 6 - number, "category_id": category}
                        | {"bbox": [left, top, max(right - left, 2), max(bottom - top, 2)], "iscrowd": 0}
                        | {"area": max(right - left, 2) * max(bottom - top, 2)}
                    )
        file = tmp_path / "coco" / "annotations" / f"instances_{part}.json"
        file.write_text(json.dumps(lists), encoding="utf-8")
    return tmp_path / "coco"


def figures(file: Path, results: list[dict]) -> list[float]:
    """What pycocotools says of results."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist()


def test_pycocotools_measures_what_the_evaluation_told(coco):
    data = open_detection(f"coco:{coco}", channels=1)
    evaluation = detector().evaluate(data.val, class_names=data.class_names, category_ids=data.category_ids)
    results = evaluation.coco_results()
    told = list(evaluation.metrics().values())[:12]
    assert 0.05 < told[0] < 0.95
    assert figures(coco / "annotations" / "instances_val.json", results) == pytest.approx(told)
    assert {result["category_id"] for result in results} == {3, 7}  # the cats have no id there
    assert len({result["image_id"] for result in results}) == 6
    assert all(Path(result["file_name"]).is_file() for result in results)


@pytest.mark.parametrize("by", ["address", "file"])
def test_predictions_of_files_have_the_datas_ids(coco, by):
    file = coco / "annotations" / "instances_val.json"
    ids = DataIds.of_annotations(file) if by == "file" else DataIds.of_data(f"coco:{coco}")
    files = sorted((coco / "val").rglob("*.png"))
    image_ids, by_name_alone = ids.of_files(files)
    assert (image_ids, by_name_alone) == ([6, 5, 4, 3, 2, 1], [])
    classes = ids.of_classes(NAMES)
    assert classes == [3, 7, None]
    results = [
        result
        for found, image_id in zip(detector().predict_files(files, threshold=0.0), image_ids, strict=True)
        for result in found.to_coco(image_id, classes)
    ]
    data = open_detection(f"coco:{coco}", channels=1)
    told = detector().evaluate(data.val, class_names=data.class_names).metrics()
    assert figures(file, results) == pytest.approx(list(told.values())[:12])


def test_a_file_of_another_folder_is_taken_for_the_one_image_of_its_name_with_a_word(coco, tmp_path):
    ids = DataIds.of_annotations(coco / "annotations" / "instances_val.json")
    assert ids.of_files([tmp_path / "copied" / "2.png"]) == ([4], [str(tmp_path / "copied" / "2.png")])
    flat = DataIds("flat", ["a.png", "b.png"], [5, 9], {})
    assert flat.of_files([tmp_path / "x" / "b.png", Path("a.png")]) == ([9, 5], [])


@pytest.mark.parametrize(
    ("paths", "files", "ids"),
    [
        (["one/a.png", "two/a.png"], ["x/two/a.png", "x/one/a.png"], [2, 1]),
        (["a\\one\\a.png", "b\\one\\a.png"], ["b/one/a.png"], [2]),
        (["/data/upload/one/a.png", "/data/upload/two/a.png"], ["here/two/a.png"], [2]),
    ],
)
def test_images_of_one_name_are_told_apart_by_their_folders(paths, files, ids):
    assert DataIds("data", paths, [1, 2], {}).of_files([Path(file) for file in files]) == (ids, [])


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["here/c.png"], r"here/c\.png: is no image of data, which has one/a\.png, two/a\.png, three/b\.png"),
        (["here/a.png"], r"here/a\.png: may be any of these images of data: one/a\.png, two/a\.png"),
        (["x/b.png", "y/b.png"], r"y/b\.png: data gives it the id 3, which x/b\.png has"),
        (["three/b.png", "three/b.png"], "data gives it the id 3"),
    ],
)
def test_files_that_are_not_clearly_one_image(files, told):
    ids = DataIds("data", ["one/a.png", "two/a.png", "three/b.png"], [1, 2, 3], {})
    with pytest.raises(RegardError, match=told):
        ids.of_files([Path(file) for file in files])


def test_images_of_two_parts_with_one_id_are_not_mixed(coco):
    ids = DataIds.of_data(f"coco:{coco}")
    with pytest.raises(RegardError, match=r"val/deep/1\.png: .* gives it the id 5, which .*train/deep/1\.png has"):
        ids.of_files([coco / "train" / "deep" / "1.png", coco / "val" / "deep" / "1.png"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "has no list of images"),
        ('{"images": 3}', "has no list of images"),
        ('{"images": [{"id": 1}], "categories": []}', r"images\[0\] lacks a file_name or an id"),
        ('{"images": [], "categories": [{"name": "a", "id": null}]}', r"categories\[0\] lacks a name or an id"),
        ("{", "is not JSON"),
    ],
)
def test_a_file_that_is_none_of_cocos(tmp_path, text, told):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(RegardError, match=rf"a\.json: {told}"):
        DataIds.of_annotations(tmp_path / "a.json")


def test_of_two_categories_of_one_name_the_one_with_objects_counts(tmp_path):
    lists = {"images": [], "categories": [{"id": 1, "name": "ant"}, {"id": 0, "name": "ant"}]}
    for used in (0, 1):
        lists["annotations"] = [{"category_id": used}]
        (tmp_path / "a.json").write_text(json.dumps(lists), encoding="utf-8")
        assert DataIds.of_annotations(tmp_path / "a.json").of_classes(["ant", "bee"]) == [used, None]


def test_ids_are_known_where_some_images_cannot_be_read(tmp_path):
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n", encoding="utf-8")
    for part in ("train", "val"):
        (tmp_path / "images" / part).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (8, 6)).save(tmp_path / "images" / part / f"{part}{number}.png")
    (tmp_path / "images" / "train" / "train1.png").write_bytes(b"no image")
    ids = DataIds.of_data(f"yolo:{tmp_path}")
    assert [Path(path).name for path in ids.paths] == ["train0.png", "train2.png", "val0.png", "val1.png", "val2.png"]

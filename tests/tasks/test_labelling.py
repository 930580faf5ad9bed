"""Predictions as annotations: what is written is read again by our readers, pycocotools and supervision, box by box."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor, nn
from torch.testing import assert_close

import regard
from regard.data import DetectionPreprocessing, Preprocessing, open_detection
from regard.errors import RegardError
from regard.models import DETROutput
from regard.tasks import Classifier, Detector, Prediction
from regard.tasks.labelling.folder import names_in_folder
from regard.tasks.labelling.formats import Classes, Labelled, csv_text
from regard.tasks.labelling.uncertainty import uncertainty

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it runs without OpenCV
    import supervision as sv

NAMES, IDS = ("ant", "queen bee"), (18, 44)
# What the detector below finds in an image of 200 × 100 pixels, the most certain first: (class, corners).
FOUND = [("queen bee", (170.0, 85.0, 200.0, 95.0)), ("ant", (80.0, 30.0, 120.0, 70.0))]


class ByBrightness(nn.Module):
    """An ant of score .6 in a black image, and .95 in a white one; a bee of score .9; nothing else above .1."""

    def __init__(self) -> None:
        super().__init__()
        self.any = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor, mask: Tensor) -> DETROutput:
        bright = (images.mean((1, 2, 3)) + 1) / 2
        ant = torch.logit(0.6 + 0.35 * bright)
        logits = torch.full((2, len(images), 4, 3), -9.0)
        logits[..., 2] = 0.0
        logits[:, :, 0, 0] = ant
        logits[:, :, 1, 1] = torch.logit(torch.tensor(0.9))
        boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.95, 0.9, 0.2, 0.1], [0.1] * 4, [0.5, 0.5, 0.0, 0.5]])
        return DETROutput(logits, boxes.expand(2, len(images), 4, 4))


def detector() -> Detector:
    pre = DetectionPreprocessing(32, 64, 3, (0.5,) * 3, (0.5,) * 3)
    return Detector(ByBrightness(), NAMES, IDS, pre)


class Shade(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.any = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3)) * 4
        return torch.stack([-bright, bright], 1)


def classifier() -> Classifier:
    return Classifier(Shade(), ("dark", "light"), Preprocessing((8, 8), 3, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0))


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    for name, shade in (("b.png", 255), ("a.jpg", 128), ("deeper/a.png", 0)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100), (shade,) * 3).save(folder / name)
    return folder


def read_back(address: str) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Of each image its boxes, by our readers."""
    data = open_detection(address, val_fraction=0.34)
    found = {}
    for source in (data.train, data.val):
        for index, objects in enumerate(source.objects):
            assert source.read(index).shape == (3, 100, 200)
            rows = zip(objects.labels.tolist(), objects.boxes_xyxy.tolist(), strict=True)
            found[Path(source.name(index)).name] = [(data.class_names[label], tuple(box)) for label, box in rows]
    return found


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("copy", [False, True])
def test_what_is_written_is_opened_by_its_address(form, copy, photos, tmp_path):
    out = tmp_path / "out"
    told = regard.label(detector(), photos, out, format=form, copy=copy)
    assert (told.address, told.images, told.objects, told.left_out) == (f"{form}:{out}", 3, 6, 0)
    found = read_back(told.address)
    assert sorted(found) == ["a.jpg", "b.png", "deeper-a.png"]
    for boxes in found.values():
        assert sorted(name for name, _ in boxes) == ["ant", "queen bee"]
        for name, corners in FOUND:
            assert_close(torch.tensor(dict(boxes)[name]), torch.tensor(corners), atol=0.01, rtol=0)
    image = next(out.glob("*mages/b.png"))
    assert image.samefile(photos / "b.png") is not copy
    assert image.read_bytes() == (photos / "b.png").read_bytes()
    assert not image.is_symlink()  # supervision refuses links that lead out of the folder


def test_images_on_another_disk_are_copied(photos, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    regard.label(detector(), photos, tmp_path / "out", format="yolo")
    assert (tmp_path / "out/images/b.png").read_bytes() == (photos / "b.png").read_bytes()


def test_pycocotools_and_supervision_read_coco(photos, tmp_path):
    regard.label(detector(), photos, tmp_path / "out")
    file = tmp_path / "out/annotations/instances_default.json"
    coco = COCO(str(file))
    assert {one["name"]: one["id"] for one in coco.loadCats(coco.getCatIds())} == dict(zip(NAMES, IDS, strict=True))
    assert coco.getAnnIds() == [1, 2, 3, 4, 5, 6]
    for image in coco.loadImgs(coco.getImgIds()):
        assert (image["width"], image["height"]) == (200, 100)
        (ant,) = coco.loadAnns(coco.getAnnIds(image["id"], catIds=[18], iscrowd=False))
        (bee,) = coco.loadAnns(coco.getAnnIds(image["id"], catIds=[44]))
        assert_close(ant["bbox"], [80.0, 30.0, 40.0, 40.0], atol=1e-3, rtol=0)
        assert ant["area"] == pytest.approx(1600, rel=1e-4)
        assert bee["score"] == pytest.approx(0.9, abs=1e-4)
    found = sv.DetectionDataset.from_coco(str(tmp_path / "out/images"), str(file))
    assert_seen_by_supervision(found)


def test_supervision_reads_yolo_and_voc(photos, tmp_path):
    for form in ("yolo", "voc"):
        regard.label(detector(), photos, tmp_path / form, format=form)
    yolo = tmp_path / "yolo"
    found = sv.DetectionDataset.from_yolo(str(yolo / "images"), str(yolo / "labels"), str(yolo / "data.yaml"))
    assert found.classes == list(NAMES)
    assert_seen_by_supervision(found)
    assert (yolo / "classes.txt").read_text() == "ant\nqueen bee\n"
    assert all(len(line.split()) == 5 for line in (yolo / "labels/b.txt").read_text().splitlines())
    voc = tmp_path / "voc"
    assert_seen_by_supervision(sv.DetectionDataset.from_pascal_voc(str(voc / "JPEGImages"), str(voc / "Annotations")))
    assert (voc / "ImageSets/Main/train.txt").read_text().split() == ["a", "b", "deeper-a"]


def assert_seen_by_supervision(found: "sv.DetectionDataset") -> None:
    assert len(found) == 3
    for _, _, seen in found:
        names = [found.classes[label] for label in seen.class_id]
        boxes = dict(zip(names, seen.xyxy, strict=True))
        for name, corners in FOUND:
            np.testing.assert_allclose(boxes[name], corners, atol=0.02)


def test_csv_has_a_row_for_each_box_and_for_each_classified_image(photos, tmp_path):
    regard.label(detector(), photos, tmp_path / "boxes", format="csv")
    with (tmp_path / "boxes/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert list(rows[0].values()) == ["images/a.jpg", "queen bee", "0.9000", "170.00", "85.00", "200.00", "95.00"]
    assert list(rows[0]) == ["file", "class", "score", "left", "top", "right", "bottom"]
    told = regard.label(classifier(), photos, tmp_path / "classes", format="csv")
    assert (told.address, told.objects) == (f"csv:{tmp_path / 'classes/labels.csv'}", 3)
    with (tmp_path / "classes/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["label"]) for row in rows] == [
        ("images/a.jpg", "light"),
        ("images/b.png", "light"),
        ("images/deeper-a.png", "dark"),
    ]
    assert (tmp_path / "classes" / rows[1]["file"]).is_file()


def test_several_classes_of_an_image_stand_in_one_cell():
    found = Prediction("a", ("x", "y", "z"), (0.9, 0.45, 0.1), (0.5, 0.4, 0.5))
    none = Prediction("b", ("x",), (0.3,), (0.5,))
    images = [Labelled("a.png", 1, found), Labelled("b.png", 2, none)]
    classes = Classes(("x",), (0,), (0,))
    assert csv_text(images, classes, "images") == ("file,label,score\nimages/a.png,x;y,0.9000;0.4500\nimages/b.png,,\n")
    with pytest.raises(RegardError, match="'x;y' holds ';', which stands between labels"):
        csv_text([Labelled("a.png", 1, Prediction("a", ("x;y",), (1.0,)))], classes, "images")


def test_ids_are_those_of_the_data(photos, tmp_path):
    own = {
        "images": [{"id": 70 + n, "file_name": str(f.relative_to(photos))} for n, f in enumerate(photos.rglob("*.*"))],
        "categories": [{"id": 5, "name": "wasp"}, {"id": 3, "name": "ant"}],
    }
    file = tmp_path / "own.json"
    file.write_text(json.dumps(own))
    told = regard.label(detector(), photos, tmp_path / "coco", annotations=file)
    assert (told.objects, told.left_out) == (3, 3)  # they have no queen bees
    written = json.loads((tmp_path / "coco/annotations/instances_default.json").read_text())
    by_name = {Path(one["file_name"]).name: one["id"] for one in own["images"] if "deeper" not in one["file_name"]}
    assert {one["file_name"]: one["id"] for one in written["images"] if "deeper" not in one["file_name"]} == by_name
    assert {one["category_id"] for one in written["annotations"]} == {3}
    regard.label(detector(), photos, tmp_path / "yolo", format="yolo", annotations=file)
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())["names"] == {0: "ant", 1: "wasp"}
    Image.new("RGB", (9, 9)).save(tmp_path / "z.png")
    with pytest.raises(RegardError, match="is no image of"):
        regard.label(detector(), tmp_path / "z.png", tmp_path / "other", annotations=file)


def test_the_least_certain_images_come_first(photos, tmp_path):
    # Of the ant's scores .6, .78 and .95 and the bee's .9, against the threshold .5; of the classes' probabilities.
    told = regard.label(detector(), photos, tmp_path / "coco", sort="uncertain")
    entries = json.loads((tmp_path / "coco/annotations/instances_default.json").read_text())["images"]
    assert [one["file_name"] for one in entries] == ["deeper-a.png", "a.jpg", "b.png"]
    assert [one["uncertainty"] for one in entries] == [pytest.approx(u, abs=5e-3) for u in (0.9, 0.72, 0.6)]
    assert told.objects == 6
    regard.label(detector(), photos, tmp_path / "yolo", format="yolo", sort="uncertain")
    assert (tmp_path / "yolo/train.txt").read_text().split() == [
        *("./images/deeper-a.png", "./images/a.jpg", "./images/b.png")
    ]
    assert sorted(read_back(f"yolo:{tmp_path / 'yolo'}")) == ["a.jpg", "b.png", "deeper-a.png"]
    regard.label(classifier(), photos, tmp_path / "csv", format="csv", sort="uncertain")
    with (tmp_path / "csv/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["file"] == "images/a.jpg"
    assert float(rows[0]["uncertainty"]) == pytest.approx(1 - float(rows[0]["score"]), abs=1e-3)


def test_uncertainty():
    assert uncertainty(Prediction("a", ("x", "y"), (0.7, 0.3))) == pytest.approx(0.3)
    several = Prediction("a", ("x", "y", "z"), (0.9, 0.45, 0.1), (0.5, 0.4, 0.5))
    assert uncertainty(several) == pytest.approx(0.95)
    every = detector().predict(Image.new("RGB", (200, 100)), threshold=0.0)
    assert uncertainty(every, (0.5, 0.5)) == pytest.approx(0.9, abs=1e-3)
    assert uncertainty(every, (0.05, 0.95)) == pytest.approx(0.95, abs=1e-2)  # a bee at .9, and ants at .05
    assert uncertainty(every.chosen(slice(0)), (0.5, 0.5)) == 0


def test_what_cannot_be_read_is_left_out_and_told(photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no image")
    told = regard.label(detector(), photos, tmp_path / "out", format="yolo")
    assert told.images == 3
    (line,) = told.bad
    assert "broken.jpg" in line
    assert not (tmp_path / "out/images/broken.jpg").exists()
    with pytest.raises(RegardError, match=r"no image can be read: .*broken\.jpg"):
        regard.label(detector(), [photos / "broken.jpg"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten_and_nothing_half_written(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("corrected")
    with pytest.raises(RegardError, match="exists already; choose another folder"):
        regard.label(detector(), photos, out)
    assert [file.name for file in out.iterdir()] == ["mine.txt"]
    with pytest.raises(RegardError, match="images would then be there twice"):
        regard.label(detector(), photos, photos / "out")
    bad = detector()
    bad.class_names = ("ant", "bee\x01")
    with pytest.raises(RegardError, match="XML cannot hold"):
        regard.label(bad, photos, tmp_path / "voc", format="voc")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "photos"]


def test_what_a_run_cannot_give_is_an_error(photos, tmp_path):
    with pytest.raises(RegardError, match="csv holds; yolo is for runs that find boxes"):
        regard.label(classifier(), photos, tmp_path / "out", format="yolo")
    with pytest.raises(RegardError, match="ids are for runs that find boxes"):
        regard.label(classifier(), photos, tmp_path / "out", format="csv", data="coco:there")
    with pytest.raises(RegardError, match="choose one of data and annotations"):
        regard.label(detector(), photos, tmp_path / "out", data="coco:there", annotations="a.json")


def test_names_are_safe_and_differ_in_their_stems():
    files = [
        Path(name) for name in ("x/a.jpg", "x/a.png", "y/A.jpg", "x/..hidden.png", "x/a:b\n.jpg", "x/raw", "z/a.jpg")
    ]
    assert names_in_folder(files) == [*("a.jpg", "x-a.png", "y-A.jpg", "_hidden.png", "a_b_.jpg", "raw.jpg", "z-a.jpg")]
    assert len(set(names_in_folder([Path("x/a.jpg")] * 3))) == 3

"""What is chosen for a detector's boxes on images held out of training: the overlap, the scores, and which images."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from regard.data import Objects, open_detection
from regard.errors import RegardError
from regard.losses import cxcywh_of
from regard.models import DETROutput
from regard.recipes import load_recipe
from regard.tasks import Calibration, DetectionEvaluation, Detections, DetectionTask, Detector
from regard.tasks.detection.calibration import best_threshold, calibrated
from regard.tasks.detection.calibration_images import held_for_calibration, objects_in
from regard.tasks.detection.suppression import suppressed

NAMES = ("ant", "bee", "cow")
# What lies in each image of 80 × 80 pixels: seven ants and three bees, no cow.
PLACES = torch.cartesian_prod(torch.arange(4), torch.arange(4))[:10] * 18.0 + 4
OBJECTS = torch.cat([PLACES, PLACES + 12], 1)
LABELS = torch.tensor([0] * 7 + [1] * 3)


def evaluation(images: int, *, twin: float | None = 0.75, seed: int = 0) -> DetectionEvaluation:
    """Each object is found; with a `twin`, once more by a box that has this IoU with it; and there are false boxes."""
    draw = torch.Generator().manual_seed(seed)
    found, objects = [], []
    for number in range(images):
        boxes, scores, labels = [OBJECTS], [0.5 + 0.4 * torch.rand(10, generator=draw)], [LABELS]
        if twin is not None:
            boxes.append(torch.cat([PLACES, PLACES + torch.tensor([12 * twin, 12.0])], 1))
            scores.append(scores[0] - 0.1)
            labels.append(LABELS)
        boxes.append(torch.tensor([[70.0, 70, 79, 79], [70, 0, 79, 5], [0, 70, 5, 79]]))
        scores.append(0.55 * torch.rand(3, generator=draw))
        labels.append(torch.tensor([0, 1, 2]))
        every = [torch.cat(parts) for parts in (boxes, labels, scores)]
        order = every[2].argsort(descending=True, stable=True)
        found.append(Detections(f"{number}.png", (80, 80), *(part[order] for part in every), NAMES, (1, 2, 3)))
        objects.append(Objects(OBJECTS, LABELS, torch.full((10,), 144.0), torch.zeros(10, dtype=torch.bool)))
    return DetectionEvaluation(tuple(found), tuple(objects), tuple(range(images)), NAMES, 1.0)


def f1(scores: np.ndarray, correct: np.ndarray, objects: int, threshold: float) -> float:
    above = scores >= threshold
    return 2 * (correct & above).sum() / (above.sum() + objects)


def test_the_threshold_has_the_largest_f1():
    draw = np.random.default_rng(3)
    for _ in range(20):
        scores = draw.integers(0, 12, 40) / 12  # many are equal
        correct = draw.random(40) < scores
        best = best_threshold(scores, correct, 30, 0.5)
        every = [f1(scores, correct, 30, threshold) for threshold in np.unique(scores)]
        assert f1(scores, correct, 30, best) == pytest.approx(max(every))
        higher = [f1(scores, correct, 30, threshold) for threshold in np.unique(scores[scores > best])]
        assert max(higher, default=0) < max(every)
    assert best_threshold(np.array([0.9, 0.8]), np.array([False, False]), 30, 0.25) == 0.25
    assert best_threshold(np.zeros(0), np.zeros(0, bool), 30, 0.25) == 0.25


@pytest.mark.parametrize(("twin", "overlap"), [(None, None), (0.75, 0.7), (0.65, 0.6), (0.55, 0.5), (0.85, 0.8)])
def test_the_overlap_of_the_highest_ap_and_of_equal_ones_the_largest(twin, overlap):
    chosen = calibrated(evaluation(8, twin=twin), "auto", 100)
    assert (chosen.nms, chosen.source, chosen.images, chosen.objects) == (overlap, "measured", 8, 80)


@pytest.mark.parametrize(("given", "overlap"), [("off", None), (0.6, 0.6)])
def test_an_overlap_that_is_given_stays(given, overlap):
    assert calibrated(evaluation(8), given, 100).nms == overlap
    assert calibrated(evaluation(3), given, 100) == Calibration.default(given, NAMES, 3, 30)


def test_scores_by_class_and_for_few_objects_that_of_all():
    whole = evaluation(8)
    chosen = calibrated(whole, "auto", 100)
    assert chosen.pooled == ("cow",)  # 56 ants, 24 bees
    for label, objects in ((0, 56), (1, 24)):
        # Twins are gone after suppression: what is left is an object, or a box at the edge, whose area is another.
        left = [suppressed(one.chosen(one.labels == label), 0.7) for one in whole.found]
        scores = torch.cat([one.scores for one in left]).numpy()
        sides = torch.cat([one.boxes_xyxy[:, 2:] - one.boxes_xyxy[:, :2] for one in left])
        correct = (sides == 12).all(1).numpy()
        assert len(scores) == objects + 8
        wanted = max(np.unique(scores), key=lambda t: (f1(scores, correct, objects, t), t))
        assert chosen.thresholds[label] == float(wanted)
    assert chosen.thresholds[2] == chosen.threshold
    few = calibrated(evaluation(6), "auto", 100)  # 42 ants, 18 bees
    assert few.pooled == ("bee", "cow")
    assert few.thresholds[1:] == (few.threshold,) * 2


@pytest.mark.parametrize("images", [0, 1, 4])
def test_below_fifty_objects_nothing_is_measured(images):
    chosen = calibrated(evaluation(images), "auto", 100)
    assert chosen == Calibration.default("auto", NAMES, images, 10 * images)
    assert (chosen.nms, chosen.thresholds, chosen.source) == (0.7, (0.5,) * 3, "default")
    assert calibrated(evaluation(5), "auto", 100).source == "measured"


def test_what_is_not_finite_measures_nothing():
    spoilt = replace(evaluation(8), not_finite=("3.png",))
    chosen = calibrated(spoilt, "auto", 100)
    assert chosen == Calibration.default("auto", NAMES, 8, 80)
    assert "the model's numbers are not finite" in str(chosen)
    nothing = replace(evaluation(8), found=tuple(one.above(2.0) for one in evaluation(8).found))
    assert calibrated(nothing, "auto", 100).thresholds == (0.5,) * 3


def test_the_order_of_the_images_does_not_matter():
    whole = evaluation(9)
    order = random.Random(4).sample(range(9), 9)
    parts = {name: tuple(getattr(whole, name)[i] for i in order) for name in ("found", "objects", "image_ids")}
    assert calibrated(replace(whole, **parts), "auto", 100) == calibrated(whole, "auto", 100)
    assert calibrated(evaluation(9), "auto", 100) == calibrated(whole, "auto", 100)


def test_crowds_count_neither_way():
    whole = evaluation(8, twin=None)
    region = torch.tensor([[66.0, 66, 80, 80]])
    crowd = [
        Objects(
            torch.cat([one.boxes_xyxy, region]),
            torch.cat([one.labels, torch.tensor([0])]),
            torch.cat([one.areas, torch.tensor([196.0])]),
            torch.cat([one.crowd, torch.tensor([True])]),
        )
        for one in whole.objects
    ]
    chosen = calibrated(replace(whole, objects=tuple(crowd)), "auto", 100)
    assert chosen.objects == 80
    # The one false ant lies in the crowd: all ants are right, so that the least certain one is the threshold.
    ants = torch.cat([one.scores[(one.labels == 0) & (one.boxes_xyxy[:, 0] < 70)] for one in whole.found])
    assert chosen.thresholds[0] == float(ants.min())


def test_it_is_written_and_read_back():
    chosen = calibrated(evaluation(8), "auto", 100)
    values = json.loads(json.dumps(chosen.to_dict()))
    assert values["thresholds"] == dict(zip(NAMES, chosen.thresholds, strict=True))
    assert (values["nms"], values["source"], values["pooled"]) == (0.7, "measured", ["cow"])
    assert Calibration.from_dict(values, NAMES, "x") == chosen
    off = Calibration.default("off", NAMES)
    assert off.to_dict()["nms"] == "off"
    assert Calibration.from_dict(off.to_dict(), NAMES, "x") == off


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nms": 2}, r"calibration\.nms is 2; it must be off, or an IoU above 0 and below 1"),
        ({"thresholds": {"ant": 0.5}}, r"calibration\.thresholds must have a score of each class"),
        ({"thresholds": {"ant": 0.5, "bee": 1.5, "cow": 0.1}}, r"'bee' must be a score from 0 to 1, got 1\.5"),
        ({"threshold": "x"}, r"'threshold' must be a score from 0 to 1, got 'x'"),
        ({"pooled": ["dog"]}, r"calibration\.pooled must be names of classes"),
        ({"images": -1}, r"must be whole numbers, got \(-1, 80\)"),
        ({"source": "guess"}, r"calibration\.source must be measured or default, got 'guess'"),
    ],
)
def test_metadata_of_another_kind(change, message):
    values = {**calibrated(evaluation(8), "auto", 100).to_dict(), **change}
    with pytest.raises(RegardError, match=f"^x: .*{message}"):
        Calibration.from_dict(values, NAMES, "x")
    with pytest.raises(RegardError, match=r"^x: calibration must be a table with images, nms"):
        Calibration.from_dict([1], NAMES, "x")


def test_it_says_what_was_chosen():
    assert str(Calibration.default("auto", NAMES, 16, 17)) == (
        "suppression at IoU 0.7 and score 0.5 by default: the images to measure them on hold 17 objects, "
        "and 50 are needed"
    )
    assert str(Calibration.default("off", NAMES)).startswith(
        "no suppression and score 0.5 by default: nothing was held"
    )
    words = str(calibrated(evaluation(8), "auto", 100))
    assert "measured on 8 images with 80 objects that were held out of training" in words
    assert "1 class of fewer than 20 objects takes" in words


# Which images, and a whole task


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve images to train on and five held out, all with the same objects, of which two files are the same."""
    folder = tmp_path_factory.mktemp("data") / "coco"
    for split, count in (("train", 12), ("val", 5)):
        (folder / split).mkdir(parents=True)
        images, boxes = [], []
        for number in range(count):
            name = f"{number:02d}.png"
            pixels = np.random.default_rng([number, count]).integers(0, 256, (80, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / name)
            images.append({"id": number + 1, "file_name": name, "width": 80, "height": 80})
            for (left, top, right, bottom), label in zip(OBJECTS.tolist(), LABELS.tolist(), strict=True):
                box = [left, top, right - left, bottom - top]
                boxes.append({"id": len(boxes) + 1, "image_id": number + 1, "category_id": label + 1, "bbox": box})
                boxes[-1] |= {"area": 144, "iscrowd": 0}
        whole = {"images": images, "annotations": boxes}
        whole["categories"] = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(whole), encoding="utf-8")
    shutil.copyfile(folder / "train" / "03.png", folder / "train" / "08.png")
    return folder


def names(source) -> list[str]:
    return [Path(source.name(index)).name for index in range(len(source))]


def test_doubled_files_stay_together_and_the_draw_is_by_name(data):
    train = open_detection(f"coco:{data}").train
    seen = set()
    for seed in range(12):
        rest, held = held_for_calibration(train, 0.25, seed, str(data))
        assert sorted(names(rest) + names(held)) == names(train)
        assert len(held) in (2, 3)  # the two of a kind do not fit where one is left
        assert ("03.png" in names(held)) == ("08.png" in names(held))
        assert names(held) == sorted(names(held))
        assert objects_in(held) == 10 * len(held)
        seen.add(tuple(names(held)))
    assert len(seen) > 6
    assert any("03.png" in held for held in seen)


def test_the_order_of_the_files_does_not_matter(data, tmp_path):
    """Nor where they lie."""
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    file = moved / "annotations" / "instances_train.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    whole["images"].reverse()
    file.write_text(json.dumps(whole), encoding="utf-8")
    for seed in range(3):
        held = [
            sorted(names(held_for_calibration(open_detection(f"coco:{at}").train, 0.25, seed, str(at))[1]))
            for at in (data, moved)
        ]
        assert held[0] == held[1]


def test_no_class_is_lost_to_the_training(data):
    train = open_detection(f"coco:{data}").train
    rare = Objects(OBJECTS[:1], torch.tensor([2]), torch.tensor([144.0]), torch.tensor([False]))
    for seed in range(8):
        _, first = held_for_calibration(train, 0.25, seed, str(data))
        train.objects = [
            rare if name == names(first)[0] else one for name, one in zip(names(train), train.objects, strict=True)
        ]
        _, held = held_for_calibration(train, 0.25, seed, str(data))
        assert names(first)[0] not in names(held)
        train = open_detection(f"coco:{data}").train


class Fixed(nn.Module):
    """Finds what there is, with a twin of each, and two false boxes."""

    scores = "sigmoid"

    def __init__(self) -> None:
        super().__init__()
        shorter = torch.cat([PLACES, PLACES + torch.tensor([9.0, 12.0])], 1)
        corners = torch.cat([OBJECTS, shorter, torch.tensor([[70.0, 70, 79, 79], [70, 0, 79, 5]])]) / 80
        self.boxes = nn.Parameter(cxcywh_of(corners), requires_grad=False)
        logits = torch.full((22, 3), -9.0)
        logits[range(10), LABELS] = torch.linspace(2.0, 1.0, 10)
        logits[range(10, 20), LABELS] = torch.linspace(2.0, 1.0, 10) - 0.05
        logits[20, 0] = logits[21, 1] = 0.5
        self.logits = nn.Parameter(logits, requires_grad=False)

    def forward(self, images: Tensor, mask: Tensor) -> DETROutput:
        return DETROutput(*(part.expand(2, len(images), -1, -1) for part in (self.logits, self.boxes)))


def task(data: Path, *settings: str) -> DetectionTask:
    small = (
        "model.embed_dim=32",
        "model.num_heads=4",
        "data.shortest=80",
        "data.longest=80",
        "evaluate.calibration=0.5",
    )
    return DetectionTask(load_recipe("detr-small", [*small, *settings], address=f"coco:{data}"))


def test_a_task_chooses_and_its_evaluations_follow(data):
    one, told = task(data), []
    assert len(one.train) == len(one.calibration_images) == 6
    assert not set(names(one.calibration_images)) & set(names(one.train))
    before = one.metrics([one.evaluate(Fixed(), rank=0, world_size=1)])
    assert one.metadata()["calibration"]["source"] == "default"
    found = one.finish(Fixed(), told.append)["calibration"]
    # Twins overlap by 0.75, so that 0.7 and less suppress them alike; six bees a class are too few of their own.
    assert (found["nms"], found["source"], found["images"], found["objects"]) == (0.7, "measured", 6, 60)
    assert found["pooled"] == ["bee", "cow"]
    sure = torch.linspace(2.0, 1.0, 10).sigmoid()
    assert found["thresholds"] == pytest.approx({"ant": float(sure[6]), "bee": float(sure[9]), "cow": float(sure[9])})
    assert len(told) == 1
    assert told[0].startswith("boxes: suppression at IoU 0.7 and scores of")
    shard = one.evaluate(Fixed(), rank=0, world_size=1)
    figures = one.metrics([shard])
    assert figures == before  # the default suppresses alike
    assert figures["ap"] == pytest.approx(1.0)
    assert figures["ap_raw"] < figures["ap"] - 0.1
    assert (figures["twins"], figures["twins_raw"]) == (0.0, pytest.approx(20 / 22))
    assert shard.confusion().diagonal().tolist() == [35, 15, 0, 0]
    assert shard.errors() == [0] * 5


def test_what_is_held_out_for_the_report_changes_nothing_that_is_chosen(data, tmp_path):
    poisoned = shutil.copytree(data, tmp_path / "poisoned")
    file = poisoned / "annotations" / "instances_val.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    for entry in whole["annotations"]:
        entry |= {"bbox": [1, 1, 70, 9], "category_id": 3}
    file.write_text(json.dumps(whole), encoding="utf-8")
    sides = [task(folder) for folder in (data, poisoned)]
    assert sides[1].metrics([sides[1].evaluate(Fixed(), rank=0, world_size=1)])["ap"] == 0.0
    first, second, again = (one.finish(Fixed(), lambda _: None) for one in (*sides, task(data)))
    assert first == second == again
    assert names(sides[0].calibration_images) == names(sides[1].calibration_images)
    held_out = {sides[0].val.name(index) for index in range(len(sides[0].val))}
    assert not held_out & {sides[0].calibration_images.name(index) for index in range(6)}


@pytest.mark.parametrize(
    ("settings", "trained", "nms", "objects"),
    [
        (("evaluate.calibration=0.1",), 12, 0.7, 20),  # two images, whose objects are too few: nothing is wasted
        (("evaluate.calibration=0",), 12, 0.7, 0),
        (("evaluate.nms=off", "evaluate.calibration=0"), 12, None, None),
        (("data.validate_on=train",), 12, 0.7, 0),
        (("evaluate.nms=0.4",), 6, 0.4, 60),
        (("evaluate.nms=off",), 6, None, 60),
    ],
)
def test_what_holds_where_nothing_is_measured(data, settings, trained, nms, objects):
    one = task(data, *settings)
    assert len(one.train) == trained
    found = one.finish(Fixed(), lambda _: None)
    assert one.predictor(Fixed()).evaluate(one.val).nms == nms
    if objects is None:
        assert found == {}
        assert "calibration" not in one.metadata()
    else:
        assert found["calibration"]["objects"] == objects
        assert found["calibration"]["nms"] == (nms or "off")
        assert found["calibration"]["source"] == ("default" if trained == 12 else "measured")


def test_an_image_that_cannot_be_read_does_not_end_a_training(data, tmp_path):
    broken, told = shutil.copytree(data, tmp_path / "broken"), []
    name = names(task(data).calibration_images)[0]
    file = broken / "train" / name
    file.write_bytes(file.read_bytes()[:150])
    found = task(broken).finish(Fixed(), told.append)
    assert found["calibration"]["images"] == 5
    assert "warning: not measured on what cannot be read" in told[0]
    assert name in told[0]


def test_a_detector_does_what_was_chosen_unless_asked_otherwise(data):
    one = task(data)
    plain = one.predictor(Fixed())
    plain.calibration = None
    chosen = calibrated(evaluation(8), "auto", 100)
    chosen = replace(chosen, thresholds=(0.85, 0.74, 0.5), nms=0.7)
    detector = Detector(Fixed(), NAMES, (1, 2, 3), one.preprocessing, chosen)
    image = torch.zeros(3, 80, 80, dtype=torch.uint8)
    sure = torch.linspace(2.0, 1.0, 10).sigmoid()
    assert len(plain.predict(image)) == 22  # of score 0.5, and none is suppressed
    found = detector.predict(image)
    assert found.names.count("ant") == int((sure[:7] >= 0.85).sum()) > 1
    assert found.names.count("bee") == int((sure[7:] >= 0.74).sum()) > 1
    assert len(detector.predict(image, nms="off", threshold=0.5)) == 22
    assert len(detector.predict(image, threshold=0.5)) == 12
    assert len(detector.predict(image, threshold=0.5, nms=0.9)) == 22
    assert len(plain.predict(image, nms=0.7)) == 12
    assert len(detector.predict(image, threshold=0.5, max_detections=11)) == 11
    fused = detector.fused()
    assert fused.calibration == chosen
    assert [len(detector.evaluate(one.val, nms=nms).found[0]) for nms in ("auto", "off", 0.9)] == [36, 66, 66]
    for given in ({"nms": "no"}, {"nms": 1.0}):
        with pytest.raises(RegardError, match=r"^nms is .*; it must be auto, off, or an IoU above 0 and below 1$"):
            detector.predict(image, **given)
        with pytest.raises(RegardError, match=r"^nms is "):
            detector.evaluate(one.val, **given)
    with pytest.raises(RegardError, match=r"^threshold is 'no', not auto; it must be a number between 0 and 1$"):
        detector.predict(image, threshold="no")

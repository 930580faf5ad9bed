"""A detector in use: boxes in pixels of the stored image, no query suppressed, conversions, and images that are bad."""

import io
import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

from regard.data import BadImage, DetectionPreprocessing, DetectionSource, Objects, open_detection, queries_for
from regard.errors import RegardError
from regard.layers import FusedConv
from regard.losses import xyxy_of
from regard.models import DETROutput, build, configure
from regard.tasks import DetectionEvaluation, Detections, Detector
from regard.tasks.detection.predictor import counted_detections

NAMES, IDS = ("ant", "bee"), (18, 44)


class Fixed(nn.Module):
    """Predictions alike for each image: four queries over two layers."""

    def __init__(self, logits: Tensor, boxes: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits, requires_grad=False)
        self.boxes = nn.Parameter(boxes, requires_grad=False)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor, mask: Tensor) -> DETROutput:
        self.seen.append(tuple(images.shape))
        assert mask.shape == (images.shape[0], *images.shape[2:])
        every = (part.expand(2, len(images), -1, -1) for part in (self.logits, self.boxes))
        return DETROutput(*every)


def detector(logits: Tensor | None = None, boxes: Tensor | None = None) -> Detector:
    if logits is None:
        # Two of the same object, one sure of nothing, one of the other class.
        logits = torch.tensor([[2.0, 0, 0], [3.0, 0, 0], [0, 0, 5.0], [0, 4.0, 0]])
    if boxes is None:
        boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1], [0.95, 0.9, 0.2, 0.1]])
    pre = DetectionPreprocessing(32, 64, 3, (0.5,) * 3, (0.5,) * 3)
    return Detector(Fixed(logits, boxes), NAMES, IDS, pre)


def test_boxes_are_in_pixels_of_the_stored_image_and_none_is_suppressed(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (200, 100), "grey").save(file)
    upright = torch.zeros(3, 80, 40, dtype=torch.uint8)
    first, second, third = detector().predict([file, Image.new("L", (200, 100)), upright], threshold=0.3)
    assert first.names == ("bee", "ant", "ant")
    assert first.scores.tolist() == sorted(first.scores.tolist(), reverse=True)
    assert_close(first.boxes_xyxy[1:], torch.tensor([[80.0, 30.0, 120.0, 70.0]] * 2))
    assert_close(first.boxes_xyxy[0], torch.tensor([170.0, 85.0, 200.0, 95.0]))  # cut at the image's edge
    assert (first.name, second.name, third.name) == (str(file), "images[1]", "images[2]")
    assert_close(third.boxes_xyxy[1], torch.tensor([16.0, 24.0, 24.0, 56.0]))
    assert first.image_size == (100, 200)
    assert detector().predict([]) == []


def test_box_refinement_is_what_each_layer_says():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.95, 0.9, 0.2, 0.1]])
    one = detector(torch.tensor([[3.0, 0, 0], [0, 4.0, 0]]), boxes)
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    refinement = one.box_refinement(image)
    assert refinement.steps == ("layer 1", "layer 2")
    assert refinement.start_xyxy is None
    assert refinement.class_names == NAMES
    found = one.predict([image], threshold=0.0)[0]
    assert found.labels.tolist() == [1, 0]  # the surest first, where `refinement` keeps the queries' order
    for layer in range(2):
        assert_close(refinement.boxes_xyxy[layer].flip(0), found.boxes_xyxy)
        assert_close(refinement.scores[layer].flip(0), found.scores)
        assert refinement.labels[layer].tolist() == [0, 1]


@pytest.mark.parametrize("two_stage", [True, False])
def test_box_refinement_begins_where_the_queries_begin(two_stage):
    preset = {"model.two_stage": two_stage, "model.num_denoising": 0, "model.num_queries": 7, "model.embed_dim": 32}
    config = configure("dn_detr_mini", {key.removeprefix("model."): value for key, value in preset.items()})
    model = build(config).eval()
    pre = DetectionPreprocessing(64, 64, 3, (0.5,) * 3, (0.5,) * 3)
    one = Detector(model, [str(digit) for digit in range(10)], range(10), pre)
    refinement = one.box_refinement(torch.randint(0, 256, (3, 50, 100), dtype=torch.uint8))
    assert refinement.steps == ("proposal" if two_stage else "start", "layer 1", "layer 2", "layer 3")
    assert refinement.start_xyxy.shape == (7, 4)
    assert refinement.boxes_xyxy.shape == (3, 7, 4)
    assert ((refinement.scores > 0) & (refinement.scores < 1)).all()  # sigmoids
    # A change of a box begins at none, so that an untrained decoder leaves each where it was.
    assert_close(refinement.boxes_xyxy[0], refinement.start_xyxy, rtol=0, atol=0.02)
    limits = torch.tensor([100.0, 50.0, 100.0, 50.0])
    assert ((refinement.boxes_xyxy >= 0) & (refinement.boxes_xyxy <= limits)).all()


@pytest.mark.parametrize("name", ["dn_detr_mini", "detr_mini", "sasa"])
def test_fused_it_answers_the_same_and_the_first_can_go_on_learning(name):
    torch.manual_seed(5)
    options = {"num_classes": 2, "frozen_norm": False}
    if name == "sasa":
        name, options = "dn_detr_mini", options | {"backbone": "sasa_resnet26", "strides": (32,)}
    model = build(configure(name, options))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    first = Detector(model, ("a", "b"), (1, 2), DetectionPreprocessing(64, 96, 3, (0.5,) * 3, (0.5,) * 3))
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    second = first.fused()
    image = torch.randint(0, 256, (3, 61, 89), dtype=torch.uint8)
    wanted, found = (one.box_refinement(image) for one in (first, second))
    assert_close(found.boxes_xyxy, wanted.boxes_xyxy, rtol=1e-3, atol=1e-2)
    assert_close(found.scores, wanted.scores, rtol=1e-3, atol=1e-4)
    assert norms == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) > 0
    assert not any(isinstance(module, nn.BatchNorm2d) for module in second.model.modules())
    assert any(isinstance(module, FusedConv) for module in second.model.modules())
    assert all(parameter.requires_grad for parameter in first.model.parameters())


@pytest.fixture
def as_users_have_it():
    """Without the tests' checks of types: what a user gets who gives a wrong one. The next test sets them anew."""
    jaxtyping.config.update("jaxtyping_disable", True)


def test_the_threshold():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    assert [len(detector().predict([image], threshold=t)[0]) for t in (0.0, 0.3, 0.9, 1.0)] == [4, 3, 2, 0]
    assert len(detector().predict([image])[0]) == 3
    with pytest.raises(RegardError, match=r"threshold is 1\.5"):
        detector().predict([image], threshold=1.5)


class Sigmoid(Fixed):
    """Each class has a score of its own."""

    scores = "sigmoid"


def of_sigmoids(logits: Tensor, boxes: Tensor) -> Detector:
    one = detector()
    return Detector(Sigmoid(logits, boxes), NAMES, IDS, one.preprocessing)


def test_with_a_score_for_each_class_a_query_may_name_two():
    logits = torch.tensor([[2.0, -1.0], [3.0, 1.0], [-4.0, -3.0]])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.2, 0.3, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]])
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    (found,) = of_sigmoids(logits, boxes).predict([image], threshold=0.2)
    assert found.names == ("ant", "ant", "bee", "bee")
    assert_close(found.scores, torch.tensor([3.0, 2.0, 1.0, -1.0]).sigmoid())
    corners = torch.tensor([[30.0, 25, 50, 35], [80, 30, 120, 70], [30, 25, 50, 35], [80, 30, 120, 70]])
    assert_close(found.boxes_xyxy, corners)
    lengths = [len(of_sigmoids(logits, boxes).predict([image], threshold=t)[0]) for t in (0.0, 0.5, 0.9, 1.0)]
    assert lengths == [6, 3, 1, 0]


@pytest.mark.parametrize("most", [None, 1, 100, 400])
def test_all_above_the_threshold_are_told_unless_fewer_are_asked_for(most, tmp_path):
    """With a score for each class the best of all pairs of query and class; with a softmax one for each query."""
    logits, boxes = torch.randn(161, 2), torch.rand(161, 4) * 0.5
    blank = torch.zeros(3, 40, 60, dtype=torch.uint8)
    found = of_sigmoids(logits, boxes).predict(blank, threshold=0.0, max_detections=most)
    assert_close(found.scores, logits.sigmoid().flatten().sort(descending=True).values[:most])
    best = logits.flatten().argsort(descending=True)[:most]
    assert torch.equal(found.labels, best % 2)
    plain = detector(torch.randn(113, 3), torch.rand(113, 4))
    assert len(plain.predict(blank, threshold=0.0, max_detections=most)) == min(most or 113, 113)
    file = tmp_path / "a.png"
    Image.new("RGB", (60, 40)).save(file)
    (same,) = plain.predict_files([file], threshold=0.0, max_detections=most)
    assert len(same) == min(most or 113, 113)


class Told(Sigmoid):
    """Finds all the objects, of one class, that lie on a lattice in the image; the others of its queries find less."""

    def __init__(self, boxes: Tensor) -> None:
        sure, unsure = torch.full((len(boxes), 2), -9.0), torch.full((50, 2), -9.0)
        sure[:, 0], unsure[:, 0] = 4.0, -4.0
        super().__init__(torch.cat([sure, unsure]), torch.cat([boxes, torch.rand(50, 4) * 0.1]))


class Lattice(DetectionSource):
    """Two images of 200 pixels, with the same objects of class 0."""

    def __init__(self, boxes_cxcywh: Tensor) -> None:
        corners, number = xyxy_of(boxes_cxcywh), len(boxes_cxcywh)
        self.objects = [
            Objects(corners * 200, torch.zeros(number).long(), torch.full((number,), 64.0), torch.zeros(number).bool())
        ] * 2
        self.image_ids, self.sizes = [31, 7], [(200, 200)] * 2

    def read(self, index: int) -> Tensor:
        return torch.zeros(3, 200, 200, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"lattice[{index}]"


def lattice(number: int) -> Tensor:
    """Boxes of 8 × 8 pixels that do not touch, (cx, cy, w, h) of 200."""
    places = torch.cartesian_prod(torch.arange(16), torch.arange(16))[:number] * 12 + 8.0
    return torch.cat([places, torch.full_like(places, 8.0)], 1) / 200


@pytest.mark.parametrize(("number", "counted"), [(30, 100), (100, 100), (101, 160), (200, 300)])
def test_an_image_of_many_objects_can_reach_one(number, counted):
    """As many detections count as the check advises queries for; COCO's hundred where no image holds more."""
    boxes = lattice(number)
    one = Detector(Told(boxes), NAMES, IDS, detector().preprocessing)
    evaluation = one.evaluate(Lattice(boxes))
    assert (evaluation.max_detections, evaluation.metrics()["ap"]) == (counted, pytest.approx(1.0))
    assert queries_for(200) == 300


@pytest.mark.parametrize(
    ("most", "recalls"), [(100, (0.5, 0.5)), (50, (0.25, 0.25)), (3, (0.015, 0.015)), (300, (1.0, 0.5))]
)
def test_how_many_detections_count(most, recalls):
    """Recall says how many of the 200 objects are among them."""
    boxes = lattice(200)
    one = Detector(Told(boxes), NAMES, IDS, detector().preprocessing)
    figures = one.evaluate(Lattice(boxes), max_detections=most).metrics()
    assert (figures["ar_small"], figures["ar100"]) == pytest.approx(recalls)
    assert figures["ar1"] == pytest.approx(1 / 200)
    assert figures["ar10"] == pytest.approx(min(most, 10) / 200)


@pytest.mark.parametrize("wrong", [0, -1, True, 2.5, "3"])
def test_a_number_of_detections_that_is_none(wrong, as_users_have_it):
    for call in (detector().predict, lambda *_, **given: detector().evaluate(Lattice(lattice(3)), **given)):
        with pytest.raises(RegardError, match=f"max_detections is {wrong!r}; it must be .*at least 1"):
            call(torch.zeros(3, 40, 60, dtype=torch.uint8), max_detections=wrong)


def test_crowds_are_no_objects_to_find():
    source = Lattice(lattice(200))
    whole = source.objects[0]
    source.objects = [Objects(whole.boxes_xyxy, whole.labels, whole.areas, torch.arange(200) > 40)] * 2
    assert counted_detections(source.objects) == 100


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_left_out_of_a_score_for_each_class(bad):
    """With a word."""
    logits = torch.tensor([[float("nan"), -1.0], [3.0, 1.0]])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.5, bad, 0.2, 0.4]])
    with pytest.warns(UserWarning, match="2 of 2 queries have a score or a box that is not finite, which is left out"):
        (found,) = of_sigmoids(logits, boxes).predict([torch.zeros(3, 40, 60, dtype=torch.uint8)], threshold=0.0)
    assert found.names == ("bee",)  # what the first query says of the other class


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_an_image_without_any_finite_prediction_is_no_empty_one(bad, sigmoid):
    logits = torch.tensor([[bad, 0, 0], [3.0, 0, 0]])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.5, bad, 0.2, 0.4]])
    one = detector(logits, boxes)
    if sigmoid:
        one = of_sigmoids(torch.tensor([[bad, bad], [3.0, 1.0]]).nan_to_num(float("nan"), posinf=float("nan")), boxes)
    one.source = "runs/a"
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    with pytest.raises(RegardError, match=r"runs/a: images\[0\]: the model answers with numbers that are not finite"):
        one.predict([image], threshold=0.0)


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.filterwarnings("error")
def test_the_loss_of_numbers_that_are_not_finite_is_nan(sigmoid):
    nothing = torch.full((4, 2 if sigmoid else 3), float("nan"))
    one = of_sigmoids(nothing, torch.rand(4, 4)) if sigmoid else detector(nothing)
    evaluation = one.evaluate(Lattice(lattice(5)))
    assert evaluation.not_finite == ("lattice[0]", "lattice[1]")
    assert math.isnan(evaluation.metrics()["loss"])
    assert math.isnan(DetectionEvaluation.joined([evaluation, evaluation]).metrics()["loss"])


def test_files_that_cannot_be_read(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (60, 40)).save(good)
    bad.write_bytes(b"no image")
    answers = list(detector().predict_files([bad, good, bad], batch_size=2))
    assert [isinstance(answer, BadImage) for answer in answers] == [True, False, True]
    assert answers[1].name == str(good)
    with pytest.raises(BadImage, match=r"bad\.png"):
        detector().predict([bad])
    with pytest.raises(RegardError, match="a tensor must be uint8"):
        detector().predict([torch.rand(3, 5, 7)])


def answer() -> Detections:
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    return detector().predict([image], threshold=0.3)[0]


def test_cocos_results():
    rows = answer().to_coco(image_id=5)
    assert [row["category_id"] for row in rows] == [44, 18, 18]
    assert rows[1]["bbox"] == pytest.approx([80, 30, 40, 40])
    assert rows[1]["image_id"] == 5
    assert rows[1]["score"] == pytest.approx(answer().scores[1].item())


def test_supervisions():
    found = answer().to_supervision()
    assert found.xyxy.shape == (3, 4)
    assert found.class_id.tolist() == [1, 0, 0]
    assert found.data["class_name"].tolist() == ["bee", "ant", "ant"]
    assert len(answer().above(0.99).to_supervision()) == 0


def test_without_supervision_it_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(RegardError, match=r"pip install 'regard\[supervision\]'"):
        answer().to_supervision()


def test_it_draws_itself(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (200, 100), "black").save(file)
    found = detector().predict([file], threshold=0.3)[0]
    picture = found.draw()
    assert picture.size == (400, 200)  # small ones are enlarged
    colours = {colour for _, colour in picture.getcolors(100_000)}
    assert len(colours) > 2
    assert found.above(1.0).draw().getcolors(2) == [(80_000, (0, 0, 0))]
    assert answer().draw(Image.new("RGB", (200, 100))).size == (400, 200)
    with pytest.raises(RegardError, match=r"an image of 50 × 40 pixels, the boxes are of one of 200 × 100"):
        answer().draw(torch.zeros(3, 40, 50, dtype=torch.uint8))
    with pytest.raises(RegardError, match=r"is no file; give the image"):
        replace(answer(), pixels=None).draw()


@pytest.mark.parametrize("channels", [1, 3])
def test_it_shows_itself_in_a_notebook(channels, tmp_path):
    """On a file, which is read again, and on an image in memory, which is kept; without either there is the text."""
    pixels = torch.randint(0, 256, (channels, 401, 203), dtype=torch.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy()).save(file)
    one = detector()
    if channels == 1:
        one = Detector(one.model, NAMES, IDS, DetectionPreprocessing(32, 64, 1, (0.5,), (0.5,)))
    shown = [one(image, threshold=0.3)._repr_png_() for image in (file, Image.open(file), pixels)]
    assert shown[0] == shown[1] == shown[2]
    picture = Image.open(io.BytesIO(shown[0]))
    assert (picture.format, picture.size) == ("PNG", (203, 401))
    assert one(file).pixels is None
    large = one(torch.zeros(channels, 1000, 3000, dtype=torch.uint8))
    assert large.draw().size == (3000, 1000)
    assert Image.open(io.BytesIO(large._repr_png_())).size == (1024, 341)
    found = one(pixels, threshold=0.3)
    assert found.above(0.9).pixels is found.pixels
    assert "pixels" not in repr(found)
    assert replace(found, pixels=None)._repr_png_() is None
    gone = one(file)
    file.write_bytes(b"no image")
    assert gone._repr_png_() is None
    file.unlink()
    assert gone._repr_png_() is None


def test_evaluation_matches_classes_by_name():
    scenes = open_detection("digit-scenes")
    with pytest.raises(RegardError, match=r"classes that the model does not know: 0, 1.*it knows: ant, bee"):
        detector().evaluate(scenes.val, class_names=scenes.class_names)


def test_metadata():
    config = {
        "model": {"config": {"num_classes": 2, "in_chans": 3}},
        "class_names": ["ant", "bee"],
        "category_ids": [18, 44],
    }
    config["preprocessing"] = detector().preprocessing.to_dict()
    model = detector().model
    assert Detector.from_metadata(model, config, "x").category_ids == IDS
    with pytest.raises(RegardError, match=r"x: category_ids must be 2 different whole numbers, got \[1\]"):
        Detector.from_metadata(model, {**config, "category_ids": [1]}, "x")

"""The report of detectors, and their comparison."""

import html as escaping
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regard.compare import SecondPart, all_candidates, compare, contender, write_report
from regard.compare.cost import measure_here
from regard.compare.detection import figure_text
from regard.compare.task_views import task_view_of
from regard.recipes import Recipe, load_recipe
from regard.tasks import FIGURES, DetectionEvaluation, Detections, Detector, create_task, operating_points
from regard.training import Run, load_predictor, train

SMALL = (
    *("model.embed_dim=32", "model.num_heads=4", "model.depth=1", "model.num_queries=7", "data.first=8"),
    *("data.shortest=64", "data.longest=64", "train.max_steps=2", "train.batch_size=4", "train.device=cpu"),
)
# Tested on what it is trained on: eight images, where the data hold out two hundred.
SAME = "data.validate_on=train"


def recipe(*settings: str) -> Recipe:
    return load_recipe("detr-digit-scenes", [*SMALL, *settings])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    train(recipe(SAME), folder)
    return folder


def written(run: Path, **options: object) -> str:
    path = run.parent / "report.html"
    write_report(path, title="Scenes", contenders=[contender("mine", [run], with_cost=False)], **options)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def boxes_run(tmp_path_factory) -> Path:
    """Of a detector whose queries are boxes, proposed anew in each image."""
    folder = tmp_path_factory.mktemp("boxes") / "run"
    settings = (*SMALL, SAME, "model.name=dn_detr_mini", "model.decoder_depth=2", "model.num_denoising=10")
    train(load_recipe("detr-digit-scenes", settings), folder)
    return folder


@pytest.fixture(scope="module")
def page(run) -> str:
    return written(run)


@pytest.fixture(scope="module")
def evaluation(run) -> DetectionEvaluation:
    return load_predictor(run).evaluate(create_task(Run.open(run).recipe()).val)


@pytest.fixture
def certain(monkeypatch) -> None:
    """Detectors that find what is there, but for the first object of each image, and one thing too many in the last."""

    def evaluate(detector: Detector, source, **_: object) -> DetectionEvaluation:
        found = []
        for index, (objects, size) in enumerate(zip(source.objects, source.sizes, strict=True)):
            strange = index == len(source) - 1
            extra = torch.tensor([[0.0, 0.0, 3.0, 5.0]])[: int(strange)]
            boxes = torch.cat([objects.boxes_xyxy[1:], extra])
            labels = torch.cat([objects.labels[1:], torch.zeros(len(extra)).long()])
            names, ids = detector.class_names, detector.category_ids
            found.append(
                Detections(source.name(index), size, boxes, labels, torch.full([len(boxes)], 0.875), names, ids)
            )
        ids = tuple(source.image_ids)
        return DetectionEvaluation(tuple(found), tuple(source.objects), ids, detector.class_names, 1.0)

    monkeypatch.setattr(Detector, "evaluate", evaluate)


def plain(html: str) -> str:
    html = re.sub(r"<(style|script|svg).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(escaping.unescape(re.sub(r"<[^>]*>", " ", html)).split())


def tables(html: str) -> list[list[list[str]]]:
    """The cells of the body of each table of figures."""
    bodies = re.findall(r'<table class="pairs">.*?<tbody>(.*?)</tbody>', html, re.DOTALL)
    rows = [[re.findall(r"<td>(.*?)</td>", row) for row in body.split("</tr>")[:-1]] for body in bodies]
    return [[[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in table] for table in rows]


def test_it_says_what_was_done_and_on_what(page):
    text = plain(page)
    for words in (
        "detr_mini, with the token mixer attention, was trained on 8 images of digit-scenes for at most 2 steps and "
        "10 minutes (whichever came first), and tested on the same images.",
        "Images 8, for training and for testing",
        "shorter side 64 pixels, longer side 64 at most",
        "AP is COCO’s",
        "On 8 training images.",
    ):
        assert words in text
    assert "training AP" in page  # the curve's
    assert "held" not in text
    assert "nats" not in page


def test_what_is_held_out_is_called_so():
    view = task_view_of(create_task(recipe()))
    facts = dict(view.facts())
    assert view.split == "held-out"
    assert re.fullmatch(r"8 for training, \d+ held out; the data set’s own split", facts["Images"])
    assert view.tested_on.endswith("images that it had not seen")


def test_the_figures_are_those_of_the_evaluation(page, evaluation):
    figures, classes, *_ = tables(page)
    metrics = evaluation.metrics()
    assert [(name, value) for name, _, value in figures] == [(name, figure_text(metrics[name])) for name in FIGURES]
    assert [value for name, _, value in figures if name == "ap_large"] == ["–"]  # no digit is so large
    expected = [
        [row.name, figure_text(row.ap), figure_text(row.ap50), str(row.images), str(row.objects)]
        for row in evaluation.per_class()
    ]
    assert classes == expected
    assert len(expected) == 10


def test_each_class_has_its_threshold_and_the_best_one(page, evaluation):
    (body,) = re.findall(r'<table class="pairs thresholds">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in body.split("</tr>")[:-1]]
    points = operating_points(evaluation)
    assert rows == [[point.name, *map(figure_text, list(vars(point).values())[1:])] for point in points]
    assert len(rows) == 10
    assert {row[1] for row in rows} == {"0.500"}


def test_a_figure_without_objects_is_a_dash():
    assert [figure_text(value) for value in (-1.0, 0.0, 0.41249, 1.0)] == ["–", "0.000", "0.412", "1.000"]


def test_a_model_that_is_sure_of_nothing_says_so(page, evaluation):
    highest = max(float(one.scores.max()) for one in evaluation.found)
    assert highest < 0.5  # after two steps
    assert f"The most confident detection in 8 training images has a score of {highest:.2f}" in plain(page)


def test_it_says_how_many_boxes_have_a_twin_and_what_was_chosen(run, page, tmp_path):
    assert "Of the boxes with a score of 0.3 or more, 0.0% have a twin" in plain(page)
    assert "Chosen:" not in page
    calibrated = tmp_path / "run"
    shutil.copytree(run, calibrated)
    metadata = json.loads((run / "metadata.json").read_text(encoding="utf-8"))
    names = metadata["class_names"]
    values = {"nms": 0.4, "thresholds": dict.fromkeys(names, 0.0), "threshold": 0.5, "pooled": names[:2], "images": 30}
    metadata["calibration"] = {**values, "objects": 99, "source": "measured"}
    del metadata["checksum"]
    (calibrated / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    text = plain(written(calibrated))
    found = load_predictor(calibrated).evaluate(create_task(Run.open(run).recipe()).val)
    figures = found.metrics()
    assert "0.0% have a twin: another box of their class at an IoU above 0.7. After suppression at IoU 0.4" in text
    assert f"without it AP and AP50 were {figures['ap_raw']:.3f} and {figures['ap50_raw']:.3f}." in text
    assert (
        "Chosen: suppression at IoU 0.4 and score 0.00 by class, measured on 30 images with 99 objects that were held "
        "out of training; 2 classes of fewer than 20 objects take 0.50."
    ) in text
    # What is drawn and counted is what the run reports: here of any score.
    assert "Detections with a score of 0 or more" in text
    drawn = [int(number) for number in re.findall(r"objects?, (\d+) detected", text)]
    assert sorted(drawn) == sorted(len(one) for one in found.found)
    assert "The most confident detection" not in text


def test_it_shows_images_queries_and_curves(page):
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="[^"]+"', page)) == 16
    assert "query 6" in page
    assert "query 7" not in page
    assert "detected as" in page
    assert "precision, at IoU 0.5" in page
    assert not re.findall(r'(?:src|href)="http', page)


def refinements(page: str) -> list[list[str]]:
    """The titles of the panels of each box refinement."""
    figures = re.findall(r'<figure class="strip">(.*?)</figure>', page, re.DOTALL)
    return [re.findall(r">(proposal|start|layer \d)<", figure) for figure in figures]


def test_box_refinement_is_shown_layer_by_layer(run, page, boxes_run):
    layers = load_predictor(run).model.decoder.layers
    assert refinements(page) == [[f"layer {number}" for number in range(1, len(layers) + 1)]] * 3
    assert "Where each layer of the decoder puts the boxes." in plain(page)
    assert "boxes of all other queries" not in plain(page)

    boxes_page = written(boxes_run)
    assert refinements(boxes_page) == [["proposal", "layer 1", "layer 2"]] * 3
    assert "The boxes that the encoder proposes" in plain(boxes_page)
    assert "Where each query puts its boxes" not in boxes_page  # they are chosen anew in each image
    # Images with several objects; none is confident, so the three with the highest scores are shown.
    captions = re.findall(r"train\[\d\]: (\d+) objects?, (\d+) queries shown", plain(boxes_page))
    assert len(captions) == 3
    assert all(int(objects) >= 4 and shown == "3" for objects, shown in captions)


def test_one_layer_without_a_start_shows_no_refinement(run, evaluation, monkeypatch):
    refine = Detector.box_refinement

    def last(detector: Detector, image):
        found = refine(detector, image)
        return replace(found, boxes_xyxy=found.boxes_xyxy[-1:], labels=found.labels[-1:], scores=found.scores[-1:])

    monkeypatch.setattr(Detector, "box_refinement", last)
    monkeypatch.setattr(Detector, "evaluate", lambda *_, **__: evaluation)
    section = task_view_of(create_task(Run.open(run).recipe())).section(contender("mine", [run], with_cost=False))
    assert (section.refinements, section.begins) == ([], "")


def test_a_page_with_a_second_part(run, boxes_run):
    second = SecondPart("Boxes", contender("other", [boxes_run], with_cost=False), "regard train <other>")
    path = boxes_run.parent / "page.html"
    write_report(path, title="x", contenders=[contender("mine", [run], with_cost=False)], second=second)
    page = path.read_text(encoding="utf-8")
    first, rest = page.split('id="second-part"')
    assert '<a href="#second-part">Boxes</a>' in first
    assert '<a href="run/report.html">' in rest
    assert [len(refinements(part)) for part in (first, rest)] == [3, 3]
    text = plain(rest)
    assert "dn_detr_mini, with the token mixer attention, was trained on 8 images of digit-scenes" in text
    assert "regard train <other>" in text
    assert "Precision-recall curves" in text
    ids = re.findall(r' id="([^"]*)"', re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    assert len(ids) == len(set(ids))


def test_the_worst_images_come_first_and_only_once(run, certain):
    page = written(run)
    text = plain(page)
    captions = re.findall(r"(train\[\d\]): (\d+) objects?, (\d+) detected, (\d+) errors?", text)
    assert [int(mistakes) for *_, mistakes in captions] == [2] + [1] * 7
    assert captions[0][0] == "train[7]"
    assert len({name for name, *_ in captions}) == 8
    for _, objects, found, mistakes in captions:  # one is missed in each, and in the last there is one too many
        assert int(objects) - int(found) == (0 if mistakes == "2" else 1)
    assert "The most confident detection" not in text
    assert "Other images" not in text  # each has a mistake


def test_many_classes_are_listed_by_their_confusions(run, certain, monkeypatch):
    assert len(tables(written(run))) == 2
    monkeypatch.setattr("regard.compare.detection.LARGEST_TABLE", 5)
    _, _, confusions = tables(written(run))
    assert sum(int(count) for *_, count in confusions) == 9
    assert sum(int(count) for truth, _, count in confusions if truth == "background") == 1
    assert [int(count) for *_, count in confusions] == sorted((int(count) for *_, count in confusions), reverse=True)


def test_what_cannot_be_read_is_in_no_picture(run, evaluation, monkeypatch):
    view = task_view_of(create_task(Run.open(run).recipe()))
    read = type(view.val).read

    def torn(source, index: int) -> torch.Tensor:
        assert index != 0
        return read(source, index)

    others = {name: getattr(evaluation, name)[1:] for name in ("found", "objects", "image_ids")}
    monkeypatch.setattr(Detector, "evaluate", lambda *_, **__: replace(evaluation, **others, skipped=("train[0]",)))
    monkeypatch.setattr(type(view.val), "read", torn)
    section = view.section(contender("mine", [run], with_cost=False))
    assert section.num_images == 7
    shown = [picture.short_name for picture in [*section.worst, *section.usual]]
    assert sorted(shown) == [f"train[{index}]" for index in range(1, 8)]
    assert "query 6" in section.queries


def test_a_batch_with_its_padding_is_measured(run, monkeypatch):
    monkeypatch.setattr("regard.compare.cost.REPETITIONS", 3)
    found = measure_here(run)
    assert found.batch_size == 4
    assert 0 < found.seconds_per_sample < 10
    assert found.peak_memory_mb >= 0


@pytest.mark.slow
def test_mixers_of_the_encoder_are_compared(tmp_path):
    contenders = compare(recipe(SAME, "train.max_steps=1"), ["attention", "performer"], 1, tmp_path / "out")
    assert [one.name for one in contenders] == ["attention", "performer"]
    for one in contenders:
        assert one.metric.words == "AP"
        assert one.metric.text(0.41249) == "0.412"
        assert one.cost is not None
        assert one.cost.seconds_per_sample > 0
        assert one.flops > 1e6
    write_report(tmp_path / "out" / "report.html", title="x", contenders=contenders)
    text = plain((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "detr_mini was trained with 2 token mixers in turn, each on 8 images of digit-scenes for at most" in text
    summary = json.loads(Path(contenders[0].runs[0] / "summary.json").read_text(encoding="utf-8"))
    assert contenders[0].scores == (summary["ap"],)


@pytest.mark.slow
def test_who_can_serve_a_detector():
    names, left_out = all_candidates(recipe())
    assert {"attention", "performer", "local"} <= set(names)
    assert {"fourier", "conv", "lstm", "mlp"} <= left_out.keys()
    assert "positions" in left_out["fourier"] or "mask" in left_out["fourier"]

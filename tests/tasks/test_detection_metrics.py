"""COCO's figures: equal to pycocotools' wherever both are defined; what is taken for what; shards that join."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from regard.data import Objects
from regard.errors import RegardError
from regard.tasks import FIGURES, DetectionEvaluation, Detections

NAMES = ("ant", "bee", "cat")


def objects(
    *rows: tuple[float, float, float, float, int], crowd: tuple[int, ...] = (), areas: object = None
) -> Objects:
    table = torch.tensor(np.array(rows), dtype=torch.float32).view(-1, 5)
    boxes = table[:, :4]
    own = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    marks = torch.tensor([index in crowd for index in range(len(rows))], dtype=torch.bool)
    return Objects(boxes, table[:, 4].long(), own if areas is None else areas, marks)


def found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    table = torch.tensor(np.array(rows), dtype=torch.float32).view(-1, 6)
    table = table[table[:, 5].argsort(descending=True)]
    return Detections("x", (500, 500), table[:, :4], table[:, 4].long(), table[:, 5], NAMES, (7, 8, 9))


def evaluation(pairs: list[tuple[Detections, Objects]], **changed: object) -> DetectionEvaluation:
    answers, truths = zip(*pairs, strict=True) if pairs else ((), ())
    values = {"image_ids": tuple(range(1, len(pairs) + 1)), "class_names": NAMES, "loss": 1.0, **changed}
    return DetectionEvaluation(tuple(answers), tuple(truths), **values)


def random_pairs(seed: int, images: int = 9) -> list[tuple[Detections, Objects]]:
    """Boxes of all sizes, found with some noise, some missed, some invented, some crowds."""
    draw = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        count = int(draw.integers(0, 7))
        starts, sizes = draw.uniform(0, 300, (count, 2)), np.exp(draw.uniform(1.5, 5.3, (count, 2)))
        labels = draw.integers(0, 3, count)
        truth = np.concatenate([starts, starts + sizes, labels[:, None]], 1)
        crowd = tuple(np.flatnonzero(draw.random(count) < 0.15).tolist())
        areas = torch.tensor(sizes.prod(1) * draw.uniform(0.4, 1.0, count), dtype=torch.float32)
        seen = np.concatenate([truth, draw.random((count, 1))], 1)[draw.random(count) < 0.8]
        seen[:, :4] += draw.normal(0, 6, seen[:, :4].shape)
        seen[:, 2:4] = np.maximum(seen[:, 2:4], seen[:, :2] + 1)
        seen[draw.random(len(seen)) < 0.2, 4] = draw.integers(0, 3)
        extra = draw.uniform(0, 300, (int(draw.integers(0, 4)), 2))
        more = np.concatenate(
            [extra, extra + 40, draw.integers(0, 3, (len(extra), 1)), draw.random((len(extra), 1))], 1
        )
        pairs.append((found(*np.concatenate([seen, more])), objects(*truth, crowd=crowd, areas=areas)))
    return pairs


def by_pycocotools(pairs: list[tuple[Detections, Objects]]) -> list[float]:
    annotations, results = [], []
    for image, (answer, truth) in enumerate(pairs, 1):
        rows = zip(
            truth.boxes_xyxy.tolist(), truth.labels.tolist(), truth.areas.tolist(), truth.crowd.tolist(), strict=True
        )
        for (left, top, right, bottom), label, area, crowd in rows:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label, "area": area}
                | {"bbox": [left, top, right - left, bottom - top], "iscrowd": int(crowd)}
            )
        results += [
            {**row, "category_id": label}
            for row, label in zip(answer.to_coco(image), answer.labels.tolist(), strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(1, len(pairs) + 1)],
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(NAMES)],
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist()


@pytest.mark.parametrize("seed", range(12))
def test_the_figures_equal_pycocotools(seed):
    pairs = random_pairs(seed)
    figures = evaluation(pairs).metrics()
    assert [figures[name] for name in FIGURES] == pytest.approx(by_pycocotools(pairs), abs=1e-9)


def test_shards_of_several_processes_join():
    pairs = random_pairs(3, 10)
    whole = evaluation(pairs, loss=2.0)
    joined = DetectionEvaluation.joined(
        [
            evaluation(pairs[:4], loss=3.5, skipped=("a",)),
            evaluation(pairs[4:], loss=1.0),
            evaluation([], loss=float("nan")),
        ]
    )
    assert joined.metrics() == pytest.approx(whole.metrics())
    assert joined.skipped == ("a",)


def test_a_perfect_detector():
    truth = objects((10, 10, 50, 60, 0), (100, 100, 300, 350, 2))
    perfect = evaluation([(found((10, 10, 50, 60, 0, 0.9), (100, 100, 300, 350, 2, 0.8)), truth)])
    figures = perfect.metrics()
    assert figures["ap"] == figures["ap50"] == figures["ar100"] == pytest.approx(1.0)
    assert figures["ap_small"] == -1.0  # there is no small object
    rows = {row.name: row for row in perfect.per_class()}
    assert (rows["ant"].ap, rows["bee"].ap, rows["cat"].ap50) == (pytest.approx(1.0), -1.0, pytest.approx(1.0))
    assert (rows["cat"].images, rows["cat"].objects, rows["bee"].objects) == (1, 1, 0)
    curves = perfect.precision_recall()
    assert set(curves.precision) == {"ant", "cat"}
    assert curves.precision["ant"] == pytest.approx(np.ones(101))
    assert perfect.confusion().tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert perfect.errors() == [0]


def test_nothing_found_and_nothing_there():
    truth = objects((10, 10, 50, 60, 0))
    blind = evaluation([(found(), truth)])
    assert blind.metrics()["ap"] == 0.0
    assert blind.confusion()[0].tolist() == [0, 0, 0, 1]
    empty = evaluation([(found((1, 1, 9, 9, 1, 0.7)), objects())])
    assert empty.metrics()["ap"] == -1.0
    assert empty.confusion()[3].tolist() == [0, 1, 0, 0]
    assert evaluation([(found(), objects())]).metrics()["ap"] == -1.0
    with pytest.raises(RegardError, match="no image that can be read"):
        evaluation([], skipped=("a: is broken",)).metrics()


def test_confusion_takes_the_most_certain_first_and_leaves_crowds_out():
    truth = objects((10, 10, 50, 50, 0), (200, 200, 240, 240, 1), (300, 300, 400, 400, 2), crowd=(2,))
    seen = found(
        (10, 10, 50, 50, 1, 0.9),  # right place, wrong class: taken for a bee
        (12, 12, 50, 50, 0, 0.8),  # too late
        (205, 205, 240, 240, 1, 0.3),  # below the threshold
        (450, 450, 480, 480, 2, 0.6),  # nothing there
    )
    one = evaluation([(seen, truth)])
    assert one.confusion().tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]]
    assert one.errors() == [4]
    assert one.confusion(threshold=0.2)[1].tolist() == [0, 1, 0, 0]

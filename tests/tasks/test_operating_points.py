"""Precision, recall and F1 of each class at its threshold, counted by hand."""

import pytest
import torch

from regard.data import Objects
from regard.explain import pr_figure
from regard.tasks import DetectionEvaluation, Detections, operating_points

SIZE = (100, 100)
A, B, C = (0.0, 0, 10, 10), (20.0, 20, 40, 40), (50.0, 50, 90, 90)


def found(*rows):
    boxes, labels, scores = zip(*rows, strict=True)
    columns = torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores)
    return Detections("a", SIZE, *columns, ("ant", "bee", "cat"), (0, 1, 2))


def true(*rows):
    boxes, labels, crowd = zip(*rows, strict=True)
    boxes = torch.tensor(boxes)
    return Objects(boxes, torch.tensor(labels), (boxes[:, 2:] - boxes[:, :2]).prod(1), torch.tensor(crowd))


@pytest.fixture
def evaluation():
    """Of the ants one is found at .9, one twice at .6 and .3, and there is one too many at .4; a bee is missed."""
    first = found((A, 0, 0.9), (C, 0, 0.4), (C, 2, 0.2))
    second = found((B, 0, 0.6), (B, 0, 0.3))
    objects = true((A, 0, False), (B, 1, False)), true((B, 0, False), (C, 0, True))
    return DetectionEvaluation((first, second), objects, (1, 2), ("ant", "bee", "cat"), 0.0, thresholds=(0.5, 0.4, 0.3))


def test_each_class_stands_at_its_threshold(evaluation):
    ant, bee, cat = operating_points(evaluation)
    assert (ant.name, ant.threshold, ant.precision, ant.recall, ant.f1) == ("ant", 0.5, 1, 1, 1)
    assert (ant.best_threshold, ant.best_f1) == (pytest.approx(0.6), 1)
    assert (bee.precision, bee.recall, bee.f1, bee.best_threshold) == (-1, 0, 0, 0.4)
    assert (cat.threshold, cat.precision, cat.recall, cat.f1) == (0.3, -1, -1, -1)  # not there, and not reported


def test_one_threshold_for_all_classes(evaluation):
    ant, _, cat = operating_points(evaluation, 0.1)
    assert ant.precision == pytest.approx(2 / 4)  # the box on C is wrong in the first image, and a twin is wrong
    assert (ant.recall, ant.f1) == (1, pytest.approx(4 / 6))
    assert ant.best_f1 == 1
    assert (cat.precision, cat.recall, cat.f1) == (0, -1, 0)


def test_a_dot_for_each_class_that_reports_something(evaluation):
    axes = pr_figure(evaluation.precision_recall(), operating_points(evaluation)).axes[0]
    assert [dots.get_offsets().tolist() for dots in axes.collections] == [[[1.0, 1.0]]]


def test_without_detections_nothing_is_measured():
    none = Detections("a", SIZE, torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0), ("ant",), (0,))
    one = DetectionEvaluation((none,), (true((A, 0, False)),), (1,), ("ant",), 0.0)
    (point,) = operating_points(one)
    assert (point.threshold, point.precision, point.recall, point.f1, point.best_threshold) == (0.5, -1, 0, 0, 0.5)

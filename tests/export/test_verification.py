"""What is compared between a run and its file, with numbers worked out by hand."""

import math
from collections import namedtuple

import pytest
import torch

from regard.export.verify import Report, add_figures, add_parity, of_classes, of_queries, paired_interval
from regard.tasks import Evaluation, MultiLabelEvaluation

Queries = namedtuple("Queries", "logits boxes_cxcywh")


def test_the_paired_interval_is_agresti_and_mins():
    # ½ more for each: (0.5 - 9.5) / 452 ± 1.96 · √(10 - 81 / 452) / 452
    low, high = paired_interval(0, 9, 450)
    assert low == pytest.approx(-0.033500, abs=1e-6)
    assert high == pytest.approx(-0.006323, abs=1e-6)
    assert paired_interval(9, 0, 450) == pytest.approx((-high, -low))
    assert paired_interval(0, 0, 450) == (0.0, 0.0)
    low, high = paired_interval(2, 2, 100)
    assert low == pytest.approx(-high)
    assert low < 0 < high


def evaluation(predicted, labels):
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()
    return Evaluation(logits, torch.tensor(labels), tuple(map(str, range(len(labels)))), ("a", "b", "c"))


def compared(predicted, max_drop, images=200):
    labels = [0] * images
    report = Report("f", "fp32", 1e-4, max_drop)
    add_figures(report, evaluation(labels, labels), evaluation(predicted + [0] * (images - len(predicted)), labels))
    return report


def test_the_same_answers_pass_without_a_word():
    report = compared([], 0.0)
    assert (report.passed, report.warnings, report.agreement) == (True, [], 1.0)
    assert (report.before, report.after, report.interval) == (1.0, 1.0, (0.0, 0.0))


def test_a_larger_drop_is_a_fault():
    report = compared([1, 2, 1, 1], 1.0)
    assert report.passed is False
    assert report.faults == ["accuracy falls by 2.00 points, from 100.00% to 98.00%; --max-drop allows 1"]
    assert report.agreement == pytest.approx(0.98)


def test_too_few_images_are_a_warning_with_a_number():
    report = compared([1], 1.0)
    assert report.passed is True
    (warning,) = report.warnings
    # The drop is ½ point, of 1 answer in 200, which is the least variance: 1.96² · 0.005 / (0.01 - 0.005)² = 768.3
    assert "200 images cannot exclude a drop of more than 1 points" in warning
    assert "about 769 images would" in warning


def test_numbers_that_are_not_finite_are_a_fault():
    labels = [0, 1]
    after = evaluation(labels, labels)
    after.logits.fill_(math.nan)
    report = Report("f", "fp32", 1e-4, 0.5)
    add_figures(report, evaluation(labels, labels), after)
    assert not report.passed
    report = Report("f", "fp32", 1e-4, 0.5)
    add_parity(report, lambda x: x, lambda x: x * math.nan, [torch.zeros(1, 3, 2, 2)], of_classes(False))
    assert not report.passed


def test_several_labels_are_compared_by_f1_and_all_labels_of_an_image():
    logits = torch.tensor([[9.0, -9.0], [9.0, 9.0], [-9.0, 9.0], [-9.0, -9.0]])
    labels = (logits > 0).long()
    names, classes = ("p", "q", "r", "s"), ("a", "b")
    before = MultiLabelEvaluation(logits, labels, names, classes, (), (0.5, 0.5))
    after = MultiLabelEvaluation(
        logits * torch.tensor([[1.0, -1.0]] + [[1.0, 1.0]] * 3), labels, names, classes, (), (0.5, 0.5)
    )
    report = Report("f", "fp32", 1e-4, 50.0)
    add_figures(report, before, after)
    assert report.metric == "f1"
    assert report.agreement == 0.75
    # Of class b one image of three is found wrongly: F1 = 2 · 2 / (2 · 2 + 1) = 0.8
    assert (report.before, report.after) == pytest.approx((1.0, 0.9))


def test_parity_is_of_probabilities():
    report = Report("f", "fp32", 1e-4, 0.5)
    logits = torch.tensor([[0.0, 0.0]])
    shifted = lambda x: logits + torch.tensor([[3.0, 3.0]])  # noqa: E731
    add_parity(report, lambda x: logits, shifted, [torch.zeros(1, 3, 2, 5)], of_classes(False))
    assert report.passed
    assert report.parity == [{"shape": [1, 3, 2, 5], "largest_difference": 0.0}]
    add_parity(report, lambda x: logits, shifted, [torch.zeros(1, 3, 2, 5)], of_classes(True))
    (fault,) = report.faults  # 1 / (1 + e⁻³) - ½
    assert fault == "1 images of noise, 2 × 5: an answer differs by 0.45, and fp32 may differ by 0.0001"


@pytest.mark.parametrize(("factor", "passed"), [(1.5, True), (math.nan, False), (math.inf, False)])
def test_where_a_figure_decides_a_difference_is_a_warning_if_it_is_a_number(factor, passed):
    report = Report("f", "bf16", 0.02, 0.5)
    logits = torch.tensor([[1.0, 0.0]])
    under_test = lambda x: logits * factor  # noqa: E731
    add_parity(report, lambda x: logits, under_test, [torch.zeros(1, 3, 2, 5)], of_classes(False), binding=False)
    assert report.passed is passed
    (said,) = report.warnings or report.faults
    assert said.startswith("1 images of noise, 2 × 5: an answer differs by ")


def test_queries_may_change_places():
    logits, boxes = torch.randn(1, 2, 20, 3), torch.rand(1, 2, 20, 4)
    order = torch.randperm(20)
    difference = of_queries(torch.sigmoid)
    assert difference(Queries(logits, boxes), Queries(logits[:, :, order], boxes[:, :, order])) == pytest.approx(
        0, abs=1e-6
    )
    moved = boxes.clone()
    moved[0, 1, 4, 2] += 0.3
    assert difference(Queries(logits, boxes), Queries(logits, moved)) > 0.05
    assert difference(Queries(logits, boxes), Queries(logits[:, :, :19], boxes[:, :, :19])) == math.inf

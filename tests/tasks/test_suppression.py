"""Suppression: what stays is what torchvision keeps and what the definition says; and how many boxes have a twin."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from regard.errors import RegardError
from regard.losses import iou
from regard.tasks import Detections
from regard.tasks.detection.suppression import overlap_of, suppressed, twins

NAMES = ("ant", "bee", "cow")


def found(boxes: Tensor, labels: list[int], scores: list[float]) -> Detections:
    order = torch.tensor(scores).argsort(descending=True, stable=True)
    return Detections(
        "a.png",
        (100, 100),
        boxes[order],
        torch.tensor(labels, dtype=torch.int64)[order],
        torch.tensor(scores)[order],
        NAMES,
        (1, 2, 3),
    )


def crowded(number: int, seed: int) -> Detections:
    """Boxes around a few objects, so that most of them overlap."""
    draw = torch.Generator().manual_seed(seed)
    places = (torch.rand(5, 4, generator=draw) * 40)[torch.randint(5, (number,), generator=draw)]
    corners = places + torch.randn(number, 4, generator=draw) * 3
    boxes = torch.cat([corners[:, :2].clamp(min=0), corners[:, :2].clamp(min=0) + corners[:, 2:].abs() + 8], 1)
    labels = torch.randint(3, (number,), generator=draw).tolist()
    return found(boxes, labels, torch.rand(number, generator=draw).tolist())


def by_definition(one: Detections, overlap: float) -> list[int]:
    """From the most certain on, each box without a box of its class before it that stays and covers it so far."""
    kept: list[int] = []
    for index in range(len(one)):
        rivals = [other for other in kept if one.labels[other] == one.labels[index]]
        if all(float(iou(one.boxes_xyxy[index], one.boxes_xyxy[other])) <= overlap for other in rivals):
            kept.append(index)
    return kept


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
def test_what_stays_is_torchvisions_and_the_definitions(overlap):
    one = crowded(150, seed=3)
    kept = suppressed(one, overlap)
    wanted = by_definition(one, overlap)
    assert 10 < len(wanted) < 140
    assert torch.equal(kept.boxes_xyxy, one.boxes_xyxy[wanted])
    theirs = batched_nms(one.boxes_xyxy, one.scores, one.labels, overlap)
    assert torch.equal(kept.boxes_xyxy, one.boxes_xyxy[theirs])
    for label in range(3):
        own = one.chosen(one.labels == label)
        assert torch.equal(kept.scores[kept.labels == label], own.scores[nms(own.boxes_xyxy, own.scores, overlap)])


@pytest.mark.parametrize("most", [1, 5, 12, 1000])
def test_the_most_certain_of_what_stays(most):
    """The same, however few are asked for: few are looked at first, and all where these leave too few."""
    one = crowded(300, seed=4)
    whole = suppressed(one, 0.5)
    assert len(whole) < 120  # of the first 120 of 300 less than 12 stay
    assert torch.equal(suppressed(one, 0.5, most).scores, whole.scores[:most])
    assert suppressed(one, 0.5, most).scores.tolist() == sorted(whole.scores.tolist(), reverse=True)[:most]


def test_equal_scores_keep_their_order():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 11], [20, 20, 30, 30]])
    kept = suppressed(found(boxes, [0, 0, 0, 1], [0.5] * 4), 0.5)
    assert torch.equal(kept.boxes_xyxy, boxes[[0, 1, 3]])


def test_nothing_and_boxes_without_an_area():
    empty = found(torch.zeros(0, 4), [], [])
    assert len(suppressed(empty, 0.5)) == len(suppressed(empty, 0.5, 7)) == 0
    assert twins(empty) == (0, 0)
    flat = found(torch.tensor([[3.0, 3, 3, 9]] * 2), [0, 0], [0.9, 0.8])
    assert len(suppressed(flat, 0.5)) == 2
    assert twins(flat) == (0, 2)


def test_twins():
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10], [50, 50, 60, 55]]
    )
    one = found(boxes, [0, 0, 1, 0, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.29, 0.5])
    assert twins(one) == (2, 5)  # the bee has none of its kind, the unsure ant does not count, 0.5 is too little
    assert twins(one, score=0.2) == (3, 6)
    assert twins(one, overlap=0.4) == (4, 5)
    assert twins(suppressed(one, 0.7)) == (0, 4)


@pytest.mark.parametrize("wrong", [0, 1, 0.0, 1.0, -0.5, 2, True, float("nan"), "on", "0.5", None, [0.5]])
def test_an_overlap_that_is_none(wrong):
    with pytest.raises(RegardError, match=r"^nms is .*; it must be off, or an IoU above 0 and below 1$"):
        overlap_of(wrong)
    assert (overlap_of("off"), overlap_of(0.25)) == (None, 0.25)
    with pytest.raises(RegardError, match="it must be auto, off, or an IoU"):
        overlap_of(wrong, auto=True)

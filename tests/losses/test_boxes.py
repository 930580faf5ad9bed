"""Boxes: the two ways to write them, and their overlaps, against torchvision's and by properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.ops import box_iou, generalized_box_iou

from regard.losses import cxcywh_of, generalized_iou, iou, xyxy_of

coordinate = st.floats(-3, 3, allow_nan=False, width=32)
any_box = st.lists(coordinate, min_size=4, max_size=4)


def boxes(count: int, seed: int = 0) -> torch.Tensor:
    start = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([start, start + torch.rand(count, 2, generator=torch.Generator().manual_seed(seed + 1))], 1)


def test_the_two_forms_are_one_another():
    assert_close(xyxy_of(torch.tensor([0.5, 0.4, 0.2, 0.6])), torch.tensor([0.4, 0.1, 0.6, 0.7]))
    some = boxes(13).view(1, 13, 4)
    assert_close(xyxy_of(cxcywh_of(some)), some)


def test_overlaps_equal_torchvisions():
    a, b = boxes(11), boxes(7, seed=5)
    assert_close(iou(a[:, None], b[None]), box_iou(a, b))
    assert_close(generalized_iou(a[:, None], b[None]), generalized_box_iou(a, b))


def test_known_values():
    square = torch.tensor([0.0, 0.0, 2.0, 2.0])
    assert generalized_iou(square, square).item() == 1.0
    beside = torch.tensor([4.0, 0.0, 6.0, 2.0])  # a hull of 12, of which 8 are covered
    assert_close(generalized_iou(square, beside), torch.tensor(-4 / 12))
    assert iou(square, beside).item() == 0.0


@settings(max_examples=200, deadline=None)
@given(any_box, any_box)
def test_generalised_iou_is_between_minus_one_and_one_with_finite_gradients(first, second):
    """Whatever the boxes are: inside out, without area, equal."""
    a, b = torch.tensor(first, requires_grad=True), torch.tensor(second, requires_grad=True)
    value = generalized_iou(a, b)
    assert -1 - 1e-5 <= value.item() <= 1 + 1e-5
    value.backward()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
    assert 0 <= iou(a, b).item() <= 1 + 1e-5
    assert_close(generalized_iou(b, a), value)


@pytest.mark.parametrize(
    "box", [[0.3, 0.3, 0.3, 0.3], [0.5, 0.2, 0.5, 0.9], [0.9, 0.9, 0.1, 0.1], [0, 0, 1e-30, 1e-30]]
)
def test_degenerate_boxes_overlap_nothing(box):
    assert iou(torch.tensor(box), torch.tensor([0.0, 0.0, 1.0, 1.0])).item() == 0

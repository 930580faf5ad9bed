"""What matching takes and what it does with numbers that are none: the right match, or one line."""

import math
import warnings

import jaxtyping
import pytest
import torch

from regard.errors import RegardError
from regard.losses import MatchingCosts, match, match_image
from regard.losses.matching import finite_predictions

LOGITS, BOXES = torch.zeros(1, 1, 4, 3), torch.full((1, 1, 4, 4), 0.5)
LABELS, TARGETS = [torch.tensor([1])], [torch.full((1, 4), 0.5)]


@pytest.fixture(autouse=True)
def _without_the_shape_checker() -> None:
    jaxtyping.config.update("jaxtyping_disable", True)


@pytest.mark.parametrize("bad", [1e7, 1e20, 1e38, math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_large_numbers_do_not_cancel(bad, dtype):
    """(1e20, -1e20, ...) has a sum of 0; such a box had areas that overflow, and could be matched."""
    logits, boxes = LOGITS.clone().to(dtype), BOXES.clone().to(dtype)
    boxes[0, 0, 0] = torch.tensor([bad, -bad, bad, -bad])
    logits[0, 0, 1] = torch.tensor([bad, -bad, 0.0])
    boxes[0, 0, 2] = boxes[0, 0, 3] = torch.tensor([0.5, 0.5, 0.4, 0.5])
    boxes[0, 0, 2, 0] = 0.7
    assert finite_predictions(logits, boxes)[0, 0].tolist() == [False, False, True, True]
    for focal in (False, True):
        with pytest.warns(UserWarning, match="2 of 4 predictions are not finite"):
            found = match(logits, boxes, LABELS, TARGETS, MatchingCosts(focal=focal))
        assert found.query.tolist() == [3]
        assert found.not_finite == 2


def test_what_is_not_finite_is_last_however_far_the_others_are():
    """Thirty objects, and boxes a million away: all that is finite is matched first."""
    boxes = torch.full((1, 1, 31, 4), 9e5)
    boxes[0, 0, 7] = math.nan
    with pytest.warns(UserWarning, match="not finite"):
        found = match(torch.zeros(1, 1, 31, 3), boxes, [torch.zeros(30, dtype=torch.int64)], [torch.rand(30, 4)])
    assert sorted(found.query.tolist()) == [query for query in range(31) if query != 7]


@pytest.mark.parametrize("bad", [1e7, -1e20, math.inf, math.nan])
def test_a_target_must_be_finite(bad):
    target = torch.tensor([[bad, 0.5, 0.5, 0.5]], dtype=torch.float64)
    with pytest.raises(RegardError, match=r"object 0 of image 0 has .* a box that is not finite, or beyond 1e\+06"):
        match(LOGITS, BOXES, LABELS, [target])
    with pytest.raises(RegardError, match="match_image takes finite numbers only"):
        match_image(LOGITS[0, 0], BOXES[0, 0], LABELS[0], target.float())


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_must_have_a_class(label):
    with pytest.raises(RegardError, match="a label that the model has no class for"):
        match(LOGITS, BOXES, [torch.tensor([label])], TARGETS)
    with pytest.raises(RegardError, match="labels must be from 0 to 2"):
        match_image(LOGITS[0, 0], BOXES[0, 0], torch.tensor([label]), TARGETS[0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"logits": LOGITS.long()}, "logits must be a dense tensor of float"),
        ({"boxes_cxcywh": BOXES.long()}, "boxes must be a dense tensor of float"),
        ({"boxes_cxcywh": BOXES.to("meta")}, "boxes are on meta, but must be on cpu"),
        ({"boxes_cxcywh": BOXES[:, :, :3]}, r"boxes must be .*\(1, 1, 4, 4\), got \(1, 1, 3, 4\)"),
        ({"logits": LOGITS[0]}, "logits must be .layers, batch, queries, classes"),
        ({"logits": LOGITS[..., :0]}, "at least one class"),
        ({"labels": [torch.tensor([1.0])]}, r"image 0: labels must be integers, \(objects,\), got float32 \(1,\)"),
        ({"labels": [torch.tensor([True])]}, "labels must be integers.* got bool"),
        ({"labels": [torch.tensor(1)]}, "labels must be integers"),
        ({"labels": []}, "predictions of 1 images, labels of 0, boxes of 1"),
        ({"target_boxes": [torch.ones(1, 4, dtype=torch.int64)]}, "image 0: target_boxes must be a dense tensor"),
        ({"target_boxes": [torch.ones(1, 1)]}, r"target_boxes must be \(objects, 4\) \(1, 4\), got \(1, 1\)"),
        ({"target_boxes": [torch.ones(2, 4)]}, "image 0 has 1 labels and 2 boxes"),
    ],
)
def test_what_does_not_fit_is_one_line(change, told):
    given = {"logits": LOGITS, "boxes_cxcywh": BOXES, "labels": LABELS, "target_boxes": TARGETS}
    with pytest.raises(RegardError, match=told) as caught:
        match(**given | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["label", "l1", "giou", "alpha", "gamma"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 101.0])
def test_weights_of_costs_are_bounded(name, value):
    with pytest.raises(RegardError, match=f"the cost's {name} must be from 0 to 100, got"):
        MatchingCosts(**{name: value})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("of_labels", [torch.int64, torch.int32, torch.uint8])
def test_any_floating_dtype_and_any_integer(dtype, of_labels):
    boxes = torch.rand(2, 3, 7, 4, generator=torch.Generator().manual_seed(0)).to(torch.float16).to(dtype)
    logits = torch.randn(2, 3, 7, 3, generator=torch.Generator().manual_seed(1)).to(torch.float16)
    labels = [
        torch.tensor([0, 2, 1], dtype=of_labels),
        torch.zeros(0, dtype=of_labels),
        torch.tensor([1], dtype=of_labels),
    ]
    targets = [
        torch.rand(len(of_image), 4, generator=torch.Generator().manual_seed(2)).to(dtype) for of_image in labels
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = match(logits.to(dtype), boxes, labels, targets)
    wanted = match(logits.float(), boxes.float(), [one.long() for one in labels], [one.float() for one in targets])
    assert found.query.equal(wanted.query)
    assert found.target.equal(wanted.target)
    nothing = match(logits, boxes, [labels[1]] * 3, [targets[1]] * 3)
    assert nothing.query.numel() == nothing.unmatched == 0

"""Hungarian matching: equal to transformers', cheapest by brute force, and safe with whatever it is given."""

import itertools
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from transformers.loss.loss_for_object_detection import HungarianMatcher

from regard.errors import RegardError
from regard.losses import MatchingCosts, cost_matrix, match, match_image

LAYERS, QUERIES, CLASSES = 3, 11, 7


def predictions(seed: int, *, layers: int = LAYERS, images: int = 2, queries: int = QUERIES) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(layers, images, queries, CLASSES, generator=draw)
    return logits, torch.rand(layers, images, queries, 4, generator=draw) * 0.5 + 0.2


def targets(counts: list[int], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(1000 + seed)
    labels = [torch.randint(0, CLASSES - 1, (count,), generator=draw) for count in counts]
    return labels, [torch.rand(count, 4, generator=draw) * 0.4 + 0.3 for count in counts]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 7), st.booleans())
def test_a_batch_is_matched_as_each_image_by_definition(seed, counts, queries, focal):
    """With more objects than queries, and none, too."""
    costs = MatchingCosts(label=1.5, l1=4.0, giou=3.0, focal=focal)
    logits, boxes = predictions(seed, images=len(counts), queries=queries)
    labels, target_boxes = targets(counts, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = match(logits, boxes, labels, target_boxes, costs)
    for layer, image in itertools.product(range(LAYERS), range(len(counts))):
        wanted = match_image(logits[layer, image], boxes[layer, image], labels[image], target_boxes[image], costs)
        assert len(wanted[0]) == min(counts[image], queries)
        assert_close(found.pairs(layer, image), wanted, rtol=0, atol=0)
    assert len(found.query) == LAYERS * sum(min(count, queries) for count in counts)


@pytest.mark.parametrize("counts", [[5, 2], [0, 3], [1, 11], [0, 0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_assignments_equal_transformers(counts, dtype):
    logits, boxes = (tensor.to(dtype) for tensor in predictions(sum(counts), images=len(counts)))
    labels, target_boxes = targets(counts)
    found = match(logits, boxes, labels, target_boxes)
    peer = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    theirs = [{"class_labels": a, "boxes": b} for a, b in zip(labels, target_boxes, strict=True)]
    for layer in range(LAYERS):
        outputs = {"logits": logits[layer].float(), "pred_boxes": boxes[layer].float()}
        for image, (queries, objects) in enumerate(peer(outputs, theirs)):
            ours = found.pairs(layer, image)
            assert_close(ours[0], queries)
            assert_close(ours[1], objects)


def test_focal_costs_are_deformable_detrs():
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher

    logits, boxes = predictions(3)
    labels, target_boxes = targets([4, 6])
    found = match(logits, boxes, labels, target_boxes, MatchingCosts(label=2.0, focal=True))
    peer = DeformableDetrHungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=2)
    theirs = [{"class_labels": a, "boxes": b} for a, b in zip(labels, target_boxes, strict=True)]
    for layer in range(LAYERS):
        for image, (queries, objects) in enumerate(peer({"logits": logits[layer], "pred_boxes": boxes[layer]}, theirs)):
            ours = found.pairs(layer, image)
            assert_close(ours[0], queries)
            assert_close(ours[1], objects)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(1, 5))
def test_the_cost_is_the_least_there_is(seed, count, queries):
    """Brute force over all ways to give objects to queries, also with more objects than queries."""
    logits, boxes = predictions(seed, layers=1, images=1, queries=queries)
    labels, target_boxes = targets([count], seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = match(logits, boxes, labels, target_boxes)
    cost = cost_matrix(logits, boxes, labels[0][None], target_boxes[0][None])[0, 0].double()  # (objects, queries)
    ours = cost[found.target, found.query].sum()
    number = min(count, queries)
    assert len(found.query) == len(set(found.query.tolist())) == len(set(found.target.tolist())) == number
    ways = (
        sum(cost[o, q] for o, q in zip(objects, chosen, strict=True))
        for objects in itertools.combinations(range(count), number)
        for chosen in itertools.permutations(range(queries), number)
    )
    assert_close(ours, torch.as_tensor(min(ways, default=0.0), dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert found.unmatched == max(count - queries, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(QUERIES)), st.permutations(range(5)))
def test_permuted_queries_and_objects_give_the_permuted_match(seed, queries, objects):
    logits, boxes = predictions(seed, images=1)
    labels, target_boxes = targets([5], seed)
    straight = match(logits, boxes, labels, target_boxes)
    moved = match(logits[:, :, queries], boxes[:, :, queries], [labels[0][objects]], [target_boxes[0][objects]])
    for layer in range(LAYERS):
        wanted = {(int(q), int(t)) for q, t in zip(*straight.pairs(layer, 0), strict=True)}
        found = {(queries[int(q)], objects[int(t)]) for q, t in zip(*moved.pairs(layer, 0), strict=True)}
        assert found == wanted


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e30])
@pytest.mark.parametrize("where", ["logits", "boxes"])
@pytest.mark.parametrize("focal", [False, True])
def test_what_is_not_finite_wins_no_match_over_what_is(bad, where, focal):
    logits, boxes = predictions(1)
    labels, target_boxes = targets([4, 3])
    broken = [0, 2, 5, 6, 7, 9, 10]  # four are left, as many as the first image has objects
    (logits if where == "logits" else boxes)[:, :, broken, 1] = bad
    with pytest.warns(UserWarning, match=f"{LAYERS * 2 * len(broken)} of {LAYERS * 2 * QUERIES} predictions are not"):
        found = match(logits, boxes, labels, target_boxes, MatchingCosts(focal=focal))
    assert not set(found.query.tolist()) & set(broken)
    assert len(found.query) == LAYERS * 7
    assert found.not_finite == LAYERS * 2 * len(broken)


def test_where_nothing_is_finite_there_is_a_match_all_the_same():
    logits, boxes = predictions(1)
    labels, target_boxes = targets([4, 3])
    with pytest.warns(UserWarning, match="not finite"):
        found = match(logits * float("nan"), boxes, labels, target_boxes)
    assert len(found.query) == LAYERS * 7


def test_half_precision_at_its_limits():
    logits, boxes = (tensor.half() for tensor in predictions(2))
    logits[:, :, ::2] = 60_000.0
    logits[:, :, 1::2, 0] = -60_000.0
    labels, target_boxes = targets([4, 3])
    assert match(logits, boxes, labels, target_boxes).not_finite == 0


def test_more_objects_than_queries_leaves_the_dearest_and_says_so():
    logits, boxes = predictions(4, images=2)
    labels, target_boxes = targets([QUERIES + 5, 2])
    with pytest.warns(UserWarning, match=f"5 objects have no query left; one image has {QUERIES + 5}"):
        found = match(logits, boxes, labels, target_boxes)
    assert found.unmatched == 5
    for layer in range(LAYERS):
        assert len(found.pairs(layer, 0)[0]) == QUERIES
        assert len(found.pairs(layer, 1)[0]) == 2


def test_boxes_without_extent_or_inside_out():
    logits, boxes = predictions(5)
    labels, target_boxes = targets([4, 3])
    target_boxes[0][:, 2:] = 0
    boxes[:, :, 3, 2:] = 0
    boxes[:, :, 4, 2:] = -0.3
    target_boxes[1][:] = target_boxes[1][0]  # three that are the same
    found = match(logits, boxes, labels, target_boxes)
    assert len(found.query) == LAYERS * 7


@pytest.mark.parametrize(
    ("labels", "boxes", "told"),
    [
        ([torch.zeros(1).long()], [torch.rand(1, 4)], "of 2 images, labels of 1"),
        ([torch.zeros(1).long(), torch.zeros(2).long()], [torch.rand(1, 4)] * 2, "image 1 has 2 labels and 1 boxes"),
        ([torch.zeros(1).long(), torch.tensor([CLASSES])], [torch.rand(1, 4)] * 2, "object 0 of image 1 has a label"),
        ([torch.zeros(1).long()] * 2, [torch.rand(1, 4), torch.full((1, 4), torch.nan)], "object 0 of image 1"),
    ],
)
def test_targets_that_do_not_belong(labels, boxes, told):
    with pytest.raises(RegardError, match=told):
        match(*predictions(0), labels, boxes)

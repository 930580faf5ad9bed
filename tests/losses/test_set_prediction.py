"""The set loss: equal to the original's, finite whatever is predicted, and divided by the boxes of all processes."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from regard.errors import RegardError
from regard.losses import MatchingCosts, SetPredictionLoss

GOLDEN = load_file(Path(__file__).parents[1] / "goldens" / "detr" / "golden.safetensors")
LABELS = [torch.tensor([3, 17, 44]), torch.tensor([1])]
BOXES = [
    torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.3, 0.1, 0.1], [0.7, 0.6, 0.4, 0.5]]),
    torch.tensor([[0.3, 0.3, 0.3, 0.2]]),
]
TERMS = ("loss_ce", "loss_bbox", "loss_giou")


def predictions(seed: int = 0, classes: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 2, 7, classes, generator=draw)
    return logits.requires_grad_(), torch.rand(3, 2, 7, 4, generator=draw).requires_grad_()


def objects(counts: tuple[int, ...], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(100 + seed)
    labels = [torch.randint(0, 5, (count,), generator=draw) for count in counts]
    return labels, [torch.rand(count, 4, generator=draw) for count in counts]


def test_the_last_layer_equals_the_originals():
    logits, boxes = GOLDEN["detr_resnet50.pred_logits"], GOLDEN["detr_resnet50.pred_boxes"]
    found = SetPredictionLoss(91)(logits[None], boxes[None], LABELS, BOXES)
    for name in TERMS:
        assert_close(found.named[name], GOLDEN[f"loss.{name}"].reshape(()), rtol=1e-5, atol=1e-6)
    for image in range(2):
        queries, targets = found.matches.pairs(0, image)
        assert_close(queries, GOLDEN[f"match.{image}.query"])
        assert_close(targets, GOLDEN[f"match.{image}.target"])
    weighted = sum(weight * found.named[name] for name, weight in zip(TERMS, (1, 5, 2), strict=True))
    assert_close(found.total, weighted)


def test_every_layer_is_in_the_total_and_named_as_in_the_original():
    found = SetPredictionLoss(5)(*predictions(), *objects((3, 2)))
    assert found.named.keys() == {name + end for name in TERMS for end in ("", "_0", "_1")}
    weighted = sum(
        w * found.named[name + e] for name, w in zip(TERMS, (1, 5, 2), strict=True) for e in ("", "_0", "_1")
    )
    assert_close(found.total, weighted)


def test_the_focal_form_equals_transformers():
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher, DeformableDetrImageLoss

    logits, boxes = predictions(classes=5)
    labels, target_boxes = objects((3, 2))
    found = SetPredictionLoss(5, costs=MatchingCosts(label=2.0, focal=True))(logits, boxes, labels, target_boxes)
    matcher = DeformableDetrHungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=2)
    peer = DeformableDetrImageLoss(matcher, 5, 0.25, ["labels", "boxes"])
    theirs = [{"class_labels": a, "boxes": b} for a, b in zip(labels, target_boxes, strict=True)]
    wanted = peer({"logits": logits[-1], "pred_boxes": boxes[-1]}, theirs)
    for name in TERMS:
        assert_close(found.named[name], wanted[name])


def loss_of(label_loss: str) -> tuple[SetPredictionLoss, int]:
    """And how many logits a query has: with a softmax one more, of "no object"."""
    focal = label_loss != "cross_entropy"
    return SetPredictionLoss(5, costs=MatchingCosts(focal=focal), label_loss=label_loss), 5 if focal else 6


def test_the_label_loss_is_that_of_the_costs_unless_it_is_named():
    assert SetPredictionLoss(5).label_loss == "cross_entropy"
    assert SetPredictionLoss(5, costs=MatchingCosts(focal=True)).label_loss == "focal"
    assert loss_of("varifocal")[0].label_loss == "varifocal"
    with pytest.raises(RegardError, match=r"label_loss.*'foca'.*did you mean 'focal'"):
        SetPredictionLoss(5, label_loss="foca")
    with pytest.raises(RegardError, match=r"label_loss is 'varifocal'; then costs\.focal must be True"):
        SetPredictionLoss(5, label_loss="varifocal")
    with pytest.raises(RegardError, match=r"'cross_entropy'; then costs\.focal must be False"):
        SetPredictionLoss(5, costs=MatchingCosts(focal=True), label_loss="cross_entropy")


@pytest.mark.parametrize("label_loss", ["varifocal", "matchability"])
def test_the_better_a_matched_box_fits_the_higher_its_score_should_be(label_loss):
    """One object and a query that says 0.5: with its box the score should rise, with a poor one fall."""
    target = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    for box, rises in ((target[0], True), (torch.tensor([0.62, 0.5, 0.2, 0.2]), False)):
        logits = torch.zeros(1, 1, 1, 5, requires_grad=True)
        found = loss_of(label_loss)[0](logits, box.view(1, 1, 1, 4), [torch.tensor([3])], [target])
        (gradient,) = torch.autograd.grad(found.named["loss_ce"], logits)
        assert (gradient[0, 0, 0, 3] < 0).item() == rises
        assert (gradient[0, 0, 0, [0, 1, 2, 4]] > 0).all()


def test_queries_that_do_not_count_have_no_part():
    logits, boxes = predictions(classes=5)
    targets = objects((3, 2))
    loss = loss_of("focal")[0]
    matches = loss(logits, boxes, *targets).matches
    counted = torch.ones(2, 7, dtype=torch.bool)
    assert_close(
        loss.for_matches(matches, logits, boxes, *targets, counted=counted).total, loss(logits, boxes, *targets).total
    )
    counted[1, 4] = False
    loss.for_matches(matches, logits, boxes, *targets, counted=counted).named["loss_ce"].backward()
    assert torch.equal(logits.grad.abs().sum((0, 3)) > 0, counted)
    halved = loss.for_matches(matches, logits, boxes, *targets, repeats=2)
    assert_close(2 * halved.total, loss(logits, boxes, *targets).total)


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (7, 7), (1, 0)])
@pytest.mark.parametrize("label_loss", ["cross_entropy", "focal", "varifocal", "matchability"])
def test_images_without_objects_and_full_ones(counts, label_loss):
    loss, classes = loss_of(label_loss)
    logits, boxes = predictions(classes=classes)
    found = loss(logits, boxes, *objects(counts))
    found.total.backward()
    assert found.total.isfinite()
    assert logits.grad.isfinite().all()
    assert boxes.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("label_loss", ["cross_entropy", "focal", "varifocal", "matchability"])
def test_predictions_that_are_not_finite_spoil_no_other(bad, dtype, label_loss):
    loss, classes = loss_of(label_loss)
    logits, boxes = (tensor.detach().to(dtype) for tensor in predictions(classes=classes))
    logits[1, 0, 3, 2] = bad
    boxes[2, 1, 4, 1] = bad
    logits[0, 1] = bad  # a whole image of one layer
    logits.requires_grad_()
    boxes.requires_grad_()
    with pytest.warns(UserWarning, match="not finite"):
        found = loss(logits, boxes, *objects((3, 2)))
    found.total.backward()
    assert found.total.isfinite()
    assert found.matches.not_finite == 9
    assert logits.grad.isfinite().all()
    assert boxes.grad.isfinite().all()
    assert logits.grad[0, 1].abs().sum() == 0
    assert logits.grad[1, 1].abs().sum() > 0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0, -0.2]), min_size=4, max_size=4), min_size=0, max_size=3),
    st.integers(0, 1000),
)
def test_gradients_are_finite_for_any_boxes(wanted, seed):
    logits, boxes = predictions(seed)
    boxes = boxes.detach().round(decimals=1).requires_grad_()  # so that edges meet
    targets = torch.tensor(wanted).view(-1, 4)
    labels = torch.zeros(len(targets), dtype=torch.int64)
    found = SetPredictionLoss(5)(logits, boxes, [labels, labels], [targets, targets])
    found.total.backward()
    assert logits.grad.isfinite().all()
    assert boxes.grad.isfinite().all()


def test_a_permutation_of_queries_or_objects_leaves_the_loss():
    logits, boxes = predictions()
    labels, target_boxes = objects((4, 3))
    loss = SetPredictionLoss(5)
    wanted = loss(logits, boxes, labels, target_boxes).total
    order, turned = torch.tensor([3, 0, 6, 1, 5, 2, 4]), [torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])]
    assert_close(loss(logits[:, :, order], boxes[:, :, order], labels, target_boxes).total, wanted)
    moved = [[one[o] for one, o in zip(all_, turned, strict=True)] for all_ in (labels, target_boxes)]
    assert_close(loss(logits, boxes, *moved).total, wanted)


def test_it_is_computed_in_float32_under_autocast():
    logits, boxes = predictions()
    wanted = SetPredictionLoss(5)(logits, boxes, *objects((4, 3))).total
    with torch.autocast("cpu", torch.bfloat16):
        found = SetPredictionLoss(5)(logits, boxes, *objects((4, 3))).total
    assert found.dtype == torch.float32
    assert_close(found, wanted)


def _process(rank: int, meeting: str, queue) -> None:
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    counts = ((4, 2), (0, 0))[rank]
    queue.put((rank, SetPredictionLoss(5)(*predictions(rank), *objects(counts)).named["loss_bbox"].item()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_the_number_of_boxes_is_the_mean_over_processes(tmp_path):
    meeting = (tmp_path / "meeting").as_uri()
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_process, args=(rank, meeting, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    alone = SetPredictionLoss(5)(*predictions(0), *objects((4, 2))).named["loss_bbox"].item()
    assert found[0] == pytest.approx(2 * alone)  # six boxes over two processes count as three
    assert found[1] == 0.0

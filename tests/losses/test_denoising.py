"""The loss of a DN-DETR: three set losses in one, and noised queries that are held to what they were made of."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from regard.errors import RegardError
from regard.losses import (
    SIGMOID_COSTS,
    DNDETRLoss,
    SetPredictionLoss,
    generalized_iou,
    iou,
    matchability_loss,
    varifocal_loss,
    xyxy_of,
)
from regard.models.box_decoder import Predictions
from regard.models.denoising_queries import DenoisingQueries, make_denoising_queries
from regard.models.dn_detr import DenoisingOutput, DNDETROutput

CLASSES = 5
WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
KINDS = ("focal", "varifocal", "matchability")


def answers(layers: int, queries: int, seed: int) -> Predictions:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, 2, queries, CLASSES, generator=draw)
    boxes = torch.rand(layers, 2, queries, 4, generator=draw) * 0.5 + 0.1
    return Predictions(logits.requires_grad_(), boxes.requires_grad_())


def objects(counts: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(100)
    labels = [torch.randint(0, CLASSES, (count,), generator=draw) for count in counts]
    return labels, [torch.rand(count, 4, generator=draw) * 0.5 + 0.1 for count in counts]


def output(counts: tuple[int, ...] = (3, 1), *, groups: int = 2, proposals: bool = True) -> DNDETROutput:
    noised = make_denoising_queries(*objects(counts), CLASSES, 2 * max(*counts, 1) * groups)
    denoised = None
    if noised is not None:
        denoised = DenoisingOutput(answers(3, noised.labels.shape[1], 2), noised)
    found = answers(3, 7, 0)
    return DNDETROutput(*found, answers(1, 13, 1) if proposals else None, found.boxes_cxcywh[0], denoised)


def test_the_names_and_the_weighted_sum():
    found = DNDETRLoss(CLASSES)(output(), *objects((3, 1)))
    ends = ("", "_0", "_1", "_enc", "_dn", "_dn_0", "_dn_1")
    assert found.named.keys() == {name + end for name in WEIGHTS for end in ends}
    assert_close(found.total, sum(weight * found.named[name + end] for name, weight in WEIGHTS.items() for end in ends))


@pytest.mark.parametrize("label_loss", KINDS)
def test_decoder_and_proposals_are_set_losses(label_loss):
    given, targets = output(), objects((3, 1))
    of_sets = SetPredictionLoss(CLASSES, costs=SIGMOID_COSTS, label_loss=label_loss)
    found = DNDETRLoss(CLASSES, label_loss=label_loss)(given, *targets)
    plain = DNDETRLoss(CLASSES, label_loss=label_loss)(given._replace(proposals=None, denoising=None), *targets)
    wanted = of_sets(given.logits, given.boxes_cxcywh, *targets)
    assert plain.named.keys() == wanted.named.keys()
    assert_close(plain.total, wanted.total)
    for name, value in of_sets(*given.proposals, *targets).named.items():
        assert_close(found.named[f"{name}_enc"], value)
    assert torch.equal(found.matches.query, wanted.matches.query)


def by_hand(
    given: Predictions, noised: DenoisingQueries, layer: int, counts: tuple[int, ...], groups: int
) -> dict[str, float]:
    """One query after the other: a positive is its object, whatever the others are; a negative is nothing."""
    labels, boxes = objects(counts)
    found = dict.fromkeys(WEIGHTS, 0.0)
    for image, count in enumerate(counts):
        for query in range(noised.labels.shape[1]):
            place = query % (2 * max(counts))
            target, positive = place % max(counts), place < max(counts)
            if target >= count:
                continue  # it fills up
            logits, box = given.logits[layer, image, query], given.boxes_cxcywh[layer, image, query]
            p = logits.sigmoid()
            for c in range(CLASSES):
                if positive and c == labels[image][target]:
                    found["loss_ce"] += (0.25 * (1 - p[c]) ** 2 * -p[c].log()).item()
                else:
                    found["loss_ce"] += (0.75 * p[c] ** 2 * -(1 - p[c]).log()).item()
            if positive:
                wanted = boxes[image][target]
                found["loss_bbox"] += (box - wanted).abs().sum().item()
                found["loss_giou"] += 1 - generalized_iou(xyxy_of(box), xyxy_of(wanted)).item()
    return {name: value / (sum(counts) * groups) for name, value in found.items()}


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("counts", [(3, 1), (2, 2), (0, 4)])
def test_the_targets_of_denoising_queries_are_their_objects(counts, groups):
    given = output(counts, groups=groups)
    found = DNDETRLoss(CLASSES, label_loss="focal")(given, *objects(counts)).named
    for layer, end in enumerate(("_dn_0", "_dn_1", "_dn")):
        wanted = by_hand(given.denoising.predictions, given.denoising.queries, layer, counts, groups)
        for name, value in wanted.items():
            assert found[name + end].item() == pytest.approx(value, rel=1e-4), name + end


@pytest.mark.parametrize("label_loss", KINDS)
def test_negatives_have_no_box_and_what_fills_up_has_no_part(label_loss):
    given, targets = output(), objects((3, 1))
    DNDETRLoss(CLASSES, label_loss=label_loss)(given, *targets).total.backward()
    noised = given.denoising.queries
    of_logits, of_boxes = (part.grad.abs().sum((0, 3)) for part in given.denoising.predictions)
    assert torch.equal(of_logits > 0, noised.real)
    assert torch.equal(of_boxes > 0, noised.real & noised.positive)


@pytest.mark.parametrize("label_loss", KINDS)
def test_more_groups_of_the_same_answers_count_no_more(label_loss):
    targets, given = objects((3, 1)), output(groups=1)
    said, noised = given.denoising
    twice = DenoisingQueries(
        noised.labels.repeat(1, 2),
        noised.boxes_cxcywh.repeat(1, 2, 1),
        noised.real.repeat(1, 2),
        torch.cat([noised.group, noised.group + 1]),
        noised.target.repeat(2),
        noised.positive.repeat(2),
    )
    more = given._replace(denoising=DenoisingOutput(Predictions(*(part.repeat(1, 1, 2, 1) for part in said)), twice))
    loss = DNDETRLoss(CLASSES, label_loss=label_loss)
    wanted = loss(given, *targets).named
    for name, value in loss(more, *targets).named.items():
        assert_close(value, wanted[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("label_loss", KINDS)
def test_images_without_objects(label_loss):
    given = output((0, 0))
    found = DNDETRLoss(CLASSES, label_loss=label_loss)(given, *objects((0, 0)))
    found.total.backward()
    assert found.named["loss_ce_dn"] == found.named["loss_bbox_dn"] == 0
    assert found.total.isfinite()
    for part in (given.logits, given.proposals.logits):
        assert part.grad.isfinite().all()
        assert (part.grad > 0).all()  # all scores should fall
    assert found.named["loss_bbox"] == found.named["loss_giou_enc"] == 0


@pytest.mark.parametrize("label_loss", KINDS)
def test_what_is_not_finite_spoils_no_other(label_loss):
    given = output()
    with torch.no_grad():
        given.denoising.predictions.logits[1, 0, 0, 2] = float("nan")
        given.denoising.predictions.boxes_cxcywh[2, 0, 1, 1] = float("inf")
    found = DNDETRLoss(CLASSES, label_loss=label_loss)(given, *objects((3, 1)))
    found.total.backward()
    assert found.total.isfinite()
    for part in given.denoising.predictions:
        assert part.grad.isfinite().all()
        assert part.grad[1, 0, 0].eq(0).all()
        assert part.grad[1, 0, 1].abs().sum() > 0


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    is_it = torch.rand(3, 7) < 0.4
    return torch.randn(3, 7) * 3, torch.rand(3, 7) * is_it, is_it


def test_varifocal_by_hand():
    """Zhang et al. 2021, eq. 2."""
    logits, quality, is_it = drawn()
    found = varifocal_loss(logits, quality, is_it)
    for x, q, it, value in zip(*(part.flatten().double() for part in (logits, quality, is_it, found)), strict=True):
        p = x.sigmoid()
        wanted = -q * (q * p.log() + (1 - q) * (1 - p).log()) if it else -0.75 * p**2 * (1 - p).log()
        assert value.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-6)


def test_matchability_by_hand():
    """DEIM, Huang et al. 2024, eq. 3, with an exponent of 1.5."""
    logits, quality, is_it = drawn()
    found = matchability_loss(logits, quality, is_it)
    for x, q, it, value in zip(*(part.flatten().double() for part in (logits, quality, is_it, found)), strict=True):
        p, wished = x.sigmoid(), q**1.5
        wanted = -wished * p.log() - (1 - wished) * (1 - p).log() if it else -(p**1.5) * (1 - p).log()
        assert value.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-6)


def test_a_match_of_low_quality_counts_in_the_matchability_loss():
    """A sure answer whose box hardly fits: the varifocal loss nearly leaves it out (DEIM, figure 4)."""
    given = (torch.tensor([4.0]), torch.tensor([0.05]), torch.tensor([True]))
    assert matchability_loss(*given) > 10 * varifocal_loss(*given)


def test_the_target_of_a_match_is_how_well_its_box_fits():
    """One query, one object: what is smallest is the score that is the box's IoU, to the power of 1.5 with one."""
    box, target = torch.tensor([0.5, 0.5, 0.4, 0.2]), torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    assert_close(iou(xyxy_of(box), xyxy_of(target[0])), torch.tensor(0.5))
    for label_loss, wanted in (("varifocal", 0.5), ("matchability", 0.5**1.5)):
        loss = SetPredictionLoss(1, costs=SIGMOID_COSTS, label_loss=label_loss)
        for score, sign in ((wanted - 0.01, -1), (wanted, 0), (wanted + 0.01, 1)):
            logits = torch.tensor(score).logit().view(1, 1, 1, 1).requires_grad_()
            boxes = box.view(1, 1, 1, 4).clone().requires_grad_()
            found = loss(logits, boxes, [torch.tensor([0])], [target]).named["loss_ce"]
            gradient, of_boxes = torch.autograd.grad(found, (logits, boxes), allow_unused=True)
            assert of_boxes is None  # the quality is a target and no path
            assert gradient.item() == pytest.approx(0, abs=1e-6) if sign == 0 else gradient.item() * sign > 1e-3


def test_weights_of_what_is_no_object_are_constants():
    """The modulating factor is not differentiated, as in the authors' code: the gradient is weight · (p - q)."""
    logits = torch.tensor([-2.0, 1.0], requires_grad=True)
    none, is_it = torch.zeros(2), torch.zeros(2, dtype=torch.bool)
    p = logits.detach().sigmoid()
    for loss, weight in ((varifocal_loss, 0.75 * p**2), (matchability_loss, p**1.5)):
        (gradient,) = torch.autograd.grad(loss(logits, none, is_it).sum(), logits)
        assert_close(gradient, weight * p)


def test_it_is_computed_in_float32_under_autocast():
    given, targets = output(), objects((3, 1))
    wanted = DNDETRLoss(CLASSES)(given, *targets).total
    with torch.autocast("cpu", torch.bfloat16):
        found = DNDETRLoss(CLASSES)(given, *targets).total
    assert found.dtype == torch.float32
    assert_close(found, wanted)


def test_an_unknown_loss():
    with pytest.raises(RegardError, match=r"'varyfocal'.*did you mean 'varifocal'"):
        DNDETRLoss(CLASSES, label_loss="varyfocal")


def test_extreme_logits_stay_finite():
    logits = torch.tensor([-200.0, 200.0, -200.0, 200.0], requires_grad=True)
    is_it = torch.tensor([True, True, False, False])
    for loss in (varifocal_loss, matchability_loss):
        found = loss(logits, torch.tensor([0.5, 0.5, 0.0, 0.0]), is_it)
        assert found.isfinite().all()
        assert torch.autograd.grad(found.sum(), logits)[0].isfinite().all()
        assert (found >= 0).all()

"""The detector for little data: each part by hand, no leaks from denoising queries, and what holds for DETR holds."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from regard import create_model
from regard.errors import RegardError
from regard.losses import DNDETRLoss
from regard.models import DNDETR, DNDETRConfig
from regard.models.box_decoder import EPSILON, BoxDecoderLayer, BoxDelta
from regard.models.denoising_queries import (
    LABEL_NOISE,
    DenoisingQueries,
    denoising_attention_mask,
    make_denoising_queries,
)
from regard.models.dn_detr import DNDETROutput, anchors
from regard.models.hybrid_encoder import Memory

SMALL = {
    "num_classes": 5,
    "backbone": "resnet18_narrow",
    "strides": (8, 16),
    "embed_dim": 32,
    "num_heads": 4,
    "depth": 1,
    "decoder_depth": 2,
    "mlp_ratio": 2.0,
    "num_queries": 7,
    "num_denoising": 12,
    "num_points": 2,
}
LABELS = [torch.tensor([2]), torch.tensor([0, 4])]
BOXES = [torch.tensor([[0.5, 0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.6, 0.1, 0.3], [0.7, 0.2, 0.2, 0.2]])]
NONE = (torch.zeros(0).long(), torch.zeros(0, 4))
# (box_queries, two_stage, num_denoising): queries that are no boxes have neither of the others.
PARTS = [*itertools.product([True], [True, False], [0, 12]), (False, False, 0)]


def small(**changed: object) -> DNDETR:
    torch.manual_seed(0)
    return DNDETR(DNDETRConfig(**{**SMALL, **changed})).eval()


def lively(**changed: object) -> DNDETR:
    """As after some training: changes of boxes, places and scores that are not those of the start."""
    model = small(**changed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone") and parameter.ndim > 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def real(height: int, width: int, *sizes: tuple[int, int]) -> Tensor:
    """A mask of images of these sizes, padded to height × width."""
    mask = torch.zeros(len(sizes), height, width, dtype=torch.bool)
    for one, (rows, columns) in zip(mask, sizes, strict=True):
        one[:rows, :columns] = True
    return mask


def maps(height: int, width: int, batch: int = 1) -> list[Tensor]:
    """What the backbone would give for images of so many pixels."""
    return [
        torch.randn(batch, chans, -(-height // stride), -(-width // stride)) for chans, stride in ((64, 8), (128, 16))
    ]


def every(output: DNDETROutput) -> dict[str, Tensor]:
    """What is said of the matched queries and of the tokens."""
    found = {"logits": output.logits, "boxes": output.boxes_cxcywh, "chosen": output.chosen_boxes}
    if output.proposals is not None:
        found |= {"proposed logits": output.proposals.logits, "proposed boxes": output.proposals.boxes_cxcywh}
    return found


# The whole model.


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
@pytest.mark.parametrize(("box_queries", "two_stage", "num_denoising"), PARTS)
def test_all_parts_learn(cross_attention, box_queries, two_stage, num_denoising):
    model = lively(
        box_queries=box_queries, two_stage=two_stage, num_denoising=num_denoising, cross_attention=cross_attention
    ).train()
    images, mask = torch.rand(2, 3, 67, 97), real(67, 97, (67, 61), (41, 97))
    found = model(images, mask, LABELS, BOXES)
    assert found.logits.shape == (2, 2, 7, 5)
    assert found.boxes_cxcywh.shape == (2, 2, 7, 4)
    assert found.chosen_boxes.shape == (2, 7, 4)
    assert (found.proposals is not None) == two_stage
    if two_stage:
        tokens = 9 * 13 + 5 * 7
        assert found.proposals.logits.shape == (1, 2, tokens, 5)
        assert found.proposals.boxes_cxcywh.shape == (1, 2, tokens, 4)
    assert (found.denoising is not None) == (num_denoising > 0)
    if num_denoising:
        assert found.denoising.predictions.logits.shape == (2, 2, 12, 5)
        assert found.denoising.predictions.boxes_cxcywh.shape == (2, 2, 12, 4)
    DNDETRLoss(5)(found, LABELS, BOXES).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.startswith("backbone"):  # timm's residual branches begin as zeros
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("strides", [(8, 16, 32), (16, 32, 64), (32, 64), (32,)])
def test_levels_that_the_backbone_lacks_are_made(strides):
    model = small(strides=strides, num_queries=3).train()
    found = model(torch.rand(2, 3, 67, 97), real(67, 97, (67, 61), (41, 97)), LABELS, BOXES)
    tokens = sum(-(-67 // stride) * -(-97 // stride) for stride in strides)
    assert found.proposals.logits.shape[2] == tokens
    DNDETRLoss(5)(found, LABELS, BOXES).total.backward()
    assert all(parameter.grad is not None for parameter in model.pyramid.parameters())


def test_a_backbone_that_rounds_halves_down():
    """ConvNeXt's maps of 76 × 108 pixels have 9 × 13 and 4 × 6 places, where others' have 10 × 14 and 5 × 7."""
    model = small(backbone="convnext_atto", frozen_norm=False, strides=(8, 16, 32, 64)).train()
    found = model(torch.rand(2, 3, 76, 108), real(76, 108, (76, 61), (41, 108)), LABELS, BOXES)
    assert found.proposals.logits.shape[2] == 9 * 13 + 4 * 6 + 2 * 3 + 1 * 2
    losses = DNDETRLoss(5)(found, LABELS, BOXES)
    losses.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_in_evaluation_there_are_no_denoising_queries():
    model, images = small(), torch.rand(2, 3, 64, 96)
    found = model(images, None, LABELS, BOXES)
    assert found.denoising is None
    assert torch.equal(model(images).logits, found.logits)
    assert model.train()(images).denoising is None


def test_a_mask_that_leaves_nothing_out_changes_nothing():
    model, images = lively(), torch.rand(2, 3, 67, 97)
    found, wanted = model(images, real(67, 97, (67, 97), (67, 97))), model(images)
    for name, value in every(found).items():
        assert_close(value, every(wanted)[name], msg=name)


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
@pytest.mark.parametrize("two_stage", [True, False])
def test_what_stands_in_padding_makes_no_difference_to_the_bit(cross_attention, two_stage):
    model = lively(strides=(8, 16, 32), cross_attention=cross_attention, two_stage=two_stage, backbone="resnet10t")
    sizes = torch.tensor([[61.0, 67.0], [97.0, 41.0]])
    shapes = [(9, 13), (5, 7), (3, 4)]
    features = [torch.randn(2, chans, *shape) for chans, shape in zip(model.backbone.level_chans, shapes, strict=True)]
    wanted = every(model.detect(features, sizes))
    for junk in (1e6, float("nan"), float("inf")):
        spoiled = []
        for one, stride in zip(features, model.pyramid.strides, strict=True):
            masks = torch.zeros(2, 1, *one.shape[2:], dtype=torch.bool)
            for image, (width, height) in enumerate(sizes.int().tolist()):
                masks[image, :, : -(-height // stride), : -(-width // stride)] = True
            assert not masks.all()
            spoiled.append(torch.where(masks, one, torch.full_like(one, junk)))
        found = every(model.detect(spoiled, sizes))
        for name, value in wanted.items():
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
@pytest.mark.parametrize("two_stage", [True, False])
def test_an_image_is_the_same_alone_and_padded(cross_attention, two_stage):
    """The backbone sees zeros where the padding is, so near its edge nothing is equal; the rest of the model is."""
    model = lively(cross_attention=cross_attention, two_stage=two_stage)
    features, size = maps(43, 77), torch.tensor([[77.0, 43.0]])
    padded = [F.pad(one, (0, 3 - level, 0, 2 - level)) for level, one in enumerate(features)]
    alone, found = model.detect(features, size, padded=False), model.detect(padded, size)
    assert padded[0].shape[2:] == (8, 13)
    assert_close(found.logits, alone.logits, rtol=1e-4, atol=1e-5)
    assert_close(found.boxes_cxcywh, alone.boxes_cxcywh, rtol=1e-4, atol=1e-5)
    assert_close(found.chosen_boxes, alone.chosen_boxes, rtol=1e-4, atol=1e-5)


def test_permuted_queries_give_permuted_outputs():
    model, images = lively(two_stage=False), torch.rand(2, 3, 67, 97)
    wanted = model(images)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    with torch.no_grad():
        for parameter in (model.queries.weight, model.query_boxes):
            parameter.copy_(parameter[order].clone())
    found = model(images)
    assert_close(found.logits, wanted.logits[:, :, order], rtol=1e-4, atol=1e-5)
    assert_close(found.boxes_cxcywh, wanted.boxes_cxcywh[:, :, order], rtol=1e-4, atol=1e-5)


# The two stages.


def test_the_best_tokens_are_chosen():
    model = lively()
    found = model(torch.rand(2, 3, 67, 97), real(67, 97, (67, 61), (41, 97)))
    logits, boxes = found.proposals.logits[0], found.proposals.boxes_cxcywh[0]
    for image in range(2):
        best = sorted(range(logits.shape[1]), key=lambda token: -logits[image, token].max().item())[:7]
        assert len(set(best)) == 7
        assert torch.equal(found.chosen_boxes[image], boxes[image, best])


def test_padding_is_chosen_only_where_nothing_else_is_left():
    model = lively(num_queries=23)
    with torch.no_grad():
        model.proposed_labels.bias.fill_(-50.0)  # all that is real scores badly
    features, sizes = maps(67, 97, 2), torch.tensor([[61.0, 67.0], [29.0, 17.0]])
    found = model.detect(features, sizes)
    is_real = torch.cat(
        [
            real(*shape, (-(-67 // stride), -(-61 // stride)), (-(-17 // stride), -(-29 // stride))).flatten(1)
            for shape, stride in (((9, 13), 8), ((5, 7), 16))
        ],
        dim=1,
    )
    assert torch.equal(found.proposals.logits[0].gt(-1e4).any(-1), is_real)
    counts = is_real.sum(1).tolist()
    assert counts == [72 + 20, 12 + 4]
    for image, count in enumerate(counts):
        boxes = found.proposals.boxes_cxcywh[0, image]
        places = [int((boxes == box).all(1).nonzero()[0]) for box in found.chosen_boxes[image]]
        assert sum(is_real[image, place].item() for place in places) == min(count, 23)
    assert found.logits.isfinite().all()


def test_fewer_tokens_than_queries():
    found = small(num_queries=100)(torch.rand(1, 3, 32, 48))
    assert found.logits.shape == (2, 1, 4 * 6 + 2 * 3, 5)


def test_anchors_by_hand():
    sizes = torch.tensor([[40.0, 20.0], [24.0, 16.0]])
    found = anchors([(2, 3), (1, 2)], [8, 16], sizes)
    assert found.shape == (2, 8, 4)
    for image, (width, height) in enumerate(sizes.tolist()):
        wanted = [
            [(column + 0.5) * stride / width, (row + 0.5) * stride / height, 4 * stride / width, 4 * stride / height]
            for rows, columns, stride in ((2, 3, 8), (1, 2, 16))
            for row in range(rows)
            for column in range(columns)
        ]
        sides = torch.tensor([1, 1, 0.9, 0.9])
        assert_close(found[image], torch.tensor(wanted).minimum(sides))


def test_no_anchor_is_as_large_as_its_image():
    """There a sigmoid is flat: what is proposed could hardly learn its size."""
    model = lively(strides=(16, 32)).train()
    with torch.no_grad():
        for head in (model.proposed_boxes, *model.decoder.box_heads):
            head.layers[-1].weight.zero_()
    proposed = model(torch.rand(1, 3, 64, 96)).proposals.boxes_cxcywh
    assert_close(proposed[..., 3], torch.full_like(proposed[..., 3], 0.9))  # 64 of 64 pixels, and 128
    assert_close(proposed[0, 0, :24, 2], torch.full((24,), 64 / 96))
    (gradient,) = torch.autograd.grad(proposed[..., 3].sum(), model.proposed_boxes.layers[-1].bias)
    assert gradient[3] > 0.05 * proposed.shape[2]


def test_what_the_encoder_says_begins_at_the_anchors():
    model = small()
    found = model(torch.rand(1, 3, 64, 96))
    wanted = anchors([(8, 12), (4, 6)], [8, 16], torch.tensor([[96.0, 64.0]])).clamp(EPSILON, 1 - EPSILON)
    assert_close(found.proposals.boxes_cxcywh[0], wanted, rtol=1e-5, atol=1e-6)
    assert_close(found.boxes_cxcywh[-1], found.chosen_boxes, rtol=1e-5, atol=1e-6)


def test_queries_do_not_teach_the_choice():
    """The loss of the decoder reaches the tokens through the memory alone, not through what was chosen."""
    model = lively()
    found = model(torch.rand(1, 3, 64, 96))
    (found.logits.sum() + found.boxes_cxcywh.sum()).backward()
    for part in (model.propose, model.proposed_labels, model.proposed_boxes):
        assert all(parameter.grad is None for parameter in part.parameters())
    assert model.pyramid.project[0][0].weight.grad.abs().sum() > 0


# Denoising.


@pytest.mark.parametrize(("asked", "groups"), [(1, 1), (4, 1), (11, 2), (12, 3), (100, 25)])
def test_groups_of_positives_and_negatives(asked, groups):
    denoising = make_denoising_queries(LABELS, BOXES, 5, asked)
    assert denoising.labels.shape == (2, groups * 4)
    assert denoising.boxes_cxcywh.shape == (2, groups * 4, 4)
    assert denoising.group.tolist() == [group for group in range(groups) for _ in range(4)]
    assert denoising.positive.tolist() == [True, True, False, False] * groups
    assert denoising.target.tolist() == [0, 1, 0, 1] * groups
    assert denoising.real.tolist() == [[True, False] * 2 * groups, [True] * 4 * groups]


@pytest.mark.parametrize(("asked", "groups"), [(1, 1), (5, 2), (12, 6)])
def test_without_negatives_all_are_to_be_put_right(asked, groups):
    denoising = make_denoising_queries(LABELS, BOXES, 5, asked, contrastive=False)
    assert denoising.labels.shape == (2, groups * 2)
    assert denoising.positive.all()
    assert denoising.group.tolist() == [group for group in range(groups) for _ in range(2)]
    assert denoising.target.tolist() == [0, 1] * groups
    assert denoising.real.tolist() == [[True, False] * groups, [True, True] * groups]
    model = small(num_denoising=asked, contrastive=False).train()
    output = model(torch.rand(2, 3, 64, 96), None, LABELS, BOXES)
    assert output.denoising.queries.positive.all()
    assert DNDETRLoss(5)(output, LABELS, BOXES).total.isfinite()


def test_positives_are_nearer_than_negatives():
    """Before the image's edge cuts them: corners are less than half a side away, or from there up to a whole one."""
    boxes = torch.tensor([[0.5, 0.45, 0.2, 0.1]])
    denoising = make_denoising_queries([torch.tensor([3])], [boxes], 5, 2000)
    found, half = denoising.boxes_cxcywh[0], boxes[0, 2:] / 2
    corners = torch.cat([found[:, :2] - found[:, 2:] / 2, found[:, :2] + found[:, 2:] / 2], dim=1)
    assert (found[:, 2:] >= 0).all()
    assert (corners >= -1e-6).all()
    # A negative's corners may change places, so that each end is compared with the nearer of the two.
    start, end = boxes[0, :2] - half, boxes[0, :2] + half
    kept = corners[denoising.positive]
    for moved, of_box in ((kept[:, :2], start), (kept[:, 2:], end)):
        share = (moved - of_box).abs() / half
        assert (share < 1 + 1e-5).all()
        assert share.max() > 0.95
        assert share.min() < 0.05
        assert_close((moved > of_box).float().mean(0), torch.full((2,), 0.5), rtol=0, atol=0.06)
    negative = corners[~denoising.positive]
    outward = negative[:, :2] < start - 1e-6
    share = ((start - negative[:, :2]) / half)[outward]
    assert (share > 1 - 1e-5).all()
    assert (share < 2 + 1e-5).all()
    assert share.max() > 1.9
    assert not torch.equal(found[0], found[2])


def test_boxes_with_noise_stay_in_the_image():
    boxes = torch.tensor([[0.05, 0.5, 0.1, 1.0], [0.9, 0.98, 0.2, 0.04]])
    found = make_denoising_queries([torch.tensor([0, 1])], [boxes], 5, 400).boxes_cxcywh
    assert (found[..., :2] - found[..., 2:] / 2 >= -1e-6).all()
    assert (found[..., :2] + found[..., 2:] / 2 <= 1 + 1e-6).all()


def test_a_share_of_the_labels_is_wrong():
    """A quarter is drawn anew, of which one in five is right by chance."""
    denoising = make_denoising_queries([torch.tensor([3])], [torch.tensor([[0.5, 0.5, 0.2, 0.2]])], 5, 4000)
    wrong = (denoising.labels != 3).float().mean().item()
    assert abs(wrong - LABEL_NOISE * 4 / 5) < 0.03
    assert set(denoising.labels.unique().tolist()) == set(range(5))


def test_without_objects_there_is_a_group_with_nothing_real():
    """So that a process whose images have no objects computes the same sums as the others."""
    denoising = make_denoising_queries([NONE[0]] * 3, [NONE[1]] * 3, 5, 12)
    assert denoising.real.tolist() == [[False, False]] * 3
    assert denoising.group.tolist() == [0, 0]
    assert make_denoising_queries([], [], 5, 12) is None


def test_none_are_asked_for():
    assert make_denoising_queries(LABELS, BOXES, 5, 0) is None


def test_who_may_see_whom():
    denoising = make_denoising_queries(LABELS, BOXES, 5, 8)  # two groups of 2 + 2, of which image 0 has every other
    found = denoising_attention_mask(denoising, 3)
    assert found.shape == (2, 1, 11, 11)
    for image, query, key in itertools.product(range(2), range(11), range(11)):
        if query < 3 or key < 3:
            wanted = query < 3 and key < 3
        else:
            same_group = (query - 3) // 4 == (key - 3) // 4
            wanted = same_group and (image == 1 or (key - 3) % 2 == 0)
        assert found[image, 0, query, key].item() == wanted, (image, query, key)


def start_and_memory(model: DNDETR, denoising: DenoisingQueries) -> tuple[Tensor, Tensor, Memory]:
    """What the decoder gets; contents and boxes of all queries can be asked for their gradients."""
    memory = model.pyramid(maps(67, 97, 2), torch.tensor([[61.0, 67.0], [97.0, 41.0]]))
    x, boxes, _ = model._chosen(memory, torch.tensor([[61.0, 67.0], [97.0, 41.0]]))
    x = torch.cat([x, model.label_embedding(denoising.labels)], dim=1).detach().requires_grad_()
    start = torch.cat([boxes, denoising.boxes_cxcywh], dim=1).detach().requires_grad_()
    return x, start, memory


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
def test_no_query_sees_what_it_must_not(cross_attention):
    """By gradients, of each group's predictions to each group's contents and boxes; -1 are the matched queries."""
    model = lively(cross_attention=cross_attention).train()
    denoising = make_denoising_queries(LABELS, BOXES, 5, 12)
    x, start, memory = start_and_memory(model, denoising)
    predictions = model.decoder(x, start, memory, attn_mask=denoising_attention_mask(denoising, 7))
    group = torch.cat([torch.full((7,), -1), denoising.group])
    for of_output in (-1, 0, 1, 2):
        chosen = (group == of_output)[:, None]
        total = ((predictions.logits * chosen).sin().sum() + (predictions.boxes_cxcywh * chosen).sin().sum()) * 1e3
        for gradient in torch.autograd.grad(total, (x, start), retain_graph=True):
            for of_input in (-1, 0, 1, 2):
                seen = gradient[1, group == of_input].abs().sum(1)
                if of_input == of_output:
                    assert (seen > 0).all()
                else:
                    assert (seen == 0).all()


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
def test_denoising_queries_see_the_others_of_their_group_but_no_padding(cross_attention):
    model = lively(cross_attention=cross_attention).train()
    denoising = make_denoising_queries(LABELS, BOXES, 5, 4)
    x, start, memory = start_and_memory(model, denoising)
    predictions = model.decoder(x, start, memory, attn_mask=denoising_attention_mask(denoising, 7))
    for image, filled in ((0, [1, 3]), (1, [])):
        (gradient,) = torch.autograd.grad(predictions.logits[-1, image, 7].sum(), x, retain_graph=True)
        seen = gradient[image].abs().sum(1)
        assert gradient[1 - image].eq(0).all()
        assert seen[:7].eq(0).all()
        for query in range(4):
            assert (seen[7 + query] > 0) == (query not in filled)


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
def test_the_whole_models_matched_predictions_have_no_gradient_to_the_ground_truth(cross_attention):
    model = lively(cross_attention=cross_attention).train()
    features, sizes = maps(67, 97, 2), torch.tensor([[61.0, 67.0], [97.0, 41.0]])
    denoising = make_denoising_queries(LABELS, BOXES, 5, 12)
    denoising.boxes_cxcywh.requires_grad_()
    found = model.detect(features, sizes, denoising=denoising)
    leaves = (model.label_embedding.weight, denoising.boxes_cxcywh)
    matched = sum(value.sin().sum() for value in every(found).values())
    # A path that the mask closes is still a path: its gradient is there, and is zero.
    for gradient in torch.autograd.grad(matched, leaves, retain_graph=True):
        assert gradient.eq(0).all()
    seen = found.denoising.predictions
    for gradient in torch.autograd.grad(seen.logits.sin().sum() + seen.boxes_cxcywh.sin().sum(), leaves):
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
def test_matched_predictions_are_the_same_with_and_without_denoising(cross_attention):
    model = lively(cross_attention=cross_attention).train()
    features, sizes = maps(67, 97, 2), torch.tensor([[61.0, 67.0], [97.0, 41.0]])
    wanted = every(model.detect(features, sizes))
    for asked in (4, 12):
        found = every(model.detect(features, sizes, denoising=make_denoising_queries(LABELS, BOXES, 5, asked)))
        for name, value in wanted.items():
            assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


# Refinement.


def test_the_change_of_a_box_by_hand():
    change = BoxDelta(8)
    x, boxes = torch.randn(3, 5, 8), torch.rand(3, 5, 4)
    boxes[0, 0] = torch.tensor([0.0, 1.0, -0.1, 1.3])
    assert_close(change(x, boxes), boxes.clamp(EPSILON, 1 - EPSILON))  # nothing at the start
    with torch.no_grad():
        change.layers[-1].weight.normal_()
        change.layers[-1].bias.copy_(torch.tensor([0.3, -0.2, 0.1, 2.0]))
    inner = x
    for layer in change.layers:
        inner = F.linear(inner if inner is x else inner.clamp(min=0), layer.weight, layer.bias)
    kept = boxes.clamp(EPSILON, 1 - EPSILON)
    assert_close(change(x, boxes), 1 / (1 + (1 - kept) / kept * (-inner).exp()), rtol=1e-5, atol=1e-6)


def layers_of(model: DNDETR) -> tuple[DNDETROutput, list[tuple[Tensor, Tensor]]]:
    """What the model says; and of each layer of the decoder, the boxes that it was given and what came of it."""
    kept: list[tuple[Tensor, Tensor]] = []
    for layer in model.decoder.layers:
        layer.register_forward_hook(lambda _, given, found: kept.append((given[2], found)))
    return model(torch.rand(1, 3, 64, 96)), kept


def test_each_layer_refines_the_boxes_of_the_one_before():
    model = lively(decoder_depth=3)
    found, kept = layers_of(model)
    before = found.chosen_boxes
    for (given, x), head, boxes in zip(kept, model.decoder.box_heads, found.boxes_cxcywh, strict=True):
        assert torch.equal(given, before)
        assert_close(boxes, head(x, before))
        assert not torch.allclose(boxes, before, atol=1e-3)
        before = boxes


def test_without_boxes_as_queries_each_layer_changes_the_first_box():
    model = lively(decoder_depth=3, box_queries=False, two_stage=False, num_denoising=0)
    found, kept = layers_of(model)
    first = model.query_boxes.sigmoid()[None]
    for (given, x), head, boxes in zip(kept, model.decoder.box_heads, found.boxes_cxcywh, strict=True):
        assert torch.equal(given, first)
        assert_close(boxes, head(x, first))
        assert not torch.allclose(boxes, first, atol=1e-3)


def test_a_gradient_goes_back_one_layer_of_boxes():
    """Look forward twice: the loss of layer 2's box reaches the heads of 2 and of 1, and not that of 0."""
    model = lively(decoder_depth=4, two_stage=False)
    found = model(torch.rand(1, 3, 64, 96))
    heads = [head.layers[-1].weight for head in model.decoder.box_heads]
    for layer in range(4):
        total = found.boxes_cxcywh[layer].sin().sum()
        gradients = torch.autograd.grad(total, heads, retain_graph=True, allow_unused=True)
        reached = [gradient is not None and gradient.abs().sum().item() > 0 for gradient in gradients]
        assert reached == [layer - 1 <= head <= layer for head in range(4)]
    (gradient,) = torch.autograd.grad(found.logits[2].sum(), heads[:1], allow_unused=True)
    assert gradient is None


# Batches of all kinds.


def learned(model: DNDETR, labels: list[Tensor], boxes: list[Tensor]) -> DNDETROutput:
    found = model.train()(torch.rand(len(labels), 3, 64, 96), None, labels, boxes)
    losses = DNDETRLoss(5)(found, labels, boxes)
    losses.total.backward()
    assert losses.total.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    return found


def test_images_without_objects():
    model = lively()
    found = learned(model, [NONE[0]] * 2, [NONE[1]] * 2)
    assert not found.denoising.queries.real.any()
    assert found.denoising.predictions.logits.isfinite().all()
    # Another process may wait for each of them.
    assert all(parameter.grad is not None for parameter in model.parameters())
    some = learned(lively(), [NONE[0], LABELS[1]], [NONE[1], BOXES[1]])
    assert some.denoising.queries.real.tolist() == [[False] * 12, [True] * 12]
    assert some.denoising.predictions.logits.isfinite().all()


def test_more_objects_than_queries():
    labels, boxes = [torch.randint(5, (11,)), LABELS[0]], [torch.rand(11, 4) * 0.5 + 0.2, BOXES[0]]
    with pytest.warns(UserWarning, match="4 objects have no query left; one image has 11, the model 7 queries"):
        found = learned(lively(), labels, boxes)
    assert found.denoising.queries.labels.shape == (2, 22)  # one group at the least


def test_bfloat16_is_close():
    """With learned queries: in bfloat16 the best tokens are others."""
    model, images = lively(two_stage=False), torch.rand(1, 3, 32, 48)
    wanted = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(images)
    assert found.boxes_cxcywh.dtype == torch.float32
    assert_close(found.boxes_cxcywh, wanted.boxes_cxcywh, rtol=0, atol=0.05)
    assert_close(found.logits.float(), wanted.logits, rtol=0.1, atol=0.2)


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
def test_bfloat16_learns(cross_attention):
    model = lively(cross_attention=cross_attention, num_denoising=4).train()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(torch.rand(2, 3, 32, 48), real(32, 48, (32, 31), (17, 48)), LABELS, BOXES)
        losses = DNDETRLoss(5)(found, LABELS, BOXES)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_checkpointing_gives_the_same():
    found = []
    for on in (False, True):
        model = lively().train()
        model.gradient_checkpointing = on
        assert model.gradient_checkpointing == model.pyramid.encoder.gradient_checkpointing == on
        torch.manual_seed(1)
        output = model(torch.rand(2, 3, 64, 96), None, LABELS, BOXES)
        total = DNDETRLoss(5)(output, LABELS, BOXES).total
        total.backward()
        found.append((total, [parameter.grad for parameter in model.parameters()]))
    assert_close(found[1][0], found[0][0])
    assert_close(found[1][1], found[0][1])


# What it costs.


def linear(tokens: int, *pairs: tuple[int, int]) -> int:
    return sum(2 * tokens * a * b for a, b in pairs)


@pytest.mark.parametrize("cross_attention", ["deformable", "dense"])
def test_flops_by_hand(cross_attention):
    """64 × 96 pixels are 8 × 12 tokens of 64 channels, 4 × 6 of 128, and 2 × 3 more that are made of these."""
    model = small(strides=(8, 16, 32), backbone="resnet18_narrow", decoder_depth=1, cross_attention=cross_attention)
    assert model.backbone.level_chans == (64, 128, 256)
    dim, fine, middle, coarse, queries, tokens = 32, 96, 24, 6, 7, 126
    square, conv = (dim, dim), (9 * dim, dim)
    pyramid = linear(fine, (64, dim)) + linear(middle, (128, dim)) + linear(coarse, (256, dim))
    pyramid += linear(coarse, *[square] * 4, (dim, 2 * dim), (2 * dim, dim)) + 4 * coarse**2 * dim
    pyramid += linear(middle, conv) + linear(fine, conv)  # fused on the way down
    pyramid += linear(middle, conv, conv) + linear(coarse, conv, conv)  # and up, after a stride
    proposals = linear(tokens, square, (dim, 5), square, square, (dim, 4))
    own = linear(queries, *[square] * 4, (dim, 2 * dim), (2 * dim, dim)) + 4 * queries**2 * dim
    if cross_attention == "dense":
        cross = linear(queries, square, square) + linear(tokens, square, square) + 4 * queries * tokens * dim
    else:
        places = 4 * 3 * 2  # heads, levels and points
        cross = linear(queries, (dim, 3 * places), square) + linear(tokens, square) + 2 * queries * places * 8 * 5
    heads = linear(queries, (dim, 5), square, square, (dim, 4), (2 * dim, dim), square)
    expected = pyramid + proposals + own + cross + heads
    assert model.flops(64, 96) - model.backbone.flops(64, 96) == expected


def test_flops_without_the_parts():
    plain = small(two_stage=False, box_queries=False, num_denoising=0)
    with_places = small(two_stage=False, num_denoising=0)
    with_proposals = small()
    assert with_places.flops(64, 96) - plain.flops(64, 96) == 2 * linear(7, (64, 32), (32, 32))
    proposals = linear(120, (32, 32), (32, 5), (32, 32), (32, 32), (32, 4))
    assert with_proposals.flops(64, 96) - with_places.flops(64, 96) == proposals


# What it refuses.


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"box_queries": False}, r"model\.box_queries is false; then model\.two_stage must be false"),
        ({"box_queries": False, "two_stage": False}, r"and model\.num_denoising 0"),
        ({"box_queries": False, "num_denoising": 0}, r"model\.two_stage must be false"),
        ({"strides": ()}, r"model\.strides is \(\)"),
        ({"strides": (8, 32)}, r"model\.strides is \(8, 32\); each must be twice the one before"),
        ({"strides": (16, 8)}, r"model\.strides is \(16, 8\)"),
        ({"strides": (64, 128)}, r"model\.strides: resnet18_narrow has no feature map of stride 64; it has 2, 4, 8"),
        ({"strides": (3, 6)}, r"model\.strides: resnet18_narrow has no feature map of stride 3"),
        ({"backbone": "sasa_resnet26"}, "sasa_resnet26 has one feature map, of stride 32: begin with it"),
        ({"backbone": "dinov2_vits14"}, "dinov2_vits14 has one feature map, of stride 14: begin with it"),
        ({"backbone": "resnet18_narow"}, "did you mean 'resnet18_narrow'"),
    ],
)
def test_what_cannot_serve_is_one_line(changed, told):
    with torch.device("meta"), pytest.raises(RegardError, match=told):
        small(**changed)


def test_an_unknown_cross_attention():
    with pytest.raises(
        RegardError, match=r"model\.cross_attention: input should be 'deformable' or 'dense', got 'deformed'"
    ):
        create_model("dn_detr_mini", cross_attention="deformed")
    with pytest.raises(RegardError, match=r"model\.cross_attention.*'deformed'.*did you mean 'deformable'"):
        BoxDecoderLayer(32, 4, cross_attention="deformed")


@pytest.mark.parametrize(("backbone", "strides"), [("sasa_resnet26", (32, 64)), ("dinov2_vits14", (14, 28))])
def test_backbones_of_one_map_begin_with_their_own_stride(backbone, strides):
    with torch.device("meta"):
        model = DNDETR(DNDETRConfig(**{**SMALL, "backbone": backbone, "strides": strides}))
    assert len(model.pyramid.project) == len(model.pyramid.extend) == 1
    assert model.flops(56, 84) > model.backbone.flops(56, 84)


@pytest.mark.parametrize("name", ["dn_detr_mini", "dn_detr_resnet50"])
def test_presets(name):
    with torch.device("meta"):
        model = create_model(name)
    assert isinstance(model, DNDETR)
    assert model.config.two_stage
    assert model.decoder.refine
    assert model.config.num_denoising > 0


def test_a_bad_mask_is_one_line():
    with pytest.raises(RegardError, match="image 1 of the batch has no real pixel"):
        small()(torch.rand(2, 3, 64, 96), real(64, 96, (64, 96), (0, 0)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_same_losses_and_gradients():
    images, mask = torch.rand(2, 3, 67, 97), real(67, 97, (67, 61), (41, 97))
    found = []
    for device in ("cpu", "cuda"):
        model = lively(two_stage=False, num_denoising=0).to(device).train()
        labels, boxes = ([one.to(device) for one in many] for many in (LABELS, BOXES))
        total = DNDETRLoss(5).to(device)(model(images.to(device), mask.to(device), labels, boxes), labels, boxes).total
        total.backward()
        found.append((total.item(), model.queries.weight.grad.cpu()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)
    assert_close(found[1][1], found[0][1], rtol=1e-2, atol=1e-3)

"""Sampling points of deformable attention: those of `locations()`, in pixels of the image, and as dots on it."""

import json

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.explain import sampling_points
from regard.explain.object_queries import explain_box
from regard.explain.point_overlay import outside
from regard.models import build, configure

SMALL = {"num_classes": 3, "embed_dim": 24, "num_heads": 3, "depth": 1, "decoder_depth": 2, "num_queries": 6}


def detector(**more):
    torch.manual_seed(0)
    changes = {**SMALL, "strides": (8, 16, 32), **more}
    model = build(configure("dn_detr_mini", changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sampling_offsets" in name or "attention_weights" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model():
    return detector()


@pytest.mark.parametrize("masked", [False, True])
def test_points_are_the_locations_of_the_layer_in_pixels(model, masked):
    """At 72 × 90 pixels no stride divides the image: maps reach beyond it."""
    images, mask = torch.randn(2, 3, 72, 90), torch.ones(2, 72, 90, dtype=torch.bool)
    mask[0, 50:], mask[0, :, 70:] = False, False
    kept = {}
    handles = [
        layer.cross.register_forward_pre_hook(
            lambda module, args, name=f"cross.{number}", **_: kept.update({name: (module, args)})
        )
        for number, layer in enumerate(model.decoder.layers)
    ]
    given = (images, mask) if masked else images
    found = sampling_points(model, given, queries=[4, 1], heads=[2, 0])
    for handle in handles:
        handle.remove()
    assert [one.name for one in found] == ["cross.0", "cross.1"]
    for one in found:
        module, (query, reference, _, shapes) = kept[one.name]
        assert shapes == ((9, 12), (5, 6), (3, 3))
        wanted = module.locations(query, reference, shapes)[:, [2, 0]][:, :, [4, 1]]
        for level, ((rows, columns), stride) in enumerate(zip(shapes, (8, 16, 32), strict=True)):
            size = torch.tensor([columns * stride, rows * stride])
            assert torch.equal(one.xy[:, :, :, level], wanted[:, :, :, level] * size)
        assert_close(one.weights.sum((3, 4)), torch.ones(2, 2, 2))
        weights = module.attention_weights(query).unflatten(-1, (3, 12)).softmax(-1)[:, [4, 1]][:, :, [2, 0]]
        assert_close(one.weights.flatten(3), weights.transpose(1, 2).detach())
        assert one.strides == (8, 16, 32)


def test_without_offsets_every_point_is_the_centre_of_the_querys_box(model):
    """In pixels of the image without its padding: a mistake in strides or extents would move them."""
    still = detector()
    for layer in still.decoder.layers:
        torch.nn.init.zeros_(layer.cross.sampling_offsets.weight)
        torch.nn.init.zeros_(layer.cross.sampling_offsets.bias)
    images, mask = torch.randn(2, 3, 72, 90), torch.ones(2, 72, 90, dtype=torch.bool)
    mask[0, 50:], mask[0, :, 70:] = False, False
    first, last = sampling_points(still, (images, mask), queries="all")
    with torch.no_grad():
        output = still(images, mask)
    size = torch.tensor([[70, 50], [90, 72]])[:, None]
    for points, boxes in ((first, output.chosen_boxes), (last, output.boxes_cxcywh[0])):
        centres = (boxes[..., :2] * size)[:, None, :, None, None]
        assert_close(points.xy, centres.expand_as(points.xy), rtol=1e-5, atol=1e-4)


def test_of_a_box_they_are_dots_with_the_box(model, tmp_path):
    image = torch.randn(3, 72, 90)
    seen = torch.randint(0, 255, (3, 72, 90), dtype=torch.uint8)
    found = explain_box(model, image, seen, class_names=("a", "b", "c"), box=2, layer="cross.0")
    assert (found.method, found.layer, found.query) == ("points", "cross.0", "query of box 2")
    with torch.no_grad():
        output = model(image[None])
    query = int(output.logits[-1, 0].amax(-1).argsort(descending=True)[2])
    (points,) = sampling_points(model, image[None], queries=[query], layers="cross.0")
    assert_close(found.points, points.of())
    assert found.points.shape == (3 * 3 * 4, 4)
    assert_close(found.points[:, 2].unflatten(0, (3, 12)).sum(1), torch.ones(3))
    assert found.points[:, 3].tolist() == [level for _ in range(3) for level in (0, 1, 2) for _ in range(4)]
    assert_close(found.points[:12, :2].unflatten(0, (3, 4)), points.xy[0, 0, 0])
    plain = json.loads(found.json())
    assert plain["points"] == pytest.approx(found.points.double().numpy())
    assert plain["strides"] == [8, 16, 32]
    (overlay,) = [axes for axes in found.figure.axes if axes.get_label() == "overlay"]
    (dots,) = overlay.collections
    order = found.points[:, 2].argsort(descending=True)
    assert_close(torch.tensor(dots.get_offsets().data), found.points[order, :2].double())
    areas = torch.tensor(dots.get_sizes())
    large = areas > areas.min()
    assert_close((areas / areas.max())[large], (found.points[order, 2] / found.points[:, 2].max()).double()[large])
    assert len({tuple(colour) for colour in dots.get_facecolors()}) == 3
    assert len(overlay.images) == 1  # the photograph, without a map over it
    assert len(overlay.patches) == 2  # the box, and its halo
    words = " ".join(text.get_text() for text in found.figure.texts)
    assert "map 2: 32 pixels a token" in words
    assert outside(found.points, 72, 90) in words
    found.save(tmp_path / "points.png")
    one_head = explain_box(model, image, seen, class_names=("a", "b", "c"), head=1)
    assert_close(one_head.points[:, 2].sum(), torch.tensor(1.0))
    as_rows = explain_box(model, image, seen, class_names=("a", "b", "c"), box=2, method="rows", layer="cross.0")
    assert as_rows.points is None
    assert torch.equal(as_rows.map, found.map)


def test_the_weight_that_lies_beyond_the_image():
    points = torch.tensor([[5.0, 5, 0.25, 0], [-1, 5, 0.25, 0], [9.9, 9.9, 0.25, 1], [5, 10, 0.25, 1]])
    assert outside(points, 10, 10) == "2 of 4 points, with 50% of the weight, lie beyond the image"
    assert outside(points[:1], 10, 10) == "all 1 points lie on the image"


def test_what_has_no_points(model):
    dense = detector(cross_attention="dense")
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(RegardError, match="points: a DNDETR has no deformable attention"):
        sampling_points(dense, images, queries=0)
    with pytest.raises(RegardError, match=r"points: decoder\.0 is no deformable attention; cross\.0 to cross\.1 are"):
        sampling_points(model, images, queries=0, layers="decoder.0")
    with pytest.raises(RegardError, match="query 6 is not there: there are 6"):
        sampling_points(model, images, queries=6)
    with pytest.raises(RegardError, match="head 3 is not there"):
        sampling_points(model, images, queries=0, heads=3)
    seen = torch.zeros(3, 64, 64, dtype=torch.uint8)
    with pytest.raises(RegardError, match=r"points: is not there for dense .*; a box has rows and relevance"):
        explain_box(dense, images[0], seen, class_names=("a",), method="points")

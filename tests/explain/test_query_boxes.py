"""Where each query puts its boxes over images: numbers, kinds and points."""

import json

import pytest
import torch
from tests_of_explain import pooled_detr
from torch.testing import assert_close

from regard.errors import RegardError
from regard.explain import QueryBoxes, query_boxes
from regard.models import build, configure


def test_all_boxes_of_the_last_layer_in_images_of_any_size():
    model = pooled_detr()
    images = [torch.randn(3, 20, 28), torch.randn(3, 24, 16), torch.randn(3, 20, 20)]
    found = query_boxes(model, iter(images))
    assert (found.boxes_cxcywh.shape, found.scores.shape) == ((6, 3, 4), (6, 3))
    with torch.no_grad():
        output = model(images[1][None])
    assert_close(found.boxes_cxcywh[:, 1], output.boxes_cxcywh[-1, 0])
    assert_close(found.scores[:, 1], output.logits[-1, 0].softmax(-1)[:, :-1].amax(-1))


def test_counts_and_the_queries_that_are_shown():
    boxes = torch.full((30, 4, 4), 0.5)
    boxes[:, 0, 2:] = 0.1
    boxes[:, 1, 2] = 0.1
    scores = torch.zeros(30, 4)
    scores[5:, :2] = 0.5
    found = QueryBoxes(boxes, scores)
    plain = json.loads(found.json())
    assert (plain["method"], plain["images"], len(plain["queries"])) == ("queries", 4, 30)
    first, later = plain["queries"][0], plain["queries"][7]
    counted = {"small": 1, "large_horizontal": 2, "large_vertical": 1}
    assert {name: first[name] for name in counted} == counted
    assert (first["query"], first["certain"], later["query"], later["certain"]) == (0, 0, 7, 2)
    assert first["centres"] == [[0.5, 0.5]] * 4
    assert [axes.get_title() for axes in found.figure.axes] == [f"query {number}" for number in range(5, 29)]
    assert found._repr_png_()[:4] == b"\x89PNG"


def test_what_has_no_such_queries():
    changes = {"num_classes": 3, "embed_dim": 24, "num_heads": 3, "decoder_depth": 1, "num_queries": 6}
    two_stage = build(configure("dn_detr_mini", changes)).eval()
    with pytest.raises(RegardError, match="queries: those of a two-stage DNDETR are proposals"):
        query_boxes(two_stage, [torch.randn(3, 64, 64)])
    learned = build(configure("dn_detr_mini", {**changes, "two_stage": False})).eval()
    assert query_boxes(learned, [torch.randn(3, 64, 64)]).boxes_cxcywh.shape == (6, 1, 4)
    with pytest.raises(RegardError, match="there is no image"):
        query_boxes(learned, [])
    classifier = build(configure("vit_pico_patch2_8", {"num_classes": 3})).eval()
    with pytest.raises(RegardError, match="queries: a ViT finds no boxes"):
        query_boxes(classifier, [torch.randn(1, 8, 8)])
    broken = pooled_detr()
    broken.label_head.bias.data.fill_(torch.nan)
    with pytest.raises(RegardError, match="not finite"):
        query_boxes(broken, [torch.randn(3, 20, 28)])

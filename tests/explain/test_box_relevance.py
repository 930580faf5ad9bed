"""Relevance of a box equals the paper's matrices, and makes none of tokens × tokens."""

import pytest
import torch
from tests_of_explain import Largest, pooled_detr, shaken
from torch.testing import assert_close

from regard.errors import RegardError
from regard.explain.box_relevance import box_relevance
from regard.explain.object_queries import explain_box
from regard.layers import Grid, MultiHeadAttention
from regard.models import build, configure


def explicit(model, images, query, label):
    """Ā of each layer by name, from A as a matrix that the score is differentiated by."""
    kept, undo = {}, []

    def replaced(name, module):
        def of_cross(q, k, v, *, attn_mask=None, key_mask=None):
            matrix = kept[name] = module.weights(q, k, attn_mask=attn_mask, key_mask=key_mask)
            values = module.v(v).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
            return module.proj((matrix @ values).transpose(1, 2).flatten(2))

        def of_mixer(x, *, grid=None, mask=None, positions=None):
            matrix = kept[name] = module.mixing_matrix(x, grid=grid, mask=mask, positions=positions)
            return module.out(matrix @ module.value(x))

        return of_cross if isinstance(module, MultiHeadAttention) else of_mixer

    parts = {"encoder": [layer.mixer for layer in model.encoder.layers]} if hasattr(model, "encoder") else {}
    parts["decoder"] = [getattr(layer, "mixer", None) or layer.attention for layer in model.decoder.layers]
    parts["cross"] = [layer.cross for layer in model.decoder.layers]
    for group, modules in parts.items():
        for number, module in enumerate(modules):
            undo.append((module, module.forward))
            module.forward = replaced((group, number), module)
    try:
        score = model(images).logits[-1, :, query, label].sum()
        gradients = torch.autograd.grad(score, list(kept.values()))
    finally:
        for module, real in undo:
            module.forward = real
    means = {
        name: (matrix * gradient).clamp(min=0).mean(1).detach()
        for (name, matrix), gradient in zip(kept.items(), gradients, strict=True)
    }
    return {group: [means[group, number] for number in range(len(modules))] for group, modules in parts.items()}


def normalised(r):
    """Eq. 8 and 9."""
    eye = torch.eye(len(r), dtype=r.dtype)
    beyond = r - eye
    sums = beyond.sum(-1, keepdim=True)
    return torch.where(sums > 0, beyond / sums, 0) + eye


def by_definition(found, query, tokens):
    """Eq. 6 to 10 as in the authors' code, for one image."""
    queries = found["decoder"][0].shape[-1]
    r_ii, r_qq = (torch.eye(count, dtype=torch.float64) for count in (tokens, queries))
    r_qi = torch.zeros(queries, tokens, dtype=torch.float64)
    for a in found.get("encoder", ()):
        r_ii = r_ii + a @ r_ii
    for own, cross in zip(found["decoder"], found["cross"], strict=True):
        r_qq, r_qi = r_qq + own @ r_qq, r_qi + own @ r_qi
        r_qi = r_qi + normalised(r_qq).T @ cross @ normalised(r_ii)
    return r_qi[query]


@pytest.mark.parametrize("more", [{}, {"norm": "pre"}, {"mixer": ("local", "performer")}])
def test_it_is_that_of_the_definition(more):
    model, images = shaken(pooled_detr(**more)), torch.randn(2, 3, 20, 28, dtype=torch.float64)
    query, label = 4, 1
    found = box_relevance(model, images, query, label)
    assert (found.grid, found.through_encoder) == (Grid(5, 7), True)
    matrices = explicit(model, images, query, label)
    for image in range(2):
        of_image = {group: [one[image] for one in every] for group, every in matrices.items()}
        assert all(sum(one.max() for one in every) > 1e-3 for every in of_image.values())
        wanted = by_definition(of_image, query, 35)
        assert_close(found.tokens[image], wanted, rtol=1e-10, atol=1e-10 * wanted.max().item())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_in_one_layer_the_other_queries_have_no_gradient():
    """Their rows of R_qq are those of I, where the authors' code divides by zero."""
    model, images = shaken(pooled_detr(decoder_depth=1)), torch.randn(1, 3, 20, 28, dtype=torch.float64)
    found = box_relevance(model, images, 2, 0).tokens[0]
    matrices = {group: [one[0] for one in every] for group, every in explicit(model, images, 2, 0).items()}
    assert (matrices["decoder"][0].sum(1) > 0).tolist() == [False, False, True, False, False, False]
    assert_close(found, by_definition(matrices, 2, 35), rtol=1e-10, atol=1e-14)


def test_a_hybrid_encoder_is_not_followed():
    changes = {"num_classes": 3, "embed_dim": 24, "num_heads": 3, "depth": 1, "decoder_depth": 2, "num_queries": 6}
    torch.manual_seed(0)
    model = build(configure("dn_detr_mini", {**changes, "cross_attention": "dense", "strides": (16, 32)})).eval()
    model, images = model.double(), torch.randn(1, 3, 64, 96, dtype=torch.float64)
    found = box_relevance(model, images, 3, 2)
    assert (found.grid, found.shapes, found.through_encoder) == (None, ((4, 6), (2, 3)), False)
    matrices = {group: [one[0] for one in every] for group, every in explicit(model, images, 3, 2).items()}
    wanted = by_definition(matrices, 3, 30)
    assert wanted.max() > 0
    assert_close(found.tokens[0], wanted, rtol=1e-10, atol=1e-10 * wanted.max().item())
    shown = explain_box(
        model.float(), images[0].float(), torch.zeros(3, 64, 96).byte(), class_names=("a",) * 3, method="relevance"
    )
    assert shown.map.shape == (4, 6)
    assert shown.layer == "all layers of the decoder"


def test_no_tensor_of_tokens_times_tokens_is_made():
    model, images = pooled_detr(), torch.randn(1, 3, 128, 128)
    with Largest() as largest:
        box_relevance(model, images, 0, 0)
    assert largest.numel < 1024**2


def test_a_box_is_explained_by_it(tmp_path):
    model, image = shaken(pooled_detr()).float(), torch.randn(3, 20, 28)
    seen = torch.zeros(3, 20, 28, dtype=torch.uint8)
    found = explain_box(model, image, seen, class_names=("a", "b", "c"), box=1, method="relevance")
    with torch.no_grad():
        best, labels = model(image[None]).logits[-1, 0].softmax(-1)[:, :-1].max(-1)
    query = int(best.argsort(descending=True)[1])
    wanted = box_relevance(model, image[None], query, int(labels[query])).tokens[0]
    assert_close(found.map, wanted.unflatten(0, (5, 7)))
    assert (found.method, found.layer, found.query) == ("relevance", "all", "query of box 1")
    assert found.target == f"{'abc'[labels[query]]} ({best[query]:.2f})"
    assert found.box_xyxy is not None
    found.save(tmp_path / "box.png")
    for more in ({"layer": 1}, {"head": 0}):
        with pytest.raises(RegardError, match=f"relevance: takes no {next(iter(more))}"):
            explain_box(model, image, seen, class_names=("a",), method="relevance", **more)


def test_what_has_no_relevance():
    images = torch.randn(1, 3, 64, 64)
    changes = {"num_classes": 3, "embed_dim": 24, "num_heads": 3, "decoder_depth": 1, "num_queries": 6}
    deformable = build(configure("dn_detr_mini", changes)).eval()
    with pytest.raises(RegardError, match=r"relevance: is defined for dense .* there are points and rows"):
        box_relevance(deformable, images, 0, 0)
    with pytest.raises(RegardError, match=r"relevance: is not there for deformable .*; a box has points and rows"):
        explain_box(deformable, images[0], images[0].byte(), class_names=("a",), method="relevance")
    model = pooled_detr()
    model.label_head.weight.data.fill_(torch.nan)
    with pytest.raises(RegardError, match="not finite"):
        box_relevance(model, torch.randn(1, 3, 20, 28), 0, 0)

"""Rollout and relevance equal their direct definitions, without a tensor of tokens × tokens; maps by gradients."""

import pytest
import torch
import torch.nn.functional as F
from tests_of_explain import Largest, shaken, vit
from torch.testing import assert_close

from regard.errors import RegardError
from regard.explain import carry, explain, relevance, rollout, sanity, statistics, target_of
from regard.explain.head_statistics import position_similarity
from regard.explain.maps import head_query
from regard.explain.sanity_check import rank_correlation
from regard.layers import Grid
from regard.models import build, configure

SHAPES = [
    ("attention", {"pool": "token"}),
    ("attention", {"pool": "avg"}),
    ("attention", {"pool": "token", "num_registers": 3, "layer_scale": 0.3}),
    ("attention", {"pool": "token_avg", "layer_scale": 0.3}),
    ("attention", {"pool": "distilled", "num_registers": 1}),
    ("attention", {"pool": "avg", "fc_norm": True}),
    (("local", "performer", "none"), {"pool": "token"}),
    (("performer", "local", "none"), {"pool": "avg"}),
]


def directly(model, images, label):
    """(A of each layer, its gradient), by running the model on explicit matrices; the definitions build on them."""
    matrices = []
    handles = []
    for block in model.blocks:
        mixer = block.mixer

        def forward(x, *, grid=None, mask=None, positions=None, own=mixer):
            matrix = own.mixing_matrix(x, grid=grid)
            matrix.requires_grad_() if not matrix.requires_grad else None
            matrices.append(matrix)
            return own.out(matrix @ own.value(x))

        handles.append((mixer, mixer.forward))
        mixer.forward = forward
    try:
        score = model(images)[range(len(images)), label].sum()
        gradients = torch.autograd.grad(score, matrices)
    finally:
        for mixer, real in handles:
            mixer.forward = real
    return [one.detach() for one in matrices], gradients


def by_definition(model, images, label, *, relevant):
    matrices, gradients = directly(model, images, label)
    tokens = matrices[0].shape[-1]
    eye = torch.eye(tokens, dtype=torch.float64)
    whole = eye.expand(len(images), -1, -1)
    for matrix, gradient in zip(matrices, gradients, strict=True):
        mean = (matrix * gradient).clamp(min=0).mean(1) if relevant else matrix.mean(1)
        whole = (eye + mean) @ whole if relevant else (eye + mean) @ whole / 2
    prefix = model.grid.prefix
    read = {
        "token": whole[:, 0],
        "avg": whole[:, prefix:].mean(1),
        "token_avg": (whole[:, 0] + whole[:, prefix:].mean(1)) / 2,
        "distilled": (whole[:, 0] + whole[:, 1]) / 2,
    }
    return read[model.config.pool]


@pytest.mark.parametrize(("mixer", "config"), SHAPES)
def test_rollout_and_relevance_are_those_of_the_definitions(mixer, config):
    model, images = shaken(vit(mixer, **config)), torch.randn(2, 3, 12, 20, dtype=torch.float64)
    found, grid = rollout(model, images)
    assert grid == Grid(3, 5, model.grid.prefix)
    assert_close(found, by_definition(model, images, [1, 3], relevant=False), rtol=0, atol=1e-10)
    assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))
    found, _ = relevance(model, images, lambda output: output[range(2), [1, 3]])
    assert_close(found, by_definition(model, images, [1, 3], relevant=True), rtol=1e-10, atol=1e-10)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_timms_vit_too():
    timm = pytest.importorskip("timm")
    options = {"img_size": (32, 48), "depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 4, "init_values": 0.5}
    for pool in ("token", "avg"):
        theirs = timm.create_model("vit_tiny_patch16_224", global_pool=pool, **options).double().eval()
        images = torch.randn(1, 3, 32, 48, dtype=torch.float64)
        found, grid = relevance(theirs, images, lambda output: output[:, 2])
        assert grid == Grid(2, 3, 1)
        matrices = []
        for block in theirs.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda _, __, out, kept=matrices: kept.append(out))
        gradients = torch.autograd.grad(theirs(images.clone().requires_grad_())[0, 2], matrices)
        whole = torch.eye(7, dtype=torch.float64)
        for matrix, gradient in zip(matrices, gradients, strict=True):
            whole = whole + (matrix[0] * gradient[0]).clamp(min=0).mean(0) @ whole
        assert_close(found[0], whole[0] if pool == "token" else whole[1:].mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_no_tensor_of_tokens_times_tokens_is_made(pool):
    model, images = vit(img_size=(128, 128), mlp_ratio=1.0, pool=pool), torch.randn(1, 3, 128, 128)
    tokens = model.grid.num_tokens
    with Largest() as largest:
        rollout(model, images)
        relevance(model, images, lambda output: output[:, 0])
    assert largest.numel < tokens**2


@pytest.mark.parametrize("mixer", ["attention", ("performer", "local", "none")])
def test_each_layer_is_projected_once_and_nothing_is_kept_for_gradients(mixer, monkeypatch):
    """A graph through the rows of every layer took two gigabytes of a DINOv2 at 518 pixels."""
    model, images = vit(mixer, num_heads=3), torch.randn(1, 3, 12, 20)
    counted, real = [], carry._projected
    monkeypatch.setattr(
        carry, "_projected", lambda inputs, part: counted.append((inputs.site, part)) or real(inputs, part)
    )
    for find in (rollout, lambda *given: relevance(*given, lambda output: output[:, 0])):
        counted.clear()
        row, _ = find(model, images)
        assert not row.requires_grad
        assert len(counted) == len(set(counted))


def test_a_mixer_without_a_matrix_is_an_error_that_names_those_with_one():
    model, images = vit(("attention", "fourier"), pool="avg"), torch.randn(1, 3, 12, 20)
    with pytest.raises(RegardError, match=r"rollout: blocks.1 has fourier.*attention, local, performer, none"):
        rollout(model, images)


def test_what_the_head_reads():
    grid = Grid(1, 2, 2)
    for pool, wanted in {
        "token": [1, 0, 0, 0],
        "avg": [0, 0, 0.5, 0.5],
        "token_avg": [0.5, 0, 0.25, 0.25],
        "distilled": [0.5, 0.5, 0, 0],
    }.items():
        assert head_query(vit(pool=pool, num_registers=1), grid).tolist() == wanted


# Maps of other methods


def planted_vit(row, col):
    """A real ViT with one layer of attention, set so that its class token looks at a mark, and reads only that."""
    config = {"img_size": 32, "patch_size": 4, "in_chans": 1, "num_classes": 2, "embed_dim": 8, "num_heads": 1}
    model = build(configure("vit_pico_patch2_8", config | {"depth": 1, "mixer": "attention", "pool": "token"})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.patch_embed.proj.weight[0] = 1 / 16  # channel 0: how light a patch is
        model.pos_embed.table[0, 1 + row * 8 + col, 1] = 6.0  # channel 1: the one place
        model.cls_token[..., 2] = 6.0
        for norm in (model.blocks[0].norm1, model.norm):
            norm.weight.fill_(1.0)
        qkv = model.blocks[0].mixer.qkv.weight
        qkv[3, 2] = 6.0  # q of the class token
        qkv[8 + 3, 1] = 6.0  # k of the place
        qkv[16, 0] = 4.0  # v: how light
        model.blocks[0].mixer.proj.weight[4, 0] = 4.0
        model.head.weight[1, 4], model.head.weight[0, 4] = 3.0, -3.0
        for scale in (model.blocks[0].ls1, model.blocks[0].ls2):
            assert isinstance(scale, torch.nn.Identity)
    return model


@pytest.mark.parametrize("method", ["relevance", "gradient", "gradient-x-input", "grad-cam", "occlusion"])
def test_of_a_planted_patch_every_gradient_method_finds_it_and_beats_both(method):
    row, col = 5, 1
    model, image = planted_vit(row, col), torch.zeros(1, 32, 32)
    image[:, row * 4 : row * 4 + 4, col * 4 : col * 4 + 4] = 3.0
    if method != "grad-cam":  # which weighs channels, not places
        image[:, 4:8, 20:24] = 3.0  # as light, and not looked at
    found = explain(model, image, method=method)
    assert found.target == "1"
    assert divmod(int(found.map.argmax()), 8) == (row, col)
    assert found.faithfulness.verdict == "beats both", found.verdict
    assert found.verdict == found.faithfulness.line


def test_integrated_gradients_find_it_too():
    pytest.importorskip("captum")
    test_of_a_planted_patch_every_gradient_method_finds_it_and_beats_both("integrated-gradients")


def test_without_captum_integrated_gradients_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(RegardError, match="integrated-gradients: needs the package captum; `pip install captum`"):
        explain(planted_vit(1, 1), torch.rand(1, 32, 32), method="integrated-gradients")


def test_gradient_maps_by_hand():
    model, image = vit(), torch.randn(3, 12, 20)
    x = image[None].clone().requires_grad_()
    output = model(x)
    (gradient,) = torch.autograd.grad(output[0, 2], x)
    for method, pixels in {"gradient": gradient.abs().sum(1), "gradient-x-input": (gradient * x).sum(1)}.items():
        found = explain(model, image, method=method, target=2, judge=False)
        assert_close(found.map, F.avg_pool2d(pixels[:, None], 4)[0, 0].detach(), rtol=1e-4, atol=1e-6)
        assert found.signed == (method == "gradient-x-input")


def test_occlusion_by_hand():
    model, image = vit(), torch.randn(3, 12, 20)
    covered = image.clone()
    covered[:, 4:8, 12:16] = image.mean((1, 2))[:, None, None]
    with torch.no_grad():
        lost = (model(image[None]).softmax(1) - model(covered[None]).softmax(1))[0, 4]
    found = explain(model, image, method="occlusion", target=4, judge=False)
    assert_close(found.map[1, 3], lost, rtol=1e-4, atol=1e-6)
    assert found.passes == "16 forward passes"


def test_a_head_that_became_random_changes_relevance_and_not_rollout():
    model, image = shaken(vit(depth=4)), torch.randn(3, 12, 20, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    of_rollout = sanity(model, image, "rollout")
    assert of_rollout.head == pytest.approx(1.0)
    found = sanity(model, image, "relevance")
    assert found.head < 0.99
    assert -1 <= found.all <= 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sanity(shaken(vit(num_classes=0)), image, "gradient").head is None


def test_rank_correlation():
    a = torch.tensor([[1.0, 5.0], [2.0, 9.0]])
    assert rank_correlation(a, a.exp()) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert rank_correlation(a, torch.ones(2, 2)) == 0


def test_a_model_without_a_head_is_explained_by_its_features():
    model, image = shaken(vit(num_classes=0, depth=2)), torch.randn(3, 12, 20, dtype=torch.float64)
    for method in ("relevance", "gradient", "gradient-x-input", "grad-cam", "occlusion"):
        found = explain(model, image, method=method)
        assert found.map.abs().max() > 1e-6
        assert found.faithfulness.measured == "cosine with the whole image's features"
        assert found.faithfulness.curves["mean"].deletion[0] == pytest.approx(1.0)
    with pytest.raises(RegardError, match="target 3: the model has no head, and so no classes"):
        explain(model, image, target=3)


def test_classes_and_numbers_that_are_not_there():
    model, image = vit(), torch.randn(3, 12, 20)
    with pytest.raises(RegardError, match="target 5 is not there: the model has 5 classes, 0 to 4"):
        explain(model, image, method="relevance", target=5)
    names = ["cat", "dog", "cow", "hen", "pig"]
    with pytest.raises(RegardError, match=r"target: unknown class 'dgo'\. Known: cat, cow, dog, hen, pig"):
        explain(model, image, target="dgo", class_names=names)
    found = explain(model, image, method="relevance", target="hen", class_names=names, judge=False)
    assert found.target == "hen"
    assert_close(found.map, explain(model, image, method="relevance", target=3, judge=False).map)
    for given, told in (
        ({"method": "relevanc"}, "unknown method 'relevanc'; did you mean 'relevance'"),
        ({"method": "matrix"}, "it is called 'rows' now"),
        ({"method": "rollout", "head": 1}, "rollout: takes no head"),
        ({"method": "rollout", "layer": 1}, "rollout: takes no layer"),
        ({"method": "rows", "head": 3}, "head 3 is not there: there are 3, 0 to 2"),
        ({"token": "9,9"}, "the grid is 3 × 5"),
        ({"method": "window"}, "window is a figure"),
    ):
        with pytest.raises(RegardError, match=told):
            explain(model, image, **given)
    model.head.weight.data.fill_(torch.nan)
    with pytest.raises(RegardError, match="not finite"):
        explain(model, image)
    assert target_of(vit(), torch.eye(5)[:2]).labels == (0, 1)


def test_rows_of_what_the_head_reads():
    model, image = vit(pool="avg"), torch.randn(3, 12, 20)
    x = model.intermediates(image[None])["blocks.2.mixer_input"]
    matrix = model.blocks[2].mixer.mixing_matrix(x)[0]
    found = explain(model, image, judge=False)
    assert (found.method, found.layer, found.query, found.target) == ("rows", "layer 2", "mean over patches", None)
    assert_close(found.map, matrix.mean((0, 1)).reshape(3, 5).detach(), rtol=1e-4, atol=1e-6)
    assert [one.name for one in found.layers] == ["layer 0", "layer 1", "layer 2"]
    one = explain(model, image, head=1, judge=False)
    assert_close(one.map, matrix[1].mean(0).reshape(3, 5).detach(), rtol=1e-4, atol=1e-6)
    patch = explain(model, image, token="1,2")
    assert_close(patch.map, matrix[:, 7].mean(0).reshape(3, 5).detach(), rtol=1e-4, atol=1e-6)
    assert patch.faithfulness is None
    assert patch.verdict == "not judged: what the patch (1, 2) takes is not what the answer rests on"


def test_the_share_of_the_prefix():
    model, image = vit(num_registers=2), torch.randn(3, 12, 20)
    found = explain(model, image, judge=False)
    x = model.intermediates(image[None])["blocks.2.mixer_input"]
    row = model.blocks[2].mixer.mixing_matrix(x)[0].mean(0)[0]
    assert found.prefix_share == pytest.approx(row[:3].sum().item(), rel=1e-4)
    assert found.map.sum().item() == pytest.approx(1 - found.prefix_share, rel=1e-4)


def test_statistics_of_heads():
    model, images = vit(("attention", "fourier", "none"), pool="token"), torch.randn(2, 3, 12, 20)
    found = statistics(model, images)
    assert [one.name for one in found] == ["blocks.0", "blocks.2"]
    x = model.intermediates(images)["blocks.0.mixer_input"]
    matrix = model.blocks[0].mixer.mixing_matrix(x)[:, :, 1:].double()
    places = torch.tensor([(row, col) for row in range(3) for col in range(5)]).double()
    patches = matrix[..., 1:]
    apart = 4 * torch.cdist(places, places)
    assert_close(
        found[0].distance, ((patches * apart).sum(-1) / patches.sum(-1)).mean((0, 2)).detach(), rtol=1e-5, atol=0
    )
    assert_close(found[0].entropy, -(matrix * matrix.log()).sum(-1).mean((0, 2)).detach(), rtol=1e-5, atol=0)
    assert_close(found[0].prefix, matrix[..., 0].mean((0, 2)).detach(), rtol=1e-5, atol=0)
    assert found[1].distance.tolist() == [0.0]
    assert found[1].entropy.tolist() == [0.0]
    similar = position_similarity(model)
    assert similar.shape == (15, 15)
    assert_close(similar.diagonal(), torch.ones(15))
    with pytest.raises(RegardError, match="no layer of a ViT has a mixing matrix"):
        statistics(vit("fourier", pool="avg"), images)

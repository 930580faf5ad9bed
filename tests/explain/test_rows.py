"""The row engine: rows of every mixer and model equal the definition, out of the model's own forward pass."""

import pytest
import torch
import torch.nn.functional as F
from tests_of_explain import Largest, vit
from torch.testing import assert_close

from regard.errors import RegardError
from regard.explain import rows
from regard.explain.influence import influence
from regard.layers import Grid
from regard.mixers import MIXERS, create_mixer
from regard.models import build, configure

CASES = [(name, {}) for name in MIXERS if name != "lstm"] + [
    ("attention", {"causal": True}),
    ("attention", {"fused_qkv": False, "qkv_bias": False}),
    ("local", {"window": 3}),
    ("local", {"window": 21}),
    ("performer", {"causal": True, "num_features": 13}),
    ("performer", {"kind": "relu"}),
    ("performer", {"kind": "softmax_hyperbolic"}),
    ("fourier", {"ortho": True}),
    ("mlp", {"hidden_dim": 17}),
    ("conv", {"kernel_size": 5}),
]
QUERIES = torch.tensor([7, 0, 12, 3])


def mixer_of(name, options, prefix, height=3, width=5):
    grid = Grid(height, width, prefix)
    mixer = create_mixer(name, 12, num_heads=3, grid=grid, options=options).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer, grid, torch.randn(2, grid.num_tokens, 12, dtype=torch.float64)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("chunk", [None, 4])
def test_rows_are_those_of_the_matrix_or_of_the_influence(name, options, prefix, chunk):
    mixer, grid, x = mixer_of(name, options, prefix)
    found = mixer.rows(x, QUERIES, grid=grid, chunk=chunk)
    if hasattr(mixer, "mixing_matrix"):
        assert_close(found, mixer.mixing_matrix(x, grid=grid)[:, :, QUERIES], rtol=0, atol=1e-12)
        if found.shape[1] > 1:
            some = mixer.rows(x, QUERIES, grid=grid, heads=torch.tensor([2, 0]))
            assert_close(some, found[:, [2, 0]], rtol=0, atol=1e-12)
    else:
        wanted = influence(mixer, x, grid=grid, tokens=QUERIES.tolist())
        assert_close(found[:, 0], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["attention", "local", "performer", "conv", "none"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_rows_with_padding_and_positions(name, prefix):
    mixer, grid, x = mixer_of(name, {}, prefix)
    mask = torch.arange(grid.num_tokens) < torch.tensor([9, grid.num_tokens])[:, None]
    more = {} if name in ("conv", "none") else {"positions": torch.randn_like(x)}
    x[0, 10:] = torch.nan if name != "none" else 0.0
    queries = torch.tensor([7, 0, 8])
    found = mixer.rows(x, queries, grid=grid, mask=mask, **more)
    if name == "conv":
        wanted = influence(mixer, x.nan_to_num(), grid=grid, mask=mask, tokens=queries.tolist())
        assert_close(found[:, 0], wanted, rtol=0, atol=1e-10)
        return
    wanted = mixer.mixing_matrix(x, grid=grid, mask=mask, **more)[:, :, queries]
    assert_close(found, wanted, rtol=0, atol=1e-12)


def test_one_forward_pass_gives_all_layers_and_the_same_answer(monkeypatch):
    model, images = vit(depth=4), torch.randn(2, 3, 12, 20)
    wanted = model(images)
    calls, real = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k))
    model.train()
    found = rows(model, images, queries=[0, 7, "1,2", (2, 4)])
    assert model.training
    assert len(calls) == 4
    assert torch.equal(found.output, wanted)
    assert found.weights.shape == (4, 2, 3, 4, 16)
    assert [one.name for one in found] == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    assert found[0].queries == (0, 7, 1 + 5 + 2, 15)
    assert found["blocks.3"].grid == Grid(3, 5, 1)
    for number, one in enumerate(found):
        mixer, x = model.blocks[number].mixer, model.eval().intermediates(images)[f"blocks.{number}.mixer_input"]
        wanted = mixer.double().mixing_matrix(x.double(), grid=one.grid)[:, :, list(one.queries)]
        assert_close(one.weights.double(), wanted, rtol=0, atol=1e-5)
        mixer.float()


@pytest.mark.parametrize("size", [(12, 20), (20, 12), (8, 32)])
def test_the_grid_is_that_of_the_images(size):
    model, images = vit(), torch.randn(1, 3, *size)
    found = rows(model, images, queries=f"{size[0] // 4 - 1},{size[1] // 4 - 1}", layers=-1)
    assert found[0].grid == Grid(size[0] // 4, size[1] // 4, 1)
    assert found[0].queries == (size[0] * size[1] // 16,)


def test_every_mixer_of_one_model_is_served():
    model, images = vit(tuple(MIXERS), pool="avg"), torch.randn(2, 3, 12, 20)
    found = rows(model, images, queries=[3, 14])
    assert [one.mixer for one in found] == list(MIXERS)
    assert [one.kind for one in found if one.mixer in ("fourier", "mlp", "conv", "lstm")] == ["influence"] * 4
    taps = model.intermediates(images)
    for number, one in enumerate(found):
        if one.kind == "influence":
            x = taps[f"blocks.{number}.mixer_input"]
            wanted = influence(model.blocks[number].mixer, x, grid=one.grid, tokens=[3, 14])
            assert_close(one.weights[:, 0], wanted, rtol=1e-4, atol=1e-5)
            assert one.error == 0
    with pytest.raises(RegardError, match="the layers differ in shape"):
        found.weights  # noqa: B018


def test_an_lstms_large_influence_is_an_estimate_with_its_error():
    model = vit(("lstm",), img_size=(64, 64), embed_dim=72)
    found = rows(model, torch.randn(1, 3, 64, 64), queries=[0])
    assert 0 < found[0].error < 0.1


def test_no_tensor_of_tokens_times_tokens():
    model, images = (
        vit(("attention", "performer", "local"), img_size=(128, 128), mlp_ratio=1.0),
        torch.randn(1, 3, 128, 128),
    )
    with torch.no_grad(), Largest() as alone:
        model(images)
    with Largest() as largest:
        found = rows(model, images, queries=[0, 500])
    assert found.weights.shape[-1] == 1025
    assert largest.numel <= alone.numel < 1025**2


def test_all_rows_only_within_max_bytes():
    model, images = vit(), torch.randn(2, 3, 12, 20)
    needed = 3 * 2 * 3 * 16 * 16 * 4
    assert rows(model, images, queries="all", max_bytes=needed).weights.shape == (3, 2, 3, 16, 16)
    with pytest.raises(RegardError, match=f"{needed:,} bytes in all, more than max_bytes = {needed - 1:,}"):
        rows(model, images, queries="all", max_bytes=needed - 1)


def test_a_row_of_fifty_thousand_tokens_takes_little_memory():
    mixer = create_mixer("attention", 384, num_heads=6, grid=None)
    x = torch.randn(1, 50_176, 384)
    with torch.no_grad(), Largest() as largest:
        found = mixer.rows(x, torch.tensor([31_000]))
    assert found.shape == (1, 6, 1, 50_176)
    assert largest.numel <= 2**21
    own = {key: value.double() for key, value in mixer.state_dict().items()}
    of_q, of_k, _ = own["qkv.weight"].unflatten(0, (3, 6, 64))
    q = of_q @ x[0, 31_000].double() + own["qkv.bias"][:384].unflatten(0, (6, 64))
    # q·(W x + b) is (Wᵀ q)·x, and what is the same for all keys.
    exact = ((of_k.transpose(1, 2) @ q[..., None])[..., 0] @ x[0].double().T).mul(64**-0.5).softmax(-1)
    assert_close(found[0, :, 0].double(), exact, rtol=0, atol=1e-9)


def test_heads_and_layers_by_number_and_name():
    model, images = vit(), torch.randn(1, 3, 12, 20)
    whole = rows(model, images, queries=[2])
    some = rows(model, images, queries=2, layers=["blocks.-1", 0], heads=[2, -3])
    assert [one.name for one in some] == ["blocks.2", "blocks.0"]
    assert some[0].heads == (2, 0)
    assert_close(some["blocks.0"].weights, whole[0].weights[:, [2, 0]])
    assert_close(some[0].mean, some[0].weights.mean(1))
    for wrong, told in (
        ({"layers": 3}, r"layer 3 is not there: the model has blocks 0 to 2 \(-1 is the last\)"),
        ({"layers": "cross"}, "layer 'cross' is not there: the model has blocks 0 to 2"),
        ({"heads": 3}, "head 3 is not there: there are 3, 0 to 2"),
        ({"queries": 16}, "token 16 is not there: the grid has tokens 0 to 15"),
        ({"queries": "3,0"}, r"patch \(3, 0\) is not there: the grid is 3 × 5"),
        ({"queries": []}, "no query is named"),
        ({"chunk": 0}, "chunk is 0"),
    ):
        with pytest.raises(RegardError, match=told):
            rows(model, images, **{"queries": 0, **wrong})


def test_images_of_one_size_may_be_a_list():
    model, images = vit(), torch.randn(2, 3, 12, 20)
    assert_close(rows(model, list(images), queries=0).weights, rows(model, images, queries=0).weights)
    with pytest.raises(RegardError, match="images of several sizes, 12 × 20, 12 × 16: a batch has one"):
        rows(model, [images[0], images[1, :, :, :16]], queries=0)


def test_numbers_that_are_not_finite_are_an_error():
    model = vit()
    model.blocks[1].mixer.qkv.weight.data[0, 0] = torch.nan
    with pytest.raises(RegardError, match=r"layer blocks\.1: the model answers with numbers that are not finite"):
        rows(model, torch.randn(1, 3, 12, 20), queries=0)


# Other models


def test_timms_vit_with_its_fused_kernels_on(monkeypatch):
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(32, 48), depth=2, embed_dim=24, num_heads=3, num_classes=4, qk_norm=True
    ).eval()
    images = torch.randn(2, 3, 32, 48)
    wanted = model(images)
    found = rows(model, images, queries="all")
    assert torch.equal(found.output, wanted)
    assert found[0].grid == Grid(2, 3, 1)
    matrices = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, out: matrices.append(out))
    model(images)
    assert_close(found.weights, torch.stack(matrices), rtol=0, atol=1e-6)


def test_any_other_model_is_an_error_that_says_what_is_read():
    with pytest.raises(
        RegardError, match=r"Sequential has no attention that can be read; read are .*timm.layers.Attention"
    ):
        rows(torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.randn(1, 2), queries=0)


DETR = {"backbone": "resnet18", "num_classes": 3, "embed_dim": 24, "num_heads": 3, "depth": 2, "decoder_depth": 2}


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_detr_has_encoder_decoder_and_cross_attention(masked):
    from regard.layers import MultiHeadAttention
    from regard.ops import attention_weights

    model = build(configure("detr_resnet50", {**DETR, "num_queries": 7})).eval()
    images, mask = torch.randn(2, 3, 96, 160), torch.ones(2, 96, 160, dtype=torch.bool)
    mask[0, :, 120:] = False
    inputs = (images, mask) if masked else images
    found = rows(model, inputs, queries="all")
    assert [one.name for one in found] == ["encoder.0", "encoder.1", "decoder.0", "cross.0", "decoder.1", "cross.1"]
    assert found["cross.1"].grid == Grid(3, 5)
    assert found["encoder.0"].grid == Grid(3, 5)
    assert found["decoder.0"].grid is None
    assert found["cross.0"].weights.shape == (2, 3, 7, 15)
    assert torch.equal(found.output.logits, model(*inputs if masked else (inputs,)).logits)
    kept = []
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.register_forward_hook(
                lambda own, args, kwargs, _: kept.append(own.weights(args[0], args[1], **kwargs)), with_kwargs=True
            )
    model(*inputs if masked else (inputs,))
    assert_close(found["cross.0"].weights, kept[0], rtol=0, atol=1e-6)
    assert_close(found["cross.1"].weights, kept[1], rtol=0, atol=1e-6)
    some = rows(model, inputs, queries=[6, 2], layers="cross", heads=[1])
    assert_close(some.weights[1][:, 0], found["cross.1"].weights[:, 1, [6, 2]], rtol=0, atol=1e-6)
    with pytest.raises(RegardError, match="encoder 0 to 1"):
        rows(model, inputs, queries=0, layers=9)
    with pytest.raises(RegardError, match=r"cross\.0: query 7 is not there: there are 7, 0 to 6"):
        rows(model, inputs, queries=7, layers="cross.0")
    assert attention_weights is not None


@pytest.mark.slow
@pytest.mark.parametrize("cross", ["deformable", "dense"])
def test_dn_detr_has_them_too(cross):
    changes = {**DETR, "depth": 1, "num_queries": 6, "cross_attention": cross, "strides": (8, 16, 32)}
    model = build(configure("dn_detr_resnet50", changes)).eval()
    images = torch.randn(2, 3, 64, 96)
    found = rows(model, images, queries=[0, 5], layers=["encoder", "decoder", "cross"])
    assert [one.name for one in found] == ["encoder.0", "decoder.0", "decoder.1", "cross.0", "cross.1"]
    last = found["cross.1"]
    assert last.shapes == ((8, 12), (4, 6), (2, 3))
    assert last.weights.shape == (2, 3, 2, 96 + 24 + 6)
    if cross == "dense":
        assert_close(last.weights.sum(-1), torch.ones(2, 3, 2))
        return
    # The definition: the output of the layer from its rows, and the values of all tokens.
    layer, seen = model.decoder.layers[1].cross, {}
    layer.register_forward_hook(lambda _, args, kwargs, out: seen.update(args=args, out=out), with_kwargs=True)
    whole = rows(model, images, queries="all", layers="cross.1")
    values = layer.value_proj(seen["args"][2]).unflatten(2, (3, -1)).transpose(1, 2)
    rebuilt = layer.output_proj((whole[0].weights @ values).transpose(1, 2).flatten(2))
    assert_close(rebuilt, seen["out"], rtol=1e-4, atol=1e-5)


def test_the_transformer_and_the_language_model():
    small = {"embed_dim": 12, "num_heads": 3, "depth": 2}
    model = build(configure("transformer_base", {"src_vocab": 9, "tgt_vocab": 9, **small})).eval()
    source, target = torch.randint(0, 9, (2, 7)), torch.randint(0, 9, (2, 5))
    mask = torch.arange(7) < torch.tensor([4, 7])[:, None]
    found = rows(model, {"source": source, "target": target, "source_mask": mask}, queries="all")
    assert [one.name for one in found] == ["encoder.0", "encoder.1", "decoder.0", "cross.0", "decoder.1", "cross.1"]
    wanted = model.cross_attention(source, target, source_mask=mask)
    for layer in range(2):
        assert_close(found[f"cross.{layer}"].weights, wanted[:, layer], rtol=0, atol=1e-6)
        assert found[f"decoder.{layer}"].weights.triu(1).eq(0).all()
    alone = build(configure("language_mini", {"vocab_size": 9, "context": 16, **small})).eval()
    causal = rows(alone, source, queries=[6, 0], layers=-1)
    assert causal[0].name == "decoder.1"
    assert_close(causal[0].weights.sum(-1), torch.ones(2, 3, 2))
    assert causal[0].weights[:, :, 1, 1:].eq(0).all()


def test_the_recurrent_model_has_one_attention():
    model = build(configure("recurrent_mini", {"src_vocab": 9, "tgt_vocab": 9, "embed_dim": 12, "depth": 1})).eval()
    source, target = torch.randint(0, 9, (2, 7)), torch.randint(0, 9, (2, 5))
    found = rows(model, (source, target), queries=[4, 0])
    wanted = model.cross_attention(source, target)[:, 0][:, :, [4, 0]]
    assert_close(found[0].weights, wanted)
    with pytest.raises(RegardError, match="query 5 is not there"):
        rows(model, (source, target), queries=5)


def test_sasa_resnet_gives_the_windows_of_its_layers():
    from regard.explain import local_layers
    from regard.explain.local_layers import window_at

    model = build(configure("sasa_resnet14_small", {})).eval()
    image = torch.randn(1, 1, 8, 8)
    found = rows(model, image, queries=[0, 19], layers=[0])
    layer = local_layers(model, image[0])[0]
    window = window_at(layer, *divmod(19, 8))
    picture = found[0].weights[0, :, 1].unflatten(-1, (8, 8))
    inside = window.there
    wanted = window.weights[:, inside]
    rows_there, cols_there = torch.meshgrid(window.rows, window.cols, indexing="ij")
    assert_close(picture[:, rows_there[inside], cols_there[inside]], wanted, rtol=0, atol=1e-6)
    assert_close(picture.sum((1, 2)), torch.ones(len(picture)))


def test_fnet_has_the_rows_of_its_transforms():
    model = build(configure("fnet_base", {"vocab_size": 9, "embed_dim": 12, "depth": 2, "max_tokens": 8})).eval()
    tokens = torch.randint(0, 9, (2, 7))
    found = rows(model, (tokens,), queries=[3])
    assert [one.name for one in found] == ["encoder.0", "encoder.1"]
    wanted = influence(model.encoder.layers[1].mixer, torch.randn(2, 7, 12), tokens=[3])
    assert_close(found[1].weights[:, 0], wanted)
    assert torch.equal(found.output, model(tokens))

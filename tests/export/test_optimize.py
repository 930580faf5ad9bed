"""A copy of a model with packed weights gives the model's answers, for every mixer, batch and size."""

import copy

import pytest
import torch

import regard
from regard import RegardError
from regard.export import ways_to_attend
from regard.mixers import MIXERS
from regard.models import ViT, ViTConfig
from regard.ops.precision import has_bf16

BF16 = has_bf16(torch.device("cpu"))
SHAPES = ((1, 32, 32), (2, 24, 56), (9, 40, 32))


def vit(mixer="attention", pool="token", **changes):
    """A small ViT in evaluation mode whose norms, biases and LayerScales are not trivial."""
    torch.manual_seed(0)
    config = ViTConfig(32, 8, 3, 10, embed_dim=48, depth=3, num_heads=4, mixer=mixer, pool=pool, layer_scale=0.5)
    model = ViT(ViTConfig(**{**vars(config), "num_registers": 1, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def largest_difference(model, fast, shapes=SHAPES):
    """Of the logits, in parts of the largest."""
    found = []
    with torch.no_grad():
        for batch, height, width in shapes:
            images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))
            expected = model(images)
            found.append(((fast(images) - expected).abs().max() / expected.abs().max()).item())
    return max(found)


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_vit_answers_as_before(mixer, pool):
    model = vit(mixer, pool)
    state = copy.deepcopy(model.state_dict())
    shapes = SHAPES[:1] if mixer == "mlp" else SHAPES
    assert largest_difference(model, regard.optimize(model, "fp32"), shapes) < 1e-5
    if BF16:
        assert 1e-4 < largest_difference(model, regard.optimize(model, "bf16"), shapes) < 0.02
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "distilled"},
        {"pool": "token_avg"},
        {"fc_norm": True, "pool": "avg", "class_token": False},
        {"layer_scale": None, "positions": "sine", "num_registers": 0},
        {"num_classes": 0, "positions": "none"},
        {"mixer_options": {"qkv_bias": False}},
        {"mixer_options": {"fused_qkv": False}},
        {"mixer_options": {"causal": True}},
        {"mixer": ("attention", "conv", "mlp"), "depth": 3},
    ],
)
def test_each_variant_of_a_vit_answers_as_before(changes):
    model = vit(**changes)
    shapes = SHAPES[:1] if "mlp" in model.config.mixer else SHAPES
    assert largest_difference(model, regard.optimize(model, "fp32"), shapes) < 1e-5


@pytest.mark.parametrize("way", ["sdpa", "products"])
def test_both_ways_to_attend_are_attention(way, monkeypatch):
    monkeypatch.setattr("regard.export.optimize.fastest_way", lambda q, k, v: way)
    model = vit()
    assert largest_difference(model, regard.optimize(model, "fp32")) < 1e-5


def test_the_way_to_attend_is_timed_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ways_to_attend, "_known", {})
    timed = []
    monkeypatch.setattr(ways_to_attend, "_seconds", lambda way, q, k, v: timed.append(way) or float(way == "sdpa"))
    q = torch.randn(2, 4, 5, 8)
    assert [ways_to_attend.fastest_way(q, q, q) for _ in range(2)] == ["products"] * 2
    assert timed == ["sdpa", "products"]
    monkeypatch.setattr(ways_to_attend, "_known", {})  # as in another process
    assert ways_to_attend.fastest_way(q, q, q) == "products"
    assert len(timed) == 2
    (tmp_path / "regard" / "attention-ways.json").write_text("not JSON")
    monkeypatch.setattr(ways_to_attend, "_known", {})
    assert ways_to_attend.fastest_way(q, q, q) == "products"
    assert len(timed) == 4


def test_a_detector_and_a_resnet_answer_as_before():
    resnet = regard.create_model("sasa_resnet26", num_classes=5, img_size=64).eval()
    assert largest_difference(resnet, regard.optimize(resnet), [(2, 64, 64)]) < 1e-5
    detr = regard.create_model("detr_resnet50", num_classes=5).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before, after = detr(images), regard.optimize(detr)(images)
    assert torch.allclose(before.boxes_cxcywh, after.boxes_cxcywh, atol=1e-5)
    assert torch.allclose(before.logits, after.logits, atol=1e-4)


@pytest.mark.skipif(not BF16, reason="this processor has no instructions for bfloat16")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_takes_the_precision_that_is_faster_here(dtype, monkeypatch):
    asked = []
    monkeypatch.setattr("regard.export.optimize._faster", lambda width: asked.append(width) or dtype)
    assert regard.optimize(vit()).patches.dtype == dtype
    assert asked == [vit().config.embed_dim]


def test_the_faster_of_two_maps_is_told():
    x = torch.randn(300, 300)
    maps = {torch.float32: lambda x: x, torch.bfloat16: lambda x: [x @ x for _ in range(30)][-1]}
    assert ways_to_attend.faster_precision(maps, x) == torch.float32
    assert ways_to_attend.faster_precision(dict(zip(maps, reversed(maps.values()), strict=True)), x) == torch.bfloat16


def test_it_is_for_answers_alone():
    model = vit()
    fast = regard.optimize(model, "fp32")
    with pytest.raises(RegardError, match="no gradients"):
        fast(torch.zeros(1, 3, 32, 32, requires_grad=True))
    with pytest.raises(RegardError, match="cannot learn"):
        fast.train()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(RegardError, match=r"training mode; call model.eval\(\) first"):
        regard.optimize(model.train())


def test_what_cannot_be_optimized_is_said(monkeypatch):
    with pytest.raises(RegardError, match="got a Linear"):
        regard.optimize(torch.nn.Linear(2, 2))
    with pytest.raises(RegardError, match="int8"):
        regard.optimize(vit(), "int8")
    with pytest.raises(RegardError, match="float32 weights on the CPU"):
        regard.optimize(vit().double())
    fast = regard.optimize(vit(), "fp32")
    with pytest.raises(RegardError, match="whole patches of 8"), torch.no_grad():
        fast(torch.zeros(1, 3, 33, 32))
    with pytest.raises(RegardError, match="4 channels, the model takes 3"), torch.no_grad():
        fast(torch.zeros(1, 4, 32, 32))
    monkeypatch.setattr("regard.export.optimize.has_bf16", lambda device: False)
    with pytest.raises(RegardError, match="no instructions for it; take fp32"):
        regard.optimize(vit(), "bf16")
    assert largest_difference(vit(), regard.optimize(vit(), "auto"), SHAPES[:1]) < 1e-5

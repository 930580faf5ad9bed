"""The layer of deformable attention: equal to transformers', in values and in gradients, and begun as the authors'."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from regard.errors import RegardError
from regard.layers import DeformableAttention

SHAPES = ((3, 7), (5, 2))
TOKENS = 31
DIM, HEADS, POINTS, QUERIES = 24, 3, 5, 11


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr.modeling_deformable_detr import (
        DeformableDetrMultiscaleDeformableAttention,
    )

    config = DeformableDetrConfig(d_model=DIM, num_feature_levels=len(SHAPES), disable_custom_kernels=True)
    return DeformableDetrMultiscaleDeformableAttention(config, num_heads=HEADS, n_points=POINTS)


def drawn() -> DeformableAttention:
    """With weights that make all of it matter."""
    torch.manual_seed(0)
    layer = DeformableAttention(DIM, HEADS, num_levels=len(SHAPES), num_points=POINTS)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return layer


@pytest.mark.filterwarnings("ignore:You'd better set embed_dim")
@pytest.mark.parametrize("place", [2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_it_equals_transformers(theirs, place, masked):
    layer = drawn()
    theirs.load_state_dict(layer.state_dict())
    query, memory = torch.randn(2, QUERIES, DIM), torch.randn(2, TOKENS, DIM)
    reference, onto = torch.rand(2, QUERIES, len(SHAPES), place), torch.randn(2, QUERIES, DIM)
    mask = torch.rand(2, TOKENS) < 0.7 if masked else None
    sizes = torch.tensor(SHAPES)

    def peer(query: Tensor, reference: Tensor, memory: Tensor) -> Tensor:
        return theirs(
            query,
            attention_mask=mask,
            encoder_hidden_states=memory,
            reference_points=reference,
            spatial_shapes=sizes,
            spatial_shapes_list=list(SHAPES),
            level_start_index=torch.tensor([0, 21]),
        )[0]

    found = []
    for module, run in ((layer, lambda q, r, m: layer(q, r, m, SHAPES, key_mask=mask)), (theirs, peer)):
        given = [tensor.clone().requires_grad_() for tensor in (query, reference, memory)]
        output = run(*given)
        weights = dict(module.named_parameters())
        gradients = torch.autograd.grad(output, [*given, *weights.values()], onto)
        found.append(
            {"output": output, **dict(zip(["query", "reference", "memory", *weights], gradients, strict=True))}
        )
    mine, wanted = found
    assert mine.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.abs().sum() > 0, name
        assert_close(mine[name], value, rtol=1e-5, atol=1e-5 * max(1.0, value.abs().max().item()), msg=name)


@pytest.mark.parametrize("place", [2, 4])
def test_gradients_in_double_precision(place):
    layer = drawn().double()
    query, memory = torch.randn(1, 2, DIM, dtype=torch.double), torch.randn(1, TOKENS, DIM, dtype=torch.double)
    reference = torch.rand(1, 2, len(SHAPES), place, dtype=torch.double)
    given = [tensor.requires_grad_() for tensor in (query, reference, memory)]
    assert layer(*given, SHAPES).dtype == torch.double
    assert torch.autograd.gradcheck(lambda q, r, m: layer(q, r, m, SHAPES), given, fast_mode=True)


def test_what_is_masked_makes_no_difference():
    layer, query, memory = drawn(), torch.randn(2, QUERIES, DIM), torch.randn(2, TOKENS, DIM)
    reference, mask = torch.rand(2, QUERIES, len(SHAPES), 4), torch.rand(2, TOKENS) < 0.7
    wanted = layer(query, reference, memory, SHAPES, key_mask=mask)
    spoiled = memory.masked_fill(~mask[..., None], float("nan"))
    assert torch.equal(layer(query, reference, spoiled, SHAPES, key_mask=mask), wanted)


def test_heads_begin_by_looking_in_all_directions():
    """Eight heads as on a compass, point k at the distance k; all places count the same."""
    layer = DeformableAttention(16, 8, num_levels=2, num_points=3)
    offsets = layer.sampling_offsets.bias.view(8, 2, 3, 2)
    compass = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    wanted = torch.tensor(compass).float()[:, None, None] * torch.tensor([1.0, 2, 3])[:, None]
    assert_close(offsets, wanted.expand(-1, 2, -1, -1), rtol=0, atol=1e-5)
    for part in (layer.sampling_offsets, layer.attention_weights):
        assert part.weight.eq(0).all()
    assert layer.attention_weights.bias.eq(0).all()
    for part in (layer.value_proj, layer.output_proj):
        assert part.bias.eq(0).all()
        assert math.sqrt(6 / 32) * 0.9 < part.weight.abs().max() <= math.sqrt(6 / 32)  # Xavier's


@pytest.mark.parametrize("heads", [1, 3, 5, 8])
def test_it_begins_as_the_authors_code(heads):
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr import modeling_deformable_detr as peer

    config = DeformableDetrConfig(
        d_model=8 * heads,
        num_feature_levels=2,
        decoder_layers=1,
        decoder_attention_heads=heads,
        decoder_n_points=3,
        disable_custom_kernels=True,
    )
    decoder = peer.DeformableDetrDecoder(config)
    theirs = decoder.layers[0].encoder_attn
    decoder._init_weights(theirs)
    mine = DeformableAttention(8 * heads, heads, num_levels=2, num_points=3)
    assert_close(mine.sampling_offsets.bias, theirs.sampling_offsets.bias, rtol=0, atol=1e-5)
    assert mine.state_dict().keys() == theirs.state_dict().keys()


def test_locations_by_hand():
    """An offset of one token to the right and two up, from a point and from the middle of a box."""
    layer = DeformableAttention(8, 1, num_levels=2, num_points=1)
    with torch.no_grad():
        layer.sampling_offsets.bias.copy_(torch.tensor([1.0, -2.0, 1.0, -2.0]))
    query = torch.zeros(1, 1, 8)
    of_point = layer.locations(query, torch.tensor([0.5, 0.4]).expand(1, 1, 2, 2), SHAPES).view(2, 2)
    assert_close(of_point, torch.tensor([[0.5 + 1 / 7, 0.4 - 2 / 3], [0.5 + 1 / 2, 0.4 - 2 / 5]]))
    of_box = layer.locations(query, torch.tensor([0.5, 0.4, 0.2, 0.1]).expand(1, 1, 2, 4), SHAPES).view(2, 2)
    assert_close(of_box, torch.tensor([[0.5 + 0.1, 0.4 - 2 * 0.05]] * 2))


def test_flops_by_hand():
    layer = DeformableAttention(8, 2, num_levels=3, num_points=5)
    queries, tokens, places = 7, 11, 2 * 3 * 5
    linear = queries * (8 * 2 * places + 8 * places + 8 * 8) + tokens * 8 * 8
    sampled = queries * places * 4 * (4 + 1)  # 4 channels a head: four neighbours, and the place's own weight
    assert layer.flops(queries, tokens) == 2 * (linear + sampled)


def test_heads_that_do_not_divide():
    with pytest.raises(RegardError, match="embed_dim 8 does not divide into num_heads 3"):
        DeformableAttention(8, 3)

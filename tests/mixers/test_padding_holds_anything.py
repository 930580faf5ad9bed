"""What padding holds, NaN even, changes nothing of what is real: values, and gradients of inputs and weights."""

import pytest
import torch
from torch.testing import assert_close

from regard.layers import DeformableAttention, Grid, MultiHeadAttention
from regard.mixers import create_mixer
from regard.ops import attention, favor_attention, favor_step, favor_weights

DIM = 16
ANYTHING = [float("nan"), float("inf"), -float("inf"), 1e38]


def results(module, x, mask, **options):
    """The real outputs, and the gradients of the real inputs and of all weights."""
    x = x.clone().requires_grad_()
    out = module(x, mask=mask, **options)[mask]
    first, *weights = torch.autograd.grad(out.square().sum(), [x, *module.parameters()], allow_unused=True)
    return [out, first[mask], *weights]


@pytest.mark.parametrize("name", ["attention", "local", "performer", "conv", "lstm"])
@pytest.mark.parametrize("anything", ANYTHING)
def test_mixers(name, anything):
    grid = Grid(3, 5)
    mixer = create_mixer(name, DIM, num_heads=2, grid=grid)
    x, mask = torch.randn(2, 15, DIM), torch.arange(15)[None] < torch.tensor([[15], [9]])
    spoilt = x.masked_fill(~mask[..., None], anything)
    wanted = results(mixer, x.masked_fill(~mask[..., None], 0), mask, grid=grid)
    found = results(mixer, spoilt, mask, grid=grid)
    # A finite number in padding is a query like others: it may reach the gradients of the weights, but not the rest.
    for one, other in list(zip(found, wanted, strict=True))[: None if anything != 1e38 else 2]:
        assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("anything", ANYTHING)
def test_attention_to_a_padded_sequence(anything):
    layer, deformable = MultiHeadAttention(DIM, 2), DeformableAttention(DIM, 2, num_levels=1)
    query, memory, reference = torch.randn(2, 5, DIM), torch.randn(2, 6, DIM), torch.rand(2, 5, 1, 2)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    calls = [
        (layer, lambda y: layer(query, y, y, key_mask=mask)),
        (deformable, lambda y: deformable(query, reference, y, [(2, 3)], key_mask=mask)),
    ]
    for module, call in calls:
        found = []
        for value in (0.0, anything):
            y = memory.masked_fill(~mask[..., None], value).requires_grad_()
            out = call(y)
            found.append([out, *torch.autograd.grad(out.square().sum(), [y, *module.parameters()])])
        for one, other in zip(*found, strict=True):
            assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("anything", ANYTHING[:3])
@pytest.mark.parametrize("impl", ["math", "sdpa", "auto"])
@pytest.mark.parametrize("tokens", [7, 23])
def test_the_future_holds_anything(anything, impl, tokens):
    """In the causal forms: the keys and values that come after a token change neither its output nor its gradient."""
    known = tokens - 3
    w = torch.randn(8, 8)
    calls = [
        lambda q, k, v: attention(q, k, v, is_causal=True, impl=impl),
        lambda q, k, v: attention(q, k, v, mask=torch.ones(tokens, tokens, dtype=torch.bool).tril(), impl=impl),
        lambda q, k, v: attention(q, k, v, bias=torch.full((tokens, tokens), -torch.inf).triu(1), impl=impl),
        lambda q, k, v: favor_attention(q, k, v, projection=w, is_causal=True),
        lambda q, k, v: favor_step(q, k, v, None, projection=w)[0],
        lambda q, k, v: favor_attention(q, k, v, projection=w, is_causal=True, kind="relu"),
    ]
    base = torch.randn(3, 1, 2, tokens, 8)
    for call in calls:
        found = []
        for value in (0.0, anything):
            q, k, v = (part.clone().requires_grad_() for part in base)
            spoilt = [leaf.masked_fill((torch.arange(tokens) >= known)[:, None], value) for leaf in (k, v)]
            out = call(q, *spoilt)[:, :, :known]
            (gradient,) = torch.autograd.grad(out.square().sum(), q)
            found.append([out, gradient[:, :, :known]])
        for one, other in zip(*found, strict=True):
            assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_favors_weights_do_not_see_padding():
    q, k = torch.randn(2, 1, 2, 7, 8)
    w, mask = torch.randn(8, 8), torch.arange(7)[None] < 5
    wanted = favor_weights(q, k.masked_fill(~mask[:, None, :, None], 0), projection=w, mask=mask)
    assert favor_weights(q, k.masked_fill(~mask[:, None, :, None], torch.nan), projection=w, mask=mask).equal(wanted)

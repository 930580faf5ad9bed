"""FAVOR+: what it estimates, and that the linear, the causal and the quadratic form are one."""

import math

import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import favor_attention, favor_features, favor_step, favor_weights, orthogonal_projection
from regard.ops.favor import chunked
from regard.ops.favor.features import log_features

BATCH, HEADS, HEAD_DIM, VALUE_DIM, FEATURES = 2, 3, 5, 7, 11
TOKENS = [1, 13, 64, 131]  # below, at and beyond the chunk of the causal form


def inputs(tokens, dtype=torch.float32, *, keys=None, scale=1.0):
    keys = tokens if keys is None else keys
    q = scale * torch.randn(BATCH, HEADS, tokens, HEAD_DIM, dtype=torch.float64)
    k = scale * torch.randn(BATCH, HEADS, keys, HEAD_DIM, dtype=torch.float64)
    v = torch.randn(BATCH, HEADS, keys, VALUE_DIM, dtype=torch.float64)
    return [t.to(dtype) for t in (q, k, v)]


def projection(dtype=torch.float32):
    return orthogonal_projection(FEATURES, HEAD_DIM, torch.Generator().manual_seed(3)).to(dtype)


def padding(tokens):
    """The second image has gaps; both keep their first key, so that no causal query goes without."""
    mask = torch.ones(BATCH, tokens, dtype=torch.bool)
    mask[1] = torch.rand(tokens) < 0.6
    mask[:, 0] = True
    return mask


def exponents(x, w):
    x = x.double() / x.shape[-1] ** 0.25
    return x @ w.double().T - x.square().sum(-1, keepdim=True) / 2


def quadratic(q, k, v, w, *, is_causal=False, mask=None):
    """The definition, in float64, without anything subtracted: φ(q) φ(k)ᵀ v over its row sums."""
    kernel = exponents(q, w).exp() @ exponents(k, w).exp().transpose(-2, -1)
    if mask is not None:
        kernel = kernel * mask[:, None, None, :]
    if is_causal:
        kernel = kernel.tril()
    return kernel / kernel.sum(-1, keepdim=True) @ v.double()


# The estimate


def test_projection_is_orthogonal_within_each_block():
    w = orthogonal_projection(13, HEAD_DIM)
    assert w.shape == (13, HEAD_DIM)
    for start in range(0, 13, HEAD_DIM):
        rows = torch.nn.functional.normalize(w[start : start + HEAD_DIM].double(), dim=1)
        assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64), rtol=0, atol=1e-6)


def test_projection_has_the_norms_of_gaussian_vectors():
    """Squared norms of 5-dimensional Gaussian vectors have mean 5 and variance 10; four standard errors of each."""
    draws = 10_000
    squared = orthogonal_projection(draws, HEAD_DIM).double().square().sum(1)
    assert abs(squared.mean() - 5) < 4 * math.sqrt(10 / draws)
    # The fourth central moment of χ² with five degrees of freedom is 12·5·(5 + 4) = 540, less the variance squared.
    assert abs(squared.var() - 10) < 4 * math.sqrt((540 - 100) / draws)


def test_each_row_of_the_projection_points_everywhere_alike():
    """Over draws, every entry of every row has the mean of a Gaussian, zero, within five standard errors."""
    draws = 2_000
    w = orthogonal_projection(draws * HEAD_DIM, HEAD_DIM).unflatten(0, (draws, HEAD_DIM))
    assert w.mean(0).abs().max() < 5 / math.sqrt(draws)


def test_projection_comes_from_the_generator():
    one, two = (orthogonal_projection(FEATURES, HEAD_DIM, torch.Generator().manual_seed(7)) for _ in range(2))
    other = orthogonal_projection(FEATURES, HEAD_DIM, torch.Generator().manual_seed(8))
    assert one.equal(two)
    assert not one.equal(other)


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (-1, 5)])
def test_projection_needs_sizes(sizes):
    with pytest.raises(RegardError, match=r"num_features and head_dim must be at least 1, got -?\d and \d"):
        orthogonal_projection(*sizes)


def test_products_of_features_average_to_the_softmax_kernel():
    """E φ(q)·φ(k) = exp(q·k/√d) over draws of the projection, within four standard errors, along the axes as well."""
    draws, num_features = 4_000, HEAD_DIM
    q = torch.cat([torch.eye(HEAD_DIM), -torch.eye(HEAD_DIM), 0.7 * torch.randn(3, HEAD_DIM)])[None, None]
    k = 0.7 * torch.cat([torch.eye(HEAD_DIM), -torch.eye(HEAD_DIM), torch.randn(3, HEAD_DIM)])[None, None]
    w = orthogonal_projection(draws * num_features, HEAD_DIM)
    # What the op subtracts from the exponents is put back, and its 1/√features, here that of all draws together, too.
    features_q = favor_features(q, w, is_query=True) * exponents(q, w).amax(-1, keepdim=True).exp()
    features_k = favor_features(k, w, is_query=False) * exponents(k, w).amax().exp()
    per_draw = [f[0, 0].double().unflatten(1, (draws, num_features)) * draws**0.5 for f in (features_q, features_k)]
    estimates = torch.einsum("qdf,kdf->dqk", *per_draw)
    error = estimates.mean(0) - (q[0, 0] @ k[0, 0].T * HEAD_DIM**-0.5).double().exp()
    assert (error.abs() / (estimates.std(0) / draws**0.5)).max() < 4


def test_orthogonal_rows_estimate_with_less_variance():
    """Choromanski et al. 2020, theorem 2: the reason for making them orthogonal."""
    draws = 2_000
    q, k = torch.randn(2, HEAD_DIM).double()

    def spread(w):
        products = (exponents(q, w) + exponents(k, w)).exp()
        return products.unflatten(-1, (draws, HEAD_DIM)).mean(-1).var()

    gaussian = torch.randn(draws * HEAD_DIM, HEAD_DIM)
    assert spread(orthogonal_projection(draws * HEAD_DIM, HEAD_DIM)) < spread(gaussian)


def test_many_features_come_close_to_softmax_attention():
    q, k, v = inputs(17, torch.float64, scale=0.5)
    w = orthogonal_projection(20_000, HEAD_DIM).double()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    error = (favor_attention(q, k, v, projection=w) - expected).norm() / expected.norm()
    assert error < 0.03


# One function in three forms


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("tokens", TOKENS)
def test_linear_form_equals_the_matrix_and_the_definition(tokens, with_mask, is_causal):
    q, k, v = inputs(tokens, torch.float64)
    w, mask = projection(torch.float64), padding(tokens) if with_mask else None
    out = favor_attention(q, k, v, projection=w, is_causal=is_causal, mask=mask)
    weights = favor_weights(q, k, projection=w, is_causal=is_causal, mask=mask)
    assert_close(out, weights @ v, rtol=1e-10, atol=1e-10)
    assert_close(out, quadratic(q, k, v, w, is_causal=is_causal, mask=mask), rtol=1e-10, atol=1e-10)
    assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, tokens, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_float32_is_near_float64(with_mask, is_causal):
    q, k, v = inputs(131)
    mask = padding(131) if with_mask else None
    out = favor_attention(q, k, v, projection=projection(), is_causal=is_causal, mask=mask)
    expected = quadratic(q, k, v, projection(), is_causal=is_causal, mask=mask)
    assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


def test_fewer_queries_than_keys():
    q, k, v = inputs(17, torch.float64, keys=71)
    w = projection(torch.float64)
    assert_close(favor_attention(q, k, v, projection=w), quadratic(q, k, v, w), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_gradients_equal_those_of_the_definition(with_mask, is_causal):
    """What is subtracted from the exponents carries no gradient, because it cancels."""
    q, k, v = (t.requires_grad_() for t in inputs(71, torch.float64))
    w, mask = projection(torch.float64), padding(71) if with_mask else None
    upstream = torch.randn(BATCH, HEADS, 71, VALUE_DIM, dtype=torch.float64)
    actual = torch.autograd.grad(
        favor_attention(q, k, v, projection=w, is_causal=is_causal, mask=mask), (q, k, v), upstream
    )
    expected = torch.autograd.grad(quadratic(q, k, v, w, is_causal=is_causal, mask=mask), (q, k, v), upstream)
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sizes", [[1] * 131, [1, 7, 2, 64, 57], [67, 64]], ids=["tokens", "uneven", "large"])
@pytest.mark.parametrize("with_mask", [False, True])
def test_steps_equal_the_causal_form(with_mask, sizes):
    q, k, v = inputs(131, torch.float64)
    w, mask = projection(torch.float64), padding(131) if with_mask else None
    state, outs = None, []
    for pieces in zip(*(t.split(sizes, dim=2) for t in (q, k, v)), torch.arange(131).split(sizes), strict=True):
        part = None if mask is None else mask[:, pieces[3]]
        out, state = favor_step(*pieces[:3], state, projection=w, mask=part)
        outs.append(out)
    expected = favor_attention(q, k, v, projection=w, is_causal=True, mask=mask)
    assert_close(torch.cat(outs, dim=2), expected, rtol=1e-10, atol=1e-10)


# What may not matter


@pytest.mark.parametrize("token", [0, 12, 63, 64, 100])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_future_does_not_leak_into_the_causal_form(scale, token):
    """To the bit, in float32: a stabiliser over all keys would leak through the rounding."""
    q, k, v = inputs(131, scale=scale)
    before = favor_attention(q, k, v, projection=projection(), is_causal=True)
    for t in (q, k, v):
        t[:, :, token + 1 :] = 3 * torch.randn_like(t[:, :, token + 1 :])
    after = favor_attention(q, k, v, projection=projection(), is_causal=True)
    assert after[:, :, : token + 1].equal(before[:, :, : token + 1])
    assert not after[:, :, token + 1 :].equal(before[:, :, token + 1 :])


@pytest.mark.parametrize("is_causal", [False, True])
def test_masked_keys_do_not_matter(is_causal):
    q, k, v = inputs(131)
    mask = padding(131)
    before = favor_attention(q, k, v, projection=projection(), is_causal=is_causal, mask=mask)
    hidden = ~mask[:, None, :, None]
    after = favor_attention(
        q,
        k.masked_fill(hidden, 77.0),
        v.masked_fill(hidden, -7e7),
        projection=projection(),
        is_causal=is_causal,
        mask=mask,
    )
    assert after.equal(before)
    assert not after.equal(favor_attention(q, k, v, projection=projection(), is_causal=is_causal))


@pytest.mark.parametrize("is_causal", [False, True])
def test_masked_keys_are_as_good_as_absent(is_causal):
    """The last keys are masked: the queries before them see what they see without."""
    q, k, v = inputs(131, torch.float64)
    mask = (torch.arange(131) < 89).expand(BATCH, -1)
    w = projection(torch.float64)
    out = favor_attention(q, k, v, projection=w, is_causal=is_causal, mask=mask)[:, :, :89]
    alone = favor_attention(*(t[:, :, :89] for t in (q, k, v)), projection=w, is_causal=is_causal)
    assert_close(out, alone, rtol=1e-10, atol=1e-10)


# Numbers at their limits


def first_image_masked(tokens):
    return (torch.arange(BATCH) > 0)[:, None].expand(-1, tokens)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_set_of_keys_that_is_all_masked_gives_zeros(dtype, is_causal):
    q, k, v = inputs(71, dtype)
    mask = first_image_masked(71)
    out = favor_attention(q, k, v, projection=projection(), is_causal=is_causal, mask=mask)
    weights = favor_weights(q, k, projection=projection(), is_causal=is_causal, mask=mask)
    assert out.dtype == weights.dtype == dtype
    assert out[0].eq(0).all()
    assert weights[0].eq(0).all()
    assert out[1].ne(0).any()


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_set_of_keys_that_is_all_masked_has_no_gradient(dtype, is_causal):
    q, k, v = (t.requires_grad_() for t in inputs(71, dtype))
    out = favor_attention(q, k, v, projection=projection(), is_causal=is_causal, mask=first_image_masked(71))
    for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
        assert gradient.isfinite().all()
        assert gradient[0].eq(0).all()
        assert gradient[1].ne(0).any()


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_precision_is_near_float32(dtype, rounding, is_causal):
    """The sums run in float32, so only the input and the output are rounded: a few roundings of the largest value."""
    q, k, v = inputs(131, dtype)
    out = favor_attention(q, k, v, projection=projection(), is_causal=is_causal)
    wide = favor_attention(q.float(), k.float(), v.float(), projection=projection(), is_causal=is_causal)
    assert out.dtype == dtype
    assert_close(out.float(), wide, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_norms_stay_finite(dtype, is_causal):
    q, k, v = inputs(131, dtype, scale=100.0)
    out = favor_attention(q, k, v, projection=projection(), is_causal=is_causal, mask=padding(131))
    assert out.isfinite().all()
    assert out.ne(0).any()


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_at_large_norms_stay_finite(dtype, is_causal):
    q, k, v = (t.requires_grad_() for t in inputs(131, dtype, scale=100.0))
    out = favor_attention(q, k, v, projection=projection(), is_causal=is_causal, mask=padding(131))
    for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
        assert gradient.isfinite().all()
        assert gradient.ne(0).any()


def test_padding_at_the_left_of_large_keys_stays_finite():
    """The first chunk begins with keys that are masked, and the state that it leaves serves the next chunk."""
    q, k, v = inputs(131, scale=100.0)
    mask = (torch.arange(131) >= 3).expand(BATCH, -1)
    out = favor_attention(q, k, v, projection=projection(), is_causal=True, mask=mask)
    assert out.isfinite().all()


def test_a_constant_added_to_every_value_comes_out():
    """The weights sum to one however the exponents lie: here they span some e^±100."""
    q, k, v = inputs(131, scale=10.0)
    for is_causal in (False, True):
        one = favor_attention(q, k, torch.ones_like(v), projection=projection(), is_causal=is_causal)
        assert_close(one, torch.ones_like(one), rtol=0, atol=1e-4)


def test_the_causal_form_needs_as_many_queries_as_keys():
    q, k, v = inputs(17, keys=13)
    with pytest.raises(RegardError, match="performer: the causal form needs as many queries as keys, got 17 and 13"):
        favor_attention(q, k, v, projection=projection(), is_causal=True)


# Kinds of features, and tokens in chunks


@pytest.mark.parametrize("num_features", [5, 20])
def test_the_error_of_the_kernel_falls_with_the_root_of_the_features(num_features):
    """Sixteen times as many features, a quarter of the error; over draws, within a fifth."""
    draws = 500
    q, k = 0.35 * torch.randn(2, 1, 1, 29, HEAD_DIM, dtype=torch.float64)
    exact = (q @ k.transpose(-2, -1) * HEAD_DIM**-0.5).exp()

    def error(count, kind):
        total = 0.0
        for draw in range(draws):
            w = orthogonal_projection(count, HEAD_DIM, torch.Generator().manual_seed(draw)).double()
            tops = [log_features(part, w, kind).amax(axes, keepdim=True) for part, axes in ((q, -1), (k, (-2, -1)))]
            features = [
                favor_features(part, w, kind=kind, is_query=is_query) * top.exp()
                for part, top, is_query in zip((q, k), tops, (True, False), strict=True)
            ]
            total += (features[0] @ features[1].transpose(-2, -1) - exact).square().mean()
        return (total / draws) ** 0.5

    for kind in ("softmax_positive", "softmax_hyperbolic"):
        ratio = error(num_features, kind) / error(16 * num_features, kind)
        assert 3.2 < ratio < 4.8
    assert error(num_features, "softmax_hyperbolic") < error(num_features, "softmax_positive")


def test_relu_features_are_what_they_say():
    q, k, v = inputs(13, torch.float64)
    w = projection(torch.float64)

    def features(x):
        return (x * HEAD_DIM**-0.25 @ w.T).relu() / FEATURES**0.5 + 1e-3

    kernel = features(q) @ features(k).transpose(-2, -1)
    wanted = kernel / kernel.sum(-1, keepdim=True) @ v
    for impl in ("math", "chunked"):
        assert_close(favor_attention(q, k, v, projection=w, kind="relu", impl=impl), wanted)


@pytest.mark.parametrize("kind", ["softmax_positive", "softmax_hyperbolic", "relu"])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("piece", [1, 1000, 2**19])
def test_chunks_equal_the_definition_in_values_and_gradients(kind, with_mask, piece, monkeypatch):
    monkeypatch.setattr(chunked, "FEATURES", piece)
    q, k, v = (part.requires_grad_() for part in inputs(131, torch.float64, keys=157))
    mask = padding(157) if with_mask else None
    results = []
    for impl in ("math", "chunked"):
        out = favor_attention(q, k, v, projection=projection(torch.float64), kind=kind, mask=mask, impl=impl)
        torch.manual_seed(1)
        results.append([out, *torch.autograd.grad((out * torch.randn_like(out)).sum(), (q, k, v))])
    for wanted, found in zip(*results, strict=True):
        assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["softmax_hyperbolic", "relu"])
@pytest.mark.parametrize("with_mask", [False, True])
def test_other_kinds_are_causal_too(kind, with_mask):
    q, k, v = inputs(131, torch.float64)
    w, mask = projection(torch.float64), padding(131) if with_mask else None
    out = favor_attention(q, k, v, projection=w, kind=kind, is_causal=True, mask=mask)
    assert_close(out, favor_weights(q, k, projection=w, kind=kind, is_causal=True, mask=mask) @ v)
    state, steps = None, []
    for start in range(0, 131, 17):
        piece = slice(start, start + 17)
        step_mask = None if mask is None else mask[:, piece]
        some = (part[:, :, piece] for part in (q, k, v))
        step, state = favor_step(*some, state, projection=w, kind=kind, mask=step_mask)
        steps.append(step)
    assert_close(torch.cat(steps, 2), out)


@pytest.mark.parametrize("kind", ["softmax_positive", "relu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_chunks_accumulates_in_float32(kind, dtype):
    q, k, v = inputs(2049, dtype, scale=0.5)
    out = favor_attention(q, k, v, projection=projection(), kind=kind, impl="chunked")
    assert out.dtype == dtype
    exact = favor_attention(
        *(part.double() for part in (q, k, v)), projection=projection().double(), kind=kind, impl="math"
    )
    assert_close(out.double(), exact, rtol=0.02, atol=2e-3)


def test_masked_keys_everywhere_give_zeros_in_chunks():
    q, k, v = (part.requires_grad_() for part in inputs(31))
    mask = torch.zeros(BATCH, 31, dtype=torch.bool)
    mask[1] = True
    out = favor_attention(q, k, v, projection=projection(), mask=mask, impl="chunked")
    assert not out[0].any()
    assert out[1].any()
    out.sum().backward()
    assert all(part.grad.isfinite().all() for part in (q, k, v))


def test_unknown_kinds_and_paths():
    q, k, v = inputs(3)
    with pytest.raises(RegardError, match="unknown kind of features 'softmax'"):
        favor_attention(q, k, v, projection=projection(), kind="softmax")
    with pytest.raises(RegardError, match="unknown impl 'fast'"):
        favor_attention(q, k, v, projection=projection(), impl="fast")

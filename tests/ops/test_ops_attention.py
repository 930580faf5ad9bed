"""Scaled dot-product attention: the fast paths held to `math`, and `math` to the definition."""

import inspect
import math

import jaxtyping
import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import attention, attention_weights

BATCH, HEADS, QUERIES, KEYS, HEAD_DIM, VALUE_DIM = 2, 3, 5, 7, 11, 13
LOGITS = (BATCH, HEADS, QUERIES, KEYS)
MASKS = {"none": None, "pairs": (QUERIES, KEYS), "keys": (BATCH, 1, 1, KEYS), "full": LOGITS}
BIASES = {"none": None, "heads": (HEADS, QUERIES, KEYS), "full": LOGITS}
# The half types keep 8 and 11 bits; each path rounds its weights once, and gradients gather a few such errors.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in TOLERANCE]


def inputs(dtype=torch.float64, *, requires_grad=True):
    shapes = (
        (BATCH, HEADS, QUERIES, HEAD_DIM),
        (BATCH, HEADS, KEYS, HEAD_DIM),
        (BATCH, HEADS, KEYS, VALUE_DIM),
    )
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(requires_grad) for shape in shapes]


def masked(kind):
    """A random mask with, where queries have rows of their own, one query that may look nowhere."""
    if MASKS[kind] is None:
        return None
    mask = torch.rand(MASKS[kind]) < 0.6
    mask[..., 0] = True
    if kind != "keys":
        mask[..., 3, :] = False
    return mask


def values_and_gradients(leaves, **kwargs):
    out = attention(*leaves[:3], **kwargs)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("bias_kind", BIASES)
@pytest.mark.parametrize("mask_kind", MASKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_fast_paths_equal_math(dtype, mask_kind, bias_kind, is_causal, scale):
    """Values, and gradients of q, k, v and bias."""
    leaves = inputs(dtype)
    kwargs = {"mask": masked(mask_kind), "is_causal": is_causal, "scale": scale}
    if BIASES[bias_kind] is not None:
        kwargs["bias"] = torch.randn(BIASES[bias_kind], dtype=torch.float64).to(dtype).requires_grad_()
        leaves.append(kwargs["bias"])
    expected = values_and_gradients(leaves, **kwargs, impl="math")
    for impl in ("sdpa", "auto"):
        actual = values_and_gradients(leaves, **kwargs, impl=impl)
        for name, a, b in zip(("out", "q", "k", "v", "bias"), actual, expected, strict=False):
            assert a.dtype == dtype
            where = f"{impl}, {name}: "
            assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], msg=lambda m, where=where: where + m)


def by_definition(q, k, v, mask, bias, is_causal, scale):
    """The sum over keys, number by number."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    q, k, v, bias = q.tolist(), k.tolist(), v.tolist(), bias.expand(LOGITS).tolist()
    mask = mask.expand(LOGITS).tolist()
    for b in range(BATCH):
        for h in range(HEADS):
            for i in range(QUERIES):
                seen = [j for j in range(KEYS) if mask[b][h][i][j] and not (is_causal and j > i)]
                weights = {
                    j: math.exp(
                        scale * sum(x * y for x, y in zip(q[b][h][i], k[b][h][j], strict=True)) + bias[b][h][i][j]
                    )
                    for j in seen
                }
                for c in range(VALUE_DIM):
                    mixed = sum(weights[j] * v[b][h][j][c] for j in seen)
                    out[b, h, i, c] = mixed / sum(weights.values()) if seen else 0.0
    return out


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask_kind", MASKS)
def test_math_equals_the_definition(mask_kind, is_causal, scale):
    q, k, v = inputs(requires_grad=False)
    mask, bias = masked(mask_kind), torch.randn(HEADS, QUERIES, KEYS, dtype=torch.float64)
    out = attention(q, k, v, mask=mask, bias=bias, is_causal=is_causal, scale=scale, impl="math")
    everywhere = torch.ones(1, dtype=torch.bool)
    expected = by_definition(
        q, k, v, everywhere if mask is None else mask, bias, is_causal, HEAD_DIM**-0.5 if scale is None else scale
    )
    assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("impl", ["math", "sdpa", "auto"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_that_may_look_nowhere(dtype, impl, with_bias):
    """It gives zeros, exactly, and gradients that are finite, and zero for that query."""
    leaves = inputs(dtype)
    mask = torch.ones(BATCH, 1, QUERIES, KEYS, dtype=torch.bool)
    mask[0, :, 2] = False
    mask[1] = False
    bias = torch.randn(QUERIES, KEYS).to(dtype).requires_grad_() if with_bias else None
    out, *gradients = values_and_gradients(leaves + [bias] * with_bias, mask=mask, bias=bias, impl=impl)
    assert out[0, :, 2].eq(0).all()
    assert out[1].eq(0).all()
    assert out[0, :, 0].ne(0).all()
    for gradient in gradients:
        assert gradient.isfinite().all()
    assert gradients[0][0, :, 2].eq(0).all()
    for gradient in gradients[:3]:
        assert gradient[1].eq(0).all()
        assert gradient[0].ne(0).any()


@pytest.mark.parametrize("impl", ["math", "sdpa", "auto"])
@pytest.mark.parametrize("layout", ["tokens before heads", "last stride not one", "expanded heads"])
def test_strides_do_not_matter(layout, impl):
    q, k, v = inputs(requires_grad=False)
    if layout == "tokens before heads":
        strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    elif layout == "last stride not one":
        strided = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v)]
    else:
        strided = [t[:, :1].expand(-1, HEADS, -1, -1) for t in (q, k, v)]
        q, k, v = (t.contiguous() for t in strided)
    assert not any(t.is_contiguous() for t in strided)
    mask = masked("full")
    assert_close(attention(*strided, mask=mask, impl=impl), attention(q, k, v, mask=mask), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask_kind", MASKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_weights_sum_to_one_or_zero(dtype, mask_kind, is_causal):
    q, k, _ = inputs(dtype, requires_grad=False)
    mask = masked(mask_kind)
    weights = attention_weights(q, k, mask=mask, is_causal=is_causal)
    visible = torch.ones(LOGITS, dtype=torch.bool)
    if mask is not None:
        visible = visible & mask
    if is_causal:
        visible = visible & (torch.arange(KEYS) <= torch.arange(QUERIES)[:, None])
    assert weights.dtype == dtype
    assert weights[~visible].eq(0).all()
    assert weights.ge(0).all()
    assert_close(weights.double().sum(-1), visible.any(-1).double(), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("impl", ["math", "sdpa"])
def test_large_logits_stay_finite(impl):
    q, k, v = (200 * t for t in inputs(torch.float32, requires_grad=False))
    out = attention(q, k, v, mask=masked("pairs"), impl=impl)
    assert out.isfinite().all()
    assert out.ne(0).any()


def test_a_bias_that_hides_every_key():
    bias = torch.zeros(QUERIES, KEYS, dtype=torch.float64)
    bias[2] = float("-inf")
    expected = attention(*inputs(), mask=bias == 0, impl="math")
    for impl in ("math", "sdpa"):
        assert_close(attention(*inputs(), bias=bias, impl=impl)[:, :, 2], expected[:, :, 2], rtol=0, atol=0)


def test_gradcheck_of_math():
    leaves = [torch.randn(1, 2, n, d, dtype=torch.float64, requires_grad=True) for n, d in ((3, 5), (5, 5), (5, 7))]
    bias = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 5) < 0.7
    mask[1] = False

    def function(q, k, v, bias):
        return attention(q, k, v, mask=mask, bias=bias, scale=0.3, impl="math")

    assert torch.autograd.gradcheck(function, (*leaves, bias), eps=1e-6, atol=1e-8)


def test_unknown_impl():
    with pytest.raises(RegardError, match=r"attention: unknown impl 'spda'; did you mean 'sdpa'\? Known: auto, math"):
        attention(*inputs(), impl="spda")


@pytest.mark.parametrize("name", ["mask", "bias"])
@pytest.mark.parametrize("shape", [(KEYS, QUERIES), (BATCH, KEYS), (HEADS, 1, 1, KEYS), (1, *LOGITS)])
@pytest.mark.parametrize("function", [attention, lambda q, k, v, **kwargs: attention_weights(q, k, **kwargs)])
def test_what_does_not_broadcast_is_named(function, shape, name):
    tensor = torch.ones(shape, dtype=torch.bool if name == "mask" else torch.float64)
    with pytest.raises(RegardError, match=rf"attention: {name} \(.*\) does not broadcast to .* \(2, 3, 5, 7\)"):
        function(*inputs(), **{name: tensor})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda q, k, v: (q, k[..., :-1], v), r"q \(2, 3, 5, 11\) and k \(2, 3, 7, 10\)"),
        (lambda q, k, v: (q, k[:1], v[:1]), r"q \(2, 3, 5, 11\) and k \(1, 3, 7, 11\)"),
        (lambda q, k, v: (q, k[:, :2], v[:, :2]), r"q \(2, 3, 5, 11\) and k \(2, 2, 7, 11\)"),
        (lambda q, k, v: (q[0], k[0], v[0]), r"q \(3, 5, 11\) and k \(3, 7, 11\)"),
        (lambda q, k, v: (q, k, v[:, :, 1:]), r"v \(2, 3, 6, 13\) must have k's batch, heads and keys, \(2, 3, 7\)"),
    ],
    ids=["head_dim", "batch", "heads", "three axes", "keys of v"],
)
def test_shapes_that_do_not_meet(spoil, message):
    """The package's own error, below the tests' shape checker, which is the first to see it."""
    wrong = spoil(*inputs())
    with pytest.raises(jaxtyping.TypeCheckError):
        attention(*wrong)
    with pytest.raises(RegardError, match=message):
        inspect.unwrap(attention)(*wrong)


def test_a_mask_that_is_not_bool():
    mask = torch.zeros(QUERIES, KEYS)
    with pytest.raises(jaxtyping.TypeCheckError):
        attention(*inputs(), mask=mask)
    with pytest.raises(RegardError, match=r"mask must be bool, True where a query may look; got torch\.float32"):
        inspect.unwrap(attention)(*inputs(), mask=mask)


@pytest.mark.parametrize("scale", [-0.5, 0.0])
@pytest.mark.parametrize("keys", [5, 37])
def test_a_scale_of_zero_or_below_with_a_causal_mask(scale, keys):
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 3, 7), torch.randn(1, 2, keys, 7), torch.randn(1, 2, keys, 5)
    fused, exact = (attention(q, k, v, is_causal=True, scale=scale, impl=impl) for impl in ("sdpa", "math"))
    assert_close(fused, exact)
    assert fused.isfinite().all()


@pytest.mark.parametrize("keys", [5, 16, 37])
def test_nan_in_a_bias_reaches_who_looks_there_and_nobody_else(keys):
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 1, 3, 7), torch.randn(1, 1, keys, 7), torch.randn(1, 1, keys, 5)
    bias, mask = torch.zeros(3, keys), torch.ones(3, keys, dtype=torch.bool)
    bias[0, 0] = bias[1, 0] = math.nan
    mask[1] = False
    for impl in ("sdpa", "math"):
        given = bias.clone().requires_grad_()
        out = attention(q, k, v, bias=given, mask=mask, impl=impl)
        assert out[0, 0].isnan().all(-1).tolist() == [True, False, False]
        out[0, 0, 1:].sum().backward()
        assert given.grad[1:].isfinite().all()

"""NaN and infinity in local attention in C++: what each query sees of them, and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from regard.ops import local_attention, native_state
from regard.ops.local.arguments import Case
from regard.ops.local.native import native_serves
from regard.ops.local.windows import neighbours, num_offsets

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _with_a_compiler():
    if native_state().library is None:
        pytest.skip(f"no native path: {native_state().reason}")


def defined(q, k, v, *, window, dilation=1, border="clip", mask=None, rel=None, bias=None, prefix=None, scale=None):
    """The equation; what does not exist is replaced by zeros before anything is computed with it."""
    height, width = q.shape[2:4]
    down, right = (neighbours(length, window, dilation, border) for length in (height, width))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    y, x = down.pixel[:, None, :, None], right.pixel[None, :, None, :]
    seen = (down.there[:, None, :, None] & right.there[None, :, None, :]).expand(len(q), q.shape[1], -1, -1, -1, -1)
    rows, cols = down.offset[:, None, :, None], right.offset[None, :, None, :]
    if mask is not None:
        seen = seen & mask[:, None][:, :, y, x]
    if bias is not None:
        seen = seen & (bias[:, rows, cols] != -INF)

    def of_pairs(t: Tensor) -> Tensor:
        return t.where(seen[..., None], 0)

    q_scaled = (q * scale)[:, :, :, :, None, None]
    logits = (of_pairs(q_scaled) * of_pairs(k[:, :, y, x])).sum(-1)
    if rel is not None:
        parts = [
            table[at].expand(height, width, window, window, -1) for table, at in zip(rel, (rows, cols), strict=True)
        ]
        embedded = torch.cat(parts, -1)
        logits = logits + (of_pairs(q_scaled) * of_pairs(embedded)).sum(-1)
    if bias is not None:
        logits = logits + bias[:, rows, cols].where(seen, 0)
    values, seen, logits = of_pairs(v[:, :, y, x]).flatten(-3, -2), seen.flatten(-2), logits.flatten(-2)
    if prefix is not None:
        to_prefix = (q_scaled[:, :, :, :, 0] * prefix[1][:, :, None, None]).sum(-1)
        logits, seen = torch.cat([to_prefix, logits], -1), F.pad(seen, (prefix[1].shape[2], 0), value=True)
        values = torch.cat([prefix[2][:, :, None, None].expand(-1, -1, height, width, -1, -1), values], -2)
    some = seen.any(-1, keepdim=True)
    weights = logits.where(seen, -INF).where(some, 0).softmax(-1).where(seen, 0)
    return (weights[..., None] * values).sum(-2)


def both(case, arguments, d_out):
    """(values, gradients) of the C++ path and of the definition."""
    found = []
    for run in (native, defined):
        leaves = [t if t is None else t.detach().clone().requires_grad_() for t in arguments]
        q, k, v, rows, cols, bias, *prefix = leaves
        rel = None if rows is None else (rows, cols)
        out = run(q, k, v, rel=rel, bias=bias, prefix=tuple(prefix) or None, **case)
        grads = torch.autograd.grad(out, [t for t in leaves if t is not None], d_out, allow_unused=True)
        found.append([out.detach(), *(g for g in grads if g is not None)])
    return found


def native(q, k, v, *, rel, prefix, **case):
    rows, cols = rel or (None, None)
    out = local_attention(q, k, v, rel_rows=rows, rel_cols=cols, prefix=prefix, impl="native", **case)
    return out if prefix is None else out[0]


def assert_alike(case, arguments, d_out):
    given = [t for t in (*arguments, d_out) if t is not None]
    # Sums of products with 1e30 are as exact as the largest of them.
    rounding = 1e25 if any((t.where(t.isfinite(), 0).abs() > 1e20).any() for t in given) else 0
    for number, (ours, theirs) in enumerate(zip(*both(case, arguments, d_out), strict=True)):
        if number and len(arguments) > 6:  # a prefix is merged afterwards: inf - inf, where the definition has inf
            ours, theirs = (t.where(t.isfinite(), NAN) for t in (ours, theirs))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 + rounding, equal_nan=True)


def random_case(seed: int):
    random = torch.Generator().manual_seed(seed)

    def draw(*of):
        return of[int(torch.randint(len(of), (), generator=random))]

    border, dilation = draw("clip", "shift"), draw(1, 1, 2, 3)
    window = draw(1, 3, 5, 7, 21) if border == "clip" else draw(1, 3)
    height, width, dim = draw(9, 11, 17), draw(9, 10, 19, 33), draw(1, 3, 8)
    heads, offsets = 2, num_offsets(window, border)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    tokens = [normal(2, heads, height, width, dim) for _ in range(3)]
    rel = [normal(offsets, dim // 2), normal(offsets, dim - dim // 2)] if dim > 1 and draw(0, 1) else [None, None]
    bias = normal(heads, offsets, offsets) if draw(0, 1) else None
    prefix = [normal(2, heads, 2, dim) for _ in range(3)] if draw(0, 1) else []
    mask = torch.rand(2, height, width, generator=random) > draw(0.1, 0.6, 0.9) if draw(0, 1) else None
    d_out = normal(2, heads, height, width, dim)
    arguments = [*tokens, *rel, bias, *prefix]
    for _ in range(draw(0, 1, 3)):
        victim = draw(*(t for t in [*tokens, *tokens, *rel, bias, d_out, *prefix[1:]] if t is not None))
        victim.view(-1)[int(torch.randint(victim.numel(), (), generator=random))] = draw(NAN, INF, -INF, 1e30, -1e30)
    if bias is not None and draw(0, 1):
        bias[torch.rand(bias.shape, generator=random) > 0.5] = -INF
    return {"window": window, "dilation": dilation, "border": border, "mask": mask}, arguments, d_out


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_definition_whatever_the_numbers_are(seed):
    assert_alike(*random_case(seed))


def tokens(*shape, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(*shape) for _ in range(3)]


@pytest.mark.parametrize("victim", ["q", "k", "v"])
@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_a_number_that_is_not_finite_reaches_those_that_see_it_and_no_other(victim, number):
    q, k, v = tokens(1, 2, 12, 21, 6)
    {"q": q, "k": k, "v": v}[victim][0, 1, 5, 9, 2] = number
    reached = ~local_attention(q, k, v, window=5, impl="native").isfinite()
    expected = torch.zeros_like(reached)
    if victim == "q":
        expected[0, 1, 5, 9] = True
    elif victim == "v":
        expected[0, 1, 3:8, 7:12, 2] = True
    else:  # a logit of -inf is a weight of zero
        expected[0, 1, 3:8, 7:12] = True
        lost = q[0, 1, 3:8, 7:12, 2] * number == -INF
        expected[0, 1, 3:8, 7:12][lost] = False
    assert torch.equal(reached, expected)


def test_all_keys_nan():
    q, k, v = tokens(1, 1, 4, 4, 4)
    assert local_attention(q, k * NAN, v, window=3, impl="native").isnan().all()
    assert local_attention(q, k, v, window=3, scale=NAN, impl="native").isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("low", [-5e29, -1e30, -1e38, -INF])
def test_a_very_small_logit_exists(dtype, low):
    """Where all logits are equal each value counts the same, however small they are."""
    q, k, v = (t.to(dtype).requires_grad_() for t in tokens(1, 1, 7, 18, 3))
    bias = torch.full((1, 3, 3), max(low, torch.finfo(dtype).min), dtype=dtype)
    out = local_attention(q, k, v, window=3, bias=bias, impl="native")
    summed = F.avg_pool2d(v[:, 0].float().permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False).permute(0, 2, 3, 1)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(out[:, 0].float(), summed, rtol=tolerance, atol=tolerance)
    d_out = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(of, v, to)[0] for of, to in ((out, d_out), (summed, d_out[:, 0].float())))
    torch.testing.assert_close(ours, theirs, rtol=10 * tolerance, atol=10 * tolerance)


def test_values_near_the_largest_number_do_not_overflow_in_the_sum():
    q, k, v = tokens(1, 1, 5, 5, 2)
    v = torch.full_like(v, 3e38)
    torch.testing.assert_close(local_attention(q, k, v, window=5, impl="native"), v)


@pytest.mark.parametrize("payload", [0x7FFF, -1, 0x7F81])
def test_no_nan_becomes_a_number_in_bfloat16(payload):
    q, k, v = (t.bfloat16() for t in tokens(1, 1, 5, 5, 2))
    bias = torch.full((1, 3, 3), payload, dtype=torch.int16).view(torch.bfloat16)
    assert local_attention(q, k, v, window=3, bias=bias, impl="native").isnan().all()


@pytest.mark.parametrize("window", [99, 10_001, 200_001, 2**32 + 1, 2**62 + 1, 2**63 - 1, (200_001, 1), (1, 2**40 + 1)])
@pytest.mark.parametrize("dilation", [1, 3, 100_000, 2**40, 2**63 - 1])
def test_windows_far_beyond_the_grid(window, dilation):
    height, width = 9, 35
    q, k, v = (t.requires_grad_() for t in tokens(1, 1, height, width, 3))
    small = [min(n, 99) for n in (window if isinstance(window, tuple) else (window, window))]
    out = local_attention(q, k, v, window=window, dilation=dilation, impl="native")
    same = local_attention(q, k, v, window=(small[0], small[1]), dilation=min(dilation, 50), impl="native")
    assert torch.equal(out, same)
    assert torch.equal(torch.autograd.grad(out.sum(), q)[0], torch.autograd.grad(same.sum(), q)[0])


@pytest.mark.parametrize("width", [65, 150, 300])
def test_a_window_over_all_of_a_wide_grid(width):
    q, k, v = (t.requires_grad_() for t in tokens(1, 2, 2, width, 5))
    out = local_attention(q, k, v, window=(3, 2 * width - 1), impl="native")
    dense = F.scaled_dot_product_attention(*(t.flatten(2, 3) for t in (q, k, v))).view_as(out)
    d_out = torch.randn_like(out)
    torch.testing.assert_close(out, dense, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(*(torch.autograd.grad(of, (q, k, v), d_out) for of in (out, dense)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_auto_leaves_a_window_that_needs_gigabytes_to_another_path():
    q = torch.empty(1, 1, 256, 256, 4)
    case = Case(7, 7, 1, "clip", None, None, None, None, 1.0)
    assert native_serves(q, case)
    assert native_serves(q[:, :, :56, :56], case._replace(rows=111, cols=111))
    assert not native_serves(q, case._replace(rows=511, cols=511))


@pytest.mark.parametrize("border", ["clip", "shift"])
def test_tables_larger_than_the_grid(border):
    """Rows that no pair of pixels reaches get a gradient of zero, and one that is NaN changes nothing."""
    q, k, v = (t.requires_grad_() for t in tokens(2, 2, 5, 6, 4))
    window, dilation = (21, 1) if border == "clip" else (3, 1)
    offsets = num_offsets(window, border)
    rel = [torch.randn(offsets, 2, requires_grad=True) for _ in range(2)]
    bias = torch.randn(2, offsets, offsets, requires_grad=True)
    assert_alike({"window": window, "dilation": dilation, "border": border}, [q, k, v, *rel, bias], torch.randn_like(q))
    if border == "clip":
        with torch.no_grad():
            for part in (*rel, bias):
                part[..., 0, :] = NAN
        out = local_attention(q, k, v, window=window, rel_rows=rel[0], rel_cols=rel[1], bias=bias, impl="native")
        grads = torch.autograd.grad(out.sum(), [*rel, bias])
        assert all(part.isfinite().all() for part in (out, *grads))
        assert not any(part[..., 0, :].any() for part in grads)


def test_backward_of_a_large_window_needs_no_memory_for_it():
    q, k, v = (t.requires_grad_() for t in tokens(8, 8, 4, 4, 8))
    rel = [torch.randn(301, 4, requires_grad=True) for _ in range(2)]
    bias = torch.randn(8, 301, 301, requires_grad=True)
    out = local_attention(q, k, v, window=301, rel_rows=rel[0], rel_cols=rel[1], bias=bias, impl="native")
    assert torch.autograd.grad(out.sum(), bias)[0][:, 147:154, 147:154].isfinite().all()

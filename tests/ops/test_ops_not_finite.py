"""NaN and infinity where PyTorch's kernels would swallow or spread them, and scales that are no ordinary number."""

import math
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from regard.layers import StemAttention2d
from regard.ops import attention, deformable_attention, local_attention, stem_attention
from regard.ops.local.blocked import BLOCK

NAN, INF = math.nan, math.inf
LOCAL = ["math", "blocked", "native", "auto"]


@pytest.mark.parametrize("scale", [NAN, INF, -INF, 1e39, -1e300])
def test_a_scale_that_is_no_number_gives_none(scale):
    """The fused kernel gave zeros, or numbers."""
    for keys in (5, 40):
        q, k, v = torch.randn(3, 1, 2, keys, 8)
        for impl in ("math", "sdpa", "auto"):
            assert attention(q, k, v, scale=scale, impl=impl).isnan().all()
    q, k, v = torch.randn(3, 1, 2, 5, 6, 8)
    for impl in LOCAL:
        assert local_attention(q, k, v, window=3, scale=scale, impl=impl).isnan().all()


@pytest.mark.parametrize("keys", [1, 5, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_query_that_is_nan_gives_nan_and_no_other_does(keys, dtype):
    """With fewer keys than a vector has lanes the kernel gave zeros."""
    q, k, v = (torch.randn(1, 2, count, 8, dtype=torch.float64).to(dtype) for count in (7, keys, keys))
    q[0, 1, 3] = NAN
    for impl in ("math", "sdpa", "auto"):
        out = attention(q, k, v, impl=impl)
        assert out[0, 1, 3].isnan().all()
        assert out.isnan().sum() == 8
        assert attention(q, torch.full_like(k, NAN), v, impl=impl).isnan().all()


@pytest.mark.parametrize("impl", LOCAL)
@pytest.mark.parametrize("size", [(3, 4), (9, 10), (19, 23)])
@pytest.mark.parametrize("border", ["clip", "shift"])
def test_nan_reaches_the_queries_whose_windows_hold_it(impl, size, border):
    """In values all channels of a key, one of a value; and in the gradients of q the same pixels."""
    height, width = size
    near = torch.zeros(height, width, dtype=torch.bool)
    at = (height - 2, width // 2)
    for y in range(height):
        for x in range(width):
            rows = min(max(y, 1), height - 2) if border == "shift" else y
            cols = min(max(x, 1), width - 2) if border == "shift" else x
            near[y, x] = abs(rows - at[0]) <= 1 and abs(cols - at[1]) <= 1
    for name in "kv":
        parts = dict(zip("qkv", torch.randn(3, 1, 2, *size, 8), strict=True))
        parts[name][0, 1, *at, 5] = NAN
        parts["q"].requires_grad_()
        out = local_attention(**parts, window=3, border=border, impl=impl)
        wanted = near[..., None].expand(-1, -1, 8) & ((torch.arange(8) == 5) | (name == "k"))
        assert out[0, 1].isnan().equal(wanted)
        assert not out[0, 0].isnan().any()
        (gradient,) = torch.autograd.grad(out.sum(), parts["q"])
        assert gradient[0, 1].isnan().any(-1).equal(near)
    everything = local_attention(*torch.full((3, 1, 2, *size, 8), NAN), window=3, border=border, impl=impl)
    assert everything.isnan().all()


@pytest.mark.parametrize("impl", LOCAL)
def test_a_bias_of_minus_infinity_is_a_mask(impl):
    """`blocked` made everything NaN."""
    height, width = 2 * BLOCK + 3, 2 * BLOCK + 1
    q, k, v = (part.requires_grad_() for part in torch.randn(3, 1, 2, height, width, 8))
    bias = torch.zeros(2, 3, 3)
    bias[:, 0] = bias[:, :, 0] = -INF
    bias[1] = -INF
    out = local_attention(q, k, v, window=3, bias=bias, impl=impl)
    assert out[:, 1].eq(0).all()
    rows, cols = (torch.arange(size)[:, None] + torch.arange(2) for size in (height, width))
    wanted = torch.zeros(height, width, 8)
    for y in range(height):
        for x in range(width):
            held = [(a, b) for a in rows[y].tolist() for b in cols[x].tolist() if a < height and b < width]
            logits = torch.stack([q[0, 0, y, x] @ k[0, 0, a, b] for a, b in held]) * 8**-0.5
            wanted[y, x] = logits.softmax(0) @ torch.stack([v[0, 0, a, b] for a, b in held])
    assert_close(out[0, 0], wanted, rtol=1e-4, atol=1e-5)
    for gradient in torch.autograd.grad(out.square().sum(), (q, k, v)):
        assert gradient.isfinite().all()
        assert gradient[:, 1].eq(0).all()


@pytest.mark.parametrize("impl", LOCAL)
@pytest.mark.parametrize("scale", [0.0, -0.7, 1e-38])
def test_scales_that_a_bias_cannot_be_divided_by(impl, scale):
    q, k, v = torch.randn(3, 1, 2, 9, 10, 8)
    more = {"bias": torch.randn(2, 3, 3), "rel_rows": torch.randn(3, 4), "rel_cols": torch.randn(3, 4)}
    wanted = local_attention(
        *(part.double() for part in (q, k, v)), window=3, scale=scale, impl="math",
        **{name: part.double() for name, part in more.items()},
    )  # fmt: skip
    found = local_attention(q, k, v, window=3, scale=scale, **more, impl=impl)
    assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -0.5, 0.3])
def test_the_stem_has_no_pixels_beyond_the_border_at_any_scale(scale):
    """-inf · 0 is NaN, and -inf · -1 is the largest there is."""
    layer = StemAttention2d(3, 8, num_heads=2, window=3)
    x = torch.randn(1, 3, 5, 6)
    q, k = layer.qk(x).unflatten(1, (2, 2, -1)).unbind(1)
    mixture = torch.zeros(3, 3, 4)
    out = stem_attention(q, k, x, layer.value_maps, mixture, scale=scale)
    corner = torch.stack([q[0, :, :, 0, 0].mul(k[0, :, :, y, z]).sum(-1) * scale for y in (0, 1) for z in (0, 1)])
    seen = torch.stack([x[0, :, y, z] for y in (0, 1) for z in (0, 1)])
    wanted = torch.einsum("nh,nc,hdc->hd", corner.softmax(0), seen, layer.value_maps.mean(0))
    assert_close(out[0, :, :, 0, 0], wanted, rtol=1e-4, atol=1e-5)
    x[0, 0, 4, 5] = NAN
    out = stem_attention(q, k, x, layer.value_maps, mixture, scale=scale)
    assert out.isnan().any(1).any(1)[0].nonzero().tolist() == [[3, 4], [3, 5], [4, 4], [4, 5]]


def test_deformable_attention_shows_what_it_samples():
    value, weights = torch.randn(1, 2, 12, 4), torch.rand(1, 2, 3, 1, 2)
    locations = torch.full((1, 2, 3, 1, 2, 2), 0.1)
    locations[0, 0, 1, 0, 0, 1] = NAN
    out = deformable_attention(value, [(3, 4)], locations, weights)
    assert out.isnan().any(-1)[0].nonzero().tolist() == [[0, 1]]
    value[0, 1, 11] = NAN  # the last token; no point is near it
    assert deformable_attention(value, [(3, 4)], locations.nan_to_num(), weights).isfinite().all()
    locations[0, 1, 2] = 0.99
    assert deformable_attention(value, [(3, 4)], locations.nan_to_num(), weights)[0, 1, 2].isnan().all()


@pytest.mark.parametrize("impl", LOCAL)
def test_finite_logits_may_be_as_large_as_float32_holds(impl):
    """Beyond 5e29 a logit counted as none."""
    q, k, v = torch.randn(3, 1, 2, 9, 10, 8)
    for factor in (1e15, 1e19):
        wanted = local_attention((q * factor).double(), (k * 1e15).double(), v.double(), window=3, impl="math")
        found = local_attention(q * factor, k * 1e15, v, window=3, impl=impl)
        assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_takes_the_kernel_since_it_cannot_look():
    q, k, v = torch.randn(3, 5, 1, 2, 7, 8)
    for options in ({}, {"is_causal": True}, {"mask": torch.ones(7, 7, dtype=torch.bool).tril()}):
        one_by_one = torch.stack([attention(*parts, **options) for parts in zip(q, k, v, strict=True)])
        for impl in ("auto", "math"):
            found = torch.vmap(lambda q, k, v, o=options, i=impl: attention(q, k, v, impl=i, **o))(q, k, v)
            assert_close(found, one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_flex_is_its_definition_with_nan_too():
    """Without the shape checker, which its compiler cannot read."""
    script = """
import torch
from torch.testing import assert_close
from regard.ops import local_attention

torch.manual_seed(0)
for case in range(12):
    parts = list(torch.randn(3, 1, 2, 9, 10, 8))
    for place in range(case % 3):
        parts[torch.randint(3, ())].view(-1)[torch.randint(1440, ())] = [torch.nan, torch.inf][case % 2]
    mask = torch.rand(1, 9, 10) < 0.7 if case % 4 < 2 else None
    bias = torch.randn(2, 3, 3).masked_fill(torch.rand(2, 3, 3) < 0.5, -torch.inf) if case % 3 else None
    if mask is not None:
        parts[1:] = [part.masked_fill(~mask[:, None, :, :, None], torch.nan) for part in parts[1:]]
    options = {"window": 3, "mask": mask, "bias": bias}
    wanted, found = (local_attention(*parts, **options, impl=impl) for impl in ("math", "flex"))
    assert_close(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
for window, dilation in ((2**40 + 1, 1), (3, 2**63), ((2**63 - 1, 3), 2)):
    parts = torch.randn(3, 1, 2, 5, 6, 8)
    options = {"window": window, "dilation": dilation}
    wanted, found = (local_attention(*parts, **options, impl=impl) for impl in ("math", "flex"))
    assert_close(found, wanted, rtol=1e-4, atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

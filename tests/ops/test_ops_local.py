"""Local attention against a loop over pixels and windows."""

import math

import jaxtyping
import pytest
import torch
from torch.testing import assert_close

from regard.errors import RegardError
from regard.ops import attention_weights, local_attention_weights, relative_logits, window_mask

BATCH, HEADS, HEIGHT, WIDTH, ROW_DIM, COL_DIM = 2, 3, 5, 7, 4, 9
HEAD_DIM = ROW_DIM + COL_DIM


def inputs(prefix, window, dtype=torch.float64):
    tokens = prefix + HEIGHT * WIDTH
    q, k = torch.randn(2, BATCH, HEADS, tokens, HEAD_DIM, dtype=torch.float64).to(dtype).unbind()
    rows, cols = (torch.randn(window, dim, dtype=torch.float64).to(dtype) for dim in (ROW_DIM, COL_DIM))
    return q, k, rows, cols


def masked(tokens):
    """The second image has gaps."""
    mask = torch.ones(BATCH, tokens, dtype=torch.bool)
    mask[1] = torch.rand(tokens) < 0.7
    return mask


def by_definition(q, k, rows, cols, *, prefix, window, mask, scale):
    """Ramachandran et al. 2019, eq. 3, pixel by pixel and neighbour by neighbour."""
    radius, tokens = window // 2, q.shape[2]
    out = torch.zeros(BATCH, HEADS, tokens, tokens, dtype=torch.float64)
    for b in range(BATCH):
        real = [j for j in range(tokens) if mask is None or mask[b, j]]
        for h in range(HEADS):
            products = (q[b, h] @ k[b, h].T).tolist()
            row_products = None if rows is None else (q[b, h, :, :ROW_DIM] @ rows.T).tolist()
            col_products = None if cols is None else (q[b, h, :, ROW_DIM:] @ cols.T).tolist()
            for i in range(tokens):
                logits = {}
                for j in real:
                    logit = products[i][j]
                    if i >= prefix and j >= prefix:
                        down = (j - prefix) // WIDTH - (i - prefix) // WIDTH
                        right = (j - prefix) % WIDTH - (i - prefix) % WIDTH
                        if abs(down) > radius or abs(right) > radius:
                            continue
                        if rows is not None:
                            logit += row_products[i][down + radius] + col_products[i][right + radius]
                    logits[j] = math.exp(scale * logit)
                for j, weight in logits.items():
                    out[b, h, i, j] = weight / sum(logits.values())
    return out


@pytest.mark.parametrize("with_offsets", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("window", [1, 3, 11], ids=["pixel", "window", "larger than the grid"])
def test_equals_the_loop(window, prefix, with_mask, with_offsets):
    q, k, rows, cols = inputs(prefix, window)
    if not with_offsets:
        rows = cols = None
    mask = masked(q.shape[2]) if with_mask else None
    scale = 0.3 if with_mask else None
    weights = local_attention_weights(
        q, k, height=HEIGHT, width=WIDTH, window=window, mask=mask, rel_rows=rows, rel_cols=cols, scale=scale
    )
    expected = by_definition(
        q, k, rows, cols, prefix=prefix, window=window, mask=mask, scale=HEAD_DIM**-0.5 if scale is None else scale
    )
    assert_close(weights, expected, rtol=1e-10, atol=1e-12)


def test_a_window_larger_than_the_grid_is_attention():
    q, k, _, _ = inputs(2, 11)
    weights = local_attention_weights(q, k, height=HEIGHT, width=WIDTH, window=13)
    assert_close(weights, attention_weights(q, k), rtol=1e-12, atol=1e-12)


def test_a_window_that_is_all_masked_gives_zeros():
    """And gradients that are finite."""
    q, k, rows, cols = (t.requires_grad_() for t in inputs(0, 3))
    mask = torch.ones(BATCH, HEIGHT * WIDTH, dtype=torch.bool)
    mask[1, [0, 1, WIDTH, WIDTH + 1]] = False
    weights = local_attention_weights(
        q, k, height=HEIGHT, width=WIDTH, window=3, mask=mask, rel_rows=rows, rel_cols=cols
    )
    assert weights[1, :, 0].eq(0).all()
    assert weights[1, :, 1].gt(0).any()
    for gradient in torch.autograd.grad(weights.square().sum(), (q, k, rows, cols)):
        assert gradient.isfinite().all()
        assert gradient.ne(0).any()


def test_window_mask_counts_the_pixels_that_exist():
    """3 × 3 inside, 2 × 3 at an edge, 2 × 2 in a corner; a prefix token sees and is seen everywhere."""
    mask = window_mask(HEIGHT, WIDTH, 3, prefix=2)
    seen = mask[2:, 2:].sum(1).unflatten(0, (HEIGHT, WIDTH))
    assert seen[1:-1, 1:-1].eq(9).all()
    assert seen[0, 1:-1].eq(6).all()
    assert seen[1:-1, -1].eq(6).all()
    assert seen[[0, 0, -1, -1], [0, -1, 0, -1]].eq(4).all()
    assert mask[:2].all()
    assert mask[:, :2].all()
    assert mask.equal(mask.T)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_other_dtypes_are_near_float64(dtype, tolerance):
    q, k, rows, cols = inputs(2, 3, dtype)
    kwargs = {"height": HEIGHT, "width": WIDTH, "window": 3, "mask": masked(q.shape[2])}
    weights = local_attention_weights(q, k, rel_rows=rows, rel_cols=cols, **kwargs)
    wide = local_attention_weights(q.double(), k.double(), rel_rows=rows.double(), rel_cols=cols.double(), **kwargs)
    assert weights.dtype == dtype
    assert_close(weights.double(), wide, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("window", [2, 0, -1])
def test_window_must_be_odd(window):
    q, k, _, _ = inputs(0, 3)
    with pytest.raises(RegardError, match=rf"local attention: window must be odd and at least 1, got {window}"):
        local_attention_weights(q, k, height=HEIGHT, width=WIDTH, window=window)


def test_fewer_tokens_than_the_grid():
    q, k, _, _ = inputs(0, 3)
    with pytest.raises(RegardError, match=r"35 tokens are fewer than a grid of 7 × 11"):
        local_attention_weights(q, k, height=7, width=11, window=3)


def test_offsets_must_fill_head_dim():
    q, _, rows, cols = inputs(0, 3)
    with pytest.raises(RegardError, match=r"row_dim 4 \+ col_dim 8 must be head_dim 13"):
        relative_logits(q, rows, cols[:, 1:], height=HEIGHT, width=WIDTH)


def test_offsets_must_be_of_the_window():
    q, k, rows, cols = inputs(0, 3)
    with pytest.raises((RegardError, jaxtyping.TypeCheckError)):
        local_attention_weights(q, k, height=HEIGHT, width=WIDTH, window=5, rel_rows=rows, rel_cols=cols)


@pytest.mark.parametrize("given", ["rel_rows", "rel_cols"])
def test_offsets_come_in_pairs(given):
    q, k, rows, cols = inputs(0, 3)
    table = {"rel_rows": rows, "rel_cols": cols}[given]
    with pytest.raises(RegardError, match=given):
        local_attention_weights(q, k, height=HEIGHT, width=WIDTH, window=3, **{given: table})

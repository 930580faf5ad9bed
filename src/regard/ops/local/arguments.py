"""The arguments of local attention that all implementations share, and their checks."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.ops.local.windows import check_window, num_offsets


class Prefix(NamedTuple):
    """Tokens that see all and are seen by all, as class tokens and registers are."""

    q: Float[Tensor, "batch heads prefix head_dim"]
    k: Float[Tensor, "batch heads prefix head_dim"]
    v: Float[Tensor, "batch heads prefix head_dim"]


class Case(NamedTuple):
    """All arguments but q, k, v and the prefix."""

    rows: int
    cols: int
    dilation: int
    border: str
    mask: Tensor | None
    rel_rows: Tensor | None
    rel_cols: Tensor | None
    bias: Tensor | None
    scale: float


def check(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> None:
    """RegardError, in one line, for shapes, dtypes or devices that do not fit together."""
    if q.ndim != 5 or k.shape != q.shape or v.shape != q.shape:
        raise RegardError(
            "local attention: q, k and v must be (batch, heads, height, width, head_dim), all of one shape, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    batch, heads, height, width, head_dim = q.shape
    check_window(height, case.rows, case.dilation, case.border)
    check_window(width, case.cols, case.dilation, case.border)
    if (case.rel_rows is None) != (case.rel_cols is None):
        raise RegardError("local attention: rel_rows and rel_cols go together, one of them is missing")
    offsets = num_offsets(case.rows, case.border), num_offsets(case.cols, case.border)
    if case.rel_rows is not None and case.rel_cols is not None:
        if (len(case.rel_rows), len(case.rel_cols)) != offsets:
            raise RegardError(
                f"local attention: rel_rows and rel_cols need a row for each offset, {offsets[0]} and {offsets[1]}, "
                f"got {len(case.rel_rows)} and {len(case.rel_cols)}"
            )
        row_dim, col_dim = case.rel_rows.shape[1], case.rel_cols.shape[1]
        if row_dim + col_dim != head_dim:
            raise RegardError(f"local attention: row_dim {row_dim} + col_dim {col_dim} must be head_dim {head_dim}")
    if case.bias is not None and case.bias.shape != (heads, *offsets):
        raise RegardError(f"local attention: bias must be {(heads, *offsets)}, got {tuple(case.bias.shape)}")
    if case.mask is not None and (case.mask.shape != (batch, height, width) or case.mask.dtype != torch.bool):
        raise RegardError(
            f"local attention: mask must be bool, True where a pixel is real, and {(batch, height, width)}; "
            f"got {case.mask.dtype} {tuple(case.mask.shape)}"
        )
    if prefix is not None and any(t.shape[:2] != (batch, heads) or t.shape[3] != head_dim for t in prefix):
        raise RegardError(
            f"local attention: prefix must be (batch, heads, prefix, head_dim) with {batch}, {heads}, {head_dim}"
        )
    tensors = [k, v, case.mask, case.rel_rows, case.rel_cols, case.bias, *(prefix or ())]
    others = {str(tensor.device) for tensor in tensors if tensor is not None} - {str(q.device)}
    if others:
        raise RegardError(f"local attention: q is on {q.device}, others on {', '.join(sorted(others))}")

"""Local attention for exports: tiles of queries, each with the keys around it, in plain operations.

Padding, slicing, joining and matrix products alone: no table depends on the grid, so that its sides may stay free in an
exported program, and the memory is linear in the pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from regard.ops.attention import masked_softmax
from regard.ops.local.arguments import Case, Prefix

TILE = 7
"""Pixels along a side of a tile at least; with a window of 7 its keys are 13 × 13."""


def tiles_serve(case: Case) -> bool:
    """Whether `tiled` can compute a case: windows that end at the border, without gaps and bias."""
    return case.dilation == 1 and case.border == "clip" and case.bias is None


def tiled(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """The equation of `local_attention`; each tile's queries meet all keys that one of them may look at."""
    height, width = q.shape[2:4]
    real = torch.ones_like(q[:, :1, :, :, :1])
    if case.mask is not None:
        hidden = ~case.mask[:, None, :, :, None]
        k, v, real = (part.masked_fill(hidden, 0) for part in (k, v, real))
    queries = _tiles(q, case, around=False)  # (batch, heads, tiles, pixels of a tile, head_dim)
    keys, values, there = (_tiles(part, case, around=True) for part in (k, v, real))
    logits = queries @ keys.transpose(-2, -1)
    row_offset, col_offset = (_offsets(window, q.device) for window in (case.rows, case.cols))
    if case.rel_rows is not None and case.rel_cols is not None:
        parts = queries.unflatten(3, (_side(case.rows), _side(case.cols)))
        of_rows, of_cols = parts.split([case.rel_rows.shape[1], case.rel_cols.shape[1]], dim=-1)
        by_row = case.rel_rows[row_offset.clamp(0, case.rows - 1)].to(q.dtype)  # (rows, keys' rows, row_dim)
        by_col = case.rel_cols[col_offset.clamp(0, case.cols - 1)].to(q.dtype)
        to_rows = (of_rows @ by_row.transpose(1, 2)).flatten(3, 4)
        to_cols = (of_cols.transpose(3, 4) @ by_col.transpose(1, 2)).transpose(3, 4).flatten(3, 4)
        logits = logits + (to_rows[..., None] + to_cols[..., None, :]).flatten(-2)
    in_rows, in_cols = ((o >= 0) & (o < w) for o, w in ((row_offset, case.rows), (col_offset, case.cols)))
    near = (in_rows[:, None, :, None] & in_cols[None, :, None, :]).flatten(2).flatten(0, 1)
    logits, seen = logits * case.scale, near & (there.transpose(-2, -1) > 0)
    if prefix is not None:
        to_prefix = queries @ prefix.k[:, :, None].transpose(-2, -1) * case.scale
        logits, seen = torch.cat([to_prefix, logits], -1), F.pad(seen, (prefix.k.shape[2], 0), value=True)
        values = torch.cat([prefix.v[:, :, None].expand(-1, -1, values.shape[2], -1, -1), values], dim=3)
    weights = masked_softmax(logits.to(torch.promote_types(q.dtype, torch.float32)), seen).to(q.dtype)
    return _joined(weights @ values, case, height, width)


def _side(window: int) -> int:
    return max(TILE, window - 1)


def _offsets(window: int, device: torch.device) -> Tensor:
    """(queries, keys) along an axis of a tile: the key's place in the query's window; it may be outside."""
    side = _side(window)
    return torch.arange(side + window - 1, device=device) - torch.arange(side, device=device)[:, None]


def _tiles(x: Tensor, case: Case, *, around: bool) -> Tensor:
    """(batch, heads, height, width, dim) -> (batch, heads, tiles, pixels of a tile, dim); `around`: with all keys."""
    x = _cut(_cut(x, 2, case.rows, around), 4, case.cols, around)  # (batch, heads, down, rows, across, cols, dim)
    return x.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _joined(x: Tensor, case: Case, height: int, width: int) -> Tensor:
    """The inverse of `_tiles` without keys around."""
    rows, cols = _side(case.rows), _side(case.cols)
    grid = ((height + rows - 1) // rows, (width + cols - 1) // cols)
    x = x.unflatten(3, (rows, cols)).unflatten(2, grid).transpose(3, 4)
    return x.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def _cut(x: Tensor, axis: int, window: int, around: bool) -> Tensor:
    """The axis as two, (tiles, pixels of a tile); `around`: with the pixels of half a window on either side, or zeros.

    The side of a tile is at least `window` - 1, so that these pixels belong to the tile itself and the next one.
    """
    side, more = _side(window), window - 1
    length = x.shape[axis]
    tiles = (length + side - 1) // side
    before = more // 2 if around else 0
    after = tiles * side - length + (side - before if around else 0)
    x = F.pad(x, (0, 0) * (x.ndim - 1 - axis) + (before, after))
    if not around:
        return x.unflatten(axis, (tiles, side))
    x = x.unflatten(axis, (tiles + 1, side))
    return torch.cat([x.narrow(axis, 0, tiles), x.narrow(axis, 1, tiles).narrow(axis + 1, 0, more)], dim=axis + 1)

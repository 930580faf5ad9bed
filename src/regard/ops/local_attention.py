"""Attention of each pixel to a window around it (SASA, Ramachandran et al. 2019, section 3), linear in the pixels."""

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.ops.attention import attention
from regard.ops.local_windows import Blocks, blocks, neighbours, num_offsets

LocalImpl = Literal["auto", "math", "blocked"]

BLOCK = 7
"""Pixels along a side of a block of queries; with a window of 7 its keys are 13 × 13."""
SMALL = 14 * 14
"""Pixels of a grid that is one block: all pairs are computed then, which is faster than to cut it."""


class Prefix(NamedTuple):
    """Tokens that see all and are seen by all, as class tokens and registers are."""

    q: Float[Tensor, "batch heads prefix head_dim"]
    k: Float[Tensor, "batch heads prefix head_dim"]
    v: Float[Tensor, "batch heads prefix head_dim"]


def local_attention(
    q: Float[Tensor, "batch heads height width head_dim"],
    k: Float[Tensor, "batch heads height width head_dim"],
    v: Float[Tensor, "batch heads height width head_dim"],
    *,
    window: int | tuple[int, int],
    dilation: int = 1,
    border: str = "clip",
    mask: Bool[Tensor, "batch height width"] | None = None,
    rel_rows: Float[Tensor, "row_offsets row_dim"] | None = None,
    rel_cols: Float[Tensor, "col_offsets col_dim"] | None = None,
    bias: Float[Tensor, "heads row_offsets col_offsets"] | None = None,
    prefix: tuple[Tensor, Tensor, Tensor] | None = None,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """y_i = Σ_j softmax_j((q_i·k_j + q_i·r_{j-i}) · scale + b_{j-i}) v_j over the pixels j in the window of pixel i.

    Ramachandran et al. 2019, eq. 2 and 3: r concatenates the embedding of the row offset (`rel_rows`) and that of the
    column offset (`rel_cols`) along head_dim; heads share them. `bias` is a number for each head and offset, as in
    neighbourhood attention. `scale` is 1/√head_dim unless given.

    window: odd, rows × columns where they differ; its pixels lie `dilation` apart. border: "clip", where pixels beyond
    the border do not exist, or "shift", where the window is moved inside. Embeddings and bias have a row for each
    offset: as many as the window has with "clip", 2 · window - 1 with "shift".
    mask: True where a pixel is real; others are not looked at. A pixel that may look nowhere gets zeros.
    prefix: (q, k, v) of tokens, (batch, heads, prefix, head_dim), that see all and are seen by all, without r and b;
    then (pixels, prefix) is returned.

    impl: "math" is the definition; "blocked" takes blocks of queries with the keys around them, in memory linear in the
    pixels; "auto" the faster. Raises RegardError where shapes do not meet, or for a window that cannot be.
    """
    rows, cols = (window, window) if isinstance(window, int) else window
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    case = _Case(rows, cols, dilation, border, mask, rel_rows, rel_cols, bias, scale)
    extra = None if prefix is None else Prefix(*prefix)
    _check(q, k, v, case, extra)
    if impl not in get_args(LocalImpl):
        raise unknown("impl", impl, get_args(LocalImpl), where="local attention")
    out = _by_definition(q, k, v, case, extra) if impl == "math" else _blocked(q, k, v, case, extra)
    if extra is None:
        return out
    keys, values = (torch.cat([one, grid.flatten(2, 3)], dim=2) for one, grid in ((extra.k, k), (extra.v, v)))
    seen = None if mask is None else F.pad(mask.flatten(1), (extra.k.shape[2], 0), value=True)[:, None, None]
    return out, attention(extra.q, keys, values, mask=seen, scale=case.scale)


class _Case(NamedTuple):
    """All but the tokens."""

    rows: int
    cols: int
    dilation: int
    border: str
    mask: Tensor | None
    rel_rows: Tensor | None
    rel_cols: Tensor | None
    bias: Tensor | None
    scale: float


def _by_definition(q: Tensor, k: Tensor, v: Tensor, case: _Case, prefix: Prefix | None) -> Tensor:
    """Every window's keys and values side by side: (…, height, width, rows, cols, head_dim)."""
    height, width = q.shape[2:4]
    down = neighbours(height, case.rows, case.dilation, case.border)
    right = neighbours(width, case.cols, case.dilation, case.border)
    y, x = down.pixel.to(q.device)[:, None, :, None], right.pixel.to(q.device)[None, :, None, :]
    keys, values = k[:, :, y, x], v[:, :, y, x]
    logits = torch.einsum("bhyxd,bhyxrcd->bhyxrc", q, keys)
    if case.rel_rows is not None and case.rel_cols is not None:
        to_rows, to_cols = q.split([case.rel_rows.shape[1], case.rel_cols.shape[1]], dim=-1)
        logits = logits + torch.einsum("bhyxd,yrd->bhyxr", to_rows, case.rel_rows[down.offset])[..., None]
        logits = logits + torch.einsum("bhyxd,xcd->bhyxc", to_cols, case.rel_cols[right.offset])[..., None, :]
    logits = logits * case.scale
    if case.bias is not None:
        by_offset = case.bias[:, down.offset[:, None, :, None], right.offset[None, :, None, :]]
        logits = logits + by_offset
    seen = (down.there[:, None, :, None] & right.there[None, :, None, :]).to(q.device).expand(len(q), 1, -1, -1, -1, -1)
    if case.mask is not None:
        seen = seen & case.mask[:, y, x][:, None]
    logits, seen = logits.flatten(-2), seen.flatten(-2).expand(-1, q.shape[1], -1, -1, -1)
    values = values.flatten(-3, -2)
    if prefix is not None:
        to_prefix = torch.einsum("bhyxd,bhpd->bhyxp", q, prefix.k) * case.scale
        logits, seen = torch.cat([to_prefix, logits], -1), F.pad(seen, (prefix.k.shape[2], 0), value=True)
        before = prefix.v[:, :, None, None].expand(-1, -1, height, width, -1, -1)
        values = torch.cat([before, values], dim=-2)
    logits = logits.to(torch.promote_types(q.dtype, torch.float32))
    weights = logits.masked_fill(~seen, torch.finfo(logits.dtype).min).softmax(-1).masked_fill(~seen, 0)
    return torch.einsum("bhyxn,bhyxnd->bhyxd", weights.to(q.dtype), values)


def _blocked(q: Tensor, k: Tensor, v: Tensor, case: _Case, prefix: Prefix | None) -> Tensor:
    """Attention within each block, all blocks at once.

    The embeddings are put into the product of queries and keys: q gets q·r for each row and each column of its block's
    keys, and k says by a one in which row and column it lies. So they need no mask with a gradient, which would push
    the fused kernel off its fast path.
    """
    batch, _, height, width, head_dim = q.shape
    block = max(height, width) if height * width <= SMALL else BLOCK
    down = _on(blocks(height, case.rows, case.dilation, case.border, block), q.device)
    right = _on(blocks(width, case.cols, case.dilation, case.border, block), q.device)
    queries = _taken(q, down.queries, right.queries)  # (down, right, batch, heads, rows, cols, head_dim)
    keys, values = _taken(k, down.keys, right.keys), _taken(v, down.keys, right.keys)
    if case.rel_rows is not None and case.rel_cols is not None:
        to_rows, to_cols = queries.split([case.rel_rows.shape[1], case.rel_cols.shape[1]], dim=-1)
        of_rows = torch.einsum("uvbhyxd,uyrd->uvbhyxr", to_rows, case.rel_rows[down.offset].to(q.dtype))
        of_cols = torch.einsum("uvbhyxd,vxcd->uvbhyxc", to_cols, case.rel_cols[right.offset].to(q.dtype))
        num_rows, num_cols = down.keys.shape[1], right.keys.shape[1]
        in_row = torch.eye(num_rows, dtype=q.dtype, device=q.device)[:, None].expand(-1, num_cols, -1)
        in_col = torch.eye(num_cols, dtype=q.dtype, device=q.device)[None].expand(num_rows, -1, -1)
        queries = torch.cat([queries, of_rows, of_cols], dim=-1)
        keys = torch.cat([keys, torch.cat([in_row, in_col], dim=-1).expand(*keys.shape[:4], -1, -1, -1)], dim=-1)
    queries, keys, values = (part.flatten(4, 5).flatten(0, 2) for part in (queries, keys, values))
    added = queries.shape[-1] - head_dim
    near = down.near[:, None, :, None, :, None] & right.near[None, :, None, :, None, :]  # (down, right, y, x, r, c)
    mask = near.flatten(4, 5).flatten(2, 3)[:, :, None, None].expand(-1, -1, batch, -1, -1, -1)
    if case.mask is not None:
        real = _taken(case.mask[:, None, ..., None], down.keys, right.keys).flatten(4)  # (down, right, batch, 1, keys)
        mask = mask & real[..., None, :]
    mask = mask.flatten(0, 2)
    bias = None
    if case.bias is not None:
        pairs = case.bias[:, down.offset[:, None, :, None, :, None], right.offset[None, :, None, :, None, :]]
        bias = (
            pairs.flatten(5, 6).flatten(3, 4).movedim(0, 2)[:, :, None].expand(-1, -1, batch, -1, -1, -1).flatten(0, 2)
        )
    if prefix is not None:
        count, cut = prefix.k.shape[2], len(queries) // batch
        before = F.pad(prefix.k, (0, added)).repeat(cut, 1, 1, 1)
        keys, values = torch.cat([before, keys], 2), torch.cat([prefix.v.repeat(cut, 1, 1, 1), values], 2)
        mask = F.pad(mask, (count, 0), value=True)
        bias = None if bias is None else F.pad(bias, (count, 0))
    # The fused kernel wants values as wide as keys.
    mixed = attention(queries, keys, F.pad(values, (0, added)), mask=mask, bias=bias, scale=case.scale)
    mixed = mixed[..., :head_dim].unflatten(0, (len(down.queries), len(right.queries), batch))
    mixed = mixed.unflatten(4, (down.queries.shape[1], right.queries.shape[1])).permute(2, 3, 0, 4, 1, 5, 6)
    return mixed.flatten(4, 5).flatten(2, 3).index_select(2, down.place).index_select(3, right.place)


def _taken(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """(batch, heads, height, width, dim) -> (down, right, batch, heads, rows, cols, dim): the pixels of each block."""
    found = x.index_select(2, rows.flatten()).index_select(3, cols.flatten())
    return found.unflatten(3, cols.shape).unflatten(2, rows.shape).permute(2, 4, 0, 1, 3, 5, 6)


def _on(plan: Blocks, device: torch.device) -> Blocks:
    return Blocks(*(part.to(device) for part in plan))


def _check(q: Tensor, k: Tensor, v: Tensor, case: _Case, prefix: Prefix | None) -> None:
    if q.ndim != 5 or k.shape != q.shape or v.shape != q.shape:
        raise RegardError(
            "local attention: q, k and v must be (batch, heads, height, width, head_dim) and alike, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    batch, heads, height, width, head_dim = q.shape
    if (case.rel_rows is None) != (case.rel_cols is None):
        raise RegardError("local attention: rel_rows and rel_cols go together, one of them is missing")
    offsets = num_offsets(case.rows, case.border), num_offsets(case.cols, case.border)
    if case.rel_rows is not None and case.rel_cols is not None:
        if (len(case.rel_rows), len(case.rel_cols)) != offsets:
            raise RegardError(
                f"local attention: rel_rows and rel_cols need a row an offset, {offsets[0]} and {offsets[1]}, "
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
    if prefix is not None and any(part.shape[:2] != (batch, heads) or part.shape[3] != head_dim for part in prefix):
        raise RegardError(
            f"local attention: prefix must be (batch, heads, prefix, head_dim) with {batch}, {heads}, {head_dim}"
        )
    tensors = [k, v, case.mask, case.rel_rows, case.rel_cols, case.bias, *(prefix or ())]
    strangers = {str(tensor.device) for tensor in tensors if tensor is not None} - {str(q.device)}
    if strangers:
        raise RegardError(f"local attention: q is on {q.device}, others on {', '.join(sorted(strangers))}")

"""The weights of local attention for all pairs of tokens, to explain and to compile (SASA, section 3)."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.errors import RegardError
from regard.ops.arguments import floats, require_alike, require_bool, require_odd, require_whole, scale_of
from regard.ops.attention import attention_weights
from regard.ops.local.arguments import check_embeddings

OP = "local attention"


def local_attention_weights(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch heads tokens head_dim"],
    *,
    height: int,
    width: int,
    window: int,
    mask: Bool[Tensor, "batch tokens"] | None = None,
    rel_rows: Float[Tensor, "window row_dim"] | None = None,
    rel_cols: Float[Tensor, "window col_dim"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch heads tokens tokens"]:
    """softmax_j((q_i·k_j + q_i·r_{j-i}) · scale) over the pixels j in the window × window square around pixel i.

    Ramachandran et al. 2019, eq. 3: r concatenates the embedding of the row offset and that of the column offset
    along head_dim. The tokens are a prefix (as many as `tokens` exceeds height·width by; they see all and are seen by
    all, without r) and then the pixels, row by row. Pixels beyond the border do not exist, and those whose `mask` is
    False are not looked at. The result holds all tokens × tokens weights, zero outside the window. RegardError for an
    even window, and for shapes, dtypes and devices that do not fit together; they are those of `local_attention`.
    """
    q, k, rel_rows, rel_cols = floats(OP, q=q, k=k, rel_rows=rel_rows, rel_cols=rel_cols)
    _check(q, height, width, window, rel_rows, rel_cols)
    require_alike(OP, q=q, k=k, rel_rows=rel_rows, rel_cols=rel_cols)
    require_bool(OP, mask, q, "a token is real", (q.shape[0], q.shape[2]))
    prefix = q.shape[2] - height * width
    allowed = window_mask(height, width, window, prefix, device=q.device)
    if mask is not None:
        allowed = allowed & mask[:, None, None, :]
    bias = None
    if rel_rows is not None and rel_cols is not None:
        scale = scale_of(OP, scale, q.shape[-1])
        logits = relative_logits(q[:, :, prefix:], rel_rows, rel_cols, height=height, width=width)
        bias = torch.nn.functional.pad(logits * scale, (prefix, 0, prefix, 0))
    return attention_weights(q, k, mask=allowed, bias=bias, scale=scale)


def window_mask(
    height: int, width: int, window: int, prefix: int = 0, *, device: torch.device | None = None
) -> Bool[Tensor, "tokens tokens"]:
    """True where two pixels of a grid lie in one window; a prefix token sees all and is seen by all."""
    radius = min(require_odd(OP, "window", window) // 2, max(height, width))
    rows, cols = _offsets(height, width, device)
    near = (rows.abs() <= radius) & (cols.abs() <= radius)
    return torch.nn.functional.pad(near, (prefix, 0, prefix, 0), value=True)


def relative_logits(
    q: Float[Tensor, "batch heads pixels head_dim"],
    rel_rows: Float[Tensor, "window row_dim"],
    rel_cols: Float[Tensor, "window col_dim"],
    *,
    height: int,
    width: int,
) -> Float[Tensor, "batch heads pixels pixels"]:
    """q_i · r_{j-i} for every pair of pixels; where j lies outside the window of i the value means nothing."""
    q, rel_rows, rel_cols = floats(OP, q=q, rel_rows=rel_rows, rel_cols=rel_cols)
    row_dim, col_dim = rel_rows.shape[1], rel_cols.shape[1]
    if row_dim + col_dim != q.shape[-1]:
        raise RegardError(f"local attention: row_dim {row_dim} + col_dim {col_dim} must be head_dim {q.shape[-1]}")
    require_alike(OP, q=q, rel_rows=rel_rows, rel_cols=rel_cols)
    by_row, by_col = q[..., :row_dim] @ rel_rows.T, q[..., row_dim:] @ rel_cols.T
    rows, cols = _offsets(height, width, q.device)
    pairs = (*q.shape[:3], q.shape[2])

    def pick(logits: Tensor, offsets: Tensor, window: int) -> Tensor:
        radius = require_odd(OP, "window", window) // 2
        return logits.gather(-1, (offsets.clamp(-radius, radius) + radius).expand(pairs))

    return pick(by_row, rows, rel_rows.shape[0]) + pick(by_col, cols, rel_cols.shape[0])


def _offsets(
    height: int, width: int, device: torch.device | None
) -> tuple[Int[Tensor, "pixels pixels"], Int[Tensor, "pixels pixels"]]:
    """How many rows, and how many columns, pixel j lies after pixel i."""
    row = torch.arange(height, device=device).repeat_interleave(width)
    col = torch.arange(width, device=device).repeat(height)
    return row[None, :] - row[:, None], col[None, :] - col[:, None]


def _check(q: Tensor, height: Any, width: Any, window: Any, rel_rows: Tensor | None, rel_cols: Tensor | None) -> None:
    if q.ndim != 4:
        raise RegardError(f"{OP}: q must be (batch, heads, tokens, head_dim), got {tuple(q.shape)}")
    require_whole(OP, "height", height, 0)
    require_whole(OP, "width", width, 0)
    if q.shape[2] < height * width:
        raise RegardError(f"{OP}: {q.shape[2]} tokens are fewer than a grid of {height} × {width}")
    require_odd(OP, "window", window)
    check_embeddings(rel_rows, rel_cols, (window, window), q.shape[3])

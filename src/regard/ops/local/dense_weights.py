"""The weights of local attention for all pairs of tokens, to explain and to compile (SASA, section 3)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.errors import RegardError
from regard.ops.attention import attention_weights


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
    even window, and for shapes that do not fit together.
    """
    prefix = q.shape[2] - height * width
    _check(q.shape[2], height, width, window, rel_rows, rel_cols)
    allowed = window_mask(height, width, window, prefix, device=q.device)
    if mask is not None:
        allowed = allowed & mask[:, None, None, :]
    bias = None
    if rel_rows is not None and rel_cols is not None:
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        logits = relative_logits(q[:, :, prefix:], rel_rows, rel_cols, height=height, width=width)
        bias = torch.nn.functional.pad(logits * scale, (prefix, 0, prefix, 0))
    return attention_weights(q, k, mask=allowed, bias=bias, scale=scale)


def window_mask(
    height: int, width: int, window: int, prefix: int = 0, *, device: torch.device | None = None
) -> Bool[Tensor, "tokens tokens"]:
    """True where two pixels of a grid lie in one window; a prefix token sees all and is seen by all."""
    radius = _radius(window)
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
    row_dim, col_dim = rel_rows.shape[1], rel_cols.shape[1]
    if row_dim + col_dim != q.shape[-1]:
        raise RegardError(f"local attention: row_dim {row_dim} + col_dim {col_dim} must be head_dim {q.shape[-1]}")
    by_row = q[..., :row_dim] @ rel_rows.T.to(q.dtype)
    by_col = q[..., row_dim:] @ rel_cols.T.to(q.dtype)
    rows, cols = _offsets(height, width, q.device)
    pairs = (*q.shape[:3], q.shape[2])

    def pick(logits: Tensor, offsets: Tensor, window: int) -> Tensor:
        radius = _radius(window)
        return logits.gather(-1, (offsets.clamp(-radius, radius) + radius).expand(pairs))

    return pick(by_row, rows, rel_rows.shape[0]) + pick(by_col, cols, rel_cols.shape[0])


def _offsets(
    height: int, width: int, device: torch.device | None
) -> tuple[Int[Tensor, "pixels pixels"], Int[Tensor, "pixels pixels"]]:
    """How many rows, and how many columns, pixel j lies after pixel i."""
    row = torch.arange(height, device=device).repeat_interleave(width)
    col = torch.arange(width, device=device).repeat(height)
    return row[None, :] - row[:, None], col[None, :] - col[:, None]


def _radius(window: int) -> int:
    if window < 1 or window % 2 == 0:
        raise RegardError(f"local attention: window must be odd and at least 1, got {window}")
    return window // 2


def _check(tokens: int, height: int, width: int, window: int, rel_rows: Tensor | None, rel_cols: Tensor | None) -> None:
    if tokens < height * width:
        raise RegardError(f"local attention: {tokens} tokens are fewer than a grid of {height} × {width}")
    _radius(window)
    if (rel_rows is None) != (rel_cols is None):
        raise RegardError("local attention: rel_rows and rel_cols go together, one of them is missing")
    if rel_rows is not None and rel_cols is not None and {len(rel_rows), len(rel_cols)} != {window}:
        lengths = f"{len(rel_rows)} and {len(rel_cols)}"
        raise RegardError(f"local attention: rel_rows and rel_cols need a row for each offset, {window}, got {lengths}")

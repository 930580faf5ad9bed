"""Some rows of local attention's matrix: each pixel's window, and zeros beyond it (SASA, eq. 3)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from regard.ops.attention import masked_softmax
from regard.ops.local.windows import neighbours

SOME = 256
"""Queries whose windows are gathered at once."""

KeysAt = Callable[[Int64[Tensor, " places"]], Float[Tensor, "batch heads places head_dim"]]
"""The keys of some tokens, by their numbers."""


def local_attention_rows(
    q: Float[Tensor, "batch heads queries head_dim"],
    pixels: Int64[Tensor, " queries"],
    keys: KeysAt,
    *,
    height: int,
    width: int,
    window: int,
    rel_rows: Float[Tensor, "row_offsets row_dim"],
    rel_cols: Float[Tensor, "col_offsets col_dim"],
    dilation: int = 1,
    border: str = "clip",
    prefix: int = 0,
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch heads queries tokens"]:
    """softmax_j((q_i·k_j + q_i·r_{j-i})/√d) over the window of each pixel i, and over the prefix, without r.

    `pixels` are the numbers of the queries on the grid. `mask` is True where a token is real.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    out = q.new_zeros(*q.shape[:3], prefix + height * width, dtype=wide)
    down, right = neighbours(height, window, dilation, border), neighbours(width, window, dilation, border)
    before = torch.arange(prefix, device=q.device)
    of_prefix = keys(before).to(wide) if prefix else None
    to_rows, to_cols = rel_rows.to(wide), rel_cols.to(wide)
    for start in range(0, len(pixels), SOME):
        some = slice(start, start + SOME)
        row, col = pixels[some].cpu() // width, pixels[some].cpu() % width
        there = (down.there[row][:, :, None] & right.there[col][:, None, :]).flatten(1).to(q.device)
        place = prefix + (down.pixel[row][:, :, None] * width + right.pixel[col][:, None, :]).flatten(1).to(q.device)
        own = q[:, :, some].to(wide)
        k = keys(place.flatten()).to(wide).unflatten(2, tuple(place.shape))
        logits = (k @ own[..., None])[..., 0]
        by_row = own[..., : to_rows.shape[1]] @ to_rows.T
        by_col = own[..., to_rows.shape[1] :] @ to_cols.T
        offsets_down = down.offset[row].to(q.device).expand(*own.shape[:3], -1)
        offsets_right = right.offset[col].to(q.device).expand(*own.shape[:3], -1)
        relative = by_row.gather(-1, offsets_down)[..., :, None] + by_col.gather(-1, offsets_right)[..., None, :]
        logits = logits + relative.flatten(-2)
        allowed = (
            there[None, None]
            if mask is None
            else there[None, None]
            & mask[:, None].take_along_dim(place.flatten()[None, None], -1).unflatten(-1, tuple(place.shape))
        )
        index = place.expand(logits.shape)
        if of_prefix is not None:
            logits = torch.cat([own @ of_prefix.transpose(-2, -1), logits], dim=-1)
            seen = torch.ones(len(q), 1, place.shape[0], prefix, dtype=torch.bool, device=q.device)
            seen = seen if mask is None else seen & mask[:, None, None, :prefix]
            allowed = torch.cat([seen, allowed.expand(len(q), 1, *place.shape)], dim=-1)
            index = torch.cat([before.expand(*own.shape[:3], prefix), index], dim=-1)
        weights = masked_softmax(logits * q.shape[-1] ** -0.5, allowed)
        out[:, :, some] = out[:, :, some].scatter_add(-1, index, weights)  # places that are not there weigh 0
    return out

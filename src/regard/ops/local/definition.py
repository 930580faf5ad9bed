"""The definition of local attention: each pixel with copies of the keys in its window."""

import torch
import torch.nn.functional as F
from torch import Tensor

from regard.ops.attention import masked_softmax
from regard.ops.local.arguments import Case, Prefix
from regard.ops.local.windows import neighbours


def by_definition(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """The equation of `local_attention`; each pixel's keys are (…, height, width, rows, cols, head_dim).

    The copies that a pixel does not see are zeros, so that nothing comes of what they hold.
    """
    height, width = q.shape[2:4]
    down = neighbours(height, case.rows, case.dilation, case.border)
    right = neighbours(width, case.cols, case.dilation, case.border)
    y, x = down.pixel.to(q.device)[:, None, :, None], right.pixel.to(q.device)[None, :, None, :]
    seen = (down.there[:, None, :, None] & right.there[None, :, None, :]).to(q.device)[None, None]
    if case.mask is not None:
        seen = seen & case.mask[:, y, x][:, None]
    if case.bias is not None:
        by_offset = case.bias[:, down.offset[:, None, :, None], right.offset[None, :, None, :]]
        seen = seen & (by_offset != float("-inf"))
    keys, values = k[:, :, y, x], v[:, :, y, x]
    if case.rel_rows is not None and case.rel_cols is not None:
        of_rows, of_cols = case.rel_rows[down.offset][:, None, :, None], case.rel_cols[right.offset][None, :, None, :]
        pairs = (height, width, case.rows, case.cols, -1)
        keys = keys + torch.cat([of_rows.expand(pairs), of_cols.expand(pairs)], dim=-1)
    keys, values = (part.masked_fill(~seen[..., None], 0) for part in (keys, values))
    logits = torch.einsum("bhyxd,bhyxrcd->bhyxrc", q, keys) * case.scale
    if case.bias is not None:
        logits = logits + by_offset
    logits, seen, values = logits.flatten(-2), seen.flatten(-2), values.flatten(-3, -2)
    if prefix is not None:
        to_prefix = torch.einsum("bhyxd,bhpd->bhyxp", q, prefix.k) * case.scale
        logits, seen = torch.cat([to_prefix, logits], -1), F.pad(seen, (prefix.k.shape[2], 0), value=True)
        before = prefix.v[:, :, None, None].expand(-1, -1, height, width, -1, -1)
        values = torch.cat([before, values], dim=-2)
    weights = masked_softmax(logits.to(torch.promote_types(q.dtype, torch.float32)), seen)
    return torch.einsum("bhyxn,bhyxnd->bhyxd", weights.to(q.dtype), values)

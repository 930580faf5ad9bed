"""Attention of each pixel to a window around it (SASA, Ramachandran et al. 2019, section 3), linear in the pixels."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import unknown
from regard.ops.attention import attention
from regard.ops.local.arguments import Case, Prefix, check
from regard.ops.local.blocked import blocked
from regard.ops.local.flex import flex, require_flex
from regard.ops.local.native import native, native_serves, require_native
from regard.ops.local.natten import natten, natten_serves, require_natten
from regard.ops.local.windows import neighbours

LocalImpl = Literal["auto", "math", "blocked", "native", "flex", "natten"]


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

    impl: "math" is the definition, the others are faster. "blocked": blocks of queries with the keys around them, in
    plain PyTorch. "native": C++ for CPUs, compiled on first use where there is a compiler. "flex": FlexAttention, for
    CUDA. "natten": the package of that name, for border "shift" without embeddings, bias or mask. "auto" takes what is
    fastest for the device and the case. Raises RegardError where shapes do not meet, for a window that cannot be, and
    for a path that cannot serve here.
    """
    rows, cols = (window, window) if isinstance(window, int) else window
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    case = Case(rows, cols, dilation, border, mask, rel_rows, rel_cols, bias, scale)
    extra = None if prefix is None else Prefix(*prefix)
    check(q, k, v, case, extra)
    if impl not in get_args(LocalImpl):
        raise unknown("impl", impl, get_args(LocalImpl), where="local attention")
    out = _pixels(impl if impl != "auto" else fastest(q, case), q, k, v, case, extra)
    if extra is None:
        return out
    keys, values = (torch.cat([one, grid.flatten(2, 3)], dim=2) for one, grid in ((extra.k, k), (extra.v, v)))
    seen = None if mask is None else F.pad(mask.flatten(1), (extra.k.shape[2], 0), value=True)[:, None, None]
    return out, attention(extra.q, keys, values, mask=seen, scale=case.scale)


def fastest(q: Tensor, case: Case) -> str:
    """The path that `auto` takes."""
    if q.device.type == "cpu":
        return "native" if native_serves(q) else "blocked"
    if natten_serves(q, case):
        return "natten"
    return "flex" if q.device.type == "cuda" and q.dtype != torch.float64 else "blocked"


def can_be_compiled(q: Tensor) -> bool:
    """Whether torch.compile can look through `auto`: the plans of the other paths are Python's, and exports know no op.

    Where it cannot, `local_attention_weights` says the same in plain operations on all pairs.
    """
    return native_serves(q) and not torch.compiler.is_exporting()


def _pixels(impl: str, q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    if not q.numel():  # no image, no head or no pixel
        return v.clone()
    if impl == "native":
        require_native(q)
        return native(q, k, v, case, prefix)
    if impl == "flex":
        require_flex(q)
        return flex(q, k, v, case, prefix)
    if impl == "natten":
        require_natten(q, case)
        return natten(q, k, v, case, prefix)
    return _by_definition(q, k, v, case, prefix) if impl == "math" else blocked(q, k, v, case, prefix)


def _by_definition(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
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

"""Attention of each pixel to a window around it (SASA, Ramachandran et al. 2019, section 3), linear in the pixels."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import unknown
from regard.ops.attention import attention
from regard.ops.local.arguments import Case, Prefix, check
from regard.ops.local.blocked import blocked
from regard.ops.local.flex import flex, flex_serves
from regard.ops.local.native import native, native_serves
from regard.ops.local.natten import natten, natten_serves
from regard.ops.local.windows import neighbours

LocalImpl = Literal["auto", "math", "blocked", "native", "flex", "natten"]


def by_definition(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """The equation of `local_attention`; each pixel's keys are (…, height, width, rows, cols, head_dim)."""
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
    seen = (down.there[:, None, :, None] & right.there[None, :, None, :]).to(q.device).expand(q.shape[0], 1, -1, -1, -1, -1)
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

    window: odd; (rows, columns) where they differ. Its pixels lie `dilation` apart. border: with "clip", pixels beyond
    the border do not exist; with "shift", the window is moved inside the image. Embeddings and bias have a row for each
    offset: `window` rows with "clip", 2 · window - 1 with "shift".
    mask: True where a pixel is real; no pixel looks at the others. A pixel that may look nowhere gets zeros.
    prefix: (q, k, v) of tokens, each (batch, heads, prefix, head_dim), that see all and are seen by all, without r and
    b. With a prefix the function returns (pixels, prefix).

    impl: "math" is the definition; the others are faster. "blocked": blocks of queries with the keys around them, in
    plain PyTorch. "native": C++ for CPUs, compiled on first use if there is a compiler. "flex": FlexAttention, for
    CUDA. "natten": the package of that name, for border "shift" without embeddings, bias or mask. "auto" takes the
    fastest for the device and the arguments. Raises RegardError for shapes that do not fit together, for a window that
    is even or does not fit the image, and for an `impl` that cannot compute the case here.
    """
    rows, cols = (window, window) if isinstance(window, int) else window
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    case = Case(rows, cols, dilation, border, mask, rel_rows, rel_cols, bias, scale)
    extra = None if prefix is None else Prefix(*prefix)
    check(q, k, v, case, extra)
    if impl not in get_args(LocalImpl):
        raise unknown("impl", impl, get_args(LocalImpl), where="local attention")
    chosen = _fastest(q, case) if impl == "auto" else IMPLEMENTATIONS[impl]
    pixels = chosen.run(q, k, v, case, extra) if q.numel() else v.clone()
    return pixels if extra is None else (pixels, _prefix_attention(k, v, case, extra))


def _prefix_attention(k: Tensor, v: Tensor, case: Case, prefix: Prefix) -> Tensor:
    """The prefix tokens look at each other and at all pixels that are not masked."""
    keys, values = (torch.cat([one, grid.flatten(2, 3)], dim=2) for one, grid in ((prefix.k, k), (prefix.v, v)))
    mask = None
    if case.mask is not None:
        mask = F.pad(case.mask.flatten(1), (prefix.k.shape[2], 0), value=True)[:, None, None]
    return attention(prefix.q, keys, values, mask=mask, scale=case.scale)


class Implementation(NamedTuple):
    """One way to compute the pixels."""

    serves: Callable[[Tensor, Case], bool]
    """Whether "auto" may take it: it can compute the case, and is fast on q's device."""
    run: Callable[[Tensor, Tensor, Tensor, Case, Prefix | None], Tensor]
    """(q, k, v, case, prefix) -> pixels. RegardError for a case that it cannot compute."""


def _always(q: Tensor, case: Case) -> bool:
    return True


# The fastest first: "auto" takes the first that serves.
IMPLEMENTATIONS = {
    "native": Implementation(native_serves, native),
    "natten": Implementation(natten_serves, natten),
    "flex": Implementation(flex_serves, flex),
    "blocked": Implementation(_always, blocked),
    "math": Implementation(_always, by_definition),
}


def _fastest(q: Tensor, case: Case) -> Implementation:
    return next(known for known in IMPLEMENTATIONS.values() if known.serves(q, case))


def can_be_compiled(q: Tensor) -> bool:
    """Whether torch.compile can trace `local_attention` with impl "auto".

    It can trace the native path only, which is a registered op of PyTorch; the other paths make index tables in Python.
    An export cannot hold the registered op. Where this is False, call `local_attention_weights`: it gives the same
    result from all pairs of pixels, in plain operations.
    """
    return native_serves(q) and not torch.compiler.is_exporting()

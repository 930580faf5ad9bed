"""Attention of each pixel to a window around it (SASA, Ramachandran et al. 2019, section 3), linear in the pixels."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.ops.arguments import agree, floats, is_usable, require_alike, scale_of
from regard.ops.attention import attention
from regard.ops.local.arguments import PREFIX, Case, Prefix, check, cut_to_grid
from regard.ops.local.blocked import blocked
from regard.ops.local.definition import by_definition
from regard.ops.local.flex import flex, flex_serves
from regard.ops.local.native import native, native_serves
from regard.ops.local.natten import natten, natten_serves
from regard.ops.local.tiles import tiled, tiles_serve

LocalImpl = Literal["auto", "math", "blocked", "native", "flex", "natten"]
IMPLS = get_args(LocalImpl)
NAMES = ("q", "k", "v", "rel_rows", "rel_cols", "bias", *PREFIX)


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

    window: odd; (rows, columns) where they differ. Its pixels lie `dilation` apart. Both are integers of any size; what
    lies beyond the image costs nothing. border: with "clip", pixels beyond the border do not exist; with "shift", the
    window is moved inside the image. Embeddings and bias have a row for each offset: `window` rows with "clip",
    2 · window - 1 with "shift".
    mask: True where a pixel is real; no pixel looks at the others. A pixel that may look nowhere gets zeros.
    prefix: (q, k, v) of tokens, each (batch, heads, prefix, head_dim), that see all and are seen by all, without r and
    b. With a prefix the function returns (pixels, prefix).

    q, k, v, embeddings, bias and prefix have one dtype and one device, as in `regard.ops.arguments`. NaN and infinity
    count as in the equation: a pixel gets NaN if its query, the scale, or what it looks at is NaN. A pair that is
    masked, beyond the border, or has a bias of -inf does not exist: what its key holds changes nothing, in values and
    gradients. (On a GPU, NaN may reach other pixels of the block that is computed at once.)

    impl: "math" is the definition; the others are faster. "blocked": blocks of queries with the keys around them, in
    plain PyTorch. "native": C++ for CPUs, compiled on first use if there is a compiler. "flex": FlexAttention, for
    CUDA. "natten": the package of that name, for border "shift" without embeddings, bias or mask. "auto" takes the
    fastest for the device and the arguments. Raises RegardError for shapes, dtypes and devices that do not fit
    together, for a window that is even or does not fit the image, and for an `impl` that cannot compute the case here.
    """
    rows, cols = (window, window) if isinstance(window, int) else _two(window)
    parts: Sequence[Any] = () if prefix is None else _three(prefix)
    tensors = [q, k, v, rel_rows, rel_cols, bias, *parts]
    is_usual = agree(*tensors)
    if not is_usual:
        tensors = floats("local attention", **dict(zip(NAMES, tensors, strict=False)))
        q, k, v, rel_rows, rel_cols, bias, *parts = tensors
    extra = None if prefix is None else Prefix(*parts)
    scale = scale_of("local attention", scale, q.shape[-1] if q.ndim else 0)
    case = Case(rows, cols, dilation, border, mask, rel_rows, rel_cols, bias, scale)
    check(q, k, v, case, extra)
    if not is_usual:
        require_alike("local attention", **dict(zip(NAMES, tensors, strict=False)))
    if impl not in IMPLS:
        raise unknown("impl", impl, IMPLS, where="local attention")
    if not torch.compiler.is_exporting():  # the grid's sides may be free there
        case = cut_to_grid(case, *q.shape[2:4])
    chosen = _fastest(q, case) if impl == "auto" else IMPLEMENTATIONS[impl]
    run = chosen.run if is_usable(scale) else by_definition
    seen_by_all = extra if extra is not None and extra.k.shape[2] else None
    pixels = run(q, k, v, case, seen_by_all) if q.numel() else v.clone()
    return pixels if extra is None else (pixels, _prefix_attention(k, v, case, extra))


def _two(window: Any) -> tuple[Any, Any]:
    rows, cols = window if isinstance(window, (tuple, list)) and len(window) == 2 else (window, window)
    if isinstance(rows, (tuple, list)):
        raise RegardError(f"local attention: window must be one odd integer or two, got {window}")
    return rows, cols


def _three(prefix: Any) -> tuple[Any, Any, Any]:
    if len(prefix) != 3:
        raise RegardError(f"local attention: prefix must be (q, k, v), got {len(prefix)} parts")
    return tuple(prefix)


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
    if torch.compiler.is_exporting():  # a file holds plain operations only
        return Implementation(_always, tiled if tiles_serve(case) else by_definition)
    return next(known for known in IMPLEMENTATIONS.values() if known.serves(q, case))


def can_be_compiled(q: Tensor) -> bool:
    """Whether torch.compile can trace `local_attention` with impl "auto".

    It can trace the native path only, which is a registered op of PyTorch; the other paths make index tables in Python.
    Where this is False, call `local_attention_weights`: it gives the same result from all pairs of pixels, in plain
    operations. An export, which cannot hold the registered op, takes tiles in plain operations.
    """
    return torch.compiler.is_exporting() or native_serves(q)

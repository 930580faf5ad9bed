"""The arguments of local attention that all implementations share, and their checks."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.ops.arguments import require_bool, require_shape
from regard.ops.local.windows import check_window, cut_window, num_offsets


class Prefix(NamedTuple):
    """Tokens that see all and are seen by all, as class tokens and registers are."""

    q: Float[Tensor, "batch heads prefix head_dim"]
    k: Float[Tensor, "batch heads prefix head_dim"]
    v: Float[Tensor, "batch heads prefix head_dim"]


PREFIX = ("q of the prefix", "k of the prefix", "v of the prefix")


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
    """RegardError, in one line, for shapes that do not fit together; `floats` has checked dtypes and devices."""
    op = "local attention"
    shape = q.shape
    if len(shape) != 5 or k.shape != shape or v.shape != shape:
        raise RegardError(
            f"{op}: q, k and v must be (batch, heads, height, width, head_dim), all of one shape, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    batch, heads, height, width, head_dim = shape
    check_window(height, case.rows, case.dilation, case.border)
    check_window(width, case.cols, case.dilation, case.border)
    offsets = num_offsets(case.rows, case.border), num_offsets(case.cols, case.border)
    check_embeddings(case.rel_rows, case.rel_cols, offsets, head_dim)
    if case.bias is not None:
        require_shape(op, "bias", case.bias, (heads, *offsets))
    require_bool(op, case.mask, q, "a pixel is real", (batch, height, width))
    if prefix is not None:
        tokens = prefix.q.shape[2] if prefix.q.ndim == 4 else 0
        for name, part in zip(PREFIX, prefix, strict=True):
            require_shape(op, name, part, (batch, heads, tokens, head_dim), "(batch, heads, prefix, head_dim)")


def check_embeddings(rel_rows: Tensor | None, rel_cols: Tensor | None, offsets: tuple[int, int], head_dim: int) -> None:
    """RegardError unless there are both or none, with a row for each offset, and head_dim channels together."""
    if rel_rows is None and rel_cols is None:
        return
    if rel_rows is None or rel_cols is None:
        raise RegardError("local attention: rel_rows and rel_cols go together, one of them is missing")
    of_rows, of_cols = rel_rows.shape, rel_cols.shape
    for name, shape in (("rel_rows", of_rows), ("rel_cols", of_cols)):
        if len(shape) != 2 or not shape[1]:
            raise RegardError(
                f"local attention: {name} must be (offsets, channels) with at least one channel, got {tuple(shape)}"
            )
    (num_rows, row_dim), (num_cols, col_dim) = of_rows, of_cols
    if (num_rows, num_cols) != offsets:
        raise RegardError(
            f"local attention: rel_rows and rel_cols need a row for each offset, {offsets[0]} and {offsets[1]}, "
            f"got {num_rows} and {num_cols}"
        )
    if row_dim + col_dim != head_dim:
        raise RegardError(f"local attention: row_dim {row_dim} + col_dim {col_dim} must be head_dim {head_dim}")


def cut_to_grid(case: Case, height: int, width: int) -> Case:
    """The case without what lies beyond the image from every pixel, however large window and dilation are.

    Only with "clip": a window that is moved inside the image fits into it.
    """
    if case.border != "clip":
        return case
    rows, cols = cut_window(height, case.rows, case.dilation), cut_window(width, case.cols, case.dilation)
    dilation = 1 if rows == cols == 1 else case.dilation  # the pixel itself lies at any dilation
    if (rows, cols, dilation) == (case.rows, case.cols, case.dilation):
        return case
    of_rows = slice((case.rows - rows) // 2, (case.rows + rows) // 2)
    of_cols = slice((case.cols - cols) // 2, (case.cols + cols) // 2)
    return case._replace(
        rows=rows,
        cols=cols,
        dilation=dilation,
        rel_rows=None if case.rel_rows is None else case.rel_rows[of_rows],
        rel_cols=None if case.rel_cols is None else case.rel_cols[of_cols],
        bias=None if case.bias is None else case.bias[:, of_rows, of_cols],
    )

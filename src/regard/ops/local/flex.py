"""Local attention by FlexAttention, whose kernels skip the pairs of blocks in which no query looks at a key."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regard.errors import RegardError
from regard.ops.arguments import is_sound
from regard.ops.local.arguments import Case, Prefix
from regard.ops.local.definition import by_definition
from regard.ops.local.windows import neighbours


def flex_serves(q: Tensor, case: Case) -> bool:
    """Whether it is fast here: its kernels are for CUDA."""
    return q.device.type == "cuda" and q.dtype != torch.float64


def flex(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """The mixed values of the pixels, (batch, heads, height, width, head_dim). Raises as `_require_flex`."""
    _require_flex(q)
    if q.device.type == "cpu":  # it refuses tensors that require a gradient, even under torch.no_grad
        q, k, v = q.detach(), k.detach(), v.detach()
        prefix = None if prefix is None else Prefix(*(part.detach() for part in prefix))
    if case.mask is not None:
        hidden = ~case.mask[:, None, :, :, None]
        k, v = k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
    batch, heads, height, width, head_dim = q.shape
    pixels = height * width
    keys, values = k.flatten(2, 3), v.flatten(2, 3)
    if prefix is not None:
        # Behind the pixels, so that those stay where blocks of keys begin.
        keys, values = torch.cat([keys, prefix.k], dim=2), torch.cat([values, prefix.v], dim=2)
    geometry = (height, width, case.rows, case.cols, case.dilation, case.border, q.device)
    add = _additions(q, case, geometry, pixels)
    mask = _block_mask(geometry, keys.shape[2]) if case.mask is None else _masked(geometry, keys.shape[2], case.mask)
    run = _flex_attention(compiled=q.device.type == "cuda")
    out = run(q.flatten(2, 3), keys, values, score_mod=add, block_mask=mask, scale=case.scale)
    if case.mask is not None and prefix is None:
        # A kernel may return any values for a query without a key.
        sees_nothing = ~_looks_somewhere(geometry, case.mask)
        out = out.masked_fill(sees_nothing[:, None, :, None], 0)
    if q.device.type == "cpu" and not is_sound(out):  # a NaN reaches queries that do not look at it
        return by_definition(q, k, v, case, prefix)
    return out.view(batch, heads, height, width, head_dim)


@lru_cache(maxsize=2)
def _flex_attention(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention  # type: ignore[return-value]


def _additions(q: Tensor, case: Case, geometry: Any, pixels: int) -> Callable[..., Tensor] | None:
    """FlexAttention's `score_mod`: what is added to the logit of a pair; None if nothing is."""
    if case.rel_rows is None and case.bias is None:
        return None
    width = q.shape[3]
    _, _, row_offset, col_offset = _tables(*geometry)
    of_rows = of_cols = None
    if case.rel_rows is not None and case.rel_cols is not None:
        to_rows, to_cols = q.flatten(2, 3).split([case.rel_rows.shape[1], case.rel_cols.shape[1]], dim=-1)
        of_rows = to_rows @ case.rel_rows.T.to(q.dtype) * case.scale  # (batch, heads, pixels, row offsets)
        of_cols = to_cols @ case.rel_cols.T.to(q.dtype) * case.scale
    bias = case.bias

    def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        pixel = torch.where(j < pixels, j, 0)  # nothing is added for a key of the prefix
        row = row_offset[i // width, pixel // width]
        col = col_offset[i % width, pixel % width]
        more = score
        if of_rows is not None and of_cols is not None:
            more = more + of_rows[b, h, i, row] + of_cols[b, h, i, col]
        if bias is not None:
            of_pair = bias[h, row, col]
            more = torch.where(of_pair == float("-inf"), of_pair, more + of_pair)  # whatever the key holds
        return torch.where(j < pixels, more, score)

    return lambda score, b, h, i, j: add(score, b, h, i, j)


@lru_cache(maxsize=64)
def _block_mask(geometry: Any, num_keys: int) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    height, width, *_, device = geometry
    return create_block_mask(_mod(_window(geometry)), None, None, height * width, num_keys, device=device)


def _masked(geometry: Any, num_keys: int, mask: Tensor) -> Any:
    """The block mask with masked pixels, made again for each batch."""
    from torch.nn.attention.flex_attention import create_block_mask

    pixels, near = mask[0].numel(), _window(geometry)
    real = torch.nn.functional.pad(mask.flatten(1), (0, num_keys - pixels), value=True)

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return near(b, h, i, j) & real[b, j]

    return create_block_mask(_mod(seen), len(mask), None, pixels, num_keys, device=mask.device)


def _window(geometry: Any) -> Callable[..., Tensor]:
    height, width = geometry[:2]
    near_rows, near_cols, *_ = _tables(*geometry)
    pixels = height * width

    def near(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        pixel = torch.where(j < pixels, j, 0)
        return (j >= pixels) | (near_rows[i // width, pixel // width] & near_cols[i % width, pixel % width])

    return near


def _mod(mask: Callable[..., Tensor]) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention counts the arguments of the function that it gets; a decorator would hide them."""
    return lambda b, h, i, j: mask(b, h, i, j)


def _looks_somewhere(geometry: Any, mask: Tensor) -> Tensor:
    """(batch, pixels): whether a window holds a real pixel. Windows are products of rows and columns."""
    near_rows, near_cols, *_ = _tables(*geometry)
    by_row = near_rows.float() @ mask.float() @ near_cols.float().T
    return (by_row > 0).flatten(1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _tables(
    height: int, width: int, rows: int, cols: int, dilation: int, border: str, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(near rows, near columns, row offsets, column offsets), each [i, j].

    Whether position i of an axis looks at position j, and which row of the embeddings belongs to the pair.
    """
    near, offsets = [], []
    for length, window in ((height, rows), (width, cols)):
        near_of = neighbours(length, window, dilation, border)
        here = torch.arange(length, device="cpu")[:, None].expand_as(near_of.pixel)[near_of.there]
        is_near = torch.zeros(length, length, dtype=torch.bool)
        offset = torch.zeros(length, length, dtype=torch.int64)
        is_near[here, near_of.pixel[near_of.there]] = True
        offset[here, near_of.pixel[near_of.there]] = near_of.offset[near_of.there]
        near.append(is_near.to(device))
        offsets.append(offset.to(device))
    return near[0], near[1], offsets[0], offsets[1]


def _require_flex(q: Tensor) -> None:
    if q.dtype == torch.float64:
        raise RegardError("local attention: impl 'flex' takes no float64")
    if q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
        raise RegardError("local attention: impl 'flex' has no backward pass on a CPU; use 'auto'")

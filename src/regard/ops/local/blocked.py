"""Local attention in blocks of queries, each with the keys around it: memory linear in the pixels, in plain PyTorch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.ops.arguments import is_sound
from regard.ops.attention import FEW, fused
from regard.ops.local.arguments import Case, Prefix
from regard.ops.local.definition import by_definition
from regard.ops.local.windows import Blocks, blocks
from regard.ops.tables import kept

BLOCK = 7
"""Pixels along a side of a block of queries; with a window of 7 its keys are 13 × 13."""
SMALL = 14 * 14
"""Up to so many pixels a grid is one block: to compute all pairs is then faster than to cut the grid."""
MICRO_BATCH = 2**21
"""Numbers in the keys of all blocks that are computed at once: 8 MB of float32."""


class Plan(NamedTuple):
    """A grid cut into blocks, whose pixels are counted row by row."""

    down: Blocks
    right: Blocks
    queries: Tensor
    """Pixel of each query: blocks, one after another, row by row."""
    keys: Tensor
    """Pixel of each key, likewise."""
    place: Tensor
    """Where among `queries` each pixel stands."""
    near: Tensor
    """(blocks, queries, keys): which query looks at which key. Spare queries, whose result is not used, look at all."""


def blocked(q: Tensor, k: Tensor, v: Tensor, case: Case, prefix: Prefix | None) -> Tensor:
    """Attention within each block, all blocks at once."""
    if case.mask is not None:  # what padding holds would have all computed again
        hidden = ~case.mask[:, None, :, :, None]
        k, v = k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
    height, width = q.shape[2:4]
    options = height, width, case.rows, case.cols, case.dilation, case.border
    return _Blocked.apply(
        plan_on(q.device, *options), case, q, k, v, case.rel_rows, case.rel_cols, case.bias, *(prefix or ())
    )


def plan_on(device: torch.device, *options: Any) -> Plan:
    plan = _plan(*options)
    if device.type == "cpu":
        return plan
    down, right, *rest = plan
    axes = (Blocks(*(part.to(device) for part in axis)) for axis in (down, right))
    return Plan(*axes, *(part.to(device) for part in rest))  # type: ignore[arg-type] # the first two are no tensors


@kept(64)
def _plan(height: int, width: int, rows: int, cols: int, dilation: int, border: str) -> Plan:
    block = max(height, width) if height * width <= SMALL else BLOCK
    down = blocks(height, rows, dilation, border, block)
    right = blocks(width, cols, dilation, border, block)

    def pixels(row: Tensor, col: Tensor) -> Tensor:
        return (row[:, None, :, None] * width + col[None, :, None, :]).flatten()

    queries = down.queries.shape[1] * right.queries.shape[1]
    block_of = (
        down.place[:, None] // down.queries.shape[1] * right.queries.shape[0] + right.place // right.queries.shape[1]
    )
    within = down.place[:, None] % down.queries.shape[1] * right.queries.shape[1] + right.place % right.queries.shape[1]
    near = (down.near[:, None, :, None, :, None] & right.near[None, :, None, :, None, :]).flatten(4, 5).flatten(2, 3)
    near = near.flatten(0, 1)
    return Plan(
        down,
        right,
        pixels(down.queries, right.queries),
        pixels(down.keys, right.keys),
        (block_of * queries + within).flatten(),
        near | ~near.any(-1, keepdim=True),
    )


class _Blocked(torch.autograd.Function):
    """Saves only its arguments, and cuts them into blocks again for the gradients; in micro-batches.

    Each pixel is among the keys of about three blocks. If these were saved, or computed all at once, they would need
    more memory than everything else, and not fit in the processor's cache.

    In a block all queries are multiplied with all keys, so that a NaN reaches queries that do not look at it. A
    micro-batch whose results are not finite is therefore computed again by the definition, one head at a time.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, case: Case, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor | None) -> Tensor:
        ctx.plan, ctx.case = plan, case._replace(mask=None, rel_rows=None, rel_cols=None, bias=None)
        ctx.save_for_backward(case.mask, q, k, v, *rest)
        out = torch.empty_like(q)
        for at in _micro_batches(plan, q):
            some_case, tensors = _some(at, case, [q, k, v, *rest])
            parts = _blocks_of(plan, *tensors[:3])
            out[at] = _returned(_mixed(plan, some_case, *parts, *tensors[6:]), plan, out[at].shape)
            if not _is_right(plan, tensors, None if case.bias is None else out[at]):
                for one in _heads(at, out):
                    one_case, some = _some(one, case, [q, k, v, *rest])
                    out[one] = _defined(one_case, some)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Any, ...]:
        plan: Plan = ctx.plan
        mask, *tensors = ctx.saved_tensors
        needed = [asked and part is not None for asked, part in zip(ctx.needs_input_grad[2:], tensors, strict=True)]
        grads = [torch.zeros_like(part) if asked else None for asked, part in zip(needed, tensors, strict=True)]
        case = ctx.case._replace(mask=mask, rel_rows=tensors[3], rel_cols=tensors[4], bias=tensors[5])
        for at in _micro_batches(plan, d_out):
            some_case, some = _some(at, case, tensors)
            leaves: list[Any] = [
                part if part is None else part.detach() for part in (*_blocks_of(plan, *some[:3]), *some[3:])
            ]
            with torch.enable_grad():
                wanted = [part.requires_grad_() for part, asked in zip(leaves, needed, strict=True) if asked]
                some_case = some_case._replace(rel_rows=leaves[3], rel_cols=leaves[4], bias=leaves[5])
                mixed = _mixed(plan, some_case, *leaves[:3], *leaves[6:])
            d_mixed = torch.zeros_like(mixed).flatten(0, 2)
            place = _in_rows(plan.place, mixed.shape[0], mixed[0].shape[:2].numel())
            d_mixed.index_copy_(0, place, d_out[at].reshape(-1, d_out.shape[-1]))
            found = torch.autograd.grad(mixed, wanted, d_mixed.view_as(mixed), allow_unused=True)
            if not _is_right(plan, some, *found):
                for one in _heads(at, d_out):
                    _add_defined_gradients(*_some(one, case, tensors), needed, d_out[one], _some(one, case, grads)[1])
                continue
            computed = iter(found)
            for i, (_, into) in enumerate(zip(some, _some(at, case, grads)[1], strict=True)):
                grad = next(computed) if needed[i] else None
                if grad is None or into is None:
                    continue
                shape = into.shape
                into += _returned(grad, plan, shape) if i == 0 else _summed(grad, plan, shape) if i < 3 else grad
        return None, None, *grads


def _heads(at: tuple[slice, slice], like: Tensor) -> list[tuple[slice, slice]]:
    """Each image and head of a micro-batch."""
    images, heads = (range(size)[part] for size, part in zip(like.shape[:2], at, strict=True))
    return [(slice(b, b + 1), slice(h, h + 1)) for b in images for h in heads]


def _is_right(plan: Plan, tensors: Sequence[Tensor | None], *results: Tensor | None) -> bool:
    """Whether the kernel's results are those of the definition, because what they come from is finite.

    A bias may be -inf; a NaN in it is seen in the results, unless there are only a few keys.
    """
    q, k, v, rel_rows, rel_cols, bias, *prefix = tensors
    few = plan.near.shape[-1] + (prefix[1].shape[2] if prefix and prefix[1] is not None else 0) < FEW
    return is_sound(*results, q, k, v, rel_rows, rel_cols, *prefix[1:], bias if few else None)


def _defined(case: Case, some: Sequence[Any]) -> Tensor:
    q, k, v, rel_rows, rel_cols, bias, *prefix = some
    case = case._replace(rel_rows=rel_rows, rel_cols=rel_cols, bias=bias)
    return by_definition(q, k, v, case, Prefix(*prefix) if prefix else None)


def _add_defined_gradients(
    case: Case, some: Sequence[Any], needed: Sequence[bool], d_out: Tensor, grads: Sequence[Any]
) -> None:
    leaves: list[Any] = [part if part is None else part.detach() for part in some]
    with torch.enable_grad():
        wanted = [part.requires_grad_() for part, asked in zip(leaves, needed, strict=True) if asked]
        out = _defined(case, leaves)
    into = [grad for grad, asked in zip(grads, needed, strict=True) if asked]
    for grad, more in zip(into, torch.autograd.grad(out, wanted, d_out, allow_unused=True), strict=True):
        if more is not None:
            grad += more


def _micro_batches(plan: Plan, q: Tensor) -> list[tuple[slice, slice]]:
    """The images and heads that are computed at once."""
    batch, heads = q.shape[:2]
    fits = max(1, MICRO_BATCH // (plan.keys.shape[0] * q.shape[-1]))
    if fits >= heads:
        step = fits // heads
        return [(slice(first, first + step), slice(None)) for first in range(0, batch, step)]
    # Micro-batches of one size reuse the same memory.
    step = next(step for step in range(fits, 0, -1) if heads % step == 0)
    return [(slice(b, b + 1), slice(h, h + step)) for b in range(batch) for h in range(0, heads, step)]


def _some(at: tuple[slice, slice], case: Case, tensors: Sequence[Tensor | None]) -> tuple[Case, list[Any]]:
    """A micro-batch of the case, and of q, k, v, rel_rows, rel_cols, bias and the prefix."""
    q, k, v, rel_rows, rel_cols, bias, *prefix = tensors
    of_heads = None if bias is None else bias[at[1]]
    of_tokens = [None if part is None else part[at] for part in (q, k, v)]
    mask = None if case.mask is None else case.mask[at[0]]
    of_prefix = [None if part is None else part[at] for part in prefix]
    return case._replace(mask=mask, bias=of_heads), [*of_tokens, rel_rows, rel_cols, of_heads, *of_prefix]


def _blocks_of(plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _taken(q, plan.queries, plan), _taken(k, plan.keys, plan), _taken(v, plan.keys, plan)


def _mixed(plan: Plan, case: Case, queries: Tensor, keys: Tensor, values: Tensor, *prefix: Tensor) -> Tensor:
    """Attention in each block, (batch · heads, blocks, queries, head_dim).

    The embeddings and the bias become further channels of queries and keys, because PyTorch's fused kernel is slow for
    a mask with a gradient. For the embeddings, the channels of q are q·r for each row and each column of keys of its
    block, and those of k are one-hot: its row and its column. For the bias, the channels of q are one-hot: its number
    in the block; and those of k are its bias for each of these queries.
    """
    down, right, head_dim = plan.down, plan.right, queries.shape[-1]
    num_rows, num_cols = down.keys.shape[1], right.keys.shape[1]
    longer: list[tuple[Tensor, Tensor]] = []
    if case.rel_rows is not None and case.rel_cols is not None:
        grid = (down.queries.shape[0], right.queries.shape[0], down.queries.shape[1], right.queries.shape[1])
        to_rows, to_cols = queries.view(-1, *grid, head_dim).split([case.rel_rows.shape[1], case.rel_cols.shape[1]], -1)
        of_rows = torch.einsum("nuvyxd,uyrd->nuvyxr", to_rows, case.rel_rows[down.offset].to(queries.dtype))
        of_cols = torch.einsum("nuvyxd,vxcd->nuvyxc", to_cols, case.rel_cols[right.offset].to(queries.dtype))
        in_row = torch.eye(num_rows, dtype=queries.dtype, device=queries.device).repeat_interleave(num_cols, 0)
        in_col = torch.eye(num_cols, dtype=queries.dtype, device=queries.device).repeat(num_rows, 1)
        added = torch.cat([of_rows, of_cols], dim=-1).view(*queries.shape[:3], -1)
        longer.append((added, torch.cat([in_row, in_col], dim=1)))
    seen, scale = plan.near[None], case.scale  # the fused kernel does not take a mask of three dimensions
    all_see = case.mask is None
    if case.bias is not None:
        pairs = case.bias[:, down.offset[:, None, :, None, :, None], right.offset[None, :, None, :, None, :]]
        pairs = pairs.flatten(5, 6).flatten(3, 4).flatten(1, 2)  # (heads, blocks, queries, keys)
        if (case.bias == float("-inf")).any():  # 0 · -inf would be NaN
            all_see = False
            seen = (seen & (pairs != float("-inf"))).repeat(queries.shape[0] // pairs.shape[0], 1, 1, 1)
            pairs = pairs.masked_fill(pairs == float("-inf"), 0)
        which = torch.eye(queries.shape[2], dtype=queries.dtype, device=queries.device)
        longer = [(of_query * scale, of_key) for of_query, of_key in longer]
        queries, scale = queries * scale, 1.0  # the bias is not scaled
        longer.append((which, pairs.transpose(-2, -1).repeat(queries.shape[0] // pairs.shape[0], 1, 1, 1)))
    for of_query, of_key in longer:
        queries = torch.cat([queries, of_query.expand(*queries.shape[:3], -1)], dim=-1)
        keys = torch.cat([keys, of_key.expand(*keys.shape[:3], -1)], dim=-1)
    added_dim = queries.shape[-1] - head_dim
    if case.mask is not None:
        real = case.mask.flatten(1)[:, plan.keys].view(case.mask.shape[0], plan.near.shape[0], 1, -1)
        seen = seen & real.repeat_interleave(queries.shape[0] // real.shape[0], 0)
    if prefix:
        before = [part.flatten(0, 1)[:, None].expand(-1, queries.shape[1], -1, -1) for part in prefix[1:]]
        keys = torch.cat([F.pad(before[0], (0, added_dim)), keys], dim=2)
        values = torch.cat([before[1], values], dim=2)
        seen = F.pad(seen, (before[0].shape[2], 0), value=True)
    values = F.pad(values, (0, added_dim))  # the fused kernel needs values as wide as keys
    if all_see:
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=scale)
    else:
        mixed = fused(queries, keys, values, seen, None, False, scale)
    return mixed[..., :head_dim]


def _taken(x: Tensor, pixels: Tensor, plan: Plan) -> Tensor:
    """(batch, heads, height, width, dim) -> (batch · heads, blocks, pixels of a block, dim)."""
    picked = _picked(x.flatten(0, 1).flatten(1, 2), pixels, plan)
    return picked.view(picked.shape[0], plan.near.shape[0], -1, x.shape[-1])


def _returned(mixed: Tensor, plan: Plan, shape: torch.Size) -> Tensor:
    """(batch · heads, blocks, queries, dim) -> `shape`: each pixel takes the result of its query."""
    return _picked(mixed.flatten(1, 2), plan.place, plan).view(shape)


def _picked(x: Tensor, index: Tensor, plan: Plan) -> Tensor:
    """x[:, index], (rows, index, dim), as one lookup: an index along an inner dimension takes five times as long."""
    if plan.near.shape[0] == 1 and index.shape[0] == x.shape[1]:
        return x.contiguous()  # one block holds all pixels in their order
    return x.reshape(-1, x.shape[2]).index_select(0, _in_rows(index, *x.shape[:2])).unflatten(0, (x.shape[0], -1))


def _in_rows(index: Tensor, rows: int, length: int) -> Tensor:
    return (torch.arange(rows, device=index.device)[:, None] * length + index).flatten()


def _summed(of_keys: Tensor, plan: Plan, shape: torch.Size) -> Tensor:
    """The adjoint of `_taken`: the sum over all blocks for each pixel."""
    (num_down, rows), (num_right, cols) = plan.down.keys.shape, plan.right.keys.shape
    x = of_keys.view(-1, num_down, num_right, rows, cols, shape[-1]).permute(0, 1, 3, 2, 4, 5)
    x = x.reshape(x.shape[0], num_down * rows, num_right * cols, -1)
    height, width = shape[2:4]
    down = x.new_zeros(x.shape[0], height, x.shape[2], x.shape[3]).index_add_(1, plan.down.keys.flatten(), x)
    both = x.new_zeros(x.shape[0], height, width, x.shape[3]).index_add_(2, plan.right.keys.flatten(), down)
    return both.view(shape)

"""A row vector times the matrices of a layer: what rollout and relevance are products of, without tokens × tokens.

    r ← r·A_h                 rollout (Abnar and Zuidema 2020)
    r ← r·(dA_h ∘ A_h)⁺       relevance (Chefer et al. 2021), with dA_ij = dO_i·v_j

The attention may also be that of queries to other keys, as a decoder's. The first product is Aᵀ r, which PyTorch's
fused kernel computes as the gradient of its values. The second takes some rows of A at a time, a quarter of them at
most; rows that r does not ask for are left out.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.explain.sites import Inputs, is_timm, timm_projection
from regard.layers import MultiHeadAttention
from regard.mixers import MIXERS, Mixer

SOME_VALUES = 2**20
"""Numbers of the rows of A that exist at a time."""


def require_matrix(inputs: Inputs, method: str) -> None:
    """RegardError for a layer without a mixing matrix; it names the mixers that have one."""
    module = inputs.site.module
    if not (isinstance(module, Mixer) and inputs.site.is_matrix) and not is_timm(module):
        able = ", ".join(name for name, kind in MIXERS.items() if hasattr(kind, "mixing_matrix"))
        instead = "; ask for its influence" if method == "rows" else ""
        raise RegardError(
            f"{method}: {inputs.site.name} has {inputs.site.mixer}, which has no mixing matrix{instead}; mixers that "
            f"have one: {able}, and the attention of timm's ViTs"
        )


@torch.no_grad()
def carried(
    inputs: Inputs,
    r: Float[Tensor, "batch queries"],
    d_out: Float[Tensor, "batch queries channels"] | None = None,
) -> Float[Tensor, "batch heads keys"]:
    """r·A_h of each head; or r·(dA_h ∘ A_h)⁺, where `d_out` is the gradient before the output projection."""
    module = inputs.site.module
    if d_out is None and not bool((r != 0).sum(1).le(1).all()) and _is_plain(inputs):
        q, k = (_projected(inputs, part) for part in (0, 1))
        return _by_the_fused_kernel(q, k, r, causal=bool(getattr(module, "causal", False)))
    return _by_rows(inputs, r, d_out)


def _by_the_fused_kernel(q: Tensor, k: Tensor, r: Tensor, *, causal: bool) -> Tensor:
    """Aᵀ r as the gradient of the values: channel 0 of dO is r, so that channel 0 of dV = Aᵀ dO is wanted."""
    with torch.enable_grad():
        v = torch.zeros_like(q, requires_grad=True)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        d_out = torch.zeros_like(out)
        d_out[..., 0] = r[:, None]
        (d_v,) = torch.autograd.grad(out, v, d_out)
    return d_v[..., 0]


@torch.no_grad()
def carried_column(
    inputs: Inputs, column: Float[Tensor, "batch tokens"], d_out: Float[Tensor, "batch tokens channels"]
) -> Float[Tensor, "batch tokens"]:
    """mean_h (dA_h ∘ A_h)⁺ · column, from the first layer to the last: sums over rows are carried so."""
    result, asked = torch.zeros_like(column), torch.arange(inputs.num_queries, device=column.device)
    for _, some, rows in _weighted_rows(inputs, asked, d_out):
        result[:, some] += (rows @ column[:, :, None])[..., 0]
    return result / inputs.site.num_heads


@torch.no_grad()
def relevant_matrix(
    inputs: Inputs, d_out: Float[Tensor, "batch queries channels"]
) -> Float[Tensor, "batch queries keys"]:
    """mean_h (dA_h ∘ A_h)⁺ as a whole: of a decoder's queries, which are few."""
    asked = torch.arange(inputs.num_queries, device=d_out.device)
    dtype = torch.promote_types(d_out.dtype, torch.float32)
    result = torch.zeros(inputs.batch, inputs.num_queries, inputs.num_keys, dtype=dtype, device=d_out.device)
    for _, some, rows in _weighted_rows(inputs, asked, d_out):
        result[:, some] += rows
    return result / inputs.site.num_heads


def _by_rows(inputs: Inputs, r: Tensor, d_out: Tensor | None) -> Tensor:
    result = r.new_zeros(len(r), inputs.site.num_heads, inputs.num_keys)
    for head, some, rows in _weighted_rows(inputs, (r != 0).any(0).nonzero().flatten(), d_out):
        result[:, head] += (r[:, None, some] @ rows)[:, 0]
    return result


def _weighted_rows(inputs: Inputs, asked: Tensor, d_out: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Head, some of the queries that are asked for, and their rows of A, or of (dA ∘ A)⁺, one after the other."""
    heads = inputs.site.num_heads
    values = None if d_out is None else _projected(inputs, 2)
    d_heads = None
    if d_out is not None and values is not None:
        d_heads = d_out.to(values.dtype).unflatten(-1, (heads, -1)).transpose(1, 2)
    # Once for all heads: a projection is of every head.
    both = (_projected(inputs, 0), _projected(inputs, 1)) if _is_plain(inputs) else None
    for head in range(heads):
        of_head = None if both is None else (both[0][:, head], both[1][:, head])
        for some, rows in _rows_of_head(inputs, head, of_head, asked):
            if values is not None and d_heads is not None:
                rows = (d_heads[:, head, some] @ values[:, head].transpose(-2, -1)).relu_().mul_(rows)
            yield head, some, rows


def _rows_of_head(
    inputs: Inputs, head: int, of_head: tuple[Tensor, Tensor] | None, asked: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some queries and their rows (batch, queries, tokens), one after the other.

    of_head: q and k of the head, (batch, tokens, head_dim), where the rows are a softmax of them over all tokens.
    """
    step = max(min(inputs.num_keys // 4, SOME_VALUES // inputs.num_keys) // inputs.batch, 1)
    for some in asked.split(step):
        if of_head is None:
            yield some, inputs.rows(some, torch.tensor([head], device=some.device))[:, 0]
            continue
        q, k = of_head
        logits = q[:, some] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if getattr(inputs.site.module, "causal", False):
            future = torch.arange(inputs.num_keys, device=some.device) > some[:, None]
            logits = logits.masked_fill(future, float("-inf"))
        yield some, logits.softmax(-1)


def _is_plain(inputs: Inputs) -> bool:
    """Whether it is softmax attention over all tokens."""
    if isinstance(inputs.site.module, MultiHeadAttention):
        return all(one is None for one in inputs.options("attn_mask", "key_mask").values())
    return is_timm(inputs.site.module) or (inputs.site.mixer == "attention" and inputs.kwargs.get("mask") is None)


def _projected(inputs: Inputs, part: int) -> Tensor:
    """q (0), k (1) or v (2) of all tokens, in float32 at least."""
    module: Any = inputs.site.module
    if is_timm(module):
        found: Tensor = timm_projection(module, inputs.x, part)(slice(None))
    elif isinstance(module, MultiHeadAttention):
        found = (module.q, module.k, module.v)[part](inputs.args[part])
        found = found.unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
    elif part == 2:
        found = module.value(inputs.x)
    else:
        found = module.project("k" if part else "q", inputs.x, inputs.kwargs.get("positions"))
    return found.to(torch.promote_types(found.dtype, torch.float32))


def mixed_by(module: nn.Module) -> tuple[nn.Module, bool]:
    """Where the mixed values of all heads pass by: the input (True) of the output projection, or the mixer's output."""
    proj = getattr(module, "proj", None)
    return (proj, True) if isinstance(proj, nn.Module) else (module, False)

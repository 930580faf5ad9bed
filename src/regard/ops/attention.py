"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1)."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.ops.arguments import (
    agree,
    floats,
    holds_everywhere,
    is_sound,
    is_usable,
    looks_at_values,
    require_alike,
    require_bool,
    scale_of,
)
from regard.ops.masked_products import products, sums

SHORT = 512
"""Up to so many keys, bfloat16 with gradients is computed in float32 on a CPU."""
FEW = 16
"""With fewer keys than a vector has lanes, PyTorch's kernel gives zeros to a query whose logits are all NaN."""

AttentionImpl = Literal["auto", "math", "sdpa"]
IMPLS = get_args(AttentionImpl)


def attention_weights(
    q: Float[Tensor, "batch heads queries head_dim"],
    k: Float[Tensor, "batch heads keys head_dim"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    bias: Float[Tensor, "..."] | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """softmax(q kᵀ · scale + bias) over the keys: what each query takes from each key, in rows that sum to one.

    The arguments are those of `attention`. The softmax runs in float32 at least. A query that may look nowhere has a
    row of zeros.
    """
    q, k, bias = floats("attention", q=q, k=k, bias=bias)
    scale = _checked(q, k, None, mask, bias, scale)
    require_alike("attention", q=q, k=k, bias=bias)
    return _weights(q, k, _allowed(mask, bias, q, k, is_causal), bias, scale)


def attention(
    q: Float[Tensor, "batch heads queries head_dim"],
    k: Float[Tensor, "batch heads keys head_dim"],
    v: Float[Tensor, "batch heads keys value_dim"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    bias: Float[Tensor, "..."] | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    impl: str = "auto",
) -> Float[Tensor, "batch heads queries value_dim"]:
    """softmax(q kᵀ · scale + bias) v  (Vaswani et al. 2017, eq. 1).

    `mask` is True where a query may look at a key, and `bias` is added to the logits; both broadcast to
    (batch, heads, queries, keys). `is_causal` lets query i see the keys up to i. `scale` is 1/√head_dim unless given.
    A query that may look nowhere gets zeros, and finite gradients. A bias of -inf is a mask.

    q, k, v and bias have one dtype and one device, as in `regard.ops.arguments`. A NaN in a query, in the scale, or in
    a key, value or bias that a query may look at makes the query's output NaN; what it may not look at does not count,
    in values and gradients. On a GPU the fused kernel may carry it to other queries of its head, but not from keys that
    no query looks at.

    `impl`: "math" is the definition, "sdpa" is PyTorch's fused kernel, "auto" the faster one.
    Raises RegardError for shapes, dtypes and devices that do not fit together, and for an unknown `impl`.
    """
    if agree(q, k, v, bias):
        scale = _checked(q, k, v, mask, bias, scale)
    else:
        q, k, v, bias = floats("attention", q=q, k=k, v=v, bias=bias)
        scale = _checked(q, k, v, mask, bias, scale)
        require_alike("attention", q=q, k=k, v=v, bias=bias)
    if impl not in IMPLS:
        raise unknown("impl", impl, IMPLS, where="attention")
    if impl != "math" and is_usable(scale):
        few, some_masked = k.shape[2] < FEW, mask is not None or bias is not None
        if not looks_at_values(q) or not (few or some_masked or is_causal):
            return fused(q, k, v, mask, bias, is_causal, scale)
        if few or some_masked or q.shape[2] < k.shape[2]:
            if _is_sound(q, k, v, some_masked or is_causal) and not _has_nan(bias):
                return fused(q, k, v, mask, bias, is_causal, scale)
        elif is_sound(out := fused(q, k, v, None, None, True, scale)):  # every key is seen by the last query
            return out
    allowed = _allowed(mask, bias, q, k, is_causal)
    return sums(_weights(q, k, allowed, bias, scale), v, allowed)


def _is_sound(q: Tensor, k: Tensor, v: Tensor, some_masked: bool) -> bool:
    """Whether the kernel shows what is not finite where it belongs."""
    if not some_masked:  # there are a few keys: a query that is NaN would not be seen
        return is_sound(q, k)
    # A query that is NaN spoils its own output, as it should; but the gradients of keys that it may not look at.
    return is_sound(k, v, q if torch.is_grad_enabled() or k.shape[2] < FEW else None)


def _has_nan(bias: Tensor | None) -> bool:
    """As far as the sum tells: -inf is a mask, so that it need not be finite."""
    try:
        return bias is not None and bool(bias.detach().sum().isnan())
    except RuntimeError:  # vmap cannot look at values
        return False


def _weights(q: Tensor, k: Tensor, allowed: Tensor | None, bias: Tensor | None, scale: float) -> Tensor:
    logits = products(q * scale, k, allowed)
    logits = logits.to(torch.promote_types(q.dtype, torch.float32))
    if bias is not None:
        logits = logits + bias
    return (logits.softmax(-1) if allowed is None else masked_softmax(logits, allowed)).to(q.dtype)


def masked_softmax(logits: Float[Tensor, "*shape"], allowed: Bool[Tensor, "..."]) -> Float[Tensor, "*shape"]:
    """Softmax over the pairs that are allowed, and 0 for the others; a row without any has zeros and no gradient."""
    nowhere = ~allowed.any(-1, keepdim=True)  # a softmax over nothing but -inf would be NaN
    return logits.masked_fill(~allowed, float("-inf")).masked_fill(nowhere, 0).softmax(-1).masked_fill(~allowed, 0)


def fused(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, is_causal: bool, scale: float
) -> Tensor:
    """PyTorch's kernel. What is not finite in q, k or v may reach queries that do not look at it."""
    if _short_in_bf16(q, k, v):
        with torch.autocast("cpu", enabled=False):  # autocast would cast them to bfloat16 again
            wide = None if bias is None else bias.float()
            return fused(q.float(), k.float(), v.float(), mask, wide, is_causal, scale).to(q.dtype)
    if scale <= 0:  # PyTorch's CPU kernel multiplies the -inf of causal pairs by it
        q, scale = q * scale, 1.0
    # With a last stride other than one the kernel falls back to a path that is quadratic in memory.
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    if mask is None and bias is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)
    mask = _allowed(mask, bias, q, k, is_causal)
    assert mask is not None
    if q.device.type != "cpu":  # where nobody looks at the result: at least keys that no query looks at do not count
        unseen = ~torch.atleast_2d(mask).any(-2).unsqueeze(-1)
        k, v = k.masked_fill(unseen, 0), v.masked_fill(unseen, 0)
    # Kernels differ in what a query without any key gets: here it looks everywhere, and is set to zero afterwards.
    somewhere = mask.any(-1, keepdim=True)
    all_look = looks_at_values(q) and holds_everywhere(somewhere)
    logit_mask = mask if bias is None else bias.masked_fill(~mask, float("-inf"))
    if not all_look:
        logit_mask = mask | ~somewhere if bias is None else logit_mask.masked_fill(~somewhere, 0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=_expanded(logit_mask, q, k), scale=scale)
    return out if all_look else out.masked_fill(~somewhere, 0)


def _short_in_bf16(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the float32 kernel is faster: on a CPU the bfloat16 backward pass takes up to five times as long."""
    with_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return q.dtype == torch.bfloat16 and q.device.type == "cpu" and with_gradient and k.shape[2] <= SHORT


def _expanded(logit_mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return logit_mask.expand(*q.shape[:2], q.shape[2], k.shape[2])


def _allowed(mask: Tensor | None, bias: Tensor | None, q: Tensor, k: Tensor, is_causal: bool) -> Tensor | None:
    """One mask out of `mask`, the causal one, and the pairs whose bias is not -inf; None if all pairs are allowed."""
    if is_causal:
        causal = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        mask = causal if mask is None else mask & causal
    if bias is not None:
        finite = bias != float("-inf")
        mask = finite if mask is None else mask & finite
    return mask


def _checked(q: Tensor, k: Tensor, v: Tensor | None, mask: Any, bias: Tensor | None, scale: Any) -> float:
    """The scale. RegardError for what does not fit together."""
    of_q, of_k = q.shape, k.shape
    if len(of_q) != 4 or len(of_k) != 4 or of_q[:2] != of_k[:2] or of_q[3] != of_k[3]:
        raise RegardError(
            f"attention: q {tuple(q.shape)} and k {tuple(k.shape)} must be (batch, heads, tokens, head_dim) "
            "and agree in all but tokens"
        )
    if v is not None and (v.ndim != 4 or v.shape[:3] != of_k[:3]):
        raise RegardError(f"attention: v {tuple(v.shape)} must have k's batch, heads and keys, {tuple(k.shape[:3])}")
    require_bool("attention", mask, q, "a query may look")
    if mask is not None or bias is not None:
        logits = (*q.shape[:3], k.shape[2])
        for name, tensor in (("mask", mask), ("bias", bias)):
            if tensor is not None and not _broadcasts(tuple(tensor.shape), logits):
                raise RegardError(
                    f"attention: {name} {tuple(tensor.shape)} does not broadcast to "
                    f"(batch, heads, queries, keys) {logits}"
                )
    return scale_of("attention", scale, of_q[3])


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))

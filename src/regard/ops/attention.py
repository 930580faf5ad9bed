"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1)."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError, unknown

SHORT = 512
"""Up to so many keys, bfloat16 with gradients is computed in float32 on a CPU."""

AttentionImpl = Literal["auto", "math", "sdpa"]


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
    _check(q, k, None, mask, bias)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = (q * scale) @ k.transpose(-2, -1)
    logits = logits.to(torch.promote_types(q.dtype, torch.float32))
    if bias is not None:
        logits = logits + bias
    mask = _allowed(mask, bias, q, k, is_causal)
    if mask is None:
        return logits.softmax(-1).to(q.dtype)
    # The finite fill keeps the softmax and the gradient of a row without any key finite; the second fill sets it to 0.
    weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0).to(q.dtype)


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
    A query that may look nowhere gets zeros, and finite gradients.

    `impl`: "math" is the definition, "sdpa" is PyTorch's fused kernel, "auto" the faster one.
    Raises RegardError for shapes that do not fit together, and for an unknown `impl`.
    """
    _check(q, k, v, mask, bias)
    if impl not in get_args(AttentionImpl):
        raise unknown("impl", impl, get_args(AttentionImpl), where="attention")
    if impl == "math":
        return attention_weights(q, k, mask=mask, bias=bias, is_causal=is_causal, scale=scale) @ v
    return _fused(q, k, v, mask, bias, is_causal, scale)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, is_causal: bool, scale: float | None
) -> Tensor:
    if _short_in_bf16(q, k, v):
        with torch.autocast("cpu", enabled=False):  # autocast would cast them to bfloat16 again
            return _fused(q.float(), k.float(), v.float(), mask, bias, is_causal, scale).to(q.dtype)
    # With a last stride other than one the kernel falls back to a path that is quadratic in memory.
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    if mask is None and bias is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)
    mask = _allowed(mask, bias, q, k, is_causal)
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=_expanded(bias, q, k), scale=scale)
    # Kernels differ in what a query without any key gets: here it looks everywhere, and is set to zero afterwards.
    somewhere = mask.any(-1, keepdim=True)
    mask = mask | ~somewhere
    logit_mask = mask if bias is None else bias.to(q.dtype).masked_fill(~mask, float("-inf"))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=_expanded(logit_mask, q, k), scale=scale)
    return out.masked_fill(~somewhere, 0)


def _short_in_bf16(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the float32 kernel is faster: on a CPU the bfloat16 backward pass takes up to five times as long."""
    with_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return q.dtype == torch.bfloat16 and q.device.type == "cpu" and with_gradient and k.shape[2] <= SHORT


def _expanded(logit_mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    if logit_mask is None:
        return None
    logit_mask = logit_mask if logit_mask.dtype == torch.bool else logit_mask.to(q.dtype)
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


def _check(q: Tensor, k: Tensor, v: Tensor | None, mask: Tensor | None, bias: Tensor | None) -> None:
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise RegardError(
            f"attention: q {tuple(q.shape)} and k {tuple(k.shape)} must be (batch, heads, tokens, head_dim) "
            "and agree in all but tokens"
        )
    if v is not None and v.shape[:3] != k.shape[:3]:
        raise RegardError(f"attention: v {tuple(v.shape)} must have k's batch, heads and keys, {tuple(k.shape[:3])}")
    logits = (*q.shape[:3], k.shape[2])
    for name, tensor in (("mask", mask), ("bias", bias)):
        if tensor is not None and not _broadcasts(tuple(tensor.shape), logits):
            raise RegardError(
                f"attention: {name} {tuple(tensor.shape)} does not broadcast to (batch, heads, queries, keys) {logits}"
            )
    if mask is not None and mask.dtype != torch.bool:
        raise RegardError(f"attention: mask must be bool, True where a query may look; got {mask.dtype}. See also bias")


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))

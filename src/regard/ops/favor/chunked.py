"""FAVOR+ for some tokens at a time: their features stay in the processor's cache, and are not kept for gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.ops.favor.features import RELU_EPSILON, divided, finite

FEATURES = 2**19
"""Numbers of features in one chunk: 2 MB of float32."""
FEATURES_WITHOUT_GRADIENT = 2**17
"""Without gradients, chunks are faster above this many. With gradients the limit is `FEATURES`, since the backward pass
computes the features again."""


def chunks_are_faster(q: Tensor, k: Tensor, projection: Tensor) -> bool:
    """Whether `favor_in_chunks` can be used, and is faster than the definition because there are many features.

    It has no gradient for `projection`. In a compilation or an export the sizes are not read, because they would become
    constants of the graph.
    """
    if torch.compiler.is_compiling() or projection.requires_grad:
        return False
    with_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    features = max(q.shape[2], k.shape[2]) * q.shape[:2].numel() * projection.shape[0]
    return features > (FEATURES if with_gradient else FEATURES_WITHOUT_GRADIENT)


def favor_in_chunks(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    """`favor_attention` that is not causal, (batch, heads, queries, value_dim)."""
    return _Chunked.apply(q, k, v, projection, kind, mask)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, projection: Tensor, kind: str, mask: Tensor | None
    ) -> Tensor:
        ctx.kind = kind
        maps = _maps(q, projection)
        summary, top = _summarised(k, v, maps, kind, mask)
        out = q.new_empty(*q.shape[:3], v.shape[3], dtype=v.dtype)
        for at in _chunks(q, maps):
            out[:, :, at] = _mixed(_query_features(q[:, :, at], maps, kind), summary, kind)
        ctx.save_for_backward(q, k, v, projection, mask, summary, top)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, projection, mask, summary, top = ctx.saved_tensors
        maps = _maps(q, projection)
        d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        d_summary = torch.zeros_like(summary)
        with torch.enable_grad():
            summary = summary.detach().requires_grad_()
            for at in _chunks(q, maps):
                some = q[:, :, at].detach().requires_grad_()
                mixed = _mixed(_query_features(some, maps, ctx.kind), summary, ctx.kind)
                d_q[:, :, at], more = torch.autograd.grad(mixed, (some, summary), d_out[:, :, at].to(mixed.dtype))
                d_summary += more
            for at in _chunks(k, maps):
                keys, values = k[:, :, at].detach().requires_grad_(), v[:, :, at].detach().requires_grad_()
                features = _key_features(keys, maps, ctx.kind, None if mask is None else mask[:, at])
                if ctx.kind != "relu":
                    features = (features - finite(top)).exp()
                summed = _sum(features, values, ctx.kind, None if mask is None else mask[:, at])
                d_k[:, :, at], d_v[:, :, at] = torch.autograd.grad(summed, (keys, values), d_summary)
        return d_q, d_k, d_v, None, None, None


def _maps(x: Tensor, projection: Tensor) -> Tensor:
    """(head_dim, num_features): the projection times the scale of x, head_dim^-¼."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return projection.T.to(wide) * x.shape[-1] ** -0.25


def _chunks(x: Tensor, maps: Tensor) -> list[slice]:
    size = max(64, FEATURES // max(1, x.shape[0] * x.shape[1] * maps.shape[1]))
    return [slice(first, first + size) for first in range(0, x.shape[2], size)]


def _query_features(x: Tensor, maps: Tensor, kind: str) -> Tensor:
    """Features up to a factor for each query, which cancels in the quotient; so |x|² is not needed."""
    products = x.to(maps.dtype) @ maps
    if kind == "relu":
        return products.relu()
    if kind == "softmax_hyperbolic":
        products = torch.cat([products, -products], dim=-1)
    return products.softmax(-1)


def _key_features(x: Tensor, maps: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    """ReLU features without their constant; for the other kinds the logarithms. A masked key gets 0, or -inf."""
    wide = x.to(maps.dtype)
    products = wide @ maps
    if kind == "relu":
        features = products.relu()
        return features if mask is None else features.masked_fill(~mask[:, None, :, None], 0)
    if kind == "softmax_hyperbolic":
        products = torch.cat([products, -products], dim=-1)
    exponents = products - wide.square().sum(-1, keepdim=True) * (0.5 * x.shape[-1] ** -0.5)
    return exponents if mask is None else exponents.masked_fill(~mask[:, None, :, None], float("-inf"))


def _summarised(k: Tensor, v: Tensor, maps: Tensor, kind: str, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ φ(k) (v, 1)ᵀ scaled by exp(-top), whose last column is Σ φ(k); and top, the largest exponent of any key."""
    batch, heads, _, value_dim = v.shape
    width = maps.shape[1] * (2 if kind == "softmax_hyperbolic" else 1)
    summary = maps.new_zeros(batch, heads, width, value_dim + 1)
    top = maps.new_full((batch, heads, 1, 1), float("-inf"))
    for at in _chunks(k, maps):
        features = _key_features(k[:, :, at], maps, kind, None if mask is None else mask[:, at])
        if kind != "relu":
            higher = torch.maximum(top, features.amax((-2, -1), keepdim=True))
            summary, top = summary * (top - finite(higher)).exp(), higher
            features = features.sub_(finite(higher)).exp_()
        summary = summary + _sum(features, v[:, :, at], kind, None if mask is None else mask[:, at])
    return summary, top


def _sum(features: Tensor, values: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    """Σ φ(k) (v, 1)ᵀ. The constant of ReLU features is added to the sum, without a pass over the features."""
    values = F.pad(values.to(features.dtype), (0, 1), value=1.0)
    summed = features.transpose(-2, -1) @ values
    if kind != "relu":
        return summed
    values = values if mask is None else values * mask[:, None, :, None]
    return summed + _constant(features) * values.sum(-2, keepdim=True)


def _mixed(features: Tensor, summary: Tensor, kind: str) -> Tensor:
    both = features @ summary
    if kind == "relu":
        both = both + _constant(features) * summary.sum(-2, keepdim=True)
    return divided(both[..., :-1], both[..., -1:])


def _constant(features: Tensor) -> float:
    """The constant of ReLU features, times √num_features, since that factor cancels in the quotient."""
    return RELU_EPSILON * features.shape[-1] ** 0.5

"""FAVOR+ some tokens at a time: their features are used while they are in the cache, and are not kept."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.ops.favor.features import RELU_EPSILON, divided, finite

FEATURES = 2**19
"""Features that are worked on at once: 2 MB of float32."""
FEW = 2**17
"""With fewer a single piece is faster; with gradients that holds up to `FEATURES`, since chunks compute them again."""


def pays(q: Tensor, k: Tensor, projection: Tensor) -> bool:
    """Whether there are enough features for chunks to be faster, and a path of its own is possible.

    A compiler or an export is not asked for the sizes, which it would take for constants.
    """
    if torch.compiler.is_compiling() or projection.requires_grad:
        return False
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    features = max(q.shape[2], k.shape[2]) * q.shape[:2].numel() * projection.shape[0]
    return features > (FEATURES if learns else FEW)


def favor_in_chunks(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    """(batch, heads, queries, value_dim): as `favor_attention` without causality."""
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
                found = _sum(features, values, ctx.kind, None if mask is None else mask[:, at])
                d_k[:, :, at], d_v[:, :, at] = torch.autograd.grad(found, (keys, values), d_summary)
        return d_q, d_k, d_v, None, None, None


def _maps(x: Tensor, projection: Tensor) -> Tensor:
    """(head_dim, num_features): the projection with the scale of x in it."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return projection.T.to(wide) * x.shape[-1] ** -0.25


def _chunks(x: Tensor, maps: Tensor) -> list[slice]:
    size = max(64, FEATURES // (x.shape[0] * x.shape[1] * maps.shape[1]))
    return [slice(first, first + size) for first in range(0, x.shape[2], size)]


def _query_features(x: Tensor, maps: Tensor, kind: str) -> Tensor:
    """Up to a factor a query, which the quotient does not see; so |x|² is not needed."""
    products = x.to(maps.dtype) @ maps
    if kind == "relu":
        return products.relu()
    if kind == "softmax_hyperbolic":
        products = torch.cat([products, -products], dim=-1)
    return products.softmax(-1)


def _key_features(x: Tensor, maps: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    """ReLU features without their constant; or the logarithms of the others, -inf where a key is masked."""
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
    """Σ φ(k) (v, 1)ᵀ scaled by exp(-top), and the largest exponent of any key: the last column is Σ φ(k)."""
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
    """Σ φ(k) (v, 1)ᵀ. The constant that ReLU features have is added here, without a pass over the features."""
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
    """Of ReLU features times √num_features, which the quotient does not see."""
    return RELU_EPSILON * features.shape[-1] ** 0.5

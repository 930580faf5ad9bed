"""FAVOR+: softmax attention as a kernel, estimated with positive orthogonal random features (Choromanski et al. 2020).

    exp(q·k / √d) = E_w[φ_w(q) φ_w(k)],   φ_w(x) = exp(w·x' - |x'|²/2),   x' = x / d^¼,   w ~ N(0, I)

so that attention becomes φ(q) (φ(k)ᵀ v), divided by φ(q) Σ φ(k): linear in the number of tokens. The estimate is
unbiased for the kernel, not for the attention, which is a ratio of two estimates.

Every feature is stabilised by subtracting a maximum from its exponent. What is subtracted cancels in the ratio; in the
causal form it may depend on a token's past only, or the future would leak in through the rounding.
All sums run in float32 at least.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError

P = ParamSpec("P")
R = TypeVar("R")

CHUNK = 64  # tokens of the causal form that are handled at once: memory is CHUNK² + num_features · head_dim a head


def _full_precision(op: Callable[P, R]) -> Callable[P, R]:
    """Keeps autocast out of an op: sums of exponentials need the range and the digits of float32."""

    @functools.wraps(op)
    def wide(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            return op(*args, **kwargs)

    return wide


def orthogonal_projection(
    num_features: int, head_dim: int, generator: torch.Generator | None = None
) -> Float[Tensor, "num_features head_dim"]:
    """Random directions w, orthogonal within each block of `head_dim` rows (Choromanski et al. 2020, section 2.4).

    Each row alone is a Gaussian vector: an orthogonal direction times the norm of an independent Gaussian vector.
    """
    if num_features < 1 or head_dim < 1:
        raise RegardError(f"performer: num_features and head_dim must be at least 1, got {num_features} and {head_dim}")
    blocks = math.ceil(num_features / head_dim)
    gaussian = torch.randn(blocks, head_dim, head_dim, generator=generator, device="cpu")
    q, r = torch.linalg.qr(gaussian)
    # QR leaves the signs of R's diagonal to the algorithm; only with the signs undone is each direction uniform.
    signs = r.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)
    directions = (q * signs).flatten(0, 1)[:num_features]
    norms = torch.randn(num_features, head_dim, generator=generator, device="cpu").norm(dim=1, keepdim=True)
    return directions * norms


@_full_precision
def favor_features(
    x: Float[Tensor, "batch heads tokens head_dim"],
    projection: Float[Tensor, "num_features head_dim"],
    *,
    is_query: bool,
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch heads tokens num_features"]:
    """φ(x) / √num_features, stabilised: by each query's own maximum, or by the maximum over all keys of a head.

    Up to that factor (one a query, one a head of keys) the products φ(q)·φ(k) average to exp(q·k/√head_dim) over
    draws of `projection`. Tokens whose `mask` is False get zero features. float32 at least.
    """
    exponents = _exponents(x, projection)
    if is_query:
        top = exponents.amax(-1, keepdim=True)
    else:
        if mask is not None:
            exponents = exponents.masked_fill(~mask[:, None, :, None], float("-inf"))
        top = exponents.amax((-2, -1), keepdim=True)
    return (exponents - _finite(top.detach())).exp() * projection.shape[0] ** -0.5


@_full_precision
def favor_weights(
    q: Float[Tensor, "batch heads queries head_dim"],
    k: Float[Tensor, "batch heads keys head_dim"],
    *,
    projection: Float[Tensor, "num_features head_dim"],
    is_causal: bool = False,
    mask: Bool[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """The attention matrix that `favor_attention` never builds: φ(q_i)·φ(k_j) / Σ_j φ(q_i)·φ(k_j)."""
    kernel = favor_features(q, projection, is_query=True) @ favor_features(
        k, projection, is_query=False, mask=mask
    ).transpose(-2, -1)
    if is_causal:
        kernel = kernel.tril()
    return _divided(kernel, kernel.sum(-1, keepdim=True)).to(q.dtype)


@_full_precision
def favor_attention(
    q: Float[Tensor, "batch heads queries head_dim"],
    k: Float[Tensor, "batch heads keys head_dim"],
    v: Float[Tensor, "batch heads keys value_dim"],
    *,
    projection: Float[Tensor, "num_features head_dim"],
    is_causal: bool = False,
    mask: Bool[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Attention estimated in time and memory linear in the tokens: φ(q) (φ(k)ᵀ v) / φ(q) Σ φ(k).

    `mask` is False for keys that are padding. The causal form lets token i see the tokens up to i, by prefix sums over
    chunks of tokens. A query whose keys are all masked gets zeros.
    """
    if is_causal:
        return _favor_causal(q, k, v, projection, mask)
    features_q = favor_features(q, projection, is_query=True)
    features_k = favor_features(k, projection, is_query=False, mask=mask)
    summary = features_k.transpose(-2, -1) @ v.to(features_k.dtype)
    total = features_q @ features_k.sum(-2).unsqueeze(-1)
    return _divided(features_q @ summary, total).to(v.dtype)


class FavorState(NamedTuple):
    """All that the causal form keeps of the tokens so far: running sums over keys, scaled by exp(-`top`)."""

    summary: Float[Tensor, "batch heads num_features value_dim"]  # Σ φ(k) vᵀ
    total: Float[Tensor, "batch heads num_features"]  # Σ φ(k)
    top: Float[Tensor, "batch heads"]  # the largest exponent of any key so far


@_full_precision
def favor_step(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch heads tokens head_dim"],
    v: Float[Tensor, "batch heads tokens value_dim"],
    state: FavorState | None,
    *,
    projection: Float[Tensor, "num_features head_dim"],
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> tuple[Float[Tensor, "batch heads tokens value_dim"], FavorState]:
    """Causal attention of a few new tokens over themselves and over all that `state` has seen; and the new state."""
    exponents_q, exponents_k = _exponents(q, projection), _exponents(k, projection)
    if mask is not None:
        exponents_k = exponents_k.masked_fill(~mask[:, None, :, None], float("-inf"))
    values = v.to(exponents_k.dtype)
    if state is None:
        batch, heads, _, num_features = exponents_k.shape
        state = FavorState(
            values.new_zeros(batch, heads, num_features, values.shape[-1]),
            values.new_zeros(batch, heads, num_features),
            values.new_full((batch, heads), float("-inf")),
        )
    # tops[i] is the largest exponent among the keys up to token i: the past alone decides it.
    tops = torch.maximum(exponents_k.detach().amax(-1).cummax(-1).values, state.top.unsqueeze(-1))
    safe = _finite(tops)
    features_q = (exponents_q - exponents_q.detach().amax(-1, keepdim=True)).exp()
    features_k = (exponents_k - safe.unsqueeze(-1)).exp()
    # Key j was scaled with its own tops[j]; query i wants it scaled with tops[i].
    decay = (safe.unsqueeze(-2) - safe.unsqueeze(-1)).clamp(max=0).exp().tril()
    kernel = (features_q @ features_k.transpose(-2, -1)) * decay
    before = (state.top.unsqueeze(-1) - safe).exp().unsqueeze(-1)
    mixed = kernel @ values + before * (features_q @ state.summary)
    total = kernel.sum(-1, keepdim=True) + before * (features_q @ state.total.unsqueeze(-1))

    last = safe[..., -1:]
    features_k = features_k * (safe - last).clamp(max=0).exp().unsqueeze(-1)
    keep = (state.top.unsqueeze(-1) - last).exp()
    state = FavorState(
        keep.unsqueeze(-1) * state.summary + features_k.transpose(-2, -1) @ values,
        keep * state.total + features_k.sum(-2),
        tops[..., -1],
    )
    return _divided(mixed, total).to(v.dtype), state


def _favor_causal(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, mask: Tensor | None) -> Tensor:
    if q.shape[2] != k.shape[2]:
        raise RegardError(
            f"performer: the causal form needs as many queries as keys, got {q.shape[2]} and {k.shape[2]}"
        )
    state, outs = None, []
    for start in range(0, q.shape[2], CHUNK):
        piece = slice(start, start + CHUNK)
        chunk_mask = None if mask is None else mask[:, piece]
        out, state = favor_step(
            q[:, :, piece], k[:, :, piece], v[:, :, piece], state, projection=projection, mask=chunk_mask
        )
        outs.append(out)
    return torch.cat(outs, dim=2)


def _exponents(x: Tensor, projection: Tensor) -> Tensor:
    """w·x' - |x'|²/2 with x' = x / head_dim^¼: the logarithm of the features."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32)) * x.shape[-1] ** -0.25
    return wide @ projection.T.to(wide.dtype) - wide.square().sum(-1, keepdim=True) / 2


def _finite(top: Tensor) -> Tensor:
    return top.masked_fill(top == float("-inf"), 0)


def _divided(mixed: Tensor, total: Tensor) -> Tensor:
    """The ratio, and zero (with a gradient of zero) where there is no key, or all features underflowed."""
    nothing = total <= torch.finfo(total.dtype).tiny ** 0.8  # a smaller divisor's gradient would overflow
    return (mixed / total.masked_fill(nothing, 1)).masked_fill(nothing, 0)

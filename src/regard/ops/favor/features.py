"""Random features whose products estimate a kernel (Choromanski et al. 2020, sections 2.3 and 2.4)."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.ops.arguments import full_precision, require_alike, require_bool, require_floats, require_precise

FavorKind = Literal["softmax_positive", "softmax_hyperbolic", "relu"]

RELU_EPSILON = 1e-3
"""Added to ReLU features, so that every query has a key with a weight above zero."""


OP = "favor attention"


def favor_features(
    x: Float[Tensor, "batch heads tokens head_dim"],
    projection: Float[Tensor, "num_features head_dim"],
    *,
    kind: str = "softmax_positive",
    is_query: bool,
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch heads tokens features"]:
    """φ(x) / √features, with x' = x / head_dim^¼:

    - "softmax_positive": exp(w·x' - |x'|²/2), whose products average to exp(q·k/√head_dim) over draws of `projection`;
    - "softmax_hyperbolic": these and exp(-w·x' - |x'|²/2), twice as many, with less variance (lemma 1);
    - "relu": max(w·x', 0), plus a small number: another kernel, not an estimate of softmax.

    For numerical stability, features of the softmax kinds are divided by the maximum of each query, or by the maximum
    over all keys of a head; this cancels in the quotient of attention. Tokens whose `mask` is False get zero features,
    whatever they hold. A NaN in a query makes its features NaN, one in a key those of all keys of the head.
    The result is in float32 at least. RegardError for another kind, and for what does not fit together: `projection` is
    in x's dtype or in float32.
    """
    check_kind(kind)
    require_floats(OP, x=x)
    check_heads(x, x, projection)
    if mask is not None:
        require_bool(OP, mask, x, "a token is real", (x.shape[0], x.shape[2]))
        x = x.masked_fill(~mask[:, None, :, None], 0)
    return features_of(x, projection, kind, is_query, mask)


@full_precision
def features_of(x: Tensor, projection: Tensor, kind: str, is_query: bool, mask: Tensor | None) -> Tensor:
    """`favor_features` of what has been checked."""
    if kind == "relu":
        features = relu_features(x, projection)
        return features if mask is None else features.masked_fill(~mask[:, None, :, None], 0)
    exponents = log_features(x, projection, kind)
    if not x.shape[2]:
        return exponents
    if is_query:
        top = exponents.amax(-1, keepdim=True)
    else:
        if mask is not None:
            exponents = exponents.masked_fill(~mask[:, None, :, None], float("-inf"))
        top = exponents.amax((-2, -1), keepdim=True)
    return (exponents - finite(top.detach())).exp() * exponents.shape[-1] ** -0.5


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
    # The signs of R's diagonal depend on the algorithm; with these signs removed, each direction is uniform.
    signs = r.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)
    directions = (q * signs).flatten(0, 1)[:num_features]
    norms = torch.randn(num_features, head_dim, generator=generator, device="cpu").norm(dim=1, keepdim=True)
    return directions * norms


def log_features(x: Tensor, projection: Tensor, kind: str) -> Tensor:
    """The logarithms of the softmax kinds' features, before any scaling."""
    wide = _scaled(x)
    products = wide @ projection.T.to(wide.dtype)
    if kind == "softmax_hyperbolic":
        products = torch.cat([products, -products], dim=-1)
    return products - wide.square().sum(-1, keepdim=True) / 2


def relu_features(x: Tensor, projection: Tensor) -> Tensor:
    wide = _scaled(x)
    return (wide @ projection.T.to(wide.dtype)).relu() * projection.shape[0] ** -0.5 + RELU_EPSILON


def _scaled(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32)) * x.shape[-1] ** -0.25


def finite(top: Tensor) -> Tensor:
    """Zero instead of -inf, the maximum over no key."""
    return top.masked_fill(top == float("-inf"), 0)


def divided(mixed: Tensor, total: Tensor) -> Tensor:
    """mixed / total; zero, with a gradient of zero, where there is no key or where all features underflowed."""
    nothing = total <= torch.finfo(total.dtype).tiny ** 0.8  # a smaller divisor's gradient would overflow
    return (mixed / total.masked_fill(nothing, 1)).masked_fill(nothing, 0)


def check_heads(q: Tensor, k: Tensor, projection: Tensor, v: Tensor | None = None) -> None:
    """RegardError for shapes, dtypes and devices that do not fit together."""
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3] or not q.shape[3]:
        raise RegardError(
            f"{OP}: q {tuple(q.shape)} and k {tuple(k.shape)} must be (batch, heads, tokens, head_dim), "
            "agree in all but tokens, and have a channel"
        )
    if v is not None and (v.ndim != 4 or v.shape[:3] != k.shape[:3]):
        raise RegardError(f"{OP}: v {tuple(v.shape)} must have k's batch, heads and keys, {tuple(k.shape[:3])}")
    require_alike(OP, q=q, k=k, v=v)
    require_precise(OP, q, projection=projection)
    if projection.ndim != 2 or projection.shape[1] != q.shape[3] or not len(projection):
        raise RegardError(
            f"{OP}: projection must be (num_features, head_dim) with head_dim {q.shape[3]}, "
            f"got {tuple(projection.shape)}"
        )


def check_kind(kind: str) -> None:
    if kind not in get_args(FavorKind):
        raise unknown("kind of features", kind, get_args(FavorKind), where="performer")

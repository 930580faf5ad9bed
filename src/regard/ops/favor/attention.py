"""FAVOR+: softmax attention as a kernel, estimated with positive orthogonal random features (Choromanski et al. 2020).

    exp(q·k / √d) = E_w[φ_w(q) φ_w(k)],   φ_w(x) = exp(w·x' - |x'|²/2),   x' = x / d^¼,   w ~ N(0, I)

so that attention becomes φ(q) (φ(k)ᵀ v), divided by φ(q) Σ φ(k): linear in the number of tokens. The estimate is
unbiased for the kernel, not for the attention, which is a ratio of two estimates.

For numerical stability a maximum is subtracted from the exponent of each feature; it cancels in the ratio. In the
causal form this maximum depends on a token's past only, because otherwise the rounding would depend on the future. All
sums run in float32 at least, and autocast does not change that.

q, k and v have one dtype and one device; `projection` is in their dtype, or in float32. A query that is NaN
gets NaN, and so do all queries that see a key or a value that is. Masked tokens do not count, in values and gradients,
whatever they hold.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.errors import RegardError, unknown
from regard.ops.arguments import floats, full_precision, require_bool, require_shape
from regard.ops.favor.chunked import chunks_are_faster, favor_in_chunks
from regard.ops.favor.features import (
    OP,
    check_heads,
    check_kind,
    divided,
    features_of,
    finite,
    log_features,
    relu_features,
)
from regard.ops.masked_products import products, sums

FavorImpl = Literal["auto", "math", "chunked"]

CHUNK = 64
"""Tokens that the causal form handles at once: each head needs memory for CHUNK² + num_features · head_dim numbers."""


def _by_definition(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    """φ(q) (φ(k)ᵀ v) / φ(q) Σ φ(k): the keys are summed up once, for all queries."""
    features_q = features_of(q, projection, kind, True, None)
    features_k = features_of(k, projection, kind, False, mask)
    summary = features_k.transpose(-2, -1) @ v.to(features_k.dtype)
    total = features_q @ features_k.sum(-2).unsqueeze(-1)
    return divided(features_q @ summary, total).to(v.dtype)


def favor_attention(
    q: Float[Tensor, "batch heads queries head_dim"],
    k: Float[Tensor, "batch heads keys head_dim"],
    v: Float[Tensor, "batch heads keys value_dim"],
    *,
    projection: Float[Tensor, "num_features head_dim"],
    kind: str = "softmax_positive",
    is_causal: bool = False,
    mask: Bool[Tensor, "batch keys"] | None = None,
    impl: str = "auto",
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Attention estimated in time and memory linear in the tokens: φ(q) (φ(k)ᵀ v) / φ(q) Σ φ(k).

    `mask` is False for keys that are padding. The causal form lets token i see the tokens up to i, by prefix sums over
    chunks of tokens. A query whose keys are all masked gets zeros. `kind` is that of `favor_features`.

    impl: "math" is the definition. "chunked" works on some tokens at a time, so that their features stay in the
    processor's cache, and computes the features again for the gradients. "auto" takes the faster one. RegardError for
    an unknown `kind` or `impl`, for shapes, dtypes and devices that do not fit together, and in the causal form where
    there are not as many queries as keys.
    """
    check_kind(kind)
    if impl not in get_args(FavorImpl):
        raise unknown("impl", impl, get_args(FavorImpl), where=OP)
    q, k, v = floats(OP, q=q, k=k, v=v)
    check_heads(q, k, projection, v)
    k, v = _real(k, mask), _real(v, mask)
    return _attended(q, k, v, projection, kind, is_causal, mask, impl)


@full_precision
def _attended(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, kind: str, is_causal: bool, mask: Tensor | None, impl: str
) -> Tensor:
    if is_causal:
        return _favor_causal(q, k, v, projection, kind, mask)
    if impl == "chunked" or (impl == "auto" and chunks_are_faster(q, k, projection)):
        return favor_in_chunks(q, k, v, projection, kind, mask)
    return _by_definition(q, k, v, projection, kind, mask)


def favor_weights(
    q: Float[Tensor, "batch heads queries head_dim"],
    k: Float[Tensor, "batch heads keys head_dim"],
    *,
    projection: Float[Tensor, "num_features head_dim"],
    kind: str = "softmax_positive",
    is_causal: bool = False,
    mask: Bool[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """The attention matrix that `favor_attention` never builds: φ(q_i)·φ(k_j) / Σ_j φ(q_i)·φ(k_j)."""
    check_kind(kind)
    q, k = floats(OP, q=q, k=k)
    check_heads(q, k, projection)
    return _estimated(q, _real(k, mask), projection, kind, is_causal, mask)


@full_precision
def _estimated(q: Tensor, k: Tensor, projection: Tensor, kind: str, is_causal: bool, mask: Tensor | None) -> Tensor:
    features_q = features_of(q, projection, kind, True, None)
    features_k = features_of(k, projection, kind, False, mask)
    kernel = features_q @ features_k.transpose(-2, -1)
    if is_causal:
        kernel = kernel.tril()
    return divided(kernel, kernel.sum(-1, keepdim=True)).to(q.dtype)


def _real(x: Tensor, mask: Any) -> Tensor:
    """x (batch, heads, tokens, dim) with zeros for the tokens that `mask` hides, whatever they hold."""
    if mask is None:
        return x
    require_bool(OP, mask, x, "a token is real", (x.shape[0], x.shape[2]))
    return x.masked_fill(~mask[:, None, :, None], 0)


class FavorState(NamedTuple):
    """What the causal form keeps of the tokens so far: running sums over keys, scaled by exp(-`top`)."""

    summary: Float[Tensor, "batch heads num_features value_dim"]  # Σ φ(k) vᵀ
    total: Float[Tensor, "batch heads num_features"]  # Σ φ(k)
    top: Float[Tensor, "batch heads"]  # the largest exponent of any key so far


def favor_step(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch heads tokens head_dim"],
    v: Float[Tensor, "batch heads tokens value_dim"],
    state: FavorState | None,
    *,
    projection: Float[Tensor, "num_features head_dim"],
    kind: str = "softmax_positive",
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> tuple[Float[Tensor, "batch heads tokens value_dim"], FavorState]:
    """Causal attention of new tokens to themselves and the tokens in `state`; the output and the new state."""
    check_kind(kind)
    q, k, v = floats(OP, q=q, k=k, v=v)
    check_heads(q, k, projection, v)
    _require_as_many(q, k)
    if state is not None:
        num_features = projection.shape[0] * (2 if kind == "softmax_hyperbolic" else 1)
        wanted = (*q.shape[:2], num_features, v.shape[3])
        require_shape(OP, "the state's summary", state.summary, wanted, "(batch, heads, num_features, value_dim)")
    return _stepped(q, _real(k, mask), _real(v, mask), state, projection, kind, mask)


@full_precision
def _stepped(
    q: Tensor, k: Tensor, v: Tensor, state: FavorState | None, projection: Tensor, kind: str, mask: Tensor | None
) -> tuple[Tensor, FavorState]:
    values = v.to(torch.promote_types(v.dtype, torch.float32))
    if state is None:
        state = _empty_state(values, projection.shape[0] * (2 if kind == "softmax_hyperbolic" else 1))
    if kind == "relu":  # these features need no scaling
        features_q, features_k = relu_features(q, projection), relu_features(k, projection)
        features_k = features_k if mask is None else features_k.masked_fill(~mask[:, None, :, None], 0)
        tops = safe = torch.zeros_like(features_k[..., 0])
        state = state._replace(top=torch.zeros_like(state.top))
    else:
        exponents_q, exponents_k = log_features(q, projection, kind), log_features(k, projection, kind)
        if mask is not None:
            exponents_k = exponents_k.masked_fill(~mask[:, None, :, None], float("-inf"))
        # tops[i] is the largest exponent among the keys up to token i: the past alone decides it.
        tops = torch.maximum(_running_max(exponents_k.detach().amax(-1)), state.top.unsqueeze(-1))
        safe = finite(tops)
        features_q = (exponents_q - exponents_q.detach().amax(-1, keepdim=True)).exp()
        features_k = (exponents_k - safe.unsqueeze(-1)).exp()
    # Key j was scaled with its own tops[j]; query i wants it scaled with tops[i].
    decay = (safe.unsqueeze(-2) - safe.unsqueeze(-1)).clamp(max=0).exp().tril()
    past = torch.ones(decay.shape[-2:], dtype=torch.bool, device=decay.device).tril()
    kernel = (products(features_q, features_k, past) * decay).tril()
    before = (state.top.unsqueeze(-1) - safe).exp().unsqueeze(-1)
    mixed = sums(kernel, values, past) + before * (features_q @ state.summary)
    total = kernel.sum(-1, keepdim=True) + before * (features_q @ state.total.unsqueeze(-1))

    last = safe[..., -1:]
    features_k = features_k * (safe - last).clamp(max=0).exp().unsqueeze(-1)
    keep = (state.top.unsqueeze(-1) - last).exp()
    state = FavorState(
        keep.unsqueeze(-1) * state.summary + features_k.transpose(-2, -1) @ values,
        keep * state.total + features_k.sum(-2),
        tops[..., -1],
    )
    return divided(mixed, total).to(v.dtype), state


def _running_max(x: Tensor) -> Tensor:
    """The largest number up to each place along the last dimension."""
    if not torch.compiler.is_exporting():
        return x.cummax(-1).values
    past = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).tril()  # ONNX has no cummax
    return x.unsqueeze(-2).masked_fill(~past, float("-inf")).amax(-1)


def _empty_state(values: Tensor, num_features: int) -> FavorState:
    batch, heads, _, value_dim = values.shape
    return FavorState(
        values.new_zeros(batch, heads, num_features, value_dim),
        values.new_zeros(batch, heads, num_features),
        values.new_full((batch, heads), float("-inf")),
    )


def _favor_causal(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    _require_as_many(q, k)
    state, outs = None, [v[:, :, :0]]
    for start in range(0, q.shape[2], CHUNK):
        chunk = slice(start, start + CHUNK)
        chunk_mask = None if mask is None else mask[:, chunk]
        out, state = _stepped(q[:, :, chunk], k[:, :, chunk], v[:, :, chunk], state, projection, kind, chunk_mask)
        outs.append(out)
    return torch.cat(outs, dim=2)


def _require_as_many(q: Tensor, k: Tensor) -> None:
    if q.shape[2] != k.shape[2]:
        raise RegardError(
            f"performer: the causal form needs as many queries as keys, got {q.shape[2]} and {k.shape[2]}"
        )

"""Some rows of a performer's matrix, φ(q_i)·φ(k_j) / Σ_j φ(q_i)·φ(k_j), its keys a chunk at a time."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.ops.attention_rows import Keys, chunks
from regard.ops.favor.features import divided, features_of, finite, log_features, relu_features


def favor_rows(
    q: Float[Tensor, "batch heads queries head_dim"],
    keys: Keys,
    num_keys: int,
    *,
    projection: Float[Tensor, "num_features head_dim"],
    kind: str,
    allowed: Bool[Tensor, "..."] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """The rows of `favor_weights` that belong to `q`, in float32 at least. `allowed` broadcasts to the result.

    The features of each chunk are divided by their own largest value; when all are known, by that of all.
    """
    features_q = features_of(q, projection, kind, True, None)
    kernel = features_q.new_empty(*q.shape[:3], num_keys)
    tops: list[Tensor] = []
    spans: list[slice] = []
    for some in chunks(num_keys, q.shape[0] * q.shape[1] * len(projection), chunk):
        k = keys(some)
        if kind == "relu":
            features_k = relu_features(k, projection)
        else:
            exponents = log_features(k, projection, kind)
            tops.append(finite(exponents.amax((-2, -1), keepdim=True)))
            features_k = (exponents - tops[-1]).exp() * exponents.shape[-1] ** -0.5
        spans.append(some)
        kernel[..., some] = features_q @ features_k.transpose(-2, -1)
    if len(tops) > 1:
        top = torch.stack(tops).amax(0)
        for some, own in zip(spans, tops, strict=True):
            kernel[..., some] *= (own - top).exp()
    if allowed is not None:
        kernel = kernel.masked_fill(~allowed, 0)
    return divided(kernel, kernel.sum(-1, keepdim=True))

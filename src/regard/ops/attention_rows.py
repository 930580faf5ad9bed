"""Some rows of an attention matrix, its keys taken a chunk at a time: no tensor of queries × keys × head_dim."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.ops.attention import masked_softmax

CHUNK_VALUES = 2**21
"""Numbers of a chunk of keys: 8 MB in float32."""

Keys = Callable[[slice], Float[Tensor, "batch heads keys head_dim"]]
"""The keys of a slice of the tokens, which need not exist before."""


def chunks(num_keys: int, values_each: int, chunk: int | None = None) -> Iterator[slice]:
    """Slices of the keys: `chunk` at a time, or as many as make `CHUNK_VALUES` numbers."""
    step = max(CHUNK_VALUES // max(values_each, 1), 1) if chunk is None else chunk
    return (slice(start, min(start + step, num_keys)) for start in range(0, num_keys, step))


def attention_rows(
    q: Float[Tensor, "batch heads queries head_dim"],
    keys: Keys,
    num_keys: int,
    *,
    allowed: Bool[Tensor, "..."] | None = None,
    scale: float | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """softmax_j(q_i·k_j · scale), in float32 at least: the rows of `attention_weights` that belong to `q`.

    keys: gives those of a slice; `chunk` are so many at a time. `allowed` broadcasts to the result; a query that may
    look nowhere has a row of zeros. `scale` is 1/√head_dim unless given.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q = q.to(wide) * (q.shape[-1] ** -0.5 if scale is None else scale)
    logits = q.new_empty(*q.shape[:3], num_keys)
    for some in chunks(num_keys, q.shape[0] * q.shape[1] * q.shape[3], chunk):
        logits[..., some] = q @ keys(some).to(wide).transpose(-2, -1)
    return logits.softmax(-1) if allowed is None else masked_softmax(logits, allowed)

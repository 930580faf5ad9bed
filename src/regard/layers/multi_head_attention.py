"""Attention from one sequence to another."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from regard.errors import RegardError
from regard.ops import attention, attention_rows, attention_weights


class KeyValueCache(NamedTuple):
    """The projected keys and values of the tokens so far."""

    k: Float[Tensor, "batch heads tokens head_dim"]
    v: Float[Tensor, "batch heads tokens head_dim"]


class MultiHeadAttention(nn.Module):
    """Concat(head_1, ..., head_h) W^O with head_i = attention(Q W_i^Q, K W_i^K, V W_i^V)  (Vaswani et al. 2017, 3.2.2).

    It has more inputs than a token mixer: it serves the decoder's attention to the encoder's output. Self-attention is
    the mixer `regard.mixers.Attention`.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, bias: bool = True) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise RegardError(f"attention: embed_dim {embed_dim} does not divide into num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.q = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.k = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.v = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.proj = nn.Linear(embed_dim, embed_dim, bias=bias)

    def forward(
        self,
        query: Float[Tensor, "batch queries embed_dim"],
        key: Float[Tensor, "batch keys embed_dim"],
        value: Float[Tensor, "batch keys embed_dim"],
        *,
        attn_mask: Bool[Tensor, "..."] | None = None,
        key_mask: Bool[Tensor, "batch keys"] | None = None,
    ) -> Float[Tensor, "batch queries embed_dim"]:
        """The output of each query.

        `attn_mask`, which broadcasts to (batch, heads, queries, keys), is True where a query may look at a key;
        `key_mask` is True where a key is real and False where it is padding. What padding holds does not matter.
        """
        if key_mask is not None and not torch.compiler.is_compiling():
            # Masked keys do not matter; but in the gradients of the weights 0 · NaN would be NaN.
            key, value = (part.masked_fill(~key_mask[..., None], 0) for part in (key, value))
        return self.attend(query, self.project(key, value), attn_mask=attn_mask, key_mask=key_mask)

    def project(
        self, key: Float[Tensor, "batch keys embed_dim"], value: Float[Tensor, "batch keys embed_dim"]
    ) -> KeyValueCache:
        """The keys and values of all heads, which a decoder computes once for all of its steps."""
        return KeyValueCache(self._split(self.k(key)), self._split(self.v(value)))

    def attend(
        self,
        query: Float[Tensor, "batch queries embed_dim"],
        cache: KeyValueCache,
        *,
        attn_mask: Bool[Tensor, "..."] | None = None,
        key_mask: Bool[Tensor, "batch keys"] | None = None,
    ) -> Float[Tensor, "batch queries embed_dim"]:
        """`forward` with keys and values that have been projected before."""
        mixed = attention(self._split(self.q(query)), cache.k, cache.v, mask=_joined(attn_mask, key_mask))
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def weights(
        self,
        query: Float[Tensor, "batch queries embed_dim"],
        key: Float[Tensor, "batch keys embed_dim"],
        *,
        attn_mask: Bool[Tensor, "..."] | None = None,
        key_mask: Bool[Tensor, "batch keys"] | None = None,
    ) -> Float[Tensor, "batch heads queries keys"]:
        """The attention weights of each head; each row sums to one."""
        q, k = self._split(self.q(query)), self._split(self.k(key))
        return attention_weights(q, k, mask=_joined(attn_mask, key_mask))

    def rows(
        self,
        query: Float[Tensor, "batch queries embed_dim"],
        key: Float[Tensor, "batch keys embed_dim"],
        queries: Int64[Tensor, " some_queries"],
        *,
        attn_mask: Bool[Tensor, "..."] | None = None,
        key_mask: Bool[Tensor, "batch keys"] | None = None,
        heads: Int64[Tensor, " some"] | None = None,
        chunk: int | None = None,
    ) -> Float[Tensor, "batch heads some_queries keys"]:
        """Some rows of `weights`, in some heads, the keys `chunk` at a time."""
        if key_mask is not None:
            key = key.masked_fill(~key_mask[..., None], 0)
        if attn_mask is not None:
            attn_mask = attn_mask.expand(query.shape[0], -1, query.shape[1], -1)[:, :, queries]

        def of_heads(x: Tensor) -> Tensor:
            return self._split(x) if heads is None else self._split(x)[:, heads]

        q, allowed = of_heads(self.q(query[:, queries])), _joined(attn_mask, key_mask)
        return attention_rows(
            q, lambda some: of_heads(self.k(key[:, some])), key.shape[1], allowed=allowed, chunk=chunk
        )

    def flops(self, num_queries: int, num_keys: int) -> int:
        """Operations for one sequence: four projections, and two products of queries with keys."""
        dim = self.num_heads * self.head_dim
        return 2 * (2 * num_queries + 2 * num_keys) * dim**2 + 2 * 2 * num_queries * num_keys * dim

    def _split(self, x: Tensor) -> Float[Tensor, "batch heads tokens head_dim"]:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


def _joined(attn_mask: Tensor | None, key_mask: Tensor | None) -> Tensor | None:
    keys = None if key_mask is None else key_mask[:, None, None, :]
    if attn_mask is None or keys is None:
        return keys if attn_mask is None else attn_mask
    return attn_mask & keys

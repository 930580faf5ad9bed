"""Softmax self-attention."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from regard.layers.grid import Grid
from regard.layers.mixer import TokenMask, Tokens
from regard.layers.multi_head_attention import KeyValueCache
from regard.mixers.base import HeadMixer, visible
from regard.ops import attention, attention_rows, attention_weights


class Attention(HeadMixer):
    """Every token looks at every token: softmax(q kᵀ/√d) v in each head (Vaswani et al. 2017, eq. 1). O(N²)."""

    name = "attention"

    def __init__(
        self, embed_dim: int, *, num_heads: int, qkv_bias: bool = True, fused_qkv: bool = True, causal: bool = False
    ) -> None:
        super().__init__(embed_dim, num_heads, qkv_bias=qkv_bias, fused_qkv=fused_qkv)
        self.causal = causal

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        self.check_grid(x, grid)
        q, k, v = self.heads(self.harmless(x, mask), positions)
        return self.out(attention(q, k, v, mask=_keys(mask), is_causal=self.causal))

    def mixing_matrix(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        self.check_grid(x, grid)
        q, k, _ = self.heads(self.harmless(x, mask), positions)
        return attention_weights(q, k, mask=_keys(mask), is_causal=self.causal)

    def rows(
        self,
        x: Tokens,
        queries: Int64[Tensor, " queries"],
        *,
        grid: Grid | None = None,
        mask: TokenMask | None = None,
        positions: Tokens | None = None,
        heads: Int64[Tensor, " some"] | None = None,
        chunk: int | None = None,
    ) -> Float[Tensor, "batch heads queries tokens"]:
        self.check_grid(x, grid)
        x = self.harmless(x, mask)
        q = self._reader("q", x, positions, heads)(queries)
        allowed = visible(queries, x.shape[1], mask, causal=self.causal)
        return attention_rows(q, self._reader("k", x, positions, heads), x.shape[1], allowed=allowed, chunk=chunk)

    def step(
        self, x: Float[Tensor, "batch new embed_dim"], state: KeyValueCache | None = None
    ) -> tuple[Float[Tensor, "batch new embed_dim"], KeyValueCache]:
        """The causal output for new tokens, which see `state` and the tokens before them; and the new state."""
        self.require_causal(self.causal)
        q, k, v = self.heads(x)
        if state is not None:
            k, v = torch.cat([state.k, k], dim=2), torch.cat([state.v, v], dim=2)
        new, known = q.shape[2], k.shape[2]
        # A single new token sees all tokens so far, and needs no mask.
        visible = None if new == 1 else torch.ones(new, known, dtype=torch.bool, device=x.device).tril(known - new)
        return self.out(attention(q, k, v, mask=visible)), KeyValueCache(k, v)

    def flops(self, grid: Grid) -> int:
        """The projections, and for each pair of tokens a product of queries and keys and one of weights and values."""
        pairs = grid.num_tokens**2
        return self.projection_flops(grid) + 2 * 2 * pairs * self.num_heads * self.head_dim


def _keys(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:, None, None, :]

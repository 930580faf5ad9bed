"""Attention in linear time, estimated with random features."""

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor

from regard.layers.grid import Grid
from regard.mixers.base import HeadMixer
from regard.ops import FavorState, favor_attention, favor_step, favor_weights, orthogonal_projection


class Performer(HeadMixer):
    """FAVOR+: softmax attention estimated with positive orthogonal random features (Choromanski et al. 2020). O(N).

    The features are drawn once, from `seed`, and saved with the weights: two evaluations give the same bits.
    """

    name = "performer"

    projection: Tensor

    def __init__(
        self,
        embed_dim: int,
        *,
        num_heads: int,
        num_features: PositiveInt | None = None,
        seed: int = 0,
        qkv_bias: bool = True,
        fused_qkv: bool = True,
        causal: bool = False,
    ) -> None:
        """`num_features` is 2 · head_dim unless given; more of them estimate softmax attention more closely."""
        super().__init__(embed_dim, num_heads, qkv_bias=qkv_bias, fused_qkv=fused_qkv)
        num_features = 2 * self.head_dim if num_features is None else num_features
        generator = torch.Generator().manual_seed(seed)
        projection = orthogonal_projection(num_features, self.head_dim, generator)
        self.register_buffer("projection", projection.to(self.proj.weight.device))
        self.causal = causal

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        *,
        grid: Grid | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        self.check_grid(x, grid)
        q, k, v = self.heads(x, positions)
        return self.out(favor_attention(q, k, v, projection=self.projection, is_causal=self.causal, mask=mask))

    def mixing_matrix(
        self,
        x: Float[Tensor, "batch tokens embed_dim"],
        *,
        grid: Grid | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        positions: Float[Tensor, "batch tokens embed_dim"] | None = None,
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        self.check_grid(x, grid)
        q, k, _ = self.heads(x, positions)
        return favor_weights(q, k, projection=self.projection, is_causal=self.causal, mask=mask)

    def step(
        self, x: Float[Tensor, "batch new embed_dim"], state: FavorState | None = None
    ) -> tuple[Float[Tensor, "batch new embed_dim"], FavorState]:
        """The causal output for new tokens, given the sums over the past in `state`; and the sums with them in it."""
        self.require_causal(self.causal)
        q, k, v = self.heads(x)
        mixed, state = favor_step(q, k, v, state, projection=self.projection)
        return self.out(mixed), state

    def flops(self, grid: Grid) -> int:
        """The projections; the features of q and k; φ(k)ᵀ v, φ(q) times it, and the same with the sum of features."""
        tokens, num_features = grid.num_tokens, self.projection.shape[0]
        embed_dim = self.num_heads * self.head_dim
        features = 2 * 2 * tokens * num_features * embed_dim
        summaries = 2 * 2 * tokens * num_features * embed_dim
        normaliser = 2 * tokens * num_features * self.num_heads
        return self.projection_flops(grid) + features + summaries + normaliser

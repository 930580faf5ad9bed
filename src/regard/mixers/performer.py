"""Attention in linear time, estimated with random features."""

import torch
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from regard.layers.grid import Grid
from regard.layers.mixer import TokenMask, Tokens
from regard.mixers.base import HeadMixer, visible
from regard.ops import FavorState, favor_attention, favor_rows, favor_step, favor_weights, orthogonal_projection
from regard.ops.favor.features import check_kind


class Performer(HeadMixer):
    """FAVOR+: softmax attention estimated with positive orthogonal random features (Choromanski et al. 2020). O(N).

    The features are drawn from `seed` and saved with the weights: two evaluations give the same bits. With
    `redraw_every`, those of training step n are drawn from (seed, n // redraw_every), whenever `redraw_features` is
    called before a step, as the training loop does; evaluation takes the last ones.
    """

    name = "performer"

    projection: Tensor

    def __init__(
        self,
        embed_dim: int,
        *,
        num_heads: int,
        num_features: PositiveInt | None = None,
        kind: str = "softmax_positive",
        redraw_every: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
        qkv_bias: bool = True,
        fused_qkv: bool = True,
        causal: bool = False,
    ) -> None:
        """`num_features` is 2 · head_dim unless given; more of them estimate softmax attention more closely.

        `kind` is that of `favor_features`: "relu" does not estimate softmax, but trains as well. `redraw_every` is in
        steps of training; 0 is never.
        """
        super().__init__(embed_dim, num_heads, qkv_bias=qkv_bias, fused_qkv=fused_qkv)
        check_kind(kind)
        self.kind, self.redraw_every, self.seed, self.causal = kind, redraw_every, seed, causal
        num_features = 2 * self.head_dim if num_features is None else num_features
        device = self.proj.weight.device
        drawn = torch.empty(num_features, self.head_dim) if device.type == "meta" else self._drawn(num_features, 0)
        self.register_buffer("projection", drawn.to(device))

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        self.check_grid(x, grid)
        q, k, v = self.heads(self.harmless(x, mask), positions)
        mixed = favor_attention(q, k, v, projection=self.projection, kind=self.kind, is_causal=self.causal, mask=mask)
        return self.out(mixed)

    def mixing_matrix(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        self.check_grid(x, grid)
        q, k, _ = self.heads(self.harmless(x, mask), positions)
        return favor_weights(q, k, projection=self.projection, kind=self.kind, is_causal=self.causal, mask=mask)

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
        return favor_rows(
            self._reader("q", x, positions, heads)(queries),
            self._reader("k", x, positions, heads),
            x.shape[1],
            projection=self.projection,
            kind=self.kind,
            allowed=visible(queries, x.shape[1], mask, causal=self.causal),
            chunk=chunk,
        )

    def step(
        self, x: Float[Tensor, "batch new embed_dim"], state: FavorState | None = None
    ) -> tuple[Float[Tensor, "batch new embed_dim"], FavorState]:
        """The causal output for new tokens, given the sums over the past in `state`; and the new sums."""
        self.require_causal(self.causal)
        q, k, v = self.heads(x)
        mixed, state = favor_step(q, k, v, state, projection=self.projection, kind=self.kind)
        return self.out(mixed), state

    def redraw(self, step: int) -> None:
        """Sets the features of a training step, in place: a new draw every `redraw_every` steps."""
        if self.redraw_every:
            self.projection.copy_(self._drawn(len(self.projection), step // self.redraw_every))

    def _drawn(self, num_features: int, draw: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + draw * 1_000_003)  # torch takes 32 bits of it
        return orthogonal_projection(num_features, self.head_dim, generator)

    def flops(self, grid: Grid) -> int:
        """The projections; the features of q and k; φ(k)ᵀ v, φ(q) times it, and the same with the sum of features."""
        tokens, num_drawn = grid.num_tokens, self.projection.shape[0]
        num_features = num_drawn * (2 if self.kind == "softmax_hyperbolic" else 1)
        embed_dim = self.num_heads * self.head_dim
        features = 2 * 2 * tokens * num_drawn * embed_dim
        summaries = 2 * 2 * tokens * num_features * embed_dim
        normaliser = 2 * tokens * num_features * self.num_heads
        return self.projection_flops(grid) + features + summaries + normaliser


def redraw_features(model: nn.Module, step: int) -> None:
    """Gives the performers of a model the features of training step `step`; see `Performer`."""
    for module in model.modules():
        if isinstance(module, Performer) and module.redraw_every and step % module.redraw_every == 0:
            module.redraw(step)

"""No mixing, as a baseline."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from regard.layers.grid import Grid
from regard.layers.mixer import Mixer, TokenMask, Tokens


class NoMixing(Mixer):
    """The identity: no token sees another. Only the feed-forward part of a model is left.

    A class token then sees nothing of the image, so pool by the average.
    """

    name = "none"

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        self.require_no(positions=positions)
        self.check_grid(x, grid)
        return x

    def mixing_matrix(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Float[Tensor, "batch 1 tokens tokens"]:
        self.require_no(positions=positions)
        self.check_grid(x, grid)
        return torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand(x.shape[0], 1, -1, -1)

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
    ) -> Float[Tensor, "batch 1 queries tokens"]:
        self.require_no(positions=positions)
        self.check_grid(x, grid)
        own = queries[:, None] == torch.arange(x.shape[1], device=x.device)
        return own.to(x.dtype).expand(x.shape[0], 1, -1, -1)

    def value(self, x: Tokens) -> Float[Tensor, "batch 1 tokens embed_dim"]:
        return x.unsqueeze(1)

    def out(self, mixed: Float[Tensor, "batch 1 tokens embed_dim"]) -> Tokens:
        return mixed.squeeze(1)

    def flops(self, grid: Grid) -> int:
        return 0

"""MLP-Mixer's mixer."""

import torch
from jaxtyping import Float, Int64
from pydantic import PositiveInt
from torch import Tensor

from regard.errors import RegardError
from regard.layers.block import MLP
from regard.layers.grid import Grid
from regard.layers.mixer import Mixer, TokenMask, Tokens


class TokenMLP(Mixer):
    """One MLP across the tokens, shared by all channels (Tolstikhin et al. 2021, eq. 1: token mixing).

    Its weights belong to token indices, so it supports only the number of tokens that it was built for.
    """

    name = "mlp"

    def __init__(self, embed_dim: int, *, num_tokens: int, hidden_dim: PositiveInt | None = None) -> None:
        """`hidden_dim` is the width across tokens (D_S), embed_dim / 2 unless given, as in the paper."""
        super().__init__()
        self.embed_dim = embed_dim
        self.num_tokens = num_tokens
        self.mlp = MLP(num_tokens, max(1, embed_dim // 2) if hidden_dim is None else hidden_dim)

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        self.require_no(mask=mask, positions=positions)
        self.check_grid(x, grid)
        if x.shape[1] != self.num_tokens:
            raise RegardError(
                f"{self.name}: was built for {self.num_tokens} tokens and got {x.shape[1]}; its weights belong to "
                "token indices, so the image size cannot change (attention, local, performer and conv can)"
            )
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)

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
        """Channel c has the matrix W_2 diag(gelu'(W_1 x_c + b_1)) W_1; a row is its norm over the channels."""
        self.require_no(mask=mask, positions=positions)
        self.check_grid(x, grid)
        first, second = self.mlp.fc1, self.mlp.fc2
        with torch.enable_grad():
            hidden = first(x.transpose(1, 2)).detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.mlp.act(hidden).sum(), hidden)
        rows = [((slope * second.weight[query]) @ first.weight).norm(dim=1) for query in queries.tolist()]
        return torch.stack(rows, dim=1)[:, None].detach()

    def flops(self, grid: Grid) -> int:
        """Two maps, tokens × hidden and back, on each channel."""
        return 2 * self.embed_dim * 2 * self.num_tokens * self.mlp.fc1.out_features

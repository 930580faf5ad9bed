"""Position embeddings that are added to the tokens."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.layers.grid import Grid
from regard.ops import resample_positions, sine_positions_2d


class LearnedPositions(nn.Module):
    """One learned vector a token (Dosovitskiy et al. 2020, section 3.1), resampled for a grid of another size."""

    def __init__(self, grid: Grid, embed_dim: int, std: float = 0.02, *, antialias: bool = True) -> None:
        super().__init__()
        self.grid = grid
        self.antialias = antialias
        self.table = nn.Parameter(torch.empty(1, grid.num_tokens, embed_dim))
        nn.init.trunc_normal_(self.table, std=std)

    def forward(self, grid: Grid) -> Float[Tensor, "1 tokens embed_dim"]:
        old, new = (self.grid.height, self.grid.width), (grid.height, grid.width)
        return resample_positions(self.table, old, new, prefix=grid.prefix, antialias=self.antialias)


class SinePositions(nn.Module):
    """Fixed sines of row and column; prefix tokens get zeros."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.register_buffer("_like", torch.empty(0), persistent=False)  # holds the device and the dtype

    def forward(self, grid: Grid) -> Float[Tensor, "1 tokens embed_dim"]:
        table = sine_positions_2d(grid.height, grid.width, self.embed_dim).to(self.get_buffer("_like"))
        return nn.functional.pad(table, (0, 0, grid.prefix, 0)).unsqueeze(0)

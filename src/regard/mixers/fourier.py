"""FNet's mixer."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from regard.layers.grid import Grid
from regard.layers.mixer import Mixer, TokenMask, Tokens
from regard.ops import fourier_mixing


class Fourier(Mixer):
    """The real part of the 2-D Fourier transform over tokens and channels (Lee-Thorp et al. 2021, eq. 3).

    There are no parameters. With `ortho` the output is divided by √(tokens · embed_dim), which about keeps the scale of
    the input and suits blocks that normalise before the mixer; FNet's own blocks normalise after it.
    """

    name = "fourier"

    def __init__(self, embed_dim: int, *, ortho: bool = False) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.ortho = ortho

    def forward(
        self, x: Tokens, *, grid: Grid | None = None, mask: TokenMask | None = None, positions: Tokens | None = None
    ) -> Tokens:
        self.require_no(mask=mask, positions=positions)
        self.check_grid(x, grid)
        mixed = fourier_mixing(x)
        return mixed * (x.shape[1] * x.shape[2]) ** -0.5 if self.ortho else mixed

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
        """‖∂y_i/∂x_j‖² = Σ_cd cos²(2π(ij/N + cd/C)) = (C² + C gcd(2, C) cos(4π ij/N)) / 2, whatever x is."""
        self.require_no(mask=mask, positions=positions)
        self.check_grid(x, grid)
        _, count, channels = x.shape
        products = (queries[:, None] * torch.arange(count, device=x.device)) % count
        cosines = (products.double() * (4 * math.pi / count)).cos()
        squares = (channels**2 + channels * math.gcd(2, channels) * cosines) / 2
        squares = squares / (count * channels) if self.ortho else squares
        return squares.clamp(min=0).sqrt().to(x.dtype).expand(x.shape[0], 1, -1, -1)

    def flops(self, grid: Grid) -> int:
        """A complex FFT of n values is counted as 5 n log₂ n, the usual figure for radix two."""
        values = grid.num_tokens * self.embed_dim
        return round(5 * values * (math.log2(grid.num_tokens) + math.log2(self.embed_dim)))

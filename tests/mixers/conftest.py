"""Small mixers whose sizes are all different, so that swapped axes are caught."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from regard.layers import Grid
from regard.mixers import Mixer, create_mixer

BATCH, HEIGHT, WIDTH, NUM_HEADS, HEAD_DIM = 2, 3, 7, 5, 11
EMBED_DIM = NUM_HEADS * HEAD_DIM


@pytest.fixture
def make() -> Callable[..., tuple[Mixer, Grid]]:
    """make(name, options, prefix) -> (mixer, grid), with every parameter random, those that start at 0 or 1 as well."""

    def build(
        name: str,
        options: Mapping[str, object] | None = None,
        prefix: int = 1,
        embed_dim: int = EMBED_DIM,
        num_heads: int = NUM_HEADS,
        height: int = HEIGHT,
        width: int = WIDTH,
    ) -> tuple[Mixer, Grid]:
        grid = Grid(height, width, prefix)
        mixer = create_mixer(name, embed_dim, num_heads=num_heads, grid=grid, options=options)
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return mixer, grid

    return build


@pytest.fixture
def tokens() -> Callable[..., Tensor]:
    """tokens(grid) -> (batch, tokens, embed_dim), random."""

    def draw(
        grid: Grid, *, batch: int = BATCH, embed_dim: int = EMBED_DIM, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        return torch.randn(batch, grid.num_tokens, embed_dim, dtype=torch.float64).to(dtype)

    return draw


@pytest.fixture
def padding() -> Callable[..., Tensor]:
    """padding(grid) -> a mask that every mixer with a place for masks can serve: the first image ends in padding."""

    def mask(grid: Grid, real: int = 11) -> Tensor:
        lengths = torch.tensor([real] + [grid.num_tokens] * (BATCH - 1))
        return torch.arange(grid.num_tokens) < lengths[:, None]

    return mask

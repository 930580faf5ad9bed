"""Small mixers whose sizes are all different, so that swapped axes are caught."""

import pytest
import torch

from regard.layers import Grid
from regard.mixers import create_mixer

BATCH, HEIGHT, WIDTH, NUM_HEADS, HEAD_DIM = 2, 3, 7, 5, 11
EMBED_DIM = NUM_HEADS * HEAD_DIM


@pytest.fixture
def make():
    """make(name, options, prefix) -> (mixer, grid), with every parameter random, those that start at 0 or 1 as well."""

    def build(name, options=None, prefix=1, embed_dim=EMBED_DIM, num_heads=NUM_HEADS, height=HEIGHT, width=WIDTH):
        grid = Grid(height, width, prefix)
        mixer = create_mixer(name, embed_dim, num_heads=num_heads, grid=grid, options=options)
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return mixer, grid

    return build


@pytest.fixture
def tokens():
    """tokens(grid) -> (batch, tokens, embed_dim), random."""

    def draw(grid, *, batch=BATCH, embed_dim=EMBED_DIM, dtype=torch.float32):
        return torch.randn(batch, grid.num_tokens, embed_dim, dtype=torch.float64).to(dtype)

    return draw


@pytest.fixture
def padding():
    """padding(grid) -> a mask that every mixer with a place for masks can serve: the first image ends in padding."""

    def mask(grid, real=11):
        lengths = torch.tensor([real] + [grid.num_tokens] * (BATCH - 1))
        return torch.arange(grid.num_tokens) < lengths[:, None]

    return mask

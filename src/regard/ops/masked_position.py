"""Positions on a grid of which only a part is real, as padded images have it."""

import math

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from regard.errors import RegardError

# Keeps a row or column without anything real from a division by zero.
EPSILON = 1e-6


def masked_sine_positions(
    mask: Bool[Tensor, "batch height width"], embed_dim: int, *, temperature: float = 10_000.0
) -> Float32[Tensor, "batch tokens embed_dim"]:
    """DETR's positions: sines and cosines of the row, then of the column (Carion et al. 2020, appendix A.4).

    A real pixel's row is the number of real pixels above and with it, over all of its column, times 2π; its column
    likewise. So an image has the same positions whatever it is padded to. Of each half, channel 2i holds
    sin(p / temperature^(2i/half)) and channel 2i + 1 the cosine. The grid is read row by row; `mask` is True where a
    pixel is real. RegardError where `embed_dim` is no multiple of 4.
    """
    if embed_dim % 4:
        raise RegardError(f"sine positions: embed_dim must be a multiple of 4, got {embed_dim}")
    half = embed_dim // 2
    exponents = 2 * torch.arange(half // 2, dtype=torch.float32, device=mask.device) / half
    waves = []
    for axis in (1, 2):
        counted = mask.cumsum(axis, dtype=torch.float32)
        place = counted / (counted.narrow(axis, -1 + mask.shape[axis], 1) + EPSILON) * (2 * math.pi)
        angles = place[..., None] / temperature**exponents
        waves.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2))
    return torch.cat(waves, dim=-1).flatten(1, 2)

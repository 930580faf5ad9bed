"""Positions of tokens on a grid: sine tables, and tables resampled to another grid."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from regard.errors import RegardError
from regard.ops.arguments import require_floats, require_shape, require_whole

OP = "sine positions"
EPSILON = 1e-6
"""Avoids a division by zero in a row or column without a real pixel."""


def sine_positions(
    num_tokens: int, embed_dim: int, *, start: int = 0, temperature: float = 10_000.0
) -> Float[Tensor, "num_tokens embed_dim"]:
    """The table of Vaswani et al. 2017, section 3.5: sines in the even channels, cosines in the odd ones.

        PE(pos, 2i) = sin(pos / temperature^(2i/d)),   PE(pos, 2i+1) = cos(pos / temperature^(2i/d))

    for pos from `start` on, in float32, with d = `embed_dim`, which must be even. RegardError for what is no integer.
    """
    for name, value in (("num_tokens", num_tokens), ("embed_dim", embed_dim), ("start", start)):
        require_whole(OP, name, value, 0)
    if embed_dim % 2:
        raise RegardError(f"sine positions: embed_dim must be even, got {embed_dim}")
    frequency = temperature ** -(torch.arange(0, embed_dim, 2, dtype=torch.float64) / embed_dim)
    angles = torch.arange(start, start + num_tokens, dtype=torch.float64).unsqueeze(1) * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def sine_positions_2d(
    height: int, width: int, embed_dim: int, *, temperature: float = 10_000.0
) -> Float[Tensor, "tokens embed_dim"]:
    """Sines and cosines of the row and of the column at geometric frequencies, for a grid read row by row.

    The table of Vaswani et al. 2017, section 3.5, once for each axis. The four quarters of the channels are sin(y·ω),
    cos(y·ω), sin(x·ω), cos(x·ω), with ω from 1 down to 1/temperature. `embed_dim` must be a multiple of 4.
    """
    for name, value in (("height", height), ("width", width)):
        require_whole(OP, name, value, 0)
    _require_quarters(embed_dim)
    quarter = embed_dim // 4
    frequency = temperature ** -(torch.arange(quarter, dtype=torch.float32) / max(quarter - 1, 1))
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32), indexing="ij"
    )
    angles = [axis.reshape(-1, 1) * frequency for axis in (rows, columns)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


def masked_sine_positions(
    mask: Bool[Tensor, "batch height width"], embed_dim: int, *, temperature: float = 10_000.0
) -> Float32[Tensor, "batch tokens embed_dim"]:
    """DETR's positions: sines and cosines of the row, then of the column (Carion et al. 2020, appendix A.4).

    The row p of a pixel is 2π times the number of real pixels in its column down to it, divided by the number of all
    real pixels in that column; its column is counted in its row in the same way. So padding does not change an image's
    positions. In each half of the channels, channel 2i holds sin(p / temperature^(2i/half)), and channel 2i + 1 the
    cosine. The grid is read row by row; `mask` is True where a pixel is real. RegardError if `embed_dim` is not a
    multiple of 4, or `mask` is not bool.
    """
    _require_quarters(embed_dim)
    if mask.dtype != torch.bool or mask.ndim != 3:
        raise RegardError(
            f"{OP}: mask must be bool, True where a pixel is real, and (batch, height, width); "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    half = embed_dim // 2
    exponents = 2 * torch.arange(half // 2, dtype=torch.float32, device=mask.device) / half
    waves = []
    for axis in (1, 2):
        counted = mask.cumsum(axis, dtype=torch.float32)
        place = counted / (counted.narrow(axis, -1 + mask.shape[axis], 1) + EPSILON) * (2 * math.pi)
        angles = place[..., None] / temperature**exponents
        waves.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2))
    return torch.cat(waves, dim=-1).flatten(1, 2)


def sine_boxes(
    boxes: Float[Tensor, "*shape 4"], embed_dim: int, *, temperature: float = 10_000.0
) -> Float[Tensor, "*shape two_embed_dims"]:
    """PE(cx), PE(cy), PE(w), PE(h), of embed_dim / 2 channels each  (DAB-DETR, Liu et al. 2022, eq. 6 and 7).

    For a coordinate c in [0, 1], channel 2i holds sin(2π c / temperature^(2i/half)), and channel 2i + 1 the cosine;
    half is embed_dim / 2. In float32, whatever floating dtype the boxes have. A coordinate that is NaN or infinite has
    channels that are NaN. RegardError if `embed_dim` is not a multiple of 4, or the boxes are integers.
    """
    _require_quarters(embed_dim)
    require_floats(OP, boxes=boxes)
    require_shape(OP, "boxes", boxes, (*boxes.shape[:-1], 4))
    quarter = embed_dim // 4
    frequency = 2 * math.pi * temperature ** -(torch.arange(quarter, device=boxes.device).float() / quarter)
    angles = boxes.float()[..., None] * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


def resample_positions(
    table: Float[Tensor, "1 tokens embed_dim"],
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    prefix: int = 0,
    antialias: bool = True,
) -> Float[Tensor, "1 new_tokens embed_dim"]:
    """A table of positions for another grid, by bicubic interpolation; the first `prefix` rows are kept.

    `old` and `new` are (height, width). This is how ViT is fine-tuned at another resolution
    (Dosovitskiy et al. 2020, section 3.2). A NaN in the table reaches the positions around it. RegardError for a table
    that does not fit `old`, is not of floating numbers, or for a grid without a row or column.
    """
    require_floats("positions", table=table)
    require_whole("positions", "prefix", prefix, 0)
    for value in (*old, *new):
        require_whole("positions", "a side of a grid", value, 1)
    if table.shape[1] != prefix + old[0] * old[1]:
        raise RegardError(f"positions: a table of {table.shape[1]} tokens is not {prefix} + {old[0]} × {old[1]}")
    return table if old == new else resampled(table, old, new, prefix=prefix, antialias=antialias)


def resampled(
    table: Float[Tensor, "1 tokens embed_dim"],
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    prefix: int,
    antialias: bool,
) -> Float[Tensor, "1 new_tokens embed_dim"]:
    """`resample_positions` without a branch for equal grids, so that a program of free sides can hold it."""
    image = table[:, prefix:].unflatten(1, old).permute(0, 3, 1, 2)
    resized = F.interpolate(image.float(), size=new, mode="bicubic", antialias=antialias, align_corners=False)
    patches = resized.to(table.dtype).permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([table[:, :prefix], patches], dim=1)


def _require_quarters(embed_dim: int) -> None:
    require_whole(OP, "embed_dim", embed_dim, 0)
    if embed_dim % 4:
        raise RegardError(f"sine positions: embed_dim must be a multiple of 4, got {embed_dim}")

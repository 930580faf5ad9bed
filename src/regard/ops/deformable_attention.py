"""Deformable attention: each query looks at a few points of several feature maps (Zhu et al. 2020, section 4.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError


def deformable_attention(
    value: Float[Tensor, "batch heads tokens head_dim"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "batch heads queries levels points 2"],
    weights: Float[Tensor, "batch heads queries levels points"],
) -> Float[Tensor, "batch heads queries head_dim"]:
    """Σ_l Σ_k weights[l, k] · value_l(locations[l, k])  (Zhu et al. 2020, eq. 3; the projections are the layer's).

    `value` holds the tokens of all maps, one map after the other, each read row by row; `shapes` are the maps'
    (height, width). A location is (x, y) in its map, each from 0 to 1. Values between the centres of tokens are
    interpolated linearly; outside the map they are zero. It samples and sums in float32 at least, and the time does not
    depend on the sizes of the maps. Raises RegardError where `shapes` do not fit the tokens or the locations.
    """
    sizes = [height * width for height, width in shapes]
    _check(value, shapes, sizes, locations)
    dtype = torch.promote_types(value.dtype, torch.float32)
    places = (2 * locations.to(dtype) - 1).flatten(0, 1)  # grid_sample's corners are (-1, -1) and (1, 1)
    maps = value.to(dtype).transpose(2, 3).flatten(0, 1).split(sizes, dim=2)
    sampled = [
        F.grid_sample(of_level.unflatten(2, shape), places[:, :, level], align_corners=False)
        for level, (of_level, shape) in enumerate(zip(maps, shapes, strict=True))
    ]
    points = torch.cat(sampled, dim=3)  # (batch · heads, head_dim, queries, levels · points)
    weights = weights.to(dtype).flatten(0, 1).flatten(2).contiguous()  # or the product is four times as slow
    return (points * weights[:, None]).sum(3).transpose(1, 2).unflatten(0, value.shape[:2]).to(value.dtype)


def _check(value: Tensor, shapes: Sequence[tuple[int, int]], sizes: list[int], locations: Tensor) -> None:
    if sum(sizes) != value.shape[2] or len(shapes) != locations.shape[3]:
        raise RegardError(
            f"deformable attention: maps of {list(shapes)} have {sum(sizes)} tokens on {len(shapes)} levels, "
            f"got {value.shape[2]} tokens and locations on {locations.shape[3]} levels"
        )

"""Deformable attention: each query looks at a few points of several feature maps (Zhu et al. 2020, section 4.1)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.ops.arguments import floats, full_precision, require_precise, require_shape, require_whole

OP = "deformable attention"


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
    depend on the sizes of the maps.

    `locations` and `weights` are in the dtype of `value`, or in float32; under autocast `value` alone is cast.
    A value that is NaN reaches the points beside it, a location or a weight that is NaN its query. RegardError where
    shapes, dtypes and devices do not fit together.
    """
    (value,) = floats(OP, value=value)
    require_precise(OP, value, locations=locations, weights=weights)
    shapes = _checked(value, shapes, locations, weights)
    return _sampled(value, shapes, locations, weights)


@full_precision
def _sampled(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    dtype = torch.promote_types(value.dtype, torch.float32)
    places = (2 * locations.to(dtype) - 1).flatten(0, 1)  # grid_sample's corners are (-1, -1) and (1, 1)
    maps = value.to(dtype).transpose(2, 3).flatten(0, 1).split([height * width for height, width in shapes], dim=2)
    sampled = [
        F.grid_sample(of_level.unflatten(2, shape), places[:, :, level], align_corners=False)
        for level, (of_level, shape) in enumerate(zip(maps, shapes, strict=True))
    ]
    points = torch.cat(sampled, dim=3)  # (batch · heads, head_dim, queries, levels · points)
    weights = weights.to(dtype).flatten(0, 1).flatten(2).contiguous()  # or the product is four times as slow
    return (points * weights[:, None]).sum(3).transpose(1, 2).unflatten(0, value.shape[:2]).to(value.dtype)


def _checked(value: Tensor, shapes: Sequence[Any], locations: Tensor, weights: Tensor) -> list[tuple[int, int]]:
    """The maps' sizes. RegardError for what does not fit together."""
    sizes = [tuple(shape) for shape in shapes]
    if not sizes or any(len(shape) != 2 for shape in sizes):
        raise RegardError(f"{OP}: shapes must be (height, width) of each map, at least one, got {list(shapes)}")
    maps = [(require_whole(OP, "height", height, 1), require_whole(OP, "width", width, 1)) for height, width in sizes]
    tokens = sum(height * width for height, width in maps)
    if value.ndim != 4 or locations.ndim != 6 or tokens != value.shape[2] or len(maps) != locations.shape[3]:
        raise RegardError(
            f"{OP}: maps of {maps} have {tokens} tokens on {len(maps)} levels, "
            f"got {value.shape[2] if value.ndim == 4 else tuple(value.shape)} tokens "
            f"and locations on {locations.shape[3] if locations.ndim == 6 else tuple(locations.shape)} levels"
        )
    (batch, heads), (queries, levels, points) = value.shape[:2], locations.shape[2:5]
    wanted = (batch, heads, queries, levels, points, 2)
    require_shape(OP, "locations", locations, wanted, "(batch, heads, queries, levels, points, 2)")
    require_shape(OP, "weights", weights, wanted[:-1], "(batch, heads, queries, levels, points)")
    return maps

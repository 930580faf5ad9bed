"""Maps of many channels as colours: their first three principal components, as DINOv2 is shown."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

FLAT = 1e-9
"""A component that varies less than so much of the largest value is none, but rounding."""


def principal_components(
    vectors: Float[Tensor, "places channels"], count: int = 3
) -> Float[Tensor, "places components"]:
    """The first principal components of vectors, in float64: (X - mean) V, where X - mean = U S Vᵀ.

    The sign of each is such that the largest entry of its direction, a column of V, is positive: a picture of the same
    vectors is the same. Where there are fewer channels or places than `count`, the others are 0.
    """
    centred = vectors.detach().cpu().double()
    centred = centred - centred.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False)[2][:count]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    found = centred @ (directions * largest.sign()).T
    return F.pad(found, (0, count - found.shape[1]))


def principal_colours(
    maps: Sequence[Float[Tensor, "channels _ _"]],
) -> list[UInt8[Tensor, "3 _ _"]]:
    """Maps of one model as pictures: red, green and blue are the first three components of the places of all maps.

    Each goes from 0 at its least value in all maps to 255 at its largest; one that never varies is 0.
    """
    values = torch.cat([one.flatten(1).T for one in maps])
    found = principal_components(values)
    low, span = found.amin(0), found.amax(0) - found.amin(0)
    varies = span > FLAT * values.abs().max().item()
    shares = torch.where(varies, (found - low) / torch.where(varies, span, 1.0), 0.0)
    pixels = (255 * shares).round().byte().split([one.shape[1] * one.shape[2] for one in maps])
    return [colours.T.unflatten(1, tuple(one.shape[1:])) for colours, one in zip(pixels, maps, strict=True)]

"""Random parts of an image, which may be turned: places in pixels, and the pixels that are there."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

# The sides of a part have an aspect between 1 / ASPECT and ASPECT times the one that is asked for.
ASPECT = 4 / 3
Box = tuple[float, float, float, float]


def drawn_box(stored: tuple[int, int], size: tuple[int, int], crop_scale: float) -> Box:
    """(top, left, height, width) of a random part of an image of (height, width), with about the aspect of `size`.

    crop_scale: the smallest fraction of the largest part with this aspect; smaller ones are as likely in logarithms.
    """
    factor = min(side / own for side, own in zip(stored, size, strict=True))
    area = math.exp(uniform(math.log(crop_scale), 0.0))
    stretch = math.exp(uniform(-math.log(ASPECT), math.log(ASPECT)) / 2) if crop_scale < 1 else 1.0
    height, width = (
        min(own * factor * math.sqrt(area) * by, float(side))
        for own, side, by in zip(size, stored, (stretch, 1 / stretch), strict=True)
    )
    top, left = (uniform(0.0, float(side - part)) for side, part in zip(stored, (height, width), strict=True))
    return top, left, height, width


def turned(
    image: UInt8[Tensor, "channels _ _"], box: Box, angle: float, size: tuple[int, int]
) -> UInt8[Tensor, "channels height width"]:
    """A part of an image, turned by an angle around its middle; what lies outside is the image's reflection."""
    from torchvision.transforms.v2 import functional

    top, left, height, width = box
    rows, columns = image.shape[1:]
    factors = [min(new / old, 1.0) for new, old in zip(size, (height, width), strict=True)]
    if min(factors) < 1:  # with antialias, which sampling has not
        smaller = [max(round(side * by), 1) for side, by in zip((rows, columns), factors, strict=True)]
        image = functional.resize(image, smaller, antialias=True)
    cosine, sine = math.cos(angle), math.sin(angle)
    places = [
        [cosine * width / columns, -sine * height / columns, (2 * left + width) / columns - 1],
        [sine * width / rows, cosine * height / rows, (2 * top + height) / rows - 1],
    ]
    grid = F.affine_grid(torch.tensor([places]), [1, 1, *size], align_corners=False)
    found = F.grid_sample(image[None].float(), grid, padding_mode="reflection", align_corners=False)
    return found[0].round().clamp(0, 255).byte()


def uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()

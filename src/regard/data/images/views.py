"""Views of an image without boxes: the whole, and others that are drawn once, so that their features can be kept.

A view depends on the image's file and the view's number alone: not on the run, its seed or the epoch. Models of
different sizes see the same part of the image.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from regard.data.images.transforms import (
    Bars,
    Normalise,
    Preprocessing,
    Resize,
    interpolation_of,
    whole_size,
)
from regard.data.order import drawing_from, seed_for

# The sides of a part have an aspect between 1 / ASPECT and ASPECT times the image's.
ASPECT = 4 / 3


@dataclass(frozen=True)
class ImageViews:
    """The views of an image: number 0 is the whole one, prepared as for evaluation; the others are drawn.

    crop_scale: the smallest fraction of the image's area that a view shows. rotation: degrees by which it is turned, at
    most, to either side; the corners repeat the image as in a mirror. flip: whether every second view is mirrored.
    """

    crop_scale: float = 1.0
    rotation: float = 0.0
    flip: bool = False

    def name(self, number: int) -> str:
        """What tells the view from others of the same image and preprocessing."""
        if not number:
            return "whole"
        return f"view {number}, area {self.crop_scale:g}, rotation {self.rotation:g}, flip {self.flip}"

    def pixels(
        self, image: UInt8[Tensor, "channels _ _"], number: int, digest: str, pre: Preprocessing
    ) -> Float32[Tensor, "channels height width"]:
        """A view of the image as it was read, as a model with this preprocessing takes it."""
        return normalised(self.part(image, number, digest, pre), pre)

    def part(
        self, image: UInt8[Tensor, "channels _ _"], number: int, digest: str, pre: Preprocessing
    ) -> UInt8[Tensor, "channels height width"]:
        """A view in the size that the model takes, before it is normalised and bars are added."""
        if not number:
            return Resize(pre)(image)
        from torchvision.transforms.v2 import functional

        stored = (image.shape[1], image.shape[2])
        size = pre.img_size if pre.resize == "crop" else whole_size(pre, *stored)
        with drawing_from(seed_for(int(digest[:15], 16), number)):
            # Where the whole image is kept, its aspect changes with it.
            top, left, height, width = self._drawn_box(stored, size if pre.resize == "crop" else stored)
            angle = math.radians(self.rotation) * (2 * torch.rand(()).item() - 1)
            mirrored = self.flip and torch.rand(()).item() < 0.5
        if angle:
            seen = _turned(image, (top, left, height, width), angle, size)
        else:
            box = (round(top), round(left), max(round(height), 1), max(round(width), 1))
            how = interpolation_of(pre)
            seen = functional.resized_crop(image, *box, list(size), interpolation=how, antialias=True)
        return seen.flip(-1) if mirrored else seen

    def _drawn_box(self, stored: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
        """(top, left, height, width) of a random part, with about the aspect of `size`, as `RandomCrop` draws it."""
        # That of the largest part with this aspect.
        factor = min(side / own for side, own in zip(stored, size, strict=True))
        area = math.exp(_uniform(math.log(self.crop_scale), 0.0))
        stretch = math.exp(_uniform(-math.log(ASPECT), math.log(ASPECT)) / 2) if self.crop_scale < 1 else 1.0
        height, width = (
            min(own * factor * math.sqrt(area) * by, float(side))
            for own, side, by in zip(size, stored, (stretch, 1 / stretch), strict=True)
        )
        top, left = (_uniform(0.0, float(side - part)) for side, part in zip(stored, (height, width), strict=True))
        return top, left, height, width


def normalised(image: UInt8[Tensor, "channels _ _"], pre: Preprocessing) -> Float32[Tensor, "channels height width"]:
    """An image of the size that `whole_size` says, as the model takes it."""
    image = Normalise(pre.mean, pre.std)(image)
    return Bars(pre)(image) if pre.resize == "letterbox" else image


def _turned(
    image: UInt8[Tensor, "channels _ _"], box: tuple[float, float, float, float], angle: float, size: tuple[int, int]
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


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()

"""Views of an image without boxes: the whole, and others that are drawn once, so that their features can be kept.

A view depends on the image's file and the view's number alone: not on the run, its seed or the epoch. Models of
different sizes see the same part of the image.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from regard.data.images.transforms import Bars, Normalise, Preprocessing, RandomPart, Resize
from regard.data.order import drawing_from, seed_for


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
        with drawing_from(seed_for(int(digest[:15], 16), number)):
            seen = RandomPart(pre, self.crop_scale, self.rotation)(image)
            return seen.flip(-1) if self.flip and torch.rand(()).item() < 0.5 else seen


def normalised(image: UInt8[Tensor, "channels _ _"], pre: Preprocessing) -> Float32[Tensor, "channels height width"]:
    """An image of the size that `whole_size` says, as the model takes it."""
    image = Normalise(pre.mean, pre.std)(image)
    return Bars(pre)(image) if pre.resize == "letterbox" else image

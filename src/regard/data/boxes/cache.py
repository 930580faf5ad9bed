"""Decoded images cached in memory, and large images resized before they are cached."""

import psutil
import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.boxes.sources import DetectionSource
from regard.data.boxes.transforms import resized, scaled, scaled_objects

# The fraction of free memory that decoded images may take.
CACHE_FRACTION = 0.4


class CachedDetectionSource(DetectionSource):
    """Another source whose images are decoded once and cached in memory that all worker processes use.

    An image whose size is not the stated one is decoded each time.
    """

    def __init__(self, source: DetectionSource, channels: int) -> None:
        self.source, self.channels = source, channels
        self.objects, self.image_ids, self.sizes = source.objects, source.image_ids, source.sizes
        self.skipped = source.skipped
        ends = torch.tensor([0, *(channels * height * width for height, width in source.sizes)]).cumsum(0)
        self.ends = ends.tolist()
        self.pixels = torch.empty(self.ends[-1], dtype=torch.uint8).share_memory_()
        self.known = torch.zeros(len(source), dtype=torch.bool).share_memory_()

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        place = self.pixels[self.ends[index] : self.ends[index + 1]].view(self.channels, *self.sizes[index])
        if not self.known[index]:
            image = self.source.read(index)
            if image.shape != place.shape:
                return image
            place.copy_(image)
            self.known[index] = True  # after the pixels: a worker that sees it finds them
        return place

    def name(self, index: int) -> str:
        return self.source.name(index)


class ResizedDetectionSource(DetectionSource):
    """Another source whose larger images are resized to `shortest` and `longest` pixels.

    So `MosaicAndJitter`, which scales four images for each mosaic, need not do so at a camera's resolution.
    """

    def __init__(self, source: DetectionSource, shortest: int, longest: int) -> None:
        self.source, self.image_ids, self.skipped = source, source.image_ids, source.skipped
        self.sizes = [min(size, resized(*size, shortest, longest)) for size in source.sizes]
        self.objects = [
            scaled_objects(*of_image) for of_image in zip(source.objects, source.sizes, self.sizes, strict=True)
        ]

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        image, stated = self.source.read(index), self.source.sizes[index]
        # The same factors for an image whose size is not the stated one.
        factors = (new / old for new, old in zip(self.sizes[index], stated, strict=True))
        return scaled(image, [max(round(f * side), 1) for f, side in zip(factors, image.shape[1:], strict=True)])

    def name(self, index: int) -> str:
        return self.source.name(index)


def cached(source: DetectionSource, channels: int) -> DetectionSource:
    """The source with its images cached in memory; the source itself where they would take too much."""
    wanted = sum(channels * height * width for height, width in source.sizes)
    fits = wanted <= CACHE_FRACTION * psutil.virtual_memory().available
    return CachedDetectionSource(source, channels) if fits else source

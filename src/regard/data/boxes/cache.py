"""Decoded images kept in memory, and images of a camera brought to a size before they are kept."""

import psutil
import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.boxes.sources import DetectionSource
from regard.data.boxes.transforms import resized, scaled, scaled_objects

# Of the memory that is free, the share that decoded images may take.
CACHE_SHARE = 0.4


class CachedDetectionSource(DetectionSource):
    """Another source whose images are decoded once, and kept in memory that worker processes share.

    An image that has not the size that the data state is read each time.
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
    """Another source whose images are brought to `shortest` and `longest` pixels where they are larger.

    What changes whole images and their neighbours (`MosaicAndJitter`) need not do so to the pixels of a camera.
    """

    def __init__(self, source: DetectionSource, shortest: int, longest: int) -> None:
        self.source, self.image_ids, self.skipped = source, source.image_ids, source.skipped
        self.sizes = [min(size, resized(*size, shortest, longest)) for size in source.sizes]
        self.objects = [
            scaled_objects(*of_image) for of_image in zip(source.objects, source.sizes, self.sizes, strict=True)
        ]

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        image, stated = self.source.read(index), self.source.sizes[index]
        # Of an image that has not the size that the data state, the same share.
        shares = (new / old for new, old in zip(self.sizes[index], stated, strict=True))
        return scaled(image, [max(round(s * side), 1) for s, side in zip(shares, image.shape[1:], strict=True)])

    def name(self, index: int) -> str:
        return self.source.name(index)


def cached(source: DetectionSource, channels: int) -> DetectionSource:
    """The source with its images kept in memory, or as it is where they would take too much."""
    wanted = sum(channels * height * width for height, width in source.sizes)
    return (
        CachedDetectionSource(source, channels) if wanted <= CACHE_SHARE * psutil.virtual_memory().available else source
    )

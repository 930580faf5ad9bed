"""Decoded images cached in memory, and large images resized before they are cached."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.boxes.sources import DetectionSource
from regard.data.boxes.transforms import resized, scaled, scaled_objects
from regard.data.memory import available_memory, room_in_shared_memory

# The fraction of free memory that decoded images may take.
CACHE_FRACTION = 0.4


class CachedDetectionSource(DetectionSource):
    """Another source whose images are decoded once and cached: with `shared`, in memory that worker processes share.

    An image whose size is not the stated one is decoded each time.
    """

    def __init__(self, source: DetectionSource, channels: int, *, shared: bool = True) -> None:
        self.source, self.channels = source, channels
        self.objects, self.image_ids, self.sizes = source.objects, source.image_ids, source.sizes
        self.skipped = source.skipped
        ends = torch.tensor([0, *(channels * height * width for height, width in source.sizes)]).cumsum(0)
        self.ends = ends.tolist()
        self.pixels = torch.empty(self.ends[-1], dtype=torch.uint8)
        self.known = torch.zeros(len(source), dtype=torch.bool)
        if shared:
            self.pixels.share_memory_()
            self.known.share_memory_()

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

    def digest(self, index: int) -> str:
        return self.source.digest(index)


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

    def digest(self, index: int) -> str:
        return self.source.digest(index)


def cached(source: DetectionSource, channels: int, num_workers: int = 0) -> DetectionSource:
    """The source with its images cached in memory; the source itself where they would take too much.

    num_workers: the worker processes; the cache is in shared memory only where there are any.
    """
    if no_room_for(source, channels, num_workers):
        return source
    return CachedDetectionSource(source, channels, shared=num_workers > 0)


def no_room_for(source: DetectionSource, channels: int, num_workers: int = 0) -> str:
    """Why `cached` leaves a source as it is; "" where it does not."""
    wanted = sum(channels * height * width for height, width in source.sizes)
    allowed = CACHE_FRACTION * (room_in_shared_memory() if num_workers else available_memory())
    if wanted <= allowed:
        return ""
    where = "of shared memory (/dev/shm), which worker processes need" if num_workers else "of memory"
    return (
        f"the decoded images are not cached: they take {wanted / 2**20:,.0f} MB, and may take {allowed / 2**20:,.0f} "
        f"MB {where}"
    )

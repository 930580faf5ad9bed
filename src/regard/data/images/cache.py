"""Images that are decoded and resized once, and cached in memory.

A photograph of a camera is brought near the size that the model sees. Images of about that size stay as they are.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from regard.data.images.sources import ImageSource
from regard.data.images.transforms import Preprocessing, Resize, Transform, resized_to
from regard.data.memory import available_memory, room_in_shared_memory

# The fraction of free memory that images may take.
CACHE_FRACTION = 0.4
# Sides of a reduced image in those of the model's: a random crop of half of it has twice the pixels that it needs.
SIDES = 2


class PixelCache:
    """Images by number; with `shared`, in memory that worker processes share. `areas` are the most pixels of each."""

    def __init__(self, areas: Sequence[int], channels: int, *, shared: bool) -> None:
        self.channels = channels
        self.ends: list[int] = torch.tensor([0, *areas]).cumsum(0).mul(channels).tolist()
        self.pixels = torch.empty(self.ends[-1], dtype=torch.uint8)
        self.sizes = torch.zeros(len(areas), 2, dtype=torch.int64)  # 0 × 0: not there
        if shared:
            self.pixels.share_memory_()
            self.sizes.share_memory_()

    def get(self, index: int) -> UInt8[Tensor, "channels height width"] | None:
        height, width = self.sizes[index].tolist()
        if not height * width:  # also where another process has written one of the two by now
            return None
        start = self.ends[index]
        return self.pixels[start : start + self.channels * height * width].view(self.channels, height, width)

    def put(self, index: int, image: UInt8[Tensor, "channels height width"]) -> None:
        """Keeps an image, unless it is larger than stated."""
        start, end = self.ends[index : index + 2]
        if image.numel() <= end - start:
            self.pixels[start : start + image.numel()] = image.flatten()
            self.sizes[index] = torch.tensor(image.shape[1:])  # after the pixels: who sees it finds them


def no_room(areas: Sequence[int], channels: int, num_workers: int = 0) -> str:
    """Why so many pixels are not cached, in shared memory where there are workers; "" where they are."""
    wanted = channels * sum(areas)
    allowed = CACHE_FRACTION * (room_in_shared_memory() if num_workers else available_memory())
    if wanted <= allowed:
        return ""
    where = "of shared memory (/dev/shm), which worker processes need" if num_workers else "of memory"
    return (
        f"the decoded images are not cached: they take {wanted / 2**20:,.0f} MB, and may take {allowed / 2**20:,.0f} "
        f"MB {where}"
    )


class PreparedImages(ImageSource):
    """Another source whose images are changed by `prepare`: once, where there is a cache, else each time."""

    def __init__(self, source: ImageSource, prepare: Transform, cache: PixelCache | None) -> None:
        self.source, self.prepare, self.cache = source, prepare, cache
        self.labels, self.num_classes, self.skipped = source.labels, source.num_classes, source.skipped

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        image = None if self.cache is None else self.cache.get(index)
        if image is None:
            image = self.prepare(self.source.read(index))
            if self.cache is not None:
                self.cache.put(index, image)
        return image

    def name(self, index: int) -> str:
        return self.source.name(index)

    def digest(self, index: int) -> str:
        return self.source.digest(index)


class Reduce:
    """Resizes an image that is much larger than the model's to one of its aspect that covers `SIDES` times img_size.

    One that would keep more than half of its pixels stays as it is.
    """

    def __init__(self, pre: Preprocessing) -> None:
        self.pre = pre

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result."""
        scale = SIDES * max(self.pre.img_size[0] / height, self.pre.img_size[1] / width)
        if 2 * scale**2 > 1:
            return height, width
        return round(height * scale), round(width * scale)

    def __call__(self, image: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "channels new_height new_width"]:
        return resized_to(self.pre, image, self.size(image.shape[1], image.shape[2]))


def prepared_once(
    train: ImageSource, val: ImageSource, pre: Preprocessing, *, random_crops: bool, cache: bool, num_workers: int
) -> tuple[ImageSource, ImageSource, str]:
    """Both parts of the data for a training, and why their images are not cached ("" where they are, or need not be).

    Held-out images are cached in the size that the model sees; training images too unless they are cropped at random,
    when large ones are reduced. Neither the cache nor what it holds changes what is trained: `evaluation_transform`
    leaves an image of the model's size as it is, and large images are reduced without a cache as well.
    """
    exact, reduce, area = Resize(pre), Reduce(pre), math.prod(pre.img_size)
    areas = [area] * len(val)
    prepare: Transform | None = exact
    if not random_crops:
        areas += [area] * len(train)
    elif train.sizes is not None:
        prepare = reduce
        areas += [math.prod(reduce.size(*size)) for size in train.sizes]
    else:
        prepare = None
    why = no_room(areas, pre.channels, num_workers) if cache else ""
    if not cache or why:
        return train if prepare is not reduce else PreparedImages(train, reduce, None), val, why
    shared = num_workers > 0
    kept = PreparedImages(val, exact, PixelCache(areas[: len(val)], pre.channels, shared=shared))
    if prepare is None:
        return train, kept, why
    return PreparedImages(train, prepare, PixelCache(areas[len(val) :], pre.channels, shared=shared)), kept, why

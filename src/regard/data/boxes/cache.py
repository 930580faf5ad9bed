"""Images decoded once and cached in memory: as they are stored, or as a detector sees them; large ones made smaller."""

from jaxtyping import UInt8
from torch import Tensor

from regard.data.boxes.sources import DetectionSource
from regard.data.boxes.transforms import DetectionPreprocessing, resized, scaled, scaled_objects
from regard.data.images.cache import PixelCache, no_room


class _OfAnother(DetectionSource):
    """Another source, some of which is done in another way: names, files and objects are its own."""

    def __init__(self, source: DetectionSource) -> None:
        self.source, self.objects, self.sizes = source, source.objects, source.sizes
        self.image_ids, self.skipped = source.image_ids, source.skipped

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        return self.source.read(index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def digest(self, index: int) -> str:
        return self.source.digest(index)


class CachedDetectionSource(_OfAnother):
    """Another source whose images are decoded once and cached: with `shared`, in memory that worker processes share.

    An image whose size is not the stated one is decoded each time.
    """

    def __init__(self, source: DetectionSource, channels: int, *, shared: bool = True) -> None:
        super().__init__(source)
        self.cache = PixelCache([height * width for height, width in source.sizes], channels, shared=shared)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        image = self.cache.get(index)
        if image is None:
            image = self.source.read(index)
            if image.shape[1:] == self.sizes[index]:
                self.cache.put(index, image)
        return image


class PreparedDetectionSource(_OfAnother):
    """Another source, whose images as a detector sees them are kept from one evaluation to the next."""

    def __init__(self, source: DetectionSource, preprocessing: DetectionPreprocessing, *, shared: bool) -> None:
        super().__init__(source)
        self.preprocessing = preprocessing
        self.cache = PixelCache(prepared_areas(source, preprocessing), preprocessing.channels, shared=shared)

    def prepared(self, index: int) -> tuple[UInt8[Tensor, "channels height width"], tuple[int, int]]:
        """Image `index` in the size that the detector sees, and its own (height, width). Raises BadImage.

        One whose size is not the stated one is decoded each time.
        """
        size, image = self.sizes[index], self.cache.get(index)
        if image is None:
            read = self.source.read(index)
            size = (read.shape[1], read.shape[2])
            image = scaled(read, self.preprocessing.prepared_size(*size))
            if size == tuple(self.sizes[index]):
                self.cache.put(index, image)
        return image, size


def prepared_areas(source: DetectionSource, preprocessing: DetectionPreprocessing) -> list[int]:
    """Pixels of each image as the detector sees it."""
    sizes = (preprocessing.prepared_size(*size) for size in source.sizes)
    return [height * width for height, width in sizes]


class ResizedDetectionSource(_OfAnother):
    """Another source whose larger images are resized to `shortest` and `longest` pixels.

    So `MosaicAndJitter`, which scales four images for each mosaic, need not do so at a camera's resolution.
    """

    def __init__(self, source: DetectionSource, shortest: int, longest: int) -> None:
        super().__init__(source)
        self.sizes = [min(size, resized(*size, shortest, longest)) for size in source.sizes]
        self.objects = [
            scaled_objects(*of_image) for of_image in zip(source.objects, source.sizes, self.sizes, strict=True)
        ]

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        image, stated = self.source.read(index), self.source.sizes[index]
        # The same factors for an image whose size is not the stated one.
        factors = (new / old for new, old in zip(self.sizes[index], stated, strict=True))
        return scaled(image, [max(round(f * side), 1) for f, side in zip(factors, image.shape[1:], strict=True)])


def cached(source: DetectionSource, channels: int, num_workers: int = 0) -> DetectionSource:
    """The source with its images cached in memory; the source itself where they would take too much.

    num_workers: the worker processes; the cache is in shared memory only where there are any.
    """
    if no_room_for(source, channels, num_workers):
        return source
    return CachedDetectionSource(source, channels, shared=num_workers > 0)


def no_room_for(source: DetectionSource, channels: int, num_workers: int = 0) -> str:
    """Why `cached` leaves a source as it is; "" where it does not."""
    return no_room([height * width for height, width in source.sizes], channels, num_workers)

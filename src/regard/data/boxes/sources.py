"""What every kind of data with boxes becomes: numbered images with objects, in a training and a validation split."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from regard.data.images.digests import digest_of_file, digest_of_pixels
from regard.data.images.files import read_image
from regard.data.images.pixels import AS_STORED, Decoding
from regard.data.images.sources import split_by_seed
from regard.data.repairs import Repairs


@dataclass(frozen=True)
class Objects:
    """What is annotated in one image, in pixels of the image as it is stored (upright)."""

    boxes_xyxy: Float32[Tensor, "objects 4"]
    labels: Int64[Tensor, " objects"]
    """Indices of `DetectionData.class_names`."""
    areas: Float32[Tensor, " objects"]
    """As the data state them (COCO's are of the segment), else of the box; evaluation sorts by them."""
    crowd: Bool[Tensor, " objects"]
    """Regions that stand for many objects: not trained on, and ignored in evaluation as COCO does."""

    def __len__(self) -> int:
        return len(self.labels)


class DetectionSource(ABC):
    """Images with objects, read one at a time. Everything but the pixels is known before an image is read.

    `skipped` names the images that were left out because they cannot be read, each with the reason.
    """

    objects: Sequence[Objects]
    image_ids: Sequence[int]
    """The data's own ids, which COCO results name; counted from 1 where the data have none."""
    sizes: Sequence[tuple[int, int]]
    """(height, width)."""
    skipped: tuple[str, ...] = ()
    decoding: Decoding = AS_STORED
    """How its files become 8 bits."""

    def __len__(self) -> int:
        return len(self.objects)

    @abstractmethod
    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        """Image `index`, of its own size. It may be shared: don't write to it. Raises BadImage."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call image `index` in a message: a path as given, or `digit-scenes[17]`."""

    def digest(self, index: int) -> str:
        """A hash of the bytes of image `index`'s file, or of its pixels where there is no file. Raises BadImage."""
        return digest_of_pixels(self.read(index))


class SelectedDetectionSource(DetectionSource):
    """Some images of another source, in the order of `indices`; they keep their names and ids."""

    def __init__(self, source: DetectionSource, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = tuple(indices)
        self.objects = [source.objects[index] for index in self.indices]
        self.image_ids = [source.image_ids[index] for index in self.indices]
        self.sizes = [source.sizes[index] for index in self.indices]
        self.skipped = source.skipped

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        return self.source.read(self.indices[index])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def digest(self, index: int) -> str:
        return self.source.digest(self.indices[index])


class JoinedDetectionSource(DetectionSource):
    """Several sources, one after another."""

    def __init__(self, sources: Sequence[DetectionSource]) -> None:
        self.places = [(source, index) for source in sources for index in range(len(source))]
        self.objects = [source.objects[index] for source, index in self.places]
        self.image_ids = [source.image_ids[index] for source, index in self.places]
        self.sizes = [source.sizes[index] for source, index in self.places]
        self.skipped = tuple(name for source in sources for name in source.skipped)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        source, inner = self.places[index]
        return source.read(inner)

    def name(self, index: int) -> str:
        source, inner = self.places[index]
        return source.name(inner)

    def digest(self, index: int) -> str:
        source, inner = self.places[index]
        return source.digest(inner)


@dataclass(frozen=True)
class DetectionData:
    """Images with boxes. Label i means `class_names[i]`, which the data themselves call `category_ids[i]`.

    `has_val` is True where the data have a validation split of their own, and False where `val` was drawn by seed.
    """

    address: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: DetectionSource
    val: DetectionSource
    has_val: bool
    can_flip: bool
    """Whether left and right may be exchanged: not where the classes are written signs, as digits are."""
    decoding: Decoding = AS_STORED
    """How files become 8 bits: as given, or as the training images need it."""
    repairs: Repairs = field(default_factory=Repairs)
    """What the reader assumed, left out, and passed over."""


def split_detection(
    count: int, *, val_fraction: float | None, split_seed: int, where: str, files: Sequence[Path] = ()
) -> tuple[list[int], list[int]]:
    """As `split_by_seed`; for None nothing is held out."""
    if val_fraction is None:
        return list(range(count)), []
    return split_by_seed(count, val_fraction=val_fraction, split_seed=split_seed, where=where, files=files)


def clipped(objects: Objects, size: tuple[int, int]) -> Objects:
    """The objects with their boxes clipped to an image of (height, width), without those that have no extent there."""
    height, width = size
    boxes = objects.boxes_xyxy.clamp(min=0).minimum(torch.tensor([width, height, width, height], dtype=torch.float32))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return Objects(boxes[kept], objects.labels[kept], objects.areas[kept], objects.crowd[kept])


def _with_own_areas(objects: Objects) -> Objects:
    """The objects with the areas of their boxes as they are now."""
    sides = objects.boxes_xyxy[:, 2:] - objects.boxes_xyxy[:, :2]
    return replace(objects, areas=sides.prod(1))


class FileDetectionSource(DetectionSource):
    """Image files with the objects that a format states, `stated`, and the usable ones of them, `objects`.

    The formats that need it state no areas: those of the boxes, cut at the image's edges, are taken.
    """

    def __init__(
        self, files: Sequence[Path], sizes: Sequence[tuple[int, int]], stated: Sequence[Objects], channels: int
    ) -> None:
        self.files, self.sizes, self.stated, self.channels = list(files), list(sizes), list(stated), channels
        self.objects = [_with_own_areas(clipped(objects, size)) for objects, size in zip(stated, sizes, strict=True)]
        self.image_ids = range(1, len(self.files) + 1)

    def read(self, index: int) -> UInt8[Tensor, "channels height width"]:
        return read_image(self.files[index], self.channels, self.decoding)

    def name(self, index: int) -> str:
        return str(self.files[index])

    def digest(self, index: int) -> str:
        return digest_of_file(self.files[index])


def in_two_splits(
    address: str,
    class_names: Sequence[str],
    train: DetectionSource,
    val: DetectionSource | None,
    *,
    val_fraction: float | None,
    split_seed: int,
    can_flip: bool = True,
    repairs: Repairs | None = None,
) -> DetectionData:
    """Data whose classes have no ids of their own; without a `val`, a split is drawn by seed."""
    names = tuple(class_names)
    has_val = val is not None
    if val is None:
        source = train
        files = source.files if isinstance(source, FileDetectionSource) else ()
        kept, held = split_detection(
            len(source), val_fraction=val_fraction, split_seed=split_seed, where=address, files=files
        )
        train, val = SelectedDetectionSource(source, kept), SelectedDetectionSource(source, held)
    ids = tuple(range(len(names)))
    return DetectionData(address, names, ids, train, val, has_val, can_flip, repairs=repairs or Repairs())

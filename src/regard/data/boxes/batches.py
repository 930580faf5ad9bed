"""Batches of images with boxes.

In training they are padded to the largest, with a mask of the pixels that are no padding; in evaluation a batch holds
images of one size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regard.data.boxes.cache import PreparedDetectionSource
from regard.data.boxes.mosaic import AnnotatedImage, MosaicAndJitter
from regard.data.boxes.sources import DetectionSource, Objects
from regard.data.boxes.transforms import (
    DetectionPreprocessing,
    DetectionTransform,
    detection_evaluation_transform,
    scaled_objects,
)
from regard.data.images.batches import ByEpoch, Skipped
from regard.data.images.files import BadImage, OnBadImage
from regard.data.images.transforms import Normalise
from regard.data.order import TrainingOrder, drawing_from, endless_batches, given_batches, seed_for
from regard.errors import RegardError


@dataclass(slots=True)
class DetectionSample:
    """One image, ready for the model, and its objects without crowds."""

    image: Float32[Tensor, "channels height width"]
    labels: Int64[Tensor, " objects"]
    boxes_cxcywh: Float32[Tensor, "objects 4"]
    index: int
    stored_size: tuple[int, int]
    name: str


@dataclass
class DetectionBatch:
    """A batch of a loader. `skipped` names the images that could not be read, with reasons; no other field has them."""

    images: Float[Tensor, "batch channels height width"]
    mask: Bool[Tensor, "batch height width"]
    """True for pixels of the image, False for padding."""
    labels: list[Tensor]
    boxes_cxcywh: list[Tensor]
    """In [0, 1] of the image without its padding."""
    indices: list[int]
    """In the source."""
    stored_sizes: list[tuple[int, int]]
    """(height, width) of the images as they were read."""
    names: list[str]
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "DetectionBatch":
        """The same batch with its tensors on `device`."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        labels, boxes = ([moved(one) for one in many] for many in (self.labels, self.boxes_cxcywh))
        return replace(self, images=moved(self.images), mask=moved(self.mask), labels=labels, boxes_cxcywh=boxes)

    def pin_memory(self) -> "DetectionBatch":
        """The same batch with its pixels in page-locked memory; a DataLoader asks for it."""
        return replace(self, images=self.images.pin_memory(), mask=self.mask.pin_memory())


def pad(
    images: Sequence[Float32[Tensor, "channels _ _"]],
) -> tuple[Float32[Tensor, "batch channels height width"], Bool[Tensor, "batch height width"]]:
    """Images, padded with zeros at the right and the bottom to one size; and a mask, True for pixels of the image."""
    height, width = (max((image.shape[axis] for image in images), default=0) for axis in (1, 2))
    channels = images[0].shape[0] if images else 0
    batch = torch.zeros(len(images), channels, height, width)
    mask = torch.zeros(len(images), height, width, dtype=torch.bool)
    for image, place, own in zip(images, batch, mask, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
        own[: image.shape[1], : image.shape[2]] = True
    return batch, mask


def collate_detection(items: Sequence[DetectionSample | Skipped]) -> DetectionBatch:
    """Join samples into a batch, without those that were skipped."""
    samples = [item for item in items if isinstance(item, DetectionSample)]
    images, mask = pad([sample.image for sample in samples])
    return DetectionBatch(
        images,
        mask,
        labels=[sample.labels for sample in samples],
        boxes_cxcywh=[sample.boxes_cxcywh for sample in samples],
        indices=[sample.index for sample in samples],
        stored_sizes=[sample.stored_size for sample in samples],
        names=[sample.name for sample in samples],
        skipped=[item.reason for item in items if isinstance(item, Skipped)],
    )


def collate_by_size(items: Sequence[DetectionSample | Skipped]) -> list[DetectionBatch]:
    """Join samples into one batch for each size of image, so that none is padded; an empty one has those skipped."""
    groups: dict[tuple[int, ...], list[DetectionSample | Skipped]] = {}
    for item in items:
        size = () if isinstance(item, Skipped) else tuple(item.image.shape)
        groups.setdefault(size, []).append(item)
    return [collate_detection(group) for group in groups.values()]


class TrainingDetectionImages(ByEpoch):
    """Images by (epoch, index): read or, with `mosaic_and_jitter`, changed by it, then transformed.

    Random numbers depend on `seed`, epoch and index alone; torch's global generator is left as it was.
    """

    def __init__(
        self,
        source: DetectionSource,
        transform: DetectionTransform,
        seed: int,
        on_bad_image: OnBadImage,
        mosaic_and_jitter: MosaicAndJitter | None = None,
    ) -> None:
        self.source, self.transform, self.seed, self.on_bad_image = source, transform, seed, on_bad_image
        self.mosaic_and_jitter = mosaic_and_jitter

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> DetectionSample | Skipped:
        epoch, index = key
        with drawing_from(seed_for(self.seed, epoch, index)):
            read = None if self.mosaic_and_jitter is None else partial(self.mosaic_and_jitter, epoch)
            return _sample(self.source, self.transform, index, self.on_bad_image, read)


class EvaluationDetectionImages(Dataset[DetectionSample | Skipped]):
    """Images by index, transformed without random numbers; where the source keeps prepared ones, these."""

    def __init__(
        self, source: DetectionSource, preprocessing: DetectionPreprocessing, on_bad_image: OnBadImage
    ) -> None:
        self.source, self.on_bad_image = source, on_bad_image
        self.transform = detection_evaluation_transform(preprocessing)
        self.normalise = Normalise(preprocessing.mean, preprocessing.std)
        self.keeps = isinstance(source, PreparedDetectionSource) and source.preprocessing == preprocessing

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> DetectionSample | Skipped:
        if not self.keeps:
            return _sample(self.source, self.transform, index, self.on_bad_image)
        assert isinstance(self.source, PreparedDetectionSource)
        try:
            image, size = self.source.prepared(index)
        except BadImage as error:
            return _skipped(error, self.on_bad_image)
        objects = scaled_objects(self.source.objects[index], size, image.shape[1:])
        return _sample_of(self.normalise(image), objects, self.source, index, size)


def _sample(
    source: DetectionSource,
    transform: DetectionTransform,
    index: int,
    on_bad_image: OnBadImage,
    read: Callable[[int], AnnotatedImage] | None = None,
) -> DetectionSample | Skipped:
    try:
        image, objects = (source.read(index), source.objects[index]) if read is None else read(index)
    except BadImage as error:
        return _skipped(error, on_bad_image)
    seen, objects = transform(image, objects)
    return _sample_of(seen, objects, source, index, (image.shape[1], image.shape[2]))


def _skipped(error: BadImage, on_bad_image: OnBadImage) -> Skipped:
    if on_bad_image == "stop":
        raise error
    return Skipped(str(error))


def _sample_of(
    seen: Tensor, objects: Objects, source: DetectionSource, index: int, stored_size: tuple[int, int]
) -> DetectionSample:
    own = ~objects.crowd
    corners = objects.boxes_xyxy[own] / torch.tensor([seen.shape[2], seen.shape[1]]).repeat(2)
    start, end = corners[:, :2], corners[:, 2:]
    boxes = torch.cat([(start + end) / 2, end - start], dim=1)
    return DetectionSample(seen, objects.labels[own], boxes, index, stored_size, source.name(index))


class AspectOrder(TrainingOrder):
    """A TrainingOrder whose batches are of wide images alone or of tall ones alone, so that little is padded.

    The images of an epoch are drawn as in TrainingOrder. Each waits until a whole batch of its kind is there; those
    that are left over at the end make the last batches. `sizes` are (height, width).
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        super().__init__(len(sizes), batch_size, seed, rank=rank, world_size=world_size, accumulate=accumulate)
        self.wide = [width >= height for height, width in sizes]

    def _order(self, epoch: int, batch_size: int) -> list[int]:
        order: list[int] = []
        waiting: dict[bool, list[int]] = {True: [], False: []}
        for index in super()._order(epoch, batch_size):
            kind = waiting[self.wide[index]]
            kind.append(index)
            if len(kind) == batch_size:
                order += kind
                kind.clear()
        return order + waiting[True] + waiting[False]


def detection_training_loader(
    source: DetectionSource,
    transform: DetectionTransform,
    order: TrainingOrder,
    num_workers: int,
    on_bad_image: OnBadImage,
    mosaic_and_jitter: MosaicAndJitter | None = None,
) -> DataLoader[DetectionSample | Skipped]:
    """Endless batches in the order of `order`, augmented by its seed."""
    images = TrainingDetectionImages(source, transform, order.seed, on_bad_image, mosaic_and_jitter)
    return endless_batches(images, order, num_workers, collate_detection)


def detection_evaluation_loader(
    source: DetectionSource,
    preprocessing: DetectionPreprocessing,
    batch_size: int,
    num_workers: int,
    on_bad_image: OnBadImage,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[DetectionSample | Skipped]:
    """Lists of batches, with each image once over all processes: `rank` gets every `world_size`-th.

    A batch holds at most `batch_size` images of one prepared size, so that none is padded: in the place of the data's
    order, which `indices` restores.
    """
    if len(source) == 0:
        raise RegardError("evaluation: there are no images")
    of_size: dict[tuple[int, int], list[int]] = {}
    for index in range(rank, len(source), world_size):
        of_size.setdefault(preprocessing.prepared_size(*source.sizes[index]), []).append(index)
    batches = [
        indices[first : first + batch_size]
        for indices in of_size.values()
        for first in range(0, len(indices), batch_size)
    ]
    images = EvaluationDetectionImages(source, preprocessing, on_bad_image)
    return given_batches(images, batches, num_workers, collate_by_size)

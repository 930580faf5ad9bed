"""Batches of images with boxes: padded to the largest, with a mask that says what is real."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import psutil
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regard.data.detection import DetectionSource
from regard.data.detection_transforms import DetectionTransform, resized, scaled, scaled_objects
from regard.data.images import BadImage, OnBadImage
from regard.data.loading import (
    Skipped,
    TrainingOrder,
    batches_of_a_share,
    drawing_from,
    endless_batches,
    seed_for,
)
from regard.data.mosaic import Scene, VariedScenes
from regard.errors import RegardError

# Of the memory that is free, the share that decoded images may take.
CACHE_SHARE = 0.4


@dataclass(slots=True)
class DetectionSample:
    """One image, ready for the model, and its objects, crowds aside."""

    image: Float32[Tensor, "channels height width"]
    labels: Int64[Tensor, " objects"]
    boxes_cxcywh: Float32[Tensor, "objects 4"]
    index: int
    stored_size: tuple[int, int]
    name: str


@dataclass
class DetectionBatch:
    """What a loader yields. `skipped` says which images could not be read and why; they are in no other field."""

    images: Float[Tensor, "batch channels height width"]
    mask: Bool[Tensor, "batch height width"]
    """True where a pixel is an image's own, False where it is padding."""
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
    """Images in the upper left of the smallest rectangle that holds them all, zeros around; and what is real there."""
    height, width = (max((image.shape[axis] for image in images), default=0) for axis in (1, 2))
    channels = images[0].shape[0] if images else 0
    batch = torch.zeros(len(images), channels, height, width)
    mask = torch.zeros(len(images), height, width, dtype=torch.bool)
    for image, place, real in zip(images, batch, mask, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
        real[: image.shape[1], : image.shape[2]] = True
    return batch, mask


def collate_scenes(items: Sequence[DetectionSample | Skipped]) -> DetectionBatch:
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


class TrainingScenes(Dataset[DetectionSample | Skipped]):
    """Scenes by (epoch, index). What `transform` and `vary` draw from torch's global generator depends on them and on
    `seed`."""

    def __init__(
        self,
        source: DetectionSource,
        transform: DetectionTransform,
        seed: int,
        on_bad_image: OnBadImage,
        vary: VariedScenes | None = None,
    ) -> None:
        self.source, self.transform, self.seed, self.on_bad_image = source, transform, seed, on_bad_image
        self.vary = vary

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> DetectionSample | Skipped:
        epoch, index = key
        with drawing_from(seed_for(self.seed, epoch, index)):
            vary = None if self.vary is None else partial(self.vary, epoch)
            return _sample(self.source, self.transform, index, self.on_bad_image, vary)


class EvaluationScenes(Dataset[DetectionSample | Skipped]):
    """Scenes by index, with a transform that draws nothing."""

    def __init__(self, source: DetectionSource, transform: DetectionTransform, on_bad_image: OnBadImage) -> None:
        self.source, self.transform, self.on_bad_image = source, transform, on_bad_image

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> DetectionSample | Skipped:
        return _sample(self.source, self.transform, index, self.on_bad_image)


def _sample(
    source: DetectionSource,
    transform: DetectionTransform,
    index: int,
    on_bad_image: OnBadImage,
    scene: Callable[[int], Scene] | None = None,
) -> DetectionSample | Skipped:
    try:
        image, objects = (source.read(index), source.objects[index]) if scene is None else scene(index)
    except BadImage as error:
        if on_bad_image == "stop":
            raise
        return Skipped(str(error))
    seen, objects = transform(image, objects)
    own = ~objects.crowd
    corners = objects.boxes_xyxy[own] / torch.tensor([seen.shape[2], seen.shape[1]]).repeat(2)
    start, end = corners[:, :2], corners[:, 2:]
    boxes = torch.cat([(start + end) / 2, end - start], dim=1)
    size = (image.shape[1], image.shape[2])
    return DetectionSample(seen, objects.labels[own], boxes, index, size, source.name(index))


class CachedScenes(DetectionSource):
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


class ReducedScenes(DetectionSource):
    """Another source whose images are brought to `shortest` and `longest` pixels where they are larger.

    What changes whole images and their neighbours (`VariedScenes`) need not do so to the pixels of a camera.
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
    return CachedScenes(source, channels) if wanted <= CACHE_SHARE * psutil.virtual_memory().available else source


class AspectOrder(TrainingOrder):
    """A TrainingOrder whose steps take images that are all wide or all tall, as far as they go.

    Within an epoch, images are drawn as ever; one that comes waits until a whole step of its kind is there, and what
    is left of both kinds makes the last steps. `sizes` are (height, width).
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
    vary: VariedScenes | None = None,
) -> DataLoader[DetectionSample | Skipped]:
    """Batches without end, as `order` says; augmented by its seed."""
    scenes = TrainingScenes(source, transform, order.seed, on_bad_image, vary)
    return endless_batches(scenes, order, num_workers, collate_scenes)


def detection_evaluation_loader(
    source: DetectionSource,
    transform: DetectionTransform,
    batch_size: int,
    num_workers: int,
    on_bad_image: OnBadImage,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[DetectionSample | Skipped]:
    """Each image once over all processes: `rank` gets every `world_size`-th, in order, `batch_size` at a time."""
    if len(source) == 0:
        raise RegardError("evaluation: there are no images")
    scenes = EvaluationScenes(source, transform, on_bad_image)
    return batches_of_a_share(scenes, len(source), batch_size, num_workers, collate_scenes, rank, world_size)

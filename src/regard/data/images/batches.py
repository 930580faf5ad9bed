"""Batches of images with labels.

Order and augmentation are functions of (seed, epoch, sample). So a run resumes in the middle of an epoch, and neither
the number of workers nor the number of processes changes what is trained on.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regard.data.images.files import BadImage, OnBadImage
from regard.data.images.labels import Label, label_tensor
from regard.data.images.sources import ImageSource
from regard.data.images.transforms import Transform
from regard.data.order import TrainingOrder, batches_of_a_shard, drawing_from, endless_batches, seed_for


@dataclass(slots=True)
class Sample:
    """One image, ready for the model."""

    image: Float[Tensor, "channels height width"]
    label: Label
    name: str


@dataclass(slots=True)
class Skipped:
    """Takes the place of an image that could not be read; `reason` begins with its name."""

    reason: str


class ByEpoch(Dataset[Any]):
    """Samples by (epoch, index). A batch in which nothing can be read takes the next image that can be."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: tuple[int, int]) -> Any: ...

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
        """What a loader asks for: a whole batch."""
        items = [self[key] for key in keys]
        if all(isinstance(item, Skipped) for item in items):
            epoch, first = keys[0]
            others = (self[epoch, (first + step) % len(self)] for step in range(1, len(self)))
            items += islice((item for item in others if not isinstance(item, Skipped)), 1)
        return items


class TrainingImages(ByEpoch):
    """Images by (epoch, index), transformed with random numbers that depend on `seed`, epoch and index alone.

    torch's global generator is left as it was. Under "stop" an unreadable image raises BadImage.
    """

    def __init__(self, source: ImageSource, transform: Transform, seed: int, on_bad_image: OnBadImage) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed
        self.on_bad_image = on_bad_image

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Skipped:
        epoch, index = key
        with drawing_from(seed_for(self.seed, epoch, index)):
            return _sample(self.source, self.transform, index, self.on_bad_image)


class EvaluationImages(Dataset[Sample | Skipped]):
    """Images by index, transformed without random numbers. Under "stop" an unreadable image raises BadImage."""

    def __init__(self, source: ImageSource, transform: Transform, on_bad_image: OnBadImage) -> None:
        self.source = source
        self.transform = transform
        self.on_bad_image = on_bad_image

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | Skipped:
        return _sample(self.source, self.transform, index, self.on_bad_image)


def _sample(source: ImageSource, transform: Transform, index: int, on_bad_image: OnBadImage) -> Sample | Skipped:
    try:
        image = source.read(index)
    except BadImage as error:
        if on_bad_image == "stop":
            raise
        return Skipped(str(error))
    return Sample(transform(image), source.labels[index], source.name(index))


@dataclass
class Batch:
    """A batch of a loader. `skipped` names the images that could not be read, with the reason; no other field has them.

    If none could be read, the shape of `images` is (0, 0, 0, 0): ask for `len(batch)` first. Instead of images there
    may be cached features, (batch, num_features).
    """

    images: Float[Tensor, " batch *shape"]
    labels: Int64[Tensor, " batch *classes"]
    """The class of each image; of a multi-label set a row of zeros and ones."""
    names: list[str]
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on `device`."""
        images = self.images.to(device, non_blocking=non_blocking)
        return Batch(images, self.labels.to(device, non_blocking=non_blocking), self.names, self.skipped)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; a DataLoader asks for it."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.names, self.skipped)


def collate(items: list[Sample | Skipped], num_classes: int | None = None) -> Batch:
    """Join samples into a batch, without those that were skipped. num_classes: of a multi-label set."""
    samples = [item for item in items if isinstance(item, Sample)]
    return Batch(
        images=torch.stack([sample.image for sample in samples]) if samples else torch.zeros(0, 0, 0, 0),
        labels=label_tensor([sample.label for sample in samples], num_classes),
        names=[sample.name for sample in samples],
        skipped=[item.reason for item in items if isinstance(item, Skipped)],
    )


def training_loader(
    source: ImageSource, transform: Transform, order: TrainingOrder, num_workers: int, on_bad_image: OnBadImage
) -> DataLoader[Sample | Skipped]:
    """Endless batches in the order of `order`, augmented by its seed."""
    images = TrainingImages(source, transform, order.seed, on_bad_image)
    return endless_batches(images, order, num_workers, partial(collate, num_classes=source.num_classes))


def evaluation_loader(
    source: ImageSource,
    transform: Transform,
    batch_size: int,
    num_workers: int,
    on_bad_image: OnBadImage,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Sample | Skipped]:
    """Each image once over all processes: `rank` gets every `world_size`-th, in order, `batch_size` at a time.

    Processes may get different numbers of batches; their results are gathered after the last one.
    """
    images = EvaluationImages(source, transform, on_bad_image)
    joined = partial(collate, num_classes=source.num_classes)
    return batches_of_a_shard(images, len(source), batch_size, num_workers, joined, rank, world_size)

"""Batches for training and evaluation.

Order and augmentation are functions of (seed, epoch, sample): nothing has to be stored to resume a run in the middle
of an epoch, and neither the number of workers nor the number of processes changes what is trained on.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from regard.data.images import BadImage, OnBadImage
from regard.data.sources import ImageSource
from regard.data.transforms import Transform
from regard.errors import RegardError


def seed_for(*numbers: int) -> int:
    """A seed of 63 bits out of whole numbers; other numbers, or another order, give another seed."""
    # A hash, because numpy's SeedSequence takes five times as long and cannot tell (1, 2) from (1, 2, 0).
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Within, torch's global generator draws from a seed; after, it is as it was before."""
    # torch.manual_seed and fork_rng also look after every accelerator, which takes 200 µs here; this takes 3.
    before = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Which images each optimiser step trains on, for ever: lists of (epoch, index), one list a forward pass.

    Step s belongs to epoch s // steps_per_epoch, whose order is a permutation drawn from (seed, epoch). The images of
    an epoch's end that fill no batch are left out; the next epoch leaves out others.

    batch_size: the images of one optimiser step over all processes. It is cut into world_size × accumulate equal
    parts, and this process gets `accumulate` of them, one after the other: all parts together are the batch that one
    process would get. A set smaller than batch_size is one batch an epoch, which repeats as few images as it needs to
    be cut into equal parts.
    start_step: the first step to yield. rank, world_size: this process and the number of processes.
    Raises RegardError if the batch cannot be cut, and for numbers out of range.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        *,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        least = {"num_samples": 1, "batch_size": 1, "seed": 0, "start_step": 0, "world_size": 1, "accumulate": 1}
        given = (num_samples, batch_size, seed, start_step, world_size, accumulate)
        for (name, smallest), value in zip(least.items(), given, strict=True):
            if value < smallest:
                raise RegardError(f"{name} is {value}; it must be at least {smallest}")
        if not 0 <= rank < world_size:
            raise RegardError(f"rank is {rank}; it must be between 0 and {world_size - 1}")
        parts = world_size * accumulate
        if batch_size % parts:
            raise RegardError(
                f"batch_size {batch_size} cannot be cut into {parts} equal parts "
                f"({world_size} processes × {accumulate} accumulated)"
            )
        self.num_samples = num_samples
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.part_size = min(batch_size, -(-num_samples // parts) * parts) // parts

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch."""
        return max(self.num_samples // (self.part_size * self.world_size * self.accumulate), 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch_size = self.part_size * self.world_size * self.accumulate
        step, drawn, order = self.start_step, -1, []
        while True:
            epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
            if epoch != drawn:
                drawn, order = epoch, self._order(epoch, batch_size)
            batch = order[step_in_epoch * batch_size :][:batch_size]
            for accumulated in range(self.accumulate):
                first = (accumulated * self.world_size + self.rank) * self.part_size
                yield [(epoch, index) for index in batch[first : first + self.part_size]]
            step += 1

    def _order(self, epoch: int, batch_size: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_for(self.seed, epoch))
        order: list[int] = torch.randperm(self.num_samples, generator=generator).tolist()
        return order * -(-batch_size // self.num_samples)  # more than once only where the set is smaller than a batch


@dataclass(slots=True)
class Sample:
    """One image, ready for the model."""

    image: Float[Tensor, "channels height width"]
    label: int
    name: str


@dataclass(slots=True)
class Skipped:
    """Stands where an image could not be read; `reason` begins with its name."""

    reason: str


class TrainingImages(Dataset[Sample | Skipped]):
    """Images by (epoch, index). What `transform` draws from torch's global generator depends on them and on `seed`.

    The global generator is left as it was. Under "stop" an unreadable image raises BadImage.
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
    """Images by index, with a transform that draws nothing. Under "stop" an unreadable image raises BadImage."""

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
    """What a loader yields. `skipped` says which images could not be read and why; they are in no other field.

    If none could be read, there are no images, and their shape is (0, 0, 0, 0): ask for `len(batch)` first.
    Features that were computed before may stand in the place of images, (batch, num_features).
    """

    images: Float[Tensor, "batch *shape"]
    labels: Int64[Tensor, " batch"]
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


def collate(items: list[Sample | Skipped]) -> Batch:
    """Join samples into a batch, without those that were skipped."""
    samples = [item for item in items if isinstance(item, Sample)]
    return Batch(
        images=torch.stack([sample.image for sample in samples]) if samples else torch.zeros(0, 0, 0, 0),
        labels=torch.tensor([sample.label for sample in samples], dtype=torch.int64),
        names=[sample.name for sample in samples],
        skipped=[item.reason for item in items if isinstance(item, Skipped)],
    )


def training_loader(
    source: ImageSource, transform: Transform, order: TrainingOrder, num_workers: int, on_bad_image: OnBadImage
) -> DataLoader[Sample | Skipped]:
    """Batches without end, as `order` says; augmented by its seed."""
    return endless_batches(TrainingImages(source, transform, order.seed, on_bad_image), order, num_workers, collate)


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

    Processes may get different numbers of batches; what they found is gathered after the last one.
    """
    images = EvaluationImages(source, transform, on_bad_image)
    return batches_of_a_share(images, len(source), batch_size, num_workers, collate, rank, world_size)


Collate = Callable[[list[Any]], Any]


def endless_batches(samples: Dataset[Any], order: TrainingOrder, num_workers: int, collate: Collate) -> DataLoader[Any]:
    """Batches of a data set that is asked by (epoch, index), as `order` says."""
    return DataLoader(
        samples,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # a loader draws a number when it starts: not from the global generator
    )


def batches_of_a_share(
    samples: Dataset[Any], count: int, batch_size: int, num_workers: int, collate: Collate, rank: int, world_size: int
) -> DataLoader[Any]:
    """Of `count` samples every `world_size`-th from `rank` on, each once, in order."""
    return DataLoader(
        samples,
        batch_size=batch_size,
        sampler=range(rank, count, world_size),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),
    )

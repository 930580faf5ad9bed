"""The samples of each step and the seeds of what is random.

Both are functions of (seed, epoch, sample), so that a resumed run needs nothing but its step.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from regard.errors import RegardError


def seed_for(*numbers: int) -> int:
    """A seed of 63 bits from whole numbers; other numbers, or the same in another order, give another seed."""
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
    """The samples of each optimiser step, without end: one list of (epoch, index) for each forward pass.

    Step s belongs to epoch s // steps_per_epoch. The order of an epoch is a permutation drawn from (seed, epoch). Its
    last samples, where they do not fill a batch, are left out; the next epoch leaves out others.

    batch_size: the samples of one optimiser step over all processes. The batch is cut into world_size × accumulate
    equal micro-batches; this process gets `accumulate` of them, one after the other. Together they are the batch that a
    single process would get. A data set smaller than batch_size is one batch, in which as few samples are repeated as
    equal micro-batches need.
    start_step: the first step to yield. rank, world_size: the number of this process, and how many there are.
    weights: how often each sample is drawn, relative to others; an epoch then has some samples several times, and
    others not at all. Of as many draws as there are samples, each gets its weight's part, rounded up or down at random.
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
        weights: Sequence[float] | None = None,
    ) -> None:
        least = {"num_samples": 1, "batch_size": 1, "seed": 0, "start_step": 0, "world_size": 1, "accumulate": 1}
        given = (num_samples, batch_size, seed, start_step, world_size, accumulate)
        for (name, smallest), value in zip(least.items(), given, strict=True):
            if value < smallest:
                raise RegardError(f"{name} is {value}; it must be at least {smallest}")
        if not 0 <= rank < world_size:
            raise RegardError(f"rank is {rank}; it must be between 0 and {world_size - 1}")
        if weights is not None and (len(weights) != num_samples or not all(weight > 0 for weight in weights)):
            raise RegardError(f"weights must be {num_samples} numbers above 0")
        micro_batches = world_size * accumulate
        if batch_size % micro_batches:
            raise RegardError(
                f"batch_size {batch_size} cannot be cut into {micro_batches} equal micro-batches "
                f"({world_size} processes × {accumulate} accumulated)"
            )
        self.num_samples = num_samples
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        self.micro_batch_size = min(batch_size // micro_batches, -(-num_samples // micro_batches))

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch."""
        return max(self.num_samples // (self.micro_batch_size * self.world_size * self.accumulate), 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch_size = self.micro_batch_size * self.world_size * self.accumulate
        step, drawn, order = self.start_step, -1, []
        while True:
            epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
            if epoch != drawn:
                drawn, order = epoch, self._order(epoch, batch_size)
            batch = order[step_in_epoch * batch_size :][:batch_size]
            for accumulated in range(self.accumulate):
                first = (accumulated * self.world_size + self.rank) * self.micro_batch_size
                yield [(epoch, index) for index in batch[first : first + self.micro_batch_size]]
            step += 1

    def _order(self, epoch: int, batch_size: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_for(self.seed, epoch))
        drawn = torch.randperm(self.num_samples, generator=generator)
        if self.weights is not None:
            drawn = systematic_sample(self.weights, drawn, generator)
        order: list[int] = drawn.tolist()
        return order * -(-batch_size // self.num_samples)  # repeated only where the set is smaller than a batch


def systematic_sample(
    weights: Float64[Tensor, " n"], order: Int64[Tensor, " n"], generator: torch.Generator
) -> Int64[Tensor, " n"]:
    """n draws in random order, in which sample i comes n w_i / Σ w times, rounded up or down.

    The samples, in an `order` that is sorted by weight, lie beside each other on a line, each as long as its weight; n
    points of equal distance, the first one random, take what they meet (Madow 1949).
    """
    count = len(weights)
    order = order[weights[order].argsort(stable=True)]
    ends = weights[order].cumsum(0)
    first = torch.rand((), generator=generator, dtype=torch.float64)
    points = (torch.arange(count, dtype=torch.float64) + first) * (ends[-1] / count)
    met = torch.searchsorted(ends, points, right=True).clamp(max=count - 1)
    return order[met][torch.randperm(count, generator=generator)]


Collate = Callable[[list[Any]], Any]


def endless_batches(samples: Dataset[Any], order: TrainingOrder, num_workers: int, collate: Collate) -> DataLoader[Any]:
    """The batches of `order`, from a data set whose samples have the keys (epoch, index)."""
    return DataLoader(
        samples,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # a loader draws a number when it starts: not from the global generator
    )


def batches_of_a_shard(
    samples: Dataset[Any], count: int, batch_size: int, num_workers: int, collate: Collate, rank: int, world_size: int
) -> DataLoader[Any]:
    """Batches of one process's shard: every `world_size`-th of `count` samples from number `rank` on, in order."""
    shard = range(rank, count, world_size)
    batches = [list(shard[first : first + batch_size]) for first in range(0, len(shard), batch_size)]
    return given_batches(samples, batches, num_workers, collate)


def given_batches(
    samples: Dataset[Any], batches: Sequence[list[int]], num_workers: int, collate: Collate
) -> DataLoader[Any]:
    """The samples of each of `batches`, by their numbers."""
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),
    )

"""What is known of one contender of a comparison."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What a trained model costs, measured in a process of its own."""

    seconds_per_image: float
    """Of inference, in batches; the median over repetitions."""
    peak_memory_mb: float
    """Of a training step, above the level before it."""
    batch_size: int
    """Of both."""


@dataclass(frozen=True)
class Contender:
    """A mixer's runs, one a seed, and its figures. `accuracies` are those of the final weights on held-out images."""

    name: str
    runs: tuple[Path, ...]
    accuracies: tuple[float, ...]
    parameters: int
    flops: int
    """For one image, by formula."""
    training_seconds: float
    """Mean over the runs."""
    cost: Cost | None
    """None where it was not measured."""

"""What is known of one contender of a comparison."""

from dataclasses import dataclass
from pathlib import Path

# Metrics that say of how many held-out samples something is true.
PROPORTIONS = ("accuracy", "exact_match")
WORDS = {"ap": "AP"}


@dataclass(frozen=True)
class Metric:
    """The figure that contenders are compared by: a task's main metric, by the name that summaries know it by."""

    name: str
    larger_is_better: bool

    @property
    def words(self) -> str:
        return WORDS.get(self.name, self.name.replace("_", " "))

    @property
    def is_proportion(self) -> bool:
        """Whether it is a share of the held-out samples, which is told in percent."""
        return self.name in PROPORTIONS

    def text(self, value: float) -> str:
        """92.8 (in percent) or 1.913."""
        return f"{100 * value:.1f}" if self.is_proportion else f"{value:.3f}"


@dataclass(frozen=True)
class Cost:
    """What a trained model costs, measured in a process of its own."""

    seconds_per_sample: float
    """Of inference, in batches; the median over repetitions. A sample is an image, a pair with its target, a window."""
    peak_memory_mb: float
    """Of a training step, above the level before it."""
    batch_size: int
    """Of both."""


@dataclass(frozen=True)
class Contender:
    """A mixer's (or model's) runs, one a seed, and its figures. `scores` are the final weights' on held-out data."""

    name: str
    runs: tuple[Path, ...]
    metric: Metric
    scores: tuple[float, ...]
    parameters: int
    flops: int
    """For one sample, by formula."""
    training_seconds: float
    """Mean over the runs."""
    cost: Cost | None
    """None where it was not measured."""

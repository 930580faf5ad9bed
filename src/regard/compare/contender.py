"""A contender of a comparison: its runs, its scores, and its cost."""

from dataclasses import dataclass
from pathlib import Path

# Metrics that are the proportion of held-out samples for which something is true.
PROPORTIONS = ("accuracy", "exact_match")
WORDS = {"ap": "AP"}


@dataclass(frozen=True)
class Metric:
    """The metric that contenders are compared by: a task's main metric, under its name in `summary.json`."""

    name: str
    larger_is_better: bool

    @property
    def words(self) -> str:
        return WORDS.get(self.name, self.name.replace("_", " "))

    @property
    def is_proportion(self) -> bool:
        """Whether it is a proportion of the held-out samples, which is written as a percentage."""
        return self.name in PROPORTIONS

    def text(self, value: float) -> str:
        """92.8 (a percentage) or 1.913."""
        return f"{100 * value:.1f}" if self.is_proportion else f"{value:.3f}"


@dataclass(frozen=True)
class Cost:
    """What a trained model costs, measured in a process of its own."""

    seconds_per_sample: float
    """Time of inference in batches, the median of several. A sample is an image, a pair with its target, a window."""
    peak_memory_mb: float
    """Peak memory of a training step, above the level before it."""
    batch_size: int
    """The batch size of both measurements."""


@dataclass(frozen=True)
class Contender:
    """The runs of a mixer or model, one for each seed, and their figures."""

    name: str
    runs: tuple[Path, ...]
    metric: Metric
    scores: tuple[float, ...]
    """The metric of each run's final weights on held-out data."""
    parameters: int
    flops: int
    """For one sample, by formula."""
    training_seconds: float
    """Mean over the runs."""
    cost: Cost | None
    """None if it was not measured."""

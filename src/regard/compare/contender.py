"""A contender of a comparison: its runs, its scores, and its cost."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.compare.operations import Operations
from regard.compare.spread import Latency, Spread
from regard.errors import RegardError, one_line

# Metrics that are the proportion of held-out samples for which something is true.
PROPORTIONS = ("accuracy", "exact_match")
WORDS = {"ap": "AP", "map": "mAP"}
BUSY = 0.5
"""Cores; above that, times say as much of the other programs as of the contenders."""


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
    """What a trained model costs, measured in a process of its own. None is not measured."""

    seconds_per_sample: float
    """Time of inference in batches, the median of several. A sample is an image, a pair with its target, a window."""
    peak_memory_mb: float
    """Peak memory of a training step, above the level before it."""
    batch_size: int
    """The batch size of both measurements."""
    latency: Latency | None = None
    """Of one sample alone."""
    throughput: Spread | None = None
    """Samples per second of inference, in batches."""
    training: Spread | None = None
    """Samples per second of training steps alone, in batches."""
    inference_memory_mb: float | None = None
    """Peak memory of inference in batches, above the level before it."""
    energy_joules: float | None = None
    """For one sample of inference in batches, where the processor counts it."""
    flops: Operations | None = None
    """For one sample."""
    rounds: int = 0
    load: float | None = None
    """Cores that other programs kept busy just before."""

    @property
    def is_busy(self) -> bool:
        """Whether the machine had other work: then only ratios between contenders mean something."""
        return self.load is not None and self.load > BUSY


@dataclass(frozen=True)
class Failure:
    """A part of a comparison that did not end well; the comparison went on without it."""

    what: str
    """"conv, seed 1" for a training, "conv, cost", "conv, report"."""
    reason: str
    """One line."""

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def reason_of(error: Exception) -> str:
    """Why something failed, in one line: what RegardError says, or another error with its class."""
    return str(error) if isinstance(error, RegardError) else f"{type(error).__name__}: {one_line(error)}"


def number(value: Any) -> float:
    """A figure as a run's files hold it: null is what is not finite, which JSON does not have."""
    return math.nan if value is None else float(value)


@dataclass(frozen=True)
class Contender:
    """The runs of a mixer or model, one for each seed that ended, and their figures; None is not measured."""

    name: str
    runs: tuple[Path, ...]
    metric: Metric
    scores: tuple[float, ...]
    """The metric of each run's final weights on held-out data."""
    parameters: int | None
    flops: int | None
    """For one sample, by formula."""
    training_seconds: float | None
    """Mean over the runs."""
    cost: Cost | None
    failures: tuple[Failure, ...] = ()
    """What did not end well: trainings, or the measurement of cost. With no run left, there is no figure."""

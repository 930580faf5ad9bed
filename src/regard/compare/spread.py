"""Repeated measurements -> their median with its interval, and percentiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 6
"""Fewer measurements have no 95% interval of the median: both ends of all of them lie on one side in 6% of cases."""


@dataclass(frozen=True)
class Spread:
    """A median and its 95% interval."""

    median: float
    low: float
    high: float

    def inverse(self, scale: float | int = 1.0) -> "Spread":
        """Of scale / x: samples per second from seconds for `scale` samples."""
        return Spread(scale / self.median, scale / self.high, scale / self.low)

    def overlaps(self, other: "Spread") -> bool:
        """Whether the two cannot be told apart."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of one sample, in seconds, and the interval of their median over rounds."""

    p50: float
    p95: float
    p99: float
    low: float
    high: float


def median_of(values: Sequence[float]) -> Spread:
    """The median, and its 95% interval by order statistics: P(x_(k) <= median <= x_(n+1-k)) >= 0.95 whatever the noise.

    k is the largest rank with P(Binomial(n, 1/2) < k) <= 0.025. With fewer than `LEAST` values it is their range, which
    covers less.
    """
    ordered = sorted(values)
    count, below, rank = len(ordered), 0.0, 0
    while (below := below + math.comb(count, rank) / 2**count) <= 0.025:
        rank += 1
    rank = max(rank, 1)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return Spread(middle, ordered[rank - 1], ordered[count - rank])


def latency_of(rounds: Sequence[Sequence[float]]) -> Latency:
    """From the times of each round. Calls of one round are alike, so the interval is that of the rounds' medians."""
    ordered = sorted(time for one in rounds for time in one)
    over = median_of([median_of(one).median for one in rounds])
    p50, p95, p99 = (_percentile(ordered, q) for q in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, min(over.low, p50), max(over.high, p50))


def _percentile(ordered: Sequence[float], q: float | int) -> float:
    """Linear between order statistics, as numpy's."""
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])

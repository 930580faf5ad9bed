"""Which of several contenders is the fastest, from times that were taken in turns; or that it cannot be told."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from regard.errors import RegardError

LEVEL = 0.95
LEAST_TURNS = 6
"""With fewer, not even the whole range of ratios holds their median with 95%."""
MARGIN = 1.02
"""Two processes of one program differ by up to two percent as long as they live, by where their memory lies. Turns do
not average that out, so that a smaller difference is none."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one contender is as another: the median over the turns, with an interval of 95%."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """The contender of the least median time, and all that cannot be told from it; that one first."""

    alike: tuple[str, ...]

    @property
    def use(self) -> str | None:
        """The fastest; None where that cannot be told."""
        return self.alike[0] if len(self.alike) == 1 else None


def decide(turns: Mapping[str, Sequence[float]]) -> Verdict:
    """turns: the seconds of each contender in each turn; in one turn all ran one after the other.

    The one of the least median is told from another where the whole interval of their ratio is beyond `MARGIN`. Of
    several contenders it must be told from each, so that more of them make no more false answers.
    RegardError for fewer turns than six, for contenders of different turns, and for times that are not positive.
    """
    best = min(turns, key=lambda name: float(np.median(turns[name])))
    others = [name for name in turns if name != best]
    near = [name for name in others if ratio(turns[best], turns[name]).low <= MARGIN]
    return Verdict((best, *near))


def ratio(own: Sequence[float], other: Sequence[float]) -> Ratio:
    """How many times as fast `own` is as `other`, by pairs of one turn.

    The interval is that of the ranks of a median (the sign test's), which asks nothing of how times are distributed.
    Turns that are near in time are alike: it is as wide as that of n (1 - r) / (1 + r) turns, where r is how much
    neighbours correlate. Where those are too few, it is the whole range of the turns.
    """
    first, second = (np.asarray(seconds, dtype=float) for seconds in (own, other))
    if first.shape != second.shape or first.ndim != 1 or len(first) < LEAST_TURNS:
        raise RegardError(
            f"turns: {len(first)} and {len(second)}; there must be as many of each, at least {LEAST_TURNS}"
        )
    if not (np.isfinite(first) & np.isfinite(second) & (first > 0) & (second > 0)).all():
        raise RegardError("turns: times must be positive numbers of seconds")
    ratios = second / first
    n = len(ratios)
    correlation = _neighbours(np.log(ratios))
    independent = n * (1 - correlation) / (1 + correlation)
    rank = max(math.floor(n * (0.5 - norm.ppf(0.5 + LEVEL / 2) / (2 * math.sqrt(independent)))), 0)
    ordered = np.sort(ratios)
    return Ratio(float(np.median(ratios)), float(ordered[rank]), float(ordered[n - 1 - rank]))


def _neighbours(values: np.ndarray) -> float:
    """How much each value correlates with the next, from 0 to 0.95.

    Outliers are moved in to three times the median deviation, since one turn may take ten times as long as the others.
    A short row seems to correlate less than it does, by about (1 + 4 r) / n (Kendall 1954), which is added.
    """
    n, away = len(values), values - np.median(values)
    most = 3 * np.median(np.abs(away))
    if not most > 0:  # most are the same
        return 0.0
    away = np.clip(away, -most, most)
    r = float((away[:-1] * away[1:]).sum() / (away**2).sum())
    return min(max((n * r + 1) / (n - 4), 0.0), 0.95)

"""What a mixer costs at any number of tokens, from timings at some: numpy and scipy alone, no files, no torch.

    t(N) = a + b N + c N² + e N log N,    a, b, c, e >= 0

by non-negative least squares on relative residuals, so that a small N counts as much as a large one. A power law
t = k N^s would not do: it fits the operations of attention itself, 8 d² N + 4 d N², with s = 1.7 over 49 to 50,176
tokens, while their slope at the end is 1.99.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_SIZES = 5
"""One more than the model has terms: with fewer, nothing says how far off it is."""
PRIOR = 4
"""Degrees of freedom that the spread of repeated timings counts for, beside the residuals."""
DRAWS = 400
LEVEL = 0.95

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CostModel:
    """A fitted cost, and how sure it is."""

    terms: Numbers
    """a, b, c, e: seconds, seconds a token, ..."""
    draws: Numbers
    """(draws, 4): the same, fitted to timings that were drawn again."""
    free: Numbers
    """The terms of least squares without bounds, and below their covariance: the bounds shift a fit to one side, so
    that its draws miss a crossover in a quarter of simulations."""
    covariance: Numbers
    freedom: float
    """Degrees of freedom of the covariance."""
    smallest: int
    largest: int
    """The tokens of the timings."""

    def at(self, tokens: Any) -> Numbers:
        """Seconds at each number of tokens."""
        return _features(tokens) @ self.terms

    def band(self, tokens: Any) -> tuple[Numbers, Numbers]:
        """The 95% interval of the seconds at each number of tokens, also beyond those that were measured."""
        low, high = _interval(self.draws @ _features(tokens).T)
        return np.minimum(low, self.at(tokens)), np.maximum(high, self.at(tokens))

    def slope(self) -> tuple[float, float, float]:
        """d log t / d log N at the largest number of tokens that was measured, and its 95% interval."""
        number = float(self.largest)
        growth = np.array([0, number, 2 * number**2, number * (math.log(number) + 1)])
        low, high = _interval((self.draws @ growth) / (self.draws @ _features(number)))
        value = float(self.terms @ growth / self.at(number))
        return value, min(float(low), value), max(float(high), value)


def fit_cost(timings: Mapping[int, Sequence[float]], *, seed: int = 0) -> CostModel | None:
    """The model of timings, seconds for each number of tokens; None for fewer than `LEAST_SIZES` numbers.

    The relative error s of a median is taken from the residuals of the free fit, moderated by the spread of repeated
    timings. The draws are a parametric bootstrap: medians around the fit, with an s that is itself drawn (a scaled
    inverse χ²), since a few sizes tell it roughly.
    """
    from scipy.optimize import nnls

    tokens = np.array(sorted(size for size, seconds in timings.items() if len(seconds)), dtype=float)
    if len(tokens) < LEAST_SIZES:
        return None
    measured = np.array([np.median(timings[int(size)]) for size in tokens])
    features = _features(tokens)
    scale = features.max(axis=0)  # N² is ten digits larger than 1
    relative = features / scale / measured[:, None]
    ones = np.ones_like(measured)
    terms = np.asarray(nnls(relative, ones)[0], dtype=float)

    free = np.linalg.lstsq(relative, ones, rcond=None)[0]
    freedom = float(len(tokens) - features.shape[1])
    variance = float(((relative @ free - 1) ** 2).sum()) / freedom
    repeated = [seconds for seconds in timings.values() if len(seconds) > 1]
    if repeated:
        own = float(np.mean([_variance_of_median(seconds) for seconds in repeated]))
        variance = (freedom * variance + PRIOR * own) / (freedom + PRIOR)
        freedom += PRIOR
    covariance = variance * np.linalg.inv(relative.T @ relative)

    random = np.random.default_rng(seed)
    errors = np.sqrt(variance * freedom / random.chisquare(freedom, DRAWS))
    # A time is positive, however large the noise.
    noise = np.maximum(1 + errors[:, None] * random.standard_normal((DRAWS, len(tokens))), 0.05)
    draws = _bounded(features / scale, (features / scale @ terms) * noise)
    return CostModel(
        terms / scale,
        draws / scale,
        free / scale,
        covariance / np.outer(scale, scale),
        freedom,
        int(tokens[0]),
        int(tokens[-1]),
    )


@dataclass(frozen=True)
class Crossover:
    """From how many tokens on a mixer costs less than attention."""

    low: float | None
    """Up to here attention costs less; None where that is not known of any number of tokens."""
    high: float | None
    """From here on the mixer does; None where that is not known of any number of tokens."""
    words: str
    """"between 784 and 1,460 tokens", "always", "never up to 50,176 tokens"."""


def crossover(attention: CostModel, mixer: CostModel) -> Crossover:
    """Where the band of t_attention - t_mixer excludes 0, over the numbers of tokens at which both were measured.

    The band is d ± t_ν √(x Var x) with the free fits' terms, x = (1, N, N², N log N), and ν after Welch.
    """
    from scipy import stats

    first, last = max(attention.smallest, mixer.smallest), min(attention.largest, mixer.largest)
    tokens = np.geomspace(first, last, 600)
    features = _features(tokens)
    difference = features @ (attention.free - mixer.free)
    ours, other = (((features @ one.covariance) * features).sum(axis=1) for one in (attention, mixer))
    variance = np.maximum(ours + other, np.finfo(float).tiny)
    freedom = variance**2 / (ours**2 / attention.freedom + other**2 / mixer.freedom + np.finfo(float).tiny)
    reach = stats.t.ppf((1 + LEVEL) / 2, np.maximum(freedom, 1)) * np.sqrt(variance)
    low, high = difference - reach, difference + reach
    sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))  # 1: attention costs more
    if sign[-1] == 0:
        known = tokens[sign != 0]
        rest = "the timings do not tell" + (f" beyond {_rounded(known[-1], up=False)} tokens" if len(known) else "")
        return Crossover(float(known[-1]) if len(known) and sign[sign != 0][-1] < 0 else None, None, rest)
    others = np.flatnonzero(sign != sign[-1])
    differs = np.flatnonzero(sign == -sign[-1])
    if sign[-1] < 0 and not len(differs):
        return Crossover(float(tokens[-1]), None, f"never up to {last:,} tokens")
    if not len(others):
        return Crossover(None, float(tokens[0]), "always")
    after = tokens[others[-1] + 1]  # from here to the end the sign is that of the end
    before = tokens[differs[-1]] if len(differs) else None
    if sign[-1] < 0:
        words = f"up to {_rounded(before, up=False)} tokens, and never from {_rounded(after, up=True)} on"
        return Crossover(float(after), None, words)
    if before is None:
        return Crossover(None, float(after), f"at {_rounded(after, up=True)} tokens at the latest")
    words = f"between {_rounded(before, up=False)} and {_rounded(after, up=True)} tokens"
    return Crossover(float(before), float(after), words)


def _features(tokens: Any) -> Numbers:
    """(len(tokens), 4): 1, N, N², N log N."""
    number = np.asarray(tokens, dtype=float)
    return np.stack([np.ones_like(number), number, number**2, number * np.log(number)], axis=-1)


def _bounded(features: Numbers, seconds: Numbers) -> Numbers:
    """Terms of non-negative least squares on relative residuals for each row of `seconds`, (draws, len(tokens)).

    Few terms have few sets of those that are not 0: the best one whose free fit has no negative term is the solution.
    """
    relative = features / seconds[..., None]
    size = np.linalg.norm(relative, axis=1, keepdims=True)
    relative = relative / size
    products, with_ones = np.swapaxes(relative, 1, 2) @ relative, relative.sum(axis=1)
    best, found = np.full(len(seconds), -1.0), np.zeros_like(with_ones)
    count = features.shape[1]
    for chosen in (list(some) for number in range(1, count + 1) for some in combinations(range(count), number)):
        right = with_ones[:, chosen]
        terms = np.linalg.solve(products[:, chosen][:, :, chosen], right[..., None])[..., 0]
        explained = np.where((terms >= 0).all(axis=1), (terms * right).sum(axis=1), -1.0)
        better = explained > best
        best[better] = explained[better]
        found[better] = 0
        for place, term in enumerate(chosen):
            found[better, term] = terms[better, place]
    return found / size[:, 0]


def _variance_of_median(seconds: Sequence[float]) -> float:
    """Relative, as of a normal distribution."""
    values = np.asarray(seconds, dtype=float)
    return float(values.var(ddof=1) * math.pi / 2 / len(values) / values.mean() ** 2)


def _interval(drawn: Numbers) -> tuple[Any, Any]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def _rounded(tokens: Any, *, up: bool) -> str:
    """In three digits, away from the other end: 1,460."""
    unit = 10 ** max(0, math.floor(math.log10(tokens)) - 2)
    return f"{(math.ceil if up else math.floor)(round(tokens / unit, 6)) * unit:,}"

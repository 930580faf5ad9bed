"""Verdicts on contenders that were trained with several seeds and tested on the same images.

X[c, r, i] is the score of contender c, run r of R, test image i of n: 0 or 1, nats, or pseudo-values of AP. Seeds are
nested in contenders, images are crossed with them, and both are samples: a verdict is on new seeds and new images
(Obuchowski and Rockette 1995). With x̄ for means over the indices left out:

    S_c  = n Σ_r (x̄_cr − x̄_c)² / (R−1)                                seeds
    E_c  = Σ_ri (x_cri − x̄_cr − x̄_ci + x̄_c)² / ((R−1)(n−1))           interaction of seeds and images
    F    = max(1, median_c(S_c / E_c) / DIVISOR med(χ²_{R−1} / (R−1)))  how much seeds add, common to all
    s_c  = max(E_c, (d F E_c + (R−1) S_c) / (d + R−1))                 seeds, moderated by what is common (Smyth 2004),
                                                                       d + R−1 degrees of freedom; of E (R−1)(n−1)
    I_ab = Σ_i (d̄_i − d̄)² / (n−1),  d̄_i = x̄_ai − x̄_bi                images
    V    = (s_a/R_a + s_b/R_b + max(I_ab − E_a/R_a − E_b/R_b, 0)) / n  variance of the difference d̄
    d̄ ± t_ν √V,  t_ν² V n = t_s² (s_a/R_a + s_b/R_b) + t_i² max(...)   its interval, each part with its own t: s after
                                                                       Satterthwaite, i = n − 1

numpy and scipy only: no files, no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, chdtri, stdtr, stdtridf, stdtrit

from regard.compare.simulation import simulate
from regard.errors import RegardError

__all__ = ["Interval", "Pair", "Verdict", "Verdicts", "fewest_images", "holm", "interval", "simulate", "verdicts"]

Array = NDArray[np.float64]
Index = NDArray[np.int_] | list[int]
Verdict = Literal["better", "worse", "as good", "cannot tell"]
TURNED: dict[Verdict, Verdict] = {
    "better": "worse",
    "worse": "better",
    "as good": "as good",
    "cannot tell": "cannot tell",
}
CONFIDENCE = 0.95
# Settled by benchmarks/verdicts.py, as `moderation` is.
DIVISOR = 0.85


def moderation(contenders: int) -> float:
    """d: how many degrees of freedom the common part counts for. Two contenders have nothing in common to borrow."""
    return min(2.0, (contenders - 2) / 3) if contenders > 2 else 0.0


@dataclass(frozen=True)
class Interval:
    """The mean of one contender and its interval, on new seeds and new images; in the units of X."""

    mean: float
    low: float
    high: float
    df: float
    """Degrees of freedom of Student's t."""
    seed_part: float
    """Standard error of the mean that seeds add; NaN where there is one run. So the next two."""
    image_part: float
    interaction: float
    reason: str = ""
    """What the interval does not cover: "one seed: ..."; "" where it covers seeds and images."""


@dataclass(frozen=True)
class Pair:
    """Contender a against contender b; the difference is a − b in the units of X, the verdict says what a is."""

    a: int
    b: int
    difference: float
    low: float
    high: float
    se: float
    """√V."""
    df: float
    p: float
    """Of no difference, two-sided; NaN where there is no verdict on contenders (one seed, no results per image)."""
    p_holm: float
    """The same after Holm, over all pairs: at most alpha for "better" and "worse"."""
    p_same: float
    """Of a difference of the margin or more (two one-sided tests), after Holm: at most alpha for "as good"."""
    p_margin: float
    """Of a difference within the margin, after Holm: at most alpha where one is shown to be more than it worse."""
    verdict: Verdict
    reason: str
    """Why it cannot tell; with one seed, whether the two trained models differ. "" where there is nothing to add."""
    p_outperform: float
    """Probability that a run of a beats a run of b on these images, a tie counted as half (Bouthillier et al. 2021)."""
    seed_variance: float
    """V = seed_variance / R + interaction / (R n) + image_variance / n for R runs of each, so that one can plan."""
    interaction: float
    image_variance: float


@dataclass(frozen=True)
class Verdicts:
    """All pairs (a, b) with a < b, in order, and what they were made of."""

    pairs: tuple[Pair, ...]
    margin: float
    alpha: float
    runs: tuple[int, ...]
    """Of each contender."""
    means: tuple[float, ...]
    images: int
    """0: no results per image."""
    larger_is_better: bool = True
    proportion: bool = False
    """All scores are 0 or 1."""

    def between(self, a: int, b: int) -> Pair:
        """The pair as seen from a: for a > b the stored one with its signs and its verdict turned."""
        pair = next(pair for pair in self.pairs if {pair.a, pair.b} == {a, b})
        return pair if pair.a == a else _turned(pair)


def _turned(pair: Pair) -> Pair:
    return replace(
        pair,
        a=pair.b,
        b=pair.a,
        difference=-pair.difference,
        low=-pair.high,
        high=-pair.low,
        verdict=TURNED[pair.verdict],
        p_outperform=1 - pair.p_outperform,
    )


def verdicts(
    X: ArrayLike | Sequence[ArrayLike], margin: float | int, alpha: float | int = 0.05, *, larger_is_better: bool = True
) -> Verdicts:
    """Whether each contender is better or worse than, or as good as, each other, with family-wise error alpha.

    X (contenders, runs, images), or a sequence of (runs_c, images) where contenders have different numbers of runs; or
    (contenders, runs), scores without results per image, which carry no verdict on new images. `margin` in the units
    of X (0.01 is one point of accuracy). Holm's correction is over all pairs, for each kind of statement:

        better, worse   no difference is rejected, whatever its size
        as good         otherwise, if a difference of the margin or more is rejected (two one-sided tests)
        cannot tell     otherwise; always with one seed, and with too few images, with the reason

    The intervals are of 95% each, whatever alpha is. RegardError for fewer than two contenders, other shapes, numbers
    that are not finite, a margin below 0, and an alpha that is not between 0 and 1.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise RegardError(f"verdicts: margin must be a number from 0, got {margin}")
    if not 0 < alpha < 1:
        raise RegardError(f"verdicts: alpha must lie between 0 and 1, got {alpha}")
    scores, per_image = _read(X, "verdicts")
    if len(scores) < 2:
        raise RegardError(f"verdicts: at least two contenders are needed, got {len(scores)}")
    parts = _Parts(scores, per_image)
    a, b = np.array(list(combinations(range(len(scores)), 2)), dtype=int).T
    difference = parts.mean[a] - parts.mean[b]
    image = parts.image_variance(a, b)
    variance, df = parts.total([a, b], image)
    se, width = np.sqrt(variance), stdtrit(df, 0.5 + CONFIDENCE / 2) * np.sqrt(variance)

    fewest = fewest_images(len(a), alpha)
    reasons = [_reason(scores, parts, i, j, fewest, len(a)) for i, j in combinations(range(len(scores)), 2)]
    tested = np.array([not reason for reason in reasons])
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.abs(difference)
        above, below = _tail(df, (size - margin) / se), _tail(df, (size + margin) / se)
        p = np.where(tested, 2 * _tail(df, size / se), np.nan)
        p_same = holm(np.where(tested, _tail(df, (margin - size) / se), np.nan))
        p_margin = holm(np.where(tested, np.minimum(above + below, 1.0), np.nan))
    p_holm = holm(p)
    runs = [one.mean(1) if larger_is_better else -one.mean(1) for one in scores]
    pairs = []
    for k, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        verdict: Verdict = "cannot tell"
        if p_holm[k] <= alpha:
            verdict = "better" if (difference[k] > 0) == larger_is_better else "worse"
        elif p_same[k] <= alpha:
            verdict = "as good"
        pairs.append(
            Pair(
                a=i,
                b=j,
                difference=float(difference[k]),
                low=float(difference[k] - width[k]),
                high=float(difference[k] + width[k]),
                se=float(se[k]),
                df=float(df[k]),
                p=float(p[k]),
                p_holm=float(p_holm[k]),
                p_same=float(p_same[k]),
                p_margin=float(p_margin[k]),
                verdict=verdict,
                reason=reasons[k],
                p_outperform=float(0.5 + 0.5 * np.sign(runs[i][:, None] - runs[j][None]).mean()),
                seed_variance=float((parts.seeds[[i, j]] - parts.interaction[[i, j]]).sum() / parts.images),
                interaction=float(parts.interaction[[i, j]].sum()),
                image_variance=float(image[k]),
            )
        )
    counts = tuple(len(one) for one in scores)
    images = parts.images if per_image else 0
    means = tuple(parts.mean.tolist())
    return Verdicts(tuple(pairs), margin, alpha, counts, means, images, larger_is_better, parts.binary)


def interval(X: ArrayLike | Sequence[Any], confidence: float | int = CONFIDENCE, *, bounded: bool = False) -> Any:
    """The interval of a contender's mean on new seeds and new images.

    X (runs, images) -> Interval; (contenders, runs, images), or a sequence of (runs_c, images) -> a tuple of them.
    Of proportions it is Wilson's, with the number of images that would give the same variance: symmetric on the logit
    scale, within 0 and 1, and never of no width. bounded: likewise for scores that are not 0 or 1 themselves but whose
    mean lies between, such as the pseudo-values of an average precision.
    """
    single = _is_array(X, 2)
    scores, _ = _read([X] if single else X, "interval")
    found = [_interval(_Parts([one], True), confidence, bounded) for one in scores]
    return found[0] if single else tuple(found)


def _interval(parts: "_Parts", confidence: float | int, bounded: bool) -> Interval:
    mean, runs, n, image = float(parts.mean[0]), parts.runs[0], parts.images, float(parts.image_variance([0])[0])
    variance, df = (parts.seeds[0] / runs + image) / n, float(parts.total([[0]], np.array([image]))[1][0])
    t = float(stdtrit(df, 0.5 + confidence / 2))
    if parts.binary or (bounded and 0 < mean < 1):
        size = mean * (1 - mean) / variance if variance else float(n)  # of a sample with this variance
        middle, half = mean + t * t / (2 * size), t * math.sqrt(mean * (1 - mean) / size + t * t / (4 * size * size))
        low, high = (middle - half) / (1 + t * t / size), (middle + half) / (1 + t * t / size)
        low, high = (0.0 if mean == 0 else low), (1.0 if mean == 1 else high)
    else:
        low, high = mean - t * math.sqrt(variance), mean + t * math.sqrt(variance)
        low, high = (max(low, 0.0), min(high, 1.0)) if bounded else (low, high)
    shares = [(parts.seeds[0] - parts.interaction[0]) / (runs * n), image / n, parts.interaction[0] / (runs * n)]
    seed_part, image_part, interaction = (math.sqrt(share) if runs > 1 else math.nan for share in shares)
    reason = "" if runs > 1 else "one seed: the interval is of this trained model on new images, not of other seeds"
    return Interval(mean, float(low), float(high), df, seed_part, image_part, interaction, reason)


class _Parts:
    """Means and variances of each contender, all per run and image: S, E, s and the covariance of images."""

    def __init__(self, scores: list[Array], per_image: bool) -> None:
        self.images = n = scores[0].shape[1]
        self.runs = np.array([len(one) for one in scores])
        self.per_image = per_image
        self.binary = per_image and all(((one == 0) | (one == 1)).all() for one in scores)
        of_images = np.stack([one.mean(0) for one in scores])
        self.mean = of_images.mean(1)
        free = np.maximum(self.runs - 1, 1)
        S = np.array([n * np.square(one.mean(1) - m).sum() for one, m in zip(scores, self.mean, strict=True)]) / free
        E = np.zeros(len(scores))
        if n > 1:
            rest = [one - one.mean(1, keepdims=True) - i + i.mean() for one, i in zip(scores, of_images, strict=True)]
            E = np.array([np.vdot(one, one) for one in rest]) / (free * (n - 1))
        self.covariance = np.atleast_2d(np.cov(of_images)) if n > 1 else np.zeros((len(scores),) * 2)
        d = moderation(len(scores)) if per_image else 0.0
        moderated = (d * _common(S, E, self.runs) * E + free * S) / (d + free)
        self.seeds, self.interaction = np.maximum(E, moderated), E
        self.df = np.where(moderated < E, free * max(n - 1, 1), d + free)

    def image_variance(self, a: Index, b: Index | None = None) -> Array:
        """Variance between images of the difference a − b, or of a alone, without what is left of the runs in it."""
        raw, noise = self.covariance[a, a], self.interaction[a] / self.runs[a]
        if b is not None:
            raw = raw + self.covariance[b, b] - 2 * self.covariance[a, b]
            noise = noise + self.interaction[b] / self.runs[b]
        return np.maximum(raw - noise, 0.0)

    def total(self, contenders: Sequence[Index], image: Array) -> tuple[Array, Array]:
        """V and its degrees of freedom; V is at least that of two images that tell the two apart, one each way."""
        seeds = [self.seeds[c] / self.runs[c] for c in contenders]
        spread = sum(part**2 / self.df[c] for part, c in zip(seeds, contenders, strict=True))
        of_seeds = np.divide(sum(seeds) ** 2, spread, out=np.ones_like(image), where=np.asarray(spread) > 0)
        floor = 2 / self.images**2 if self.binary else 0.0
        df = joint_df(sum(seeds), of_seeds, image, max(self.images - 1, 1))
        return np.maximum((sum(seeds) + image) / self.images, floor), df


def joint_df(seeds: Any, of_seeds: Any, image: Any, of_images: float | int) -> Any:
    """ν with t_ν² (seeds + image) = t² seeds + t² image, each part with the t of its own degrees of freedom, at 95%.

    Satterthwaite's ν is larger where few seeds agree by chance, and has verdicts that are wrong more often.
    """
    q = 0.5 + CONFIDENCE / 2
    total = np.maximum(seeds + image, np.finfo(float).tiny)
    t = np.sqrt((stdtrit(of_seeds, q) ** 2 * seeds + stdtrit(of_images, q) ** 2 * image) / total)
    return np.where(seeds + image > 0, stdtridf(q, np.maximum(t, stdtrit(1e6, q))), of_images)


def _common(S: Array, E: Array, runs: NDArray[np.int_]) -> float:
    """F, from the contenders of which it can be known."""
    known = (runs > 1) & (E > 0)
    if not known.any():
        return 1.0
    free = runs[known] - 1.0
    return max(1.0, float(np.median(S[known] / E[known] * free / chdtri(free, 0.5)) / DIVISOR))


def fewest_images(pairs: int, alpha: float | int) -> int:
    """The fewest images with which any verdict on `pairs` pairs can be had.

    A difference that is on every image, the clearest there is, has p = 2 · 2^−n in a sign test.
    """
    return math.ceil(1 + math.log2(pairs / alpha))


def _reason(scores: list[Array], parts: _Parts, a: int, b: int, fewest: int, pairs: int) -> str:
    """Why there can be no verdict on a pair; "" where there can be one."""
    if not parts.per_image:
        return (
            "no results per image: seeds alone say what other seeds would give on these test samples, and nothing "
            "about others"
        )
    if parts.images < fewest:
        kind = "a pair" if pairs == 1 else f"{pairs} pairs"
        return f"{parts.images} test images: a verdict on {kind} needs {fewest} at least"
    if min(parts.runs[a], parts.runs[b]) > 1:
        return ""
    if max(parts.runs[a], parts.runs[b]) > 1:
        return "one seed of one of them: how much its seeds differ is not known"
    p, test = _of_models(scores[a][0], scores[b][0], binary=parts.binary)
    found = "differ" if p <= 1 - CONFIDENCE else "are not shown to differ"
    return f"one seed: these two trained models {found} ({test}, p = {p:.2g}); it says nothing about other seeds"


def _of_models(a: Array, b: Array, *, binary: bool) -> tuple[float, str]:
    """The p-value of no difference between two trained models on new images, and the name of the test."""
    if binary:
        wins, losses = int((a > b).sum()), int((a < b).sum())
        tie = wins + losses == 0
        return (
            1.0 if tie else min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))
        ), "McNemar's exact test"
    d = a - b
    se = float(d.std(ddof=1)) / math.sqrt(len(d))
    return (2 * float(_tail(len(d) - 1, abs(float(d.mean())) / se)) if se else float(d.mean() == 0)), "paired t-test"


def holm(p: Array) -> Array:
    """Holm's adjusted p-values: the k-th smallest of m times m − k + 1, never falling. NaN is no test."""
    found, order = np.full(len(p), np.nan), np.argsort(p)
    m = int((~np.isnan(p)).sum())  # NaN is sorted to the end
    found[order[:m]] = np.minimum(np.maximum.accumulate(p[order[:m]] * np.arange(m, 0, -1)), 1.0)
    return found


def _tail(df: Any, t: Any) -> Any:
    """P(T_df > t); a t of 0/0, no difference without any spread, counts as 0."""
    return stdtr(df, -np.where(np.isnan(t), 0.0, t))


def _is_array(X: Any, dimensions: int) -> bool:
    try:
        return np.ndim(X) == dimensions
    except ValueError:  # runs of different numbers
        return False


def _read(X: Any, what: str) -> tuple[list[Array], bool]:
    """The scores of each contender, (runs_c, images), and whether they are per image: otherwise (runs_c, 1)."""
    try:
        scores = [np.asarray(one, dtype=np.float64) for one in X]
    except (TypeError, ValueError):
        raise RegardError(f"{what}: scores must be numbers, (runs, images) of each contender") from None
    per_image = not all(one.ndim == 1 for one in scores)
    if not per_image:
        scores = [one[:, None] for one in scores]
    shapes = sorted({one.shape[1:] for one in scores})
    if len(shapes) > 1:
        raise RegardError(f"{what}: all contenders need the same test images, got {' and '.join(map(str, shapes))}")
    if any(one.ndim != 2 or 0 in one.shape for one in scores):
        got = ", ".join(str(one.shape) for one in scores[:3])
        raise RegardError(f"{what}: scores must be (runs, images) of each contender, got {got}")
    if not all(np.isfinite(one).all() for one in scores):
        raise RegardError(f"{what}: scores must be finite numbers")
    return scores, per_image

"""What would tell: how many seeds, or how many test images, would decide a pair if its difference stays as it is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from regard.compare.inference import Pair, Verdicts, fewest_images, joint_df, moderation
from regard.compare.looks import LOOKS

MOST_SEEDS = 100
MOST_IMAGES = 10_000_000


@dataclass(frozen=True)
class Words:
    """How differences and samples are written: a point is 0.01 of an accuracy."""

    point: float = 0.01
    points: str = "points"
    unit: str = "images"

    def amount(self, value: float | int) -> str:
        """ "1 point", "0.9 points"."""
        text = f"{value / self.point:.2g}" if abs(value) < 10 * self.point else f"{value / self.point:.0f}"
        return f"{text} {self.points.removesuffix('s') if text == '1' else self.points}"


@dataclass(frozen=True)
class Need:
    """What would decide a pair, each alone; None: no number of it would."""

    seeds: int | None
    """In all, of each of the two."""
    images: int | None
    """Test images in all, with the seeds that there are."""
    minutes: float | None
    """Of the further seeds; None where it is not known."""
    words: str
    """"3 more seeds (about 4 minutes) or 1,900 images would decide"."""


def needs(
    found: Verdicts,
    a: int,
    b: int,
    *,
    minutes_per_seed: Sequence[float | None] = (),
    point: float = 0.01,
    points: str = "points",
    unit: str = "images",
    for_rule: bool = False,
) -> Need | None:
    """What would tell a and b apart, or that they are as good; None where there is a verdict.

    minutes_per_seed: of one training of each contender; empty where it is not known. point: one point in the units of
    X, and its word, for the sentence. for_rule: what would decide whether b is more than the margin better than a.
    """
    if not for_rule and found.between(a, b).verdict != "cannot tell":
        return None
    words, pair, runs = Words(point, points, unit), found.between(a, b), min(found.runs[a], found.runs[b])
    why = _not_to_be_planned(found, pair, words)
    if why:
        return Need(None, None, None, why)
    decided = _rule(found, pair) if for_rule else _verdict(found, pair)
    seeds = next((r for r in range(runs + 1, MOST_SEEDS + 1) if decided(r, found.images)), None)
    images = _first_images(lambda n: decided(runs, n), found.images)
    minutes = None
    if seeds is not None and len(minutes_per_seed) == len(found.runs):
        each = [minutes_per_seed[c] for c in (a, b)]
        if None not in each:
            minutes = sum(m * max(seeds - found.runs[c], 0) for m, c in zip(each, (a, b), strict=True) if m is not None)
    return Need(seeds, images, minutes, _sentence(found, pair, runs, seeds, images, minutes, decided, words))


def _not_to_be_planned(found: Verdicts, pair: Pair, words: Words) -> str:
    if not found.images:
        return f"results per image would tell how much other {words.unit} change"
    if found.images < (few := fewest_images(len(found.pairs), found.alpha)):
        return f"at least {few} test {words.unit} are needed"
    if min(found.runs[pair.a], found.runs[pair.b]) < 2:
        return "more seeds would tell, 3 or more"
    return ""


Decided = Callable[[int, int], bool]


def _verdict(found: Verdicts, pair: Pair) -> Decided:
    """Whether R seeds and n images would give a verdict, among the pairs that are still open."""
    level = found.alpha / max(sum(one.verdict == "cannot tell" for one in found.pairs), 1)
    size = abs(pair.difference)

    def decided(runs: int, images: int) -> bool:
        se, df = _planned(found, pair, runs, images)
        return size >= stdtrit(df, 1 - level / 2) * se or found.margin - size >= stdtrit(df, 1 - level) * se

    return decided


def _rule(found: Verdicts, pair: Pair) -> Decided:
    """Whether they would tell that b is, or is not, more than the margin better than a."""
    lead = (pair.difference if found.larger_is_better else -pair.difference) + found.margin
    others = len(found.runs) - 1

    def decided(runs: int, images: int) -> bool:
        se, df = _planned(found, pair, runs, images)
        level = found.alpha / others if lead > 0 else found.alpha / len(found.pairs)
        return abs(lead) >= stdtrit(df, 1 - level) * se

    return decided


def _planned(found: Verdicts, pair: Pair, runs: int, images: int) -> tuple[float, float]:
    """The standard error of the difference with so many seeds of each and images, and its degrees of freedom."""
    seeds, image = (pair.seed_variance + pair.interaction / images) / runs, pair.image_variance / images
    variance = max(seeds + image, 2 / images**2 if found.proportion else 0.0)
    of_seeds = (
        2 * (runs - 1) * (images - 1) if pair.seed_variance == 0 else 2 * (runs - 1 + moderation(len(found.runs)))
    )
    return math.sqrt(variance), float(joint_df(seeds, of_seeds, image, images - 1))


def _first_images(decided: Callable[[int], bool], images: int) -> int | None:
    """The fewest images that decide, more than there are, rounded up to two digits."""
    high = images
    while not decided(high):
        if high > MOST_IMAGES:
            return None
        high *= 2
    low = max(high // 2, images)
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    digits = 10 ** max(len(str(high)) - 2, 0)
    return max(-(-high // digits) * digits, images + 1)


def _sentence(
    found: Verdicts,
    pair: Pair,
    runs: int,
    seeds: int | None,
    images: int | None,
    minutes: float | None,
    decided: Decided,
    words: Words,
) -> str:
    if seeds is not None:
        more = seeds - runs
        text = f"{more} more seed{'s' if more > 1 else ''}" + (f" (about {_time(minutes)})" if minutes else "")
        return f"{text} or {images:,} {words.unit} would decide" if images else f"{text} would decide"
    alone = f"no number of seeds: the {found.images:,} test {words.unit} alone leave ± " + words.amount(
        _planned(found, pair, 10**6, found.images)[0] * 1.96
    )
    if images is not None:
        return f"{alone}; about {images:,} would do"
    both = _first_images(lambda n: decided(LOOKS[-1], n), found.images)
    return (
        f"{alone}; about {both:,} with {LOOKS[-1]} seeds would do"
        if both
        else f"{alone}; images alone would not do, either"
    )


def _time(minutes: float | int) -> str:
    if minutes < 1.5:
        return "1 minute" if minutes > 0.75 else f"{max(round(60 * minutes), 1)} seconds"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"

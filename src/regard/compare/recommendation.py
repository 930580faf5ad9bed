"""Which contender to take, by rule; and what would tell where the rule cannot.

    in       the lower bound of (c − the best of the others) is at least −margin (Hsu; one-sided, alpha / (C − 1) each)
    out      shown to be more than the margin worse than another (Holm over all pairs)
    unknown  otherwise

The first in the order of cost that is *in*, while all cheaper ones are *out*, is recommended. Where the intervals of
two costs overlap, neither is cheaper: it is a tie, which the sentence says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtr

from regard.compare.inference import Verdicts
from regard.compare.looks import dropped
from regard.compare.needs import Need, Words, needs

__all__ = ["RULE", "Need", "Price", "Recommendation", "State", "needs", "recommend", "states"]

State = Literal["in", "out", "unknown"]
RULE = (
    "In the order of cost, the first of which it is known that none of the others is more than the margin better, "
    "while each cheaper one is known to be more than the margin worse than another"
)


@dataclass(frozen=True)
class Price:
    """What a contender costs; smaller is cheaper (for throughput give seconds an image)."""

    value: float
    low: float
    high: float
    text: str
    """How it is written: "87 µs an image"."""


@dataclass(frozen=True)
class Recommendation:
    index: int | None
    """Of the recommended contender; None: cannot tell."""
    sentence: str
    rule: str
    ties: tuple[int, ...] = ()
    """Contenders that are not out and whose costs cannot be told apart from the recommended one's."""
    need: Need | None = None
    """What would decide, where it cannot tell yet."""


def states(found: Verdicts) -> tuple[State, ...]:
    """in, out or unknown, of each contender."""
    out, everyone = set(dropped(found)), range(len(found.runs))
    level = found.alpha / (len(found.runs) - 1)
    return tuple(
        "out" if c in out else "in" if all(_p_in(found, c, b) <= level for b in everyone if b != c) else "unknown"
        for c in everyone
    )


def _p_in(found: Verdicts, c: int, b: int) -> float:
    """P-value of: b is the margin or more better than c. 1 where there is no test."""
    pair = found.between(c, b)
    if pair.p != pair.p:
        return 1.0
    lead = (pair.difference if found.larger_is_better else -pair.difference) + found.margin
    return float(stdtr(pair.df, -lead / pair.se)) if pair.se > 0 else float(lead <= 0)


def recommend(
    found: Verdicts,
    names: Sequence[str],
    prices: Sequence[Price | None],
    *,
    minutes_per_seed: Sequence[float | None] = (),
    point: float = 0.01,
    points: str = "points",
    unit: str = "images",
    confidence: float = 0.95,
) -> Recommendation:
    """The recommendation by rule, and its sentence. Contenders without a price come last.

    point, points, unit: as in `needs`. confidence: 1 − the alpha of all looks together.
    """
    why = _no_answer(found)
    if why:
        return Recommendation(None, f"Cannot tell: {why}.", RULE)
    state, everyone = states(found), range(len(names))
    order = sorted(everyone, key=lambda c: math.inf if (price := prices[c]) is None else price.value)
    margin = Words(point, points, unit).amount(found.margin)
    good = [c for c in order if state[c] == "in"]
    for c in good:
        cheaper = [b for b in everyone if _cheaper(prices[b], prices[c])]
        if all(state[b] == "out" for b in cheaper):
            ties = tuple(b for b in order if b != c and state[b] != "out" and _tied(prices[b], prices[c]))
            return Recommendation(c, _take(found, names, prices, c, ties, margin, confidence), RULE, ties)
    sign = 1 if found.larger_is_better else -1
    best = max(everyone, key=lambda c: sign * found.means[c])
    if good:
        first = min(
            (b for b in everyone if state[b] == "unknown" and _cheaper(prices[b], prices[good[0]])),
            key=order.index,
        )
        shown_worse = any(
            (pair.a, pair.b, pair.verdict) in ((first, good[0], "worse"), (good[0], first, "better"))
            for pair in found.pairs
        )
        hope = f"is not known to be more than {margin} worse" if shown_worse else "may be as good"
        start = f"`{names[first]}` is cheaper than `{names[good[0]]}` and {hope}"
    else:
        first, start = best, f"no contender is known to be within {margin} of the best"
    rival = max((b for b in everyone if b != first), key=lambda b: _p_in(found, first, b))
    need = needs(
        found,
        first,
        rival,
        minutes_per_seed=minutes_per_seed,
        point=point,
        points=points,
        unit=unit,
        for_rule=True,
    )
    return Recommendation(None, f"Cannot tell yet: {start}; {need.words if need else ''}.", RULE, need=need)


def _take(
    found: Verdicts,
    names: Sequence[str],
    prices: Sequence[Price | None],
    c: int,
    ties: tuple[int, ...],
    margin: str,
    confidence: float,
) -> str:
    others = "the other is not" if len(names) == 2 else "none of the others is"
    sentence = f"Take `{names[c]}`: with {100 * confidence:g}% confidence {others} more than {margin} better"
    price = prices[c]
    if price is None:
        return f"{sentence}; costs were not measured."
    sign = 1 if found.larger_is_better else -1
    priced = [b for b in range(len(names)) if b != c and prices[b] is not None]
    rival = max(priced, key=lambda b: sign * found.means[b], default=None)
    beside = "" if rival is None else f"; {names[rival]} {prices[rival].text}"  # type: ignore[union-attr]
    if ties:
        tied = ", ".join(f"`{names[b]}`" for b in ties)
        verb = "costs" if len(ties) == 1 else "cost"
        return f"{sentence}, and none of which that is known is cheaper ({price.text}{beside}); {tied} {verb} as much."
    return f"{sentence}, and it is the cheapest of which that is known ({price.text}{beside})."


def _no_answer(found: Verdicts) -> str:
    """Why no number of looks at these scores gives an answer; "" where one may."""
    if any(pair.p == pair.p for pair in found.pairs):
        return ""
    if found.images and max(found.runs) == 1:
        return "one seed says nothing about other seeds"
    return found.pairs[0].reason


def _cheaper(one: Price | None, other: Price | None) -> bool:
    return one is not None and (other is None or one.high < other.low)


def _tied(one: Price | None, other: Price | None) -> bool:
    return one is not None and other is not None and one.low <= other.high and other.low <= one.high

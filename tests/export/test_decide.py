"""Which contender is the fastest is decided rightly: two that are the same are seldom told apart, and others are."""

import numpy as np
import pytest

from regard import RegardError
from regard.export.decide import MARGIN, decide, ratio

TURNS = 15


def noise(random, spread, near):
    """Log-normal noise of a turn, each correlated by `near` with the one before."""
    found = np.empty(TURNS)
    found[0] = random.normal()
    for turn in range(1, TURNS):
        found[turn] = near * found[turn - 1] + random.normal() * np.sqrt(1 - near**2)
    return spread * found


def times(random, *, spread, near, slower=(1.0,), luck=0.007, spikes=0.1):
    """Seconds of a contender and of others that are so many times slower.

    What a loud machine does: noise that all have in common, some of each one's own, spikes of up to three times, and
    luck that stays with a process as long as it lives.
    """
    common = noise(random, 0.15, 0.8)
    found = {}
    for number, factor in enumerate((1.0, *slower)):
        own = noise(random, spread, near) + random.normal() * luck
        spike = np.where(random.random(TURNS) < spikes, random.uniform(1.2, 3, TURNS), 1)
        found[f"contender {number}"] = (factor * spike * np.exp(common + own)).tolist()
    return found


@pytest.mark.parametrize(
    ("spread", "near"), [(0.01, 0.0), (0.01, 0.5), (0.03, 0.0), (0.03, 0.5), (0.1, 0.0), (0.1, 0.5)]
)
def test_two_that_are_the_same_are_told_apart_in_one_of_twenty_at_most(spread, near):
    random = np.random.default_rng(0)
    wrong = sum(decide(times(random, spread=spread, near=near)).use is not None for _ in range(400))
    assert wrong <= 20


@pytest.mark.parametrize("same", [2, 5])
def test_more_contenders_make_no_more_false_answers(same):
    random = np.random.default_rng(1)
    wrong = sum(
        decide(times(random, spread=0.03, near=0.3, slower=(1.0,) * (same - 1))).use is not None for _ in range(200)
    )
    assert wrong <= 10


@pytest.mark.parametrize(("spread", "slower", "least"), [(0.01, 1.1, 0.7), (0.03, 1.3, 0.7), (0.1, 2.0, 0.7)])
def test_a_slower_one_is_told(spread, slower, least):
    random = np.random.default_rng(2)
    found = [decide(times(random, spread=spread, near=0.0, slower=(slower,))) for _ in range(200)]
    assert sum(one.use == "contender 0" for one in found) >= least * 200
    assert not any(one.use == "contender 1" for one in found)


def test_a_difference_below_the_margin_is_none():
    assert decide({"a": [1.0] * TURNS, "b": [MARGIN - 0.001] * TURNS}).alike == ("a", "b")
    assert decide({"b": [MARGIN + 0.001] * TURNS, "a": [1.0] * TURNS}).use == "a"
    three = {"slow": [2.0] * TURNS, "b": [1.01] * TURNS, "a": [1.0] * TURNS}
    assert decide(three).alike == ("a", "b")
    assert decide({"a": [1.0] * TURNS}).use == "a"


def test_the_interval_is_that_of_the_ranks():
    """Of 15 turns the fourth ratio from either end: 1 - 2 P(Binomial(15, ½) <= 3) = 0.965."""
    order = [8, 1, 15, 3, 12, 2, 14, 5, 11, 4, 13, 6, 10, 7, 9]
    found = ratio([1.0] * TURNS, [float(value) for value in order])
    assert (found.value, found.low, found.high) == (8.0, 4.0, 12.0)


def test_turns_that_follow_each_other_widen_it():
    rising = [float(value) for value in range(1, TURNS + 1)]
    found = ratio([1.0] * TURNS, rising)
    assert (found.low, found.high) == (1.0, 15.0)


def test_what_cannot_be_decided():
    with pytest.raises(RegardError, match="at least 6"):
        decide({"a": [1.0] * 5, "b": [2.0] * 5})
    with pytest.raises(RegardError, match="as many of each"):
        decide({"a": [1.0] * 6, "b": [2.0] * 7})
    with pytest.raises(RegardError, match="positive"):
        decide({"a": [1.0] * 6, "b": [0.0] * 6})

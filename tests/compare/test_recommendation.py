"""The rule of the recommendation, its sentence, and what would tell."""

import numpy as np
import pytest

from regard.compare.inference import simulate, verdicts
from regard.compare.recommendation import Price, needs, recommend, states

NAMES = ["attention", "conv", "mlp"]


def price(value, wide=0.01):
    return Price(value, value * (1 - wide), value * (1 + wide), f"{value:g} µs an image")


def recommended(x, prices, margin=0.01, names=NAMES, **given):
    found = verdicts(x, margin)
    return found, recommend(found, names[: len(x)], prices, **given)


def large(*accuracies, seeds=8, images=6000, seed=0):
    return simulate(accuracies, seeds, images, seed_sd=0.001, seed=seed)


def test_the_cheapest_that_is_as_good_is_taken():
    found, said = recommended(large(0.95, 0.95, 0.90), [price(112), price(87), price(60)])
    assert states(found) == ("in", "in", "out")
    assert said.index == 1
    assert said.ties == ()
    assert said.sentence == (
        "Take `conv`: with 95% confidence none of the others is more than 1 point better, and it is the cheapest of "
        "which that is known (87 µs an image; attention 112 µs an image)."
    )


def test_costs_whose_intervals_overlap_are_ties():
    _, said = recommended(large(0.95, 0.95, 0.90), [price(88, 0.05), price(87, 0.05), price(60)])
    assert said.index == 1
    assert said.ties == (0,)
    assert said.sentence.endswith(
        "and none of which that is known is cheaper (87 µs an image; attention 88 µs an image); `attention` costs "
        "as much."
    )


def test_a_cheaper_one_that_is_worse_by_about_the_margin_leaves_it_open():
    x = simulate([0.97, 0.958], 8, 3000, seed_sd=0.001, seed=1)
    found, said = recommended(x, [price(112), price(60)], minutes_per_seed=[1.0, 1.0])
    assert (found.pairs[0].verdict, states(found)) == ("better", ("in", "unknown"))
    assert said.index is None
    assert said.sentence.startswith(
        "Cannot tell yet: `conv` is cheaper than `attention` and is not known to be more than 1 point worse; "
    )


def test_a_cheaper_one_that_may_be_as_good_leaves_it_open():
    x = simulate([0.95, 0.95, 0.94], 8, 6000, seed_sd=[0.001, 0.001, 0.02], seed=3)
    found, said = recommended(x, [price(112), price(87), price(60)], minutes_per_seed=[1.0, 1.0, 1.0])
    assert states(found) == ("in", "in", "unknown")
    assert said.index is None
    assert said.sentence.startswith("Cannot tell yet: `mlp` is cheaper than `conv` and may be as good; ")
    assert said.sentence == f"Cannot tell yet: `mlp` is cheaper than `conv` and may be as good; {said.need.words}."
    # Where its cost is a tie, it is not cheaper.
    _, tied = recommended(x, [price(112), price(87, 0.1), price(80, 0.1)])
    assert tied.index == 1
    assert tied.ties == (2,)


def test_no_contender_is_known_to_be_good_enough():
    x = simulate([0.9, 0.9], 3, 100, seed_sd=0.02, seed=1)
    found, said = recommended(x, [price(2), price(1)])
    assert set(states(found)) == {"unknown"}
    assert said.index is None
    assert said.sentence.startswith("Cannot tell yet: no contender is known to be within 1 point of the best; ")


def test_without_a_price_a_contender_comes_last():
    _, said = recommended(large(0.95, 0.95), [None, price(5)])
    assert said.index == 1
    assert "(5 µs an image)" in said.sentence
    assert "the other is not more" in said.sentence
    _, said = recommended(large(0.95, 0.95), [None, None])
    assert said.index == 0
    assert said.sentence.endswith("better; costs were not measured.")


def test_smaller_is_better_and_other_units():
    x = np.random.default_rng(0).normal([[[1.0]], [[1.5]]], 0.2, (2, 5, 400))
    found = verdicts(x, 0.1, larger_is_better=False)
    said = recommend(found, ["a", "b"], [price(2), price(1)], point=1.0, points="nats", unit="windows")
    assert states(found) == ("in", "out")
    assert said.index == 0
    assert said.sentence.startswith("Take `a`: with 95% confidence the other is not more than 0.1 nats better")


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (simulate([0.9, 0.5], 1, 450), "Cannot tell: one seed says nothing about other seeds."),
        (np.ones((2, 5, 4)), "Cannot tell: 4 test images: a verdict on a pair needs 6 at least."),
        ([[0.9, 0.91, 0.92], [0.1, 0.11, 0.12]], "Cannot tell: no results per image: seeds alone say what "),
    ],
)
def test_what_no_number_of_seeds_can_tell(x, sentence):
    found = verdicts(x, 0.01)
    said = recommend(found, ["a", "b"], [price(1), price(2)])
    assert said.index is None
    assert said.sentence.startswith(sentence)
    assert states(found) == ("unknown", "unknown")
    assert needs(found, 0, 1).seeds is None


def test_seeds_that_would_tell_do_tell():
    """With the noise that was estimated, one seed fewer leaves the difference open, and the stated number decides."""
    found = verdicts(simulate([0.96, 0.94], 3, 1000, seed_sd=0.01, seed=4), 0.001)
    pair, need = found.pairs[0], needs(found, 0, 1, minutes_per_seed=[2.0, 3.0])
    assert pair.verdict == "cannot tell"
    assert need.seeds > 3
    assert need.minutes == pytest.approx(5 * (need.seeds - 3))
    assert need.words.startswith(f"{need.seeds - 3} more seeds (about {need.minutes:.0f} minutes)")

    def t(seeds):
        return abs(pair.difference) / np.sqrt(
            pair.seed_variance / seeds + pair.interaction / (1000 * seeds) + pair.image_variance / 1000
        )

    assert t(need.seeds) > 1.96
    assert t(need.seeds) > t(need.seeds - 1)


def test_when_images_alone_leave_too_much():
    found = verdicts(simulate([0.90, 0.89], 12, 200, seed_sd=0.001, own=0.4, shared=0.1, seed=1), 0.01)
    need = needs(found, 0, 1)
    assert found.pairs[0].verdict == "cannot tell"
    assert need.seeds is None
    assert need.images > 200
    assert need.words.startswith("no number of seeds: the 200 test images alone leave ± ")
    assert need.words.endswith(f" points; about {need.images:,} would do")


def test_a_recommended_contender_is_seldom_too_bad():
    """Seven that are just worse than the margin cost less than the eighth: benchmarks/verdicts.py has all cases."""
    random, false = np.random.default_rng(8), 0
    for _ in range(100):
        x = simulate([0.9598] * 7 + [0.97], 5, 450, seed_sd=0.005, seed=random)
        _, said = recommended(x, [price(c + 1) for c in range(8)], names=list("abcdefgh"))
        false += said.index is not None and said.index < 7
    assert false <= 9

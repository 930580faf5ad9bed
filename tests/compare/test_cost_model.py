"""The cost model of a mixer, its slope and its crossovers, on timings whose truth is known."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, nnls

from regard.compare.cost_model import Crossover, _bounded, _features, crossover, fit_cost

SIZES = [side**2 for side in (7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224)]


def attention(tokens):
    """As its operations at 100 GFLOP a second and width 192, with 60 µs for every call: they cross at 1,148 tokens."""
    return 60e-6 + (8 * 192**2 * tokens + 4 * 192 * tokens**2) / 100e9


def linear(tokens):
    return 100e-6 + 8.6e-6 * tokens * 1.36


def fourier(tokens):
    return 50e-6 + 2e-9 * 5 * 192 * tokens * np.log2(tokens * 192)


def timings(cost, seed=0, *, noise=0.05, samples=5, sizes=SIZES):
    """Like a machine's: never below zero."""
    random = np.random.default_rng(seed)
    return {n: [cost(n) * max(0.1, 1 + noise * random.standard_normal()) for _ in range(samples)] for n in sizes}


@pytest.mark.parametrize(
    ("cost", "terms"),
    [
        (attention, (60e-6, 8 * 192**2 / 100e9, 4 * 192 / 100e9, 0)),
        (linear, (100e-6, 8.6e-6 * 1.36, 0, 0)),
        (fourier, (50e-6, 2e-9 * 5 * 192 * math.log2(192), 0, 2e-9 * 5 * 192 / math.log(2))),
    ],
)
def test_without_noise_the_terms_are_found(cost, terms):
    found = fit_cost(timings(cost, noise=0, samples=1))
    np.testing.assert_allclose(found.terms, terms, rtol=1e-6, atol=1e-16)
    np.testing.assert_allclose(found.at(SIZES), [cost(size) for size in SIZES], rtol=1e-9)
    assert (found.smallest, found.largest) == (49, 50176)


def test_the_slope_is_that_of_the_end_and_not_of_the_whole():
    """A power law through attention's operations has 1.7; the last factor of 1.01 has 1.99."""
    found = fit_cost(timings(attention, noise=0, samples=1))
    tokens = 50176
    expected = math.log(attention(tokens * 1.0001) / attention(tokens / 1.0001)) / (2 * math.log(1.0001))
    assert found.slope()[0] == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(1.992, abs=1e-3)
    flops = [8 * 192**2 * n + 4 * 192 * n**2 for n in SIZES]
    assert np.polyfit(np.log(SIZES), np.log(flops), 1)[0] < 1.75


def test_intervals_cover_the_truth():
    """Of the slope at the end, of the seconds there, and of those four times beyond it."""
    covered = np.zeros(3)
    for seed in range(60):
        found = fit_cost(timings(attention, seed, sizes=SIZES[:9]), seed=seed)
        tokens = SIZES[8]
        truth = (8 * 192**2 * tokens + 8 * 192 * tokens**2) / 100e9 / attention(tokens)
        _, low, high = found.slope()
        lows, highs = found.band([tokens, 4 * tokens])
        covered += [
            low <= truth <= high,
            *(
                (lows <= attention(np.array([tokens, 4 * tokens])))
                & (attention(np.array([tokens, 4 * tokens])) <= highs)
            ),
        ]
    assert (covered >= 54).all()


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 3, 10])
def test_a_planted_crossover_is_covered(samples):
    truth = brentq(lambda n: attention(n) - linear(n), 50, 50000)
    covered, widths = 0, []
    for seed in range(100):
        models = [
            fit_cost(timings(cost, 2 * seed + place, samples=samples), seed=2 * seed + place)
            for place, cost in enumerate((attention, linear))
        ]
        found = crossover(*models)
        covered += (found.low or 0) <= truth <= (found.high or math.inf)
        if found.low and found.high:
            widths.append(found.high / found.low)
    assert covered >= 90
    assert len(widths) >= 90
    assert np.median(widths) < 1.6  # and not by saying nothing


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (attention, linear, "between "),
        (attention, lambda n: attention(n) / 2, "always"),
        (linear, attention, "up to "),
        (attention, lambda n: attention(n) * 2, "never up to 50,176 tokens"),
        (attention, attention, "the timings do not tell"),
    ],
)
def test_a_crossover_in_words(one, other, words):
    found = crossover(fit_cost(timings(one), seed=0), fit_cost(timings(other, 1), seed=1))
    assert found.words.startswith(words)
    truth = brentq(lambda n: attention(n) - linear(n), 50, 50000)
    if words == "between ":
        assert 0.6 * truth < found.low < truth < found.high < 1.7 * truth
        low, high = (int(word.replace(",", "")) for word in found.words.split() if word[0].isdigit())
        assert low <= found.low < found.high <= high
        assert high == pytest.approx(found.high, rel=0.01)


def test_only_what_was_measured_of_both_is_judged():
    """Timings of attention that end at 784 tokens say nothing about a crossover at 1,148."""
    few = fit_cost(timings(attention, sizes=SIZES[:5]), seed=0)
    found = crossover(few, fit_cost(timings(linear, 1), seed=1))
    assert found == Crossover(784.0, None, "never up to 784 tokens")


def test_a_few_sizes_are_no_curve():
    assert fit_cost(timings(attention, sizes=SIZES[:4])) is None
    assert fit_cost({}) is None
    assert fit_cost(timings(attention, sizes=SIZES[:5])) is not None


def test_the_same_timings_give_the_same_intervals():
    first, second = (fit_cost(timings(attention), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.draws, second.draws)
    assert (first.draws >= 0).all()


def test_all_draws_at_once_are_fitted_as_scipy_fits_each():
    features = _features(np.array(SIZES))
    features = features / features.max(axis=0)
    seconds = attention(np.array(SIZES)) * np.exp(0.3 * np.random.default_rng(0).standard_normal((50, len(SIZES))))
    expected = [nnls(features / one[:, None], np.ones(len(SIZES)))[0] for one in seconds]
    np.testing.assert_allclose(_bounded(features, seconds), expected, rtol=1e-5, atol=1e-9)
    assert {tuple(row > 0) for row in expected} > {(True, True, True, False)}

"""What a report sets in bold: the best value, where its interval lies apart from all others."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from regard.compare.contender import Contender, Cost, Metric
from regard.compare.table import Column, columns_of, proportion_interval, span_of
from regard.errors import RegardError

ACCURACY, BITS, AP = Metric("accuracy", True), Metric("bits_per_byte", False), Metric("ap", True)
NAN, INF = math.nan, math.inf


def best(metric, *scores, held_out=450, **figures):
    """The names a, b, c, ... whose metric is bold."""
    contenders = [
        Contender(name, (), metric, given, *figures.get(name, (1, 1, 1.0)), None)
        for name, given in zip("abcdef", scores, strict=False)
    ]
    columns = columns_of(contenders, SimpleNamespace(num_held_out=held_out, counted="an image", timed="an image"))
    return [one.name for one, bold in zip(contenders, columns[0].best(), strict=True) if bold]


def column(better, *rows):
    """Of rows (value, span)."""
    return Column("x", "", tuple(v for v, _ in rows), tuple(f"{v}" for v, _ in rows), better, tuple(s for _, s in rows))


def test_bold_is_what_lies_apart():
    assert best(ACCURACY, (0.98, 0.981, 0.982), (0.90, 0.901, 0.902)) == ["a"]
    assert best(ACCURACY, (0.90, 0.901, 0.902), (0.98, 0.981, 0.982)) == ["b"]
    assert best(BITS, (2.0, 2.01, 2.02), (1.5, 1.51, 1.52), held_out=None) == ["b"]
    assert best(AP, (0.20, 0.21, 0.22), (0.5, 0.51, 0.52), held_out=None) == ["b"]


def test_nothing_is_bold_where_an_interval_holds_another():
    # Seeds agree closely, but 450 images do not tell 98.0% from 98.7%.
    assert best(ACCURACY, (0.980, 0.981, 0.982), (0.986, 0.987, 0.988)) == []
    assert best(ACCURACY, (0.980, 0.981, 0.982), (0.986, 0.987, 0.988), held_out=100_000) == ["b"]
    # Images tell them apart, but seeds do not.
    assert best(ACCURACY, (0.60, 0.80, 0.95), (0.90, 0.97, 0.99), held_out=10**6) == []
    # The best is apart from one of them only.
    assert best(ACCURACY, (0.98, 0.981, 0.982), (0.975, 0.976, 0.977), (0.5, 0.5, 0.51)) == []


def test_without_an_interval_nothing_is_bold():
    assert best(BITS, (1.9,), (2.25,), held_out=None) == []  # one seed
    assert best(AP, (0.1,), (0.9, 0.91, 0.92), held_out=None) == []  # one of them has one
    assert best(AP, (0.5, 0.5, 0.5), (0.1, 0.1, 0.1), held_out=None) == []  # of no width
    assert best(ACCURACY, (0.98, 0.98, 0.98), (0.5, 0.5, 0.5)) == ["a"]  # but images give one
    assert best(ACCURACY, (0.99,), (0.5,)) == ["a"]  # of one seed it is that of the images
    assert best(ACCURACY, (0.98,), (0.97,)) == []


def test_ties_and_what_is_no_number():
    assert best(ACCURACY, (0.98, 0.981), (0.98, 0.981)) == []
    assert best(ACCURACY, (NAN, 0.98, 0.99), (0.98, 0.981, 0.982), (0.5, 0.51, 0.52)) == ["b"]
    assert best(BITS, (INF, 1.0), (1.5, 1.5001), (2.0, 2.0001), held_out=None) == ["b"]
    assert best(ACCURACY, (NAN,), (0.9,)) == []  # the only one that is left has nobody to be better than
    assert best(ACCURACY, (0.9, 0.91)) == []


def test_a_column():
    assert column("higher", (3.0, (2.5, 3.5)), (2.0, (1.5, 2.4))).best() == [True, False]
    assert column("higher", (3.0, (2.5, 3.5)), (2.0, (1.5, 2.5))).best() == [False, False]  # they touch
    assert column("lower", (3.0, (2.5, 3.5)), (2.0, (1.5, 2.4))).best() == [False, True]
    assert column("lower", (3.0, (2.5, 3.5)), (None, None), (2.0, (1.5, 2.4))).best() == [False, False, True]
    assert column("lower", (3.0, None), (2.0, (1.5, 2.4))).best() == [False, False]
    assert column("", (3.0, (3.0, 3.0)), (2.0, (2.0, 2.0))).best() == [False, False]
    assert column("lower", (3.0, (3.0, 3.0)), (3.0, (3.0, 3.0)), (4.0, (4.0, 4.0))).best() == [False] * 3
    assert column("lower", (None, None), (None, None)).best() == [False, False]
    # What looks alike is not told apart by bold.
    alike = Column("x", "", (151_050.0, 151_049.0), ("151 k", "151 k"), "lower", ((151_050,) * 2, (151_049,) * 2))
    assert alike.best() == [False, False]
    assert column("lower", (NAN, (NAN, NAN)), (2.0, (2.0, 2.0)), (INF, None)).keys() == ["", 2.0, ""]


def test_what_is_counted_is_exact_and_what_is_timed_is_not():
    costs = Cost(1e-3, 10.0, 64), Cost(2e-3, 20.0, 64), None
    given = [Contender(n, (), ACCURACY, (0.5,), 10 + i, 7, 1.0 + i, costs[i]) for i, n in enumerate("abc")]
    view = SimpleNamespace(num_held_out=450, counted="an image", timed="an image")
    marks = {one.head: one.best() for one in columns_of(given, view)}
    assert marks.pop("parameters") == [True, False, False]
    assert {head for head, bold in marks.items() if any(bold)} == set()
    assert marks.keys() == {"accuracy", "95% interval", "operations", "training", "inference", "peak memory"}


def test_intervals_with_the_same_lower_end_keep_their_words():
    given = [Contender(n, (), BITS, s, 1, 1, 1.0, None) for n, s in (("a", (0.0, 2.0)), ("b", (0.0, 2.0)))]
    view = SimpleNamespace(num_held_out=None, counted="a window", timed="a window")
    assert len(set(columns_of(given, view)[1].texts)) == 1
    missing = [given[0], Contender("c", (), BITS, (1.0,), None, None, None, None)]
    assert [one.texts[1] for one in columns_of(missing, view)] == ["1.000", "–", "–", "–", "–"]


def test_the_span_counts_seeds_and_images():
    scores = (0.91, 0.94, 0.96)
    mean, low, high = proportion_interval(scores, 450)
    wilson = stats.binomtest(round(mean * 450), 450).proportion_ci(method="wilson")
    found = span_of(ACCURACY, scores, 450)
    assert found == pytest.approx(
        (mean - math.hypot(mean - low, mean - wilson.low), mean + math.hypot(high - mean, wilson.high - mean)),
        rel=1e-12,
    )
    assert found[0] < low < high < found[1]
    assert span_of(ACCURACY, (0.9,), 450) == proportion_interval([0.9], 450)[1:]
    assert span_of(AP, scores, None) == pytest.approx(stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores)))


def test_a_number_that_is_no_proportion_is_one_line():
    for value in (NAN, INF, 1.5, -0.1):
        with pytest.raises(RegardError, match="an interval is of proportions, from 0 to 1"):
            proportion_interval([0.5, value], 10)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_twin_is_seldom_called_the_best(seeds):
    """Two contenders of the same accuracy, over seeds and images: bold in at most 5% of 300 comparisons."""
    generator = np.random.default_rng(seeds)
    bold = 0
    for _ in range(300):
        true = 0.93 + 0.01 * generator.standard_normal((2, seeds))
        scores = generator.binomial(450, true.clip(0, 1)) / 450
        bold += bool(best(ACCURACY, *map(tuple, scores.tolist())))
    assert bold <= 15

"""Verdicts and intervals: against scipy where it has the same case, against the formulas, and by simulation."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from regard.compare.inference import fewest_images, holm, interval, simulate, verdicts
from regard.compare.looks import Look, dropped, kept, looks
from regard.errors import RegardError


def x_of(accuracies, seeds=5, images=450, seed=0, **given):
    return simulate(accuracies, seeds, images, seed=seed, **given)


def test_runs_that_agree_leave_the_paired_t_test_over_images():
    a, b = np.random.default_rng(0).normal([[0.3], [0.0]], 1, (2, 60))
    (pair,) = verdicts([np.tile(a, (4, 1)), np.tile(b, (3, 1))], 0.1).pairs
    oracle = stats.ttest_rel(a, b)
    assert pair.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert pair.df == pytest.approx(59)
    assert (pair.low, pair.high) == pytest.approx(tuple(oracle.confidence_interval()), rel=1e-9)


def test_images_that_agree_leave_welchs_t_test_over_seeds():
    a, b = np.array([0.9, 0.94, 0.91, 0.95]), np.array([0.8, 0.83, 0.86])
    images = np.ones((1, 50))
    (pair,) = verdicts([a[:, None] * images, b[:, None] * images], 0.01).pairs
    oracle = stats.ttest_ind(a, b, equal_var=False)
    assert pair.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert pair.df == pytest.approx(oracle.df, rel=1e-6)
    assert (pair.low, pair.high) == pytest.approx(tuple(oracle.confidence_interval()), rel=1e-6)


def test_the_variance_is_that_of_the_formulas():
    x = x_of([0.9, 0.85], seeds=4, images=200, seed=3)
    (pair,) = verdicts(x, 0.01).pairs
    R, n = 4, 200
    S, E = [], []
    for one in x:
        runs, images, mean = one.mean(1), one.mean(0), one.mean()
        S.append(n * sum((r - mean) ** 2 for r in runs) / (R - 1))
        rest = sum((one[r, i] - runs[r] - images[i] + mean) ** 2 for r in range(R) for i in range(n))
        E.append(rest / ((R - 1) * (n - 1)))
    d = x[0].mean(0) - x[1].mean(0)
    image = R * np.var(d, ddof=1)
    seeds = max(S[0], E[0]) + max(S[1], E[1])
    assert pair.se**2 == pytest.approx((seeds + max(image - sum(E), 0)) / (R * n), rel=1e-12)
    planned = pair.seed_variance / R + pair.interaction / (R * n) + pair.image_variance / n
    assert planned == pytest.approx(pair.se**2, rel=1e-12)


def test_holm_over_all_pairs():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is an oracle for development")
    some = np.random.default_rng(0).uniform(0, 0.1, 28)
    assert holm(some) == pytest.approx(multitest.multipletests(some, method="holm")[1])


def test_verdicts_of_contenders_far_apart_near_and_equal():
    x = x_of([0.97, 0.80, 0.97], seeds=12, images=4000, seed_sd=0.001)
    found = verdicts(x, 0.01)
    assert [pair.verdict for pair in found.pairs] == ["better", "as good", "worse"]
    assert found.between(1, 0).verdict == "worse"
    assert found.between(1, 0).difference < -0.1
    assert found.between(1, 0).high == -found.between(0, 1).low
    assert found.between(0, 1).p_outperform == 1.0 == 1 - found.between(1, 0).p_outperform
    assert dropped(found) == [1]
    assert (found.runs, found.images, found.proportion) == ((12, 12, 12), 4000, True)


def test_smaller_is_better_turns_verdicts_and_leaves_differences():
    x = np.random.default_rng(0).normal([[[1.0]], [[2.0]]], 0.3, (2, 4, 300))
    up, down = verdicts(x, 0.1).pairs[0], verdicts(x, 0.1, larger_is_better=False)
    assert (up.verdict, down.pairs[0].verdict) == ("worse", "better")
    assert up.difference == down.pairs[0].difference < 0
    assert (up.p_outperform, down.pairs[0].p_outperform) == (0.0, 1.0)
    assert dropped(down) == [1]


def test_one_seed_never_gives_a_verdict_on_mixers():
    x = x_of([0.97, 0.70], seeds=1)
    (pair,) = verdicts(x, 0.01).pairs
    wins, losses = int((x[0] > x[1]).sum()), int((x[0] < x[1]).sum())
    p = stats.binomtest(wins, wins + losses).pvalue
    assert pair.verdict == "cannot tell"
    assert math.isnan(pair.p)
    assert pair.reason.startswith("one seed: these two trained models differ (McNemar's exact test, p = ")
    assert f"p = {p:.2g})" in pair.reason
    same = verdicts(np.stack([x[0], x[0]]), 0.01).pairs[0]
    assert "are not shown to differ" in same.reason
    assert same.verdict == "cannot tell"
    uneven = verdicts([x[0], x_of([0.7, 0.7])[0]], 0.01).pairs[0]
    assert uneven.verdict == "cannot tell"
    assert uneven.reason.startswith("one seed of one of them")


def test_scores_without_results_per_image_carry_no_verdict():
    (pair,) = verdicts([[0.9, 0.91, 0.92], [0.1, 0.11, 0.12]], 0.01).pairs
    assert pair.verdict == "cannot tell"
    assert "no results per image" in pair.reason
    assert pair.low < 0.8 < pair.high
    assert pair.p_outperform == 1.0


def test_fewer_images_than_any_verdict_needs():
    assert fewest_images(1, 0.05) == 6
    assert fewest_images(28, 0.05) == 11
    (pair,) = verdicts(np.stack([np.ones((5, 5)), np.zeros((5, 5))]), 0.01).pairs
    assert pair.verdict == "cannot tell"
    assert pair.reason == "5 test images: a verdict on a pair needs 6 at least"
    (pair,) = verdicts(np.stack([np.ones((5, 6)), np.zeros((5, 6))]), 0.01).pairs
    assert pair.verdict == "better"
    assert verdicts(np.ones((2, 5, 1)), 0.01).pairs[0].verdict == "cannot tell"


def test_an_interval_has_a_width_whatever_the_scores():
    for value in (0.0, 1.0):
        one = interval(np.full((3, 450), value))
        wilson = stats.binomtest(int(450 * value), 450).proportion_ci(method="wilson")
        assert (one.low, one.high) == pytest.approx((wilson.low, wilson.high), abs=2e-3)
        assert one.high - one.low > 0.005
        assert one.low >= 0
        assert one.high <= 1
        pair = verdicts(np.full((2, 3, 450), value), 0.01).pairs[0]
        assert pair.low < -0.002
        assert pair.high > 0.002
    x = x_of([0.98], seeds=5)[0]
    found = interval(x)
    logit = [math.log(p / (1 - p)) for p in (found.low, found.mean, found.high)]
    assert logit[1] - logit[0] == pytest.approx(logit[2] - logit[1])
    alone = interval(x[:1])
    wilson = stats.binomtest(int(x[0].sum()), 450).proportion_ci(method="wilson")
    assert (alone.low, alone.high) == pytest.approx((wilson.low, wilson.high), abs=3e-4)
    assert alone.reason.startswith("one seed")
    assert math.isnan(alone.seed_part)


def test_intervals_of_many_contenders_and_of_runs_in_unequal_numbers():
    x = x_of([0.9, 0.8, 0.7])
    assert [one.mean for one in interval(x)] == pytest.approx(x.mean((1, 2)))
    found = interval([x[0], x[1][:3], x[2]])
    assert len(found) == 3
    assert found[1].mean == pytest.approx(x[1][:3].mean())
    nats = interval(np.random.default_rng(0).normal(2, 1, (5, 100)))
    assert nats.high - nats.mean == pytest.approx(nats.mean - nats.low)


def test_each_part_of_an_interval_has_its_own_degrees_of_freedom():
    random = np.random.default_rng(0)
    x = random.normal(2, 0.3, (4, 1)) + random.normal(0, 1, 100) + random.normal(0, 0.1, (4, 100))
    found, (of_seeds, of_images) = interval(x), stats.t.ppf(0.975, [3, 99])
    seeds, images = math.hypot(found.seed_part, found.interaction), found.image_part
    assert seeds == pytest.approx(x.mean(1).std(ddof=1) / 2)
    assert images == pytest.approx(0.1, rel=0.2)
    assert found.high - found.mean == pytest.approx(math.hypot(of_seeds * seeds, of_images * images))


@pytest.mark.parametrize(
    ("x", "given", "message"),
    [
        (np.ones((1, 3, 10)), {}, "at least two contenders are needed, got 1"),
        ([np.ones((3, 10)), np.ones((3, 9))], {}, "need the same test images"),
        (np.ones((2, 3, 2, 5)), {}, "need the same test images|must be .runs, images."),
        (np.full((2, 3, 10), np.nan), {}, "finite"),
        ([["a"], ["b"]], {}, "must be numbers"),
        (np.ones((2, 0, 10)), {}, "must be .runs, images."),
        (np.ones((2, 3, 10)), {"margin": -1.0}, "margin must be a number from 0, got -1.0"),
        (np.ones((2, 3, 10)), {"alpha": 0.0}, "alpha must lie between 0 and 1, got 0.0"),
    ],
)
def test_bad_input_is_one_line(x, given, message):
    with pytest.raises(RegardError, match=message) as error:
        verdicts(x, **{"margin": 0.01, **given})
    assert "\n" not in str(error.value)


def test_simulated_scores_have_the_truth_that_was_asked_for():
    runs = simulate([0.9, 0.75], 400, 600, seed_sd=[0.0, 0.03], shared=0.0, own=0.0).mean(2)
    assert runs.mean(1) == pytest.approx([0.9, 0.75], abs=0.004)
    of_images = [math.sqrt(p * (1 - p) / 600) for p in (0.9, 0.75)]
    expected = [of_images[0], math.hypot(of_images[1], 0.03)]
    assert runs.std(1) == pytest.approx(expected, rel=0.1)
    with pytest.raises(RegardError, match="parts of 1"):
        simulate([0.9], 1, 1, shared=0.7, own=0.6)
    with pytest.raises(RegardError, match="cannot differ"):
        simulate([0.9], 1, 1, seed_sd=0.5)


def test_looks_spend_alpha():
    assert looks() == tuple(Look(s, pytest.approx(a)) for s, a in ((3, 0.005), (5, 0.01), (8, 0.015), (12, 0.02)))
    assert [one.seeds for one in looks(6)] == [3, 5, 6]
    assert [one.seeds for one in looks(20)] == [3, 5, 8, 12, 18, 20]
    assert looks(1) == (Look(1, 0.05),)
    assert looks(3) == (Look(3, 0.05),)
    for most in (1, 4, 12, 30):
        assert sum(one.alpha for one in looks(most)) == pytest.approx(0.05)
        assert all(a.seeds < b.seeds for a, b in pairwise(looks(most)))
    with pytest.raises(RegardError, match="max_seeds must be at least 1, got 0"):
        looks(0)


def test_what_was_shown_stays_shown():
    x = x_of([0.97, 0.80], seeds=5)
    earlier = verdicts(x[:, :3], 0.01)
    assert earlier.pairs[0].verdict == "better"
    assert dropped(earlier) == [1]
    level = verdicts(x, 0.01, alpha=1e-250)
    assert level.pairs[0].verdict == "cannot tell"
    assert dropped(level) == []
    found = kept(earlier, level)
    assert found.pairs[0].verdict == "better"
    assert found.pairs[0].reason == "shown after 3 seeds"
    assert dropped(found) == [1]
    assert found.runs == (5, 5)
    assert found.pairs[0].difference == level.pairs[0].difference
    assert kept(None, level) is level
    assert kept(found, level).pairs[0] == found.pairs[0]


def different(found):
    return any(pair.verdict in ("better", "worse") for pair in found.pairs)


# At most 6.5% of 1,000 (benchmarks/verdicts.py); here 100, where 12 or fewer are all but certain.
@pytest.mark.parametrize("contenders", [2, 8])
@pytest.mark.parametrize(
    "given",
    [{"seed_sd": 0.01}, {"seed_sd": 0.01, "shared": 0.0, "own": 0.6}, {"seed_sd": 0.004, "own": 0.0}],
    ids=["as usual", "other images", "little noise"],
)
def test_equals_seldom_come_out_different(contenders, given):
    random = np.random.default_rng(contenders)
    draws = (simulate([0.9] * contenders, 3, 450, seed=random, **given) for _ in range(100))
    assert sum(different(verdicts(x, 0.01)) for x in draws) <= 12


def test_one_with_three_times_the_noise_of_seeds():
    random = np.random.default_rng(5)
    draws = (simulate([0.9] * 8, 5, 450, seed_sd=[0.03] + [0.01] * 7, seed=random) for _ in range(100))
    assert sum(different(verdicts(x, 0.01)) for x in draws) <= 12


@pytest.mark.parametrize("accuracy", [0.75, 0.98])
def test_intervals_cover_new_seeds_and_new_images(accuracy):
    random, hits = np.random.default_rng(6), np.zeros(2)
    for _ in range(300):
        x = simulate([accuracy, accuracy - 0.02], 3, 450, seed_sd=0.006, seed=random)
        one, pair = interval(x[0]), verdicts(x, 0.01).pairs[0]
        hits += (one.low <= accuracy <= one.high, pair.low <= 0.02 <= pair.high)
    assert (hits >= 270).all()  # 92% and three deviations of 300 comparisons less


def test_four_points_are_found_with_few_seeds():
    random, seeds_of, wins = np.random.default_rng(7), [], 0
    for _ in range(100):
        x = simulate([0.97, 0.93], 12, 450, seed_sd=0.005, seed=random)
        for look in looks():
            pair = verdicts(x[:, : look.seeds], 0.01, look.alpha).pairs[0]
            if pair.verdict != "cannot tell":
                break
        wins += pair.verdict == "better"
        seeds_of.append(look.seeds)
    assert wins >= 93
    assert np.mean(seeds_of) <= 6.5


def test_an_interval_of_a_mean_between_0_and_1_stays_there():
    """Pseudo-values of an average precision lie outside, and their mean does not."""
    near = np.array([[1.4, 0.7, 0.9, 1.0], [1.3, 0.8, 0.8, 0.9]])
    assert interval(near).high > 1
    found = interval(near, bounded=True)
    assert 0 < found.low < found.mean < found.high < 1
    above, below = interval(near + 0.2, bounded=True), interval(near - 1.1, bounded=True)
    assert 0 < above.low < above.high == 1
    assert 0 == below.low < below.high < 1

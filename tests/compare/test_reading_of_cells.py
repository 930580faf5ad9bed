"""Cells -> verdicts at looks: who drops out, when the answer is known, and that nothing depends on when it is read."""

from dataclasses import replace

import numpy as np
import pytest

from regard.compare.aliases import Alias
from regard.compare.cells import Cell
from regard.compare.inference import simulate
from regard.compare.limits import Budget, Until, budget_words
from regard.compare.per_sample import read_arrays, write_arrays
from regard.compare.plan import Entry, Plan, differences, order_of
from regard.compare.reading import Store, read
from regard.compare.recommendation import Price
from regard.errors import RegardError
from regard.recipes import load_recipe

RECIPE = load_recipe("vit-digits")
LOOKS = [(3, 0.005), (5, 0.01), (8, 0.015), (12, 0.02)]


def plan_of(*names, seeds=None, margin=1.0):
    looks = LOOKS if seeds is None else [(seeds, 0.05)]
    return Plan(
        contenders=[Entry(name, RECIPE.to_dict()) for name in names],
        recipe_name="vit-digits",
        task="classification",
        seed=0,
        seeds=seeds,
        looks=looks,
        alpha=0.05,
        margin=margin,
        cost="throughput",
        budget="epochs=40",
        threads=1,
        order=order_of(names, {}, 0, looks[-1][0]),
        data={"address": "digits", "fingerprint": "a-b", "n_train": 1347, "n_val": 0, "n_test": 450},
    )


@pytest.fixture
def cells_of(tmp_path):
    """cells_of(plan, accuracies) -> the cells of all twelve seeds, with drawn results in their files."""

    def made(plan, accuracies, images=450, seed=0):
        drawn = simulate(accuracies, plan.max_seeds, images, seed_sd=0.004, seed=seed)
        found = {}
        for c, name in enumerate(plan.names):
            for r in range(plan.max_seeds):
                place = tmp_path / f"{name}-seed-{r}"
                place.mkdir(exist_ok=True)
                order = np.random.default_rng(r).permutation(images)  # the order of a file says nothing
                arrays = {"id": np.arange(images, dtype=np.uint64)[order], "score": drawn[c, r][order].astype(np.uint8)}
                digest = write_arrays(place / "test.npz", arrays)
                found[name, r] = Cell(name, r, "done", score=float(drawn[c, r].mean()), test=digest)
        return found, Store(tmp_path)

    return made


def until(cells, seeds):
    return {place: cell for place, cell in cells.items() if place[1] < seeds}


def test_a_contender_that_is_far_worse_drops_out_and_the_answer_is_known(cells_of):
    plan = plan_of("attention", "conv", "none")
    cells, store = cells_of(plan, [0.97, 0.97, 0.75])
    prices = {"attention": Price(3.0, 3.0, 3.0, "3 s"), "conv": Price(1.0, 1.0, 1.0, "1 s"), "none": None}
    first = read(plan, until(cells, 3), store, prices)
    assert (first.looks, first.dropped, first.is_answered) == (1, {"none": 3}, False)
    assert first.found.alpha == 0.005
    assert first.found.between(2, 0).verdict == "worse"
    # `none` gets no more seeds, and those of the others are enough for the next look.
    second = read(
        plan,
        {place: cell for place, cell in until(cells, 5).items() if place[0] != "none" or place[1] < 3},
        store,
        prices,
    )
    assert second.looks == 2
    assert second.found.runs == (5, 5, 3)
    assert second.names == ("attention", "conv", "none")
    # Later cells that are there change nothing of an earlier look: a kill at any moment leaves the same decisions.
    everything = read(plan, cells, store, prices)
    assert everything.dropped["none"] == 3
    assert everything.looks >= 2


def test_between_two_looks_there_are_verdicts_at_the_end_alone(cells_of):
    plan = plan_of("attention", "conv")
    cells, store = cells_of(plan, [0.95, 0.95])
    some = until(cells, 4)
    assert read(plan, some, store, {}).found.runs == (3, 3)
    ended = read(plan, some, store, {}, to_the_end=True)
    assert (ended.found.runs, ended.found.alpha, ended.looks) == ((4, 4), 0.01, 1)
    assert read(plan, until(cells, 2), store, {}).found is None
    assert read(plan, until(cells, 1), store, {}, to_the_end=True).found.between(0, 1).verdict == "cannot tell"


def test_a_number_of_seeds_is_one_look_with_all_of_alpha(cells_of):
    plan = plan_of("attention", "conv", "none", seeds=4)
    cells, store = cells_of(plan, [0.97, 0.97, 0.80])
    now = read(plan, cells, store, {})
    assert (now.looks, now.dropped, now.found.alpha) == (1, {}, 0.05)
    assert now.found.runs == (4, 4, 4)


def test_one_that_diverged_has_fewer_runs_and_one_that_cannot_run_has_none(cells_of):
    plan = plan_of("attention", "conv", "none", seeds=3)
    cells, store = cells_of(plan, [0.97, 0.96, 0.95])
    cells["conv", 1] = Cell("conv", 1, "diverged", "step 7: the loss is nan", 7)
    failing = [replace(one, cannot_run="no") if one.name == "none" else one for one in plan.contenders]
    plan = replace(plan, contenders=failing)
    there = {place: cell for place, cell in cells.items() if place[0] != "none"}
    now = read(plan, there, store, {})
    assert (now.names, now.found.runs, now.looks) == (("attention", "conv"), (3, 2), 1)


def test_samples_are_compared_by_their_ids(cells_of):
    plan = plan_of("attention", "conv", seeds=3)
    cells, store = cells_of(plan, [0.97, 0.9])
    _, scores = store.matrix(plan, list(cells.values()))
    expected = simulate([0.97, 0.9], 3, 450, seed_sd=0.004)
    np.testing.assert_array_equal(np.stack(scores), expected)


def test_an_order_is_a_permutation_of_all_within_each_round():
    order = order_of(["a", "b", "c", "d"], {}, 5, 12)
    rounds = [order[4 * r : 4 * r + 4] for r in range(12)]
    assert all(sorted(one) == [(name, 5 + r) for name in "abcd"] for r, one in enumerate(rounds))
    assert len({tuple(name for name, _ in one) for one in rounds}) > 6
    assert order == order_of(["a", "b", "c", "d"], {}, 5, 12)
    assert sorted(order_of(["a", "b"], {"b": 1}, 0, 2)) == [("a", 0), ("a", 1), ("b", 0)]


def test_the_hash_covers_what_is_settled_and_not_how_long_it_goes_on(tmp_path):
    plan = plan_of("attention", "conv")
    assert replace(plan, until="runs=4", command="x", amended=["y"]).hash == plan.hash
    for change in (
        {"margin": 2.0},
        {"cost": "memory"},
        {"threads": 2},
        {"looks": LOOKS[:2]},
        {"order": plan.order[::-1]},
    ):
        assert replace(plan, **change).hash != plan.hash
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    assert differences(plan, replace(plan, margin=2.0, threads=2)) == ["margin: 1.0 -> 2.0", "threads: 1 -> 2"]
    (tmp_path / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(RegardError, match=r"plan\.json: "):
        Plan.read(tmp_path)


def test_names_of_copies_and_of_wrong_labels():
    assert Alias.of("conv") == Alias("conv")
    assert Alias.of("attention@copy") == Alias("attention", copy=1)
    assert Alias.of("attention@copy8") == Alias("attention", copy=8)
    assert Alias.of("conv@labels=0.1") == Alias("conv", labels=0.1)
    for name in ("conv@", "conv@copy@copy2", "conv@labels=", "conv@labels=nan", "conv@labels=0", "conv@other"):
        with pytest.raises(RegardError, match=r"^conv@"):
            Alias.of(name)


def test_budgets_take_the_place_of_the_recipes():
    assert budget_words(RECIPE) == "epochs=40"
    for text, expected in (
        ("epochs=3", (3, None, None)),
        ("steps=7", (None, 7, None)),
        ("minutes=0.5", (None, None, 0.5)),
    ):
        train = Budget.parse(text).of(RECIPE, 0, "x").train
        assert (train.epochs, train.max_steps, train.max_minutes) == expected
    # Three times the forward pass of each of 128 images: 2e9 / (3 · 1e6 · 128) = 5.2
    assert Budget.parse("flops=2e9").of(RECIPE, 1_000_000, "x").train.max_steps == 5
    with pytest.raises(RegardError, match="there is no formula for the operations of x; give steps"):
        Budget.parse("flops=2e9").of(RECIPE, 0, "x")


def test_when_to_stop():
    assert not Until.parse("answer").reached(1000, 1e9)
    assert not Until.parse("minutes=15").reached(1000, 899)
    assert Until.parse("minutes=15").reached(0, 900) == "15 minutes were over (--until minutes=15)"
    assert Until.parse("runs=40").reached(40, 0) == "40 trainings were done (--until runs=40)"
    assert str(Until.parse("runs=40")) == "runs=40"
    for text in ("runs=1.5", "minutes=", "minutes=-1", "runs=0", "minutes"):
        with pytest.raises(RegardError, match="until"):
            Until.parse(text)


def test_the_bytes_of_results_follow_from_them_alone(tmp_path):
    arrays = {"id": np.arange(5, dtype=np.uint64), "score": np.ones(5)}
    digest = write_arrays(tmp_path / "a.npz", arrays)
    assert write_arrays(tmp_path / "b.npz", arrays) == digest
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz", digest)["score"], np.ones(5))
    with pytest.raises(RegardError, match="is not as it was written"):
        read_arrays(tmp_path / "a.npz", "0" * 16)
    with pytest.raises(RegardError, match="cannot be read"):
        read_arrays(tmp_path / "none.npz", digest)

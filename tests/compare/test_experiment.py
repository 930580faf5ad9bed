"""Comparisons: alike but for the mixer and the seed; and what is made of finished runs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import regard.compare.cost
from regard.compare import Cost, Metric, compare, contender
from regard.compare.cost import measure, measure_here
from regard.compare.plan import order_of
from regard.errors import RegardError
from regard.mixers import MIXERS
from regard.recipes import load_recipe
from regard.training import Bar, Run, train

TINY = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.batch_size=64", "train.device=cpu")


def recipe(*settings: str, name: str = "vit-digits"):
    return load_recipe(name, [*TINY, "train.max_steps=3", *settings])


@pytest.fixture
def free(monkeypatch):
    """Without the cost, which takes a process for each mixer."""
    monkeypatch.setattr(
        "regard.compare.experiment.measure_all", lambda runs, **_: {name: Cost(1e-6, 2.0, 64) for name in runs}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    train(recipe("train.max_steps=6"), path)
    return path


def test_runs_differ_in_mixer_and_seed_alone(free, tmp_path):
    found = compare(recipe("seed=4", "model.drop_path=0.1"), ["local", "lstm"], 2, tmp_path / "out")
    assert [one.name for one in found] == ["local", "lstm"]
    for one in found:
        assert one.runs == tuple(tmp_path / "out" / f"{one.name}-seed-{seed}" for seed in (4, 5))
        recipes = [Run.open(path).recipe() for path in one.runs]
        assert [entry.seed for entry in recipes] == [4, 5]
        for entry in recipes:
            values = entry.to_dict()
            assert values["model"].pop("mixer") == one.name
            options = values["model"].pop("mixer_options")
            assert options == ({"window": 3} if one.name == "local" else {})
            expected = recipe("model.drop_path=0.1").to_dict()
            del expected["model"]["mixer_options"]
            assert values == {**expected, "seed": entry.seed}
        summaries = [Run.open(path).summary() for path in one.runs]
        assert one.scores == tuple(summary["accuracy"] for summary in summaries)
        assert {summary["parameters"] for summary in summaries} == {one.parameters}
        assert {summary["flops"] for summary in summaries} == {one.flops}
        torch.testing.assert_close(one.training_seconds, sum(s["seconds"] for s in summaries) / 2, rtol=1e-9, atol=0)
        assert one.cost == Cost(1e-6, 2.0, 64)
    # The seeds draw other weights, and all are held to the same images.
    first, second = (load_file(path / "model.safetensors") for path in found[0].runs)
    assert not torch.equal(first["head.weight"], second["head.weight"])


def test_a_run_of_a_comparison_is_the_run_of_its_recipe(free, tmp_path):
    (found,) = compare(recipe(), ["local"], 1, tmp_path / "out")
    train(recipe("model.mixer=local"), tmp_path / "alone")
    ours, theirs = (load_file(path / "model.safetensors") for path in (found.runs[0], tmp_path / "alone"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_every_mixer_can_be_compared_under_every_recipe(free, tmp_path):
    found = compare(recipe("train.max_steps=1"), list(MIXERS), 1, tmp_path / "digits")
    assert [one.name for one in found] == list(MIXERS)
    assert len({one.flops for one in found}) > 5
    small = recipe("train.max_steps=1", "train.batch_size=8", name="small-images")
    (one,) = compare(small, ["local"], 1, tmp_path / "small")
    assert one.parameters > 0


def test_one_bar_for_all(free, tmp_path):
    class Noted(Bar):
        def __init__(self) -> None:
            self.labels: list[str] = []
            super().__init__(parts=5, visible=False)

        def part(self, number: int, label: str) -> Bar:
            self.labels.append(f"{number} {label}")
            return super().part(number, label)

    bar = Noted()
    compare(recipe("train.max_steps=1"), ["none", "conv"], 2, tmp_path / "out", bar=bar)
    assert bar.labels == [
        *(f"{number} {name}, seed {seed}" for number, (name, seed) in enumerate(order_of(["none", "conv"], {}, 0, 2))),
        "4 cost",
    ]


@pytest.mark.parametrize(
    ("mixers", "seeds", "told"),
    [
        (["local", "atention"], 1, "unknown mixer 'atention'; did you mean 'attention'"),
        (["local", "local"], 1, "name each mixer once, and at least one; got local, local"),
        ([], 1, "name each mixer once, and at least one; got none"),
        (["local"], 0, "seeds must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_compared(tmp_path, mixers, seeds, told):
    with pytest.raises(RegardError, match=told):
        compare(recipe(), mixers, seeds, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_one_mixer_cannot_serve_is_said_before_any_training(tmp_path):
    with pytest.raises(RegardError, match="window must be odd"):
        compare(recipe("model.mixer_options.local.window=4"), ["none", "local"], 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_alone(run, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for folder in (run, tmp_path / "file"):
        with pytest.raises(RegardError, match="exists already; choose another folder with --out"):
            compare(recipe(), ["none"], 1, folder)
    assert Run.open(run).summary()["steps"] == 6


def test_a_contender_of_a_run(run):
    found = contender("mine", [run], with_cost=False)
    summary = Run.open(run).summary()
    assert (found.name, found.runs, found.cost) == ("mine", (run,), None)
    assert found.metric == Metric("accuracy", True)
    assert found.scores == (summary["accuracy"],)
    assert (found.parameters, found.flops) == (summary["parameters"], summary["flops"])
    assert found.training_seconds == summary["seconds"]


def test_a_run_that_has_not_ended_is_no_contender(tmp_path):
    Run(tmp_path / "run").create(recipe(), {})
    with pytest.raises(RegardError, match="has not ended"):
        contender("mine", [tmp_path / "run"])


@pytest.mark.slow
def test_the_cost_is_measured_in_a_process_of_its_own(run, tmp_path):
    found = measure(run)
    assert found.batch_size == 64
    assert 0 < found.seconds_per_sample < 1
    assert 0 < found.peak_memory_mb < 10_000
    # Eight times the width keeps more activations for the backward pass.
    train(recipe("model.embed_dim=128", "train.max_steps=1"), tmp_path / "wide")
    assert measure(tmp_path / "wide").peak_memory_mb > 1.5 * found.peak_memory_mb


@pytest.mark.slow
def test_measuring_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(RegardError, match=r"measuring its cost failed: .*is not a folder") as caught:
        measure(tmp_path / "none")
    assert "\n" not in str(caught.value)


def test_measuring_leaves_the_weights_alone(run, monkeypatch):
    monkeypatch.setattr(regard.compare.cost, "REPETITIONS", 2)
    before = (run / "model.safetensors").read_bytes()
    assert measure_here(run).seconds_per_sample > 0
    assert (run / "model.safetensors").read_bytes() == before

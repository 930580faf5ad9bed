"""Budgets and the learning rate, against numbers worked out by hand."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from regard.recipes import TrainSection
from regard.tasks import ClassificationTask
from regard.training import Bar, Run, session, train
from regard.training.budget import Budget, learning_rate, leaves_time_to_train


@pytest.mark.parametrize(
    ("limits", "max_steps", "max_seconds"),
    [
        ({"epochs": 3}, 21, None),
        ({"max_steps": 5}, 5, None),
        ({"max_minutes": 0.5}, None, 30.0),
        ({"epochs": 3, "max_steps": 22}, 21, None),
        ({"epochs": 3, "max_steps": 20, "max_minutes": 2}, 20, 120.0),
    ],
)
def test_the_smallest_number_of_steps_counts(limits, max_steps, max_seconds):
    assert Budget.of(TrainSection(**limits), steps_per_epoch=7) == Budget(max_steps, max_seconds)


@pytest.mark.parametrize(
    ("step", "seconds", "spent"),
    [(0, 0.0, 0.0), (5, 1.0, 0.25), (5, 30.0, 0.5), (20, 1.0, 1.0), (1, 60.0, 1.0), (30, 90.0, 1.0)],
)
def test_the_furthest_spent_budget_counts(step, seconds, spent):
    assert Budget(max_steps=20, max_seconds=60.0).spent(step, seconds) == spent


@pytest.mark.parametrize(
    ("spent", "rate"),
    [
        (0.0, 0.0),
        (0.05, 0.1),
        (0.2, 0.4),
        (0.4, 0.04 + 0.36 * (1 + math.cos(math.pi / 4)) / 2),
        (0.6, 0.04 + 0.36 / 2),
        (1.0, 0.04),
    ],
)
def test_a_linear_rise_then_half_a_cosine(spent, rate):
    train = TrainSection(epochs=1, lr=0.4, warmup=0.2, final_lr=0.1)
    torch.testing.assert_close(learning_rate(train, spent, step=3, embed_dim=64), rate, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("warmup", "first", "last"), [(0.0, 0.4, 0.0), (1.0, 0.0, 0.4)])
def test_without_a_rise_and_without_a_fall(warmup, first, last):
    train = TrainSection(epochs=1, lr=0.4, warmup=warmup)
    torch.testing.assert_close(learning_rate(train, 0.0, step=3, embed_dim=64), first, rtol=0, atol=1e-12)
    torch.testing.assert_close(learning_rate(train, 1.0, step=3, embed_dim=64), last, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (["train.max_steps=10"], 10),
        (["train.max_steps=1000", "train.epochs=1"], 21),
        (["train.max_steps=10", "train.epochs=1", "train.max_minutes=60"], 10),
    ],
)
def test_the_schedule_of_a_run_comes_to_its_end(trained, settings, steps):
    run = trained("run", *settings, "train.lr=0.01", "train.warmup=0.2")
    rates = [record["lr"] for record in run.history() if record["kind"] == "train"]
    # In the middle of each step: neither the first nor the last step stands still.
    train = TrainSection(epochs=1, lr=0.01, warmup=0.2)
    expected = [learning_rate(train, (step + 0.5) / steps, step=step + 1, embed_dim=64) for step in range(steps)]
    torch.testing.assert_close(rates, expected, rtol=1e-12, atol=0)
    assert rates[-1] < 0.01 * 0.03
    assert run.summary()["steps"] == steps


def test_the_schedule_of_a_budget_of_time_comes_to_its_end(trained, monkeypatch):
    """A clock that moves on by a tenth of a second whenever it is read."""
    tenths = itertools.count()
    monkeypatch.setattr("regard.training.session.time", SimpleNamespace(monotonic=lambda: next(tenths) / 10))
    run = trained("run", "train.max_steps=500", "train.max_minutes=0.1", "train.lr=0.01", "train.warmup=0.2")
    rates = [record["lr"] for record in run.history() if record["kind"] == "train"]
    # Six seconds, and three readings a step.
    assert run.summary()["steps"] == len(rates) == 20
    train = TrainSection(epochs=1, lr=0.01, warmup=0.2)
    expected = [
        learning_rate(train, max((step + 0.5) / 500, 0.3 * step / 6), step=1, embed_dim=64) for step in range(20)
    ]
    torch.testing.assert_close(rates, expected, rtol=1e-6, atol=0)
    assert rates[-1] < 0.01 * 0.02


def test_a_budget_of_time_ends_a_run(trained):
    summary = trained("run", "train.max_steps=100000000", "train.max_minutes=0.02").summary()
    assert 1 <= summary["steps"] < 100000
    assert summary["seconds"] >= 0.02 * 60


@pytest.mark.parametrize(("embed_dim", "warmup_steps"), [(512, 4000), (22, 7)])
def test_the_transformers_schedule_is_the_papers(embed_dim, warmup_steps):
    """Vaswani et al. 2017, eq. 3; it peaks where the warm-up ends."""
    train = TrainSection(epochs=1, lr=0.5, schedule="transformer", warmup_steps=warmup_steps)
    rates = [learning_rate(train, 0.9, step=step, embed_dim=embed_dim) for step in range(1, 3 * warmup_steps)]
    for step, rate in enumerate(rates, start=1):
        wanted = 0.5 / math.sqrt(embed_dim) * min(1 / math.sqrt(step), step / warmup_steps**1.5)
        assert rate == pytest.approx(wanted, rel=1e-12)
    assert max(rates) == rates[warmup_steps - 1]


@pytest.mark.parametrize(
    ("seconds", "evaluations", "last", "leaves"),
    [
        (0.0, 0.0, 0.0, True),  # the first one, of unknown length
        (100.0, 0.0, 0.0, True),
        (40.0, 5.0, 4.0, False),  # 9 of 44
        (41.0, 5.0, 4.0, True),  # 9 of 45
        (1000.0, 100.0, 300.0, False),
        (1e6, 2e5, 0.1, False),
    ],
)
def test_evaluations_take_at_most_a_fifth(seconds, evaluations, last, leaves):
    assert leaves_time_to_train(seconds, evaluations, last) == leaves


class Clock:
    """A step takes 21 s and an evaluation 30, by a clock that stands still otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: self.now))
        for name, seconds in (("loss", 21.0), ("evaluate", 30.0)):
            monkeypatch.setattr(ClassificationTask, name, self.taking(seconds, getattr(ClassificationTask, name)))

    def taking(self, seconds: float, do: Any) -> Any:
        def slowly(*args: Any, **kwargs: Any) -> Any:
            self.now += seconds
            return do(*args, **kwargs)

        return slowly


def evaluated(run: Run) -> list[int]:
    return [record["step"] for record in run.history() if record["kind"] == "val"]


def test_how_often_it_is_evaluated_changes_no_weight_and_no_speed(trained, monkeypatch):
    """An epoch is a step: all images are its batch."""
    settings = ("train.batch_size=1347", "train.max_steps=13", "model.drop_path=0.1")
    Clock(monkeypatch)
    automatic = trained("automatic", *settings, "train.evaluate_every=none")
    stated = trained("stated", *settings, "train.evaluate_every=1")
    # The second is due where 60 s of evaluations are a fifth of all: after 21 · 12 + 30 s, not after 21 · 11 + 30.
    assert evaluated(automatic) == [1, 12, 13]
    assert evaluated(stated) == list(range(1, 14))
    for run, evaluations in ((automatic, 3), (stated, 13)):
        summary = run.summary()
        assert summary["images_per_second"] == round(1347 / 21, 1)
        assert summary["seconds"] == 13 * 21 + evaluations * 30
    weights = [load_file(run.weights_file) for run in (automatic, stated)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert automatic.recipe().train.evaluate_every is None


def test_a_resumed_run_knows_how_long_its_evaluations_took(trained, recipe, monkeypatch):
    settings = ("train.batch_size=1347", "train.evaluate_every=none")
    Clock(monkeypatch)
    run = trained("run", *settings, "train.max_steps=5")
    train(recipe(*settings, "train.max_steps=13"), run.path, resume=True)
    # Its state is of the end of step 5, before the evaluation there: the next one is due as if it had not ended.
    assert evaluated(run) == [1, 5, 12, 13]


def test_the_progress_tells_how_many_images_a_second(trained, recipe, monkeypatch, tmp_path):
    Clock(monkeypatch)
    told = []
    monkeypatch.setattr(Bar, "update", lambda bar, fraction, text: told.append(text))
    train(recipe("train.batch_size=1347", "train.max_steps=2"), tmp_path / "run")
    assert [text.rpartition(", ")[2] for text in told if text] == ["64.1 images/s"] * 2

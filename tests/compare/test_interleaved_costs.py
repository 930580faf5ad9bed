"""Costs of all contenders in turn: medians with intervals, the order of rounds, what is counted, who fails."""

import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

import regard.compare.cost
from regard.compare.cost import joules, measure_all, measure_here
from regard.compare.operations import count
from regard.compare.processes import ProcessEndedError, Worker
from regard.compare.spread import LEAST, Spread, latency_of, median_of
from regard.errors import RegardError
from regard.layers import Grid
from regard.mixers import MIXERS, create_mixer
from regard.recipes import load_recipe
from regard.training import train

COUNTED = ("attention", "local", "performer", "conv", "mlp", "none")


@pytest.mark.parametrize(
    ("number", "low", "high"),
    # The largest k with P(Binomial(n, 1/2) < k) <= 0.025, from tables of the sign test.
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (30, 10, 21), (100, 40, 61)],
)
def test_the_interval_of_a_median_is_of_order_statistics(number, low, high):
    values = np.random.default_rng(0).permutation(number) + 1.0
    assert median_of(list(values)) == Spread((number + 1) / 2, low, high)


def test_a_few_values_give_their_range():
    assert median_of([3.0]) == Spread(3, 3, 3)
    assert median_of([4.0, 1.0, 2.0]) == Spread(2, 1, 4)
    assert LEAST == 6


def test_which_covers_the_median_of_a_skewed_noise():
    draws = np.random.default_rng(0).lognormal(size=(1000, 30))
    found = [median_of(list(row)) for row in draws]
    assert 0.94 <= np.mean([one.low <= 1 <= one.high for one in found]) <= 0.98


def test_a_rate_has_its_ends_turned_round():
    assert Spread(0.5, 0.25, 1.0).inverse(64) == Spread(128, 64, 256)
    assert Spread(2, 1, 3).overlaps(Spread(4, 3, 5))
    assert not Spread(2, 1, 3).overlaps(Spread(4, 3.1, 5))


def test_percentiles_are_of_all_calls_and_the_interval_of_rounds():
    rounds = np.random.default_rng(0).gamma(2.0, size=(30, 10))
    found = latency_of(rounds.tolist())
    expected = np.percentile(rounds, [50, 95, 99])
    np.testing.assert_allclose([found.p50, found.p95, found.p99], expected, rtol=1e-12)
    medians = np.sort(np.median(rounds, axis=1))
    np.testing.assert_allclose([found.low, found.high], [medians[9], medians[20]], rtol=1e-12)


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("name", MIXERS)
def test_what_is_counted_equals_the_formula_or_is_named(name, prefix):
    grid = Grid(14, 14, prefix)
    mixer = create_mixer(name, 48, num_heads=3, grid=grid)
    x = torch.randn(1, grid.num_tokens, 48)
    counted, uncounted = count(lambda: mixer(x, grid=grid))
    if name in COUNTED:
        # A single prefix token is weighted without a product of matrices: that is no small part of conv alone.
        assert counted == pytest.approx(mixer.flops(grid), rel=0.06 if name == "conv" and prefix else 0.004, abs=0)
        assert not any("(" in one for one in uncounted)
    else:
        assert counted < 0.7 * mixer.flops(grid)
        assert any({"fourier": "FFT", "lstm": "LSTM"}[name] in one for one in uncounted)


def test_softmax_and_norms_are_named_and_views_are_not():
    x = torch.randn(2, 6, 4)
    found = count(lambda: torch.layer_norm(x.transpose(1, 2).reshape(8, 6).clone().softmax(-1), [6]))
    assert found == (0, ("softmax", "layer_norm"))


class Scripted:
    """A process that answers at once: "slow" takes twice as long as "fast", and "ill" cannot be loaded."""

    asked: ClassVar[list] = []

    def __init__(self, module, arguments):
        self.name = arguments[0]

    def ask(self, request):
        self.asked.append((self.name, request))
        if self.name == "ill":
            raise ProcessEndedError(1, "RegardError: no weights")
        if request != "visit":
            facts = {"batch_size": 8, "inference_mb": 1.0, "training_mb": 3.0, "formula": 50, "counted": 49}
            return {**facts, "uncounted": ["fft_r2c (FFT)"]}
        seconds = {"slow": 2e-3, "fast": 1e-3}[self.name]
        return {"singles": [seconds] * 10, "inference": 8 * seconds, "training": 24 * seconds, "joules": None}

    def close(self):
        self.asked.append((self.name, "close"))


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(Scripted, "asked", [])
    monkeypatch.setattr(regard.compare.cost, "Worker", Scripted)
    monkeypatch.setattr(regard.compare.cost, "busy_cores", lambda: 0.75)
    return Scripted.asked


def test_each_round_visits_all_in_an_order_of_its_own(scripted):
    found = measure_all({"slow": "slow", "fast": "fast"})
    visits = [name for name, request in scripted if request == "visit"]
    rounds = [tuple(visits[at : at + 2]) for at in range(0, len(visits), 2)]
    assert len(rounds) == regard.compare.cost.REPETITIONS == 30
    assert set(rounds) == {("slow", "fast"), ("fast", "slow")}
    first = scripted.index(("slow", "visit")), scripted.index(("fast", "visit"))
    assert min(first) > max(scripted.index((name, "warm")) for name in ("slow", "fast"))
    assert [*found] == ["slow", "fast"]
    slow, fast = found.values()
    assert (slow.seconds_per_sample, fast.seconds_per_sample) == (2e-3, 1e-3)
    assert fast.throughput.median == pytest.approx(1000)
    assert fast.training.median == pytest.approx(1000 / 3)
    assert (fast.latency.p50, fast.latency.p99, fast.rounds, fast.batch_size) == (1e-3, 1e-3, 30, 8)
    assert (fast.peak_memory_mb, fast.inference_memory_mb, fast.energy_joules) == (3.0, 1.0, None)
    assert (fast.flops.formula, fast.flops.counted, fast.flops.uncounted) == (50, 49, ("fft_r2c (FFT)",))
    assert fast.load == 0.75
    assert fast.is_busy
    assert [name for name, request in scripted if request == "close"]


def test_long_rounds_are_fewer_but_six(scripted):
    assert measure_all({"slow": "slow"}, seconds=0)["slow"].rounds == 6
    assert measure_all({"slow": "slow"}, rounds=2, seconds=0)["slow"].rounds == 2


def test_who_cannot_be_measured_does_not_end_the_others(scripted):
    told, parts = {}, []
    found = measure_all(
        {"ill": "ill", "fast": "fast"},
        failed=lambda name, error: told.update({name: str(error)}),
        progress=lambda part, words: parts.append(part),
    )
    assert [*found] == ["fast"]
    assert told == {"ill": "ill: measuring its cost failed: RegardError: no weights"}
    assert parts == sorted(parts)
    assert 0 <= parts[0] < parts[-1] < 1
    with pytest.raises(RegardError, match="ill: measuring its cost failed: RegardError: no weights"):
        measure_all({"ill": "ill", "fast": "fast"})
    assert measure_all({}) == {}


def test_energy_is_what_the_processors_count(tmp_path, monkeypatch):
    monkeypatch.setattr(regard.compare.cost, "ENERGY", tmp_path)
    assert joules() is None
    for name, used in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 500_000), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{used}\n")
    assert joules() == 3.5
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert joules() is None


@pytest.mark.parametrize("name", ["pairs_run", "text_run"])
def test_a_run_on_text_has_all_figures(name, request, monkeypatch):
    monkeypatch.setattr(regard.compare.cost, "REPETITIONS", 2)
    monkeypatch.setattr(regard.compare.cost, "WARM_SECONDS", 0.01)
    found = measure_here(request.getfixturevalue(name))
    assert 0 < found.latency.p50 <= found.latency.p95 <= found.latency.p99
    assert 0 < found.training.low <= found.training.median <= found.training.high
    assert found.flops.counted > 0
    if name == "text_run":  # of a window, whatever its text
        assert found.flops.counted == pytest.approx(found.flops.formula, rel=0.01)


@pytest.mark.slow
def test_two_runs_in_turn(tmp_path, monkeypatch):
    tiny = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "train.device=cpu", "train.max_steps=1")
    runs = {name: tmp_path / name for name in ("local", "none")}
    for name, run in runs.items():
        train(load_recipe("vit-digits", [*tiny, f"model.mixer={name}", "model.mixer_options={}"]), run)
    alive = []
    ask = Worker.ask

    def watched(self, request):
        alive.append(sum(worker._process.poll() is None for worker in workers))
        return ask(self, request)

    workers = []
    begin = Worker.__init__
    monkeypatch.setattr(Worker, "__init__", lambda self, *given: (workers.append(self), begin(self, *given))[1])
    monkeypatch.setattr(Worker, "ask", watched)
    found = measure_all(runs, rounds=2, threads=1)
    assert set(alive) == {2}
    assert all(worker._process.poll() == 0 for worker in workers)
    for one in found.values():
        assert one.rounds == 2
        assert one.batch_size == 64
        assert one.flops.counted == pytest.approx(one.flops.formula, rel=0.01)
        assert one.throughput.low <= one.throughput.median <= one.throughput.high
    assert found["local"].flops.counted > found["none"].flops.counted


def test_a_process_says_why_it_ended(monkeypatch):
    monkeypatch.setattr("regard.compare.processes.subprocess.Popen", lambda *_, **options: Dead(options["stderr"]))
    worker = Worker("regard.compare.cost")
    with pytest.raises(ProcessEndedError, match=r"^ValueError: no such model$") as caught:
        worker.ask("facts")
    assert caught.value.status == 1
    worker.close()
    assert str(ProcessEndedError(-9, "")) == "it was ended by signal 9"


class Dead(SimpleNamespace):
    def __init__(self, errors):
        errors.write(b"Traceback\nValueError: no such model\n")
        pipe = SimpleNamespace(write=lambda _: None, flush=lambda: None, readline=lambda: "", close=lambda: None)
        super().__init__(stdin=pipe, stdout=pipe, wait=lambda *_: 1)


def test_the_figures_go_into_json(scripted):
    from dataclasses import asdict

    values = json.loads(json.dumps(asdict(measure_all({"fast": "fast"})["fast"])))
    assert values["latency"]["p50"] == 1e-3
    assert values["flops"] == {"formula": 50, "counted": 49, "uncounted": ["fft_r2c (FFT)"]}

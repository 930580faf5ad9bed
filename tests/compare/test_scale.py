"""`regard scale`: what is measured in which order, what ends a curve, and what is said of it."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

import regard
import regard.compare.scale
from regard.compare.processes import Worker
from regard.compare.scale import SIDES, scale
from regard.compare.scale_page import record_of_scale, sentences, times_table, unit_of, write_scale
from regard.errors import RegardError

COSTS = {
    "attention": lambda n: 60e-6 + (8 * 192**2 * n + 4 * 192 * n**2) / 100e9,
    "conv": lambda n: 100e-6 + 11.7e-6 * n,
    "performer": lambda n: 200e-6 + 3e-6 * n,
    "none": lambda n: 1e-6 + 0 * n,
}


class Watch:
    """A stopwatch with a clock of its own: a call takes what COSTS says, with 5% noise."""

    def __init__(self, limit=math.inf):
        self.now, self.asked, self.limit, self.closed = 0.0, [], limit, False
        self.random = np.random.default_rng(0)

    def monotonic(self):
        return self.now

    def ask(self, request):
        tokens = request["side"] ** 2
        self.asked.append((request["mixer"], tokens, request["step"]))
        if tokens > self.limit:
            return {"failed": "memory"}
        if request["mixer"] == "lstm":
            return {"failed": "lstm: cannot be timed"}
        seconds = COSTS[request["mixer"]](tokens) * (3 if request["step"] == "training" else 1)
        self.now += seconds * (request["samples"] + 1)
        return {"seconds": [seconds * (1 + 0.05 * self.random.standard_normal()) for _ in range(request["samples"])]}

    def close(self):
        self.closed = True


@pytest.fixture
def watch(monkeypatch):
    """watch(mixers, limit=..., **options): a scale by the script, with its stopwatch as `.watch`."""
    monkeypatch.setattr(regard.compare.scale, "busy_cores", lambda: 0.1)

    def measured(mixers, limit=math.inf, **options):
        one = Watch(limit)
        monkeypatch.setattr(regard.compare.scale, "time", one)
        found = scale(mixers, stopwatch=lambda settings: setattr(one, "settings", settings) or one, **options)
        return SimpleNamespace(scale=found, watch=one)

    return measured


def curve_of(record, mixer):
    return next(one for one in record["curves"] if one["mixer"] == mixer)


def curve(found, mixer, step="forward"):
    return next(one for one in found.scale.curves if (one.mixer, one.step) == (mixer, step))


def test_early_points_of_all_mixers_exist_first(watch):
    seen = []
    found = watch(
        ["attention", "conv"],
        seconds=60,
        improved=lambda one: seen.append(
            (
                one.spent,
                {c.mixer: len(c.timings) for c in one.curves},
                sum(len(s) for c in one.curves for s in c.timings.values()),
            )
        ),
    )
    spent, sizes, _ = seen[0]
    assert spent < 20
    assert min(sizes.values()) >= 5
    assert [spent for spent, _, _ in seen] == sorted(spent for spent, _, _ in seen)
    assert seen[-1][2] > 3 * seen[0][2]
    first = list(dict.fromkeys(tokens for mixer, tokens, _ in found.watch.asked if mixer == "attention"))
    assert first == [side**2 for side in SIDES][: len(first)]
    assert found.watch.closed
    assert found.scale.spent <= 60


def test_a_short_time_ends_a_curve_and_says_so(watch):
    found = watch(["attention", "conv"], seconds=10)
    one = curve(found, "attention")
    assert one.largest == 12544
    over = r"(more than the \S+ s that were left for it|and the time was over)"
    assert re.fullmatch(rf"25,600 tokens would take about \d s, {over}", one.ended), one.ended
    assert curve(found, "conv").largest == 50176
    assert curve(found, "conv").ended == ""
    assert any("that end early: attention: 25,600 tokens" in line for line in sentences(found.scale))
    # Beyond what was measured the line is dashed, and no part of the fit.
    beyond = next(one for one in record_of_scale(found.scale)["curves"] if one["mixer"] == "attention")["extrapolated"]
    assert (beyond[0]["tokens"], beyond[-1]["tokens"]) == (12544, 50176)
    assert beyond[-1]["low"] < COSTS["attention"](50176) < beyond[-1]["high"]
    assert one.model.largest == 12544


def test_even_no_time_at_all_gives_a_curve(watch):
    found = watch(["attention", "conv"], seconds=1e-9)
    assert {one.largest for one in found.scale.curves} == {784}
    assert all(one.model is not None for one in found.scale.curves)


def test_slopes_and_the_crossover_are_those_of_the_script(watch, monkeypatch):
    monkeypatch.setattr(regard.compare.scale, "MOST", 12)
    found = watch(["attention", "conv", "performer", "none"], seconds=1800)
    assert {one.largest for one in found.scale.curves} == {50176}
    for mixer, slope in (("attention", 1.992), ("conv", 1.0), ("performer", 1.0), ("none", 0.0)):
        value, low, high = curve(found, mixer).model.slope()
        assert low <= value <= high
        assert value == pytest.approx(slope, abs=0.08)
    crossings = found.scale.crossovers("forward")
    assert crossings["conv"].low < 1148.6 < crossings["conv"].high
    assert crossings["none"].words == "always"
    assert [*crossings] == ["conv", "performer", "none"]
    words = " ".join(sentences(found.scale))
    assert "A forward pass costs less than attention’s: conv: from between " in words
    assert "none: always" in words


def test_operations_have_the_slopes_of_their_formulas(watch):
    found = watch(["attention", "conv"], seconds=1e-9).scale
    by_name = {one.mixer: one for one in found.operations}
    assert by_name["attention"].formula[50176] == 8 * 192**2 * 50176 + 4 * 192 * 50176**2
    assert by_name["attention"].slope == pytest.approx(1.992, abs=1e-3)
    assert by_name["conv"].slope == pytest.approx(1.0, abs=1e-9)
    assert by_name["attention"].counted_at == 784


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("attention", 1.9, 2.05),
        ("performer", 0.97, 1.03),
        ("local", 0.97, 1.03),
        ("conv", 0.97, 1.03),
        ("fourier", 1.03, 1.12),
        ("mlp", 0.97, 1.03),
        ("lstm", 0.97, 1.03),
    ],
)
def test_the_slope_of_operations(name, low, high):
    one = regard.compare.scale._operations(name, SIDES, 192, 3)
    assert low <= one.slope <= high
    if name in ("fourier", "lstm"):
        assert one.counted.uncounted[0].endswith(("(FFT)", "(LSTM)"))
    else:
        assert one.counted.counted == pytest.approx(one.counted.formula, rel=0.01)


def test_no_operations_have_no_slope():
    assert regard.compare.scale._operations("none", [7, 10], 192, 3).slope is None


def test_what_does_not_fit_or_fails_ends_its_curve_alone(watch):
    found = watch(["attention", "conv", "lstm"], limit=7000, memory_gb=12.0, seconds=300)
    assert curve(found, "conv").ended == "12,544 tokens did not fit: above 12 GB"
    assert curve(found, "conv").largest == 6400
    assert curve(found, "lstm").ended == "49 tokens: lstm: cannot be timed"
    assert curve(found, "lstm").model is None
    assert [*found.scale.crossovers("forward")] == ["conv"]
    heads, rows = times_table(found.scale, "forward")
    assert heads == ["tokens", "attention", "conv", "lstm"]
    assert unit_of(found.scale, "forward") == (1e-3, "ms")
    assert rows[0][0] == "49"
    assert rows[0][3] == "–"
    assert float(rows[0][1]) == pytest.approx(1e3 * COSTS["attention"](49), rel=0.1)
    assert rows[-1][0] == "slope"


def test_both_steps_have_curves_and_crossovers(watch):
    found = watch("attention,conv", step="both", seconds=60, max_tokens=3136)
    assert [(one.step, one.mixer) for one in found.scale.curves] == [
        ("forward", "attention"),
        ("forward", "conv"),
        ("training", "attention"),
        ("training", "conv"),
    ]
    assert found.scale.crossovers("training")["conv"].low < 1149 < found.scale.crossovers("training")["conv"].high
    assert found.watch.settings == {
        "embed_dim": 192,
        "num_heads": 3,
        "threads": None,
        "device": "cpu",
        "memory_gb": found.watch.settings["memory_gb"],
    }
    assert 0 < found.watch.settings["memory_gb"] <= 12


def test_without_attention_nothing_is_crossed(watch):
    assert watch(["conv"], seconds=1e-9).scale.crossovers("forward") == {}


@pytest.mark.parametrize(
    ("max_tokens", "sides"),
    [
        (49, [7]),
        (784, [7, 10, 14, 20, 28]),
        (800, [7, 10, 14, 20, 28]),
        (1024, [7, 10, 14, 20, 28, 32]),
        (50176, [*SIDES]),
        (65536, [*SIDES, 256]),
        (100352, [*SIDES, 317]),
    ],
)
def test_the_grids_that_are_measured(max_tokens, sides):
    found = regard.compare.scale._sides(max_tokens)
    assert found == pytest.approx(sides, abs=1)
    assert found[-1] ** 2 <= max_tokens


def test_on_a_busy_machine_there_are_ratios(watch, monkeypatch):
    monkeypatch.setattr(regard.compare.scale, "busy_cores", lambda: 1.5)
    found = watch(["attention", "conv"], seconds=1e-9).scale
    monkeypatch.undo()
    assert found.is_busy
    assert sentences(found)[0].startswith("Measured on a busy machine: other programs kept 1.5 cores")
    heads, rows = times_table(found, "forward")
    assert unit_of(found, "forward")[1] == "times attention at 49"
    assert heads[1:] == ["attention", "conv"]
    assert rows[0][1] == "1"
    assert float(rows[0][2]) == pytest.approx(COSTS["conv"](49) / COSTS["attention"](49), rel=0.15)


def test_the_page_needs_nothing_else_and_holds_the_figures(watch, tmp_path):
    found = watch(["attention", "conv"], seconds=10, step="both").scale
    write_scale(tmp_path / "out", found, "regard scale --mixers 'attention,conv'")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "scale.html",
        "scale.json",
        "scale-forward.svg",
        "scale-training.svg",
    }
    page = (tmp_path / "out" / "scale.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!#|data:)", page.replace('xlink:href="#', ""))
    held = json.loads(re.search(r'id="record">(.*?)</script>', page, re.S)[1])
    assert held == json.loads((tmp_path / "out" / "scale.json").read_text(encoding="utf-8"))
    assert held["schema"] == "regard-scale-1"
    assert [one["mixer"] for one in held["crossovers"]] == ["conv", "conv"]
    assert held["curves"][0]["slope"]["tokens"] == found.curves[0].largest
    assert held["flops"][0]["counted"]["formula"] == held["flops"][0]["counted"]["counted"]
    svg = (tmp_path / "out" / "scale-forward.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg ")
    name = re.search(r'aria-labelledby="(\w+)-title (\w+)-about"', svg)
    assert f'<title id="{name[1]}-title">Time of a forward pass against the number of tokens</title>' in svg
    about = re.search(r"<desc[^>]*>(.*?)</desc>", svg)[1]
    assert re.search(r"attention from 0\.\d+ ms at 49 tokens to \d+ at 6,400", about)
    assert page.count("<desc ") == 2
    assert re.search(
        r"What costs less than attention in a forward pass: conv from between [\d,]+ and [\d,]+ tokens on\.", page
    )
    assert f"end early: attention: {curve_of(held, 'attention')['ended']}" in page
    assert '<th scope="row">12,544</th>' in page


@pytest.mark.slow
def test_the_page_is_read_by_everybody(watch, tmp_path, browser):
    found = watch(["attention", "conv"], seconds=10, step="both").scale
    write_scale(tmp_path / "out", found, "regard scale")
    with browser(tmp_path / "profile") as tab:
        for width in (390, 1280):
            tab.screen(width)
            assert tab.open(tmp_path / "out" / "scale.html") == []
            assert tab.serious() == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert [one for one in tab.requests if not one.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mixers": "atention"}, "scale: unknown mixer 'atention'; did you mean 'attention'?"),
        ({"mixers": "conv,conv"}, "scale: name each mixer once, and at least one; got conv, conv"),
        ({"mixers": []}, "got none"),
        ({"step": "backward"}, "scale: unknown step 'backward'. Known: both, forward, training"),
        ({"max_tokens": 48}, "--max-tokens is 48; it must be at least 49"),
        ({"max_tokens": 10**9}, "at most 16777216"),
        ({"embed_dim": 100}, "--embed-dim is 100; it must be a multiple of 3, the number of heads"),
        ({"embed_dim": 0}, "--embed-dim is 0"),
        ({"seconds": 0}, "--seconds is 0; it must be a number above 0"),
        ({"seconds": math.nan}, "--seconds is nan"),
        ({"threads": 0}, "--threads is 0; it must be at least 1"),
        ({"memory_gb": -1}, "memory_gb is -1"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_measured(options, words):
    with pytest.raises(RegardError, match=re.escape(words)) as caught:
        scale(**{"mixers": "none", **options}, stopwatch=lambda _: pytest.fail("it was measured"))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_new_and_a_device_that_is_not_there(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegardError, match="exists already"):
        regard.scale("none", out=tmp_path)
    with pytest.raises(RegardError, match="unknown device 'cqu'"):
        regard.scale("none", device="cqu")


@pytest.mark.slow
def test_real_mixers_within_a_process_each(tmp_path):
    seen = []
    found = regard.scale(
        "attention,local,none",
        max_tokens=400,
        embed_dim=12,
        step="both",
        seconds=0.01,
        threads=1,
        device="cpu",
        out=tmp_path / "out",
        json_file=tmp_path / "new" / "scale.json",
        improved=lambda one: seen.append(one.spent),
    )
    assert seen
    for one in found.curves:
        assert [*one.timings] == [49, 100, 196, 400]
        assert all(0 < seconds < 5 for many in one.timings.values() for seconds in many)
    forward, training = (next(o for o in found.curves if (o.mixer, o.step) == ("attention", s)) for s in found.steps)
    assert training.points()[400].median > forward.points()[400].median
    assert json.loads((tmp_path / "new" / "scale.json").read_text(encoding="utf-8"))["embed_dim"] == 12
    assert (tmp_path / "out" / "scale.html").exists()


@pytest.mark.slow
def test_a_process_that_runs_out_of_memory_is_begun_again():
    settings = {"embed_dim": 192, "num_heads": 3, "threads": 1, "device": "cpu", "memory_gb": 1.0}
    worker = Worker("regard.compare.scale_worker", [json.dumps(settings)])
    ask = {"mixer": "none", "step": "training", "samples": 1, "expected": None}
    try:
        assert len(worker.ask({**ask, "side": 7})["seconds"]) == 1
        assert worker.ask({**ask, "side": 2000}) == {"failed": "memory"}  # 3 GB for the tokens alone
        assert len(worker.ask({**ask, "side": 7, "samples": 2})["seconds"]) == 2
        assert worker.ask({**ask, "mixer": "new", "side": 7})["failed"].startswith("unknown mixer 'new'")
    finally:
        worker.close()

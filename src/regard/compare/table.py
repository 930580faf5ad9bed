"""The report's table: figures of the contenders side by side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from regard.compare.contender import Contender, Metric
from regard.compare.task_view import TaskView
from regard.draw.plots import human, three_digits
from regard.errors import RegardError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Column:
    """A figure for each contender; None where it was not measured."""

    head: str
    unit: str
    values: tuple[float | None, ...]
    text: Callable[[float], str]
    better: Literal["higher", "lower", ""] = "lower"

    def texts(self) -> list[str]:
        return ["–" if value is None else self.text(value) for value in self.values]

    def best(self) -> list[bool]:
        """Which values are the best: all whose text equals the best one's. With a single contender, none is."""
        known = [value for value in self.values if value is not None]
        if len(self.values) < 2 or not known or not self.better:
            return [False] * len(self.values)
        best = self.text(max(known) if self.better == "higher" else min(known))
        return [text == best for text in self.texts()]


def columns_of(contenders: Sequence[Contender], task_view: TaskView) -> list[Column]:
    """The table's columns. Times have the unit that suits the longest; what no contender has gets no column."""
    metric = contenders[0].metric
    found = [score_interval(metric, contender.scores, task_view.num_held_out) for contender in contenders]
    training = [contender.training_seconds for contender in contenders]
    second, seconds = time_unit(max(training))
    percent = "%" if metric.is_proportion else ""
    better: Literal["higher", "lower"] = "higher" if metric.larger_is_better else "lower"
    columns = [Column(metric.words, percent, tuple(one.mean for one in found), metric.text, better)]
    if any(one.low is not None for one in found):
        words = {
            one.low: f"{metric.text(one.low)} to {metric.text(one.high)}"
            for one in found
            if one.low is not None and one.high is not None
        }
        columns.append(Column("95% interval", percent, tuple(one.low for one in found), lambda low: words[low], ""))
    columns += [
        Column("parameters", "", tuple(float(contender.parameters) for contender in contenders), human),
        Column("operations", f"FLOPs {task_view.counted}", tuple(float(one.flops) for one in contenders), human),
        Column("training", seconds, tuple(training), lambda time: three_digits(time / second)),
    ]
    costs = [contender.cost for contender in contenders]
    measured = [cost for cost in costs if cost is not None]
    if measured:
        times = tuple(None if cost is None else cost.seconds_per_sample for cost in costs)
        memory = tuple(None if cost is None else cost.peak_memory_mb for cost in costs)
        batch = listed(dict.fromkeys(str(cost.batch_size) for cost in measured))
        moment, unit = time_unit(max(cost.seconds_per_sample for cost in measured))
        columns += [
            Column(
                "inference",
                f"{unit} {task_view.timed}, {batch} at once",
                times,
                lambda time: three_digits(time / moment),
            ),
            Column("peak memory", f"MB, training step of {batch}", memory, three_digits),
        ]
    return columns


def interval_words(contenders: Sequence[Contender], task_view: TaskView) -> str:
    """A sentence on the intervals in the table; "" if there are none."""
    counts = {len(contender.scores) for contender in contenders}
    words = []
    if 1 in counts and contenders[0].metric.is_proportion and task_view.num_held_out is not None:
        words.append(
            f"of one seed: Wilson’s, for a proportion of {task_view.num_held_out} {task_view.unit}; it says what other "
            f"{task_view.unit} of the same kind would give, and nothing about other seeds"
        )
    if counts - {1}:
        seeds = listed([str(count) for count in sorted(counts - {1})])
        words.append(f"over {seeds} seeds: Student’s t, for the mean; it says what other seeds would give")
    return "; ".join(words)


def time_unit(longest: float) -> tuple[float, str]:
    """The unit that suits a time in seconds: its length in seconds, and its name."""
    for seconds, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if longest >= 2 * seconds:
            return seconds, name
    return 1e-6, "µs"


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and its 95% confidence interval; both ends are None if there is no interval."""

    mean: float
    low: float | None
    high: float | None


def score_interval(metric: Metric, scores: Sequence[float], num_samples: int | None) -> Interval:
    """Student's interval over several seeds; for one seed Wilson's, if the metric is a proportion of `num_samples`."""
    if metric.is_proportion and num_samples is not None:
        return Interval(*proportion_interval(scores, num_samples))
    if len(scores) > 1:
        return Interval(*_students(scores))
    return Interval(scores[0], None, None)


def proportion_interval(proportions: Sequence[float], num_samples: int) -> tuple[float, float, float]:
    """The mean of an accuracy or another proportion, and its 95% confidence interval: (mean, low, high) in [0, 1].

    Over several seeds it is Student's t of their mean, m ± t s / √n, which says what other seeds would give. For one
    seed it is Wilson's interval of a proportion of `num_samples`, which says what other samples would give.
    RegardError for no proportion or no sample.
    """
    if not proportions or num_samples < 1:
        raise RegardError(f"an interval needs a proportion and a sample, got {len(proportions)} and {num_samples}")
    if len(proportions) > 1:
        mean, low, high = _students(proportions)
        return mean, max(low, 0.0), min(high, 1.0)
    from scipy import stats  # it takes a second to import

    right = round(proportions[0] * num_samples)
    interval = stats.binomtest(right, num_samples).proportion_ci(CONFIDENCE, method="wilson")
    return proportions[0], float(interval.low), float(interval.high)


def _students(scores: Sequence[float]) -> tuple[float, float, float]:
    from scipy import stats

    count = len(scores)
    mean = math.fsum(scores) / count
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (count - 1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return mean, mean - reach, mean + reach


def listed(items: Sequence[str] | dict[str, None]) -> str:
    """a, b and c"""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last

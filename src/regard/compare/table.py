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


Span = tuple[float, float]


@dataclass(frozen=True)
class Column:
    """A figure for each contender, as a number and in words; None and "–" where it was not measured."""

    head: str
    unit: str
    values: tuple[float | None, ...]
    texts: tuple[str, ...]
    better: Literal["higher", "lower", ""] = "lower"
    spans: tuple[Span | None, ...] = ()
    """Where each value may lie: its 95% interval, or the value twice if it is exact; None if that is not known."""

    def keys(self) -> list[float | str]:
        """What the page sorts by; "" for what has no place."""
        return ["" if value is None or not math.isfinite(value) else value for value in self.values]

    def best(self) -> list[bool]:
        """Which value is the best: one at most, whose span lies apart from the span of every other value.

        None is where a span is not known, where the best looks like another, and where there is only one value.
        """
        marks = [False] * len(self.values)
        values = {row: value for row, value in enumerate(self.values) if value is not None and math.isfinite(value)}
        if len(values) < 2 or not self.better or not self.spans:
            return marks
        best = (max if self.better == "higher" else min)(values, key=lambda row: values[row])
        span, others = self.spans[best], [row for row in values if row != best]
        marks[best] = span is not None and all(
            self.texts[row] != self.texts[best] and _apart(span, self.spans[row]) for row in others
        )
        return marks


def _apart(one: Span, other: Span | None) -> bool:
    return other is not None and (one[1] < other[0] or other[1] < one[0])


def columns_of(contenders: Sequence[Contender], task_view: TaskView) -> list[Column]:
    """The table's columns. Times have the unit that suits the longest; what no contender has gets no column."""
    metric, held_out = contenders[0].metric, task_view.num_held_out
    found = [score_interval(metric, contender.scores, held_out) for contender in contenders]
    percent = "%" if metric.is_proportion else ""
    better: Literal["higher", "lower"] = "higher" if metric.larger_is_better else "lower"
    spans = tuple(span_of(metric, contender.scores, held_out) for contender in contenders)
    columns = [_column(metric.words, percent, [one.mean for one in found], metric.text, better, spans)]
    if any(one.low is not None for one in found):
        words = [
            "–" if one.low is None or one.high is None else f"{metric.text(one.low)} to {metric.text(one.high)}"
            for one in found
        ]
        columns.append(Column("95% interval", percent, tuple(one.low for one in found), tuple(words), ""))
    counts = [[one.parameters for one in contenders], [one.flops for one in contenders]]
    for head, unit, whole in zip(("parameters", "operations"), ("", f"FLOPs {task_view.counted}"), counts, strict=True):
        exact = [None if count is None else float(count) for count in whole]
        columns.append(_column(head, unit, exact, human, spans=tuple(None if n is None else (n, n) for n in exact)))
    columns.append(_times("training", "{}", [one.training_seconds for one in contenders]))
    costs = [contender.cost for contender in contenders]
    measured = [cost for cost in costs if cost is not None]
    if measured:
        batch = listed(dict.fromkeys(str(cost.batch_size) for cost in measured))
        unit = f"{{}} {task_view.timed}, {batch} at once"
        memory = [None if cost is None else cost.peak_memory_mb for cost in costs]
        columns += [
            _times("inference", unit, [None if cost is None else cost.seconds_per_sample for cost in costs]),
            _column("peak memory", f"MB, training step of {batch}", memory, three_digits),
        ]
    return columns


def _column(
    head: str,
    unit: str,
    values: Sequence[float | None],
    text: Callable[[float], str],
    better: Literal["higher", "lower"] = "lower",
    spans: tuple[Span | None, ...] = (),
) -> Column:
    texts = tuple("–" if value is None else text(value) for value in values)
    return Column(head, unit, tuple(values), texts, better, spans)


def _times(head: str, unit: str, seconds: Sequence[float | None]) -> Column:
    """A column of times; the name of their unit takes the place of {} in `unit`."""
    length, name = time_unit(max((time for time in seconds if time is not None), default=1.0))
    return _column(head, unit.format(name), seconds, lambda time: three_digits(time / length))


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
    """Student's interval over several seeds; for one seed Wilson's, if the metric is a proportion of `num_samples`.

    A score that is not finite leaves no interval, and no mean.
    """
    if not all(map(math.isfinite, scores)):
        return Interval(math.nan, None, None)
    if metric.is_proportion and num_samples is not None:
        return Interval(*proportion_interval(scores, num_samples))
    if len(scores) > 1:
        return Interval(*_students(scores))
    return Interval(scores[0], None, None)


def span_of(metric: Metric, scores: Sequence[float], num_samples: int | None) -> Span | None:
    """The 95% interval that decides what is best: of seeds and samples together, where both are known.

    Student's interval over seeds [m - a, m + b] and Wilson's over samples [m - c, m + d] give
    [m - √(a² + c²), m + √(b² + d²)]. For one seed it is Wilson's alone, for a metric that is no proportion Student's
    alone. None without either, and for seeds that agree to the last digit, which say nothing about others.
    """
    found = score_interval(metric, scores, num_samples)
    mean, low, high = found.mean, found.low, found.high
    if low is None or high is None:
        return None
    if metric.is_proportion and num_samples is not None and len(scores) > 1:
        _, left, right = proportion_interval([mean], num_samples)
        low, high = mean - math.hypot(mean - low, mean - left), mean + math.hypot(high - mean, right - mean)
    return (low, high) if low < high else None


def proportion_interval(proportions: Sequence[float], num_samples: int) -> tuple[float, float, float]:
    """The mean of an accuracy or another proportion, and its 95% confidence interval: (mean, low, high) in [0, 1].

    Over several seeds it is Student's t of their mean, m ± t s / √n, which says what other seeds would give. For one
    seed it is Wilson's interval of a proportion of `num_samples`, which says what other samples would give.
    RegardError for no proportion or no sample, and for a number that is no proportion.
    """
    if not proportions or num_samples < 1:
        raise RegardError(f"an interval needs a proportion and a sample, got {len(proportions)} and {num_samples}")
    if not all(0 <= proportion <= 1 for proportion in proportions):
        raise RegardError(f"an interval is of proportions, from 0 to 1; got {listed([str(p) for p in proportions])}")
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

"""The report's table: figures of the contenders side by side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from regard.compare.contender import Contender
from regard.compare.plots import human, three_digits
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
        """Which are the best: all that read the same as the best one. None of one alone."""
        known = [value for value in self.values if value is not None]
        if len(self.values) < 2 or not known or not self.better:
            return [False] * len(self.values)
        best = self.text(max(known) if self.better == "higher" else min(known))
        return [text == best for text in self.texts()]


def columns_of(contenders: Sequence[Contender], num_images: int) -> list[Column]:
    """Times are in the unit that suits the longest of them; a cost that was not measured at all has no column."""
    intervals = [accuracy_interval(contender.accuracies, num_images) for contender in contenders]
    words = {low: f"{100 * low:.1f} to {100 * high:.1f}" for _, low, high in intervals}
    training = [contender.training_seconds for contender in contenders]
    second, seconds = time_unit(max(training))
    columns = [
        Column("accuracy", "%", tuple(mean for mean, _, _ in intervals), lambda mean: f"{100 * mean:.1f}", "higher"),
        Column("95% interval", "%", tuple(low for _, low, _ in intervals), lambda low: words[low], ""),
        Column("parameters", "", tuple(float(contender.parameters) for contender in contenders), human),
        Column("operations", "FLOPs an image", tuple(float(contender.flops) for contender in contenders), human),
        Column("training", seconds, tuple(training), lambda time: three_digits(time / second)),
    ]
    costs = [contender.cost for contender in contenders]
    measured = [cost for cost in costs if cost is not None]
    if measured:
        times = tuple(None if cost is None else cost.seconds_per_image for cost in costs)
        memory = tuple(None if cost is None else cost.peak_memory_mb for cost in costs)
        batch = listed(dict.fromkeys(str(cost.batch_size) for cost in measured))
        moment, unit = time_unit(max(cost.seconds_per_image for cost in measured))
        columns += [
            Column("inference", f"{unit} an image, {batch} at once", times, lambda time: three_digits(time / moment)),
            Column("peak memory", f"MB, training step of {batch}", memory, three_digits),
        ]
    return columns


def interval_words(contenders: Sequence[Contender], num_images: int) -> str:
    """Which interval the table gives."""
    counts = {len(contender.accuracies) for contender in contenders}
    words = []
    if 1 in counts:
        words.append(
            f"of one seed: Wilson’s, for a proportion of {num_images} images; it says what other images "
            "of the same kind would give, and nothing of other seeds"
        )
    if counts - {1}:
        seeds = listed([str(count) for count in sorted(counts - {1})])
        words.append(f"over {seeds} seeds: Student’s t, for the mean; it says what other seeds would give")
    return "; ".join(words)


def time_unit(longest: float) -> tuple[float, str]:
    """How many seconds the unit has that suits a time, and its name."""
    for seconds, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if longest >= 2 * seconds:
            return seconds, name
    return 1e-6, "µs"


def accuracy_interval(accuracies: Sequence[float], num_images: int) -> tuple[float, float, float]:
    """Mean accuracy and its 95% confidence interval, (mean, low, high), each in [0, 1].

    Over several seeds: Student's t of their mean, m ± t s / √n, which says what other seeds would give. For one seed:
    Wilson's interval of a proportion of `num_images`, which says what other images of the same kind would give.
    Raises RegardError for no accuracy or no image.
    """
    if not accuracies or num_images < 1:
        raise RegardError(f"an interval needs an accuracy and an image, got {len(accuracies)} and {num_images}")
    from scipy import stats  # it takes a second to import

    count = len(accuracies)
    mean = math.fsum(accuracies) / count
    if count == 1:
        right = round(mean * num_images)
        interval = stats.binomtest(right, num_images).proportion_ci(CONFIDENCE, method="wilson")
        return mean, float(interval.low), float(interval.high)
    deviation = math.sqrt(math.fsum((accuracy - mean) ** 2 for accuracy in accuracies) / (count - 1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return mean, max(mean - reach, 0.0), min(mean + reach, 1.0)


def listed(items: Sequence[str] | dict[str, None]) -> str:
    """a, b and c"""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last

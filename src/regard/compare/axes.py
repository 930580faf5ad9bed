"""What contenders cost, in the words and units of the page: the axes of its plot, and the columns of its table."""

from collections.abc import Callable
from dataclasses import dataclass

from regard.compare.schema import ContenderPart, CostName, RatePart, Record
from regard.draw.plots import human, three_digits

Span = tuple[float, float, float]
"""A value and its interval; the value three times where it is exact or has none."""


@dataclass(frozen=True)
class Axis:
    """A cost of which less is better."""

    name: CostName
    button: str
    """What the button says."""
    words: str
    """What the axis says; {} is the word for one sample."""
    text: Callable[[float], str]
    of: Callable[[ContenderPart], Span | None]
    is_time: bool
    """Then a busy machine leaves only the ratio."""


def _seconds(rate: RatePart | None) -> Span | None:
    """Microseconds for one sample, of samples a second."""
    if rate is None or not rate.median:
        return None
    low, high = rate.low or rate.median, rate.high or rate.median
    return 1e6 / rate.median, 1e6 / high, 1e6 / low


def _exact(value: float | int | None) -> Span | None:
    return (float(value), float(value), float(value)) if value else None


def _latency(one: ContenderPart) -> Span | None:
    found = one.cost.latency_ms
    if found is None or not found.p50:
        return None
    return found.p50, found.low or found.p50, found.high or found.p50


AXES = (
    Axis("throughput", "inference", "µs {} in batches", three_digits, lambda c: _seconds(c.cost.images_per_s), True),
    Axis("latency", "latency", "ms for {} alone, median", three_digits, _latency, True),
    Axis(
        "training",
        "training",
        "µs {} in training",
        three_digits,
        lambda c: _seconds(c.cost.training_images_per_s),
        True,
    ),
    Axis("memory", "memory", "MB, peak of a training step", three_digits, lambda c: _exact(c.cost.peak_mb), False),
    Axis(
        "flops",
        "FLOPs",
        "operations for {} (FLOPs)",
        human,
        lambda c: _exact(c.flops.formula or c.flops.counted),
        False,
    ),
    Axis("parameters", "parameters", "parameters", human, lambda c: _exact(c.parameters), False),
)


def axes_of(record: Record) -> list[Axis]:
    """The costs that are known of some contender with a score; the one that is cheap by the plan comes first."""
    known = [axis for axis in AXES if any(axis.of(one) and one.mean is not None for one in record.contenders)]
    return sorted(known, key=lambda axis: axis.name != record.plan.cost)


def axis_words(axis: Axis, record: Record) -> str:
    if axis.is_time and record.measurement.busy:
        return f"{axis.button}, times that of {base_of(record)}"
    return axis.words.format(record.data.sample)


def base_of(record: Record) -> str:
    """Whose costs are one where a busy machine leaves only ratios."""
    named = [record.recommendation.name] if record.recommendation.name else []
    return [*named, *(one.name for one in record.contenders)][0]


def costs(axis: Axis, record: Record) -> dict[str, Span]:
    """The costs of the contenders that have one; ratios to that of `base_of` where the machine was busy."""
    found = {one.name: span for one in record.contenders if (span := axis.of(one)) is not None}
    if axis.is_time and record.measurement.busy:
        base = found.get(base_of(record)) or next(iter(found.values()), (1.0, 1.0, 1.0))
        return {name: (span[0] / base[0], span[1] / base[0], span[2] / base[0]) for name, span in found.items()}
    return found

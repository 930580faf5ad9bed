"""What a contender costs, as the recommendation and the page put it."""

from collections.abc import Sequence

from regard.compare.contender import Contender, Cost
from regard.compare.recommendation import Price
from regard.draw.plots import human, three_digits
from regard.tasks import TASKS


def prices_of(cost: str, contenders: Sequence[Contender], task: str = "classification") -> dict[str, Price | None]:
    """The chosen cost of each contender, smaller is cheaper; None where it was not measured."""
    sample = sample_of(task)
    return {one.name: _price(cost, one, sample) for one in contenders}


def sample_of(task: str) -> str:
    """ "an image", "a pair", "a window"."""
    unit = TASKS[task].unit.removesuffix("s")
    return f"an {unit}" if unit[0] in "aeio" else f"a {unit}"


def _price(cost: str, one: Contender, sample: str) -> Price | None:
    if cost == "parameters":
        return None if one.parameters is None else _exact(one.parameters, f"{human(one.parameters)} parameters")
    if cost == "flops":
        return None if not one.flops else _exact(one.flops, f"{human(one.flops)} operations {sample}")
    measured = one.cost
    if measured is None:
        return None
    if cost == "memory":
        value = measured.peak_memory_mb
        return _exact(value, f"{three_digits(value)} MB in a training step")
    if cost == "latency":
        return _latency(measured, sample)
    rate = measured.throughput if cost == "throughput" else measured.training
    if rate is None:
        return None
    words = "" if cost == "throughput" else " of training"
    return Price(1 / rate.median, 1 / rate.high, 1 / rate.low, f"{_time(1 / rate.median)}{words} {sample}")


def _latency(cost: Cost, sample: str) -> Price | None:
    found = cost.latency
    return None if found is None else Price(found.p50, found.low, found.high, f"{_time(found.p50)} for {sample} alone")


def _exact(value: float, text: str) -> Price:
    return Price(float(value), float(value), float(value), text)


def _time(seconds: float) -> str:
    for length, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= length:
            return f"{three_digits(seconds / length)} {name}"
    return f"{three_digits(seconds * 1e6)} µs"

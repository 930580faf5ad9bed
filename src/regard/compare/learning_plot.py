"""Learning: small multiples, one for each contender, with the mean over its seeds and the band from least to most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regard.compare.ladder import NARROW, WIDE
from regard.compare.schema import Number, Record
from regard.compare.wording import chart_names, score_text, unit_of
from regard.draw.chart import Chart, Scale, tick_words
from regard.draw.plots import three_digits

POINTS = 48
Sort = Literal["score", "loss"]


@dataclass(frozen=True)
class Band:
    """A contender's curve: the mean over its seeds, their least and their largest, at each epoch."""

    name: str
    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def at(self, part: float | int) -> tuple[float, float, float, float]:
        """(epoch, mean, low, high) at a part of the way, 0 to 1."""
        place = round(part * (len(self.epochs) - 1))
        return self.epochs[place], self.mean[place], self.low[place], self.high[place]


def bands(record: Record, sort: Sort) -> list[Band]:
    """A band for each contender with a curve of two points, over the epochs that all its seeds have."""
    found = []
    for one in record.contenders:
        curves = [getattr(cell, sort) for cell in record.learning if cell.contender == one.name]
        known = [[(x, y) for x, y in curve if y is not None] for curve in curves]
        known = [curve for curve in known if len(curve) > 1]
        if known:
            found.append(_band(one.name, known))
    return found


def _band(name: str, curves: Sequence[Sequence[tuple[float, Number]]]) -> Band:
    lines = [np.array(curve, dtype=float) for curve in curves]
    start, end = max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines)
    epochs = np.linspace(start, max(end, start), POINTS)
    values = np.stack([np.interp(epochs, line[:, 0], line[:, 1]) for line in lines])
    curve = (values.mean(0), values.min(0), values.max(0))
    return Band(name, tuple(epochs.tolist()), *(tuple(line.tolist()) for line in curve))


def learning_plot(record: Record, sort: Sort, name: str, width: float | int = WIDE, *, kind: str = "") -> str:
    """The panels as one `<svg>` element; in each the other contenders' means are grey."""
    found = bands(record, sort)
    columns = 2 if width <= NARROW else 4
    each, tall = width / columns, 150.0
    rows = -(-len(found) // columns)
    chart = Chart(width, rows * tall + 22)
    last = max(band.epochs[-1] for band in found)
    low, high = min(min(band.low) for band in found), max(max(band.high) for band in found)
    y_limits = (low, high) if high > low else (low - 0.5, high + 0.5)
    names = chart_names(record, 20)
    for number, band in enumerate(found):
        left, top = each * (number % columns), tall * (number // columns)
        x = Scale(0.0, last, left + 38, left + each - 12)
        y = Scale(*y_limits, top + tall - 26, top + 26)
        _panel(chart, record, sort, band, x, y, [other for other in found if other is not band])
        chart.text(left, top + 14, names[band.name], "pick" if _picked(record, band) else "")
    chart.text(0, rows * tall + 16, "epochs; line: mean over seeds; band: least to most", "soft")
    return chart.svg(name, f"{words_of(record, sort)} while training", learning_words(record, sort), kind=kind)


def words_of(record: Record, sort: Sort) -> str:
    unit = unit_of(record.metric)
    score = f"{record.metric.words} on {'validation' if record.data.n_val else 'test'} {record.data.unit}" + (
        f", {unit}" if unit else ""
    )
    return score if sort == "score" else "training loss"


def value_text(record: Record, sort: Sort, value: float | int) -> str:
    return score_text(record.metric, value) if sort == "score" else three_digits(value)


def learning_words(record: Record, sort: Sort) -> str:
    """Where each contender begins and ends."""
    said = []
    for band in bands(record, sort):
        (_, first, _, _), (epoch, last, low, high) = band.at(0), band.at(1)
        ends = f"{value_text(record, sort, low)} to {value_text(record, sort, high)}"
        from_to = f"from {value_text(record, sort, first)} to {value_text(record, sort, last)}"
        said.append(f"{band.name}: {from_to} ({ends}) after {epoch:.3g} epochs")
    return "; ".join(said) + "."


def _picked(record: Record, band: Band) -> bool:
    return band.name == record.recommendation.name


def _panel(chart: Chart, record: Record, sort: Sort, band: Band, x: Scale, y: Scale, others: Sequence[Band]) -> None:
    marks = y.ticks(3)
    shown = [100 * mark for mark in marks] if sort == "score" and record.metric.is_proportion else marks
    for mark, words in zip(marks, tick_words(shown), strict=True):
        chart.line(x.start, y(mark), x.end, y(mark), "grid")
        chart.text(x.start - 5, y(mark) + 4, words, "soft", "end")
    marks = x.ticks(3)
    for mark, words in zip(marks, tick_words(marks), strict=True):
        chart.text(x(mark), y.start + 16, words, "soft", "middle")
    for other in others:
        chart.path([(x(at), y(value)) for at, value in zip(other.epochs, other.mean, strict=True)], "others")
    pick = " pick" if _picked(record, band) else ""
    upper = [(x(at), y(value)) for at, value in zip(band.epochs, band.high, strict=True)]
    lower = [(x(at), y(value)) for at, value in zip(band.epochs, band.low, strict=True)]
    if band.low != band.high:
        chart.path([*upper, *reversed(lower)], "spread" + pick, closed=True)
    chart.path([(x(at), y(value)) for at, value in zip(band.epochs, band.mean, strict=True)], "curve" + pick)

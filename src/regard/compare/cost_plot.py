"""Cost against accuracy: a cross for each contender, and the front of those that none beats at less cost."""

from itertools import pairwise

from regard.compare.axes import Axis, Span, axis_words, costs
from regard.compare.ladder import NARROW, WIDE, range_of
from regard.compare.schema import ContenderPart, Record
from regard.compare.wording import chart_names, score_text, span_text, unit_of
from regard.draw.chart import Chart, Scale, tick_words

LONGEST_NAME = 18
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def cost_plot(record: Record, axis: Axis, name: str, width: float | int = WIDE, *, kind: str = "") -> str:
    """The plot as an `<svg>` element, the cheaper the further left, on a logarithmic axis."""
    placed = placed_on(record, axis)
    chart = _drawn(record, axis, placed, width)
    title = f"{record.metric.words} against {axis_words(axis, record)}"
    return chart.svg(name, title, cost_words(record, axis), kind=kind)


def placed_on(record: Record, axis: Axis) -> list[tuple[ContenderPart, Span]]:
    """The contenders with a mean and a cost."""
    known = costs(axis, record)
    return [(one, known[one.name]) for one in record.contenders if one.mean is not None and one.name in known]


def front(record: Record, placed: list[tuple[ContenderPart, Span]]) -> list[tuple[ContenderPart, Span]]:
    """The Pareto front by the means alone, from cheap to dear: nobody cheaper has as good a mean."""
    sign = 1 if record.metric.larger_is_better else -1
    found: list[tuple[ContenderPart, Span]] = []
    for one, cost in sorted(placed, key=lambda pair: (pair[1][0], -sign * (pair[0].mean or 0.0))):
        if not found or sign * (one.mean or 0.0) > sign * (found[-1][0].mean or 0.0):
            found.append((one, cost))
    return found


def cost_text(axis: Axis, record: Record, value: float | int) -> str:
    return f"{value:.2f}×" if axis.is_time and record.measurement.busy else axis.text(value)


def cost_words(record: Record, axis: Axis) -> str:
    """What the plot shows."""
    placed = placed_on(record, axis)
    said = [
        f"{one.name}: {score_text(record.metric, one.mean)}{unit_of(record.metric)}"
        + (f" ({span_text(record.metric, one.low, one.high)})" if one.low is not None else "")
        + f" at {cost_text(axis, record, cost[0])}"
        for one, cost in placed
    ]
    names = ", ".join(one.name for one, _ in front(record, placed))
    return f"{axis_words(axis, record)}. {'; '.join(said)}. Pareto front of the means: {names}."


def _drawn(record: Record, axis: Axis, placed: list[tuple[ContenderPart, Span]], width: float | int) -> Chart:
    letters, height = 12.5, 300.0 if width <= NARROW else 360.0
    chart = Chart(width, height, letters=letters)
    left, right, top, foot = 44.0, width - 12, 30.0, height - 44
    cheap, dear = min(cost[1] for _, cost in placed), max(cost[2] for _, cost in placed)
    x = Scale(cheap / 1.15, dear * 1.15, left, right, log=True)
    y = Scale(*(range_of(record) or (0.0, 1.0)), foot, top)
    unit = f" ({unit_of(record.metric)})" if unit_of(record.metric) else ""
    chart.text(0, 14, f"{record.metric.words}{unit}", "soft")
    marks = y.ticks(6)
    shown = [100 * mark for mark in marks] if record.metric.is_proportion else marks
    for mark, words in zip(marks, tick_words(shown), strict=True):
        chart.line(left, y(mark), right, y(mark), "grid")
        chart.text(left - 6, y(mark) + 4, words, "soft", "end")
    for mark in x.ticks(max(2, int((right - left) / 60))):
        chart.line(x(mark), foot, x(mark), foot + 4, "axis")
        chart.text(x(mark), foot + 18, cost_text(axis, record, mark), "soft", "middle")
    chart.line(left, foot, right, foot, "axis")
    chart.text((left + right) / 2, height - 6, axis_words(axis, record), "soft", "middle")
    ends = front(record, placed)
    steps = _steps([(x(cost[0]), y(one.mean or 0.0)) for one, cost in ends])
    chart.path(steps, "front")
    for one, cost in placed:
        pick = " pick" if one.name == record.recommendation.name else ""
        at = x(cost[0]), y(one.mean or 0.0)
        if one.low is not None and one.high is not None:
            chart.line(at[0], y(one.low), at[0], y(one.high), "thin" + pick)
        if cost[1] < cost[2]:
            chart.line(x(cost[1]), at[1], x(cost[2]), at[1], "thin" + pick)
        chart.dot(*at, 5, "dot" + pick)
    lines = [(min(a, c), min(b, d) - 1, max(a, c) + 1, max(b, d) + 1) for (a, b), (c, d) in pairwise(steps)]
    _names(chart, record, placed, x, y, (left, top - 12, right, foot), lines)
    return chart


def _steps(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase through the points: what is reached at a cost is reached at any higher one."""
    found = points[:1]
    for before, (x, y) in pairwise(points):
        found += [(x, before[1]), (x, y)]
    return found


def _names(
    chart: Chart,
    record: Record,
    placed: list[tuple[ContenderPart, Span]],
    x: Scale,
    y: Scale,
    frame: Box,
    lines: list[Box],
) -> None:
    """Each name beside its point, where it covers least of points, crosses and other names, and stays in the frame."""
    taken = list(lines)
    for one, cost in placed:
        across, up = x(cost[0]), y(one.mean or 0.0)
        taken.append((across - 6, up - 6, across + 6, up + 6))
        taken.append((across - 1, y(one.high or one.mean or 0.0), across + 1, y(one.low or one.mean or 0.0)))
        taken.append((x(cost[1]), up - 1, x(cost[2]), up + 1))
    tall, names = chart.letters, chart_names(record, LONGEST_NAME)
    for one, cost in placed:
        across, up = x(cost[0]), y(one.mean or 0.0)
        words = names[one.name]
        wide = chart.room(words)
        boxes = []
        for shift in (0.0, -1.1, 1.1, -2.2, 2.2, -3.3, 3.3):
            middle = up + shift * tall
            # Beside the cross at its height, beside its upright line above and below it.
            right = max(across + 9, 4 + x(cost[2])) if shift == 0 else across + 9
            left = min(across - 9, x(cost[1]) - 4) if shift == 0 else across - 9
            boxes.append((right, middle - tall / 2, right + wide, middle + tall / 2))
            boxes.append((left - wide, middle - tall / 2, left, middle + tall / 2))
        costs_of = [sum(_overlap(box, other) for other in taken) + 50 * _outside(box, frame) for box in boxes]
        best = costs_of.index(min(costs_of))
        box = boxes[best]
        taken.append(box)
        if best > 1:
            edge = box[0] - 2 if box[0] > across else box[2] + 2
            chart.line(across, up, edge, (box[1] + box[3]) / 2, "leader")
        pick = "pick" if one.name == record.recommendation.name else ""
        chart.text(box[0], box[3] - 0.2 * tall, words, pick)


def _overlap(a: Box, b: Box) -> float:
    """The area of the intersection of two boxes."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _outside(box: Box, frame: Box) -> float:
    """By how many pixels a box leaves the frame."""
    beyond = (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3])
    return sum(max(distance, 0.0) for distance in beyond)

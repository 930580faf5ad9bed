"""Plots: curves against epochs or minutes, points with their intervals, and draws with their medians."""

import math
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from regard.draw.colours import INK, PALETTE
from regard.draw.names import in_one_line

if TYPE_CHECKING:
    import matplotlib.axes

    from regard.draw.figure import Figure

DASHES = ("-", (0, (4.0, 1.5)), (0, (1.0, 1.0)))
LONGEST_NAME = 18
LETTER = 0.078
"""Inches that a letter of a name takes."""

# At most so many points of a training curve; each is the mean over several steps.
POINTS = 120

Curve = tuple[tuple[float, float], ...]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class Series:
    """One contender's curves, a list of (x, y) for each of its runs."""

    name: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Point:
    """One contender's place in a plot, with an interval around y."""

    name: str
    x: float
    y: float
    low: float
    high: float
    """Both are y if no interval is known."""


@dataclass(frozen=True)
class Growth:
    """How something grows: points with their intervals, a fitted line, and that line beyond them with its band."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]
    """x, y, and the interval around y."""
    fitted: Curve = ()
    beyond: tuple[tuple[float, float, float, float], ...] = ()
    """x, y, and the band around y."""


@dataclass(frozen=True)
class Draws:
    """What was measured several times at each of some places."""

    name: str
    scores: tuple[tuple[float | int, tuple[float, ...]], ...]
    """x, and y of each draw."""


def color_of(number: int) -> str:
    return PALETTE[number % len(PALETTE)]


def curves_figure(series: Sequence[Series], *, y_label: str, percent: bool, x_label: str = "epochs") -> "Figure":
    """A line for each run against epochs; a contender's runs have one colour, and its name is written at their end.

    A value that is not finite leaves a gap.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _plot(x_label, y_label, percent, [one.name for one in series] if len(series) > 1 else [])
    ends = []
    for number, one in enumerate(series):
        for curve in one.curves:
            if curve:
                x, y = zip(*curve, strict=True)
                marker = "o" if len(curve) <= 12 else ""
                axes.plot(x, y, color=color_of(number), linestyle=_dashes(number), linewidth=1.6, marker=marker, ms=3)
        known = [(x, y) for x, y in (one.curves[0] if one.curves else ()) if math.isfinite(y)]
        if known:
            ends.append((number, one.name, *known[-1]))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if len(series) > 1:
        _name_ends(axes, ends)
    return figure


def points_figure(points: Sequence[Point], *, x_label: str, y_label: str, percent: bool) -> "Figure":
    """A point with its interval for each contender; one whose y is not finite has no place and is left out."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, axes = _plot(x_label, y_label, percent, [point.name for point in points])
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human(value)))
    for number, point in _placed(points):
        errors = [[max(point.y - point.low, 0)], [max(point.high - point.y, 0)]]
        axes.errorbar(point.x, point.y, errors, color=color_of(number), marker="o", ms=6, linewidth=1.2)
    _name_points(axes, points)
    return figure


def growth_figure(growths: Sequence[Growth], *, x_label: str, y_label: str) -> "Figure":
    """Logarithmic axes: points with their intervals, lines through them, and dashed lines with bands beyond them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axes = _plot(x_label, y_label, False, [one.name for one in growths], height=4.2)
    axes.set(xscale="log", yscale="log")
    ends = []
    for number, one in enumerate(growths):
        color = color_of(number)
        for x, y, low, high in one.points:
            axes.plot([x, x], [low, high], color=color, linewidth=1.0)
            axes.plot(x, y, color=color, marker="o", ms=3.5)
        if one.fitted:
            axes.plot(*zip(*one.fitted, strict=True), color=color, linewidth=1.4)
        if one.beyond:
            x_beyond, y_beyond, lows, highs = zip(*one.beyond, strict=True)
            axes.plot(x_beyond, y_beyond, color=color, linewidth=1.2, linestyle=(0, (4.0, 2.5)))
            axes.fill_between(x_beyond, lows, highs, color=color, alpha=0.16, linewidth=0)
        last = [(x, y) for x, y, *_ in (one.beyond or one.points)][-1:]
        ends += [(number, one.name, x, y) for x, y in last]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: human(value)))
    axes.tick_params(which="minor", length=0)
    _name_ends(axes, ends)
    return figure


def draws_figure(draws: Sequence[Draws], *, x_label: str, y_label: str, percent: bool) -> "Figure":
    """A dot for each draw against a logarithmic axis, whose marks are the values there are, and lines through medians.

    A value that is not finite has no place and is left out.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = _plot(x_label, y_label, percent, [one.name for one in draws], height=3.4)
    axes.set_xscale("log")
    ends = []
    for number, one in enumerate(draws):
        color, known = color_of(number), [(x, list(filter(math.isfinite, scores))) for x, scores in one.scores]
        for x, scores in known:
            axes.plot([x] * len(scores), scores, color=color, marker="o", ms=3.2, linestyle="", alpha=0.55)
        medians = [(x, statistics.median(scores)) for x, scores in known if scores]
        if medians:
            axes.plot(*zip(*medians, strict=True), color=color, linestyle=_dashes(number), linewidth=1.6)
            ends.append((number, one.name, *medians[-1]))
    axes.xaxis.set_major_locator(FixedLocator(sorted({x for one in draws for x, _ in one.scores}) or [1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human(float(value))))
    _name_ends(axes, ends, lines=2)
    return figure


def smooth(curve: Curve) -> Curve:
    """At most `POINTS` points: each is the mean over the same number of neighbours."""
    size = -(-len(curve) // POINTS)
    groups = [curve[start : start + size] for start in range(0, len(curve), size or 1)]
    return tuple(
        (math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group)) for group in groups
    )


def human(value: float | int) -> str:
    """A count in three digits: 950, 151 k, 4.93 M, 17.6 G."""
    for unit in ("", " k", " M", " G"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{three_digits(value)} T"


def three_digits(value: float | int) -> str:
    """0.0214, 3.1, 92.8, 1234: three significant digits, or all digits before the point."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def spread(values: Sequence[float], gap: float | int, high: float | int = 1.0) -> list[float]:
    """Values moved apart, so that neighbours are at least `gap` apart and none is above `high`; their order stays."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    moved = list(values)
    for lower, upper in pairwise(order):
        moved[upper] = max(moved[upper], moved[lower] + gap)
    for i in reversed(order):
        moved[i] = min(moved[i], high)
        high = moved[i] - gap
    return moved


def _plot(
    x_label: str, y_label: str, percent: bool, names: Sequence[str], height: float = 3.0
) -> "tuple[Figure, matplotlib.axes.Axes]":
    """An empty plot, so many inches high, with room for names at its right edge."""
    from matplotlib.ticker import FuncFormatter

    from regard.draw.figure import Figure

    # Inches: the figure, and the margins around the plot.
    width, left, bottom, top = 4.1, 0.45, 0.5, 0.4
    right = 0.15 + (0.3 + LETTER * max(len(in_one_line(name, LONGEST_NAME)) for name in names) if names else 0)
    figure = Figure(figsize=(width, height))
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    axes = figure.add_axes(box, facecolor="none")
    axes.set_xlabel(x_label, fontsize=9, color=INK)
    # Above the axis, where it reads horizontally.
    figure.text(0.04 / width, 1 - 0.05 / height, y_label, fontsize=9.5, color=INK, va="top")
    axes.tick_params(labelsize=8.5, colors=INK, length=0)
    axes.grid(axis="y", color=INK, alpha=0.13, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    return figure, axes


def _name_ends(
    axes: "matplotlib.axes.Axes", ends: Sequence[tuple[int, str, float | int, float]], *, lines: int = 1
) -> None:
    """Writes each name of (number, name, x, y) right of the plot, in so many lines, with a line to its curve's end."""
    axes.autoscale_view()  # the curves fix the limits, and the limits the places of the names
    to_plot = axes.transData + axes.transAxes.inverted()
    heights = spread([float(to_plot.transform((x, y))[1]) for _, _, x, y in ends], gap=0.075 * lines)
    for (number, name, x, y), height in zip(ends, heights, strict=True):
        axes.annotate(
            _in_lines(name, lines),
            xy=(x, y),
            xytext=(1.07, height),
            textcoords="axes fraction",
            fontsize=8.5,
            color=INK,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color_of(number), "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3},
        )


def _in_lines(name: str, lines: int) -> str:
    """A name in at most so many lines."""
    found = textwrap.wrap(in_one_line(name), LONGEST_NAME, break_long_words=False, break_on_hyphens=False)
    if lines == 1 or len(found) < 2:
        return in_one_line(name, LONGEST_NAME)
    return "\n".join([*found[: lines - 1], in_one_line(" ".join(found[lines - 1 :]), LONGEST_NAME)])


def _name_points(axes: "matplotlib.axes.Axes", points: Sequence[Point]) -> None:
    """Writes each point's name beside it, where it covers points, intervals and other names least."""
    axes.autoscale_view()
    inches = axes.transData + axes.figure.dpi_scale_trans.inverted()
    height, away = 0.13, 0.08
    left, bottom, _, top = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).extents
    # The axes' numbers take the space left of the plot and below it.
    taken: list[Box] = [(-9.0, -9.0, left, top), (-9.0, -9.0, 9.0, bottom)]
    for _, point in _placed(points):
        (x, low), (_, y), (_, high) = inches.transform([(point.x, at) for at in (point.low, point.y, point.high)])
        taken += [(x - 0.02, low, x + 0.02, high), _around(x, y, 0.1, 0.1)]
    for number, point in _placed(points):
        x, y = inches.transform((point.x, point.y))
        name = in_one_line(point.name, LONGEST_NAME)
        width = LETTER * len(name)
        sides = [
            (side * (away + width / 2), up * height) for up in (0, 0.7, -0.7, 1.5, -1.5, 2.3, -2.3) for side in (1, -1)
        ]
        boxes = [_around(x + across, y + up, width, height) for across, up in sides]
        covered = [math.fsum(_overlap(box, other) for other in taken) for box in boxes]
        best = covered.index(min(covered))
        taken.append(boxes[best])
        axes.annotate(
            name,
            xy=(point.x, point.y),
            xytext=(72 * sides[best][0], 72 * sides[best][1]),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": color_of(number), "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )


def _placed(points: Sequence[Point]) -> list[tuple[int, Point]]:
    """The points that have a place, with their numbers."""
    return [(number, point) for number, point in enumerate(points) if math.isfinite(point.y)]


def _around(x: float | int, y: float | int, width: float | int, height: float | int) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(a: Box, b: Box) -> float:
    """The area of the intersection of two boxes."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _dashes(number: int) -> str | tuple[int, tuple[float, ...]]:
    """Curves that use a colour again get dashed lines."""
    return DASHES[number // len(PALETTE) % len(DASHES)]

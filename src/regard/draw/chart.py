"""Charts of a few marks as SVG written by hand: their letters have a size in pixels, their colours are the page's.

Each mark has a class, and chart.css says how it looks, in a page as in a file of its own. A chart has a title and a
description for those who cannot see it.
"""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from regard.draw.names import in_one_line

LETTER = 0.58
"""The width of a letter as a fraction of its height, on the safe side."""

STYLE_FILE = Path(__file__).with_name("chart.css")


class Chart:
    """Marks in pixels from the upper left corner, drawn in the order in which they are added."""

    def __init__(self, width: float | int, height: float | int, *, letters: float | int = 12.5) -> None:
        self.width, self.height, self.letters = width, height, letters
        self._marks: list[str] = []

    def rect(self, left: float | int, top: float | int, right: float | int, bottom: float | int, kind: str) -> None:
        size = f'width="{_px(max(right - left, 0))}" height="{_px(max(bottom - top, 0))}"'
        self._marks.append(f'<rect class="{kind}" x="{_px(left)}" y="{_px(top)}" {size}/>')

    def line(self, x1: float | int, y1: float | int, x2: float | int, y2: float | int, kind: str) -> None:
        self._marks.append(f'<line class="{kind}" x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}"/>')

    def dot(self, x: float | int, y: float | int, radius: float | int, kind: str) -> None:
        self._marks.append(f'<circle class="{kind}" cx="{_px(x)}" cy="{_px(y)}" r="{_px(radius)}"/>')

    def path(self, points: Sequence[tuple[float, float]], kind: str, *, closed: bool = False) -> None:
        if points:
            steps = "L".join(f"{_px(x)} {_px(y)}" for x, y in points)
            self._marks.append(f'<path class="{kind}" d="M{steps}{"Z" if closed else ""}"/>')

    def text(self, x: float | int, y: float | int, words: str, kind: str = "", anchor: str = "start") -> None:
        """Words that stand on the line y; anchor: "start", "middle" or "end"."""
        shown = escape(in_one_line(words))
        size = f' font-size="{_px(self.letters)}" text-anchor="{anchor}"'
        self._marks.append(f'<text class="{kind or "words"}" x="{_px(x)}" y="{_px(y)}"{size}>{shown}</text>')

    def room(self, words: str) -> float:
        """About how wide words are."""
        return LETTER * self.letters * len(words)

    def svg(self, name: str, title: str, description: str, *, kind: str = "", style: str = "") -> str:
        """The `<svg>` element; `name` makes its ids unique in a page, `style` is CSS that it brings along."""
        width, height = _px(self.width), _px(self.height)
        inside = f"<style>{style}</style>" if style else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn{f" {kind}" if kind else ""}" role="img" '
            f'aria-labelledby="{name}-title {name}-about" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">'
            f'<title id="{name}-title">{escape(in_one_line(title))}</title>'
            f'<desc id="{name}-about">{escape(in_one_line(description))}</desc>{inside}{"".join(self._marks)}</svg>'
        )


class Scale:
    """Values from low to high onto pixels from start to end, linearly or by their logarithm."""

    def __init__(
        self, low: float | int, high: float | int, start: float | int, end: float | int, *, log: bool = False
    ) -> None:
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, value: float | int) -> float:
        """The place of a value, at the nearer end where it lies outside."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(max(part, 0.0), 1.0)

    def ticks(self, most: int) -> list[float]:
        """At most so many round values within."""
        return log_ticks(self.low, self.high, most) if self.log else ticks(self.low, self.high, most)


def ticks(low: float | int, high: float | int, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    if not high > low:
        return [low]
    power = math.floor(math.log10((high - low) / most))
    for step in (digit * 10.0**exponent for exponent in (power, power + 1, power + 2) for digit in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [number * step for number in range(first, last + 1)]
    return [low]


def log_ticks(low: float | int, high: float | int, most: int) -> list[float]:
    """At most `most` values 1, 2, 5 times powers of ten, or powers alone; linear ones where there are not two such."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits]
        within = [value for value in found if low <= value <= high]
        if 2 <= len(within) <= most:
            return within
    if len(within) > most:
        return within[:: -(-len(within) // most)]
    return ticks(low, high, most)


def tick_words(values: Sequence[float]) -> list[str]:
    """Values with as many decimals as their distance needs."""
    gap = min((b - a for a, b in pairwise(values)), default=1.0)
    decimals = min(max(0, -math.floor(math.log10(gap) + 1e-9)), 6) if gap > 0 else 0
    return [f"{value:.{decimals}f}" for value in values]


def _px(value: float | int) -> str:
    return f"{value:.1f}".removesuffix(".0")

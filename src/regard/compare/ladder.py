"""The ladder of a comparison: a row for each contender, the best first, with its interval and its seeds."""

from regard.compare.schema import ContenderPart, Record
from regard.compare.wording import chart_names, done, failures, margin_words, ranked, score_text, span_text, unit_of
from regard.draw.chart import STYLE_FILE, Chart, Scale, tick_words
from regard.draw.names import in_one_line

WIDE, NARROW = 760.0, 358.0
"""Pixels: on a screen, and on a telephone of 390."""
ROW, TOP, BOTTOM = 34.0, 30.0, 44.0
LONGEST_NAME = 20
# Colours of a ladder in a file of its own: on its own paper, light or dark as its reader's page.
COLOURS = (
    "svg { --paper: #ffffff; --ink: #1b1d22; --soft: #5b5f68; --line: #d9d6d0; --pick: #0a5c95; --band: #e8f0f6; } "
    "@media (prefers-color-scheme: dark) { svg { --paper: #16181c; --ink: #e7e5e0; --soft: #a2a5ac; --line: #3a3d44; "
    "--pick: #7fbdec; --band: #21303c; } }"
)


def ladder(record: Record, name: str, width: float | int = WIDE, *, letters: float | int = 12.5, kind: str = "") -> str:
    """The ladder as an `<svg>` element; `name` makes its ids unique."""
    return _drawn(record, width, letters).svg(name, _title(record), ladder_words(record), kind=kind)


def ladder_svg(record: Record) -> str:
    """The ladder as a file of its own, for a README: readable at 358 pixels, on white and on dark pages."""
    chart = _drawn(record, 460.0, 15.5, margin=14.0)
    style = COLOURS + STYLE_FILE.read_text(encoding="utf-8")
    return chart.svg("ladder", _title(record), ladder_words(record), style=style) + "\n"


def ladder_words(record: Record) -> str:
    """What the ladder shows: each contender's mean, interval and seeds."""
    metric, said = record.metric, []
    for one in ranked(record):
        if one.mean is None:
            said.append(f"{one.name}: no score")
            continue
        seeds = ", ".join(score_text(metric, cell.score) for cell in done(record, one.name))
        interval = f" ({span_text(metric, one.low, one.high)})" if one.low is not None else ""
        said.append(
            f"{one.name}: {score_text(metric, one.mean)}{unit_of(metric)}{interval}"
            + (f", seeds {seeds}" if seeds else "")
        )
    band = f" The band is {margin_words(record)} below the best mean." if _best(record) is not None else ""
    return "; ".join(said) + "." + band.replace("below", "below" if metric.larger_is_better else "above")


def range_of(record: Record) -> tuple[float, float] | None:
    """The least and the largest of all means, intervals and seeds, with the margin and some room; None without any."""
    values = [value for one in record.contenders for value in (one.mean, one.low, one.high) if value is not None]
    values += [cell.score for cell in done(record) if cell.score is not None]
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.5 * record.metric.point
    low, high = low - room, high + room
    return (max(low, 0.0), min(high, 1.0)) if record.metric.is_proportion else (low, high)


def _title(record: Record) -> str:
    return f"{record.metric.words} of {len(record.contenders)} contenders on test {record.data.unit}"


def _best(record: Record) -> float | None:
    return ranked(record)[0].mean if record.contenders else None


def _drawn(record: Record, width: float | int, letters: float | int, margin: float | int = 0.0) -> Chart:
    order, limits, scale = ranked(record), range_of(record), letters / 12.5
    row, top = ROW * scale, TOP * scale + margin
    height = top + row * len(order) + BOTTOM * scale + margin
    chart = Chart(width, height, letters=letters)
    if margin:
        chart.rect(0, 0, width, height, "paper")
    shown = chart_names(record, LONGEST_NAME)
    names = [shown[one.name] for one in order]
    left = margin + max(map(chart.room, names), default=0) + 10 * scale
    right = width - margin - chart.room("00.000") - 4
    foot = top + row * len(order)
    unit = f" ({unit_of(record.metric)})" if unit_of(record.metric) else ""
    better = "better →" if record.metric.larger_is_better else "← better"
    chart.text(margin, top - 14 * scale, f"{record.metric.words}{unit}", "soft")
    chart.text(width - margin, top - 14 * scale, better, "soft", "end")
    if limits is not None:
        at = Scale(*limits, left, right)
        _grid(chart, record, at, top, foot)
        for number, one in enumerate(order):
            _row(chart, record, one, at, top + row * (number + 0.5), scale)
    for number, (one, name) in enumerate(zip(order, names, strict=True)):
        y = top + row * (number + 0.5) + 0.35 * letters
        pick = "pick" if one.name == record.recommendation.name else ""
        chart.text(margin, y, name, pick)
        if one.mean is None:
            chart.text(left, y, _why(record, one, int((width - margin - left) / chart.room("x"))), "soft")
        else:
            chart.text(width - margin, y, score_text(record.metric, one.mean), pick, "end")
    key = "line: 95% interval; circles: seeds; band: within the margin"
    if chart.room(key) > width - 2 * margin:
        key = "95% intervals, seeds, band: the margin"
    chart.text(margin, foot + 36 * scale, key, "soft")
    return chart


def _grid(chart: Chart, record: Record, at: Scale, top: float | int, foot: float | int) -> None:
    """The band within the margin of the best mean, and the axis below the rows."""
    best, margin = _best(record), record.plan.margin * record.metric.point
    if best is not None:
        worst = best - margin if record.metric.larger_is_better else best + margin
        chart.rect(min(at(best), at(worst)), top, max(at(best), at(worst)), foot, "band")
    marks = at.ticks(max(2, int((at.end - at.start) / (chart.letters * 5))))
    shown = [100 * mark for mark in marks] if record.metric.is_proportion else marks
    for mark, words in zip(marks, tick_words(shown), strict=True):
        chart.line(at(mark), top, at(mark), foot, "grid")
        chart.text(at(mark), foot + 1.3 * chart.letters, words, "soft", "middle")


def _row(chart: Chart, record: Record, one: ContenderPart, at: Scale, y: float | int, scale: float | int) -> None:
    if one.mean is None:
        return
    pick = " pick" if one.name == record.recommendation.name else ""
    if one.low is not None and one.high is not None:
        chart.line(at(one.low), y, at(one.high), y, "interval" + pick)
    for cell in done(record, one.name):
        if cell.score is not None:
            chart.dot(at(cell.score), y + 9 * scale, 2.4 * scale, "seed")
    chart.dot(at(one.mean), y, 5 * scale, "dot" + pick)


def _why(record: Record, one: ContenderPart, longest: int) -> str:
    """Why a contender has no score, in as many letters as there is room for."""
    found = [reason for what, reason in failures(record) if what.startswith(f"{one.name}, seed ")]
    return in_one_line(found[0] if found else "not trained yet", longest)

"""The table of a comparison: its columns in groups, and the same as Markdown."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from regard.compare.axes import base_of
from regard.compare.schema import ContenderPart, RatePart, Record
from regard.compare.wording import (
    best_of_all,
    done,
    failures,
    has_one_seed,
    margin_words,
    pair_between,
    progress_words,
    ranked,
    reference_of,
    score_text,
    signed,
    span_text,
    unit_of,
)
from regard.draw.names import in_one_line
from regard.draw.plots import human, three_digits

VERDICT_ORDER = {"better": 3, "as good": 2, "cannot tell": 1, "worse": 0}


@dataclass(frozen=True)
class Cell:
    """A figure in words, what stands below it in small letters, and what the page sorts by; "" has no place."""

    text: str = "–"
    small: str = ""
    key: float | int | str = ""


@dataclass(frozen=True)
class Column:
    group: str
    head: str
    unit: str = ""
    better: Literal["higher", "lower"] = "lower"
    cells: list[Cell] = field(default_factory=list)
    is_detail: bool = False
    """Then it has no place in the Markdown, which is narrower."""

    @property
    def is_known(self) -> bool:
        return any(cell.text != "–" for cell in self.cells)


@dataclass(frozen=True)
class Table:
    kind: str
    names: list[str]
    columns: list[Column]
    picked: str | None
    """The recommended contender: its name is bold."""
    best: str | None
    """The contender that verdicts call better than all others: its score is bold."""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(group, how many of its columns), in order."""
        found: dict[str, int] = {}
        for column in self.columns:
            found[column.group] = found.get(column.group, 0) + 1
        return list(found.items())


def table_of(record: Record) -> Table:
    """The contenders, the best mean first. What nobody has gets no column."""
    order, metric = ranked(record), record.metric
    busy, sample = record.measurement.busy, record.data.unit
    times = f"times {base_of(record)}" if busy and order else ""
    per_second = times or f"{sample} a second"
    milliseconds = times or f"ms, {record.data.sample} alone"
    base = next((one for one in order if one.name == base_of(record)), None) if busy and order else None

    def rate(of: Callable[[ContenderPart], RatePart | None]) -> list[Cell]:
        unit = None if base is None else of(base)
        return [_rate(of(one), unit.median if unit else None) for one in order]

    def latency(which: str) -> list[Cell]:
        found = [one.cost.latency_ms for one in order]
        unit = getattr(base.cost.latency_ms, which, None) if base is not None else None
        cells = []
        for one in found:
            value = getattr(one, which, None)
            within = (one.low, one.high) if one is not None and which == "p50" else (None, None)
            cells.append(_rate(RatePart(median=value, low=within[0], high=within[1]), unit))
        return cells

    reference = next((one for one in order if one.name == reference_of(record)), None)
    columns = [
        Column(
            metric.words,
            "mean",
            unit_of(metric),
            "higher" if metric.larger_is_better else "lower",
            [_score(record, one) for one in order],
        ),
        Column(metric.words, "seeds", "", "higher", [_seeds(record, one) for one in order]),
        Column(metric.words, "verdict", _against(record), "higher", [_verdict(record, one) for one in order]),
        Column("training", "speed", per_second, "higher", rate(lambda one: one.cost.training_images_per_s)),
        Column("training", "memory", "MB, peak of a step", "lower", [_plain(one.cost.peak_mb) for one in order]),
        Column("inference", "speed", per_second, "higher", rate(lambda one: one.cost.images_per_s)),
        Column("inference", "latency", milliseconds, "lower", latency("p50")),
        Column("inference", "p95", times or "ms", "lower", latency("p95"), True),
        Column("inference", "p99", times or "ms", "lower", latency("p99"), True),
        Column("inference", "memory", "MB, peak", "lower", [_plain(one.cost.inference_mb) for one in order], True),
        Column(
            "inference", "energy", f"J, {record.data.sample}", "lower", [_plain(one.cost.energy_j) for one in order]
        ),
        Column("size", "parameters", "", "lower", [_parameters(one, reference) for one in order]),
        Column("size", "operations", f"FLOPs, {record.data.sample}", "lower", [_flops(one) for one in order]),
        Column("size", "tuned", "", "lower", [_tuned(one) for one in order]),
    ]
    return Table(
        record.kind,
        [one.name for one in order],
        [column for column in columns if column.is_known],
        record.recommendation.name,
        best_of_all(record),
    )


def _score(record: Record, one: ContenderPart) -> Cell:
    if one.mean is None:
        return Cell()
    small = span_text(record.metric, one.low, one.high) if one.low is not None else ""
    return Cell(score_text(record.metric, one.mean), small, one.mean)


def _seeds(record: Record, one: ContenderPart) -> Cell:
    number = len(done(record, one.name))
    failed = sum(cell.contender == one.name and cell.status in ("diverged", "cannot_run") for cell in record.cells)
    small = f"{failed} failed" if failed else "dropped out" if one.dropped is not None else ""
    return Cell(str(number), small, number)


def _against(record: Record) -> str:
    reference = reference_of(record)
    return f"against {reference}" if reference is not None and len(record.contenders) > 1 else ""


def _verdict(record: Record, one: ContenderPart) -> Cell:
    reference = reference_of(record)
    if reference is None or len(record.contenders) < 2:
        return Cell()
    if one.name == reference:
        best = "highest mean" if record.metric.larger_is_better else "lowest mean"
        return Cell("recommended" if record.recommendation.name else best, "", 4)
    pair = pair_between(record, one.name, reference)
    if pair is None:
        return Cell()
    known = pair.difference is not None
    text = f"{pair.verdict} {signed(record.metric, pair.difference)}" if known else pair.verdict
    small = f"{signed(record.metric, pair.low)} to {signed(record.metric, pair.high)}" if pair.low is not None else ""
    return Cell(text, small, VERDICT_ORDER[pair.verdict] + (pair.difference or 0.0) / 1e3)


def _rate(rate: RatePart | None, base: float | int | None) -> Cell:
    """A median with its interval; the ratio to `base` where there is one."""
    if rate is None or rate.median is None:
        return Cell()
    if base:
        return Cell(f"{rate.median / base:.2f}×", "", rate.median)
    small = f"{human(rate.low)} to {human(rate.high)}" if rate.low is not None and rate.high is not None else ""
    return Cell(human(rate.median), small, rate.median)


def _plain(value: float | int | None) -> Cell:
    return Cell() if value is None else Cell(three_digits(value), "", value)


def _parameters(one: ContenderPart, reference: ContenderPart | None) -> Cell:
    if one.parameters is None:
        return Cell()
    small = one.matched or ""
    if not small and reference is not None and reference.parameters and one is not reference:
        small = f"{one.parameters / reference.parameters:.2f} times"
    return Cell(human(one.parameters), small, one.parameters)


def _flops(one: ContenderPart) -> Cell:
    """By formula; below it what torch counted, where that differs by more than a hundredth."""
    formula, seen = one.flops.formula, one.flops.counted
    value = formula if formula is not None else seen
    if value is None:
        return Cell()
    differs = formula and seen is not None and abs(seen / formula - 1) > 0.01
    return Cell(human(value), f"counted {human(seen)}" if differs and seen is not None else "", value)


def _tuned(one: ContenderPart) -> Cell:
    if not one.tuned:
        return Cell()
    return Cell(", ".join(f"{key} {value}" for key, value in one.tuned.items()), "", "")


def markdown(record: Record) -> str:
    """The answer and the table as Markdown: what `--markdown` writes and the page's button copies."""
    table = table_of(record)
    columns = [column for column in table.columns if not column.is_detail]
    heads = [record.kind, *(_head(column) for column in columns)]
    lines = [record.recommendation.sentence, "", _line(heads), _line([":---", *("---:" for _ in columns)])]
    for row, name in enumerate(table.names):
        first = f"**{_escaped(name)}**" if name == table.picked else _escaped(name)
        cells = []
        for column in columns:
            cell = column.cells[row]
            text = f"**{cell.text}**" if column is columns[0] and name == table.best else cell.text
            cells.append(_escaped(text, but="*") + (f" ({_escaped(cell.small)})" if cell.small else ""))
        lines.append(_line([first, *cells]))
    lines += ["", f"{progress_words(record)} Margin: {margin_words(record)}. {_intervals(record)}"]
    lines += [f"{_escaped(what)}: {_escaped(reason)}." for what, reason in failures(record)]
    if record.command:
        lines += ["", f"Made by {_code(in_one_line(record.command))}"]
    return "\n".join(lines) + "\n"


def _intervals(record: Record) -> str:
    covers = f"other {record.data.unit}" if has_one_seed(record) else f"other seeds and other {record.data.unit}"
    return f"Intervals of {record.metric.words} are of 95%, for {covers}."


def _code(text: str) -> str:
    """In more backticks than there are in it."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}" if len(ticks) > 1 else f"`{text}`"


def _head(column: Column) -> str:
    grouped = f"{column.group} {column.head}" if column.group in ("training", "inference") else column.head
    head = column.group if column.head == "mean" else grouped
    return _escaped(f"{head}, {column.unit}" if column.unit else head)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str, but: str = "") -> str:
    letters = "".join(letter for letter in r"\`*_[]<|" if letter not in but)
    return re.sub(f"([{re.escape(letters)}])", r"\\\1", in_one_line(text))

"""The page of a comparison: a record, and what the task shows of each contender -> the values of comparison.html.j2."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regard.compare.axes import axes_of, axis_words, base_of
from regard.compare.comparison_table import markdown, table_of
from regard.compare.cost_plot import cost_plot, cost_text, front, placed_on
from regard.compare.ladder import NARROW, WIDE, ladder
from regard.compare.learning_plot import Sort, bands, learning_plot, value_text, words_of
from regard.compare.schema import CellPart, PairPart, Record
from regard.compare.table import listed
from regard.compare.wording import (
    counted,
    difference_text,
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

ONE_SEED = (
    "One seed each yields no verdict on {kind}s: other seeds of the same {kind} may differ as much as two {kind}s do "
    "here."
)
BUSY = "Measured on a busy machine{load}: in the place of times stand ratios to those of {base}."

# The figures are those of benchmarks/verdicts.py, "anything, looks up to 12 seeds"; a test holds them to its result.
KNOWN = (
    "How often a comparison ends with a recommendation depends most on the margin and on how many are compared: of "
    "simulated ones with 450 test images at 97% accuracy and up to 12 seeds, 61% of those of two contenders did with a "
    "margin of 1 point and 74% with 2; of those of eight 7% and 35%."
)


@dataclass(frozen=True)
class Drawn:
    """A figure: the same chart for wide and for narrow screens, and its data as a table."""

    name: str
    caption: str
    heads: list[str]
    rows: list[list[str]]
    wide: str
    narrow: str
    button: str = ""


@dataclass(frozen=True)
class Verdict:
    """A cell of the triangle: the row's contender against the column's."""

    row: str
    column: str
    verdict: str
    difference: str
    interval: str
    kind: str


def values_of(record: Record) -> dict[str, Any]:
    """What the template shows of a record."""
    order = ranked(record)
    undecided = [pair for pair in record.pairs if pair.verdict == "cannot tell"]
    return {
        "record": record,
        "answer": record.recommendation.sentence,
        "rule": record.recommendation.rule[:1].lower() + record.recommendation.rule[1:].removesuffix("."),
        "known": KNOWN if len(order) > 1 else "",
        "progress": progress_words(record),
        "margin": margin_words(record),
        "banners": _banners(record),
        "ladder": _ladder(record) if record.contenders else None,
        "costs": [_cost(record, number) for number in range(len(axes_of(record)))],
        "table": table_of(record),
        "reference": reference_of(record),
        "triangle": _triangle(record) if len(order) > 1 and record.pairs else [],
        "pairs": [_pair_row(record, pair) for pair in record.pairs],
        "p_heads": _p_heads(record),
        "undecided": [_needs_row(record, pair) for pair in undecided],
        "learning": [_learning(record, sort) for sort in ("score", "loss") if bands(record, sort)],
        "robustness": _robustness(record),
        "failures": failures(record),
        "uncounted": _uncounted(record),
        "stopped": _sentence(record.stopped),
        "cells": [_cell_row(record, cell) for cell in record.cells],
        "facts": _facts(record),
        "recipe": _recipe(record),
        "json_text": record.to_json(),
        "markdown": markdown(record),
    }


def _uncounted(record: Record) -> list[tuple[str, str]]:
    """(contenders, the operations of theirs that torch does not count)"""
    found: dict[str, list[str]] = {}
    for one in ranked(record):
        if one.flops.uncounted:
            found.setdefault(", ".join(one.flops.uncounted), []).append(one.name)
    return [(listed(names), words) for words, names in found.items()]


def _sentence(words: str) -> str:
    """With a capital letter and a stop."""
    return words and words[0].upper() + words[1:].removesuffix(".") + "."


def _banners(record: Record) -> list[str]:
    found = []
    if not record.over:
        found.append("The comparison is not over: what follows is from the trainings that have ended.")
    if has_one_seed(record) and not any("One seed" in note for note in record.notes):
        found.append(ONE_SEED.format(kind=record.kind))
    measured = any(axis.is_time for axis in axes_of(record))
    if record.measurement.busy and measured:
        load = "" if record.measurement.load is None else f" (load {record.measurement.load:.1f})"
        found.append(BUSY.format(load=load, base=base_of(record)))
    if record.plan.amended:
        found.append(f"The plan was changed after the first training: {' '.join(record.plan.amended)}")
    return found


def _drawn(
    name: str, caption: str, heads: list[str], rows: list[list[str]], draw: Callable[..., str], button: str = ""
) -> Drawn:
    wide = draw(name=f"{name}-wide", width=WIDE, kind="at-wide")
    narrow = draw(name=f"{name}-narrow", width=NARROW, kind="at-narrow")
    return Drawn(name, caption, heads, rows, wide, narrow, button)


def _ladder(record: Record) -> Drawn:
    metric = record.metric
    rows = [
        [
            one.name,
            score_text(metric, one.mean),
            span_text(metric, one.low, one.high),
            ", ".join(score_text(metric, cell.score) for cell in done(record, one.name)) or "–",
        ]
        for one in ranked(record)
    ]
    head = f"{metric.words}{', ' + unit_of(metric) if unit_of(metric) else ''}"
    caption = f"{metric.words}, the best mean first"
    heads = [record.kind, head, "95% interval", "seeds"]
    return _drawn("ladder", caption, heads, rows, lambda name, width, kind: ladder(record, name, width, kind=kind))


def _cost(record: Record, number: int) -> Drawn:
    axis, metric = axes_of(record)[number], record.metric
    placed = placed_on(record, axis)
    on_front = {one.name for one, _ in front(record, placed)}
    rows = []
    for one, (value, low, high) in sorted(placed, key=lambda pair: pair[1][0]):
        within = f"{cost_text(axis, record, low)} to {cost_text(axis, record, high)}" if low < high else "–"
        rows.append(
            [
                one.name,
                cost_text(axis, record, value),
                within,
                score_text(metric, one.mean),
                span_text(metric, one.low, one.high),
                "yes" if one.name in on_front else "no",
            ]
        )
    words = axis_words(axis, record)
    heads = [record.kind, words, "interval", metric.words, "95% interval", "Pareto front"]

    def draw(name: str, width: float | int, kind: str) -> str:
        return cost_plot(record, axis, name, width, kind=kind)

    return _drawn(f"cost-{axis.name}", f"{metric.words} against {words}", heads, rows, draw, axis.button)


def _learning(record: Record, sort: Sort) -> Drawn:
    rows = []
    for band in bands(record, sort):
        row = [band.name]
        for part in (0.0, 0.25, 0.5, 0.75, 1.0):
            epoch, mean, low, high = band.at(part)
            within = "" if low == high else f" ({value_text(record, sort, low)} to {value_text(record, sort, high)})"
            row.append(f"{value_text(record, sort, mean)}{within} at {epoch:.3g}")
        rows.append(row)
    heads = [record.kind, "start", "a quarter", "half", "three quarters", "end"]

    def draw(name: str, width: float | int, kind: str) -> str:
        return learning_plot(record, sort, name, width, kind=kind)

    caption = f"{words_of(record, sort)}, against epochs"
    return _drawn(f"learning-{sort}", caption[0].upper() + caption[1:], heads, rows, draw)


def _triangle(record: Record) -> list[tuple[str, list[Verdict | None]]]:
    """(row, a verdict for each later contender, None where nothing is known), the best mean first."""
    names = [one.name for one in ranked(record)]
    rows = []
    for number, row in enumerate(names[:-1]):
        cells: list[Verdict | None] = []
        for column in names[number + 1 :]:
            pair = pair_between(record, row, column)
            cells.append(None if pair is None else _verdict(record, pair))
        rows.append((row, cells))
    return rows


def _verdict(record: Record, pair: PairPart) -> Verdict:
    difference, kind = signed(record.metric, pair.difference), pair.verdict.replace(" ", "-")
    return Verdict(pair.a, pair.b, pair.verdict, difference, _within(record, pair), kind)


def _within(record: Record, pair: PairPart) -> str:
    metric = record.metric
    return "–" if pair.low is None else f"{signed(metric, pair.low)} to {signed(metric, pair.high)}"


def _p_heads(record: Record) -> list[str]:
    points = ", points" if record.metric.is_proportion else ""
    return ["pair", "verdict", f"difference{points}", "95% interval", "df", "p", "p (Holm)", "a run beats a run"]


def _pair_row(record: Record, pair: PairPart) -> list[str]:
    return [
        f"{pair.a} – {pair.b}",
        pair.verdict + (f": {pair.reason}" if pair.reason else ""),
        signed(record.metric, pair.difference),
        _within(record, pair),
        "–" if pair.df is None else f"{pair.df:.1f}",
        _p(pair.p),
        _p(pair.p_holm),
        "–" if pair.p_outperform is None else f"{100 * pair.p_outperform:.0f}%",
    ]


def _p(value: float | int | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _needs_row(record: Record, pair: PairPart) -> tuple[str, str]:
    """(pair, what would tell)"""
    needs, now = pair.needs, difference_text(record.metric, pair)
    name = f"{pair.a} and {pair.b}" + (f", now {now}" if pair.difference is not None else "")
    if needs is None:
        return name, pair.reason or "not known"
    if needs.words:
        return name, needs.words
    minutes = "" if needs.minutes is None else f" (about {counted(round(needs.minutes, 1), 'minute')} more)"
    images = "" if needs.images is None else f"about {needs.images:,} test {record.data.unit}"
    if needs.seeds is None:
        return name, f"no number of seeds; {images}" if images else "no number of seeds"
    return name, f"{counted(needs.seeds, 'seed')} in all{minutes}" + (f", or {images}" if images else "")


def _robustness(record: Record) -> list[list[str]]:
    metric = record.metric
    return [
        [
            one.contender,
            one.change,
            score_text(metric, one.score) if one.reason is None else one.reason,
            span_text(metric, one.low, one.high),
            signed(metric, one.drop),
            "–" if one.drop_low is None else f"{signed(metric, one.drop_low)} to {signed(metric, one.drop_high)}",
        ]
        for one in record.robustness
    ]


def _cell_row(record: Record, cell: CellPart) -> list[str]:
    seconds = cell.seconds
    times = (seconds.steps, seconds.evaluation, seconds.saving, seconds.compile)
    return [
        cell.contender,
        str(cell.seed),
        cell.status.replace("_", " "),
        "–" if cell.step is None else str(cell.step),
        score_text(record.metric, cell.score),
        *("–" if value is None else f"{value:.1f}" for value in times),
        "–" if cell.load is None else f"{cell.load:.1f}",
    ]


def _facts(record: Record) -> list[tuple[str, str]]:
    """Where the comparison comes from."""
    plan, data, unit = record.plan, record.data, record.data.unit
    validation = f", {data.n_val} for validation" if data.n_val else ""
    looks = f"; looks at {', '.join(map(str, plan.looks))} seeds" if plan.looks else ""
    facts = [
        ("Data", data.address),
        ("Samples", f"{data.n_train} {unit} for training{validation}, {data.n_test} for the test"),
        ("Fingerprint of the data", data.fingerprint or ""),
        *(fact for fact in data.facts if fact[0] != "Data"),
        ("Recipe", plan.recipe_name),
        ("Budget", f"{plan.budget}, of training alone"),
        ("Until", plan.until + looks),
        ("Margin", margin_words(record)),
        ("False verdicts", f"at most {100 * plan.alpha:g}%, of all pairs and looks together"),
        ("Tuned", plan.tune or ""),
        ("Plan", plan.hash + ("" if not plan.amended else ", changed after the first training")),
        ("Commit", record.commit or ""),
        ("Machine", _machine(record.machine)),
        ("Load before the costs", "" if record.measurement.load is None else f"{record.measurement.load:.2f}"),
        ("Costs", _measured(record)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _measured(record: Record) -> str:
    found = record.measurement
    batch = f"in batches of {found.batch_size}" if found.batch_size else ""
    rounds = f"{found.rounds} rounds, all contenders in turn" if found.rounds else ""
    return "; ".join(one for one in (batch, rounds, *found.notes) if one)


def _machine(values: dict[str, Any]) -> str:
    """As reports say it, where the keys are those of a run; else each key and its value."""
    try:
        accelerator = "no accelerator" if values["accelerator"] == "none" else values["accelerator"]
        processor = f"{values['processor']}, {values['cores']} cores ({values['threads']} threads used)"
        return f"{processor}, {values['memory_gb']} GB of memory, {accelerator}, {values['system']}"
    except KeyError:
        return ", ".join(f"{key} {value}" for key, value in values.items())


def _recipe(record: Record) -> str:
    recipe = record.plan.recipe
    return recipe if isinstance(recipe, str) else json.dumps(recipe, indent=1, ensure_ascii=False)

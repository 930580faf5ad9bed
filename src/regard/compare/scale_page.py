"""A scale as a record for programs, as sentences, as charts, and as a page of its own."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regard.compare.page import render
from regard.compare.scale import BASELINE, Curve, Scale, Step
from regard.compare.table import listed
from regard.draw.plots import Growth, growth_figure, human, three_digits
from regard.draw.svg import described, inline_svg
from regard.files import json_text, write_json, write_whole
from regard.training import machine, versions

SCHEMA = "regard-scale-1"
WORDS = {"forward": "forward pass", "training": "training step"}
FINE = 40
"""Points of a line."""
Table = tuple[list[str], list[list[str]]]
"""The heads, and the rows."""


def record_of_scale(scale: Scale, command: str = "") -> dict[str, Any]:
    """All figures, for programs. Times are in seconds; null is what is not known."""
    return {
        "schema": SCHEMA,
        "command": command,
        "machine": machine(),
        "versions": versions(),
        "embed_dim": scale.embed_dim,
        "num_heads": scale.num_heads,
        "batch_size": 1,
        "threads": scale.threads,
        "device": scale.device,
        "max_tokens": scale.max_tokens,
        "seconds": scale.seconds,
        "spent": scale.spent,
        "load": scale.load,
        "busy": scale.is_busy,
        "curves": [_curve_record(curve, scale.max_tokens) for curve in scale.curves],
        "flops": [
            {
                "mixer": one.mixer,
                "points": [{"tokens": tokens, "formula": flops} for tokens, flops in one.formula.items()],
                "slope": one.slope,
                "counted": {"tokens": one.counted_at, **asdict(one.counted)},
            }
            for one in scale.operations
        ],
        "crossovers": [
            {"step": step, "mixer": mixer, "against": BASELINE, **asdict(found)}
            for step in scale.steps
            for mixer, found in scale.crossovers(step).items()
        ],
    }


def _curve_record(curve: Curve, max_tokens: int) -> dict[str, Any]:
    model = curve.model
    slope: dict[str, float] | None = None
    if model is not None:
        value, low, high = model.slope()
        slope = {"tokens": model.largest, "value": value, "low": low, "high": high}
    return {
        "mixer": curve.mixer,
        "step": curve.step,
        "points": [
            {"tokens": tokens, **asdict(spread), "samples": len(curve.timings[tokens])}
            for tokens, spread in curve.points().items()
        ],
        "ended": curve.ended or None,
        "model": None if model is None else dict(zip("abce", model.terms.tolist(), strict=True)),
        "slope": slope,
        "extrapolated": [
            {"tokens": round(tokens), "seconds": seconds, "low": low, "high": high}
            for tokens, seconds, low, high in _beyond(curve, max_tokens)
        ],
    }


def _beyond(curve: Curve, max_tokens: int) -> list[tuple[float, float, float, float]]:
    """The model from the largest number of tokens that was measured to the largest asked for, with its band."""
    model = curve.model
    if model is None or model.largest >= max_tokens:
        return []
    tokens = [model.largest * (max_tokens / model.largest) ** (part / 12) for part in range(13)]
    low, high = model.band(tokens)
    return list(zip(tokens, model.at(tokens).tolist(), low.tolist(), high.tolist(), strict=True))


def sentences(scale: Scale) -> list[str]:
    """What was found: the slopes, the crossovers, and where curves end."""
    found = [_busy_words(scale)]
    for step in scale.steps:
        slopes = [
            f"{curve.mixer} {value:.2f} ({low:.2f} to {high:.2f}) at {curve.model.largest:,}"
            for curve in scale.of(step)
            if curve.model is not None
            for value, low, high in [curve.model.slope()]
        ]
        if slopes:
            found.append(f"Slope of a {WORDS[step]} at the largest number of tokens measured: {'; '.join(slopes)}.")
        crossings = [f"{mixer}: {_from(one.words)}" for mixer, one in scale.crossovers(step).items()]
        if crossings:
            found.append(f"A {WORDS[step]} costs less than {BASELINE}’s: {'; '.join(crossings)}.")
        found.append(_ends_words(scale, step))
    slopes = [f"{one.mixer} {one.slope:.3f}" for one in scale.operations if one.slope is not None]
    found.append(f"Slope of the operations, by formula, at {scale.operations[0].last:,} tokens: {', '.join(slopes)}.")
    return [words for words in (*found, _uncounted_words(scale)) if words]


def _busy_words(scale: Scale) -> str:
    if not scale.is_busy:
        return ""
    return f"Measured on a busy machine: other programs kept {scale.load:.1f} cores at work. So only ratios are shown."


def _ends_words(scale: Scale, step: Step) -> str:
    ends = [f"{curve.mixer}: {curve.ended}" for curve in scale.of(step) if curve.ended]
    return f"Timings of a {WORDS[step]} that end early: {'; '.join(ends)}." if ends else ""


def _uncounted_words(scale: Scale) -> str:
    names = [f"{one.mixer}: {', '.join(one.counted.uncounted)}" for one in scale.operations if one.counted.uncounted]
    return f"Operations that PyTorch’s counter does not count: {'; '.join(names)}." if names else ""


def answer(scale: Scale) -> str:
    """From where on each mixer costs less than attention, in a sentence for each step."""
    said = []
    for step in scale.steps:
        groups: dict[str, list[str]] = {}
        for mixer, found in scale.crossovers(step).items():
            groups.setdefault(found.words, []).append(mixer)
        if groups:
            parts = [f"{listed(mixers)} {_from(words)}" for words, mixers in groups.items()]
            said.append(f"What costs less than {BASELINE} in a {WORDS[step]}: {'; '.join(parts)}.")
    return " ".join(said)


def _from(words: str) -> str:
    return f"from {words} on" if words.startswith("between") else words


def growth_table(scale: Scale, step: Step) -> Table:
    """A row for each mixer: how its time grows, from where on it costs less than attention."""
    crossovers = scale.crossovers(step)
    heads = ["mixer", "slope", "95% interval", "at tokens", f"less than {BASELINE}"]
    rows = []
    for curve in scale.of(step):
        value, low, high = (math.nan,) * 3 if curve.model is None else curve.model.slope()
        found = crossovers.get(curve.mixer)
        slope = ["–", "–"] if curve.model is None else [f"{value:.2f}", f"{low:.2f} to {high:.2f}"]
        at = "–" if curve.largest is None else f"{curve.largest:,}"
        rows.append([curve.mixer, *slope, at, "–" if found is None else _from(found.words)])
    return heads, rows


def times_table(scale: Scale, step: Step) -> Table:
    """A row for each number of tokens, a column for each mixer: times in the step’s unit, and the slopes."""
    curves = scale.of(step)
    points = [curve.points() for curve in curves]
    sizes = sorted({tokens for one in points for tokens in one})
    length, _ = unit_of(scale, step)
    heads = ["tokens", *(curve.mixer for curve in curves)]
    rows = [
        [f"{tokens:,}", *(three_digits(one[tokens].median / length) if tokens in one else "–" for one in points)]
        for tokens in sizes
    ]
    slopes = [curve.model.slope() if curve.model is not None else None for curve in curves]
    rows.append(["slope", *("–" if slope is None else f"{slope[0]:.2f}" for slope in slopes)])
    return heads, rows


def unit_of(scale: Scale, step: Step) -> tuple[float, str]:
    """The length of a unit in seconds, and its name: ms, or on a busy machine the first timing of attention."""
    if not scale.is_busy:
        return 1e-3, "ms"
    curves = scale.of(step)
    first = next((curve for curve in curves if curve.mixer == BASELINE), curves[0])
    tokens = min(first.timings, default=0)
    if not tokens:
        return 1.0, "s"
    return first.points()[tokens].median, f"times {first.mixer} at {tokens:,}"


def chart(scale: Scale, step: Step) -> str:
    """The curves as SVG, with a title and a description in words."""
    curves = [curve for curve in scale.of(step) if curve.timings]
    length, unit = unit_of(scale, step)
    growths = []
    for curve in curves:
        points = [(tokens, s.median, s.low, s.high) for tokens, s in curve.points().items()]
        fitted: list[tuple[float, float]] = []
        if curve.model is not None:
            first, last = curve.model.smallest, curve.model.largest
            tokens = [first * (last / first) ** (part / FINE) for part in range(FINE + 1)]
            fitted = [(x, y / length) for x, y in zip(tokens, curve.model.at(tokens).tolist(), strict=True)]
        growths.append(
            Growth(
                curve.mixer,
                tuple((x, y / length, low / length, high / length) for x, y, low, high in points),
                tuple(fitted),
                tuple(
                    (x, y / length, low / length, high / length) for x, y, low, high in _beyond(curve, scale.max_tokens)
                ),
            )
        )
    title = f"Time of a {WORDS[step]} against the number of tokens"
    lines = [
        f"{curve.mixer} from {three_digits(one[0].median / length)} {unit} at {min(curve.timings):,} tokens "
        f"to {three_digits(one[-1].median / length)} at {max(curve.timings):,}"
        for curve in curves
        for one in [list(curve.points().values())]
    ]
    words = (
        f"Logarithmic axes. Points are medians with 95% intervals; dashed lines are extrapolated. {'; '.join(lines)}."
    )
    return described(inline_svg(growth_figure(growths, x_label="tokens", y_label=unit)), title, words)


def write_scale(folder: Path, scale: Scale, command: str = "") -> None:
    """scale.html, a page that needs no other file; scale.json; and a chart for each step, scale-forward.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    values = record_of_scale(scale, command)
    charts = {step: chart(scale, step) for step in scale.steps}
    write_json(folder / "scale.json", values)
    for step, svg in charts.items():
        alone = svg.replace("<svg ", '<svg style="color: #1b1d22; background: white; font-family: sans-serif" ', 1)
        _write(folder / f"scale-{step}.svg", alone)
    about = values["machine"]
    cores = f"{scale.threads} thread{'s' * (scale.threads > 1)} of {about['processor']}"
    where = cores if scale.device == "cpu" else f"{scale.device}: {about['accelerator']}"
    lead = (
        f"{listed([curve.mixer for curve in scale.of(scale.steps[0])])}, each alone on one image of "
        f"{min(scale.operations[0].formula):,} to {scale.max_tokens:,} tokens of width {scale.embed_dim} in "
        f"{scale.num_heads} heads, for {scale.spent:.0f} s in all on {where}."
    )
    html = render(
        "scale.html.j2",
        script=False,
        title="What does each mixer cost as images grow?",
        lead=answer(scale) or lead,
        notes=[note for note in (lead if answer(scale) else "", _busy_words(scale)) if note],
        steps=[
            {
                "words": WORDS[step],
                "unit": unit_of(scale, step)[1],
                "svg": svg,
                "growth": growth_table(scale, step),
                "times": times_table(scale, step),
                "ends": _ends_words(scale, step),
            }
            for step, svg in charts.items()
        ],
        uncounted=_uncounted_words(scale),
        flops=_flops_table(scale),
        facts={**about, **values["versions"], "command": command},
        data=json_text(values).replace("<", "\\u003c"),
        version=values["versions"]["regard"],
    )
    _write(folder / "scale.html", html)


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _flops_table(scale: Scale) -> Table:
    heads = ["tokens, FLOPs", *(one.mixer for one in scale.operations)]
    sizes = list(scale.operations[0].formula)
    rows = [[f"{tokens:,}", *(human(one.formula[tokens]) for one in scale.operations)] for tokens in sizes]
    rows.append(["slope", *("–" if one.slope is None else f"{one.slope:.3f}" for one in scale.operations)])
    counted = [
        "–" if not one.counted.formula else f"{_percent(one.counted.counted / one.counted.formula)}"
        for one in scale.operations
    ]
    rows.append([f"counted, of {scale.operations[0].counted_at:,}", *counted])
    return heads, rows


def _percent(part: float) -> str:
    return "–" if not math.isfinite(part) else f"{100 * part:.1f}%"

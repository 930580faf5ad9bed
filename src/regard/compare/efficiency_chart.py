"""What a pre-training saves in labels, as a chart and a table: from a run's label_efficiency.json."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from regard.compare.label_efficiency import FILE
from regard.draw.plots import Draws, draws_figure
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.reading import read_json
from regard.training import Run


class Curve(BaseModel):
    name: str
    scores: list[list[float]]
    """For each number of labels, the accuracy of each draw."""


class Efficiency(BaseModel):
    """Accuracy on held-out images against labels a class."""

    labels: list[int]
    draws: int
    steps: dict[str, int]
    seconds: float
    curves: list[Curve]


@dataclass(frozen=True)
class EfficiencyPart:
    """What the page shows."""

    words: str
    """In the place of the picture for those who cannot see it."""
    svg: str
    labels: Sequence[int]
    rows: list[tuple[str, list[tuple[str, str]]]]
    """(curve, for each number of labels the median in percent and the least and the largest)."""
    draws: int
    steps: str
    minutes: float


def efficiency_of(run: Run) -> Efficiency | None:
    """What was measured; None where nothing was. RegardError for a file that is not whole."""
    file = run.path / FILE
    if not file.exists():
        return None
    values = read_json(file)
    if isinstance(values, dict) and "curves" not in values:
        raise RegardError(f"{file}: the measurement did not end; `regard pretrain --label-efficiency` goes on with it")
    try:
        found = Efficiency.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RegardError(f"{file}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None
    count = len(found.labels)
    if any(len(curve.scores) != count or not all(curve.scores) for curve in found.curves):
        raise RegardError(f"{file}: curves: each needs a list of draws for each of {count} numbers of labels")
    if not found.labels or min(found.labels) < 1 or not found.curves:
        raise RegardError(f"{file}: labels and curves: at least one of each, and no fewer than one label a class")
    return found


def efficiency_part(found: Efficiency) -> EfficiencyPart:
    draws = [
        Draws(_short(one.name), tuple((x, tuple(of)) for x, of in zip(found.labels, one.scores, strict=True)))
        for one in found.curves
    ]
    figure = draws_figure(draws, x_label="labels a class", y_label="accuracy, held-out images", percent=True)
    rows = [(one.name, [_median_and_span(of) for of in one.scores]) for one in found.curves]
    said = [
        f"{name}: {', '.join(f'{cell[0]} with {x}' for x, cell in zip(found.labels, cells, strict=True))}"
        for name, cells in rows
    ]
    return EfficiencyPart(
        words=f"Accuracy against labels a class, medians in percent. {'; '.join(said)}.",
        svg=inline_svg(figure),
        labels=found.labels,
        rows=rows,
        draws=found.draws,
        steps=", ".join(str(found.steps.get(str(number), "–")) for number in found.labels),
        minutes=found.seconds / 60,
    )


def _median_and_span(scores: Sequence[float]) -> tuple[str, str]:
    return _percent(statistics.median(scores)), f"{_percent(min(scores))}–{_percent(max(scores))}"


def _percent(score: float) -> str:
    return f"{100 * score:.1f}" if math.isfinite(score) else "–"


def _short(name: str) -> str:
    """A curve's name without the folders of a teacher's run."""
    first, _, last = name.rpartition(" on ")
    return f"{first} on {last.rstrip('/').rpartition('/')[2]}" if first else name

"""The report: one HTML file with the results, training curves, errors and explanations of trained models."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regard import __version__
from regard.compare.classification import ClassificationView, only_right
from regard.compare.comparison_page import values_of
from regard.compare.contender import Contender, Failure, number, reason_of
from regard.compare.lighter import lighter
from regard.compare.opening import Opening
from regard.compare.page import render
from regard.compare.schema import Record
from regard.compare.table import columns_of, interval_words, listed, score_interval
from regard.compare.task_view import TaskView
from regard.compare.task_views import task_view_of
from regard.draw.plots import Curve, Point, Series, color_of, curves_figure, points_figure, smooth
from regard.draw.svg import inline_svg
from regard.errors import RegardError
from regard.files import write_whole
from regard.recipes import Recipe, TrainSection
from regard.tasks import create_task
from regard.training import Run

LARGEST_PAGE = 1_950_000
"""Bytes of a page of a comparison."""


@dataclass(frozen=True)
class SecondPart:
    """A second part of the page: another run, of any task, with its own data, not compared with the first part."""

    title: str
    contender: Contender
    command: str = ""


@dataclass(frozen=True)
class NotShown:
    """In the place of a contender's section that could not be made."""

    name: str
    not_shown: str
    """The reason, in one line."""


def write_report(
    path: Path,
    *,
    title: str,
    contenders: Sequence[Contender],
    command: str = "",
    notes: Sequence[str] = (),
    second: SecondPart | None = None,
) -> None:
    """Writes the report of one run or of a comparison: one HTML file that needs no other file and no network.

    `command` is the command that repeats it, `notes` are paragraphs below the first one, and `second` stands at the end
    of the page. Everything else is read from the run folders; errors, pictures
    and samples are computed again from each contender's first run and the held-out data.
    RegardError if a run has not ended, if its data cannot be read, if contenders have different data, or if the file
    cannot be written.
    """
    Report(path, title=title, command=command).write(contenders, notes=notes, second=second)


class Report:
    """A page that is written again as a comparison goes on. What it shows of a contender is computed once.

    With `whole` False, the page has the reason in the place of a contender that cannot be shown.
    """

    def __init__(
        self,
        path: Path,
        *,
        title: str,
        command: str = "",
        whole: bool = True,
        task_view: TaskView | None = None,
    ) -> None:
        self.path, self.title, self.command, self.whole = path, title, command, whole
        self.opening: Opening | None = None
        """The head of a page that holds more than a comparison, as that of the demo."""
        self._task_view = task_view
        self._sections: dict[Path, Any] = {}

    def write(
        self,
        contenders: Sequence[Contender],
        *,
        notes: Sequence[str] = (),
        failures: Sequence[Failure] = (),
        second: SecondPart | None = None,
    ) -> list[Failure]:
        """Writes the page as `write_report` does, and returns what could not be shown.

        A contender without a run has a row of dashes; `failures` are listed below the table.
        """
        shown = [contender for contender in contenders if contender.runs]
        if not shown:
            raise RegardError(f"{self.path}: a report needs at least one contender")
        if not self.path.parent.is_dir():
            raise RegardError(f"{self.path}: cannot be written: {self.path.parent} is not a folder")
        runs = [Run.open(run) for contender in shown for run in contender.runs]
        recipes = [run.recipe() for run in runs]
        summaries = [run.summary() for run in runs]
        _require_same_data(runs, recipes)
        self._task_view = task_view = self._task_view or task_view_of(create_task(recipes[0]))
        sections = [self._section(contender, task_view) for contender in shown]
        not_shown = [Failure(f"{one.name}, report", one.not_shown) for one in sections if isinstance(one, NotShown)]
        several = len(contenders) > 1
        html = render(
            "report.html.j2",
            script=several,
            title=self.title,
            lead=_lead(shown, recipes, task_view),
            notes=[*notes, *_not_finite(shown)],
            facts=_facts(recipes, summaries, task_view),
            command=self.command,
            several=several,
            kind="mixer" if len({recipe.model.name for recipe in recipes}) == 1 else "model",
            contenders=shown,
            without_runs=[contender.name for contender in contenders if not contender.runs],
            failures=[*failures, *not_shown],
            task_view=task_view,
            columns=columns_of(shown, task_view),
            intervals=interval_words(shown, task_view),
            pooled=task_view.num_held_out is not None and any(len(contender.runs) > 1 for contender in shown),
            plots=_plots(shown, task_view),
            sections=sections,
            colors=[color_of(number) for number in range(len(shown))],
            second=None if second is None else _second(second, self.path.parent),
            written=datetime.now().astimezone().strftime("%Y-%m-%d"),
            version=summaries[0]["versions"]["regard"],
        )
        write_whole(self.path, lambda beside: beside.write_text(html, encoding="utf-8"))
        return not_shown

    def write_comparison(
        self, record: Record, contenders: Sequence[Contender] = (), *, second: SecondPart | None = None
    ) -> list[Failure]:
        """Writes the page of a comparison, from its record alone but for a section on each contender with a run.

        Returns what could not be shown. RegardError if a run's data cannot be read, or if the file cannot be written.
        """
        if not self.path.parent.is_dir():
            raise RegardError(f"{self.path}: cannot be written: {self.path.parent} is not a folder")
        shown = [contender for contender in contenders if contender.runs]
        sections: list[Any] = []
        only: list[list[tuple[str, str]]] = []
        if shown:
            self._task_view = self._task_view or task_view_of(create_task(Run.open(shown[0].runs[0]).recipe()))
            sections = [self._section(contender, self._task_view) for contender in shown]
            if type(self._task_view) is ClassificationView:
                only = only_right(shown, sections, self._task_view.data.val)
        values = {
            **values_of(record),
            "about": record.metric.about,
            "task_view": self._task_view,
            "only_right": only or [[]] * len(sections),
            "opening": self.opening,
            "second": None if second is None else _second(second, self.path.parent),
            "colors": [color_of(0)],
            "version": record.versions.get("regard", __version__),
        }
        html = _at_most(LARGEST_PAGE, values, sections)
        write_whole(self.path, lambda beside: beside.write_text(html, encoding="utf-8"))
        return [Failure(f"{one.name}, report", one.not_shown) for one in sections if isinstance(one, NotShown)]

    def _section(self, contender: Contender, task_view: TaskView) -> Any:
        """What the task's template shows of a contender's first run."""
        run = contender.runs[0]
        if run not in self._sections:
            try:
                self._sections[run] = task_view.section(contender)
            except Exception as error:
                if self.whole:
                    raise
                self._sections[run] = NotShown(contender.name, reason_of(error))
        section = self._sections[run]
        return section if isinstance(section, NotShown) else replace(section, seeds=len(contender.runs))


def _at_most(size: int, values: dict[str, Any], sections: Sequence[Any]) -> str:
    """The page of a comparison in at most so many bytes: pictures are made smaller, then sections left out."""
    shown, opening = list(sections), values.get("opening")
    first_look = opening.picture.uri if opening is not None and opening.picture is not None else ""
    html = render("comparison.html.j2", script=True, **values, sections=shown)
    for place in range(len(shown), -1, -1):
        if len(html.encode()) > size:
            html = lighter(html, keep=first_look)
        if len(html.encode()) <= size or not place:
            break
        shown[place - 1] = NotShown(shown[place - 1].name, f"this page would be larger than {size / 1e6:g} MB")
        html = render("comparison.html.j2", script=True, **values, sections=shown)
    return html


def _not_finite(contenders: Sequence[Contender]) -> list[str]:
    """A sentence on contenders whose loss is not finite: else it would seem that they find nothing."""
    losses = {one.name: [number(Run(run).summary().get("loss", 0.0)) for run in one.runs] for one in contenders}
    names = [name for name, found in losses.items() if not all(map(math.isfinite, found))]
    if not names:
        return []
    return [f"The loss of {listed(names)} is not finite on these samples, so that its other figures mean nothing."]


def _second(part: SecondPart, folder: Path) -> dict[str, Any]:
    """What the page shows of a second part. Its run's report is linked if it is in a folder below `folder`."""
    contender = part.contender
    runs = [Run.open(run) for run in contender.runs]
    recipes = [run.recipe() for run in runs]
    _require_same_data(runs, recipes)
    task_view = task_view_of(create_task(recipes[0]))
    report = runs[0].report_file
    return {
        "title": part.title,
        "command": part.command,
        "lead": _lead([contender], recipes, task_view),
        "facts": [*task_view.facts(), *_training_facts(recipes, task_view)],
        "columns": columns_of([contender], task_view),
        "contender": contender,
        "task_view": task_view,
        "plots": _plots([contender], task_view),
        "section": task_view.section(contender),
        "report": quote(os.fsencode(report.relative_to(folder).as_posix())) if report.is_relative_to(folder) else "",
    }


def _require_same_data(runs: Sequence[Run], recipes: Sequence[Recipe]) -> None:
    """RegardError if two runs have different data."""
    for run, recipe in zip(runs, recipes, strict=True):
        if (recipe.task, recipe.data) != (recipes[0].task, recipes[0].data):
            raise RegardError(f"{run.path} and {runs[0].path}: not trained on the same data; see [data] in recipe.toml")


def _lead(contenders: Sequence[Contender], recipes: Sequence[Recipe], task_view: TaskView) -> str:
    """One sentence: what was trained, on what, for how long, and what it was tested on."""
    models = list(dict.fromkeys(recipe.model.name for recipe in recipes))
    budget = listed(dict.fromkeys(_budget(recipe.train) for recipe in recipes))
    trained = f"trained on {task_view.trained_on} for {budget}"
    tested = f"and tested on {task_view.tested_on}."
    if len(contenders) == 1:
        mixer = listed(dict.fromkeys(_mixer(recipe) for recipe in recipes))
        with_mixer = f", with the token mixer {mixer}," if mixer else ""
        return f"{listed(models)}{with_mixer} was {trained}, {tested}"
    seeds = max(len(contender.runs) for contender in contenders)
    times = "" if seeds == 1 else f", with {seeds} seeds"
    if len(models) == 1:
        in_turn = f"{models[0]} was trained with {len(contenders)} token mixers in turn, each on {task_view.trained_on}"
        return f"{in_turn} for {budget}{times}, {tested}"
    return f"{listed([_with_mixers(model, recipes) for model in models])} were each {trained}{times}, {tested}"


def _with_mixers(model: str, recipes: Sequence[Recipe]) -> str:
    """A model's name, and how many mixers it was trained with if there were several."""
    mixers = {_mixer(recipe) for recipe in recipes if recipe.model.name == model}
    return model if len(mixers) == 1 else f"{model} with {len(mixers)} token mixers in turn"


def _facts(
    recipes: Sequence[Recipe], summaries: Sequence[dict[str, Any]], task_view: TaskView
) -> list[tuple[str, str]]:
    machines = dict.fromkeys(_machine(summary["machine"]) for summary in summaries)
    versions = dict.fromkeys(", ".join(f"{k} {v}" for k, v in summary["versions"].items()) for summary in summaries)
    return [
        *task_view.facts(),
        *_training_facts(recipes, task_view),
        ("Machine", "; ".join(machines)),
        ("Versions", "; ".join(versions)),
    ]


def _training_facts(recipes: Sequence[Recipe], task_view: TaskView) -> list[tuple[str, str]]:
    train = recipes[0].train
    return [
        ("Model", listed(dict.fromkeys(recipe.model.name for recipe in recipes))),
        ("Budget", f"{_budget(train)}, in batches of {train.batch_size} {task_view.unit}"),
        ("Seeds", listed([str(seed) for seed in sorted({recipe.seed for recipe in recipes})])),
    ]


def _mixer(recipe: Recipe) -> str:
    """The token mixer; "" for a model that has none."""
    mixer: str | Sequence[str] = getattr(recipe.model.config(), "mixer", "")
    return mixer if isinstance(mixer, str) else ", ".join(mixer)


def _budget(train: TrainSection) -> str:
    limits = [(train.epochs, "epoch"), (train.max_steps, "step"), (train.max_minutes, "minute")]
    set_limits = [
        f"{limit:{'.3g' if unit == 'minute' else 'g'}} {unit}{'' if limit == 1 else 's'}"
        for limit, unit in limits
        if limit is not None
    ]
    return set_limits[0] if len(set_limits) == 1 else f"at most {listed(set_limits)} (whichever came first)"


def _machine(values: dict[str, Any]) -> str:
    accelerator = "no accelerator" if values["accelerator"] == "none" else values["accelerator"]
    processor = f"{values['processor']}, {values['cores']} cores ({values['threads']} threads used)"
    return f"{processor}, {values['memory_gb']} GB of memory, {accelerator}, {values['system']}"


def _plots(contenders: Sequence[Contender], task_view: TaskView) -> list[tuple[str, str]]:
    """(what the plot shows, its SVG)"""
    metric = contenders[0].metric
    on, percent = f"{task_view.split} {metric.words}", metric.is_proportion
    histories = [(contender.name, [Run(run).history() for run in contender.runs]) for contender in contenders]
    scores = [
        Series(name, tuple(curve_of(history, "val", metric.name) for history in runs)) for name, runs in histories
    ]
    loss = [
        Series(name, tuple(smooth(curve_of(history, "train", "loss")) for history in runs)) for name, runs in histories
    ]
    names = f" of {listed([contender.name for contender in contenders])}"
    plots = [
        (f"{_capital(on)} against epochs" + names, curves_figure(scores, y_label=on, percent=percent)),
        ("Training loss against epochs" + names, curves_figure(loss, y_label=task_view.loss, percent=False)),
    ]
    if len(contenders) > 1:
        points = [_point(contender, task_view) for contender in contenders]
        has_interval = any(point.low < point.high for point in points)
        figure = points_figure(
            points,
            x_label=f"operations for {task_view.counted} (FLOPs)",
            y_label=f"{on}, 95% interval" if has_interval else on,
            percent=percent,
        )
        plots.append((f"{_capital(on)} against operations" + names, figure))
    return [(words, inline_svg(figure)) for words, figure in plots]


def curve_of(history: Sequence[dict[str, Any]], kind: str, key: str) -> Curve:
    """(epoch, value of `key`) of each record of a kind, "train" or "val", in a run's history."""
    return tuple((record["epoch"], number(record[key])) for record in history if record["kind"] == kind)


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _point(contender: Contender, task_view: TaskView) -> Point:
    found = score_interval(contender.metric, contender.scores, task_view.num_held_out)
    low, high = found.mean if found.low is None else found.low, found.mean if found.high is None else found.high
    return Point(contender.name, float(contender.flops or 0), found.mean, low, high)

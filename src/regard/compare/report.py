"""One HTML file that shows what was trained, how well it does, what it gets wrong, and what it mixes."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from regard.compare.contender import Contender
from regard.compare.plots import (
    Point,
    Series,
    color_of,
    curve_of,
    curves_figure,
    inline_svg,
    points_figure,
    smooth,
)
from regard.compare.section import section_of
from regard.compare.table import accuracy_interval, columns_of, interval_words, listed
from regard.data import ImageClasses
from regard.errors import RegardError
from regard.recipes import Recipe, TrainSection
from regard.tasks import ClassificationTask, create_task
from regard.training import Run
from regard.training.files import write_whole


def write_report(
    path: Path,
    *,
    title: str,
    contenders: Sequence[Contender],
    command: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Writes the report of one run, or of a comparison, as one HTML file that needs no other file and no network.

    `command` makes it again; `notes` are paragraphs below the first. Everything else is read from the run folders.
    Confusion, mistakes and mixing are those of a contender's first run, evaluated anew on the held-out images.
    Raises RegardError where a run has not ended, its data cannot be read, contenders were not held to the same data,
    or the file cannot be written.
    """
    import jinja2

    if not contenders:
        raise RegardError(f"{path}: a report needs at least one contender")
    if not path.parent.is_dir():
        raise RegardError(f"{path}: cannot be written: {path.parent} is not a folder")
    runs = [Run.open(run) for contender in contenders for run in contender.runs]
    recipes = [run.recipe() for run in runs]
    summaries = [run.summary() for run in runs]
    data = _shared_data(runs, recipes)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        title=title,
        lead=_lead(contenders, recipes, data),
        notes=list(notes),
        facts=_facts(recipes, summaries, data),
        command=command,
        several=len(contenders) > 1,
        contenders=contenders,
        columns=columns_of(contenders, len(data.val)),
        intervals=interval_words(contenders, len(data.val)),
        plots=_plots(contenders, len(data.val)),
        sections=[section_of(contender, data.val, recipes[0]) for contender in contenders],
        colors=[color_of(number) for number in range(len(contenders))],
        written=datetime.now().astimezone().strftime("%Y-%m-%d"),
        version=summaries[0]["versions"]["regard"],
    )
    write_whole(path, lambda beside: beside.write_text(html, encoding="utf-8"))


def _shared_data(runs: Sequence[Run], recipes: Sequence[Recipe]) -> ImageClasses:
    """The data of all runs, opened once. RegardError where two runs were not held to the same images."""
    for run, recipe in zip(runs, recipes, strict=True):
        if recipe.data != recipes[0].data:
            raise RegardError(f"{run.path} and {runs[0].path}: not trained on the same data; see [data] in recipe.toml")
    task = create_task(recipes[0])
    if not isinstance(task, ClassificationTask):
        raise RegardError(f"{runs[0].path}: a report can be made of classification, not of {recipes[0].task}")
    return task.data


def _lead(contenders: Sequence[Contender], recipes: Sequence[Recipe], data: ImageClasses) -> str:
    """One sentence that says what was done."""
    model = listed(dict.fromkeys(recipe.model.name for recipe in recipes))
    budget = listed(dict.fromkeys(_budget(recipe.train) for recipe in recipes))
    trained_on = f"{len(data.train)} images of {data.address}"
    tested_on = f"tested on {len(data.val)} images that it had not seen."
    if len(contenders) == 1:
        mixer = listed(dict.fromkeys(_mixer(recipe) for recipe in recipes))
        return f"{model}, with the token mixer {mixer}, was trained on {trained_on} for {budget}, and {tested_on}"
    seeds = max(len(contender.runs) for contender in contenders)
    times = "" if seeds == 1 else f", with {seeds} seeds"
    return (
        f"{model} was trained with {len(contenders)} token mixers in turn, each on {trained_on} for {budget}{times}, "
        f"and {tested_on}"
    )


def _facts(recipes: Sequence[Recipe], summaries: Sequence[dict[str, Any]], data: ImageClasses) -> list[tuple[str, str]]:
    train = recipes[0].train
    split = "split that the data bring" if data.has_val else f"split drawn from seed {recipes[0].data.split_seed}"
    machines = dict.fromkeys(_machine(summary["machine"]) for summary in summaries)
    versions = dict.fromkeys(", ".join(f"{k} {v}" for k, v in summary["versions"].items()) for summary in summaries)
    return [
        ("Data", data.address),
        ("Images", f"{len(data.train)} for training, {len(data.val)} held out; {split}"),
        ("Classes", str(len(data.class_names))),
        ("Model", listed(dict.fromkeys(recipe.model.name for recipe in recipes))),
        ("Budget", f"{_budget(train)}, in batches of {train.batch_size} images"),
        ("Seeds", listed(dict.fromkeys(str(recipe.seed) for recipe in recipes))),
        ("Machine", "; ".join(machines)),
        ("Versions", "; ".join(versions)),
    ]


def _mixer(recipe: Recipe) -> str:
    mixer = recipe.model.config(num_classes=1).mixer
    return mixer if isinstance(mixer, str) else ", ".join(mixer)


def _budget(train: TrainSection) -> str:
    limits = [(train.epochs, "epoch"), (train.max_steps, "step"), (train.max_minutes, "minute")]
    set_limits = [f"{limit:g} {unit}{'' if limit == 1 else 's'}" for limit, unit in limits if limit is not None]
    return set_limits[0] if len(set_limits) == 1 else f"at most {listed(set_limits)} (whichever came first)"


def _machine(values: dict[str, Any]) -> str:
    accelerator = "no accelerator" if values["accelerator"] == "none" else values["accelerator"]
    processor = f"{values['processor']}, {values['cores']} cores ({values['threads']} threads used)"
    return f"{processor}, {values['memory_gb']} GB of memory, {accelerator}, {values['system']}"


def _plots(contenders: Sequence[Contender], num_images: int) -> list[tuple[str, str]]:
    """(what the plot shows, its SVG)"""
    histories = [(contender.name, [Run(run).history() for run in contender.runs]) for contender in contenders]
    accuracy = [
        Series(name, tuple(curve_of(history, "val", "accuracy") for history in runs)) for name, runs in histories
    ]
    loss = [
        Series(name, tuple(smooth(curve_of(history, "train", "loss")) for history in runs)) for name, runs in histories
    ]
    names = f" of {listed([contender.name for contender in contenders])}"
    plots = [
        (
            "Held-out accuracy against epochs" + names,
            curves_figure(accuracy, y_label="held-out accuracy", percent=True),
        ),
        ("Training loss against epochs" + names, curves_figure(loss, y_label="training loss (nats)", percent=False)),
    ]
    if len(contenders) > 1:
        points = [
            Point(contender.name, float(contender.flops), *accuracy_interval(contender.accuracies, num_images))
            for contender in contenders
        ]
        figure = points_figure(
            points, x_label="operations for an image (FLOPs)", y_label="held-out accuracy, 95% interval"
        )
        plots.append(("Held-out accuracy against operations" + names, figure))
    return [(words, inline_svg(figure)) for words, figure in plots]

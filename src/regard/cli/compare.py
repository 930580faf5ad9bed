"""`regard compare` and `regard demo`."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from regard.cli.tables import right, show
from regard.cli.terminal import say
from regard.cli.train import Device, Settings, named, with_device, words
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.api.training import Comparison
    from regard.compare import Contender, SecondPart

DEMO_RECIPE = "vit-digits"
# The demo's second part. On two cores the first takes about five minutes, and evaluating and drawing both about two
# more: with these the whole stays under twelve.
DETECTOR_RECIPE = "detr-small"
DETECTOR_MINUTES = 4.0


def compare(
    mixers: Annotated[
        str,
        typer.Option(
            help="Names of mixers, which take their place in the model, or of models, which take its place, with "
            "commas between; or `all` that can serve (see `regard mixers` and `regard models`)."
        ),
    ] = "all",
    data: Annotated[
        str | None, typer.Option(help="A data address: digits, folder:PATH, numbers, text:PATH, ...")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="What is trained with each mixer; one that suits the data unless given.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs a mixer.")] = 3,
    out: Annotated[Path | None, typer.Option(help="The folder to make (runs/compare-N unless given).")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures into this file too.")
    ] = None,
    settings: Settings = None,
    device: Device = None,
) -> None:
    """Train the same model with several token mixers, alike, and report how good each is and what it costs.

    A training that fails does not end the others. The report holds what has ended, at any moment.
    """
    from regard.api.training import recipe_for

    data = None if data is None else named(data)
    name = recipe or recipe_for(data)
    _compare(mixers, data, name, seeds, out, settings, device, json_file=json_file).require_no_failure()


def demo(
    out: Annotated[Path | None, typer.Option(help="The folder to make (runs/demo-N unless given).")] = None,
    detector_minutes: Annotated[
        float, typer.Option(metavar="MINUTES", help="How long the detector may train; 0 leaves the second part out.")
    ] = DETECTOR_MINUTES,
    settings: Settings = None,
    device: Device = None,
) -> None:
    """Train a small encoder with each of the eight mixers on real handwritten digits, then a detector that finds
    digits in scenes, and report. --set is of the first part."""
    from regard.training import default_run_folder

    if not 0 <= detector_minutes < math.inf:
        raise RegardError(
            f"demo: --detector-minutes is {detector_minutes:g}; it must be a number of minutes, or 0 for no detector"
        )
    folder = out or default_run_folder("demo")
    title = "Eight ways to mix tokens"
    # One seed: three would take a quarter of an hour.
    comparison = _compare("all", None, DEMO_RECIPE, 1, folder, settings, device, title=title, is_demo=True)
    if detector_minutes:
        comparison.write_report(second=_train_detector(folder / "detector", detector_minutes, device))
    comparison.require_no_failure()
    if detector_minutes:
        say(f"{comparison.report_file} now holds both parts")


def _train_detector(folder: Path, minutes: float, device: str | None) -> "SecondPart":
    """Trains the demo's detector, as `regard train` would, and says how good it is."""
    from regard.api.training import train_run
    from regard.compare import SecondPart, contender
    from regard.recipes import load_recipe

    settings = [f"train.max_minutes={minutes:g}"]
    recipe = load_recipe(DETECTOR_RECIPE, with_device(settings, device))
    say(f"now a detector, for {minutes:g} minutes", err=True)
    command = words(["regard", "train", DETECTOR_RECIPE], None, settings, device)
    run, summary = train_run(DETECTOR_RECIPE, recipe, folder, command=command)
    say(
        f"detector: AP {summary['ap']:.3f}, AP50 {summary['ap50']:.3f} on held-out scenes",
        f"report: {run.report_file}",
    )
    return SecondPart("Objects in images, by a detector", contender(folder.name, [folder], with_cost=False), command)


def _compare(
    mixers: str,
    data: str | None,
    recipe: str,
    seeds: int,
    out: Path | None,
    settings: list[str] | None,
    device: str | None,
    title: str | None = None,
    *,
    is_demo: bool = False,
    json_file: Path | None = None,
) -> "Comparison":
    """Runs a comparison, and prints its table and where its report is."""
    from regard.recipes import load_recipe

    resolved = load_recipe(recipe, with_device(settings, device), address=data)

    from regard.api.training import Comparison
    from regard.tasks import TASKS

    names = "all" if mixers == "all" else [name.strip() for name in mixers.split(",") if name.strip()]
    comparison = Comparison(resolved, names, seeds, out)
    if comparison.left_out:
        say(comparison.left_out, err=True)
    options = shlex.split(words([], data, settings, device))
    try:
        comparison.run(recipe, options, title=title, with_dinov2=is_demo, json_file=json_file)
    finally:  # also where it is interrupted
        ended = [contender for contender in comparison.contenders if contender.runs]
        if ended:
            _show_table(ended, TASKS[resolved.task].unit)
            say(f"report: {comparison.report_file}")
    return comparison


def _show_table(contenders: "Sequence[Contender]", unit: str) -> None:
    """A row for each contender. `unit` is the task's: images, pairs."""
    from regard.compare import score_interval

    metric, sample = contenders[0].metric, unit.removesuffix("s")
    heads = (metric.words, "parameters", "MFLOP", f"µs/{sample}", "peak MB", "s")
    table = Table(Column("mixer", no_wrap=True), *(right(head) for head in heads))
    for found in contenders:
        score = score_interval(metric, found.scores, None).mean
        cost = found.cost
        table.add_row(
            found.name,
            metric.text(score) + "%" * metric.is_proportion,
            "" if found.parameters is None else f"{found.parameters:,}",
            "" if found.flops is None else f"{found.flops / 1e6:.2f}",
            "" if cost is None else f"{cost.seconds_per_sample * 1e6:.0f}",
            "" if cost is None else f"{cost.peak_memory_mb:.1f}",
            "" if found.training_seconds is None else f"{found.training_seconds:.0f}",
        )
    show(table)
    say(
        f"{metric.words} on held-out data; MFLOP and µs/{sample} of inference; peak MB of a training step; "
        "s of training"
    )

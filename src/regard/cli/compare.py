"""`regard compare` and `regard demo`."""

import math
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from regard.cli.tables import right, show
from regard.cli.train import Settings
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.compare import Contender, SecondPart

DEMO_RECIPE = "vit-digits"
# The demo's second part. On two cores the first takes about five minutes, and evaluating and drawing both about two
# more: with these the whole stays under twelve.
DETECTOR_RECIPE = "detr-small"
DETECTOR_MINUTES = 4.0
# What is trained on each sort of data, unless a recipe is named.
RECIPES = {
    "images": DEMO_RECIPE,
    "images with boxes": "detr-digit-scenes",
    "pairs of texts": "seq2seq-numbers",
    "text": "next-token",
}


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
    seeds: Annotated[int, typer.Option(help="Runs a mixer.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The folder to make (runs/compare-N unless given).")] = None,
    settings: Settings = None,
) -> None:
    """Train the same model with several token mixers, alike, and report how good each is and what it costs."""
    _compare(mixers, data, recipe or _recipe_for(data), seeds, out, settings)


def demo(
    out: Annotated[Path | None, typer.Option(help="The folder to make (runs/demo-N unless given).")] = None,
    detector_minutes: Annotated[
        float, typer.Option(metavar="MINUTES", help="How long the detector may train; 0 leaves the second part out.")
    ] = DETECTOR_MINUTES,
    settings: Settings = None,
) -> None:
    """Train a small encoder with each of the eight mixers on real handwritten digits, then a detector that finds
    digits in scenes, and report. --set is of the first part."""
    from regard.training import default_run_folder

    if not 0 <= detector_minutes < math.inf:
        raise RegardError(
            f"demo: --detector-minutes is {detector_minutes:g}; it must be a number of minutes, or 0 for no detector"
        )
    folder = out or default_run_folder("demo")
    write = _compare("all", None, DEMO_RECIPE, 1, folder, settings, title="Eight ways to mix tokens", real=True)
    if detector_minutes:
        second = _train_detector(folder / "detector", detector_minutes)
        write(second=second)
        typer.echo(f"{folder / 'report.html'} now holds both parts")


def _train_detector(folder: Path, minutes: float) -> "SecondPart":
    """Trains the demo's detector, as `regard train` would, and tells how good it is."""
    from regard.compare import SecondPart, contender, write_report
    from regard.recipes import load_recipe
    from regard.training import Run, train

    settings = [f"train.max_minutes={minutes:g}"]
    recipe = load_recipe(DETECTOR_RECIPE, settings)
    typer.echo(f"now a detector, for {minutes:g} minutes", err=True)
    summary = train(recipe, folder)
    found = contender(folder.name, [folder], with_cost=False)
    command = shlex.join(["regard", "train", DETECTOR_RECIPE, "--set", *settings])
    report = Run(folder).report_file
    write_report(report, title=recipe.title or folder.name, contenders=[found], command=command)
    typer.echo(f"detector: AP {summary['ap']:.3f}, AP50 {summary['ap50']:.3f} on held-out scenes\nreport: {report}")
    return SecondPart("Objects in images, by a detector", found, command)


def _recipe_for(data: str | None) -> str:
    """The shipped recipe for the sort of data behind an address."""
    from regard.data import SORTS, parse_address

    if data is None:
        return DEMO_RECIPE
    kind = parse_address(data).kind
    return next((RECIPES[sort] for sort, kinds in SORTS.items() if kind in kinds and sort in RECIPES), DEMO_RECIPE)


def _compare(
    mixers: str,
    data: str | None,
    recipe: str,
    seeds: int,
    out: Path | None,
    settings: list[str] | None,
    title: str | None = None,
    *,
    real: bool = False,
) -> Callable[..., None]:
    """What comes back writes the report again, with what it is given besides.

    `real`: the comparison ends with a real ViT's look at a photograph, where its package is installed.
    """
    from regard.compare import all_candidates, dinov2_picture, left_out_message, write_report
    from regard.compare import compare as run_comparison
    from regard.mixers import MIXERS
    from regard.recipes import load_recipe
    from regard.tasks import TASKS
    from regard.training import default_run_folder

    resolved = load_recipe(recipe, settings or (), address=data)
    left_out: dict[str, str] = {}
    if mixers == "all":
        names, left_out = all_candidates(resolved)
    else:
        names = [name.strip() for name in mixers.split(",") if name.strip()]
    told = left_out_message(left_out)
    if told:
        typer.echo(told, err=True)
    folder = out or default_run_folder("compare")
    contenders = run_comparison(resolved, names, seeds, folder)
    report = folder / "report.html"
    command = ["regard", "compare", "--mixers", ",".join(names), "--recipe", recipe, "--seeds", str(seeds)]
    command += [] if data is None else ["--data", data]
    command += [part for setting in settings or () for part in ("--set", setting)]
    title = title or ("Which token mixer?" if MIXERS.keys() >= set(names) else "Which model?")
    write = partial(
        write_report,
        report,
        title=title,
        contenders=contenders,
        command=shlex.join(command),
        notes=[told] if told else [],
        picture=dinov2_picture() if real else None,
    )
    write()
    _show_table(contenders, TASKS[resolved.task].unit)
    typer.echo(f"report: {report}")
    return write


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
            f"{found.parameters:,}",
            f"{found.flops / 1e6:.2f}",
            "" if cost is None else f"{cost.seconds_per_sample * 1e6:.0f}",
            "" if cost is None else f"{cost.peak_memory_mb:.1f}",
            f"{found.training_seconds:.0f}",
        )
    show(table)
    typer.echo(
        f"{metric.words} on held-out data; MFLOP and µs/{sample} of inference; peak MB of a training step; "
        "s of training"
    )

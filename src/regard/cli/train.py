"""`regard train`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from regard.cli.terminal import say
from regard.errors import RegardError

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the recipe; may be repeated. KEY=none takes the recipe's value out.",
    ),
]


Device = Annotated[
    str | None,
    typer.Option(metavar="cpu|cuda|cuda:N|mps", help="Where to compute; a GPU, where there is one, unless given."),
]


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A shipped recipe (see `regard recipes`) or a TOML file.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A data address: digits, folder:PATH, numbers, text:PATH, ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make (runs/RECIPE-N unless given).")] = None,
    settings: Settings = None,
    device: Device = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was interrupted. --set may change what leaves the training so far as it is "
            "(budgets, periods, workers, what to do with bad data), --data where the same data are now.",
        ),
    ] = None,
) -> None:
    """Train a model, and leave a run folder with weights, metrics and a report."""
    if (recipe is None) == (resume is None):
        raise RegardError("train: name a recipe to begin a run, or --resume RUN to go on with one")
    if resume is not None and out:
        raise RegardError("train: --resume goes on in the run's own folder; it takes no --out")

    from regard.api.training import train_run
    from regard.cli.tables import figures_line
    from regard.recipes import load_recipe
    from regard.tasks import TASKS
    from regard.training import Run, is_main_process, main_metric, resumed_recipe

    command = words(["regard", "train", str(recipe)], data, settings, device) if recipe is not None else ""
    resolved = None if recipe is None else load_recipe(recipe, with_device(settings, device), address=data)
    resolved = resolved or resumed_recipe(Run.open(Path(str(resume))), settings or (), data)
    if resume is not None and device is not None:  # where to go on; the run's own recipe stays as it is
        own = with_device(None, device)[0].partition("=")[2]
        resolved = resolved.model_copy(update={"train": resolved.train.model_copy(update={"device": own})})
    not_shown: list[str] = []
    run, summary = train_run(
        str(recipe), resolved, out or resume, command=command, resume=resume is not None, tell=not_shown.append
    )
    if not is_main_process():
        return
    task = TASKS[resolved.task]
    figures = figures_line({name: summary[name] for name in (main_metric(summary), "loss")})
    say(
        f"{figures} after {summary['steps']} steps in {summary['seconds']:.0f} s "
        f"({summary[f'{task.unit}_per_second']:.0f} {task.unit}/s)"
    )
    if summary[f"skipped_{task.unit}"]:
        say(f"skipped {summary[f'skipped_{task.unit}']} {task.unit} that could not be read", err=True)
    say(f"run: {run.path}")
    if run.report_file.exists():
        say(f"report: {run.report_file}")
    if not_shown:
        raise RegardError(not_shown[0])


def with_device(settings: list[str] | None, device: str | None) -> list[str]:
    """`--device` is `--set train.device=...`. RegardError for a device that is not there."""
    if device is None:
        return settings or []
    from regard.api.names import device_named

    return [*(settings or []), f"train.device={device if device == 'auto' else device_named(device)}"]


def words(command: list[str], data: str | None, settings: list[str] | None, device: str | None) -> str:
    """A command with its options, as a shell takes it."""
    given = [("--data", data), *(("--set", setting) for setting in settings or ()), ("--device", device)]
    return shlex.join([*command, *(word for option, value in given if value is not None for word in (option, value))])

"""`regard train`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from regard.errors import RegardError

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe; may be repeated."),
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
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted.")] = None,
) -> None:
    """Train a model, and leave a run folder with weights, metrics and a report."""
    if (recipe is None) == (resume is None):
        raise RegardError("train: name a recipe to begin a run, or --resume RUN to go on with one")
    if resume is not None and (data or out or settings):
        raise RegardError("train: --resume goes on with the run's own recipe; it takes no --data, --out or --set")

    from regard.cli.tables import figures_line
    from regard.compare import contender, write_report
    from regard.recipes import load_recipe
    from regard.tasks import TASKS
    from regard.training import Run, default_run_folder, is_main_process
    from regard.training import train as run_training

    if resume is not None:
        run = Run.open(resume)
        resolved = run.recipe()
    else:
        resolved = load_recipe(str(recipe), settings or (), address=data)
        run = Run(out or default_run_folder(Path(str(recipe)).stem))
    summary = run_training(resolved, run.path, resume=resume is not None)
    if not is_main_process():
        return
    write_report(
        run.report_file,
        title=resolved.title or run.path.name,
        contenders=[contender(run.path.name, [run.path], with_cost=False)],
        command=_command(recipe, data, settings),
    )
    task = TASKS[resolved.task]
    figures = figures_line({name: summary[name] for name in (task.main_metric, "loss")})
    typer.echo(
        f"{figures} after {summary['steps']} steps in {summary['seconds']:.0f} s "
        f"({summary[f'{task.unit}_per_second']:.0f} {task.unit}/s)"
    )
    if summary[f"skipped_{task.unit}"]:
        typer.echo(f"skipped {summary[f'skipped_{task.unit}']} {task.unit} that could not be read", err=True)
    typer.echo(f"run: {run.path}\nreport: {run.report_file}")


def _command(recipe: str | None, data: str | None, settings: list[str] | None) -> str:
    if recipe is None:
        return ""
    chosen = [] if data is None else ["--data", data]
    return shlex.join(["regard", "train", recipe, *chosen, *(part for s in settings or () for part in ("--set", s))])

"""`regard train`."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regard.cli.terminal import say
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.recipes import Recipe
    from regard.training import Run

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
        str | None,
        typer.Argument(
            help="A shipped recipe (see `regard recipes`) or a TOML file; one that fits the data unless given."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A data address: digits, folder:PATH, numbers, text:PATH, ...; or just a path.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Wall time, from this command to the report; ten minutes, or as the recipe says, unless given. "
            "(`regard compare --budget minutes=3` counts the seconds of steps alone.)"
        ),
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
    """Train a model, and leave a run folder with weights, metrics and a report.

    Without a recipe, one is chosen that fits the data, what is installed, and the minutes.
    """
    if (recipe is None and data is None and resume is None) or (recipe is not None and resume is not None):
        raise RegardError(
            "train: name a recipe to begin a run, --data ADDRESS to have one chosen, or --resume RUN to go on with one"
        )
    if resume is not None and (out or minutes):
        what = "goes on in the run's own folder; it takes no --out" if out else "takes no --minutes"
        raise RegardError(f"train: --resume {what}")

    not_shown: list[str] = []
    data = None if data is None else named(data)
    if resume is not None:
        run, summary = _resumed(resume, data, settings, device, not_shown.append)
    elif recipe is None:
        run, summary = _chosen(str(data), minutes, out, settings, device, not_shown.append)
    else:
        run, summary = _by_recipe(recipe, data, minutes, out, settings, device, not_shown.append)
    told(run, summary, not_shown)


def told(run: "Run", summary: dict[str, Any], not_shown: list[str]) -> None:
    """Says what a training has found, and where it lies. RegardError for a report that is not whole."""
    from regard.cli.tables import figures_line
    from regard.tasks import TASKS
    from regard.training import is_main_process, main_metric

    if not is_main_process():
        return
    resolved = run.recipe()
    task = TASKS[resolved.task]
    names = dict.fromkeys((main_metric(summary), "loss", *(name for name in ("knn", "linear") if name in summary)))
    figures = figures_line({name: summary[name] for name in names})
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


Trained = tuple["Run", dict[str, Any]]
Tell = Callable[[str], object]


def _by_recipe(
    recipe: str,
    data: str | None,
    minutes: float | None,
    out: Path | None,
    settings: list[str] | None,
    device: str | None,
    tell: Tell,
) -> Trained:
    from regard.api.chosen import within_minutes
    from regard.api.training import train_run
    from regard.recipes import load_recipe

    resolved = load_recipe(recipe, with_device(settings, device), address=data)
    command = words(["regard", "train", recipe], data, settings, device)
    if minutes is not None:
        resolved = within_minutes(resolved, minutes, settings or (), process_seconds())
        command += f" --minutes {minutes:g}"
    return train_run(recipe, resolved, out, command=command, tell=tell)


def _chosen(
    data: str, minutes: float | None, out: Path | None, settings: list[str] | None, device: str | None, tell: Tell
) -> Trained:
    """A recipe that fits: which and why stands above the progress bar."""
    from regard.api.chosen import choose_recipe, train_chosen

    began = time.monotonic() - process_seconds()
    choice = choose_recipe(data, 10.0 if minutes is None else minutes, settings=settings or ())
    for line in choice.lines():
        say(line)
    command = words(["regard", "train"], data, settings, device)
    command += "" if minutes is None else f" --minutes {minutes:g}"
    return train_chosen(choice, out, with_device(settings, device), began=began, command=command, tell=tell)


def _resumed(resume: Path, data: str | None, settings: list[str] | None, device: str | None, tell: Tell) -> Trained:
    from regard.api.chosen import finish_race, unfinished_race
    from regard.api.training import train_run
    from regard.training import Run, resumed_recipe

    if (race := unfinished_race(resume)) is not None:
        if data is not None or settings or device is not None:
            raise RegardError(f"{resume}: its race is not over; --resume takes no --data, --set or --device until then")
        return finish_race(race, tell=tell)
    resolved = on_device(resumed_recipe(Run.open(resume), settings or (), data), device)
    return train_run("None", resolved, resume, resume=True, tell=tell)


def on_device(recipe: "Recipe", device: str | None) -> "Recipe":
    """Where a resumed run goes on; its own recipe stays as it is. RegardError for a device that is not there."""
    if device is None:
        return recipe
    own = with_device(None, device)[0].partition("=")[2]
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"device": own})})


def named(data: str, *, err: bool = False, unlabelled: bool = False) -> str:
    """An address; what a bare path is taken for is said, on stderr where stdout is for figures.

    unlabelled: whether a folder of images without labels is fine.
    """
    from regard.data import HOLDS, address_of

    address = address_of(data, unlabelled=unlabelled)
    if address != data:
        holds = "images" if unlabelled else HOLDS[address.partition(":")[0]]
        say(f"data: {address}, {holds}", err=err)
    return address


def process_seconds() -> float:
    """Since this process began: the imports count."""
    import psutil

    return time.time() - psutil.Process().create_time()


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

"""Training by name; it leaves what `regard train` leaves."""

import logging
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.api.comparing import Comparison as Comparison
from regard.api.comparing import compare_mixers as compare_mixers
from regard.api.runs import load
from regard.api.settings import data_section as data_section
from regard.api.settings import recipe_for as recipe_for
from regard.api.settings import resolved_recipe
from regard.errors import RegardError
from regard.files import expanded

if TYPE_CHECKING:
    from regard.recipes import Recipe
    from regard.tasks import Predictor
    from regard.training import Run

_log = logging.getLogger("regard")


def train(
    recipe: str | Path | None = None,
    data: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    minutes: float | int | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> "Predictor":
    """Trains a recipe, and returns the predictor of its run: `regard.train("vit-digits", epochs=3)`.

    recipe: a shipped one (`regard recipes`) or a TOML file; without one, `choose_recipe` finds what fits the data:
    `regard.train(data="my-photos")`. data: an address, such as "folder:PATH", or a bare path. out: the run folder to
    make, runs/RECIPE-N unless given, with weights, metrics and a report. minutes: wall time from this call to the
    report; as the recipe says unless given, and ten for a chosen one.
    settings: keys of the recipe that no other section has (`lr=1e-3`, `epochs=5`, `embed_dim=64`, `seed=1`), sections
    (`train={"lr": 1e-3}`), or `settings={"train.lr": 1e-3}` or ["train.lr=1e-3"], which is `--set` of the command line.
    None takes a value of the recipe out: `max_minutes=None`.
    Raises RegardError for an unknown recipe or key (with the nearest one), a value that is not allowed, data that
    cannot be read, a folder that exists, and a device that is not there.
    """
    from regard.api.chosen import choose_recipe, train_chosen, within_minutes

    began, limit = time.monotonic(), [] if minutes is None else ["--minutes", f"{minutes:g}"]
    if recipe is None:
        address = data.get("address") if isinstance(data, Mapping) else data
        if address is None:
            raise RegardError("train: name a recipe, or data for which one is chosen")
        choice = choose_recipe(address, 10.0 if minutes is None else minutes)
        given = {key: value for key, value in data.items() if key != "address"} if isinstance(data, Mapping) else None
        _, options, chosen = resolved_recipe(choice.recipe, given, device, settings)
        for line in choice.lines():
            _log.warning("%s", line)
        command = shlex.join(["regard", "train", "--data", choice.address, *options, *limit])
        run, _ = train_chosen(choice, out, chosen, began=began, command=command)
        return load(run.path, device=device)
    resolved, options, chosen = resolved_recipe(recipe, data, device, settings)
    if minutes is not None:
        resolved = within_minutes(resolved, minutes, chosen)
    command = shlex.join(["regard", "train", str(recipe), *options, *limit])
    run, _ = train_run(str(recipe), resolved, out, command=command)
    return load(run.path, device=device)


def train_run(
    name: str,
    recipe: "Recipe",
    out: str | Path | None,
    *,
    command: str = "",
    resume: bool = False,
    tell: Callable[[str], object] = _log.warning,
) -> "tuple[Run, dict[str, Any]]":
    """Trains, writes the report, and returns the run and its summary; `resume` goes on with the run in `out`.

    A report that cannot be made does not fail the training: `tell` gets a line that says why.
    """
    from regard.training import Run, default_run_folder
    from regard.training import train as run_training

    run = Run(default_run_folder(Path(name).stem) if out is None else expanded(out))

    def report() -> None:
        write_run_report(run, title=recipe.title, command=command, tell=tell)

    return run, run_training(recipe, run.path, resume=resume, then=report)


def write_run_report(run: "Run", *, title: str, command: str, tell: Callable[[str], object]) -> None:
    """Writes the report of a run that has ended; `tell` gets a line that says why it is not whole."""
    from regard.choose import race_told
    from regard.compare import Report, contender, reason_of

    written = Report(run.report_file, title=title or run.path.name, command=command, whole=False)
    try:
        found = contender(run.path.name, [run.path], with_cost=False)
        race = race_told(run.path)
        not_shown = [failure.reason for failure in written.write([found], notes=[race] if race else [])]
    except Exception as error:  # of any library that draws, after hours of training
        not_shown = [reason_of(error)]
    for reason in not_shown:
        tell(f"{run.path}: is trained, but its report is not whole: {reason}")

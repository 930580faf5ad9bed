"""A training without a recipe: one that fits data, machine and minutes is chosen, or the winner of a race."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.files import expanded

if TYPE_CHECKING:
    from regard.choose import Choice, Race
    from regard.recipes import Recipe
    from regard.training import Run

_log = logging.getLogger("regard")
# Of the wall time, for the report and the end of the process.
REPORT_SECONDS = 15.0


def choose_recipe(data: str | Path, minutes: float | int = 10, *, settings: Sequence[str] = ()) -> "Choice":
    """The recipe that suits a data set, what is installed, and so many minutes of wall time; with its reasons.

    data: an address, or a bare path, which is taken for what it holds. settings: `KEY=VALUE` of the recipe to be, of
    which data.val_fraction and the like count here. `choice.recipe` and `choice.settings` name it, `choice.lines()` say
    which, why, and what would be better; with several `choice.candidates` the training lets them race. With few labels
    the pre-trainings in `runs/` that saw these images count too.
    RegardError for data that cannot be read or are not labelled, and for too few minutes.
    """
    from regard.choose import choose, facts_of, means_here, pretrained_runs
    from regard.data import address_of
    from regard.recipes import parse_settings

    given = parse_settings(settings)
    bad = [str(given.get(f"data.{key}", "stop")) for key in ("on_bad_image", "on_bad_annotation")]
    facts = facts_of(
        address_of(str(data)),
        val_fraction=float(given.get("data.val_fraction", 0.25)),
        on_bad="skip" if "skip" in bad else "stop",
    )
    return choose(facts, means_here(), minutes, pretrained_runs())


def budgeted(recipe: "Recipe", seconds: float, settings: Sequence[str] = ()) -> "Recipe":
    """A recipe whose training, with features and evaluations, takes so many seconds.

    A head that is solved stays so, and what `settings` say of the budget holds too.
    """
    from regard.recipes import parse_settings

    train, given = recipe.train, parse_settings(settings)
    limits: dict[str, Any] = {"max_minutes": max(seconds, 1.0) / 60, "epochs": None}
    if not getattr(train, "solve_head", False):
        limits["max_steps"] = None
    limits = {key: value for key, value in limits.items() if f"train.{key}" not in given}
    return recipe.model_copy(update={"train": train.model_copy(update=limits)})


def within_minutes(
    recipe: "Recipe", minutes: float | int, settings: Sequence[str] = (), spent: float = 0.0
) -> "Recipe":
    """A recipe whose report is there after so many minutes of wall time, `spent` seconds of which are gone."""
    from regard.choose import require_minutes

    require_minutes(minutes)
    return budgeted(recipe, minutes * 60 - spent - REPORT_SECONDS, settings)


def train_chosen(
    choice: "Choice",
    out: str | Path | None,
    settings: Sequence[str] = (),
    *,
    began: float,
    command: str = "",
    steps: int | None = None,
    tell: Callable[[str], object] = _log.warning,
) -> "tuple[Run, dict[str, Any]]":
    """Trains what was chosen, and returns the run and its summary.

    settings: `KEY=VALUE`, for each candidate. began: `time.monotonic()` when the command began, from which the minutes
    count. steps: so many of each candidate in a race, in the place of an equal time. RegardError as `train_run`.
    """
    from regard.api.training import train_run
    from regard.choose import RACE_FRACTION, Entrant, Race, selection_of
    from regard.recipes import DetectionRecipe
    from regard.training import default_run_folder

    left = choice.minutes * 60 - (time.monotonic() - began) - REPORT_SECONDS
    if not choice.races:
        return train_run(
            choice.recipe, budgeted(choice.load(settings), left, settings), out, command=command, tell=tell
        )
    entrants = []
    for number, one in enumerate(choice.candidates):
        going_on = choice.load(settings, number)
        is_frozen = isinstance(going_on, DetectionRecipe) and going_on.model.freeze == "backbone"
        views = ["features.views=1"] if is_frozen else []
        racing = choice.load([*settings, f"data.selection={selection_of(choice.images)}", *views], number)
        raced, whole = (budgeted(own, left, settings) for own in (racing, going_on))
        entrants.append(Entrant(one.recipe, raced, whole))
    name = Path(choice.address.partition(":")[2]).stem or choice.recipe
    folder = default_run_folder(name) if out is None else expanded(out)
    each = (RACE_FRACTION * choice.minutes * 60 - choice.feature_seconds) / len(entrants)
    about = {"minutes": choice.minutes, "seconds_each": each, "steps_each": steps, "settings": list(settings)}
    race = Race.begin(folder, entrants, command=command, **about)
    return finish_race(race, began=began, tell=tell)


def finish_race(
    race: "Race", *, began: float | None = None, tell: Callable[[str], object] = _log.warning
) -> "tuple[Run, dict[str, Any]]":
    """Runs what is left of a race, and trains the winner in the time that is left; also after a kill."""
    from regard.api.training import train_run
    from regard.training import Bar, Run

    values = race.values
    if began is None:
        spent = sum(own.get("seconds", 0.0) for own in values["candidates"].values())
        began = time.monotonic() - spent
    bar = Bar(len(race.entrants))
    with bar:
        winner = race.run(seconds=values["seconds_each"], steps=values["steps_each"], bar=bar)
    bar.tell(race.told())
    own = values["candidates"][winner.name]
    left = values["minutes"] * 60 - (time.monotonic() - began) - REPORT_SECONDS
    seconds = left + (0.0 if own["over"] else own["seconds"])
    recipe = budgeted(winner.going_on, seconds, values["settings"])
    resume = race.settle(recipe)
    recipe = Run.open(race.folder).recipe() if resume else recipe
    return train_run(winner.name, recipe, race.folder, command=values.get("command", ""), resume=resume, tell=tell)


def unfinished_race(folder: Path) -> "Race | None":
    """The race in a run's folder, unless the folder is the winner's run by now."""
    from regard.choose import Race
    from regard.training.run import RACE

    if not (folder / RACE).exists():
        return None
    race = Race.open(folder)
    return None if race.settled else race

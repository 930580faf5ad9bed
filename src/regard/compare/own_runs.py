"""Finished runs of one's own as contenders (`--runs`): their weights are tested, and nothing is trained."""

from collections.abc import Sequence
from pathlib import Path

from regard.compare.plan import Entry
from regard.data import fingerprint
from regard.errors import RegardError
from regard.recipes import Recipe
from regard.tasks import create_task
from regard.training import Run


def contenders_of_runs(runs: Sequence[Path], recipe: Recipe) -> list[Entry]:
    """A contender for each recipe that the runs were trained by; runs that differ in the seed alone are its runs.

    It has the name of its first run's folder, without "-seed-0". RegardError for a run that has not ended, and for one
    of another task, or whose data are not those of `recipe`.
    """
    found: dict[str, Entry] = {}
    expected = fingerprint(create_task(recipe).data).parts["val"].digest if runs else ""
    for path in runs:
        run = Run.open(path)
        run.summary()  # it has ended
        own = run.recipe()
        if own.task != recipe.task:
            raise RegardError(f"{path}: is a run of {own.task}; this comparison is of {recipe.task}")
        if fingerprint(create_task(own).data).parts["val"].digest != expected:
            raise RegardError(
                f"{path}: was not held to the same test samples ({own.data.address}); see [data] in its recipe.toml"
            )
        values = own.to_dict()
        key = repr(sorted({**values, "seed": None, "title": ""}.items(), key=str))
        if key in found:
            found[key].runs.append(str(path.resolve()))
        else:
            name = path.resolve().name.partition("-seed-")[0]
            found[key] = Entry(name, values, runs=[str(path.resolve())])
    return list(found.values())


def recipe_of_runs(runs: Sequence[Path]) -> Recipe:
    """The recipe of the first run: a comparison of runs alone needs no other."""
    return Run.open(runs[0]).recipe()

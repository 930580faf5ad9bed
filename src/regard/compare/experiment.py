"""Trains the same model with several mixers, or several models, with the same data and budget, over several seeds."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from regard.compare.candidates import check_names, try_out, variant
from regard.compare.contender import Contender, Failure, Metric, number, reason_of
from regard.compare.cost import measure
from regard.errors import RegardError
from regard.files import printable
from regard.recipes import Recipe
from regard.tasks import TASKS
from regard.training import Bar, Run, main_metric, train


def compare(
    recipe: Recipe,
    names: Sequence[str],
    seeds: int,
    folder: Path,
    *,
    bar: Bar | None = None,
    after_each: Callable[[list[Contender]], None] | None = None,
) -> list[Contender]:
    """Trains `recipe` for each name and the seeds recipe.seed, recipe.seed + 1, ..., with the same data and budget.

    A name is a mixer, which replaces `model.mixer`, or a preset, which replaces the model. The runs are written to
    folder/NAME-seed-S. The cost of each name is measured afterwards, in a process of its own. A training that fails
    does not end the others, whatever the reason: it is among its contender's `failures`, as is a cost that could not be
    measured. `after_each` gets the contenders so far after each training and each measurement.
    RegardError for an unknown name, a name given twice, no name, a model that the recipe cannot train, and a folder
    that exists.
    """
    is_new = _check(names, seeds, folder)
    variants = {name: [variant(recipe, name, recipe.seed + i) for i in range(seeds)] for name in names}
    for first, *_ in variants.values():
        try:
            try_out(first)
        except RegardError:  # now, not after an hour
            raise
        except Exception:  # its training will fail too, and be reported among the others
            continue
    try:
        folder.mkdir(parents=True, exist_ok=not is_new)
    except FileExistsError:  # another comparison began meanwhile
        raise _exists(folder) from None

    found: dict[str, Contender] = {}
    with bar or Bar(parts=len(names) * seeds + 1) as bar:
        for part, (name, one) in enumerate((name, one) for name, some in variants.items() for one in some):
            words, path = f"{name}, seed {one.seed}", folder / f"{name}-seed-{one.seed}"
            so_far = found.get(name) or _not_trained(name, recipe)
            try:
                train(one, path, bar=bar.part(part, name if seeds == 1 else words))
                trained = contender(name, (*so_far.runs, path), with_cost=False)
                found[name] = replace(trained, failures=so_far.failures)
            except Exception as error:
                found[name] = _failed(so_far, words, error, bar)
            if after_each is not None:
                after_each(list(found.values()))
        bar.part(len(names) * seeds, "cost")
        for place, (name, trained) in enumerate(list(found.items())):
            bar.update(place / len(found), f"of {name}")
            try:
                found[name] = replace(trained, cost=measure(trained.runs[0]) if trained.runs else None)
            except Exception as error:
                found[name] = _failed(trained, f"{name}, cost", error, bar)
            if after_each is not None:
                after_each(list(found.values()))
    return list(found.values())


def contender(name: str, runs: Sequence[Path], *, with_cost: bool = True) -> Contender:
    """The contender that finished runs of one model make; its cost is measured on the first run."""
    opened = [Run.open(run) for run in runs]
    summaries = [run.summary() for run in opened]
    task, metric = TASKS[opened[0].recipe().task], main_metric(summaries[0])
    return Contender(
        name=name,
        runs=tuple(runs),
        metric=Metric(metric, task.larger_is_better),
        scores=tuple(number(summary[metric]) for summary in summaries),
        parameters=summaries[0]["parameters"],
        flops=summaries[0]["flops"],
        training_seconds=statistics.mean(summary["seconds"] for summary in summaries),
        cost=measure(runs[0]) if with_cost else None,
    )


def _not_trained(name: str, recipe: Recipe) -> Contender:
    task = TASKS[recipe.task]
    return Contender(name, (), Metric(task.main_metric, task.larger_is_better), (), None, None, None, None)


def _failed(one: Contender, what: str, error: Exception, bar: Bar) -> Contender:
    """The contender with one more failure, which is told at once."""
    failure = Failure(what, reason_of(error))
    bar.tell(f"failed: {printable(failure)}")
    return replace(one, failures=(*one.failures, failure))


def _check(names: Sequence[str], seeds: int, folder: Path) -> bool:
    """Whether the folder is to be made; it may also be there and empty."""
    check_names(names)
    if seeds < 1:
        raise RegardError(f"compare: seeds must be at least 1, got {seeds}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _exists(folder)
    return not folder.exists()


def _exists(folder: Path) -> RegardError:
    return RegardError(f"{folder}: exists already; choose another folder with --out")

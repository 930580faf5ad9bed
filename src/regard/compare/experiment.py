"""Trains the same model with several mixers, or several models, with the same data and budget, over several seeds."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from regard.compare.candidates import check_names, try_out, variant
from regard.compare.contender import Contender, Metric
from regard.compare.cost import measure
from regard.errors import RegardError
from regard.recipes import Recipe
from regard.tasks import TASKS
from regard.training import Bar, Run, train


def compare(
    recipe: Recipe, names: Sequence[str], seeds: int, folder: Path, *, bar: Bar | None = None
) -> list[Contender]:
    """Trains `recipe` for each name and the seeds recipe.seed, recipe.seed + 1, ..., with the same data and budget.

    A name is a mixer, which replaces `model.mixer`, or a preset, which replaces the model. The runs are written to
    folder/NAME-seed-S. The cost of each name is measured afterwards, in a process of its own.
    RegardError for an unknown name, a name given twice, no name, a model that the recipe cannot train, and a folder
    that exists.
    """
    _check(names, seeds, folder)
    variants = {name: [variant(recipe, name, recipe.seed + i) for i in range(seeds)] for name in names}
    for first, *_ in variants.values():
        try_out(first)  # an error comes now, not after an hour
    contenders = []
    with bar or Bar(parts=len(names) * seeds + 1) as bar:
        paths: dict[str, list[Path]] = {name: [] for name in names}
        for part, (name, one) in enumerate((name, one) for name, some in variants.items() for one in some):
            path = folder / f"{name}-seed-{one.seed}"
            train(one, path, bar=bar.part(part, name if seeds == 1 else f"{name}, seed {one.seed}"))
            paths[name].append(path)
        bar.part(len(names) * seeds, "cost")
        for number, (name, runs) in enumerate(paths.items()):
            bar.update(number / len(paths), f"of {name}")
            contenders.append(contender(name, runs))
    return contenders


def contender(name: str, runs: Sequence[Path], *, with_cost: bool = True) -> Contender:
    """The contender that finished runs of one model make; its cost is measured on the first run."""
    opened = [Run.open(run) for run in runs]
    summaries = [run.summary() for run in opened]
    task = TASKS[opened[0].recipe().task]
    return Contender(
        name=name,
        runs=tuple(runs),
        metric=Metric(task.main_metric, task.larger_is_better),
        scores=tuple(summary[task.main_metric] for summary in summaries),
        parameters=summaries[0]["parameters"],
        flops=summaries[0]["flops"],
        training_seconds=statistics.mean(summary["seconds"] for summary in summaries),
        cost=measure(runs[0]) if with_cost else None,
    )


def _check(names: Sequence[str], seeds: int, folder: Path) -> None:
    check_names(names)
    if seeds < 1:
        raise RegardError(f"compare: seeds must be at least 1, got {seeds}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegardError(f"{folder}: exists already; choose another folder with --out")

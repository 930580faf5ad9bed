"""The same model with one mixer after another, or one model after another, trained alike, over seeds."""

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
    """Trains `recipe` with each name and the seeds recipe.seed, recipe.seed + 1, ...: the same data, split and budget.

    A name is a mixer's, which takes the place of `model.mixer`, or a preset's, which takes that of the model.
    The runs lie in folder/NAME-seed-S. The cost of each is measured afterwards, in processes of their own.
    Raises RegardError for an unknown name, one named twice, none, one that cannot serve, or a folder that is not new.
    """
    _check(names, seeds, folder)
    variants = {name: [variant(recipe, name, recipe.seed + i) for i in range(seeds)] for name in names}
    for first, *_ in variants.values():
        try_out(first)  # what cannot serve says so now, not after an hour
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
    """What the summaries of finished runs of one model say, and its cost, measured on the first of them."""
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

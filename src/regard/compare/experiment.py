"""The same model with one mixer after another, trained alike, over seeds."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from regard.compare.contender import Contender
from regard.compare.cost import measure
from regard.errors import RegardError, unknown
from regard.mixers import MIXERS, options_for
from regard.recipes import Recipe
from regard.tasks import create_task
from regard.training import Bar, Run, train


def compare(
    recipe: Recipe, mixers: Sequence[str], seeds: int, folder: Path, *, bar: Bar | None = None
) -> list[Contender]:
    """Trains `recipe` with each mixer and the seeds recipe.seed, recipe.seed + 1, ...: the same data, split and budget.

    The runs lie in folder/MIXER-seed-S. The cost of each mixer is measured afterwards, in processes of their own.
    Raises RegardError for an unknown mixer, one named twice, no mixer, or a folder that is not new.
    """
    _check(mixers, seeds, folder)
    variants = [_variant(recipe, name, recipe.seed + i) for name in mixers for i in range(seeds)]
    for variant in variants[::seeds]:
        create_task(variant).build_model()  # what cannot be built is said now, not after an hour
    paths: dict[str, list[Path]] = {name: [] for name in mixers}
    with bar or Bar(parts=len(variants) + 1) as bar:
        for part, variant in enumerate(variants):
            name = str(variant.model.config(num_classes=1).mixer)
            path = folder / f"{name}-seed-{variant.seed}"
            train(variant, path, bar=bar.part(part, name if seeds == 1 else f"{name}, seed {variant.seed}"))
            paths[name].append(path)
        contenders = []
        bar.part(len(variants), "cost")
        for number, (name, runs) in enumerate(paths.items()):
            bar.update(number / len(paths), f"of {name}")
            contenders.append(contender(name, runs))
    return contenders


def contender(name: str, runs: Sequence[Path], *, with_cost: bool = True) -> Contender:
    """What the summaries of finished runs of one model say, and its cost, measured on the first of them."""
    summaries = [Run.open(run).summary() for run in runs]
    return Contender(
        name=name,
        runs=tuple(runs),
        accuracies=tuple(summary["accuracy"] for summary in summaries),
        parameters=summaries[0]["parameters"],
        flops=summaries[0]["flops"],
        training_seconds=statistics.mean(summary["seconds"] for summary in summaries),
        cost=measure(runs[0]) if with_cost else None,
    )


def _variant(recipe: Recipe, mixer: str, seed: int) -> Recipe:
    values = recipe.to_dict()
    options = options_for(mixer, values["model"].get("mixer_options", {}))
    values["model"] |= {"mixer": mixer, "mixer_options": dict(options)}
    return Recipe.model_validate({**values, "seed": seed})


def _check(mixers: Sequence[str], seeds: int, folder: Path) -> None:
    for name in mixers:
        if name not in MIXERS:
            raise unknown("mixer", name, MIXERS)
    if not mixers or len(set(mixers)) < len(mixers):
        raise RegardError(f"compare: name each mixer once, and at least one; got {', '.join(mixers) or 'none'}")
    if seeds < 1:
        raise RegardError(f"compare: seeds must be at least 1, got {seeds}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegardError(f"{folder}: exists already; choose another folder with --out")

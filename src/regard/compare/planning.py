"""A recipe and names -> a plan; and what it will take, before anything is trained."""

import math
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.special import stdtrit

from regard.compare.aliases import Alias
from regard.compare.candidates import check_names, require_known, try_out, variant
from regard.compare.inference import fewest_images
from regard.compare.limits import Budget, Until, budget_words
from regard.compare.looks import looks
from regard.compare.own_runs import contenders_of_runs
from regard.compare.own_weights import begun, contender_names, minutes_of, require_same_weights, require_weights
from regard.compare.per_sample import is_mean, num_test
from regard.compare.plan import Entry, Plan, order_of
from regard.data import fingerprint
from regard.errors import RegardError, unknown
from regard.files import LOCK
from regard.recipes import Recipe
from regard.tasks import Task, create_task
from regard.training.optim import create_optimizer

ALPHA = 0.05
COSTS = ("throughput", "latency", "memory", "training", "flops", "parameters")
# Operations of a step from which on more than one thread helps: below, threads wait for each other.
ONE_THREAD = 2e10
TIMED = 3
"""Steps that are timed for an estimate, after one to warm up."""


@dataclass(frozen=True)
class Wishes:
    """What a plan is made from, beside a recipe and names."""

    seeds: int | None = None
    """None: as many as the answer takes, `max_seeds` at most."""
    max_seeds: int = 12
    margin: float | int = 1.0
    budget: str | None = None
    until: str | None = None
    cost: str = "throughput"
    threads: int | None = None
    runs: Sequence[Path] = ()

    def check(self) -> None:
        for name, value in (("seeds", self.seeds), ("max-seeds", self.max_seeds), ("threads", self.threads)):
            if value is not None and value < 1:
                raise RegardError(f"compare: {name} must be at least 1, got {value}")
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise RegardError(f"compare: margin is {self.margin:g}; it is a number of points from 0")
        if self.cost not in COSTS:
            raise unknown("cost", self.cost, COSTS, where="--cost")
        if self.until is not None:
            Until.parse(self.until)


def make_plan(
    recipe: Recipe,
    names: Sequence[str],
    wishes: Wishes = Wishes(),
    *,
    recipe_name: str = "",
    strict: bool = False,
) -> Plan:
    """The plan of a comparison. Opens the data and tries each contender on a few samples; trains and writes nothing.

    One that cannot be trained stays in the plan with the reason; with `strict` it is an error.
    RegardError for wishes that cannot be, unknown names, a budget under one step, too few test samples, and where no
    contender can be trained.
    """
    wishes.check()
    if recipe.task == "pretraining":
        raise RegardError(
            "compare: losses of pre-trainings cannot be compared; compare classifiers that begin from their runs, with "
            "model.weights=RUN"
        )
    own = contenders_of_runs(wishes.runs, recipe)
    in_tables = contender_names(names)
    check_names([*in_tables, *(one.name for one in own)])
    budget = None if wishes.budget is None else Budget.parse(wishes.budget)
    for name in names:
        require_known(recipe, name)
        require_weights(name)
    task = create_task(recipe)
    _require_test_samples(task, len(names) + len(own), wishes)
    class_names = getattr(task.data, "class_names", ())
    tried = [
        _entry(recipe, called, name, class_names, budget, strict) for called, name in zip(names, in_tables, strict=True)
    ]
    entries = [entry for entry, _ in tried]
    failing = [one for one in entries if one.cannot_run]
    if failing and len(failing) == len(entries) and not own:
        raise Nobody(f"compare: no contender can be trained: {failing[0].name}: {failing[0].cannot_run}")
    if failing:
        try_out(recipe)  # else it is the recipe that is wrong, and not the contender
    counts = {one.name: len(one.runs) for one in own}
    seeds = wishes.seeds
    if not names:  # there is nothing to train: what there is, is compared at once
        seeds = max(counts.values())
    fixed = seeds is not None
    settled = (
        ((seeds, ALPHA),) if seeds is not None else tuple((a.seeds, a.alpha) for a in looks(wishes.max_seeds, ALPHA))
    )
    held = getattr(task, "selection_images", None)
    n_val = 0 if held is None else len(held)
    order = order_of([*in_tables, *counts], counts, recipe.seed, settled[-1][0])
    return Plan(
        contenders=[*entries, *own],
        recipe_name=recipe_name,
        task=recipe.task,
        seed=recipe.seed,
        seeds=seeds,
        looks=list(settled),
        alpha=ALPHA,
        margin=float(wishes.margin),
        cost=wishes.cost,
        budget=str(budget) if budget is not None else budget_words(recipe),
        threads=wishes.threads or default_threads(recipe, max((flops for _, flops in tried), default=0)),
        order=order,
        data={
            "address": recipe.data.address,
            "fingerprint": _digests(task),
            "n_train": task.order(rank=0, world_size=1).num_samples,
            "n_val": n_val,
            "n_test": num_test(task),
        },
        until=wishes.until or (f"runs={len(order)}" if fixed else "minutes=15"),
    )


def require_same_data(plan: Plan) -> None:
    """RegardError where the data, or weights that a contender begins from, are no more those of the plan."""
    require_same_weights(plan)
    now = _digests(create_task(plan.recipe_of_all()))
    if now != plan.data["fingerprint"]:
        raise RegardError(
            f"{plan.data['address']}: holds other samples, or in other parts, than when the comparison began; bring "
            "those back, or begin a new comparison"
        )


def _digests(task: Task) -> str:
    return "-".join(part.digest for part in fingerprint(task.data).parts.values())


class Nobody(RegardError):  # noqa: N818 (a caller reads: except Nobody)
    """No contender could be trained."""

    ends_with = 3


def _entry(
    base: Recipe, called: str, name: str, class_names: Sequence[str], budget: Budget | None, strict: bool
) -> tuple[Entry, int]:
    """A contender with its budget, and its operations; one that cannot serve, as its trial says, has the reason.

    called: as it was asked for, with the path of its weights; name: as it is in tables. Weights that do not fit are an
    error: whoever names them wants this very contender.
    """
    recipe, source = base, Alias.of(called).weights
    try:
        recipe = variant(base, called, base.seed)
        if source:
            recipe, parameters, flops = begun(recipe, called, class_names)
        else:
            parameters, flops = try_out(recipe)
    except RegardError as error:
        if strict or source:
            raise
        return Entry(name, recipe.to_dict(), cannot_run=str(error)), 0
    except Exception:  # its training will fail too, and be reported among the others
        return Entry(name, recipe.to_dict(), weights=source), 0
    minutes = Budget("minutes", recipe.train.max_minutes) if recipe.train.max_minutes is not None else None
    if budget is not None:
        recipe = budget.of(recipe, flops, name)
        minutes = budget if budget.kind == "minutes" else None
    if minutes is not None and minutes.value < 0.5:  # longer ones hold a step
        minutes.require_a_step(seconds_of_steps(recipe, steps=1)[0], name)
    took = minutes_of(source) if source else None
    return Entry(name, recipe.to_dict(), parameters=parameters, weights=source, weights_minutes=took), flops


def _require_test_samples(task: Task, contenders: int, wishes: Wishes) -> None:
    if contenders < 2 or wishes.seeds == 1 or not is_mean(task):
        return
    pairs = contenders * (contenders - 1) // 2
    alpha = ALPHA if wishes.seeds is not None else looks(wishes.max_seeds, ALPHA)[-1].alpha
    needed, there = fewest_images(pairs, alpha), num_test(task)
    if there < needed:
        raise RegardError(
            f"{task.recipe.data.address}: has {there} test {task.unit}; a verdict on {contenders} contenders needs "
            f"{needed} at least: raise data.val_fraction, give more {task.unit}, or compare fewer contenders"
        )


def default_threads(recipe: Recipe, flops: int) -> int:
    """Threads of a training: one for a small model, which more would not make faster; else as many as torch takes.

    It follows from the model and the machine, never from the number of jobs, which changes no result.
    """
    return 1 if 0 < 3 * flops * recipe.train.batch_size < ONE_THREAD else torch.get_num_threads()


def seconds_of_steps(recipe: Recipe, steps: int = TIMED) -> tuple[float, float]:
    """(seconds of a step, seconds of evaluating one sample), of a model that is thrown away."""
    task = create_task(recipe)
    with torch.random.fork_rng(devices=[]):
        model = task.build_model()
        loader = iter(task.training_loader(task.order(rank=0, world_size=1)))
        optimizer = create_optimizer(model, recipe.train)
        seconds, samples = [], 1
        for _ in range(1 + steps):
            began = time.perf_counter()
            for batch in (next(loader) for _ in range(recipe.train.accumulate)):
                task.loss(model, batch).backward()
                samples = max(len(batch), 1)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        with torch.no_grad():
            task.loss(model, batch)
        forward = (time.perf_counter() - began) / samples
    return statistics.median(seconds[1:]), forward


@dataclass(frozen=True)
class Estimate:
    cells: int
    """Up to the first look."""
    most_cells: int
    minutes: float
    most_minutes: float
    megabytes: float
    """Of a cell, the mean over contenders."""
    detectable: float | None
    """Points of difference that the first look finds in four of five comparisons; None for metrics that are no mean."""
    most_detectable: float | None
    cell_minutes: dict[str, float]


# Beside its steps a cell opens the data, builds a model, and saves: seconds on digits. So do costs and report, for all
# and for each contender.
OVERHEAD = 0.3
REPORT, REPORT_OF_EACH = 5.0, 4.0
# For the difference that can be detected, what is typical of small sets: see docs.
ACCURACY, SEED_SD, SHARED = 0.97, 0.005, 0.5


def estimate(plan: Plan, jobs: int = 1) -> Estimate:
    """What a plan will take. Times a few steps of each contender, and trains nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        found = {one.name: _of_cell(plan, one) for one in plan.contenders}
    finally:
        torch.set_num_threads(before)
    minutes = {name: seconds / 60 for name, (seconds, _) in found.items()}
    runs = {one.name: not one.cannot_run and not one.runs for one in plan.contenders}
    first = [name for name, seed in plan.order if runs[name] and seed < plan.seed + plan.looks[0][0]]
    every = [name for name, _ in plan.order if runs[name]]
    trained = [found[name][1] for name in minutes if runs[name]]
    n, pairs = plan.data["n_test"], len(plan.contenders) * (len(plan.contenders) - 1) // 2
    detectable = [
        _detectable(n, *look, pairs) if plan.task in ("classification", "seq2seq") else None for look in plan.looks
    ]
    return Estimate(
        cells=len(first),
        most_cells=len(every),
        minutes=sum(minutes[name] for name in first) / max(min(jobs, len(first)), 1),
        most_minutes=sum(minutes[name] for name in every) / max(min(jobs, len(every)), 1),
        megabytes=statistics.mean(trained) / 1e6 if trained else 0.0,
        detectable=detectable[0],
        most_detectable=detectable[-1],
        cell_minutes=minutes,
    )


def _of_cell(plan: Plan, one: Entry) -> tuple[float, float]:
    """(seconds, bytes) of a cell."""
    if one.cannot_run or one.runs:
        return 0.0, 0.0
    recipe = plan.recipe(one.name, plan.seed)
    try:
        step, forward = seconds_of_steps(recipe)
    except Exception:  # it will fail when it is trained
        return 0.0, 0.0
    task, train = create_task(recipe), recipe.train
    per_epoch = task.order(rank=0, world_size=1).steps_per_epoch
    limits = [train.max_steps, None if train.epochs is None else train.epochs * per_epoch]
    limits.append(None if train.max_minutes is None else math.ceil(train.max_minutes * 60 / step))
    steps = min(limit for limit in limits if limit is not None)
    saves = steps // (train.save_every_steps or per_epoch) + 1
    size = _bytes(plan, one)
    saving = saves * (0.02 + size / 3e8)
    return OVERHEAD + steps * step + plan.data["n_test"] * forward + saving, size + steps * 120


def _bytes(plan: Plan, one: Entry) -> float:
    """Of a cell: its weights, the best ones, and in the state those and two tensors of the optimiser; the averages."""
    tensors = 5 + 2 * bool(one.recipe["train"].get("ema_decay"))
    return one.parameters * 4 * tensors + plan.data["n_test"] * 32 + 40_000


def _detectable(n: int, runs: int, alpha: float, pairs: int) -> float | None:
    """Points: (t_{1 − α/2m} + z_0.8) √V at an accuracy of 97%, half of whose errors are shared, and a deviation of 0.5
    points between seeds; m is the number of pairs, the strictest of Holm's levels."""
    if runs < 2 or not pairs:
        return None
    p = ACCURACY
    images = 2 * p * (1 - p) * (1 - SHARED) / n
    variance = 2 * SEED_SD**2 / runs + images
    df = 2 * (runs - 1) * (variance / (2 * SEED_SD**2 / runs)) ** 2
    return float(100 * (stdtrit(df, 1 - alpha / (2 * pairs)) + 0.84) * math.sqrt(variance))


def disk_line(plan: Plan, folder: Path) -> str:
    """The disk that the cells will take, from the numbers of parameters alone."""
    sizes = [_bytes(plan, one) for one in plan.contenders if not one.cannot_run and not one.runs]
    cells = sum(not plan.entry(name).runs and not plan.entry(name).cannot_run for name, _ in plan.order)
    each = statistics.mean(sizes) / 1e6 if sizes else 0.0
    return (
        f"{folder}: {'up to ' if plan.seeds is None else ''}{cells} cells of about {each:.2g} MB; "
        f"{free_bytes(folder) / 1e9:.3g} GB are free"
    )


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder is, or will be, on."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def estimate_lines(plan: Plan, found: Estimate, folder: Path, jobs: int) -> list[str]:
    """What is told of a plan."""
    several = found.most_cells > found.cells
    cells = f"{found.cells} to {found.most_cells} cells" if several else f"{found.cells} cells"
    minutes = _minutes(found.minutes) + (f" to {_minutes(found.most_minutes)}" if several else "")
    report = (REPORT + REPORT_OF_EACH * len(plan.contenders)) / 60
    lines = [
        f"{len(plan.contenders)} contenders, {cells} ({plan.budget} each, {plan.threads} thread"
        f"{'s' * (plan.threads > 1)} a cell, {jobs} at once): about {minutes} minutes of training, and "
        f"{_minutes(report)} for costs and report",
        f"disk: about {found.megabytes:.3g} MB a cell, {found.megabytes * found.most_cells:.3g} MB in all; "
        f"{free_bytes(folder) / 1e9:.3g} GB are free",
    ]
    if found.detectable is not None:
        reach = f"{found.detectable:.2g} points with {plan.looks[0][0]} seeds"
        if found.most_detectable is not None and several:
            reach += f", {found.most_detectable:.2g} with {plan.max_seeds}"
        lines.append(
            f"{plan.data['n_test']:,} test samples find a difference of {reach} in four of five comparisons "
            f"(at {100 * ACCURACY:.0f}% accuracy, with {100 * SEED_SD:g} points between seeds)"
        )
    if plan.seeds == 1:
        lines.append("one seed: it says how these trained models compare, and gives no verdict on mixers")
    cores = os.cpu_count() or 1
    if jobs * plan.threads > cores:
        lines.append(
            f"warning: {jobs} jobs of {plan.threads} threads share {cores} cores; --threads says how many each has"
        )
    return lines


def _minutes(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def require_new(folder: Path) -> bool:
    """Whether the folder is to be made; it may also be there and empty. RegardError where it holds something."""
    if folder.exists() and (not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir())):
        raise RegardError(f"{folder}: exists already; choose another folder with --out")
    return not folder.exists()

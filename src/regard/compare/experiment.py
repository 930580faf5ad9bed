"""Trains contenders alike: one cell, and comparisons of a fixed number of seeds."""

import errno
import os
import shlex
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from regard.compare.cells import TEST, Cell, with_wall
from regard.compare.contender import Contender, Metric, number, reason_of
from regard.compare.cost import measure_all as measure_all
from regard.compare.per_sample import evaluated, results_of, write_arrays
from regard.compare.plan import Plan
from regard.errors import RegardError, one_line
from regard.files import Taken, write_whole
from regard.recipes import Recipe
from regard.tasks import TASKS, create_task
from regard.training import Bar, Diverged, Run, Session, load_predictor, machine, main_metric, train, versions


class Fatal(RegardError):  # noqa: N818 (a caller reads: except Fatal)
    """What ends a comparison, and not one training alone: the disk is full."""

    ends_with = 1


def run_cell(folder: Path, plan: Plan, name: str, seed: int, *, bar: Bar | None = None, jobs: int = 1) -> Cell:
    """Trains one cell to its end, from its newest state where it has one, and writes its results. jobs: at once.

    What goes wrong in it is its status: `diverged` and `cannot_run` are results; `missing` is what another try may
    mend (a file that could not be read, another process that trains it). Fatal where the disk is full.
    """
    began, load = time.monotonic(), _load_average()
    found = Cell(name, seed, "missing", load=load, of=plan.cell_id(name, seed))
    place = folder / found.place
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        found = _tested(found, plan, place) if plan.entry(name).runs else _trained(found, plan, place, bar)
    except Diverged as error:
        found = _ended(found, "diverged", error, step=error.step)
    except Exception as error:  # of any library: it shall not end the others
        _require_room(folder, error)
        may_pass = isinstance(error, OSError | Taken | Fatal)
        found = _ended(found, "missing" if may_pass else "cannot_run", error)
    finally:
        torch.set_num_threads(threads)
    found = with_wall(found, time.monotonic() - began)
    found.facts.update(jobs=jobs, threads=plan.threads, versions=versions(), machine=machine())
    found.facts["command"] = shlex.join(["regard", "compare", "--out", str(folder), "--contender", f"{name}:{seed}"])
    if found.is_over:
        try:
            place.mkdir(parents=True, exist_ok=True)
            found.write(folder)
        except (RegardError, OSError) as error:
            raise Fatal(_stopped(folder, one_line(error))) from None
    return found


def _trained(cell: Cell, plan: Plan, place: Path, bar: Bar | None) -> Cell:
    recipe = plan.recipe(cell.contender, cell.seed)
    kept: list[Cell] = []

    def keep(session: Session) -> None:
        progress = session.progress
        assert session.shards is not None
        digest = write_arrays(place / TEST, results_of(session.task, session.shards))
        seconds = {
            "steps": progress.training_seconds,
            "evaluation": progress.evaluation_seconds,
            "saving": progress.saving_seconds,
            "compile": progress.compile_seconds,
        }
        metric = session.task.main_metric
        kept.append(_done(cell, metric, progress.metrics[metric], digest, progress.step, seconds))

    if (place / "recipe.toml").exists() and (place / "state" / "latest").exists():
        try:
            train(recipe, place, resume=True, bar=bar, tested=keep)
            return _with_summary(kept[0], place)
        except (Diverged, Taken):
            raise
        except RegardError as error:  # a state that is damaged: its training begins again
            (bar or Bar(visible=False)).tell(f"{cell.place}: begins again: {error}")
    shutil.rmtree(place, ignore_errors=True)  # what was killed before its first state
    train(recipe, place, bar=bar, tested=keep)
    return _with_summary(kept[0], place)


def _tested(cell: Cell, plan: Plan, place: Path) -> Cell:
    """A finished run of one's own in the place of a training."""
    run = Run.open(Path(plan.entry(cell.contender).runs[cell.seed - plan.seed]))
    began = time.monotonic()
    task = create_task(run.recipe())
    predictor = load_predictor(run.path, device="cuda" if torch.cuda.is_available() else "cpu")
    shards = evaluated(task, predictor)
    score = task.metrics(shards)[task.main_metric]
    place.mkdir(parents=True, exist_ok=True)
    digest = write_arrays(place / TEST, results_of(task, shards))
    seconds = {"evaluation": time.monotonic() - began}
    found = _done(cell, task.main_metric, score, digest, run.summary()["steps"], seconds)
    found = _with_summary(found, run.path)
    found.facts["run"] = str(run.path)
    return found


def _done(cell: Cell, metric: str, score: float, digest: str, step: int, seconds: dict[str, float]) -> Cell:
    return Cell(
        contender=cell.contender,
        seed=cell.seed,
        status="done",
        step=step,
        score=score,
        metric=metric,
        seconds={name: round(value, 4) for name, value in seconds.items()},
        load=cell.load,
        test=digest,
        of=cell.of,
    )


def _with_summary(cell: Cell, run: Path) -> Cell:
    summary = Run.open(run).summary()
    cell.facts.update({key: summary[key] for key in ("parameters", "flops", "seconds")})
    return cell


def _ended(cell: Cell, status: Any, error: Exception, *, step: int | None = None) -> Cell:
    return Cell(cell.contender, cell.seed, status, reason_of(error), step, load=cell.load, of=cell.of)


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _require_room(folder: Path, error: BaseException) -> None:
    """Fatal where an error comes from a disk that is full: further trainings would fail alike."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    full = any(isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) for one in chain)
    if not full and not any("No space left" in str(one) for one in chain):
        return
    probe = folder / ".room"
    try:
        write_whole(probe, lambda beside: beside.write_bytes(bytes(2**20)))
    except (RegardError, OSError):
        raise Fatal(_stopped(folder, "the disk is full")) from None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _stopped(folder: Path, why: str) -> str:
    return (
        f"{folder}: {why}; the cells that have ended are whole: make room, and "
        f"`regard compare --out {folder}` goes on with the rest"
    )


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
    folder/NAME-seed-S. The cost of each name is measured afterwards, in processes of their own. A training that fails
    does not end the others, whatever the reason: it is among its contender's `failures`, as is a cost that could not be
    measured. `after_each` gets the contenders so far after each training, and after the costs.
    RegardError for an unknown name, a name given twice, no name, a model that the recipe cannot train, and a folder
    that exists.
    """
    from regard.compare.going_on import GoingOn, begin
    from regard.compare.planning import Wishes, make_plan, require_new

    is_new = require_new(folder)
    plan = make_plan(recipe, names, Wishes(seeds=seeds), strict=True)
    begin(folder, plan, is_new=is_new)
    going = GoingOn(folder, plan, bar=bar)

    def tell_all() -> None:
        if after_each is not None:
            after_each(going.contenders())

    going.run(after_each=lambda: tell_all())
    return going.contenders()


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
        cost=measure_all({name: runs[0]})[name] if with_cost else None,
    )


def not_trained(name: str, recipe: Recipe) -> Contender:
    task = TASKS[recipe.task]
    return Contender(name, (), Metric(task.main_metric, task.larger_is_better), (), None, None, None, None)

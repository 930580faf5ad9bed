"""`regard compare`."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from regard.cli.tables import right, show
from regard.cli.terminal import say
from regard.cli.train import Device, Settings, named, with_device, words
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.api.comparing import Comparison
    from regard.compare import Contender, Record
    from regard.compare.plan import Plan

ONE_SEED = "one seed: there will be no verdict on mixers, only on these trained models"


def compare(
    mixers: Annotated[
        str | None,
        typer.Option(
            help="Names of mixers, which take their place in the model, or of models, which take its place, with "
            "commas between; or `all` that can serve (see `regard mixers` and `regard models`). attention@weights=RUN "
            "begins from a run, a file, or weights of the catalogue. For proofs: "
            "attention@copy is attention under another name, conv@labels=0.1 learns from a tenth of wrong labels."
        ),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Further models (presets) beside the mixers, with commas between.")
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(metavar="RUN,...", help="Finished runs of one's own, which are tested and not trained."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A data address: digits, folder:PATH, numbers, text:PATH, ...")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="What is trained with each mixer; one that suits the data unless given.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="auto|N", help="Runs of each; auto (the default): looks after 3, 5, 8, 12, until it is known."
        ),
    ] = None,
    max_seeds: Annotated[int | None, typer.Option(help="The most seeds with auto (12).")] = None,
    margin: Annotated[float | None, typer.Option(help="Points that matter to you (1).")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="epochs=20|steps=400|minutes=3|flops=2e12",
            help="Of each training; the recipe's unless given. Minutes are the seconds of its steps alone: compiling, "
            "evaluating and saving are off the clock (`regard train --minutes` is wall time).",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="answer|minutes=15|runs=40",
            help="When to stop adding seeds: once the answer is known, or before that after minutes of training or a "
            "number of runs (minutes=15 with auto).",
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(("throughput", "latency", "memory", "training", "flops", "parameters")),
            help="What is cheap, for the recommendation (throughput).",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Trainings at once, each in a process; it changes no result.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Of each training; one for a small model unless given, else all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to make (runs/compare-N unless given); a comparison that is there is gone on with."
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the record of the comparison into this file too."),
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Write the table, as Markdown, into this file too."),
    ] = None,
    contender: Annotated[
        str | None, typer.Option(metavar="NAME:SEED", help="Train this one cell and end: for a scheduler.")
    ] = None,
    collect: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Take over the cells that ended elsewhere, and report without training."),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print cells, minutes, disk and the difference that can be found; train nothing."),
    ] = False,
    amend: Annotated[
        bool, typer.Option("--amend", help="Let the plan of a folder change; the report will say so.")
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="At the end keep of each cell its results alone: no weights, no states.")
    ] = False,
    settings: Settings = None,
    device: Device = None,
) -> None:
    """Train the same model with several token mixers, alike: which to take, how sure that is, and what each costs.

    A training that fails does not end the others. The report holds what has ended, at any moment; with --out alone a
    comparison is gone on with. Exit status: 0 done ("cannot tell" is an answer), 2 bad input, 3 all failed.
    """
    given = (mixers, models, runs, data, recipe, seeds, max_seeds, margin, budget, cost, threads, settings, device)
    with statuses():
        if all(value is None for value in given) and (source := _plan_folder(out, collect)) is not None:
            from regard.api.comparing import Comparison

            comparison = Comparison.of(out or collect or source, source, jobs=jobs, amend=amend, until=until)
            name, options = "", list[str]()
        else:
            comparison, name, options = _begun(
                *(mixers, models, runs, data, recipe, seeds, max_seeds, margin, budget, until, cost, jobs, threads),
                *(out, amend, settings, device),
            )
        if contender is not None:
            _one_cell(comparison, contender, name, options)
            return
        settled = comparison.settle(name, options)
        _tell_plan(settled, comparison, printed=plan)
        if plan:
            return
        run_comparison(
            comparison,
            name,
            options,
            json_file=json_file,
            markdown_file=markdown_file,
            train=collect is None,
            collect=None if collect == comparison.folder else collect,
        )
        if clean:
            _clean(comparison)
    comparison.require_report()


@contextmanager
def statuses() -> Iterator[None]:
    """2 for bad input, 3 where every contender failed, 1 for a disk that is full."""
    try:
        yield
    except RegardError as error:
        error.status = getattr(error, "ends_with", 2)
        raise


def _has_plan(folder: Path) -> bool:
    from regard.compare.going_on import has_plan

    return has_plan(folder)


def _plan_folder(out: Path | None, collect: Path | None) -> Path | None:
    """Where the plan is that is gone on with: in the folder itself, or in those whose cells are taken over."""
    if collect is not None and not collect.is_dir():
        raise RegardError(f"--collect {collect}: is not a folder")
    places = [place for place in (out, collect) if place is not None]
    places += [] if collect is None else sorted(path for path in collect.iterdir() if path.is_dir())
    return next((place for place in places if _has_plan(place)), None)


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _begun(
    mixers: str | None,
    models: str | None,
    runs: str | None,
    data: str | None,
    recipe: str | None,
    seeds: str | None,
    max_seeds: int | None,
    margin: float | None,
    budget: str | None,
    until: str | None,
    cost: str | None,
    jobs: int,
    threads: int | None,
    out: Path | None,
    amend: bool,
    settings: list[str] | None,
    device: str | None,
) -> "tuple[Comparison, str, list[str]]":
    """The comparison that the options ask for, the name of its recipe, and its further options."""
    from regard.api.comparing import Comparison, without_looking
    from regard.api.settings import recipe_for
    from regard.recipes import load_recipe

    own = [Path(run) for run in _listed(runs)]
    data = None if data is None else named(data)
    name = recipe or ("" if own and mixers is None and data is None else recipe_for(data))
    if name:
        resolved = load_recipe(name, with_device(settings, device), address=data)
    else:
        from regard.compare.own_runs import recipe_of_runs

        resolved = recipe_of_runs(own)

    from regard.compare.planning import Wishes

    wishes = Wishes(
        seeds=_seeds(seeds),
        max_seeds=12 if max_seeds is None else max_seeds,
        margin=1.0 if margin is None else margin,
        budget=budget,
        until=until,
        cost=cost or "throughput",
        threads=threads,
        runs=own,
    )
    names: str | list[str] = "all" if mixers == "all" else _listed(mixers)
    if mixers is None:
        names = [] if own or models is not None else "all"
    resolved = without_looking(resolved, settings or ())
    comparison = Comparison(
        resolved, names, wishes.seeds, out, models=_listed(models), wishes=wishes, jobs=jobs, amend=amend
    )
    if comparison.left_out:
        say(comparison.left_out, err=True)
    return comparison, name, shlex.split(words([], data, settings, device))


def _seeds(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise RegardError(f"--seeds {text}: is a number, or auto") from None


def _one_cell(comparison: "Comparison", text: str, name: str, options: list[str]) -> None:
    from regard.compare.planning import Nobody

    contender, _, seed = text.rpartition(":")
    if not contender or not seed.isdecimal():
        raise RegardError(f"--contender {text}: is NAME:SEED, as in conv:3")
    cell = comparison.one_cell(contender, int(seed), name, options)
    what = f"{contender}, seed {seed}"
    if cell.status != "done":
        raise Nobody(f"{what}: {cell.status.replace('_', ' ')}: {cell.reason}")
    say(f"{what}: {cell.metric.replace('_', ' ')} {cell.score:.4f}", f"cell: {comparison.folder / cell.place}")


def _tell_plan(plan: "Plan", comparison: "Comparison", *, printed: bool) -> None:
    """What it will take: all of it on stdout with --plan, else a line before the first training."""
    from regard.compare.planning import disk_line, estimate, estimate_lines

    if printed:
        say(*estimate_lines(plan, estimate(plan, comparison.jobs), comparison.folder, comparison.jobs))
    elif not _has_plan(comparison.folder):
        say(disk_line(plan, comparison.folder), err=True)
        if plan.seeds == 1:
            say(ONE_SEED, err=True)


def run_comparison(comparison: "Comparison", name: str, options: list[str], **how: Any) -> None:
    """Runs a comparison, and prints its table, its sentence, and where its report is; also where it is interrupted."""
    try:
        comparison.run(name, options, tell=lambda line: say(line, err=True), **how)
    finally:
        if comparison.record is not None and any(contender.runs for contender in comparison.contenders):
            _show_table(comparison.contenders, comparison.record)
            _show_answer(comparison.record)
            say(f"report: {comparison.report_file}")


def _show_answer(record: "Record") -> None:
    say(record.recommendation.sentence)
    if record.stopped:
        say(f"It stopped since {record.stopped}.")
    for note in record.notes:
        say(note)


def _clean(comparison: "Comparison") -> None:
    from regard.compare.cells import clean

    assert comparison.going is not None
    freed = clean(comparison.folder, list(comparison.going.cells.values()))
    say(f"{freed / 1e6:.3g} MB of weights and states removed; the results of each cell are kept")


def _show_table(contenders: "Sequence[Contender]", record: "Record") -> None:
    """A row for each contender; then the verdicts against the recommended one, or else the one with the best mean."""
    from regard.compare.wording import difference_text, pair_between, reference_of
    from regard.tasks import TASKS

    sample, metric = TASKS[record.task].unit.removesuffix("s"), contenders[0].metric
    shown = [one for one in contenders if one.runs]
    heads = (metric.words, "parameters", "MFLOP", f"µs/{sample}", "peak MB", "s")
    table = Table(Column(record.kind, no_wrap=True), *(right(head) for head in heads))
    for found in shown:
        cost = found.cost
        table.add_row(
            found.name,
            metric.text(sum(found.scores) / len(found.scores)) + "%" * metric.is_proportion,
            "" if found.parameters is None else f"{found.parameters:,}",
            "" if found.flops is None else f"{found.flops / 1e6:.2f}",
            "" if cost is None else f"{cost.seconds_per_sample * 1e6:.0f}",
            "" if cost is None else f"{cost.peak_memory_mb:.1f}",
            "" if found.training_seconds is None else f"{found.training_seconds:.0f}",
        )
    show(table)
    say(
        f"{metric.words} on held-out data; MFLOP and µs/{sample} of inference; peak MB of a training step; "
        "s of training"
    )
    if record.measurement.busy:
        say("measured on a busy machine: of times, only ratios between contenders mean something")
    reference = reference_of(record)
    for name in (one.name for one in shown if reference is not None and one.name != reference):
        if (pair := pair_between(record, name, str(reference))) is not None:
            say(f"against {reference}: {name} {difference_text(record.metric, pair)}, {pair.verdict}")

"""Comparisons by name: a plan that is settled first, its cells, and its report at any moment."""

import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.api.settings import recipe_for, resolved_recipe
from regard.errors import RegardError, first_of
from regard.files import expanded

if TYPE_CHECKING:
    from regard.compare import Contender, Failure, Opening, Record, Report, SecondPart
    from regard.compare.cells import Cell
    from regard.compare.going_on import GoingOn
    from regard.compare.plan import Plan
    from regard.compare.planning import Wishes
    from regard.recipes import Recipe

_log = logging.getLogger("regard")

# The report is written again after each training, unless writing it would take more than this part of the time.
REPORTING = 0.1


class Compared(list[Any]):  # of Contender, which is imported where it is used
    """The contenders of a comparison in the order of its plan, and what is known of them."""

    def __init__(self, contenders: "Sequence[Contender]", record: "Record", folder: Path) -> None:
        super().__init__(contenders)
        self.record = record
        """All that the page shows and `--json` holds: cells, contenders, pairs with their verdicts."""
        self.folder = folder
        self.report_file = folder / "report.html"

    @property
    def recommendation(self) -> str | None:
        """The contender to take; None where that cannot be told yet."""
        return self.record.recommendation.name

    @property
    def sentence(self) -> str:
        """The recommendation in words."""
        return self.record.recommendation.sentence

    def verdict(self, a: str, b: str) -> str:
        """What a is against b: "better", "worse", "as good" or "cannot tell". RegardError for a name without a run."""
        from regard.compare.wording import pair_between

        pair = pair_between(self.record, a, b)
        if pair is None:
            raise RegardError(f"{a} and {b}: there is no such pair; those compared are {', '.join(self._names())}")
        return pair.verdict

    def _names(self) -> list[str]:
        return [one.name for one in self]


def compare_mixers(
    mixers: str | Sequence[str] = "all",
    data: str | Path | Mapping[str, Any] | None = None,
    recipe: str | Path | None = None,
    *,
    models: Sequence[str] = (),
    runs: Sequence[str | Path] = (),
    seeds: int | str = "auto",
    max_seeds: int = 12,
    margin: float | int = 1.0,
    budget: str | None = None,
    until: str | None = None,
    cost: str = "throughput",
    jobs: int = 1,
    threads: int | None = None,
    out: str | Path | None = None,
    amend: bool = False,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Compared:
    """Trains the same model with several token mixers, alike: which to take, how sure that is, and what each costs.

    mixers: names of mixers, which take their place in the model, or of presets, which take its place; "all" that can
    serve. models: further presets. runs: folders of finished runs, which are tested and not trained. recipe: what is
    trained with each; one that suits the data unless given.
    seeds: runs of each, or "auto": until the answer is known, `max_seeds` at most. margin: the points that matter.
    budget: of each training, "epochs=20", "steps=400", "minutes=3" (of steps alone) or "flops=2e12"; the recipe's
    unless given. until: "answer", "minutes=15" (unless given, with "auto") or "runs=40". cost: what is cheap:
    throughput, latency, memory, training, flops or parameters. jobs: trainings at once; threads: of each.
    out: the folder, runs/compare-N unless given; one that holds the same comparison is gone on with, and `amend` lets
    its plan change. `settings` are those of `train`.
    A training that fails does not end the others: it is in the report, and among its contender's `failures`.
    RegardError as there, for an unknown mixer, one named twice, a folder of another comparison, a plan that was
    changed, and where all fail.
    """
    from regard.compare.planning import Wishes
    from regard.data import address_of

    if isinstance(seeds, str) and seeds != "auto":
        raise RegardError(f"compare: seeds is {seeds!r}; it is a number, or auto")
    address = data.get("address") if isinstance(data, Mapping) else data
    name = str(recipe) if recipe is not None else recipe_for(None if address is None else address_of(str(address)))
    resolved, options, chosen = resolved_recipe(name, data, device, settings)
    wishes = Wishes(
        seeds=None if isinstance(seeds, str) else seeds,
        max_seeds=max_seeds,
        margin=margin,
        budget=budget,
        until=until,
        cost=cost,
        threads=threads,
        runs=[expanded(run) for run in runs],
    )
    names = mixers.split(",") if isinstance(mixers, str) and mixers != "all" else mixers
    comparison = Comparison(
        without_looking(resolved, chosen),
        names,
        wishes.seeds,
        out,
        models=models,
        wishes=wishes,
        jobs=jobs,
        amend=amend,
    )
    comparison.run(name, options)
    for failure in comparison.failures:
        if failure.what.endswith("report"):  # a training that failed has been told
            _log.warning("%s: %s", comparison.folder, failure)
    assert comparison.record is not None
    return Compared(comparison.contenders, comparison.record, comparison.folder)


def without_looking(recipe: "Recipe", settings: Sequence[str] = ()) -> "Recipe":
    """The recipe without its evaluations along the way, unless a person asked for them: the test part is read once."""
    keys = ("evaluate_every", "evaluate_every_steps")
    asked = {setting.partition("=")[0].strip() for setting in settings}
    changes = {key: None for key in keys if f"train.{key}" not in asked}
    if getattr(recipe.train, "patience", None) is not None:  # which says what is evaluated: validation
        changes = {}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


class Comparison:
    """A comparison that is about to run: who takes part is known, and who is left out and why."""

    def __init__(
        self,
        recipe: "Recipe",
        mixers: str | Sequence[str],
        seeds: int | None,
        out: str | Path | None,
        *,
        models: Sequence[str] = (),
        wishes: "Wishes | None" = None,
        jobs: int = 1,
        amend: bool = False,
    ) -> None:
        from regard.compare import all_candidates, left_out_message
        from regard.compare.planning import Wishes
        from regard.training import default_run_folder

        left_out: dict[str, str] = {}
        if mixers == "all":
            self.names, left_out = all_candidates(recipe)
        else:
            self.names = list(mixers)
        self.names += [named for named in models if named not in self.names]
        if coming := [named for named in models if ":" in named.partition("@")[0]]:
            raise RegardError(f"--models {coming[0]}: there is no :matched yet; name the preset alone")
        self.recipe, self.left_out = recipe, left_out_message(left_out)
        self.wishes = wishes or Wishes(seeds=seeds)
        self.jobs, self.amend = jobs, amend
        if jobs < 1:
            raise RegardError(f"compare: jobs must be at least 1, got {jobs}")
        self.folder = default_run_folder("compare") if out is None else expanded(out)
        self._prepare()

    @classmethod
    def of(
        cls,
        folder: Path,
        source: Path | None = None,
        *,
        jobs: int = 1,
        amend: bool = False,
        until: str | None = None,
    ) -> "Comparison":
        """The comparison in a folder, to go on with; the plan is in `source`, where that is another folder.

        RegardError for a plan that was changed, unless with `amend`.
        """
        from regard.compare.limits import Until
        from regard.compare.plan import Plan

        made = cls.__new__(cls)
        plan = Plan.read(source or folder, amend=amend)
        made.plan = plan if until is None else replace(plan, until=str(Until.parse(until)))
        made.recipe, made.names, made.left_out = plan.recipe_of_all(), plan.names, ""
        made.folder, made.jobs, made.amend = folder, jobs, amend
        made._prepare(made.plan)
        return made

    def _prepare(self, plan: "Plan | None" = None) -> None:
        self.plan = plan
        self.report_file = self.folder / "report.html"
        self.contenders: list[Contender] = []
        """Those of which a training has ended, well or not."""
        self.failures: list[Failure] = []
        """What did not end well: trainings, costs, parts of the report."""
        self.record: Record | None = None
        self.going: GoingOn | None = None
        self.json_file: Path | None = None
        self.markdown_file: Path | None = None
        self._report: Report | None = None
        self.opening: Opening | None = None
        """The head of the page, where it holds more than this comparison."""
        self._written, self._writing = 0.0, 0.0

    def settle(self, recipe_name: str = "", options: Sequence[str] = (), title: str | None = None) -> "Plan":
        """The plan, before anything is trained or written; that of the folder, where it holds the same comparison.

        RegardError for a folder of another comparison, and for one whose plan this would change, unless with `amend`.
        """
        from regard.compare.going_on import has_plan
        from regard.compare.plan import Plan, differences, is_other_comparison
        from regard.compare.planning import make_plan, require_new

        if self.plan is not None:
            return self.plan
        goes_on = has_plan(self.folder)
        if not goes_on:
            require_new(self.folder)
        plan = make_plan(self.recipe, self.names, self.wishes, recipe_name=recipe_name)
        plan = replace(plan, command=self._command(recipe_name, options), title=title or "")
        if goes_on:
            before = Plan.read(self.folder, amend=self.amend)
            if other := is_other_comparison(before, plan):
                raise RegardError(f"{self.folder}: holds another comparison: {other}; choose another folder with --out")
            changes = differences(before, plan)
            if changes and not self.amend:
                raise RegardError(
                    f"{self.folder}: its plan was settled before the first training, and this is another one "
                    f"({'; '.join(changes)}); `regard compare --out {self.folder}` goes on with it, --amend changes "
                    "it, and the report will say so"
                )
            amended = [*before.amended, *changes]
            plan = replace(plan, amended=amended) if changes else replace(before, until=plan.until)
        self.plan = plan
        return plan

    def _command(self, recipe_name: str, options: Sequence[str]) -> str:
        wishes, words = self.wishes, ["regard", "compare"]
        words += ["--mixers", ",".join(self.names)] if self.names else []
        words += ["--recipe", recipe_name] if recipe_name else []
        words += ["--runs", ",".join(str(run) for run in wishes.runs)] if wishes.runs else []
        words += [] if wishes.seeds is None else ["--seeds", str(wishes.seeds)]
        given: dict[str, Any] = {"--budget": wishes.budget, "--until": wishes.until, "--threads": wishes.threads}
        given |= {"--margin": wishes.margin if wishes.margin != 1.0 else None}
        given |= {"--cost": wishes.cost if wishes.cost != "throughput" else None}
        given |= {"--max-seeds": wishes.max_seeds if wishes.max_seeds != 12 else None}
        words += [word for key, value in given.items() if value is not None for word in (key, str(value))]
        return shlex.join([*words, *options])

    def run(
        self,
        recipe_name: str = "",
        options: Sequence[str] = (),
        *,
        title: str | None = None,
        json_file: Path | None = None,
        markdown_file: Path | None = None,
        train: bool = True,
        collect: Path | None = None,
        tell: Callable[[str], object] = _log.warning,
    ) -> "list[Contender]":
        """Trains what the plan lacks; after each training, and at the end, writes the report.

        recipe_name, options: how the command was called, for the report. json_file, markdown_file: where the record and
        the table are written, too. train: False only reports; collect: a folder whose cells are taken over before.
        tell: gets lines on what is amiss.
        RegardError as `compare`, and where no training ended well.
        """
        from regard.compare.cells import collect as take_over
        from regard.compare.going_on import GoingOn, begin
        from regard.compare.planning import require_same_data
        from regard.files import locked

        goes_on = self.plan is not None
        plan = self.settle(recipe_name, options, title)
        if goes_on and train:
            require_same_data(plan)
        self.json_file, self.markdown_file = json_file, markdown_file
        begin(self.folder, plan, is_new=not self.folder.exists())
        with locked(self.folder) if train else nullcontext():
            for name in [one for one in plan.contenders if one.cannot_run]:
                tell(f"{name.name} cannot run: {name.cannot_run}")
            if collect is not None:
                tell(f"{take_over(self.folder, plan, collect)} cells taken over from {collect}")
            self.going = GoingOn(self.folder, plan, jobs=self.jobs, tell=tell)
            try:
                self.going.run(after_each=self._write_now_and_then, train=train)
            except KeyboardInterrupt:
                self.write_report()
                raise
            self.write_report()
        if not any(contender.runs for contender in self.contenders):
            from regard.compare.planning import Nobody

            raise Nobody(f"{self.folder}: no training ended well: {first_of(self._told() or ['nothing ran'], 'more')}")
        return self.contenders

    def _write_now_and_then(self) -> None:
        """After each training; more seldom where the report of many contenders takes long."""
        if time.monotonic() - self._written >= self._writing / REPORTING:
            self.write_report()

    def one_cell(self, name: str, seed: int, recipe_name: str = "", options: Sequence[str] = ()) -> "Cell":
        """Trains one cell, for a scheduler; the plan is written if it is not there. A cell that has ended is told."""
        from regard.compare.cells import Damaged, read_cell
        from regard.compare.experiment import run_cell
        from regard.compare.going_on import begin, has_plan
        from regard.compare.own_weights import require_same_weights

        plan = self.settle(recipe_name, options)
        if (name, seed) not in plan.order:
            plan.entry(name)
            last = plan.seed + plan.max_seeds - 1
            raise RegardError(f"--contender {name}:{seed}: the plan has seeds from {plan.seed} to {last}")
        if not has_plan(self.folder):
            begin(self.folder, plan, is_new=False)
        if why := plan.entry(name).cannot_run:
            raise RegardError(f"--contender {name}:{seed}: cannot run: {why}")
        require_same_weights(plan, [name])
        try:
            cell = read_cell(self.folder, plan, name, seed)
        except Damaged as error:
            _log.warning("%s; it is trained again", error)
            cell = None
        return cell if cell is not None and cell.is_over else run_cell(self.folder, plan, name, seed)

    def write_report(self, *, second: "SecondPart | None" = None) -> None:
        """Writes the report of what has ended; a second part comes at its end. What cannot be written is a failure."""
        from regard.compare import Failure, Report, markdown, reason_of
        from regard.compare.answer import record_of_comparison
        from regard.compare.task_views import task_view_of
        from regard.tasks import create_task

        going, began = self.going, time.monotonic()
        assert going is not None
        self.contenders = going.contenders()
        self.failures = [failure for contender in self.contenders for failure in contender.failures]
        try:
            if self._report is None:
                self._view = task_view_of(create_task(going.plan.recipe_of_all()))
                self._report = Report(self.report_file, title=going.plan.title, whole=False, task_view=self._view)
            self.record = record_of_comparison(
                going, notes=[self.left_out] if self.left_out else [], about=self._view.about, facts=self._view.facts()
            )
            self._report.opening = self.opening
            if any(contender.runs for contender in self.contenders):
                self.failures += self._report.write_comparison(self.record, self.contenders, second=second)
            for file, text in ((self.json_file, self.record.to_json()), (self.markdown_file, markdown(self.record))):
                if file is not None:
                    _write_text(file, text)
        except Exception as error:  # hours of training shall not end for a page
            self.failures.append(Failure("report", reason_of(error)))
        self._written = time.monotonic()
        self._writing = self._written - began

    def require_report(self) -> None:
        """RegardError for a part of the report that could not be made; trainings that failed are in it."""
        failed = [str(failure) for failure in self.failures if failure.what.endswith("report")]
        if failed:
            raise RegardError(f"{first_of(failed, 'more failures')}; the rest is in {self.report_file}")

    def _told(self) -> list[str]:
        return [str(failure) for failure in self.failures]


def _write_text(file: Path, text: str) -> None:
    from regard.files import write_whole

    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda beside: beside.write_text(text, encoding="utf-8"))

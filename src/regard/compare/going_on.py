"""A comparison in a folder: begun, gone on with after a kill, and brought to its end.

read the cells -> a look? verdicts, and who drops out -> the cells up to the next look -> ... -> the costs
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from regard.compare import experiment
from regard.compare.cells import Cell, Damaged, read_cell
from regard.compare.contender import Contender, Cost, Failure, reason_of
from regard.compare.experiment import contender, not_trained
from regard.compare.limits import Until
from regard.compare.operations import Operations
from regard.compare.plan import FILE, Plan
from regard.compare.prices import prices_of
from regard.compare.reading import Place, Reading, Store, read
from regard.compare.spread import Latency, Spread
from regard.errors import RegardError
from regard.files import printable, write_json
from regard.training import Bar
from regard.training.whole_json import read_table, with_checksum

COSTS = "costs.json"


def begin(folder: Path, plan: Plan, *, is_new: bool) -> None:
    """Makes the folder and writes the plan. RegardError where another comparison began meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=not is_new)
    except FileExistsError:
        raise RegardError(f"{folder}: exists already; choose another folder with --out") from None
    plan.write(folder)


class GoingOn:
    """A comparison whose plan is in its folder.

    jobs: processes that train at once. tell: gets lines on what is not as it should be.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        jobs: int = 1,
        bar: Bar | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.folder, self.plan, self.jobs, self._bar = folder, plan, jobs, bar
        self.tell = tell or (bar or Bar()).tell
        self.until = Until.parse(plan.until)
        self.cells: dict[Place, Cell] = {}
        self.failed: dict[Place, Cell] = {}
        """Not trained for a reason that may pass: tried again when the comparison is gone on with."""
        self.costs: dict[str, Cost] = {}
        self.cost_failures: list[Failure] = []
        self.stopped, self.is_over = "", False
        self.is_final = False
        """Whether nothing more is trained now: the report is of all that there is."""
        self.store = Store(folder)
        self._begun = 0
        self._read_cells()
        self.costs = _read_costs(folder, plan)

    def _read_cells(self) -> None:
        """RegardError for a cell of another comparison. One that is damaged is named, and trained again."""
        for name, seed in self.plan.order:
            try:
                cell = read_cell(self.folder, self.plan, name, seed)
            except Damaged as error:
                self.tell(f"{error}; {name} with seed {seed} is trained again")
                shutil.rmtree(self.folder / f"{name}-seed-{seed}", ignore_errors=True)
                continue
            if cell.is_over:
                self.cells[name, seed] = cell

    @property
    def seconds(self) -> float:
        """Of all trainings, over the jobs."""
        walls = [cell.seconds.get("wall", 0.0) for place, cell in self.cells.items() if not self._is_own(place)]
        return sum(walls) / max(self.jobs, 1)

    def _is_own(self, place: Place) -> bool:
        return bool(self.plan.entry(place[0]).runs)

    def reading(self, *, to_the_end: bool = False) -> Reading:
        prices = prices_of(self.plan.cost, self.contenders(), self.plan.task)
        return read(self.plan, self.cells, self.store, prices, given_up=frozenset(self.failed), to_the_end=to_the_end)

    def run(self, *, after_each: Callable[[], object] = lambda: None, train: bool = True) -> None:
        """Trains what is to be trained, measures the costs, and says why it stopped.

        after_each: called after each training, and after the costs. train: False only reads what there is.
        """
        while True:
            now = self.reading()
            if now.looks and not self.costs and (now.is_answered or self.plan.seeds is None):
                self._measure(after_each)
                now = self.reading()
            if now.looks == len(self.plan.looks):
                self.stopped = self._all_done(now)
                break
            if now.is_answered and self.plan.seeds is None:
                runs = self.plan.looks[now.looks - 1][0]
                alone = "fewer than two contenders have runs that ended well"
                self.stopped = f"the answer was known after {runs} seeds" if now.found is not None else alone
                break
            if not train:
                self.stopped = f"{len(self.cells)} of {len(self.plan.order)} cells have ended so far"
                break
            places = self._due(now)
            if why := self._train(places, after_each):
                self.stopped = why
                break
        self.is_over, self.is_final = train or now.looks == len(self.plan.looks), True
        self._measure(after_each)

    def _all_done(self, now: Reading) -> str:
        runs = self.plan.max_seeds
        if self.plan.seeds is not None:
            return f"each contender has {runs} run{'s' * (runs > 1)}, as was said"
        return f"{runs} seeds were done (--max-seeds {runs})"

    def _due(self, now: Reading) -> list[Place]:
        """The cells up to the next look, in order, that have not ended."""
        end = self.plan.seed + self.plan.looks[now.looks][0]
        return [
            (name, seed)
            for name, seed in self.plan.order
            if seed < end
            and name not in now.dropped
            and not self.plan.entry(name).cannot_run
            and (name, seed) not in self.cells
            and (name, seed) not in self.failed
        ]

    def _train(self, places: list[Place], after_each: Callable[[], object]) -> str:
        """Why no further training began; "" where all have ended."""
        from regard.compare.jobs import in_turn, side_by_side

        why, ended = "", 0
        self._begun = sum(not self._is_own(place) for place in self.cells)
        several = len({seed for _, seed in self.plan.order}) > 1

        def may_start(place: Place) -> bool:
            nonlocal why
            first = self.until.kind == "minutes" and place[1] == self.plan.seed  # everyone has one run
            why = why or ("" if first else self.until.reached(self._begun, self.seconds))
            self._begun += not why
            return not why

        with self._bar or Bar(parts=len(places) + 1) as bar:

            def after(cell: Cell) -> None:
                nonlocal ended
                ended += 1
                place = (cell.contender, cell.seed)
                (self.cells if cell.is_over else self.failed)[place] = cell
                if cell.status != "done":
                    bar.tell(f"failed: {printable(Failure(_words(place), cell.reason or ''))}")
                elif self.jobs > 1:
                    bar.part(ended, f"{ended} of {len(places)} ended")
                after_each()

            def part(number: int, place: Place) -> Bar:
                return bar.part(number, _words(place) if several else place[0])

            if self.jobs > 1:
                side_by_side(self.folder, self.plan, places, may_start, after, self.jobs)
            else:
                in_turn(self.folder, self.plan, places, may_start, after, part)
        return why

    def _measure(self, after_each: Callable[[], object]) -> None:
        """The costs of all contenders that have a run, side by side; those of before hold where nobody is new."""
        first = {}
        for name in self.plan.names:
            done = [cell for (one, _), cell in sorted(self.cells.items()) if one == name and cell.status == "done"]
            runs = [cell.run(self.folder) for cell in done if (cell.run(self.folder) / "model.safetensors").exists()]
            if runs:
                first[name] = runs[0]
        tried = {failure.what.removesuffix(", cost") for failure in self.cost_failures}
        if not first or first.keys() <= self.costs.keys() | tried:
            return
        self.cost_failures = []
        with self._bar or Bar(parts=1) as bar:
            bar.part(bar.parts - 1, "cost")

            def failed(name: str, error: Exception) -> None:
                self.cost_failures.append(Failure(f"{name}, cost", reason_of(error)))
                bar.tell(f"failed: {printable(self.cost_failures[-1])}")

            try:
                self.costs = experiment.measure_all(
                    first, threads=self.plan.threads, seed=self.plan.seed, failed=failed, progress=bar.update
                )
            except Exception as error:  # hours of training shall not end for their costs
                for name in first:
                    failed(name, error)
        values = {name: asdict(cost) for name, cost in self.costs.items()}
        write_json(self.folder / COSTS, with_checksum({"costs": values}))
        after_each()

    def contenders(self) -> list[Contender]:
        """Those of which a training has ended, well or not, in the order of the plan."""
        found = []
        for name in self.plan.names:
            own = [(place, cell) for place, cell in sorted((self.cells | self.failed).items()) if place[0] == name]
            runs = [cell.run(self.folder) for _, cell in own if cell.status == "done"]
            failures = [Failure(_words(place), cell.reason or "") for place, cell in own if cell.status != "done"]
            if why := self.plan.entry(name).cannot_run:
                failures.append(Failure(name, why))
            failures += [failure for failure in self.cost_failures if failure.what == f"{name}, cost"]
            if not runs and not failures:
                continue
            one = contender(name, runs, with_cost=False) if runs else not_trained(name, self.plan.recipe_of_all())
            found.append(replace(one, failures=tuple(failures), cost=self.costs.get(name) if runs else None))
        return found


def _words(place: Place) -> str:
    return f"{place[0]}, seed {place[1]}"


def _read_costs(folder: Path, plan: Plan) -> dict[str, Cost]:
    """Those of before; none where they were not measured, or their file is damaged."""
    try:
        values = read_table(folder / COSTS)["costs"]
        return {name: _cost(one) for name, one in values.items() if name in plan.names}
    except (RegardError, KeyError, TypeError, AttributeError):
        return {}


def _cost(values: dict[str, Any]) -> Cost:
    made = dict(values)
    for key, kind in (("latency", Latency), ("throughput", Spread), ("training", Spread)):
        made[key] = None if made[key] is None else kind(**made[key])
    if made["flops"] is not None:
        made["flops"] = Operations(**{**made["flops"], "uncounted": tuple(made["flops"]["uncounted"])})
    return Cost(**made)


def has_plan(folder: Path) -> bool:
    return (folder / FILE).is_file()

"""Cells -> verdicts: what is known after the looks that are behind.

Everything here is a function of the plan and of the cells' files: a comparison that was killed and goes on reads the
same at each look, and takes the same contenders out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regard.compare.cells import Cell
from regard.compare.inference import Verdicts, verdicts
from regard.compare.looks import dropped, kept
from regard.compare.plan import Plan
from regard.compare.recommendation import Price, recommend
from regard.tasks import TASKS

POINT = 0.01
"""One point of the margin in the metric's own scale: a hundredth, of accuracy, AP, bits per byte."""
Place = tuple[str, int]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """What is known so far."""

    names: tuple[str, ...] = ()
    """The contenders that have a run, in the order of the plan: `found` numbers them so."""
    found: Verdicts | None = None
    """None with fewer than two of them, and before the first look."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Contenders that got no more seeds, and after how many."""
    looks: int = 0
    """How many are behind."""
    is_answered: bool = False


class Store:
    """The per-sample scores of cells, read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scores: dict[str, tuple[NDArray[np.uint64], Scores]] = {}

    def scores(self, cell: Cell) -> tuple[NDArray[np.uint64], Scores]:
        """(ids, scores), in the order of the ids."""
        key = f"{cell.place} {cell.test}"
        if key not in self._scores:
            arrays = cell.arrays(self.folder)
            order = np.argsort(arrays["id"], kind="stable")
            self._scores[key] = arrays["id"][order], arrays["score"][order].astype(np.float64)
        return self._scores[key]

    def matrix(self, plan: Plan, cells: Sequence[Cell]) -> tuple[tuple[str, ...], list[Scores]]:
        """The contenders that have runs, and (runs, samples) of each, on the samples that all of them have.

        Without results per sample, (runs,), their scores.
        """
        runs = {name: [one for one in cells if one.contender == name and one.status == "done"] for name in plan.names}
        runs = {name: sorted(some, key=lambda one: one.seed) for name, some in runs.items() if some}
        found = {name: [self.scores(one) for one in some] for name, some in runs.items()}
        rows = [row for some in found.values() for row in some]
        if any(not len(ids) for ids, _ in rows):
            return tuple(runs), [np.array([one.score for one in some], dtype=np.float64) for some in runs.values()]
        common = rows[0][0] if rows else np.empty(0, dtype=np.uint64)
        for ids, _ in rows[1:]:
            common = common if np.array_equal(ids, common) else np.intersect1d(common, ids)

        def chosen(ids: NDArray[np.uint64], scores: Scores) -> Scores:
            return scores if len(ids) == len(common) else scores[np.isin(ids, common)]

        return tuple(runs), [np.stack([chosen(*row) for row in some]) for some in found.values()]


def read(
    plan: Plan,
    cells: Mapping[Place, Cell],
    store: Store,
    prices: Mapping[str, Price | None],
    *,
    given_up: frozenset[Place] = frozenset(),
    to_the_end: bool = False,
) -> Reading:
    """The looks that are behind: those whose cells have all ended, or were given up for now.

    to_the_end: the comparison stops here; where that is between two looks, the verdicts are of all that there is, with
    the alpha of the next look.
    """
    now = Reading()
    for number, (runs, alpha) in enumerate(plan.looks):
        due = [place for place in plan.order if place[1] < plan.seed + runs]
        due = [(name, seed) for name, seed in due if seed < plan.seed + now.dropped.get(name, runs)]
        if any(not _is_over(plan, cells.get(place), place, given_up) for place in due):
            break
        now = _look(plan, [cells[place] for place in due if place in cells], store, alpha, now, runs)
        now = replace(now, looks=number + 1, is_answered=_is_answered(now, prices))
        if plan.seeds is None and now.is_answered:
            return now
    if to_the_end and now.looks < len(plan.looks):
        alpha = plan.looks[now.looks][1]
        now = _look(plan, list(cells.values()), store, alpha, now, None)
    return now


def _is_over(plan: Plan, cell: Cell | None, place: Place, given_up: frozenset[Place]) -> bool:
    return place in given_up or bool(plan.entry(place[0]).cannot_run) or (cell is not None and cell.is_over)


def _look(
    plan: Plan, cells: Sequence[Cell], store: Store, alpha: float | int, before: Reading, runs: int | None
) -> Reading:
    names, scores = store.matrix(plan, cells)
    if len(names) < 2:
        return replace(before, names=names, found=None)
    larger = TASKS[plan.task].larger_is_better
    found = verdicts(scores, plan.margin * POINT, alpha, larger_is_better=larger)
    if names == before.names:
        found = kept(before.found, found)
    out = dict(before.dropped)
    if runs is not None and plan.seeds is None:
        for index in dropped(found):
            out.setdefault(names[index], runs)
    return replace(before, names=names, found=found, dropped=out)


def _is_answered(now: Reading, prices: Mapping[str, Price | None]) -> bool:
    """Whether a contender can be recommended, each pair has its verdict, or there is nothing to compare."""
    if now.found is None:
        return True
    if all(pair.verdict != "cannot tell" for pair in now.found.pairs):
        return True
    found = recommend(now.found, now.names, [prices.get(name) for name in now.names])
    return found.index is not None

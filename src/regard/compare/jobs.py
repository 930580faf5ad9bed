"""Cells side by side: a process for each job slot, which trains one cell after the other.

Run as a program, this file is such a process: `python -m regard.compare.jobs FOLDER`.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regard.compare.cells import Cell
from regard.compare.experiment import Fatal, run_cell
from regard.compare.plan import Plan
from regard.compare.processes import ProcessEndedError, Worker, serve
from regard.training import Bar

Place = tuple[str, int]


def in_turn(
    folder: Path,
    plan: Plan,
    places: Sequence[Place],
    may_start: Callable[[Place], bool],
    after: Callable[[Cell], None],
    part: Callable[[int, Place], Bar | None],
) -> None:
    """Trains cells one after the other in this process, as long as one may start."""
    for number, (name, seed) in enumerate(places):
        if not may_start((name, seed)):
            return
        after(run_cell(folder, plan, name, seed, bar=part(number, (name, seed))))


def side_by_side(
    folder: Path,
    plan: Plan,
    places: Sequence[Place],
    may_start: Callable[[Place], bool],
    after: Callable[[Cell], None],
    jobs: int,
) -> None:
    """The same in `jobs` processes. `after` gets each cell in this thread, in the order in which they end."""
    left, lock = list(places), threading.Lock()
    ended: queue.Queue[Cell | Exception | None] = queue.Queue()
    workers: list[Worker] = []
    over = threading.Event()

    def slot() -> None:
        worker: Worker | None = None
        try:
            while not over.is_set():
                with lock:
                    if not left or not may_start(left[0]):
                        break
                    name, seed = left.pop(0)
                if worker is None:
                    worker = Worker("regard.compare.jobs", [str(folder)], environment(plan.threads))
                    workers.append(worker)
                try:
                    answer = worker.ask([name, seed, jobs])
                except ProcessEndedError as error:
                    worker = None
                    ended.put(Cell(name, seed, "missing", f"its process ended: {error}", of=plan.cell_id(name, seed)))
                    continue
                if "fatal" in answer:
                    raise Fatal(answer["fatal"])
                ended.put(Cell(**answer))
        except Exception as error:
            ended.put(error)
        ended.put(None)

    threads = [threading.Thread(target=slot, daemon=True) for _ in range(min(jobs, len(places)))]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            one = ended.get()
            if one is None:
                running -= 1
            elif isinstance(one, Exception):
                raise one
            else:
                after(one)
    finally:
        over.set()
        for worker in workers:
            worker.close()


def environment(threads: int) -> dict[str, str]:
    """Of a process: as many threads as a cell has, whatever the shell says."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if "OMP_NUM_THREADS" in os.environ else {}


def _answer(folder: Path, request: Any) -> dict[str, Any]:
    name, seed, jobs = request
    try:
        return asdict(run_cell(folder, Plan.read(folder), name, seed, bar=Bar(visible=False), jobs=jobs))
    except Fatal as error:
        return {"fatal": str(error)}


if __name__ == "__main__":
    serve(lambda request: _answer(Path(sys.argv[1]), request))

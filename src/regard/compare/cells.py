"""Cells: one training each, whose results are files, so that any process on any machine can make one.

    FOLDER/NAME-seed-S/           a run folder, as `regard train` leaves it
        cell.json                 how it ended, with what score, and where its time went
        test.npz                  what its final weights make of each test sample (per_sample.py)

`cell.json` is written last: a cell without it is trained, from its newest state where it has one.
"""

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from regard.compare.per_sample import Arrays, read_arrays
from regard.compare.plan import Plan
from regard.errors import RegardError, one_line
from regard.files import write_json
from regard.training.whole_json import read_table, with_checksum

FILE, TEST = "cell.json", "test.npz"
Status = Literal["done", "diverged", "cannot_run", "missing"]


@dataclass(frozen=True)
class Cell:
    contender: str
    seed: int
    status: Status
    reason: str | None = None
    step: int | None = None
    """The last step; of one that diverged, that at which the loss was not finite."""
    score: float | None = None
    metric: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    """steps, evaluation, saving, compile; and wall, from beginning to end."""
    load: float | None = None
    """Load average when it began."""
    test: str | None = None
    """Hash of test.npz."""
    facts: dict[str, Any] = field(default_factory=dict)
    """parameters, flops, versions, machine, command, run (the folder of the weights where it is another)."""
    of: str = ""
    """`Plan.cell_id`."""
    fold: int | None = None

    @property
    def place(self) -> str:
        return f"{self.contender}-seed-{self.seed}"

    @property
    def is_over(self) -> bool:
        return self.status != "missing"

    def write(self, folder: Path) -> None:
        write_json(folder / self.place / FILE, with_checksum(asdict(self)))

    def run(self, folder: Path) -> Path:
        """The run folder with its weights."""
        return Path(self.facts["run"]) if "run" in self.facts else folder / self.place

    def arrays(self, folder: Path) -> Arrays:
        """RegardError for a test.npz that is gone or damaged."""
        return read_arrays(folder / self.place / TEST, self.test or "")


class Damaged(RegardError):  # noqa: N818 (a caller reads: except Damaged)
    """A cell's file that is not as it was written."""


def read_cell(folder: Path, plan: Plan, name: str, seed: int) -> Cell:
    """A cell as its files have it; `missing` where it has not ended.

    Damaged for files that are not as they were written, and RegardError for a cell of another comparison.
    """
    found = Cell(name, seed, "missing")
    file = folder / found.place / FILE
    if not file.exists():
        return found
    try:
        values = read_table(file)
        values.pop("checksum")  # one without it was not written here
        found = Cell(**values)
        if found.status == "done":
            found.arrays(folder)
    except (RegardError, KeyError, TypeError, ValueError) as error:
        told = str(error) if isinstance(error, RegardError) else f"{file}: is damaged: {one_line(error)}"
        raise Damaged(told) from None
    if (found.contender, found.seed, found.of) != (name, seed, plan.cell_id(name, seed)):
        raise RegardError(
            f"{file}: is a cell of another comparison (another recipe, data or number of threads); choose another "
            "folder with --out"
        )
    return found


def clean(folder: Path, cells: list[Cell]) -> int:
    """Removes of each cell that has ended all but its results: weights, states, reports. Returns the bytes freed."""
    freed = 0
    for cell in cells:
        if not cell.is_over or "run" in cell.facts:
            continue
        place = folder / cell.place
        for path in (place / "state", place / "tensorboard", *place.glob("*.safetensors"), place / "report.html"):
            freed += size_of(path)
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return freed


def size_of(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def collect(folder: Path, plan: Plan, other: Path) -> int:
    """Takes over the cells of another folder, or of the folders in it, that belong to the plan. Returns how many.

    RegardError for one that is damaged, or of another comparison.
    """
    places = [other, *sorted(path for path in other.iterdir() if path.is_dir() and (path / "plan.json").exists())]
    taken = 0
    for place in places:
        if place.resolve() == folder.resolve():
            continue
        for name, seed in plan.order:
            one = read_cell(place, plan, name, seed)
            if one.is_over and not (folder / one.place / FILE).exists():
                shutil.rmtree(folder / one.place, ignore_errors=True)
                beside = folder / f".{one.place}.collected"
                shutil.rmtree(beside, ignore_errors=True)
                shutil.copytree(
                    place / one.place, beside, ignore=shutil.ignore_patterns("state", "tensorboard", ".lock")
                )
                beside.rename(folder / one.place)
                taken += 1
    return taken


def with_wall(cell: Cell, seconds: float) -> Cell:
    return replace(cell, seconds={**cell.seconds, "wall": round(seconds, 3)})

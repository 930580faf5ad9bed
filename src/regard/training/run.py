"""The run folder: what is in it, and where."""

import json
import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn

from regard.errors import RegardError
from regard.files import LOCK, locked, write_json, write_whole
from regard.reading import require_file
from regard.recipes import Recipe, read_recipe, write_recipe
from regard.training.agreement import on_main
from regard.training.whole_json import read_table, with_checksum
from regard.weights.checksum import CHECKSUM, checksum, sort_notes
from regard.weights.files import read_notes

RACE = "race.json"  # may be there before the run is: see regard.choose
RUN = "regard.run"  # the run's id in the header of its weights


class Run:
    """A folder that holds one training: enough to predict, evaluate, explain, and resume.

    recipe.toml         the recipe as resolved
    metadata.json       the model and its arguments, class names, preprocessing
    model.safetensors   the weights that evaluation uses: the average where there is one
    best.safetensors    those of the best evaluation so far
    metrics.jsonl       a line for each step and each evaluation
    summary.json        the final figures, once the run has ended
    report.html         curves, confusion, mistakes, what the model mixes
    state/              what a resumed run starts from
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.toml"
        self.metadata_file = path / "metadata.json"
        self.weights_file = path / "model.safetensors"
        self.best_file = path / "best.safetensors"
        self.metrics_file = path / "metrics.jsonl"
        self.summary_file = path / "summary.json"
        self.report_file = path / "report.html"
        self._id: str | None = None

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run in an existing folder."""
        run = cls(path)
        if not run.recipe_file.exists():
            what = "holds no run (there is no recipe.toml)" if path.is_dir() else "is not a folder"
            raise RegardError(f"{path}: {what}; `regard train RECIPE --out RUN` makes one")
        return run

    def require_new(self) -> None:
        if self.path.is_dir() and all(entry.name in (LOCK, RACE) for entry in self.path.iterdir()):
            return
        if self.path.exists():
            hint = f"go on with `regard train --resume {self.path}`, or " if self.recipe_file.exists() else ""
            raise RegardError(f"{self.path}: exists already; {hint}choose another folder with --out")

    def create(self, recipe: Recipe, metadata: dict[str, Any]) -> None:
        """Fills the folder, and gives the run an id, unless it has one already. The recipe comes last: a folder that
        has one can be resumed."""
        self.path.mkdir(parents=True, exist_ok=True)
        known = self.id() if self.metadata_file.exists() else None
        write_json(self.metadata_file, with_checksum({**metadata, "run": known or secrets.token_hex(8)}))
        self.write_recipe(recipe)

    def add_metadata(self, values: Mapping[str, Any]) -> None:
        """Adds what was measured at the end of a training."""
        write_json(self.metadata_file, with_checksum({**self.metadata(), **values}))

    def write_recipe(self, recipe: Recipe) -> None:
        write_whole(self.recipe_file, lambda beside: write_recipe(recipe, beside))

    def id(self) -> str | None:
        """What tells a run from all others, in its metadata, its weights and its states; older runs have none."""
        if self._id is None:
            found = self.metadata().get("run")
            self._id = found if isinstance(found, str) else None
        return self._id

    def recipe(self, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe that it was trained by, with overrides by dotted key."""
        return read_recipe(self.recipe_file, overrides, of_run=True)

    def metadata(self) -> dict[str, Any]:
        return read_table(self.metadata_file)

    def summary(self) -> dict[str, Any]:
        """The final figures. RegardError while the run has not ended."""
        if not self.summary_file.exists():
            raise RegardError(f"{self.path}: has not ended; `regard train --resume {self.path}` goes on with it")
        return read_table(self.summary_file)

    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl that can be read."""
        return read_records(self.metrics_file)[0]

    def save_weights(self, model: nn.Module, file: Path) -> None:
        """With their checksum and the run's id in the header."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        header = {"format": "pt", CHECKSUM: checksum(tensors)} | ({RUN: run} if (run := self.id()) else {})

        def write(beside: Path) -> None:
            save_file(tensors, beside, metadata=header)
            sort_notes(beside)

        write_whole(file, write)

    def require_own(self, file: Path) -> None:
        """RegardError for weights of another run. Weights that say nothing of a run are taken."""
        found, own = read_notes(file).get(RUN), self.id()
        if found is not None and own is not None and found != own:
            raise RegardError(f"{file}: are the weights of another run (its id is {found}, this run's is {own})")


def main_metric(summary: Mapping[str, Any]) -> str:
    """The name of the metric that decides which weights are the best; of several labels it is another than of one."""
    return next(name for name in summary["best"] if name != "step")


def read_records(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The records in a metrics.jsonl, and how many whole lines cannot be read.

    A last line without its end, which a killed run left, is neither.
    """
    if not file.exists():
        return [], 0
    require_file(file)
    *lines, rest = file.read_bytes().split(b"\n")
    found = [_record(line) for line in lines]
    records = [record for record in found if record is not None]
    if (last := _record(rest)) is not None:
        records.append(last)
    return records, len(found) - len(records) + (last is not None)


def _record(line: bytes) -> dict[str, Any] | None:
    """One record: its kind, its step, and figures, of which null is one that was not finite. None for anything else."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("kind") not in ("train", "val"):
        return None
    values |= {key: math.nan for key, value in values.items() if value is None and key not in ("step", "epoch")}
    step, figures = values.get("step"), [value for key, value in values.items() if key != "kind"]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in figures)
    whole = numbers and isinstance(step, int) and step >= 0 and {"epoch", "loss"} <= values.keys()
    return values if whole else None


@contextmanager
def claimed(run: Run, accelerator: Accelerator, *, new: bool) -> Iterator[None]:
    """Within, the folder of a run belongs to this training; one that was made for it and stayed empty goes again.

    The main process alone locks it. RegardError, on all processes, where another training has it, and for a `new` run
    where there is something already.
    """
    with ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(_claimed(run, new=new))

        on_main(accelerator, claim)
        yield


@contextmanager
def _claimed(run: Run, *, new: bool) -> Iterator[None]:
    if new and run.path.exists() and not run.path.is_dir():
        run.require_new()
    made = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegardError(f"{run.path}: the folder cannot be made: {error.strerror}") from None
    try:
        with locked(run.path):
            if new:
                run.require_new()
            yield
    finally:
        with suppress(OSError):  # one that is not empty stays
            for folder in made:
                folder.rmdir()


def default_run_folder(name: str, parent: Path = Path("runs")) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"

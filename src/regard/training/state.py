"""The state that a run resumes from: `state/step-N/`, and `state/latest`, which names the newest one.

A state says itself whether it is whole: progress.json holds its step, the run's id, the checksums of the other files,
and its own. progress.json is written last, so that a state without it is what a killed run left.
"""

import hashlib
import json
import math
import re
import shutil
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

from regard.errors import RegardError, one_line
from regard.files import flush, json_text, write_json, write_whole
from regard.reading import read_json
from regard.training.agreement import on_main

ORIGIN = "origin.json"
DAMAGED = "is cut short or damaged, or does not match this model"
# Of progress.json, what its checksum leaves out: nothing that is trained follows from the clock.
_CLOCK = (
    *("seconds", "training_seconds", "prepared_seconds", "evaluation_seconds", "last_evaluation_seconds"),
    *("saving_seconds", "compile_seconds"),
)


@dataclass
class Progress:
    """How far a run is. Order, augmentation and every other draw follow from the seed and the step."""

    step: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    """Without evaluations and saving."""
    prepared_seconds: float = 0.0
    """Before the first step, in which features were computed: the schedule begins after them."""
    evaluation_seconds: float = 0.0
    last_evaluation_seconds: float = 0.0
    saving_seconds: float = 0.0
    compile_seconds: float = 0.0
    """Of local attention in C++, before the first step of a training that is compared."""
    samples: int = 0
    """Images, or sequences."""
    skipped: list[str] = field(default_factory=list)
    """Those that could not be read, each once."""
    best: float | None = None
    best_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """The last evaluation's."""
    details: dict[str, Any] = field(default_factory=dict)
    """What the summary holds beside them, such as figures of each class."""
    evaluated_step: int = 0
    selected: float | None = None
    """The best so far on the images of `data.selection`."""
    without_gain: int = 0
    """Evaluations since."""


class State:
    """Saves and loads the states of one run folder. `tell` shows a line."""

    def __init__(
        self,
        run: Path,
        accelerator: Accelerator,
        average: AveragedModel | None,
        *,
        run_id: str | None = None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.folder = run / "state"
        self.accelerator = accelerator
        self.average = average
        self.run_id, self.tell = run_id, tell
        self.write_origin: Callable[[Path], object] = lambda _: None
        """Writes origin.json into a state."""

    @property
    def latest(self) -> Path | None:
        """The state that `state/latest` names; None where it names none."""
        return named_latest(self.folder)

    def make_folder(self) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RegardError(f"{self.folder}: could not be made: {error.strerror}") from error

    def save(self, progress: Progress) -> None:
        """Writes a new folder, flushes it, and only then moves the pointer: a run killed at any moment can resume.

        On a full disk the former state stays in force, and the RegardError says so.
        """
        accelerator = self.accelerator
        former, folder = self.latest, self.folder / f"step-{progress.step}"
        if former == folder and folder.is_dir():
            return
        try:
            if accelerator.is_main_process:
                shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
                folder.mkdir(parents=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(folder))
            if accelerator.is_main_process:
                if self.average is not None:
                    averages = {name: tensor.contiguous() for name, tensor in self.average.state_dict().items()}
                    save_file(averages, folder / "average.safetensors")
                files = sorted(folder.iterdir())
                with ThreadPoolExecutor() as pool:  # while the disk is waited for
                    checksums = {file.name: pool.submit(_checksum, file) for file in files if not _is_random(file)}
                    for file in files:
                        flush(file)
                values = {**asdict(progress), "run": self.run_id}
                values["checksums"] = {name: found.result() for name, found in checksums.items()}
                self.write_origin(folder / ORIGIN)
                write_json(folder / "progress.json", {**values, "checksum": _checksum_of(values)})
                flush(folder / "progress.json")
                flush(folder)
                write_whole(self.folder / "latest", lambda path: path.write_text(f"{folder.name}\n", encoding="utf-8"))
        except (OSError, RuntimeError, SafetensorError, RegardError) as error:
            reason = _reason(error, folder)
            shutil.rmtree(folder, ignore_errors=True)
            kept = "there is no earlier state" if former is None else f"{former} is whole and can be resumed"
            raise RegardError(f"{folder}: could not be saved: {reason}; {kept}") from error
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for other in self.folder.glob("step-*"):  # the former one, and what a killed run left
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)

    def find(self, *, begun: bool = False) -> Path | None:
        """The newest whole state, for all processes alike; None where the run was stopped before its first.

        RegardError where there was a state, and none is whole. `begun`: whether the run has saved weights, so that
        there must have been one.
        """
        folder = on_main(self.accelerator, lambda: newest_whole(self.folder, self.run_id, begun=begun))
        if folder is None:
            self.tell("no state yet: the run begins again at step 0")
        elif folder != self.latest:
            self.tell(f"{self.folder}: the newest whole state is {folder.name}; the run goes on from there")
        return folder

    def load(self, folder: Path) -> Progress:
        """Puts a state that is whole into model, optimiser and average, and says how far it was."""
        try:
            self.accelerator.load_state(str(folder))
            if self.average is not None:
                self.average.load_state_dict(load_file(folder / "average.safetensors"))
        except (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise RegardError(f"{folder}: {DAMAGED}: {one_line(error)}") from error
        except (UnpicklingError, SafetensorError) as error:
            raise RegardError(f"{folder}: {DAMAGED}: {one_line(error)}") from error
        return read_progress(folder, self.run_id, with_files=False)


def named_latest(folder: Path) -> Path | None:
    """The state that `latest` in a state folder names: a folder beside it, step-N; None for anything else."""
    try:
        with (folder / "latest").open("rb") as file:
            name = file.read(64).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return folder / name if _step_of(name) is not None else None


def newest_whole(folder: Path, run_id: str | None, *, begun: bool = False) -> Path | None:
    """The newest state that is whole; None where there never was one. RegardError where there was, and none is."""
    latest = named_latest(folder)
    steps = {_step_of(path.name): path for path in (folder.iterdir() if folder.is_dir() else ())}
    states = [path for _, path in sorted((step, path) for step, path in steps.items() if step is not None)]
    if latest is not None and latest not in states:
        there = [path.name for path in states if _is_whole(path, run_id)]
        way = f"; remove {folder / 'latest'} to go on from {there[-1]}" if there else ""
        raise RegardError(f"{latest}: {DAMAGED}: it is gone{way}")
    broken: RegardError | None = None
    for state in reversed(states):
        if not (state / "progress.json").exists() and state != latest:
            continue  # what a run left that was killed while it saved
        try:
            read_progress(state, run_id)
            return state
        except RegardError as error:
            broken = broken or error
    if broken is not None:
        raise broken
    if begun and not folder.is_dir():
        raise RegardError(
            f"{folder}: is gone, though the run has saved weights, so that it cannot be resumed; "
            f"a new run can start from them: --set model.weights={folder.parent}"
        )
    return None


def read_progress(state: Path, run_id: str | None, *, with_files: bool = True) -> Progress:
    """What progress.json says, once it (and all files beside it) are as they were written. RegardError if not.

    A state of an older version holds no checksums.
    """
    try:
        if state.is_symlink():
            raise RegardError("is a link")
        values = read_json(state / "progress.json")
        if not isinstance(values, dict):
            raise RegardError("progress.json holds no table")
        written, sums = values.pop("checksum", None), values.pop("checksums", {})
        own = values.pop("run", None)
        if written is not None and written != _checksum_of({**values, "run": own, "checksums": sums}):
            raise RegardError("progress.json is not as it was written")
        if own != run_id:
            raise RegardError("it is of another run")
        progress = Progress(**values)
        progress.metrics = {name: math.nan if figure is None else figure for name, figure in progress.metrics.items()}
        _require_kinds(progress)
        if progress.step != _step_of(state.name):
            raise RegardError(f"progress.json is of step {progress.step}")
        for name, checksum in sums.items() if with_files else ():
            if Path(name).name != name or _checksum(state / name) != checksum:
                raise RegardError(f"{name} is not as it was written")
    except (RegardError, OSError, ValueError, TypeError, AttributeError) as error:
        raise RegardError(f"{state}: {DAMAGED}: {one_line(error)}") from None
    return progress


def _require_kinds(progress: Progress) -> None:
    """RegardError for a value that is no number, count or name where one belongs."""
    counts = (progress.step, progress.samples, progress.best_step, progress.evaluated_step, progress.without_gain)
    clock = [getattr(progress, name) for name in _CLOCK]
    figures = [*clock, progress.best or 0.0, progress.selected or 0.0, *progress.metrics.values()]
    right = all(type(count) is int and count >= 0 for count in counts)
    right = right and all(type(figure) in (int, float) for figure in figures)
    right = right and isinstance(progress.details, dict)
    if not right or not isinstance(progress.skipped, list) or not all(isinstance(n, str) for n in progress.skipped):
        raise RegardError("progress.json holds a value of another kind")


def _is_whole(state: Path, run_id: str | None) -> bool:
    try:
        read_progress(state, run_id)
    except RegardError:
        return False
    return True


def _step_of(name: str) -> int | None:
    """step-12 -> 12; None for any other name."""
    found = re.fullmatch(r"step-(0|[1-9][0-9]{0,18})", name)
    return int(found[1]) if found else None


def _is_random(file: Path) -> bool:
    """Whether a file holds the generators, which Accelerate saves and nothing needs."""
    return file.name.startswith("random_states")


def _checksum(file: Path) -> str:
    crc = 0
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


def _checksum_of(values: dict[str, Any]) -> str:
    covered = {key: value for key, value in values.items() if key not in _CLOCK}
    as_written = json.loads(json_text(covered))  # where a figure that is not finite is null
    return hashlib.blake2b(json.dumps(as_written, sort_keys=True).encode(), digest_size=8).hexdigest()


def _reason(error: BaseException, folder: Path) -> str:
    """Why something could not be saved: torch says "unexpected pos" for a full disk, so the disk is asked."""
    if not isinstance(error, OSError | RegardError):
        for file in _files(folder):
            try:
                with file.open("ab") as opened:
                    opened.write(bytes(2**20))
                    opened.flush()
            except OSError as refused:
                return one_line(refused)
    return one_line(error)


def _files(folder: Path) -> Iterable[Path]:
    try:
        return [*sorted(folder.iterdir()), folder / "more"]
    except OSError:
        return [folder / "more"]

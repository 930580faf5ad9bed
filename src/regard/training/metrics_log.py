"""Figures along the way: metrics.jsonl, and TensorBoard where it is installed."""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from regard.errors import RegardError, one_line
from regard.files import json_text, write_whole
from regard.training.event_file import EventFile
from regard.training.run import Run, read_records


class MetricsLog:
    """Appends records; those after `step`, which a killed run wrote beyond its last state, are taken out first.

    `tell` shows a line. TensorBoard is extra: where its files cannot be written the run goes on without it.
    """

    def __init__(self, run: Run, step: int, *, main: bool, tell: Callable[[str], object] = lambda _: None) -> None:
        self._file = self._board = None
        self._folder, self._tell = run.path, tell
        if not main:
            return
        records, unreadable = read_records(run.metrics_file)
        if unreadable:
            tell(f"{run.metrics_file}: {unreadable} lines that cannot be read are taken out")
        kept = [record for record in records if record["step"] <= step]
        lines = "".join(json_text(record) + "\n" for record in kept)
        write_whole(run.metrics_file, lambda beside: beside.write_text(lines, encoding="utf-8"))
        try:
            self._file = run.metrics_file.open("a", encoding="utf-8")
        except OSError as error:
            raise RegardError(f"{run.metrics_file}: could not be written: {error.strerror}") from error
        with suppress(ImportError):
            try:
                self._board = EventFile(run.path / "tensorboard", step + 1)
            except OSError as error:
                self._without_board(error)

    def write(self, kind: str, step: int, epoch: float, **figures: float) -> None:
        """`kind` is `train` for a step and `val` for an evaluation."""
        if self._file is None:
            return
        try:
            self._file.write(json_text({"kind": kind, "step": step, "epoch": epoch, **figures}) + "\n")
            self._file.flush()
        except OSError as error:
            raise RegardError(f"{self._file.name}: could not be written: {error.strerror}") from error
        try:
            if self._board is not None:
                self._board.add(step, {f"{kind}/{name}": value for name, value in figures.items()})
        except OSError as error:
            self._without_board(error)

    def _without_board(self, error: OSError) -> None:
        self._board = None
        if self._folder.is_dir():  # else the run's own files are told of
            self._tell(f"warning: no more figures for TensorBoard: {one_line(error)}")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in (self._file, self._board):
            if writer is not None:
                with suppress(OSError):  # `write` has reported the full disk, and closing tries once more
                    writer.close()

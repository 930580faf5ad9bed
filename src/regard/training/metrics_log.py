"""Figures along the way: metrics.jsonl, and TensorBoard where it is installed."""

import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from regard.errors import RegardError, one_line
from regard.files import json_text, write_whole
from regard.training.run import Run, read_records


class MetricsLog:
    """Appends records; those after `step`, which a killed run wrote beyond its last state, are taken out first.

    `tell` shows a line. TensorBoard is extra: where its files cannot be written the run goes on without it.
    """

    def __init__(self, run: Run, step: int, *, main: bool, tell: Callable[[str], object] = lambda _: None) -> None:
        self._file = self._board = None
        self._folder, self._tell, self._excepthook = run.path, tell, threading.excepthook
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
        try:
            self._board = _tensorboard(run.path / "tensorboard", step)
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
                for name, value in figures.items():
                    self._board.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:  # of some record before: a thread of its own writes them
            self._without_board(error)

    def _without_board(self, error: OSError) -> None:
        self._board = None
        if self._folder.is_dir():  # else the run's own files are told of
            self._tell(f"warning: no more figures for TensorBoard: {one_line(error)}")

    def _hook(self, thrown: "threading.ExceptHookArgs") -> None:
        """Leaves out the traceback of TensorBoard's thread, whose error `add_scalar` raises."""
        if not type(thrown.thread).__module__.startswith("tensorboard"):
            self._excepthook(thrown)

    def __enter__(self) -> "MetricsLog":
        threading.excepthook = self._hook
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in (self._file, self._board):
            if writer is not None:
                with suppress(OSError):  # `write` has reported the full disk, and closing tries once more
                    writer.close()
        threading.excepthook = self._excepthook


def _tensorboard(folder: Path, step: int) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)

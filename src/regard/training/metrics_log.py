"""Figures along the way: metrics.jsonl, and TensorBoard where it is installed."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from regard.errors import RegardError
from regard.files import json_text, write_whole
from regard.training.run import Run, read_records


class MetricsLog:
    """Appends records; those after `step`, which a killed run wrote beyond its last state, are taken out first."""

    def __init__(self, run: Run, step: int, *, main: bool) -> None:
        self._file = self._board = None
        self.unreadable = 0
        """Lines of before that cannot be read; they are taken out, too."""
        if not main:
            return
        records, self.unreadable = read_records(run.metrics_file)
        kept = [record for record in records if record["step"] <= step]
        lines = "".join(json_text(record) + "\n" for record in kept)
        write_whole(run.metrics_file, lambda beside: beside.write_text(lines, encoding="utf-8"))
        self._file = run.metrics_file.open("a", encoding="utf-8")
        self._board = _tensorboard(run.path / "tensorboard", step)

    def write(self, kind: str, step: int, epoch: float, **figures: float) -> None:
        """`kind` is `train` for a step and `val` for an evaluation."""
        if self._file is None:
            return
        try:
            self._file.write(json_text({"kind": kind, "step": step, "epoch": epoch, **figures}) + "\n")
            self._file.flush()
            if self._board is not None:
                for name, value in figures.items():
                    self._board.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise RegardError(f"{self._file.name}: could not be written: {error.strerror}") from error

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in (self._file, self._board):
            if writer is not None:
                with suppress(OSError):  # `write` has reported the full disk, and closing tries once more
                    writer.close()


def _tensorboard(folder: Path, step: int) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)

"""What runs, how far it is, and how long it still takes."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from regard.files import printable

SECONDS_BETWEEN_LINES = 15


class Bar:
    """A progress bar over one or more parts of equal length; a line of text now and then where there is no terminal.

    It may be entered again while it is shown: what trains several models shows one bar for all.
    """

    def __init__(self, parts: int = 1, *, console: Console | None = None, visible: bool = True) -> None:
        self.parts = parts
        self.console = console or Console(stderr=True)
        self.visible = visible
        self._part, self._label, self._last_line, self._depth = 0, "", 0.0, 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not (visible and self.console.is_terminal),
        )
        self._task = self._progress.add_task("", total=float(parts), text="")

    def __enter__(self) -> "Bar":
        if self._depth == 0:
            self._progress.start()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._progress.stop()

    def part(self, number: int, label: str) -> "Bar":
        """What is reported from now on is part `number`, from 0."""
        self._part = number
        label = printable(label)
        self._label = f"{label} ({number + 1} of {self.parts})" if self.parts > 1 else label
        self.update(0.0, "")
        return self

    def update(self, fraction: float, text: str) -> None:
        """`fraction` of the part is done, from 0 to 1."""
        self._progress.update(self._task, completed=self._part + fraction, description=self._label, text=text)
        now = time.monotonic()
        if self.visible and not self.console.is_terminal and text and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            line = f"{self._label}: {(self._part + fraction) / self.parts:.0%}, {text}"
            self.console.print(line, markup=False, emoji=False)

    def tell(self, text: str) -> None:
        """A line that stays."""
        if self.visible:
            self.console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

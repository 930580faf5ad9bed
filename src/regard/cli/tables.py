"""What is printed, and what is written beside it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from regard.cli.terminal import plain, plain_text, write_content, write_json
from regard.errors import RegardError


def right(name: str) -> Column:
    """A column of numbers."""
    return Column(name, justify="right")


def show(table: Table, *, in_lines: bool = False) -> None:
    """Prints a table; names of files and classes are plain text, and long ones are folded, not cut.

    in_lines: whether cells may have several lines.
    """
    for column in table.columns:
        column.overflow = "fold"
    _Plain(in_lines).print(table)


class _Plain(Console):
    """A console that a name cannot drive."""

    def __init__(self, in_lines: bool) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)
        self._plain = plain_text if in_lines else plain

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(self._plain(text), **options)


def figures_line(figures: Mapping[str, Any]) -> str:
    """Metrics in a line: `accuracy 0.9800, images 450`."""
    return ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


def printed(as_json: bool, as_csv: bool, whole: Any, rows: str) -> bool:
    """Prints JSON or CSV where one was asked for."""
    if as_json and as_csv:
        raise RegardError("choose one of --json and --csv")
    if as_json:
        write_json(whole)
    elif as_csv:
        write_content(rows)
    return as_json or as_csv


def write_files(folder: Path | None, name: str, whole: Any, rows: str) -> None:
    """NAME.json and NAME.csv in `folder`, where there is one."""
    if folder is None:
        return
    from regard import files

    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / f"{name}.json", whole)
    data = rows.encode("utf-8", "surrogateescape")  # names that are not UTF-8 keep their bytes
    files.write_whole(folder / f"{name}.csv", lambda beside: beside.write_bytes(data))


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and a line for each row. What is not UTF-8 in a name is written as \\udcff; only JSON reads it back."""
    from regard.files import printable

    text = io.StringIO()
    # Python quotes what holds the end of a line as it is written here; other readers end a line at a return, too.
    returns = any("\r" in value for row in rows for value in row.values() if isinstance(value, str))
    writer = csv.DictWriter(
        text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    )
    writer.writeheader()
    writer.writerows(rows)
    return printable(text.getvalue())

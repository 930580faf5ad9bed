"""What is printed, and what is written beside it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from regard.errors import RegardError


def right(name: str) -> Column:
    """A column of numbers."""
    return Column(name, justify="right")


def show(table: Table) -> None:
    """Prints a table; names of files and classes stand in one line each, and long ones are fused, not cut."""
    for column in table.columns:
        column.overflow = "fold"
    _Plain(markup=False, emoji=False, highlight=False).print(table)


class _Plain(Console):
    """A console that a name cannot drive: in cells, what cannot be seen (escape codes, for one) becomes U+FFFD."""

    def render_str(self, text: str, **options: Any) -> Text:
        from regard.draw.names import in_one_line

        return super().render_str(in_one_line(text), **options)


def figures_line(figures: Mapping[str, Any]) -> str:
    """Metrics in a line: `accuracy 0.9800, images 450`."""
    return ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


def printed(as_json: bool, as_csv: bool, whole: Any, rows: str) -> bool:
    """Prints JSON or CSV where one was asked for."""
    if as_json and as_csv:
        raise RegardError("choose one of --json and --csv")
    if as_json:
        from regard.files import json_text

        typer.echo(json_text(whole, indent=2))
    elif as_csv:
        typer.echo(rows, nl=False)
    return as_json or as_csv


def write_files(folder: Path | None, name: str, whole: Any, rows: str) -> None:
    """NAME.json and NAME.csv in `folder`, where there is one."""
    if folder is None:
        return
    from regard.files import write_json, write_whole

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", whole)
    write_whole(folder / f"{name}.csv", lambda beside: beside.write_text(rows, encoding="utf-8"))


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and a line for each row. Names are written so that they can be read; JSON keeps every byte of them."""
    from regard.draw.names import readable

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return readable(text.getvalue())
